"""The commands: what they print, where, and their exit codes; most run in this process, some as one of their own."""

import contextlib
import itertools
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import processes
import pytest
import safetensors
from processes import command as fastinit

import fastinit as package
from fastinit._native import ahead, catalogue, library, processor
from fastinit._runtime import environment, limits
from fastinit.checkpoint import _blocks as blocks
from fastinit.cli import _machine

GPT2 = Path(__file__).parents[1] / "examples" / "gpt2.toml"
JOB = """seed = 4
[tensors."h.{0..2}.weight"]
shape = [300, 200]
scheme = "xavier_uniform"
[tensors."h.{0..2}.bias"]
shape = [300]
scheme = "zeros"
"""


def process(*arguments, **options):
    """Run the command as a process of its own."""
    command = [sys.executable, "-m", "fastinit.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)


@pytest.fixture
def job(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text(JOB)
    return path


def test_help_shows_an_example():
    for command in ("", "plan", "write", "verify", "finalize", "schemes", "info", "warmup"):
        done = fastinit(*command.split(), "--help")
        assert (done.returncode, done.stderr) == (0, ""), command
        assert "Example: " in done.stdout, command


def test_the_help_needs_no_compiler():
    script = "import sys; from fastinit.cli import main; print([m for m in ('numba', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


def test_version():
    done = process("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"fastinit {package.__version__}\n", "")


def test_the_exit_codes_of_processes(tmp_path):
    for arguments, code in ((["wirte"], 2), (["plan", "missing.toml"], 1)):
        done = process(*arguments, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (code, ""), arguments
    assert done.stderr == "fastinit: [Errno 2] No such file or directory: 'missing.toml'\n"


def test_plan_is_a_table_and_its_totals():
    done = fastinit("plan", GPT2)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 149
    assert lines[0].split() == ["wte.weight", "50257", "x", "768", "float32", "normal(std=0.02)", "std", "0.02"]
    assert lines[-2].split()[-2:] == ["float32", "zeros"]
    assert lines[-1] == "148 tensors, 124,439,808 parameters, 497,759,232 bytes, seed 0"


def test_plan_as_json(job):
    found = json.loads(fastinit("plan", job, "--json", "--dtype", "float16", "--seed", str(2**70)).stdout)
    assert (found["seed"], len(found["tensors"])) == (2**70, 6)
    row = found["tensors"]["h.1.weight"]
    assert (row["shape"], row["dtype"], row["scheme"]) == ([300, 200], "float16", "uniform")


@pytest.mark.parametrize("option", ["--json", "--toml"])
def test_a_printed_plan_is_a_source(tmp_path, option):
    job = tmp_path / "job.toml"
    job.write_text(JOB.replace("h.{0..2}.bias", "\u00e9\\n{0..2}"), encoding="utf-8")
    saved = tmp_path / f"plan.{option[2:]}"
    saved.write_text(fastinit("plan", job, option).stdout, encoding="utf-8")
    assert fastinit("plan", saved, option).stdout == saved.read_text(encoding="utf-8")
    assert "\u00e9\\n1  " in fastinit("plan", saved).stdout


def test_rules_are_previewed(job):
    rules = ["--rule", "*.weight=depth_scaled(std=0.5)", "--rule", "h.1.*=ones"]
    lines = fastinit("plan", job, "--scheme", "he_normal", *rules).stdout.splitlines()
    assert [line.split()[-4:-2] for line in lines[:3:2]] == [["depth_scaled(std=0.5,", "layers=3)"]] * 2
    assert [line.split()[-2:] for line in lines[:-1]] == [
        ["std", f"{0.5 / 6**0.5:.4g}"],
        ["float32", "ones"],
        ["std", f"{0.5 / 6**0.5:.4g}"],
        ["float32", "zeros"],
        ["float32", "ones"],
        ["float32", "zeros"],
    ]


def test_a_safetensors_file_is_a_source(job, tmp_path):
    fastinit("write", job, "--out", tmp_path)
    lines = fastinit("plan", tmp_path / "model.safetensors", "--scheme", "he_normal").stdout.splitlines()
    assert lines[-1] == "6 tensors, 180,900 parameters, 723,600 bytes, seed 0"
    schemes = [line.partition("float32")[2].split()[0] for line in lines[:-1]]
    assert sorted(schemes) == ["he_normal"] * 3 + ["zeros"] * 3


def test_write_says_what_it_wrote(job, tmp_path):
    done = fastinit("write", job, "--out", tmp_path / "out")
    assert done.returncode == 0
    assert "6 tensors, 180,900 parameters" in done.stdout
    assert "in 1 files (1 written now), seed 4, " in done.stdout
    assert "bytes compared, seed 4, " in fastinit("verify", tmp_path / "out").stdout
    size = (tmp_path / "out" / "model.safetensors").stat().st_size
    assert done.stderr.splitlines()[-1] == f"{size:,} of {size:,} bytes"
    with safetensors.safe_open(tmp_path / "out" / "model.safetensors", "np") as file:
        assert len(file.keys()) == 6


def test_write_as_json(job, tmp_path):
    done = fastinit("write", job, "--out", tmp_path, "--json", "--dtype", "bfloat16", "--seed", str(2**70))
    report = json.loads(done.stdout)
    assert done.stderr == ""
    assert (report["tensors"], report["parameters"]) == (6, 180_900)
    assert report["nbytes"] == Path(report["path"]).stat().st_size
    assert report["gigabytes_per_second"] == pytest.approx(report["nbytes"] / report["seconds"] / 1e9)
    assert (report["seed"], report["seed_path"]) == (2**70, [])
    assert json.loads(fastinit("verify", tmp_path, "--json").stdout)["seed"] == 2**70


def test_a_seed_with_names(tmp_path):
    key = package.Key(3) / "a"
    plan = package.Plan({"w": ((3, 2), "float32", "normal")})
    assert package.checkpoint.write(plan, tmp_path, seed=key).key == key
    assert package.checkpoint.verify(tmp_path).key == key
    assert "compared, seed Key(3) / 'a', " in fastinit("verify", tmp_path).stdout
    report = json.loads(fastinit("verify", tmp_path, "--json").stdout)
    assert (report["seed"], report["seed_path"]) == (3, ["a"])


def test_a_config_beside_a_saved_plan(job, tmp_path):
    (tmp_path / "c.json").write_text('{"model_type": "x", "torch_dtype": "float32"}')
    options = ["--config", tmp_path / "c.json", "--dtype", "bfloat16"]
    assert fastinit("write", job, "--out", tmp_path / "out", *options).returncode == 0
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == {"model_type": "x", "dtype": "bfloat16"}


@pytest.mark.slow
def test_write_needs_little_memory(tmp_path):
    report = json.loads(process("write", GPT2, "--out", tmp_path, "--json").stdout)
    assert report["nbytes"] > 497_759_232
    assert report["peak_memory_bytes"] < 400e6


def test_a_terminal_gets_a_bar(job, tmp_path):
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "fastinit.cli", "write", str(job), "--out", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=follower, env={**os.environ, "TERM": "xterm"}) as run:
        os.close(follower)
        shown = b""
        while True:
            try:
                shown += os.read(leader, 4096)
            except OSError:  # the other end is closed
                break
    os.close(leader)
    assert run.returncode == 0
    assert "724.1/724.1 kB" in shown.decode()


def test_schemes_lists_the_table():
    assert fastinit("schemes").stdout.count("\n| `") == 26


def test_info_knows_the_versions():
    found = json.loads(fastinit("info", "--json").stdout)
    assert found["versions"]["fastinit"] == "0.1.0"
    assert found["threading_layer"] == "fastinit.pool"
    assert found["threads"] >= 1
    assert found.keys() >= {"threads_reason", "memory_limit", "memory_limit_reason"}
    assert set(found["cpu_levels"]) <= set(processor.LEVELS)
    assert 0 <= found["kernels_cached"] <= found["kernels"] == len(list(catalogue.everything()))
    stream = (GPT2.parents[1] / "docs" / "stream.md").read_text()
    assert f"a specification, version {found['stream_version']}, that" in stream
    lines = fastinit("info").stdout.splitlines()
    assert f"stream version    {found['stream_version']}" in lines
    assert f"kernels cached    {found['kernels_cached']} of {found['kernels']}" in lines
    assert f"cpu levels        {', '.join(found['cpu_levels'])}" in lines
    assert f"cache folder      {found['cache_folder']}" in lines


def test_info_tells_what_sets_the_limits(monkeypatch):
    limit = limits.MemoryLimit("ulimit -v", 8 << 30, 1 << 30, addresses=True)
    monkeypatch.setattr(environment, "memory_limits", lambda: [limit])
    monkeypatch.setattr(environment, "default_threads", lambda: (3, "a quota of 2.5 CPUs in cpu.max"))
    lines = fastinit("info").stdout.splitlines()
    assert "threads           3 (a quota of 2.5 CPUs in cpu.max)" in lines
    assert "memory limit      8589934592 (ulimit -v)" in lines


@pytest.mark.parametrize(
    ("error", "said"), [(MemoryError("big is too large"), "big is too large"), (MemoryError(), "out of memory. ")]
)
def test_too_little_memory_is_one_line(monkeypatch, error, said):
    def fails():
        raise error

    monkeypatch.setattr(environment, "info", fails)
    done = fastinit("info")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"fastinit: {said}")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "missing.toml"], "No such file"),
        (["plan", "."], "holds no config.json"),
        (["plan", "{job}", "--scheme", "he_norml"], "did you mean 'he_normal'"),
        (["plan", "{job}", "--rule", "*.x=zeros"], "rule '*.x=zeros' matches no tensor"),
        (["plan", "{job}", "--json", "--toml"], "exclude each other"),
        (["plan", "no_such_module:model"], "No module named 'no_such_module'"),
        (["write", "{job}", "--out", "{job}"], "File exists"),
        (["write", "{job}", "--out", "out", "--dtype", "int8"], "dtype must be one of"),
        (["write", "{job}", "--out", "out", "--seed", "-1"], "seed must not be negative"),
        (["write", "{job}", "--out", "out", "--address", "auto"], "address is for the engine ray"),
        (["write", "{job}", "--out", "/proc/none"], "/proc/none"),
    ],
)
def test_an_error_is_one_line_and_exit_code_1(job, tmp_path, arguments, message):
    done = fastinit(*[argument.format(job=job) for argument in arguments], cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("fastinit: ")
    assert message in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[tensors.a]\nshape = [3]\nscheme = "zeros"\n[tensors.a]', "line 4"),
        ('[tensors."__metadata__"]\nshape = [3]\nscheme = "zeros"', "__metadata__"),
        ('[tensors."a\\u0000b"]\nshape = [3]\nscheme = "zeros"', "NUL"),
        ('[tensors."a"]\nshape = [3]\nscheme = "zeros"\nvalue = 3', "unknown parameter of zeros 'value'"),
    ],
)
def test_a_job_file_that_is_wrong(tmp_path, text, message):
    path = tmp_path / "job.toml"
    path.write_text(text)
    done = fastinit("plan", path)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert message in done.stderr
    assert str(path) in done.stderr


