"""What nobody should give to the commands, and somebody does: one line and exit code 1 before anything is written, or a
checkpoint that the real safetensors reads."""

import contextlib
import json
import os
import resource
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
import torch
from processes import command as run

import fastinit as fi
from fastinit import checkpoint, cli, sources
from fastinit._core.composite import Values
from fastinit.checkpoint._folder import Folder

JOB = """seed = 4
[tensors."h.{0..2}.weight"]
shape = [30, 20]
scheme = "xavier_uniform"
"""
LLAMA = {
    "model_type": "llama", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 40,
    "intermediate_size": 24, "architectures": ["LlamaForCausalLM"],
}  # fmt: skip
RUN = [sys.executable, "-P", "-m", "fastinit.cli"]


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A job file in the current folder, where nothing else is."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "job.toml"
    path.write_text(JOB)
    return path


def command(*arguments):
    """A command in this process: (exit code, stdout, stderr)."""
    done = run(*arguments)
    return done.returncode, done.stdout, done.stderr


def refused(*arguments):
    """The one line of a command that must fail, and must leave everything as it is."""
    before = everything(Path())
    code, out, err = command(*arguments)
    assert (code, out) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith("fastinit: ")
    assert line.isprintable()
    assert everything(Path()) == before
    return line


def everything(folder):
    """All names below a folder, with the contents of files and the targets of links."""
    return {
        str(path.relative_to(folder)): str(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in sorted(folder.rglob("*"))
    }


def names_in(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def shell(script, *arguments, **options):
    """A line of a shell, with `$RUN` for the command."""
    full = ["bash", "-c", script.replace("$RUN", " ".join(RUN)), "bash", *map(str, arguments)]
    return subprocess.run(full, capture_output=True, text=True, timeout=120, check=False, **options)


def values(folder):
    """All tensors of a folder, by the real library, as NumPy's arrays."""
    found = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        found |= safetensors.numpy.load_file(path)
    return found


def check(folder, plan, seed=None):
    """What the real library reads is the plan, and so says `verify`."""
    found = values(folder)
    assert found.keys() == plan.filled.keys()
    for name, fill in plan.filled.items():
        expected = np.empty(fill.shape, fill.dtype)
        fill.fill(expected, plan.key(seed))
        assert (found[name].shape, found[name].tobytes()) == (fill.shape, expected.tobytes()), name
    assert checkpoint.verify(folder).problems == ()


# --- where to ---


READ_ONLY = """mount --bind -o ro "$1" "$1" 2>/dev/null || { mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"; }
$RUN write "$2" --out "$1/$3" --json; echo $?"""


@pytest.mark.slow
@pytest.mark.parametrize("out", ["", "below"])
def test_a_read_only_folder(job, tmp_path, out):
    """A read-only mount, in a name space of its own: it holds for root too."""
    folder = tmp_path / "folder"
    folder.mkdir()
    inner = ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", READ_ONLY.replace("$RUN", " ".join(RUN))]
    done = subprocess.run([*inner, "bash", folder, job, out], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "1\n"
    (line,) = done.stderr.splitlines()
    assert line.startswith("fastinit: [Errno 30] Read-only file system: ")
    assert str(folder) in line
    assert list(folder.iterdir()) == []


def test_places_that_are_no_folder(job):
    Path("file").write_text("")
    Path("dangling").symlink_to("nowhere")
    assert "File exists: 'file'" in refused("write", job, "--out", "file")
    assert "Not a directory: 'file/below'" in refused("write", job, "--out", "file/below")
    assert "File exists: 'dangling'" in refused("write", job, "--out", "dangling")
    assert "/proc/none" in refused("write", job, "--out", "/proc/none")
    assert "File name too long" in refused("write", job, "--out", "a" * 256)
    assert "File name too long" in refused("write", job, "--out", "a/" * 3000)
    for other in ("verify", "finalize"):
        assert "file is no folder" in refused(other, "file")
        assert "missing is no folder" in refused(other, "missing")
        assert "dangling is no folder" in refused(other, "dangling")


@pytest.mark.parametrize(
    "out", ["a b/c'd\"e", "\u00fc\u00f1\u00ed\u2764", "a" * 255, "-o", "a/../b", "new\nline", "%s{0}"]
)
def test_names_of_folders_that_are_unusual(job, out):
    code, _, err = command("write", job, f"--out={out}", "--max-shard-bytes", "3KB", "--json")
    assert (code, err) == (0, "")
    check(out, fi.Plan.from_toml(job))
    assert command("verify", "--json", "--", out)[0] == 0


def test_a_link_to_a_folder_is_that_folder(job):
    Path("real").mkdir()
    Path("link").symlink_to("real")
    assert command("write", job, "--out", "link")[0] == 0
    assert Path("link").is_symlink()
    check("real", fi.Plan.from_toml(job))


@pytest.mark.parametrize("name", ["model.safetensors", "fastinit.json", ".fastinit"])
@pytest.mark.parametrize("dangling", [False, True])
def test_links_in_the_folder_are_not_followed(job, name, dangling):
    """What they point to is someone else's."""
    precious = Path("precious")
    if not dangling and name == ".fastinit":
        precious.mkdir()
        (precious / "model.safetensors").write_text("mine")
    elif not dangling:
        precious.write_text('{"format": "mine"}')
    Path("out").mkdir()
    Path("out", name).symlink_to("../precious")
    before = {k: v for k, v in everything(Path()).items() if k.startswith("precious")}
    code, *_ = command("write", job, "--out", "out")
    again, *_ = command("write", job, "--out", "out", "--overwrite")
    assert {k: v for k, v in everything(Path()).items() if k.startswith("precious")} == before
    if name == ".fastinit":
        assert (code, again) == (1, 1)
        assert "out/.fastinit must be a folder" in refused("write", job, "--out", "out", "--overwrite")
    else:
        assert (code == 0, again) == (name == "fastinit.json" and dangling, 0)
        assert not Path("out", name).is_symlink()
        check("out", fi.Plan.from_toml(job))


def test_a_file_where_the_hidden_folder_should_be(job):
    Path("out").mkdir()
    Path("out/.fastinit").write_text("mine")
    for more in ((), ("--overwrite",), ("--part", "1/2")):
        assert "out/.fastinit must be a folder" in refused("write", job, "--out", "out", *more)


def test_empty_paths(job):
    assert "folder must be a path" in refused("write", job, "--out", "")
    assert "a source must be" in refused("write", "", "--out", "out")
    assert not Path("out").exists()


def test_folders_where_files_should_be(job):
    Path("out/model.safetensors").mkdir(parents=True)
    assert "model.safetensors exists and is not this plan's; --overwrite" in refused("write", job, "--out", "out")
    code, _, err = command("write", job, "--out", "out", "--overwrite", "--json")
    assert (code, len(err.splitlines())) == (1, 1)
    assert "Is a directory" in err


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_every_file_honours_the_umask(tmp_path, umask):
    plan = fi.Plan({f"w{i}": ((10,), "float32", "normal") for i in range(3)})
    before = os.umask(umask)
    try:
        checkpoint.write(plan, tmp_path / "out", max_shard_bytes=40, extra_files={"config.json": b"{}"})
        checkpoint.write(plan, tmp_path / "part", max_shard_bytes=40, extra_files={"config.json": b"{}"}, part="1/2")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_file()}
    assert modes.keys() >= {"config.json", "fastinit.json", "model.safetensors.index.json", ".part-1-of-2"}
    assert set(modes.values()) == {0o666 & ~umask}
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_dir()} == {0o777 & ~umask}


@pytest.mark.slow
def test_a_current_folder_that_is_gone(job, tmp_path):
    script = 'mkdir gone && cd gone && rmdir ../gone && $RUN write "$1" --json --out '
    done = shell(script + "x", job, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "fastinit: [Errno 2] No such file or directory: 'x'\n"
    done = shell(script + '"$2"', job, tmp_path / "out", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    check(tmp_path / "out", fi.Plan.from_toml(job))


def test_without_standard_streams(job, monkeypatch):
    """As a process has them whose streams were closed."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    for arguments in (["write", "job.toml", "--out", "out"], ["verify", "out"]):
        monkeypatch.setattr(sys, "argv", ["fastinit", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 0
        sys.stdout.close()
        monkeypatch.setattr(sys, "stdout", None)
    check("out", fi.Plan.from_toml(job))


def test_an_output_that_takes_nothing(job, monkeypatch, capsys):
    """A pipe whose reader has gone is no message; a full disk is one."""
    for number, (place, message) in enumerate({"pipe": "", "/dev/full": "[Errno 28] No space left on device"}.items()):
        if place == "pipe":
            reader, writer = os.pipe()
            os.close(reader)
        else:
            writer = os.open(place, os.O_WRONLY)
        with os.fdopen(writer, "w") as output, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", output)
            patch.setattr(sys, "argv", ["fastinit", "write", "job.toml", "--out", f"out{number}"])
            with pytest.raises(SystemExit) as ended:
                cli.main()
            output.flush()  # nothing is left that could fail at the end
        assert ended.value.code == 1
        shown = capsys.readouterr().err.splitlines()
        assert shown == ["7,456 of 7,456 bytes", *[f"fastinit: {message}"] * bool(message)]
        check(f"out{number}", fi.Plan.from_toml(job))


@pytest.mark.slow
@pytest.mark.parametrize("redirect", [">&-", "2>&-", ">&- 2>&-", "<&-"])
def test_streams_that_are_closed(job, tmp_path, redirect):
    done = shell(f'$RUN write "$1" --out "$2" {redirect}', job, tmp_path / "out")
    assert done.returncode == 0
    check(tmp_path / "out", fi.Plan.from_toml(job))
    for how in ("", "--json"):
        assert shell(f'$RUN plan "$1" {how} {redirect}', job).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("buffered", [True, False])
def test_a_reader_that_goes_away(job, tmp_path, monkeypatch, buffered):
    monkeypatch.setenv("PYTHONUNBUFFERED", "" if buffered else "1")
    done = shell('$RUN write "$1" --out "$2" | true; echo ${PIPESTATUS[0]}', job, tmp_path / "out")
    assert done.stdout == "1\n"
    assert done.stderr.splitlines() == ["7,456 of 7,456 bytes"]
    check(tmp_path / "out", fi.Plan.from_toml(job))
    done = shell('$RUN write "$1" --out "$2" >/dev/full; echo $?', job, tmp_path / "out")
    assert done.stdout == "1\n"
    assert done.stderr.splitlines()[1:] == ["fastinit: [Errno 28] No space left on device"]


# --- what to write ---


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tensors.a\nshape", "(at line 1, column 11)"),
        ('seed = 1\n[tensors.a]\nshape = [3,\nscheme = "zeros"', "(at line 4, column"),
        ('[tensors.a]\nshape = [3]\nscheme = "zeros"\n[tensors.a]\n', "(at line 4"),
        ('[tensors."h.{0..2}"]\nshape=[3]\nscheme="zeros"\n[tensors."h.1"]\nshape=[3]\nscheme="ones"', "'h.1' is nam"),
        ('[tensors.a]\nshape = [3]\nscheme = "he_norml"\n', "unknown scheme 'he_norml'; did you mean 'he_normal'"),
        ('[tensors.a]\nshape = [3]\nshap = [3]\nscheme = "zeros"\n', "'shap'"),
        ('[tensors.a]\nshape = [3]\n', "scheme"),
        ('[tensors.a]\nshape = 3.5\nscheme = "zeros"\n', "shape"),
        ('[tensors.a]\nshape = [-3]\nscheme = "zeros"\n', "shape must not be negative"),
        ('[tensors.a]\nshape = [3]\nscheme = "zeros"\ndtype = "float12"\n', "float12"),
        ('[tensors.a]\nshape = [3]\nscheme = "normal"\nstd = nan\n', "std"),
        ('[tensors."a\\nb\\u001b[2J"]\nshape = [-3]\nscheme = "zeros"\n', "shape must not be negative"),
        ('[tensors."{0..99999999999}"]\nshape = [3]\nscheme = "zeros"\n', "{0..99999999999}"),
        ("seed = -1\n[tensors.a]\nshape = [3]\nscheme = 'zeros'\n", "seed must not be negative"),
        ("tensors = 3\n", "no tensors"),
        ("", "no tensors"),
        ("[tensors]\n", "no tensors"),
        ("a = " + "[" * 5000 + "]" * 5000, "nested too deeply"),
    ],
)  # fmt: skip
def test_a_job_that_is_wrong_is_named_with_its_place(job, text, message):
    job.write_text(text)
    line = refused("write", job, "--out", "out")
    assert message in line
    assert str(job) in line


def test_tensors_that_no_file_can_hold(job):
    job.write_text('[tensors.a]\nshape = [9223372036854775807, 9]\nscheme = "zeros"\n')
    assert "must be smaller than 2^63 bytes" in refused("write", job, "--out", "out")
    job.write_text('[tensors.a]\nshape = [1000000000, 1000000]\nscheme = "zeros"\n')
    code, out, err = command("write", job, "--out", "out")
    assert (code, out) == (1, "")
    assert "No space left on device: 4,000,000,000,000,128 bytes are needed" in err
    assert names_in("out") == []


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"\x00" * 100, b"seed = 1\r[tensors]"])
def test_a_job_that_is_no_text(job, data):
    job.write_bytes(data)
    assert str(job) in refused("write", job, "--out", "out")


def test_jobs_that_are_no_files(job):
    Path("folder.toml").mkdir()
    Path("loop.toml").symlink_to("loop.toml")
    assert "folder.toml holds no config.json" in refused("write", "folder.toml", "--out", "out")
    assert "loop.toml" in refused("write", "loop.toml", "--out", "out")
    assert "a source must be" in refused("write", "/dev/null", "--out", "out")


GOOD_NAMES = [
    "../x", "a/b", "/etc/passwd", "x" * 60_000, " ", "\U0001f600",
    "a\nb", "a\r\nb", "\x1b[31m", "__metadata__x", ".",
    "..", "*", "[a]", "\\", '"', "'", "\u2028", "\u202e", "e\u0301", "a,b", "\x7f", "C:\\con", "model.safetensors",
]  # fmt: skip
BAD_NAMES = ["", "a\0b", "\ud800", "a\udfff", "__metadata__", "{", "a}b"]


def saved(names):
    table = {"tensors": {name: {"shape": [2, 3], "scheme": "normal"} for name in names}}
    Path("plan.json").write_text(json.dumps(table))
    return "plan.json"


def test_names_that_look_dangerous_are_only_names(job):
    """All in one file, and each in a file of its own; nothing is made outside of the folder."""
    Path("place/inner").mkdir(parents=True)
    for out, size in (("place/inner/one", "5GB"), ("place/inner/many", "1")):
        code, _, err = command("write", saved(GOOD_NAMES), "--out", out, "--max-shard-bytes", size, "--json")
        assert (code, err) == (0, "")
        check(out, fi.Plan.from_file("plan.json"))
        assert list(values(out)) == sorted(GOOD_NAMES) if size == "5GB" else len(values(out)) == len(GOOD_NAMES)
    assert names_in("place") == ["inner"]
    assert names_in("place/inner") == ["many", "one"]
    assert names_in(".") == ["job.toml", "place", "plan.json"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_no_file_can_hold_are_refused(job, name):
    assert "plan.json: " in refused("write", saved(["a", name]), "--out", "out")


def test_names_that_stand_twice(job):
    row = '{"shape": [3], "scheme": "zeros"}'
    Path("plan.json").write_text(f'{{"tensors": {{"a": {row}, "a": {row}}}}}')
    assert "'a' is named twice" in refused("write", "plan.json", "--out", "out")


CONFIGS = {
    "{": "Expecting",
    "[]": "must hold an object",
    "": "Expecting value",
    '{"model_type": "llama", "model_type": "gpt2"}': "'model_type' is named twice",
    json.dumps({"model_type": "lama"}): "did you mean 'llama'",
    json.dumps({**LLAMA, "hidden_size": -16}): "negative dimension -16",
    json.dumps({**LLAMA, "num_hidden_layers": 2, "vocab_size": -40}): "negative",
    json.dumps({**LLAMA, "hidden_size": "wide"}): "hidden_size",
    json.dumps({**LLAMA, "num_attention_heads": 0}): "by zero",
    json.dumps({**LLAMA, "vocab_size": 10**15}): "no address space is left for a tensor of 64,000,000,000,000,000",
    json.dumps({**LLAMA, "num_hidden_layers": 10**9}): "num_hidden_layers must be at most 20,000. Received: 1000000000",
    json.dumps({**LLAMA, "vocab_size": 10**30}): "LlamaForCausalLM cannot be built of it: ",
    json.dumps({**LLAMA, "vocab_size": float("inf")}): "vocab_size",
    json.dumps({**LLAMA, "architectures": ["BertModel"]}): "BertModel cannot be built of it: ",
    json.dumps({**LLAMA, "dtype": "float12"}): "float12",
}


@pytest.mark.parametrize("text", CONFIGS)
def test_a_config_that_is_wrong(job, text):
    Path("model").mkdir()
    Path("model/config.json").write_text(text)
    source = "model/config.json" if "model_type" not in text else "model"
    line = refused("write", source, "--out", "out")
    assert CONFIGS[text] in line
    assert "config.json" in line


def test_a_config_that_is_a_folder(job):
    Path("model/config.json").mkdir(parents=True)
    assert "Is a directory: 'model/config.json'" in refused("write", "model", "--out", "out")


@pytest.mark.parametrize("architecture", ["Evil", "Trainer", "os", "__builtins__", "../x", "evil.Evil"])
def test_remote_code_is_not_run(job, architecture):
    """The class of the installed library is what is built, whatever else the config names."""
    Path("model").mkdir()
    auto = {"AutoModelForCausalLM": "evil.Evil", "AutoConfig": "evil.Config"}
    Path("model/config.json").write_text(json.dumps({**LLAMA, "architectures": [architecture], "auto_map": auto}))
    Path("model/evil.py").write_text("open('ran', 'w')\nclass Evil: ...\nclass Config: ...\n")
    assert command("write", "model", "--out", "out")[0] == 0
    assert "lm_head.weight" in values("out")
    assert not Path("ran").exists()
    Path("model/config.json").write_text(json.dumps({"model_type": "mine", "auto_map": auto}))
    assert "remote code, which is not run" in refused("write", "model", "--out", "other")
    assert not Path("ran").exists()


@pytest.mark.parametrize("spelling", [{"__float__": "Infinity"}, float("inf")])
def test_configs_with_an_infinite_number(job, spelling):
    """As transformers 5 writes it, and as Python's json does: neither is plain JSON, both are on the hub."""
    Path("model").mkdir()
    Path("model/config.json").write_text(json.dumps({**LLAMA, "rms_norm_eps": spelling}))
    for dtype in ([], ["--dtype", "bfloat16"]):
        assert command("write", "model", "--out", "out", "--overwrite", *dtype)[0] == 0
        config = sources.documents.read(Path("out/config.json"), infinite=True)
        assert config["rms_norm_eps"] == spelling


def test_a_model_is_written_beside_its_config(job):
    """The folder that the source is may be the one that is written, as often as one likes."""
    Path("model").mkdir()
    Path("model/config.json").write_text(json.dumps(LLAMA))
    config = Path("model/config.json").read_bytes()
    for _ in range(2):
        assert command("write", "model", "--out", "model")[0] == 0
        assert Path("model/config.json").read_bytes() == config
    assert "holds another plan, " in refused("write", "model", "--out", "model", "--dtype", "float16")
    for _ in range(2):
        code, *_ = command("write", "model", "--out", "model", "--dtype", "float16", "--overwrite")
        assert code == 0
        assert {array.dtype.name for array in values("model").values()} == {"float16"}


def test_a_checkpoint_is_written_over_itself(job):
    """Its integers are read from the files that are being replaced."""
    plan = fi.Plan({"w": ((40, 30), "float32", "normal"), "ids": fi.Fill((500,), "int64", Values(np.arange(500)))})
    checkpoint.write(plan, "out", max_shard_bytes=4000)
    assert command("write", "out", "--scheme", "he_normal", "--out", "out", "--overwrite", "--seed", "9")[0] == 0
    found = values("out")
    np.testing.assert_array_equal(found["ids"], np.arange(500))
    expected = fi.fill(np.empty((40, 30), np.float32), fi.distribution("he_normal", (40, 30)), seed=fi.Key(9) / "w")
    np.testing.assert_array_equal(found["w"], expected)
    assert checkpoint.verify("out").problems == ()


# --- options ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(
            (["--max-shard-bytes", size], f"bytes must be {'positive' if size in ('0', '0.5B') else 'a size'}")
            for size in ("0", "0.5B", "-5", "nan", "inf", "1e9", "", " ", "GB", "5 G B", "5PB", "0x10", "5GB5")
        ),
        *(
            (["--part", part], "a part must be")
            for part in ("", "1", "1/", "/2", "0/2", "3/2", "-1/2", "1/0", "a/b", "1.0/2", "1/2/3", "1 /2", "AUTO")
        ),
        (["--part", "auto"], "--part auto needs one of"),
        (["--threads", "0"], "threads must be positive"),
        (["--threads", "-3"], "threads must be positive"),
        (["--engine", "rays"], "unknown engine 'rays'; did you mean 'ray'"),
        (["--engine", ""], "unknown engine ''"),
        (["--scheme", "he_norml"], "did you mean 'he_normal'"),
        (["--rule", "no equals sign"], "rule"),
        (["--rule", "nothing.*=zeros"], "matches no tensor"),
        (["--dtype", "int8"], "dtype must be one of"),
        (["--seed", "-1"], "seed must not be negative"),
    ],
)  # fmt: skip
def test_options_that_are_nonsense(job, monkeypatch, options, message):
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"):
        monkeypatch.delenv(name, raising=False)
    assert message in refused("write", job, "--out", "out", *options)


