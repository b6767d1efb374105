"""Inputs that are small, or small for what they stand for: each ends at once, in a line and in little memory."""

import base64
import json
import os
import socket
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from bounded import bounded, header_file

import fastinit as fi
from fastinit import checkpoint
from fastinit._core.composite import Cast, SameAs
from fastinit._io import documents
from fastinit._io.safetensors import read_header
from fastinit.checkpoint._blocks import BLOCK_BYTES, Blocks
from fastinit.plan import _serialization as spec
from fastinit.plan._fills import Fill

JOB = '[tensors."h.{0..2}.w"]\nshape = [30, 20]\nscheme = "normal"\n'


# --- what is no file ---

PLACES = "fastinit.json", "model.safetensors.index.json", "model-00001-of-00003.safetensors", "config.json"
COMMANDS = ["verify"], ["stats"], ["plan"], ["finalize"], ["write", "../job.toml", "--max-shard-bytes", "3KB", "--out"]
READ_ALL = """
import os, warnings
from processes import command
warnings.simplefilter("ignore")
for folder in sorted(os.listdir()):
    for words in commands:
        done = command(*words, folder)
        errors = [line for line in done.stderr.splitlines() if not line.endswith(" bytes")]  # the others are progress
        assert len(errors) <= 1, errors
        if "config.json" not in folder and words == ["stats"]:
            assert errors or "loop" in folder or folder.startswith("fastinit.json"), (folder, done.stdout)
        assert done.returncode == 0 or errors or "problems" in done.stdout, (folder, words, done.stdout)
"""


def special(folder):
    """Names of things that are no small files, made in a folder."""
    os.mkfifo(folder / "pipe")
    (folder / "zeros").symlink_to("/dev/zero")
    (folder / "full").symlink_to("/dev/full")
    (folder / "loop").symlink_to("loop")
    (folder / "folder").mkdir()
    with (folder / "huge").open("wb") as file:
        file.truncate(1 << 40)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.path.relpath(folder / "socket"))
    return "pipe", "zeros", "full", "loop", "folder", "huge", "socket"


def test_links_to_what_is_no_small_file(tmp_path, monkeypatch):
    """In each place that a command reads. Nothing waits for a pipe, fills memory or is more than one line."""
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    (tmp_path / "job.toml").write_text(JOB)
    checkpoint.write(fi.Plan.from_toml("job.toml"), "right", max_shard_bytes="3KB")
    right = {path.name: path.read_bytes() for path in Path("right").iterdir()}
    targets = tmp_path / "targets"
    targets.mkdir()
    copies = tmp_path / "copies"
    for thing in special(targets):
        for place in PLACES:
            folder = copies / f"{place}-{thing}"
            folder.mkdir(parents=True)
            for name, data in right.items():
                (folder / name).write_bytes(data)
            (folder / place).unlink(missing_ok=True)
            (folder / place).symlink_to(targets / thing)
    monkeypatch.chdir(copies)
    bounded(READ_ALL, commands=COMMANDS)


