"""What the commands print: no character that a terminal obeys, no endless line, one line for any error; and where to,
also into streams that take nothing, or not every character."""

import base64
import contextlib
import json
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import pytest
from processes import command, environment

import fastinit as fi
from fastinit import checkpoint
from fastinit._io.html import page, table
from fastinit._io.progress import progress_bar
from fastinit._io.text import LONGEST_CELL, LONGEST_LINE, aligned
from fastinit._runtime import environment as machine
from fastinit.checkpoint._folder import Folder
from fastinit.checkpoint._parts import Part

# Escape sequences in 7 and 8 bits, line breaks of all kinds, directions of writing, spaces that are none, and others.
HOSTILE = (
    "a\x1b[2J",
    "\x9b2Jb",
    "c\nd",
    "\re\u2028f\x85",
    "\u202eg\u2066",
    "\x7f\t\x08",
    "\u200b\ufeff\xa0",
    "é☃\U0001f600",
)
CHARSETS = "utf-8", "ascii", "latin-1", "cp1252"
JOB = """seed = 4
[tensors."h.{0..2}.weight"]
shape = [30, 20]
scheme = "xavier_uniform"
"""


def saved(path, names):
    """A safetensors file with tensors of two elements each, whose `names` may be such as no library writes."""
    table = {name: {"dtype": "F32", "shape": [2], "data_offsets": [8 * i, 8 * i + 8]} for i, name in enumerate(names)}
    header = json.dumps(table).encode()
    Path(path).write_bytes(len(header).to_bytes(8, "little") + header + bytes(8 * len(table)))
    return path


def clean(done, code=0):
    """Check all lines that a command printed; return those on stdout and on stderr."""
    assert done.returncode == code, done
    found = done.stdout.splitlines(), done.stderr.splitlines()
    assert all(line.isprintable() for lines in found for line in lines), found
    assert all(len(line) <= LONGEST_LINE for line in found[1])
    return found


def one_line(done):
    out, err = clean(done, 1)
    assert (out, len(err)) == ([], 1), done
    assert err[0].startswith("fastinit: ")
    return err[0]