@pytest.mark.parametrize("options", [["--sample", s] for s in ("0", "0%", "101%", "-1%", "x", "", "nan", "inf", "1%%")])
def test_samples_that_are_nonsense(job, options):
    command("write", job, "--out", "out")
    assert "sample must be" in refused("verify", "out", *options)
    assert "threads must be positive" in refused("verify", "out", "--threads", "0")


def test_more_parts_than_anyone_has(job):
    """A share of nothing costs nothing, however many there are."""
    count = 10**15
    assert command("write", job, "--out", "out", "--max-shard-bytes", "3KB", "--part", f"{count}/{count}")[0] == 0
    assert not list(Path("out").rglob("*.safetensors"))
    for i in (2, 1, 3):
        assert command("write", job, "--out", "out", "--max-shard-bytes", "3KB", "--part", f"{i}/{count}")[0] == 0
    check("out", fi.Plan.from_toml(job))


# --- sizes and dtypes ---


def test_nothing_and_tensors_of_nothing(tmp_path):
    shapes = {"a": (0,), "b": (3, 0, 2), "c": (0, 2**40)}
    empty = fi.Plan({name: (shape, "float32", "normal") for name, shape in shapes.items()})
    for plan in (empty, fi.Plan({})):
        for size in ("5GB", "1"):
            out = tmp_path / f"{len(plan)}{size}"
            report = checkpoint.write(plan, out, max_shard_bytes=size)
            assert (report.files, report.parameters, report.finished) == (1, 0, True)
            check(out, plan)
            assert checkpoint.write(plan, out, max_shard_bytes=size).written == 0