def test_sources_and_options_that_are_no_small_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.toml").write_text(JOB)
    names = [name for name in special(tmp_path) if name != "folder"]
    for name in names:
        for suffix in (".toml", ".json", ".safetensors"):
            (tmp_path / f"{name}{suffix}").symlink_to(name)
    bounded(
        """
from processes import command
for name in names:
    for suffix in (".toml", ".json", ".safetensors"):
        for words in (["plan"], ["write", "--out", "out"], ["stats", "--plan", f"{name}.toml"]):
            done = command(*words, name + suffix)
            assert done.returncode == 1, (name, suffix, words)
            assert len(done.stderr.splitlines()) == 1, done.stderr
    done = command("write", "job.toml", "--out", "out", "--config", name)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
""",
        names=names,
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["pipe", "loop"])
def test_a_page_into_a_pipe_that_nobody_reads(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.toml").write_text(JOB)
    checkpoint.write(fi.Plan.from_toml("job.toml"), "right")
    special(tmp_path)
    bounded(
        """
from processes import command
done = command("stats", "right", "--html", name)
assert done.returncode == 1
assert f"'{name}'" in done.stderr.splitlines()[-1], done.stderr
""",
        name=name,
    )


def test_a_page_into_a_pipe_that_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.toml").write_text(JOB)
    checkpoint.write(fi.Plan.from_toml("job.toml"), "right")
    special(tmp_path)
    bounded("""
import os, threading
from pathlib import Path
from processes import command
pages = []
def read():
    with open("pipe", "rb") as file:
        pages.append(file.read())
thread = threading.Thread(target=read)
thread.start()
done = command("stats", "right", "--html", "pipe")
assert done.returncode == 0, done.stderr
thread.join()
assert pages[0].rstrip().endswith(b"</html>")
""")


# --- headers ---

ROW = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
MANY_LISTS = '{"a":[' + "[]," * 20_000_000 + "[]]}"
HOSTILE_HEADERS = {
    "lists": (MANY_LISTS, "'a' must have at most 4,096 bytes"),
    "numbers": ('{"a":' + ROW.replace("[1]", "[" + "1," * 20_000_000 + "1]") + "}", "at most 4,096 bytes"),
    "an array": ("[" + "[]," * 20_000_000 + "[]]", "Expecting value"),
    "rows": ("{" + '"a":1,' * 10_000_000 + '"b":1}', "'a' must have dtype"),
    "a list in the metadata": ('{"__metadata__":' + MANY_LISTS[5:], "__metadata__ must be an object"),
    "names in the metadata": (json.dumps({"__metadata__": {f"k{i}": "" for i in range(2_000_000)}}), "at most"),
    "a wide character": ('{"\U0001f600' + "a" * 90_000_000 + '":1}', "names in the header must have at most"),
}  # fmt: skip


def test_a_header_that_is_wrong_takes_no_more_memory_than_its_text(tmp_path):
    cases = [
        (str(header_file(tmp_path / f"{i}.safetensors", text)), message)
        for i, (text, message) in enumerate(HOSTILE_HEADERS.values())
    ]
    bounded(
        """
from pathlib import Path
from fastinit._io.safetensors import read_header
for path, message in cases:
    refused(lambda: read_header(Path(path)), message)
""",
        cases=cases,
    )


def test_long_metadata_is_passed_over(tmp_path):
    """Trainers of adapters put megabytes there."""
    text = json.dumps(
        {"__metadata__": {"tags": '{"a": [1]}\u00e9' * 1_000_000}, "w": json.loads(ROW)}, ensure_ascii=False
    )
    path = header_file(tmp_path / "a.safetensors", text, 4)
    assert list(read_header(path)[1]) == ["w"]


def test_a_right_header_takes_little_memory(tmp_path):
    number = 20_000
    rows = {
        f"model.layers.{i // 100}.mlp.experts.{i % 100}.up_proj.weight": {
            "dtype": "BF16", "shape": [1 + i % 7, 4], "data_offsets": [0, 0],
        } for i in range(number)
    }  # fmt: skip
    end = 0
    for row in rows.values():
        row["data_offsets"] = [end, end := end + 2 * row["shape"][0] * row["shape"][1]]
    text = json.dumps(rows)
    path = header_file(tmp_path / "a.safetensors", text, end)
    read_header(path)
    tracemalloc.start()
    _, found = read_header(path)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert {name: (stored.shape, stored.start, stored.end) for name, stored in found.items()} == {
        name: (tuple(row["shape"]), *row["data_offsets"]) for name, row in rows.items()
    }
    assert kept < 350 * number
    assert peak < kept + 2 * len(text)


# --- documents ---

HOSTILE_DOCUMENTS = {
    ".json": {
        "lists": ('{"tensors":[' + "[]," * 10_000_000 + "1]}", "must have fewer values"),
        "numbers": ('{"tensors":[' + "1," * 10_000_000 + "1]}", "must have fewer values"),
        "deep": ('{"a":' * 500 + "1" + "}" * 500, "nested too deeply"),
        "digits": ('{"seed":' + "1" * 1_000_000 + "}", "digits"),
        "infinite": ('{"tensors":{"w":{"shape":[1e999],"scheme":"zeros"}}}', "shape must be an int"),
    },
    ".toml": {
        "a dotted key": (".".join(["a"] * 100_000) + "=1", "at most 16 parts"),
        "a dotted header": ("[" + ".".join(["a"] * 100_000) + "]", "at most 16 parts"),
        "quoted parts": (" . ".join(['"a"', "'b'", "c"] * 30_000) + "=1", "at most 16 parts"),
        "in a table": ("x={" + ".".join(["a"] * 100_000) + "=1}", "at most 16 parts"),
        "lists": ("x=[" + "[]," * 1_000_000 + "]", "must have fewer values"),
        "deep": ("x=" + "[" * 100_000, "nested too deeply"),
        "hex digits": ("seed=0x" + "f" * 1_000_000, "fewer than 4,000 digits"),
        "large": ("#" * 6_000_000, "at most 5,000,000 bytes"),
        "a hex size": ("[tensors.a]\nshape=[0x" + "f" * 3_900 + "]\nscheme='zeros'", "must be smaller than 2^63"),
    },
}  # fmt: skip


@pytest.mark.parametrize("suffix", HOSTILE_DOCUMENTS)
def test_documents_that_stand_for_much(tmp_path, suffix):
    cases = []
    for i, (text, message) in enumerate(HOSTILE_DOCUMENTS[suffix].values()):
        path = tmp_path / f"{i}{suffix}"
        path.write_text(text)
        cases.append((str(path), message))
    bounded(
        """
import fastinit
for path, message in cases:
    refused(lambda: fastinit.Plan.from_file(path), message)
""",
        cases=cases,
    )


def test_the_last_depth_and_number_of_values_that_are_read():
    assert documents.parse_json("[" * 64 + "1" + "]" * 64)
    with pytest.raises(ValueError, match="nested too deeply"):
        documents.parse_json("[" * 66 + "1" + "]" * 66)
    assert len(documents.parse_json("[" + "1," * 400_000 + "1]")) == 400_001
    assert documents.parse_toml("a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p = 1")["a"]
    name = "a." * 100
    assert documents.parse_toml(f'[tensors."{name}"]\ntied = "{name}"')["tensors"][name] == {"tied": name}


# --- shapes ---


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fi.he_normal([1] * 65), "shape must have at most 64 dimensions"),
        (lambda: fi.he_normal(iter(lambda: 1, 2)), "shape must have at most 64 dimensions"),
        (lambda: fi.he_normal((10**5000, 3)), r"shape must be smaller than 2\^63 bytes"),
        (lambda: fi.he_normal((2**31, 2**31)), r"shape must be smaller than 2\^63 bytes"),
        (lambda: fi.zeros((0, 2**62, 4)), r"shape must be smaller than 2\^63 bytes"),
        (lambda: fi.distribution("he_normal", (2**40, 2**40)), r"shape must be smaller than 2\^63 bytes"),
        (lambda: fi.fans((10**400, 3)), r"shape must be smaller than 2\^63 bytes"),
        (lambda: fi.fill(np.empty(1), fi.Normal(), shape=[1] * 10**6), "shape must have at most 64 dimensions"),
        (lambda: fi.he_normal((3, 3), batch_axes=range(10**9)), "batch_axes must be at most 64"),
        (lambda: Fill((2**61,), "float64", "zeros"), r"shape must be smaller than 2\^63 bytes"),
        (lambda: Fill((2**61, 0), "float64", "zeros"), r"shape must be smaller than 2\^63 bytes"),
    ],
)
def test_shapes_that_no_array_has(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_largest_shapes_that_arrays_have():
    assert fi.Plan({"w": ((2**60 - 1,), "float64", "zeros")}).nbytes == 2**63 - 8
    assert fi.zeros((1,) * 64).ndim == 64
    assert fi.zeros((0, 2**40)).size == 0


# --- distributions inside each other ---


def nested(depth, around):
    table = {"scheme": "normal"}
    for i in range(depth):
        table = around(i, table)
    return table


def drawn_as(i, table):
    return {"drawn_as": ("float32", "float64")[i % 2], "distribution": table}


DEEP_TABLES = {
    "distribution": nested(30, lambda _, table: {"distribution": table}),
    "drawn_as": nested(30, drawn_as),
    "same_as": nested(30, lambda _, table: {"same_as": ["a"], "distribution": table}),
    "parts": nested(30, lambda _, table: {"parts": [table]}),
}


def test_deep_distributions_in_a_plan():
    bounded(
        """
import fastinit
for row in tables:
    table = {"tensors": {"w": {"shape": [3], **row}}}
    refused(lambda: fastinit.Plan.from_table(table), "at most 8 deep")
""",
        tables=list(DEEP_TABLES.values()),
    )


def test_deep_distributions_are_checked_in_linear_time():
    """Made by hand they may be deeper than in a file; each law is checked once for each dtype."""
    bounded("""
import fastinit as fi
from fastinit._core.composite import Cast, SameAs
from fastinit._core.key import Key
law = fi.Normal()
for i in range(60):
    law = SameAs(("a",), Cast(law, ("float32", "float64")[i % 2]), (3,))
fill = fi.plan._fills.Fill((3,), "float64", law)
law.under(Key(0))
refused(lambda: fi.Plan({"w": fill}).to_table(), "at most 8 deep")
""")


def test_each_dtype_of_a_cast_is_checked():
    with pytest.raises(ValueError, match="float16"):
        Cast(Cast(fi.Normal(0, 1e6), "float16"), "float32").check((3,), "float64")
    with pytest.raises(ValueError, match="float16"):
        SameAs(("a",), Cast(fi.Normal(0, 1e6), "float32"), (3,)).check((3,), "float16")
    Cast(SameAs(("a",), Cast(fi.Normal(0, 1e6), "float32"), (3,)), "float64").check((3,), "float32")


def test_the_deepest_distribution_comes_back():
    table = {"shape": [3], "dtype": "float32", **nested(7, drawn_as)}
    plan = fi.Plan.from_table({"tensors": {"w": table}})
    assert fi.Plan.from_table(plan.to_table()).to_table() == plan.to_table()


def test_too_many_parts():
    parts = [{"scheme": "zeros"}] * (spec.MOST_PARTS + 1)
    with pytest.raises(ValueError, match=r"parts must be at most 10,000\. Received: 10,001"):
        fi.Plan.from_table({"tensors": {"w": {"shape": [3], "parts": parts}}})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("offset", 10**4000, "offset must be a number below"),
        ("offset", [], "offset must be a number"),
        ("strides", [[]], "strides must be a number"),
        ("strides", [1] * 100_000, "strides must be an int or a sequence of ints"),
        ("of_shape", [2**62, 4], "of_shape must be smaller than"),
    ],
)
def test_numbers_of_copies(key, value, message):
    with pytest.raises(ValueError, match=message):
        fi.Plan.from_table({"tensors": {"w": {"shape": [3], "scheme": "normal", "same_as": ["a"], key: value}}})