@pytest.fixture
def job(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text(JOB)
    return path


# --- names ---


@pytest.mark.parametrize("charset", CHARSETS)
def test_names_of_tensors_files_and_folders(tmp_path, charset):
    def run(*arguments, code=0):
        return clean(command(*arguments, charset=charset), code)[0]

    folder, out = tmp_path / "in\x1b[2J\n\udcff", tmp_path / "out\u202e\n\udcff"
    folder.mkdir()
    saved(folder / "m\x1b]0;x\x07\udcfe.safetensors", HOSTILE)
    rows = len(HOSTILE)
    assert len(run("stats", folder)) == rows + 2
    assert len(run("plan", folder, "--scheme", "normal")) == rows + 1
    assert len(run("write", folder, "--scheme", "normal", "--out", out)) == 1
    assert len(run("verify", out)) == 1
    assert len(run("finalize", out)) == 1
    assert list(json.loads("".join(run("plan", folder, "--scheme", "normal", "--json")))["tensors"]) == list(HOSTILE)
    assert json.loads(run("verify", out, "--json")[0])["path"] == str(out)
    assert json.loads(run("stats", folder, "--json")[0])["path"] == str(folder)
    run("plan", folder, "--scheme", "normal", "--toml")
    saved(out / "model.safetensors", [HOSTILE[0], *(name + "\x1b[31m" for name in HOSTILE[1:])])
    assert len(run("verify", out, code=1)) == 2 * (rows - 1) + 2  # and the first differs
    saved(out / "model.safetensors", [*HOSTILE, HOSTILE[0] + "\n"])
    assert len(run("verify", out, code=1)) == rows + 2
    one_line(command("verify", folder, charset=charset))
    one_line(command("plan", folder, charset=charset, cwd=folder))


def test_the_key_of_a_checkpoint(tmp_path):
    """`fastinit.json` holds names that are not those of tensors too."""
    key = fi.Key(3) / "\x1b[2J\n" / ("x" * 10_000)
    checkpoint.write(fi.Plan({"a": ((3,), "float32", "zeros")}), tmp_path, seed=key, fsync=False)
    (line,) = clean(command("verify", tmp_path))[0]
    assert ": sound; 1 tensors, " in line
    assert len(line) <= LONGEST_LINE


def test_the_schemes_of_a_plan_from_a_file(tmp_path):
    path = tmp_path / "plan.json"
    row = {"shape": [2], "same_as": ["\x1b[2J\n" + "x" * 10_000], "scheme": "normal"}
    path.write_text(json.dumps({"tensors": {"a": row}}))
    lines, _ = clean(command("plan", path))
    assert len(lines) == 2
    assert len(lines[0]) < 2 * LONGEST_CELL


def test_half_a_surrogate_pair(job, tmp_path):
    """JSON can spell one; no text file can hold it."""
    saved(tmp_path / "a.safetensors", ["\ud800"])
    assert "\\ud800" in one_line(command("plan", tmp_path / "a.safetensors", "--scheme", "normal"))
    assert b"\\ud800" in page("\ud800", ["\ud800", table(["\ud800"], [["\ud800"]])], ["\ud800"]).encode()
    config = tmp_path / "config.json"
    config.write_text('{"model_type": "x", "name": "\\ud800"}')
    clean(command("write", job, "--out", tmp_path / "out", "--config", config, "--dtype", "bfloat16"))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["name"] == "\ud800"


def test_a_printed_plan_holds_ascii_and_is_the_same_plan(tmp_path):
    plan = fi.Plan(dict.fromkeys(HOSTILE, ((2,), "float32", "normal")))
    for text, path in (plan.to_toml(), tmp_path / "plan.toml"), (plan.to_json(), tmp_path / "plan.json"):
        assert text.isascii()
        assert all(line.isprintable() for line in text.split("\n"))
        path.write_text(text)
        assert fi.Plan.from_file(path).to_table() == plan.to_table()


def test_a_very_long_name(tmp_path):
    long = "m" * 60_000
    path = saved(tmp_path / "model.safetensors", [long, *(f"n.{i}" for i in range(200))])
    for arguments in ("stats", path), ("plan", path, "--scheme", "normal"):
        lines, _ = clean(command(*arguments))
        assert max(map(len, lines)) < 4 * LONGEST_CELL
        assert any(re.match(r"mmm+\.\.\.mmm+  ", line) for line in lines)
    assert "..." in one_line(command("plan", path, "--rule", f"{long}=he_norml"))
    checkpoint.write(fi.Plan({"a": ((2,), "float32", "zeros")}), tmp_path / "out", fsync=False)
    saved(tmp_path / "out" / "model.safetensors", ["a", long])
    problem, verdict = clean(command("verify", tmp_path / "out"), 1)[0]
    assert len(problem) == LONGEST_LINE
    assert problem.endswith("is not in the plan")
    assert ": 1 problems; " in verdict


def test_cells_of_tables_are_escaped_and_shortened():
    lines = aligned([["a\x1b\n", "x" * 10**7], ["b", "1"]], left=[0])
    assert lines == [f"a\\x1b\\n  {'x' * 99}...{'x' * 98}", f"b{' ' * 207}1"]


def test_texts_of_the_library_are_escaped_and_shortened(tmp_path):
    """In Python warnings and problems are printed too."""
    folder = tmp_path / "\x1b[2J"
    checkpoint.write(fi.Plan({"a": ((2,), "float32", "zeros")}), folder, fsync=False)
    saved(folder / "model.safetensors", ["a", "\x1b[31m\n" + "m" * 1000])
    (problem,) = checkpoint.verify(folder).problems
    assert problem.isprintable()
    assert len(problem) == LONGEST_LINE
    index = {"weight_map": dict.fromkeys(("a", "\x1b[31m\n" + "m" * 1000), "x\x1b.safetensors")}
    (folder / "x\x1b.safetensors.index.json").write_text(json.dumps(index))
    saved(folder / "x\x1b.safetensors", ["a"])
    with pytest.warns(UserWarning, match="in no file of the index") as caught:
        checkpoint.survey(folder / "x\x1b.safetensors.index.json")
    assert all(str(one.message).isprintable() for one in caught)
    assert all(len(str(one.message)) <= LONGEST_LINE for one in caught)


# What `info` shows in a form of its own.
INFO = {
    "versions": {},
    "threads_reason": "",
    "memory_limit_reason": "",
    "cpu_levels": [],
    "kernels_cached": 0,
    "kernels": 0,
}


def test_a_warning_is_one_line(monkeypatch):
    def warns():
        warnings.warn("\x1b[2J\na " + "x" * 10**6, stacklevel=1)
        return INFO | {"cgroup": "\x1b[2J\n"}

    monkeypatch.setattr(machine, "info", warns)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        out, err = clean(command("info"))
    assert "cgroup            \\x1b[2J\\n" in out
    assert err[0].startswith("fastinit: warning: \\x1b[2J a xxx")


def test_a_log_of_a_library_is_one_line(monkeypatch):
    def logs():
        logger, handler = logging.getLogger("test_printing"), logging.StreamHandler(sys.stderr)
        logger.addHandler(handler)
        try:
            logger.warning("a %s\n\u202e%s", "\x1b[2J", "x" * 10**6)
        finally:
            logger.removeHandler(handler)
        return dict(INFO)

    before = logging.getLogRecordFactory()
    monkeypatch.setattr(machine, "info", logs)
    _, (line,) = clean(command("info"))
    assert line.startswith("a \\x1b[2J \\u202exxx")
    assert logging.getLogRecordFactory() is before


@pytest.mark.slow
def test_what_transformers_logs_of_a_config(tmp_path):
    config = tmp_path / "config.json"
    config.write_text('{"model_type": "llama", "hidden_size": 16, "use_return_dict": "\\u001b[2J"}')
    done = shell('$RUN plan "$1"', config)
    assert done.returncode == 1
    assert "\\x1b[2J" in done.stderr
    assert all(line.isprintable() and len(line) <= LONGEST_LINE for line in done.stderr.splitlines())


@pytest.mark.parametrize("text", [*HOSTILE[:-1], "\udcff", "x" * 100_000])
def test_errors_of_the_command_line(job, text):
    for arguments in (
        [text],
        ["plan", f"--{text}"],
        ["plan", job, text],
        ["plan", job, "--seed", text],
        ["stats", job, "--threads", text],
    ):
        _, err = clean(command(*arguments), 2)
        assert err[-1].startswith("Error: ")
        assert len(err) == 4


# --- errors ---


class UntoldError(Exception):
    def __str__(self):
        raise RuntimeError


class Ended(BaseException):
    pass


ERRORS = [
    RecursionError("maximum recursion depth exceeded"), OverflowError("too large"), KeyError("x\x1b"),
    IndexError("range"), AttributeError("no"), ZeroDivisionError("by zero"), NotImplementedError(),
    AssertionError(), StopIteration(),
    zlib.error("-3"), struct.error("unpack"), re.error("pattern"), EOFError("ended"),
    RuntimeError("a\x1b[2J\n" + "x" * 10**6),
    ExceptionGroup("several", [ValueError("one")]), UntoldError(), SystemExit(0), GeneratorExit(), Ended("now"),
]  # fmt: skip


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_unexpected_error_is_one_line_too(monkeypatch, error):
    def fails():
        raise error

    monkeypatch.setattr(machine, "info", fails)
    line = one_line(command("info"))
    assert line.startswith(f"fastinit: unexpected {type(error).__name__} in test_printing.py, line ")
    assert line.endswith("FASTINIT_TRACEBACK=1 shows the traceback; report it if the fault is fastinit's")
    monkeypatch.setenv("FASTINIT_TRACEBACK", "1")
    out, err = clean(command("info"), 1)
    assert (out, err[-1]) == ([], line)
    assert any("Traceback (most recent call last)" in text for text in err)
    assert any("in fails" in text for text in err)


def test_an_expected_error_has_a_traceback_where_it_is_wanted(monkeypatch, tmp_path):
    line = one_line(command("verify", tmp_path / "none"))
    monkeypatch.setenv("FASTINIT_TRACEBACK", "1")
    _, err = clean(command("verify", tmp_path / "none"), 1)
    assert (err[0], err[-1]) == ("Traceback (most recent call last):", line)


CODE = """
def model():
    raise RuntimeError('\\x1b[2J')
def ends():
    raise SystemExit(0)
"""


def test_an_error_of_the_users_code_names_its_place(tmp_path):
    (tmp_path / "code_of_a_user.py").write_text(CODE)
    line = one_line(command("plan", "code_of_a_user:model", cwd=tmp_path))
    assert "unexpected RuntimeError in code_of_a_user.py, line 3: \\x1b[2J. " in line
    assert "SystemExit in code_of_a_user.py, line 5" in one_line(command("plan", "code_of_a_user:ends", cwd=tmp_path))


# --- fastinit.json ---


class MISSING:
    """Instead of a value: the key is deleted."""


NO_NAMES = None, 1, "abc", {}, [1], [None], [["a"]]
BROKEN = [
    *((("format",), value) for value in (MISSING, None, 2, [], "fastinit checkpoint 1, stream 1", "x" * 10**5)),
    *((("seed",), value) for value in (MISSING, None, -1, 1.0, 1.5, True, "x", [], {})),
    *((("path",), value) for value in (MISSING, *NO_NAMES, ["\ud800"])),
    *((("max_shard_bytes",), value) for value in (MISSING, None, 0, -1, 1e9, float("inf"), True, "5GB", [], {})),
    *((("computed",), value) for value in (MISSING, *NO_NAMES, ["none"])),
    *((("tensors",), value) for value in (MISSING, None, 1, "a", [], [1], {"a": 1}, {"a": {}}, {"": {}})),
    *((("tensors", "a"), value) for value in (None, 1, "zeros", [], {}, {"tied": 1}, {"tied": "none"}, {"tied": "a"})),
    *((("tensors", "a", "shape"), value) for value in (MISSING, None, "x", [-1], [1.5], ["x"], [[1]], [True], {})),
    *((("tensors", "a", "dtype"), value) for value in (None, 1, "x", "int8", "object", [], {})),
    *((("tensors", "a", "scheme"), value) for value in (MISSING, None, 1, "x", [], {}, "\x1b[2J\n")),
    *((("tensors", "a", "std"), value) for value in (None, "x", -1, float("nan"), [], {})),
    *((("tensors", "a", "layout"), value) for value in (None, 1, "x", [])),
    *((("tensors", "a", "batch_axes"), value) for value in (None, "x", [9], [0.5])),
    *((("tensors", "a", "persistent"), value) for value in (None, 1, "x")),
    *((("tensors", "values", "values"), value) for value in (MISSING, None, 1, "x", "é", "eJxjYAAAAAIAAQ==", [])),
    *((("tensors", "values", "values_dtype"), value) for value in (None, 1, "x", "object", "V8", [])),
    *((("tensors", "values", "shape"), value) for value in ([2**63], [2**64], [10**30, 10**30])),
    *((("tensors", "tied", "tied"), value) for value in (None, 1, "none", "tied", [])),
]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The description of a checkpoint that has all kinds of tensors, as a table, and its folder."""
    values = {"shape": [2], "dtype": "int64", "values": base64.b64encode(zlib.compress(bytes(16))).decode()}
    normal = {"shape": [3, 4], "dtype": "float32", "scheme": "normal", "mean": 0.0, "std": 1.0}
    plan = fi.Plan.from_table({"tensors": {"a": normal, "tied": {"tied": "a"}, "values": values}})
    folder = tmp_path_factory.mktemp("written")
    checkpoint.write(plan, folder, fsync=False)
    return json.loads((folder / "fastinit.json").read_text()), folder


def test_the_description_is_sound_as_it_is(written):
    assert checkpoint.verify(written[1]).problems == ()


@pytest.mark.parametrize(("place", "value"), BROKEN, ids=lambda x: ascii(x)[:40])
def test_an_edited_description_of_a_checkpoint(written, tmp_path, place, value):
    table = json.loads(json.dumps(written[0]))
    part = table
    for name in place[:-1]:
        part = part[name]
    if value is MISSING:
        del part[place[-1]]
    else:
        part[place[-1]] = value
    path = tmp_path / "fastinit.json"
    path.write_text(json.dumps(table))
    with pytest.raises(ValueError, match="is no description of a checkpoint: ") as caught:
        Folder(tmp_path).placed_job()
    assert str(path) in str(caught.value)
    assert str(path) in one_line(command("verify", tmp_path))


@pytest.mark.parametrize("text", ["", "x", "[]", "1", "null", '"x"', "{}", "[" * 10**5, '{"a": 1, "a": 1}', "\ufeff{}"])
def test_a_description_that_is_none(tmp_path, text):
    (tmp_path / "fastinit.json").write_text(text)
    for name in "verify", "finalize":
        assert "fastinit.json is no description of a checkpoint: " in one_line(command(name, tmp_path))
    saved(tmp_path / "model.safetensors", ["a"])
    assert "fastinit.json is no description of a checkpoint: " in one_line(command("stats", tmp_path))[-LONGEST_LINE:]


# --- parts ---

ARRAY = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "4"}


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "１", "WORLD_SIZE": "2"}, "RANK must be a number. Received: '１'"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK must be a number. Received: '-1'"),
        ({"RANK": "1" * 5000, "WORLD_SIZE": "2"}, "RANK must be a number. Received: '111"),
        ({"RANK": "0", "WORLD_SIZE": "\x1b[2J"}, r"WORLD_SIZE must be a number. Received: '\x1b[2J'"),
        ({"RANK": "3", "WORLD_SIZE": "2"}, "a part must be from 1/2 to 2/2. Received: 4/2"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "a job must have at least one part. Received: 1/0"),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "0"}, "a job must have at least one part. Received: 1/0"),
        ({"SLURM_PROCID": "5", "SLURM_NTASKS": "4", **ARRAY}, "a part must be from 1/4 to 4/4. Received: 6/4"),
        ({**ARRAY, "SLURM_ARRAY_TASK_STEP": "0"}, "SLURM_ARRAY_TASK_STEP must be positive. Received: '0'"),
        ({**ARRAY, "SLURM_ARRAY_TASK_STEP": "x"}, "SLURM_ARRAY_TASK_STEP must be a number. Received: 'x'"),
        ({**ARRAY, "SLURM_ARRAY_TASK_MIN": "9"}, "a part must be from 1/4 to 4/4. Received: -5/4"),
    ],
)
def test_a_part_of_an_environment_that_is_wrong(job, monkeypatch, tmp_path, variables, message):
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS", *ARRAY):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert one_line(command("write", job, "--out", tmp_path / "out", "--part", "auto")).startswith(
        f"fastinit: {message}"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text", ["", "1", "1/", "/2", "0/2", "3/2", "1/0", "１/2", "1/２", "²/2", f"1/{'2' * 5000}", "-1/2"]
)
def test_a_part_that_is_none(text):
    with pytest.raises(ValueError, match=r"^a part must be ") as caught:
        Part.of(text)
    assert "Received: " in str(caught.value)


# --- streams ---

RUN = [sys.executable, "-P", "-m", "fastinit.cli"]


def shell(script, *arguments, **variables):
    """A line of bash, with `$RUN` for the command."""
    full = ["bash", "-c", script.replace("$RUN", " ".join(RUN)), "bash", *map(str, arguments)]
    return subprocess.run(full, capture_output=True, text=True, timeout=120, check=False, env=environment(**variables))


@pytest.mark.parametrize("redirect", ["2>/dev/full", "2> >(true)", "2>&-"])
def test_a_stderr_that_takes_nothing_does_not_end_the_work(job, tmp_path, redirect):
    done = shell(f'$RUN write "$1" --out "$2" {redirect}; echo $?', job, tmp_path / "out")
    assert done.stdout.splitlines()[-1] == "0"
    assert "1 files (1 written now)" in done.stdout
    assert checkpoint.verify(tmp_path / "out").problems == ()


@pytest.mark.slow
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("$RUN verify none 2>/dev/full", 1),
        ("$RUN none 2>/dev/full", 2),
        ("$RUN 2>/dev/full", 2),
        ("$RUN plan job.toml 2>/dev/full", 0),
        ("$RUN plan job.toml >/dev/full", 1),
        ("$RUN plan job.toml >/dev/full 2>/dev/full", 1),
        ("$RUN --help >/dev/full", 1),
        ("$RUN --version >/dev/full", 1),
        ("$RUN --help | true; (exit ${PIPESTATUS[0]})", 1),
    ],
)
def test_exit_codes_where_nothing_can_be_printed(job, monkeypatch, script, code, unbuffered):
    monkeypatch.chdir(job.parent)
    done = shell(f"{script}; echo $?", PYTHONUNBUFFERED=unbuffered)
    assert done.stdout.splitlines()[-1] == str(code)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert len(done.stderr.splitlines()) <= 1


def test_a_name_in_a_process_without_unicode(tmp_path):
    saved(tmp_path / "é\x1b.safetensors", ["é☃", "a\x1b[2J"])
    script = 'cd "$1"; $RUN stats .; $RUN plan . --scheme normal; $RUN verify é; $RUN schemes'
    done = shell(script, tmp_path, PYTHONIOENCODING="ascii:strict")
    assert "\n\\xe9\\u2603        float32" in done.stdout
    assert "\na\\x1b[2J  float32" in done.stdout
    assert "\na\\x1b[2J  2  float32  normal" in done.stdout
    assert "| `he_normal" in done.stdout
    assert done.stdout.isascii()
    assert "fastinit: \\xe9 is no folder: it does not exist\n" in done.stderr
    assert done.stderr.isascii()
    assert "\x1b" not in done.stderr


def test_help_has_only_characters_that_every_terminal_has():
    for name in "", "plan", "write", "verify", "finalize", "stats", "probe", "schemes", "info", "warmup":
        assert command(*name.split(), "--help", charset="ascii").stdout.isascii(), name


def on_a_terminal(job, out, *, gone=False, **variables):
    """Run `write` with a terminal as its stderr: its exit code, and what the terminal got."""
    leader, follower = pty.openpty()
    command = [*RUN, "write", str(job), "--out", str(out)]
    env = {name: value for name, value in environment().items() if name not in ("COLUMNS", "LINES")}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=follower, env=env | {"TERM": "xterm"} | variables
    ) as run:
        os.close(follower)
        shown = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while not gone:
                shown += os.read(leader, 4096)
        os.close(leader)
        printed, _ = run.communicate(timeout=120)
    assert b"1 files (1 written now)" in printed
    assert checkpoint.verify(out).problems == ()
    return run.returncode, shown


def test_a_terminal_that_goes_away(job, tmp_path):
    assert on_a_terminal(job, tmp_path / "out", gone=True) == (0, b"")


@pytest.mark.slow
def test_terminals_of_other_kinds(job, tmp_path):
    for i, variables in enumerate(({"PYTHONIOENCODING": "ascii:strict"}, {"COLUMNS": "0"}, {"COLUMNS": "9" * 30})):
        assert on_a_terminal(job, tmp_path / f"{i}", **variables)[0] == 0
    for i, variables in enumerate(({"TERM": "dumb"}, {"TERM": "unknown"}, {"COLUMNS": "²"})):
        code, shown = on_a_terminal(job, tmp_path / f"lines{i}", **variables)
        assert (code, shown.splitlines()[-1]) == (0, b"7,456 of 7,456 bytes")


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("how", ["full", "closed", "no encoding"])
def test_progress_in_python_without_a_stderr_that_takes_it(monkeypatch, capfd, terminal, how):
    """The bar is drawn on a thread of its own, too."""
    stream = Path("/dev/full" if how == "full" else os.devnull).open("w", encoding="ascii")  # noqa: SIM115  closed below
    if how == "closed":
        stream.close()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", _Terminal(stream) if terminal else stream)
        with progress_bar(True, 100) as advance:
            for _ in range(100):
                advance(1)
    with contextlib.suppress(OSError):
        stream.close()
    assert capfd.readouterr() == ("", "")


class _Terminal:
    def __init__(self, stream):
        self._stream = stream

    def isatty(self):
        return not self._stream.closed

    def __getattr__(self, name):
        return getattr(self._stream, name)


def test_no_file_gets_the_number_of_a_stream_that_is_closed():
    """Libraries print to these numbers, whatever is there."""
    code = (
        "import os; from fastinit.cli import _app; "
        "_app.app = lambda: os.write(4, ' '.join(os.readlink(f'/proc/self/fd/{i}') for i in range(3)).encode()); "
        "_app.main()"
    )
    done = shell(f'{sys.executable} -P -c "{code}" 4>&1 <&- >&- 2>&-')
    assert done.stdout == "/dev/null /dev/null /dev/null"
