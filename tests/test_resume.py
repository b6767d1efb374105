"""Runs that are stopped anywhere, and the same command again: the result is that of an undisturbed run."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import processes
import pytest
import safetensors
import torch

import fastinit as fi
from fastinit import checkpoint
from fastinit.checkpoint import _blocks as blocks
from fastinit.checkpoint import _compare as compare
from fastinit.checkpoint import _shards as shards

JOB = """seed = 4
dtype = "bfloat16"
[tensors."embed.weight"]
shape = [3000, 512]
scheme = "normal"
std = 0.02
[tensors."h.{0..39}.weight"]
shape = [1500, 512]
scheme = "truncated_normal"
[tensors."h.{0..39}.bias"]
shape = [512]
scheme = "zeros"
[tensors."square"]
shape = [512, 512]
scheme = "orthogonal"
"""
SMALL = JOB.replace("[512, 512]", "[256, 128]").replace("512", "64")  # as many files, an eighth of the bytes
COMMAND = [sys.executable, "-m", "fastinit.cli", "write"]


@pytest.fixture
def job(tmp_path_factory):
    path = tmp_path_factory.mktemp("job") / "job.toml"
    path.write_text(JOB)
    return path


@pytest.fixture
def large_plan(job):
    return fi.Plan.from_toml(job)


@pytest.fixture
def small_job(tmp_path_factory):
    path = tmp_path_factory.mktemp("job") / "small.toml"
    path.write_text(SMALL)
    return path


@pytest.fixture
def plan(small_job):
    return fi.Plan.from_toml(small_job)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


FILES = 42  # shards
SIZE, LARGE_SIZE = "250KB", "2MB"  # of a shard


def write(plan, folder, max_shard_bytes=SIZE, **how):
    return checkpoint.write(plan, folder, max_shard_bytes=max_shard_bytes, **how)


def start(job, out, **how):
    command = [*COMMAND, str(job), "--out", str(out), "--max-shard-bytes", LARGE_SIZE]
    return processes.running(command, **how)


KILLED = """
import os, signal, sys
from fastinit import cli
from fastinit.checkpoint import _blocks as blocks
make, made = blocks.Maker.make, []

def making(self, block, buffer):
    made.append(block)
    if len(made) > 12:
        os.kill(os.getpid(), signal.SIGKILL)
    return make(self, block, buffer)