# --- patterns, rules, schemes and sizes as text ---

HOSTILE_TEXTS = [
    ("list(patterns.expand('{0..999999}{0..999999}'))", "more than 1,000,000 names"),
    ("list(patterns.expand('{0..9}' * 100))", "more than 1,000,000 names"),
    ("list(patterns.expand('{0..' + '9' * 5000 + '}'))", "must be a range"),
    ("list(patterns.expand('x' * 1_000_000 + '{0..1}'))", "at most 100,000 characters"),
    ("patterns.matches('{' * 90_000, 'x')", "unbalanced braces"),
    ("rules.parse('=a(' * 30_000 + ')' * 10_000)", "a scheme must be NAME"),
    ("rules.parse('a=' + ' ' * 90_000 + '!')", "must be PATTERN=SCHEME"),
    ("rules.parse('x' * 1_000_000 + '=zeros')", "must be PATTERN=SCHEME"),
    ("schemes.parse('normal(std=' + '(' * 1_000_000)", "a scheme must be NAME"),
    ("schemes.parse('normal(std=' + '1+' * 100_000 + '1)')", "a scheme must be NAME"),
    ("spec._read_region('[' + ' ' * 200_000 + ']', 1)", "region must be text"),
    ("spec._read_region('[' + '9' * 5_000 + ':]', 1)", "region must be text"),
    ("spec._read_region('[' + ':,' * 1_000_000 + ':]', 1)", "region must be text"),
    ("as_bytes('9' * 5_000 + 'GB')", "max_shard_bytes must be smaller than 2^63"),
    ("as_bytes('9' * 400)", "max_shard_bytes must be smaller than 2^63"),
    ("as_bytes(10**5_000)", "max_shard_bytes must be smaller than 2^63"),
    ("Part.of('1/' + '9' * 5_000)", "a part must be of the form"),
    ("Part.from_environment({'RANK': '9' * 5_000, 'WORLD_SIZE': '2'})", "RANK must be a number"),
    ("parse_sizes('9' * 90 + ',3')", "--sizes must be like"),
    ("fi.Plan.from_table({'tensors': {'x%d{0..99999}' % i: {'shape': [1], 'scheme': 'zeros'} for i in range(20)}})",
     "at most 1,000,000 names. Received: patterns of 2,000,000"),
    ("fi.Plan.from_table({'tensors': {'w': {'shape': [1], 'dtype': 'f4,' * 100_000, 'scheme': 'zeros'}}})",
     "dtype must be one of"),
]  # fmt: skip
IMPORTS = """
import fastinit as fi
from fastinit import schemes
from fastinit.checkpoint._layout import as_bytes
from fastinit.checkpoint._parts import Part
from fastinit.cli._probe import parse_sizes
from fastinit.plan import _patterns as patterns, _rules as rules, _serialization as spec
"""