def test_a_wrong_command_is_exit_code_2():
    assert fastinit("wirte").returncode == 2


def test_an_interrupt_is_exit_code_130_and_leaves_nothing(job, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(blocks.Maker, "make", interrupted)
    done = fastinit("write", job, "--out", tmp_path / "out", "--json")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "fastinit: interrupted\n")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.slow
def test_ctrl_c_is_exit_code_130_and_leaves_nothing(tmp_path):
    job = tmp_path / "large.toml"
    job.write_text('[tensors."w"]\nshape = [100000, 20000]\nscheme = "truncated_normal"\nlow = -9\nhigh = 9\n')
    out = tmp_path / "out"
    command = [sys.executable, "-m", "fastinit.cli", "write", str(job), "--out", str(out)]
    with processes.running(command) as run:
        deadline = time.monotonic() + 120
        while not list(out.glob(".fastinit/.model*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate(timeout=60)
    assert run.returncode == 130
    assert errors.splitlines()[-1] == "fastinit: interrupted"
    assert list(out.iterdir()) == []


def test_warmup_asks_for_every_kernel(monkeypatch):
    """With a substitute for the cache, in which all are."""
    asked = []
    monkeypatch.setattr(library, "is_cached", lambda *arguments: asked.append(arguments) or True)
    done = fastinit("warmup")
    total = len(asked)
    assert len({names for names, _ in asked}) == total > 100
    assert {target for _, target in asked} == {processor.target()}
    assert (done.returncode, done.stdout) == (0, f"{total} kernels are compiled\n")
    assert done.stderr.splitlines() == [f"{i}/{total} {' '.join(names)}" for i, (names, _) in enumerate(asked, 1)]
    for name, axes in catalogue.KERNELS.items():
        assert [names for names, _ in asked if names[0] == name] == [(name, *rest) for rest in itertools.product(*axes)]
    done = fastinit("warmup", "--for", "generic,generic")
    assert (done.returncode, done.stdout) == (0, f"{2 * total} kernels are compiled\n")
    assert [target for _, target in asked[total:]] == [("generic", "")] * 2 * total
    assert done.stderr.splitlines()[-1].endswith(" for generic")


def test_what_warmup_refuses(tmp_path, monkeypatch):
    for levels in ("x86-64-v9", "generic,", "znver4"):
        done = fastinit("warmup", "--for", levels)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
        assert "--for must be one or more of " in done.stderr
        assert f"Received: {levels.rpartition(',')[2]!r}" in done.stderr
    monkeypatch.setattr(_machine, "LEVELS", {"generic": set()})
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    done = fastinit("warmup", "--for", "x86-64-v3")
    assert done.returncode == 1
    assert "one or more of generic on this kind of machine (aarch64), separated by commas. Rec" in done.stderr
    (tmp_path / "file").touch()
    monkeypatch.setenv("FASTINIT_CACHE_DIR", str(tmp_path / "file" / "below"))
    done = fastinit("warmup")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert f"cannot be kept: the cache folder cannot be written to ({tmp_path}/file/below). Set FASTINIT" in done.stderr
    monkeypatch.setenv("FASTINIT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NUMBA_NUM_THREADS", "0")  # of the processes that compile: what is wrong there is named
    done = fastinit("warmup")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert "fastinit: Numba cannot be imported: " in done.stderr
    assert "NUMBA_NUM_THREADS=0" in done.stderr
    monkeypatch.setattr(ahead, "compile_everything", lambda *_: [(("a", "b"), True), (("c",), False)])
    done = fastinit("warmup")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == "fastinit: 1 kernels could not be written to the cache: is the disk full?"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="lists children by /proc")
def test_ctrl_c_ends_the_processes_of_warmup(tmp_path):
    """And they read nothing in the current folder."""
    (tmp_path / ".numba_config.yaml").write_text("cache_dir: [")
    for name in ("fastinit", "numba", "json", "subprocess"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w')\nraise ImportError\n")
    command = [Path(sys.executable).with_name("fastinit"), "warmup", "--for", "generic"]
    with contextlib.chdir(tmp_path), pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTINIT_CACHE_DIR", str(tmp_path / "cache"))
        with processes.running(command) as run:
            assert "is ignored" in run.stderr.readline()
            assert run.stderr.readline().startswith("1/")
            children = [
                Path("/proc", child) for child in Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
            ]
            assert children
            run.send_signal(signal.SIGINT)
            out, errors = run.communicate(timeout=60)
    assert (run.returncode, out, errors.splitlines()[-1]) == (130, "", "fastinit: interrupted")
    assert [child for child in children if child.exists()] == []
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_a_killed_process_of_warmup_is_an_error(tmp_path, monkeypatch):
    """As where memory is short. It does not wait for ever."""
    monkeypatch.setenv("FASTINIT_CACHE_DIR", str(tmp_path))
    started = ahead._started

    def killed(*arguments):
        process = started(*arguments)
        process.kill()
        return process

    monkeypatch.setattr(ahead, "_started", killed)
    done = fastinit("warmup")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"fastinit: a process that compiles was killed: \d+ functions are not compiled\n", done.stderr)


@pytest.mark.slow
def test_after_warmup_nothing_is_compiled(tmp_path):
    environment = {**os.environ, "FASTINIT_CACHE_DIR": str(tmp_path)}
    done = process("warmup", env=environment)
    assert done.returncode == 0, done.stderr
    number = int(done.stdout.split()[0])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(before) == number
    found = json.loads(process("info", "--json", env=environment).stdout)
    assert (found["kernels_cached"], found["kernels"]) == (number, number)
    code = """
import fastinit as fi, numpy as np
for dtype in ("float64", "float32", "float16", "bfloat16"):
    for scheme, options in (("normal", {}), ("uniform", {}), ("truncated_normal", {}), ("ones", {})):
        x = getattr(fi, scheme)((300, 300), seed=0, dtype=dtype, **options)
        fi.summarize(fi.add(x, fi.distribution(scheme, x.shape), seed=1))
    fi.truncated_normal((30, 30), low=-5, high=5, dtype=dtype, seed=0)
    fi.orthogonal((30, 30), dtype=dtype, seed=0)
fi.normal((50, 50, 50), region=(slice(5), slice(5), slice(9)), seed=1)
fi.thread_limit(1).__enter__()
fi.normal(1 << 17, seed=0)
import sys
assert "numba" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=300)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
