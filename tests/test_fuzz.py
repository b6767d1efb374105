"""Hostile files and texts, given to the commands: one line, in bounded time and memory, and nothing outside is changed.

`pytest -m slow tests/test_fuzz.py` runs some twenty seconds of it. FASTINIT_EXAMPLES=10000 runs so many examples of
each kind, other ones each time. A failure prints the example, and how to run it again.
"""

import os
from dataclasses import dataclass

import pytest
from fuzz_documents import KNOWN, RIGHT, Document, Written, documents
from fuzz_folders import Entry, Hostile, files_of, folders, make_outside
from fuzz_runs import World
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

NUMBER = int(os.environ.get("FASTINIT_EXAMPLES", "0"))

pytestmark = pytest.mark.filterwarnings("default")  # the commands show them; as errors they would end others


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("fuzz")
    found = World(root / "watched", make_outside(root / "outside"))
    warm_up(found)
    return found


def warm_up(world):
    """What only the first command does: imports, compiled kernels, worker threads."""
    for base, command in (("one", "stats"), ("many", "verify"), ("staged", "finalize"), ("config", "plan")):
        world.clear()
        InFolder(Hostile(base), command).run(world)
    world.clear()
    File("plan.toml", Document("plan.toml"), "write").run(world)


READING = {
    "plan": ["plan", "IN"],
    "plan --json": ["plan", "IN", "--json"],
    "plan --toml": ["plan", "IN", "--toml", "--scheme=normal"],
    "plan --rule": ["plan", "IN", "--scheme=he_normal", "--rule=*.weight=normal(std=0.5)"],
    "stats": ["stats", "IN"],
    "stats --json": ["stats", "IN", "--json"],
    "stats --plan": ["stats", "CHECKPOINT", "--plan", "IN"],
    "write": ["write", "IN", "--out", "OUT", "--scheme=normal", "--no-fsync", "--json"],
    "write --config": ["write", "PLAN", "--out", "OUT", "--config", "IN", "--no-fsync", "--json"],
    "verify": ["verify", "IN"],
    "verify --sample": ["verify", "IN", "--sample=1%", "--json"],
}
CHANGING = {
    "write into": ["write", "PLAN", "--out", "IN", "--no-fsync", "--json"],
    "write shards into": ["write", "PLAN", "--out", "IN", "--max-shard-bytes=500", "--no-fsync", "--json"],
    "write --overwrite": ["write", "PLAN", "--out", "IN", "--overwrite", "--no-fsync", "--json"],
    "write --part": ["write", "PLAN", "--out", "IN", "--part=3/3", "--max-shard-bytes=500", "--no-fsync", "--json"],
    "verify --repair": ["verify", "IN", "--repair"],
    "finalize": ["finalize", "IN"],
}
COMMANDS = READING | CHANGING
WITH_TEXT = {
    "plan --rule": ["plan", "PLAN", "--rule=TEXT"],
    "plan --scheme": ["plan", "PLAN", "--scheme=TEXT"],
    "plan --dtype": ["plan", "PLAN", "--dtype=TEXT"],
    "stats --name": ["stats", "CHECKPOINT", "--json", "--name=TEXT"],
    "stats --plan": ["stats", "CHECKPOINT", "--plan=TEXT"],
    "write --max-shard-bytes": ["write", "PLAN", "--out", "OUT", "--no-fsync", "--json", "--max-shard-bytes=TEXT"],
    "write --part": ["write", "PLAN", "--out", "OUT", "--no-fsync", "--json", "--part=TEXT"],
    "write --engine": ["write", "PLAN", "--out", "OUT", "--engine=TEXT"],
    "verify --sample": ["verify", "CHECKPOINT", "--sample=TEXT"],
    "plan": ["plan", "--", "TEXT"],
    "stats": ["stats", "--", "TEXT"],
    "verify": ["verify", "--", "TEXT"],
    "finalize": ["finalize", "--", "TEXT"],
}
PIECES = [
    "a", "*", "?", "[", "]", "!", "{", "}", ",", "..", "0", "999999", "9" * 30, "{0..999999}", "{a,b}", "[!a]", "*a",
    "[{]", "w", ".", "normal", "(std=", "(", ")", "=", "=normal", "=normal(std=0.5)", "=orthogonal(gain=", "1e400",
    "nan", "-1", "'", '"', "\\", "(?P<n>", "|", "+1", "not ", "lambda:0", "__import__('os')", "\x1b[2J", "\u202e",
    "\udcff", "\n", "%", "GB", "/", "1/2", "float32", "auto", "1" * 5000, "#", "**", "[1,", "{1:", "model:f",
    " ", "-",
]  # fmt: skip
VARIABLES = (
    "RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT",
    "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP",
)  # fmt: skip
NUMBERS = "", "0", "1", "2", "-1", "1e9", "9" * 30, "9" * 5000, "\u0663", "\xb2", " 1", "1\n", "\x1b[2J", "\udcff", "x"


# --- cases ---


@dataclass(frozen=True)
class File:
    """A document under a name of its kind, for a command."""

    name: str
    document: Document | Written
    command: str

    def run(self, world):
        Hostile("many").make(world.inside, world.outside)
        path = world.inside / self.name
        path.write_bytes(self.document.data())
        return world.run(*places(world, COMMANDS[self.command], IN=path))


@dataclass(frozen=True)
class InFolder:
    folder: Hostile
    command: str

    def run(self, world):
        self.folder.make(world.inside, world.outside)
        return world.run(*places(world, COMMANDS[self.command]), changes=self.command in CHANGING)