def test_texts_that_stand_for_much():
    calls = "\n".join(f"refused(lambda: {code}, {message!r})" for code, message in HOSTILE_TEXTS)
    bounded(f"{IMPORTS}{calls}")


def test_patterns_do_not_backtrack():
    bounded("""
from fastinit.plan._patterns import matches
assert not matches("*a" * 3_000 + "b", "a" * 5_000)
assert not matches("{*a,*b}" * 3_000 + "c", "ab" * 300)
assert not matches("{*a*,*b*}" * 20 + "c", "ab" * 30)
assert not matches("{a,aa}" * 100 + "b", "a" * 120)
assert matches("{a,aa}" * 100, "a" * 150)
assert not matches("{0..999999}" * 5_000, "1" * 1_000)
assert matches("{0..999999}" * 500, "1" * 1_000)
assert not matches("?*" * 20_000 + "{a,b}", "a" * 10_000)
assert not matches("[" * 90_000, "[" * 3)
assert not matches("[a-z]*" * 10_000, "a" * 2_000)
""")


# --- given values ---


def values(data):
    return base64.b64encode(zlib.compress(data)).decode()


HOSTILE_VALUES = {
    "a shape that no memory holds": ({"shape": [2**58], "values": values(b"")}, "values must have at most 200,000,000"),
    "a gigabyte of zeros": ({"shape": [2**28], "values": values(bytes(2**24))}, "at most 200,000,000 bytes"),
    "fewer than the shape says": ({"shape": [40_000_000], "values": values(b"a")}, "values must be 160,000,000 bytes"),
    "more than the shape says": ({"shape": [4], "values": values(bytes(2**26))}, "values must be 16 bytes"),
    "a dtype of a structure": ({"shape": [1], "dtype": [["a", "f4"]] * 1000, "values": ""}, "dtype must be the name"),
}  # fmt: skip