DTYPES = [
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool", "float16", "bfloat16", "float32",
    "float64", "float8_e4m3fn", "float8_e5m2", "complex64",
]  # fmt: skip


def test_values_of_every_dtype(tmp_path):
    """Every bit pattern of a byte, in all dtypes that safetensors has; back through its reader for torch."""
    assert set(DTYPES) == set(fi._io.safetensors.CODES)
    noise = np.random.default_rng(0).integers(0, 256, 2048, np.uint8)
    arrays = {
        name: (noise[:256] % 2).astype(bool) if name == "bool" else noise.view(getattr(ml_dtypes, name, name))
        for name in DTYPES
    }
    plan = fi.Plan({name: fi.Fill(array.shape, name, Values(array)) for name, array in arrays.items()})
    checkpoint.write(plan, tmp_path, max_shard_bytes="5KB")
    found = {}
    for path in tmp_path.glob("*.safetensors"):
        with safetensors.safe_open(path, "pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert found.keys() == arrays.keys()
    for name, tensor in found.items():
        assert tensor.dtype == getattr(torch, name)
        assert tensor.view(torch.uint8).numpy().tobytes() == arrays[name].tobytes()
    assert checkpoint.verify(tmp_path).problems == ()
    assert checkpoint.write(plan, tmp_path, max_shard_bytes="5KB").written == 0
    file = next(path for path in tmp_path.glob("*.safetensors") if b"complex64" in path.read_bytes())
    file.write_bytes(file.read_bytes()[:-1] + bytes([file.read_bytes()[-1] ^ 1]))
    assert len(checkpoint.verify(tmp_path, repair=True).differing) == 1
    assert checkpoint.verify(tmp_path).problems == ()


def test_many_files_with_few_descriptors(tmp_path):
    plan = fi.Plan({f"h.{i}.w": ((5, 5), "float32", "he_normal") for i in range(100)})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    probe = os.open("/dev/null", os.O_RDONLY)
    os.close(probe)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probe + 40, hard))
    try:
        assert checkpoint.write(plan, tmp_path, max_shard_bytes=100, fsync=False, threads=8).files == 100
        assert checkpoint.verify(tmp_path, threads=8).problems == ()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    check(tmp_path, plan)