@dataclass(frozen=True)
class Text:
    command: str
    text: str

    def run(self, world):
        words = places(world, WITH_TEXT[self.command])
        return world.run(*(str(word).replace("TEXT", self.text) for word in words))


@dataclass(frozen=True)
class Environment:
    variables: dict[str, str]

    def run(self, world):
        words = places(world, ["write", "PLAN", "--out", "OUT", "--part=auto", "--no-fsync", "--json"])
        return world.run(*words, environment=self.variables)


def places(world, words, **others):
    meant = {
        "IN": world.inside,
        "OUT": world.out,
        "PLAN": world.outside / "plan.json",
        "CHECKPOINT": world.outside / "checkpoint",
    }
    return [(meant | others).get(word, word) for word in words]


def check(world, case):
    world.clear()
    faults = case.run(world).faults
    assert not faults, "\n".join(faults)


# --- random cases ---

NAMES = {
    "plan.toml": ("job.toml", "plan.toml"),
    "plan.json": ("job.json", "plan.json"),
    "model.safetensors": ("one model.safetensors",),
    "model.safetensors.index.json": ("many model.safetensors.index.json",),
    "fastinit.json": ("one fastinit.json", "many fastinit.json"),
}
OF_FILES = [name for name in READING if not name.startswith("verify")]
CONFIGS = tuple(name for name in RIGHT if name.startswith("config "))
TEXTS = st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from([1, 1, 1, 1, 2, 30, 5000])), max_size=8).map(
    lambda parts: "".join(piece * number for piece, number in parts)[:100_000]
)
CASES = {
    "files": st.one_of(
        [st.builds(File, st.just(name), documents(bases), st.sampled_from(OF_FILES)) for name, bases in NAMES.items()]
    ),
    "configs": st.builds(
        File, st.just("config.json"), documents(CONFIGS, 2), st.sampled_from(["plan", "plan --json", "write"])
    ),
    "folders": st.builds(InFolder, folders(), st.sampled_from(sorted(COMMANDS))),
    "texts": st.builds(Text, st.sampled_from(sorted(WITH_TEXT)), TEXTS),
    "environments": st.builds(
        Environment, st.dictionaries(st.sampled_from(VARIABLES), st.sampled_from(NUMBERS), min_size=1)
    ),
}


def fuzz(world, name, number):
    @settings(
        max_examples=NUMBER or number,
        derandomize=not NUMBER,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(CASES[name])
    def every(case):
        check(world, case)

    every()


SOME = {"files": 40, "configs": 8, "folders": 40, "texts": 60, "environments": 20}


@pytest.mark.parametrize("name", CASES)
def test_hostile_input(world, name):
    fuzz(world, name, SOME[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_much_hostile_input(world, name):
    fuzz(world, name, 4 * SOME[name])


# --- known cases ---


@pytest.mark.parametrize("name", KNOWN)
def test_known_documents(world, name):
    file = name.partition(": ")[0]
    for command in ["plan"] if file == "config.json" else ["plan", "stats", "stats --plan", "write"]:
        check(world, File(file, KNOWN[name], command))
    if file.startswith(("model", "fastinit")):
        for command in "verify", "verify --repair", "finalize":
            check(world, InFolder(Hostile("many", (Entry(file, "document", KNOWN[name]),)), command))


@pytest.mark.parametrize("command", ["verify", "verify --sample", "verify --repair", "finalize", "stats"])
def test_known_sizes(world, command):
    entries = [
        Entry(name, "document", KNOWN[f"{name}: 2**58 elements"]) for name in ("fastinit.json", "model.safetensors")
    ]
    check(world, InFolder(Hostile("one", tuple(entries)), command))


KNOWN_TEXTS = "*a" * 60 + "b", "{0..999999}{0..999999}", "[" * 5000, "=" * 100_000


@pytest.mark.parametrize("text", KNOWN_TEXTS, ids=lambda text: text[:8])
def test_known_texts(world, text):
    for command in WITH_TEXT:
        check(world, Text(command, text))
        check(world, Text(command, f"{text}=zeros"))


@pytest.mark.parametrize("step", ["0", "-1", "9" * 30])
def test_known_environments(world, step):
    array = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "0"}
    check(world, Environment(array | {"SLURM_ARRAY_TASK_STEP": step}))


PLANTED = (
    Entry(".fastinit/planted.py", "right"),
    Entry(".fastinit/folder/planted", "right"),
    Entry(".fastinit/config.json", "link to a file outside"),
    Entry(".fastinit/model-00001-of-00003.safetensors", "link to a file outside"),
    Entry(".fastinit/fastinit.json", "right"),
    Entry(".fastinit/moving", "right"),
    Entry(".fastinit", "link outside"),
)


@pytest.mark.parametrize("command", CHANGING)
@pytest.mark.parametrize("base", ["one", "staged", "moving"])
def test_known_folders(world, base, command):
    for entries in (*((entry,) for entry in PLANTED), PLANTED[:-1]):
        check(world, InFolder(Hostile(base, entries), command))


@pytest.mark.parametrize("name", ["model-00001-of-00000.safetensors", "model-00001-of-99999999.safetensors"])
def test_known_numbers_of_shards(world, name):
    for command in READING:
        check(world, InFolder(Hostile("empty", (Entry(name, "right"),)), command))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pipe", "/dev/zero"])
@pytest.mark.parametrize("command", COMMANDS)
def test_each_file_is_another_kind(world, command, kind):
    for base in ("staged", "moving", "hub", "config"):
        for name in files_of(base):
            check(world, InFolder(Hostile(base, (Entry(name, kind),)), command))