def test_values_that_are_not_there():
    bounded(
        """
import fastinit
for row, message in cases:
    refused(lambda: fastinit.Plan.from_table({"tensors": {"w": row}}), message)
""",
        cases=list(HOSTILE_VALUES.values()),
    )


def test_values_are_counted_over_all_tensors():
    row = {"shape": [10_000_000], "dtype": "uint8", "values": values(bytes(10_000_000))}
    bounded(
        """
import fastinit
table = {"tensors": {f"w{i}": row for i in range(25)}}
refused(lambda: fastinit.Plan.from_table(table), '"w20"]: values must have at most')
""",
        row=row,
    )


def test_values_of_no_elements():
    plan = fi.Plan.from_table({"tensors": {"w": {"shape": [0, 3], "values": values(b"")}}})
    assert plan["w"].distribution.array.shape == (0, 3)
    with pytest.raises(ValueError, match="values must be 0 bytes"):
        fi.Plan.from_table({"tensors": {"w": {"shape": [0, 3], "values": values(b"a")}}})


def test_values_that_could_not_be_read_are_not_saved(tmp_path):
    header = '{"a":{"dtype":"I8","shape":[300000000],"data_offsets":[0,300000000]}}'
    header_file(tmp_path / "a.safetensors", header, 300_000_000)
    from fastinit import sources

    plan = sources.read(str(tmp_path / "a.safetensors")).plan
    for save in (plan.to_json, lambda: checkpoint.write(plan, tmp_path / "out")):
        with pytest.raises(ValueError, match="200,000,000 bytes"):
            save()
    assert not (tmp_path / "out").exists()