@pytest.mark.slow
def test_a_thousand_files_with_few_descriptors(tmp_path):
    job = tmp_path / "job.toml"
    job.write_text('[tensors."h.{0..4999}.w"]\nshape = [5, 5]\nscheme = "he_normal"\n')
    script = 'ulimit -n 64; $RUN write "$1" --out "$2" --max-shard-bytes 500 --no-fsync --threads 8 --json'
    done = shell(script, job, tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["files"] == 1000
    done = shell('ulimit -n 64; $RUN verify "$1" --threads 8 --json', tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    check(tmp_path / "out", fi.Plan.from_toml(job))
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) == 1000


# --- two at once ---


SIX = fi.Plan({f"h.{i}.weight": ((300, 100), "float32", "normal") for i in range(6)})


def outcome(folder, seed, part, overwrite):
    """What comes of a run: "finished", "part" of it, or the name of an error."""
    how = {"part": None if part == "-" else part, "overwrite": overwrite == "1"}
    try:
        report = checkpoint.write(SIX, folder, seed=int(seed), max_shard_bytes=120000, fsync=False, **how)
    except (BlockingIOError, FileExistsError) as error:
        return type(error).__name__
    return "finished" if report.finished else "part"


WORKER = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_hostile import outcome
print("ready", flush=True)
for line in sys.stdin:
    print(outcome(*line.split()), flush=True)
"""


@contextlib.contextmanager
def two_processes():
    """A function that lets two processes do a job each."""
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(2):
            command = [sys.executable, "-P", "-W", "error", "-c", WORKER]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.enter_context(process)
            stack.callback(process.kill)
            found.append(process)
        assert [process.stdout.readline() for process in found] == ["ready\n"] * 2

        def run_both(jobs):
            for words, process in zip(jobs, found, strict=True):
                process.stdin.write(" ".join(words) + "\n")
                process.stdin.flush()
            return [process.stdout.readline().strip() for process in found]

        yield run_both


@contextlib.contextmanager
def two_threads():
    """The same with threads: each opens the folder, so their locks exclude each other as those of processes do."""
    meeting = threading.Barrier(2)

    def run_both(jobs):
        outcomes = [None, None]

        def work(i):
            meeting.wait(30)
            outcomes[i] = outcome(*jobs[i])

        threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return outcomes

    yield run_both


def test_another_seed_that_comes_between_is_left_alone(tmp_path, monkeypatch):
    """A run looks into the folder, another one writes its part, and only then the first goes on."""
    look = Folder._refuse_others

    def looked(self, job):
        look(self, job)
        monkeypatch.undo()
        assert outcome(tmp_path, 1, "1/1", "0") == "part"  # not alone in the folder

    monkeypatch.setattr(Folder, "_refuse_others", looked)
    assert outcome(tmp_path, 2, "1/1", "0") == "FileExistsError"  # at its second look
    checkpoint.finalize(tmp_path)
    check(tmp_path, SIX, 1)


@pytest.mark.parametrize("two", [two_threads, pytest.param(two_processes, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("part", "overwrite"), [("-", 0), ("-", 1), ("1/1", 0)])
def test_two_seeds_at_once_into_one_folder(two, tmp_path, part, overwrite):
    """One is refused, or comes after the other; the checkpoint is that of one of them, whole."""
    with two() as run_both:
        check_two_seeds(run_both, tmp_path, part, overwrite)


def check_two_seeds(run_both, tmp_path, part, overwrite):
    plan, seen = SIX, set()
    for attempt in range(200):
        met = any("Error" in outcome for outcomes in seen for outcome in outcomes)
        if attempt >= 12 and met:
            break
        folder = tmp_path / str(attempt)
        if attempt % 3 == 0:
            checkpoint.write(plan, folder, seed=7, max_shard_bytes=120000, fsync=False) if overwrite else folder.mkdir()
        outcomes = run_both([(str(folder), str(seed), part, str(overwrite)) for seed in (1, 2)])
        seen.add(tuple(outcomes))
        assert set(outcomes) <= {"finished", "part", "BlockingIOError", "FileExistsError"}
        done = [seed for seed, outcome in enumerate(outcomes, 1) if outcome in ("finished", "part")]
        assert len(done) >= 1
        if not overwrite:
            assert len(done) == 1
        if "finished" not in outcomes:
            checkpoint.finalize(folder)
        seed = json.loads((folder / "fastinit.json").read_text())["seed"]
        assert seed in done
        check(folder, plan, seed)
        assert len(names_in(folder)) == 6 + 2
        shutil.rmtree(folder)
    assert met