blocks.Maker.make = making
cli.main()
"""


def test_killed_at_a_block_and_gone_on_with(small_job, plan, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-c", KILLED, *COMMAND[3:], small_job, "--out", out, "--max-shard-bytes", SIZE]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert [path.name for path in out.iterdir()] == [".fastinit"]
    assert list(out.glob(".fastinit/.model-*.tmp"))
    report = write(plan, out)
    assert report.finished
    assert report.files - 12 <= report.written <= report.files - 5
    assert checkpoint.verify(out).problems == ()
    assert sorted(path.name for path in out.iterdir() if path.name.startswith(".")) == []


@pytest.mark.slow
def test_killed_at_eight_random_times(job, large_plan, tmp_path):
    write(large_plan, tmp_path / "undisturbed", LARGE_SIZE)
    expected = contents(tmp_path / "undisturbed")
    assert len(expected) == FILES + 2  # index, job
    dice, found = random.Random(0), set()
    out = tmp_path / "out"
    for kill, files in enumerate([0, 8, 16, 40, 3, 12, 24, 36]):
        if kill % 4 == 0:
            shutil.rmtree(out, ignore_errors=True)
        with start(job, out) as run:
            while run.poll() is None and len(list(out.rglob("model-*.safetensors"))) < files:
                time.sleep(0.001)
            time.sleep(dice.random() * 0.03)
            run.kill()
        assert not (out / "model.safetensors.index.json").exists() or contents(out) == expected
        found.add(len(list(out.rglob("model-*.safetensors"))))
    assert len(found) > 4  # the kills came at different times
    report = write(large_plan, out, LARGE_SIZE)
    assert report.finished
    assert contents(out) == expected


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_no_file_under_its_last_name(job, large_plan, tmp_path, number):
    out = tmp_path / "out"
    with start(job, out) as run:
        while run.poll() is None and not list(out.glob(".fastinit/model-*")):
            time.sleep(0.001)
        run.send_signal(number)
        _, errors = run.communicate(timeout=60)
    if number == signal.SIGINT:
        assert run.returncode == 130
        assert errors.splitlines()[-1] == "fastinit: interrupted"
        assert not list(out.rglob("*.tmp"))
    assert [path.name for path in out.iterdir()] == [".fastinit"]
    report = write(large_plan, out, LARGE_SIZE)
    assert report.finished
    assert report.written < report.files
    assert checkpoint.verify(out).problems == ()


@pytest.mark.slow
def test_under_nohup_an_interrupt_is_ignored(job, tmp_path):
    """The job goes on, and says nothing but how far it is."""
    out = tmp_path / "out"
    with start(job, out, disposition="SIG_IGN") as run:
        while run.poll() is None and not list(out.glob(".fastinit/model-*")):
            time.sleep(0.001)
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate(timeout=120)
    assert run.returncode == 0
    assert all(line.endswith(" bytes") for line in errors.splitlines())
    assert checkpoint.verify(out).problems == ()


def fail_after(monkeypatch, calls, error):
    """Let the writer fail at its n-th block."""
    make, made = blocks.Maker.make, []

    def making(self, block, buffer):
        made.append(block)
        if len(made) > calls:
            raise error
        return make(self, block, buffer)

    monkeypatch.setattr(blocks.Maker, "make", making)


def test_complete_files_are_not_written_again(plan, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        fail_after(patch, 12, OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(OSError, match="No space left"):
            write(plan, tmp_path)
    done = {path.name: path.stat().st_ino for path in tmp_path.glob(".fastinit/model-*")}
    assert 5 <= len(done) <= 12
    assert not list(tmp_path.rglob("*.tmp"))
    report = write(plan, tmp_path)
    assert report.written == report.files - len(done)
    assert {name: (tmp_path / name).stat().st_ino for name in done} == done
    assert not (tmp_path / ".fastinit").exists()
    again = write(plan, tmp_path)
    assert (again.written, again.files, again.finished) == (0, report.files, True)


@pytest.mark.parametrize("damage", ["flipped", "truncated", "extended", "header"])
def test_a_damaged_file_that_waits_is_written_again(plan, tmp_path, monkeypatch, damage):
    write(plan, tmp_path / "undisturbed")
    with monkeypatch.context() as patch:
        fail_after(patch, 12, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            write(plan, tmp_path / "out")
    path = min((tmp_path / "out").glob(".fastinit/model-*"))
    data = bytearray(path.read_bytes())
    place = {"flipped": len(data) - 5, "header": 30}.get(damage, 0)
    data[place] ^= 0x10 if damage in ("flipped", "header") else 0
    path.write_bytes({"truncated": data[:-1], "extended": data + b"\0"}.get(damage, data))
    write(plan, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")


def test_stopped_while_files_are_moved(plan, tmp_path, monkeypatch):
    """Every step of the move is a place to die at; here it replaces another checkpoint."""
    write(plan, tmp_path / "undisturbed", "2500KB")
    expected = contents(tmp_path / "undisturbed")
    replace, steps = Path.replace, 0
    for last in range(200):
        out, steps = tmp_path / f"out{last}", 0
        write(plan, out, "1875KB", seed=9)

        def dying(self, target, last=last, out=out):
            nonlocal steps
            waiting = self.parent.name == ".fastinit" and not self.name.startswith(".")
            if waiting or (target == out / "fastinit.json" and (out / ".fastinit" / "moving").exists()):
                steps += 1
                if steps > last:
                    raise KeyboardInterrupt
            return replace(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", dying)
            try:
                write(plan, out, "2500KB", overwrite=True)
            except KeyboardInterrupt:
                assert not (out / "model.safetensors.index.json").exists()
                assert (out / ".fastinit" / "moving").exists()
                with pytest.raises(FileNotFoundError, match="is not finished: give the same `write` command"):
                    checkpoint.verify(out, repair=True)
                (out / f".fastinit.json.{last:016x}.tmp").write_text("cut off")
            else:
                break
        if last % 2:
            assert checkpoint.finalize(out).exists()
        else:
            assert write(plan, out, "2500KB", overwrite=last % 4 == 2).written == 0
        assert contents(out) == expected
    assert last == 4 + 1  # four files and the job


def test_another_seed_or_plan_is_refused(plan, tmp_path):
    write(plan, tmp_path)
    before = contents(tmp_path)
    for other, how in [(plan, {"seed": 5}), (plan.with_dtype("float32"), {}), (plan, {"seed": fi.Key(4) / "a"})]:
        with pytest.raises(FileExistsError, match=r"holds another plan, seed or size of shards; --overwrite"):
            write(other, tmp_path, **how)
    with pytest.raises(FileExistsError, match=r"holds another plan, seed or size of shards; --overwrite"):
        checkpoint.write(plan, tmp_path, max_shard_bytes="375KB")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("hidden", [False, True])
def test_a_damaged_description_is_refused_and_overwritten(plan, tmp_path, hidden):
    write(plan, tmp_path, part="1/2" if hidden else None)
    path = tmp_path / (".fastinit/fastinit.json" if hidden else "fastinit.json")
    path.write_text("{")
    with pytest.raises(ValueError, match=r"fastinit.json is no description of a checkpoint"):
        write(plan, tmp_path)
    write(plan, tmp_path, overwrite=True)
    assert checkpoint.verify(tmp_path).problems == ()


def test_unfinished_files_of_another_seed_are_refused(plan, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        fail_after(patch, 5, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            write(plan, tmp_path)
    with pytest.raises(FileExistsError, match="holds unfinished files of another plan, "):
        write(plan, tmp_path, seed=5)
    write(plan, tmp_path, seed=5, overwrite=True)
    assert checkpoint.verify(tmp_path).problems == ()
    assert json.loads((tmp_path / "fastinit.json").read_text())["seed"] == 5


def test_overwriting_keeps_the_old_checkpoint_until_the_new_one_is_complete(plan, tmp_path, monkeypatch):
    write(plan, tmp_path)
    before = contents(tmp_path)
    with monkeypatch.context() as patch:
        fail_after(patch, 20, OSError(errno.EIO, "Input/output error"))
        with pytest.raises(OSError, match="Input/output error"):
            write(plan, tmp_path, seed=5, overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    assert checkpoint.verify(tmp_path).problems == ()
    report = checkpoint.write(plan, tmp_path, seed=5, overwrite=True, max_shard_bytes=SIZE)
    assert report.written < report.files
    assert checkpoint.verify(tmp_path).problems == ()


def test_overwriting_with_fewer_files_removes_the_orphans(plan, tmp_path):
    write(plan, tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    checkpoint.write(plan, tmp_path, overwrite=True)
    assert sorted(contents(tmp_path)) == ["fastinit.json", "model.safetensors", "tokenizer.json"]


def test_weights_that_were_trained_since_are_not_replaced(plan, tmp_path):
    write(plan, tmp_path)
    path = tmp_path / "model-00002-of-00042.safetensors"
    with path.open("r+b") as file:
        file.seek(path.stat().st_size - 2)
        file.write(b"ab")
    trained = path.read_bytes()
    with pytest.raises(
        FileExistsError, match=r"model-00002-of-00042.safetensors is not what the plan and the seed give"
    ):
        write(plan, tmp_path)
    assert path.read_bytes() == trained
    write(plan, tmp_path, overwrite=True)
    assert checkpoint.verify(tmp_path).problems == ()


@pytest.mark.parametrize(
    "name", ["model-00002-of-00042.safetensors", "model.safetensors", "model.safetensors.index.json"]
)
def test_files_that_training_put_into_the_folder_are_kept(plan, tmp_path, name):
    """Of another size or header, as `save_pretrained` writes them."""
    write(plan, tmp_path)
    (tmp_path / name).write_bytes(b"trained")
    before = contents(tmp_path)
    for part in (None, "1/2"):
        with pytest.raises(FileExistsError, match=f"{name} exists and is not this plan's; --overwrite"):
            write(plan, tmp_path, part=part)
    assert contents(tmp_path) == before
    write(plan, tmp_path, overwrite=True)
    assert checkpoint.verify(tmp_path).problems == ()
    assert (tmp_path / "model.safetensors").exists() is False


def test_files_of_the_same_size_with_another_header_are_not_ours(plan, tmp_path):
    def change(path):
        data = path.read_bytes()
        path.write_bytes(data.replace(b'"format":"pt"', b'"format":"np"'))
        assert path.read_bytes() != data

    write(plan, tmp_path / "placed")
    change(tmp_path / "placed" / "model-00003-of-00042.safetensors")
    with pytest.raises(FileExistsError, match=r"model-00003-of-00042.safetensors exists and is not this plan's"):
        write(plan, tmp_path / "placed")
    for part in ("1/3", "2/3"):
        write(plan, tmp_path / "parts", part=part)
    changed = min((tmp_path / "parts").glob(".fastinit/model-*"))
    change(changed)
    write(plan, tmp_path / "parts", part="3/3")
    with pytest.raises(
        FileNotFoundError, match=rf"1 of 42 files are not written yet, the first of them {changed.name}"
    ):
        checkpoint.finalize(tmp_path / "parts")


def test_a_missing_file_is_written_and_the_others_are_kept(plan, tmp_path):
    write(plan, tmp_path)
    before = contents(tmp_path)
    (tmp_path / "model-00003-of-00042.safetensors").unlink()
    assert write(plan, tmp_path).written == 1
    assert contents(tmp_path) == before


def test_a_checkpoint_of_others_is_kept(plan, tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(FileExistsError, match="exists and is not this plan's; --overwrite"):
        write(plan, tmp_path)
    assert list(contents(tmp_path)) == ["model.safetensors.index.json"]


def test_files_beside(plan, tmp_path):
    out = tmp_path / "out"
    write(plan, out, extra_files={"config.json": b"{}"})
    assert (out / "config.json").read_bytes() == b"{}"
    write(plan, out, extra_files={"config.json": b"{}"})
    with pytest.raises(FileExistsError, match=r"config.json exists and is not this plan's; --overwrite"):
        write(plan, out, extra_files={"config.json": b'{"a": 1}'})
    write(plan, out, extra_files={"config.json": b'{"a": 1}'}, overwrite=True)
    assert (out / "config.json").read_bytes() == b'{"a": 1}'


@pytest.mark.slow
def test_a_second_run_is_refused_while_the_first_one_runs(job, tmp_path):
    out = tmp_path / "out"
    with start(job, out) as run:
        while run.poll() is None and not (out / ".fastinit" / "fastinit.json").exists():
            time.sleep(0.001)
        os.kill(run.pid, signal.SIGSTOP)
        try:
            second = subprocess.run(
                [*COMMAND, str(job), "--out", str(out)], capture_output=True, text=True, check=False
            )
        finally:
            os.kill(run.pid, signal.SIGCONT)
        run.communicate(timeout=60)
    assert run.returncode == 0
    assert second.returncode == 1
    assert second.stderr == f"fastinit: another run is writing into {out}\n"
    assert checkpoint.verify(out).problems == ()


ON_A_SMALL_DISK = """
set -e
mount -t tmpfs -o size=12m none "$1"
{python} -m fastinit.cli write "$2" --out "$1/out" --seed 1 --max-shard-bytes 2MB > /dev/null 2>&1
sha256sum "$1"/out/* > "$3/before"
set +e
{python} -m fastinit.cli write "$4" --out "$1/out" --overwrite --json > "$3/stdout" 2> "$3/stderr"
echo $? > "$3/code"
sha256sum "$1"/out/* > "$3/after"
{python} -m fastinit.cli verify "$1/out" > "$3/verified" 2>&1
"""


@pytest.mark.slow
def test_a_full_disk(tmp_path):
    """A real one: a small file system in memory, in a name space of its own."""
    disk, small, large = tmp_path / "disk", tmp_path / "small.toml", tmp_path / "large.toml"
    disk.mkdir()
    small.write_text('[tensors."w{0..3}"]\nshape = [1000, 400]\nscheme = "normal"\n')
    large.write_text('[tensors."w{0..3}"]\nshape = [1000, 500]\nscheme = "normal"\n')
    script = ON_A_SMALL_DISK.format(python=sys.executable)
    command = ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", script, "bash"]
    done = subprocess.run([*command, disk, small, tmp_path, large], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "code").read_text() == "1\n"
    assert (tmp_path / "stdout").read_text() == ""
    (line,) = (tmp_path / "stderr").read_text().splitlines()
    assert line.startswith("fastinit: [Errno 28] No space left on device: ")
    assert (tmp_path / "before").read_text() == (tmp_path / "after").read_text()
    assert ": sound; 4 tensors" in (tmp_path / "verified").read_text()


def test_threads_and_fsync_do_not_show(plan, tmp_path):
    write(plan, tmp_path / "1", threads=1)
    for threads in (2, 5):
        write(plan, tmp_path / str(threads), threads=threads, fsync=False)
        assert contents(tmp_path / str(threads)) == contents(tmp_path / "1")


def test_fsync_before_each_name(plan, tmp_path, monkeypatch):
    order, fsync, replace = [], os.fsync, Path.replace
    lock = threading.Lock()

    def syncing(descriptor):
        with lock:
            order.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def replacing(self, target):
        if self.suffix == ".tmp" and "safetensors" in self.name:
            with lock:
                assert self.name in order
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", syncing)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replacing)
        write(plan, tmp_path)
    assert order[-1] == tmp_path.name
    order.clear()
    write(plan, tmp_path / "quick", fsync=False)
    assert order == []


def test_memory_is_one_block_for_each_thread(tmp_path, monkeypatch):
    for module in (blocks, compare, shards):
        monkeypatch.setattr(module, "BLOCK_BYTES", 1 << 20)
    plan = fi.Plan({f"w{i}": ((1000, 1000), "float32", "normal") for i in range(4)})

    checkpoint.write(plan, tmp_path / "first")  # what is imported and compiled once does not count

    def peak(action, *arguments, threads):
        tracemalloc.start()
        try:
            action(*arguments, threads=threads)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    for threads in (1, 3):
        out = tmp_path / str(threads)
        block = threads << 20
        assert 1 << 20 < peak(checkpoint.write, plan, out, threads=threads) < 1.5 * block + (1 << 20)
        assert peak(checkpoint.verify, out, threads=threads) < 2.5 * block + (1 << 20)  # one made, one read


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_model(tmp_path):
    def peak(rows):
        code = (
            "import fastinit as fi; from fastinit import checkpoint\n"
            f"plan = fi.Plan({{f'w{{i}}': (({rows}, 4096), 'bfloat16', 'normal') for i in range(8)}})\n"
            f"print(checkpoint.write(plan, {str(tmp_path / str(rows))!r}, fsync=False).peak_memory_bytes)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert peak(8192) - peak(2048) < 20e6  # of 540 and 134 MB


def test_every_file_reads_back(plan, tmp_path):
    report = write(plan, tmp_path)
    index = json.loads(Path(report.path).read_text())
    assert index["metadata"]["total_size"] == plan.nbytes
    assert set(index["weight_map"]) == set(plan)
    for name, file in index["weight_map"].items():
        with safetensors.safe_open(tmp_path / file, "pt") as opened:
            tensor = opened.get_tensor(name)
        values = fi.fill(fi.zeros(plan[name].shape, dtype="bfloat16"), plan[name].distribution, seed=fi.Key(4) / name)
        if name != "square":
            assert tensor.view(torch.uint8).numpy().tobytes() == values.tobytes()


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ({"threads": 0}, ValueError, "threads must be positive"),
        ({"threads": 1.5}, TypeError, "threads must be an int"),
        ({"engine": "rays"}, ValueError, "unknown engine 'rays'; did you mean 'ray'"),
        ({"part": "0/3"}, ValueError, "a part must be from 1/3 to 3/3. Received: 0/3"),
        ({"part": "4/3"}, ValueError, "a part must be from 1/3 to 3/3. Received: 4/3"),
        ({"part": "1/0"}, ValueError, "of the form 2/8"),
        ({"part": "half"}, ValueError, "of the form 2/8"),
        ({"seed": -1}, ValueError, "seed must not be negative"),
    ],
)
def test_bad_arguments_make_no_folder(plan, tmp_path, how, error, message):
    with pytest.raises(error, match=message):
        checkpoint.write(plan, tmp_path / "out", **how)
    assert not (tmp_path / "out").exists()