# --- checkpoints ---


def description(folder, tensors, max_shard_bytes=5_000_000_000):
    """A folder with a description of a checkpoint."""
    folder.mkdir(exist_ok=True)
    table = {
        "format": "fastinit checkpoint 1, stream 2", "seed": 0, "path": [], "max_shard_bytes": max_shard_bytes,
        "computed": [], "tensors": tensors,
    }  # fmt: skip
    (folder / "fastinit.json").write_text(json.dumps(table))
    return folder


LARGE = {
    "elementwise": {"shape": [2**56], "scheme": "normal"},
    "orthogonal": {"shape": [2**28, 2**28], "scheme": "orthogonal"},
    "sparse": {"shape": [2**28, 2**28], "scheme": "sparse", "sparsity": 0.5},
}


@pytest.mark.parametrize("what", LARGE)
def test_a_file_that_is_shorter_than_its_plan(tmp_path, what):
    """2^58 bytes are 2^34 blocks: none is listed, and no tensor is made whole, where the file has 100 bytes."""
    folder = description(tmp_path / "large", {"w": LARGE[what]})
    (shard,) = checkpoint.layout(fi.Plan.from_table({"tensors": {"w": LARGE[what]}})).shards
    (folder / shard.name).write_bytes(shard.header + bytes(100))
    bounded(
        """
from fastinit import checkpoint
for sample in (1.0, 0.01):
    found = checkpoint.verify(folder, sample=sample)
    assert "must have 288,230,376,151," in found.problems[0], found.problems
    assert found.differing[:1] == ("w",) or sample < 1
refused(lambda: checkpoint.survey(folder), "must take 288,230,376,151,711,744 bytes")
refused(lambda: checkpoint.finalize(folder), "not written yet", OSError)
""",
        folder=str(folder),
    )


def test_blocks_are_not_listed():
    plan = fi.Plan.from_table({"tensors": {"v": {"shape": [5], "scheme": "ones"}, "w": LARGE["elementwise"]}})
    (shard,) = checkpoint.layout(plan, 2**62).shards
    every = Blocks([(shard, None)])
    assert len(every) == -(-shard.nbytes // BLOCK_BYTES)
    assert (every.at(0).start, every.at(len(every) - 1).stop, every.nbytes) == (0, shard.nbytes, shard.nbytes)
    for size, number in ((0, 1), (BLOCK_BYTES - 1, 1), (BLOCK_BYTES, 2), (3 * BLOCK_BYTES + 5, 4)):
        cut = Blocks([(shard, size)])
        assert [block.start for block in cut] == [i * BLOCK_BYTES for i in range(number)]
        assert list(cut) == [cut.at(i) for i in range(len(cut))]


def test_a_sample_of_a_file_without_data(tmp_path):
    """A terabyte that takes no space on the disk."""
    tensors = {"w": {"shape": [2**38], "scheme": "zeros"}}
    folder = description(tmp_path / "large", tensors)
    (shard,) = checkpoint.layout(fi.Plan.from_table({"tensors": tensors})).shards
    with (folder / shard.name).open("wb") as file:
        file.write(shard.header)
        file.truncate(shard.nbytes)
    found = checkpoint.verify(folder, sample=1e-9)
    assert (found.problems, found.nbytes) == ((), BLOCK_BYTES)


def test_too_many_files(tmp_path):
    plan = fi.Plan({f"w{i}": ((1,), "float32", "zeros") for i in range(20)})
    assert len(checkpoint.layout(plan, 1).shards) == 20
    bounded("""
import fastinit as fi
from fastinit import checkpoint
plan = fi.Plan.from_table({"tensors": {"w.{0..100000}": {"shape": [1], "scheme": "zeros"}}})
refused(lambda: checkpoint.layout(plan, 1), "max_shard_bytes=1 gives more than 100,000 files")
""")


@pytest.mark.parametrize("count", ["99999999999", "9" * 200])
def test_a_name_that_counts_more_files_than_there_are(tmp_path, count):
    (tmp_path / f"model-00001-of-{count}.safetensors").write_bytes(b"")
    code = (
        "from fastinit import checkpoint\nrefused(lambda: checkpoint.survey(path), 'must have at most 100,000 files')"
    )
    bounded(code, path=str(tmp_path))


def test_an_index_of_more_files_than_there_are(tmp_path):
    index = {"weight_map": {f"w{i}": f"m{i}.safetensors" for i in range(100_001)}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"at most 100,000 files and 1,000,000 tensors\. Received: 100,001 and"):
        checkpoint.survey(tmp_path)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"{0..999999}": {"shape": [1], "scheme": "zeros"}}, r"must hold names. Received the pattern '\{0..999999\}'"),
        ({"w": {"shape": [2**62], "scheme": "zeros"}}, r"smaller than 2\^63 bytes"),
        (nested(100, lambda _, table: {"distribution": table}), "nested too deeply"),
        ([1], "no tensors"),
    ],
)
def test_descriptions_that_stand_for_much(tmp_path, tensors, message):
    folder = description(tmp_path / "folder", tensors)
    with pytest.raises(ValueError, match=message) as caught:
        checkpoint.verify(folder)
    assert str(folder / "fastinit.json") in str(caught.value)


def test_what_stands_for_much_more_work_than_its_size():
    """Long names many times, parts over each other, and a part of a matrix that would be made whole."""

    def plan(pattern="a", **row):
        return fi.Plan.from_table({"tensors": {pattern: {"shape": [4, 8], **row}}})

    normal = {"scheme": "normal"}
    with pytest.raises(ValueError, match="names of at most 100,000,000 characters in all"):
        plan("x" * 3000 + "{0..99999}", **normal)
    with pytest.raises(ValueError, match="more than 64 values are drawn for one"):
        plan(parts=[normal] * 65)
    with pytest.raises(ValueError, match="more than 64 values are drawn for one"):
        plan(parts=[{"parts": [normal] * 9, "region": "[0:4]"}] * 9)
    assert (
        len(plan(parts=[normal, *[{"region": f"[{i % 4}:{i % 4 + 1}]", "scheme": "zeros"} for i in range(240)]])) == 1
    )
    same = {"same_as": ["x"], "offset": 0, "strides": [40_000, 1]}
    with pytest.raises(ValueError, match=r"of_shape must have at most 268,435,456 elements"):
        plan(scheme="orthogonal", of_shape=[40_000, 40_000], **same)
    assert len(plan(**normal, of_shape=[40_000, 40_000], **same)) == 1
    with pytest.raises(ValueError, match="values must be base64 of zlib"):
        plan(values="é")
