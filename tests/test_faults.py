"""Every call on files fails once, with every likely cause: nothing is lost, and the same command finishes the job."""

import functools
import itertools
import os
import re
import shutil
import threading
from pathlib import Path

import pytest
from faults import FAULTS, Fault, System
from typer.testing import CliRunner

import fastinit as fi
from fastinit import checkpoint
from fastinit._io import files
from fastinit.checkpoint import _blocks as blocks
from fastinit.checkpoint import _compare as compare
from fastinit.checkpoint import _folder
from fastinit.checkpoint import _shards as shards
from fastinit.checkpoint._layout import INDEX_NAME
from fastinit.cli._app import app

PLAN = fi.Plan({f"w{i}": ((16, 16), "float32", "normal") for i in range(4)}, seed=3)  # 4 files of 2 blocks
WIDE = fi.Plan({f"w{i}": ((16, 16), "float32", "normal") for i in range(6)}, seed=3)
CONFIG = {"config.json": b"{}"}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    for module in (blocks, shards, compare):
        monkeypatch.setattr(module, "BLOCK_BYTES", 1 << 10)


def write(folder, plan=PLAN, **how):
    return checkpoint.write(plan, folder, **{"max_shard_bytes": 1024, "threads": 1, "extra_files": CONFIG} | how)


def visible(folder):
    return (
        {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()} if folder.exists() else {}
    )


def everything(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()} | {
        str(path.relative_to(folder)): None for path in Path(folder).rglob("*") if path.is_dir()
    }


class Stopped(Exception):  # noqa: N818
    pass


def stopped_at(module, name, last):
    """Replace a function by one that stops the run at a call of it."""
    patch = pytest.MonkeyPatch()
    real, calls = getattr(module, name), []

    def call(*arguments, **options):
        calls.append(arguments)
        if len(calls) > last:
            raise Stopped
        return real(*arguments, **options)

    patch.setattr(module, name, call)
    return patch


def stop(run, module, name, last=0):
    patch = stopped_at(module, name, last)
    with pytest.raises(Stopped):
        run()
    patch.undo()


# --- what was there before ---


def nothing(folder):
    pass


def other_seed(folder):
    write(folder, seed=9)


def other_files(folder):
    write(folder, WIDE, seed=9)


def other_unfinished(folder):
    """A checkpoint that was being replaced by another one, and that was being moved."""
    write(folder, seed=7)
    stop(lambda: write(folder, WIDE, overwrite=True, extra_files={"old.json": b"{}"}), _folder, "_move", 2)


def unfinished(folder):
    stop(lambda: write(folder), shards._Unfinished, "finish", 2)
    (folder / ".fastinit" / ".model-00004-of-00004.safetensors.0123456789abcdef.tmp").write_bytes(b"killed")


def moving(folder):
    write(folder, seed=9)
    stop(lambda: write(folder, overwrite=True), _folder, "_move", 2)


def parts_complete(folder):
    stop(lambda: write(folder, part="1/1"), _folder.Folder, "is_complete")


def damaged(folder):
    write(folder)
    damage(folder)


def damage(folder):
    one, two, three, _ = sorted(folder.glob("model-*"))
    one.unlink()
    two.write_bytes(two.read_bytes()[:-9])
    three.write_bytes(three.read_bytes()[:-9] + bytes(9))
    (folder / INDEX_NAME).unlink()


def report(folder):
    folder.mkdir()
    (folder / "report.html").write_bytes(b"old")


# --- commands ---


def both_parts(folder, **how):
    for part in ("1/2", "2/2"):
        write(folder, part=part, **how)


def sound(folder):
    assert checkpoint.verify(folder, threads=1).problems == ()


def repair(folder, threads=1):
    found = checkpoint.verify(folder, repair=True, threads=threads)
    assert found.repaired or not found.problems


def single(folder, **how):
    write(folder, max_shard_bytes="1MB", **how)


def put(folder):
    files.put(folder / "report.html", b"new")


over = functools.partial(write, overwrite=True)
# name -> what was there, the command, whether what was there is a whole that must outlast an error
SCENARIOS = {
    "write": (nothing, write, True),
    "write, no fsync": (nothing, functools.partial(write, fsync=False), True),
    "one file": (nothing, single, True),
    "overwrite another seed": (other_seed, over, True),
    "overwrite more files": (other_files, over, True),
    "overwrite by one file": (other_files, functools.partial(single, overwrite=True), True),
    "overwrite in parts": (other_seed, functools.partial(both_parts, overwrite=True), True),
    "overwrite unfinished files": (other_unfinished, over, False),
    "resume": (unfinished, write, True),
    "resume the move": (moving, write, False),
    "resume the move of an overwrite": (moving, over, False),
    "parts": (nothing, both_parts, True),
    "finalize": (parts_complete, functools.partial(checkpoint.finalize), True),
    "verify": (write, sound, True),
    "verify --repair": (damaged, repair, False),
    "report": (report, put, True),
}


class Bench:
    """A scenario, ready to be run often."""

    def __init__(self, name, folder):
        before, self.run, self.is_whole = SCENARIOS[name]
        self.is_fast = "no fsync" in name
        self.template, self.folder = folder / "template", folder / "run" / "out"
        self.folder.parent.mkdir()
        before(self.template)
        self.old = visible(self.template)
        system, error = self.start()
        assert error is None
        self.counts = system.counts
        self.expected = everything(self.folder)
        self.new = visible(self.folder)

    def start(self, fault=None, run=None, **system):
        """Run once; return the system and the error."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.template.exists():
            shutil.copytree(self.template, self.folder)
        system = System(self.folder, fault, **system)
        before, error = descriptors(), None
        with system.running():
            try:
                (run or self.run)(self.folder)
            except OSError as raised:
                error = raised
        assert descriptors() == before, "a descriptor leaks"
        assert system.wrong == []
        assert self.is_fast or not system.early, "a name before the bytes"
        assert self.is_fast or error or not system.unsynced
        return system, error

    def check(self, fault, run=None):
        """Run with a fault, then without."""
        system, error = self.start(fault, run)
        moving = self.folder / ".fastinit" / "moving"
        busy = fault.call == "flock" and fault.code in ("EAGAIN", "EACCES")
        if error is None:
            assert not system.grave, "an error was swallowed"
            assert not moving.exists()
            assert visible(self.folder) == self.new or (busy and visible(self.folder) == self.old)
        else:
            assert not system.harmless, f"must be tolerated: {error}"
            check_error(error, self.folder, "is being written|is writing into" if busy else re.escape(fault.text))
            if visible(self.folder) not in (self.old, self.new):
                assert moving.exists() or not self.is_whole, "something is lost"
                assert not moving.exists() or not (self.folder / INDEX_NAME).exists(), "one half of each can be loaded"
        self.run(self.folder)
        assert everything(self.folder) == self.expected


def check_error(error, folder, cause):
    message = str(error)
    assert "\n" not in message
    assert str(folder) in message
    assert re.search(cause, message)


def descriptors():
    return os.listdir("/proc/self/fd")  # noqa: PTH208


def all_faults(bench):
    """Every call with every cause."""
    for call, codes in FAULTS.items():
        for number in range(bench.counts[call]):
            for code in codes:
                yield Fault(call, number, code)


EVERY = 47  # of some 10,000 faults the default suite takes one of so many, which is every call and cause somewhere


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_call_that_fails_once(tmp_path, name):
    bench, start = Bench(name, tmp_path), list(SCENARIOS).index(name)
    for fault in itertools.islice(all_faults(bench), start, None, EVERY):
        bench.check(fault)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_call_fails_once_with_every_cause(tmp_path, name):
    bench = Bench(name, tmp_path)
    for fault in all_faults(bench):
        bench.check(fault)


LASTING = {
    "open": "EMFILE",
    "pwrite": "ENOSPC",
    "fsync": "EIO",
    "close": "EDQUOT",
    "replace": "EACCES",
    "unlink": "EACCES",
}
LASTING |= {"link": "EMLINK", "rmdir": "ENOTEMPTY", "mkdir": "EROFS", "flock": "ENOLCK", "fallocate": "ENOSPC"}


@pytest.mark.parametrize("name", ["write", "overwrite more files", "verify --repair"])
def test_a_call_that_fails_from_some_time_on(tmp_path, name):
    bench = Bench(name, tmp_path)
    for call, code in LASTING.items():
        for number in sorted({0, bench.counts[call] // 2, bench.counts[call] - 1}):
            if 0 <= number < bench.counts[call]:
                bench.check(Fault(call, number, code, forever=True))


@pytest.mark.parametrize("name", ["write", "verify --repair"])
def test_threads_and_faults(tmp_path, name):
    """Calls of threads come in any order; what is left is right whatever failed."""
    bench = Bench(name, tmp_path)
    threads = {
        "write": functools.partial(write, threads=3),
        "verify --repair": functools.partial(repair, threads=3),
    }
    for call, code in [
        ("open", "EMFILE"),
        ("pwrite", "ENOSPC"),
        ("fsync", "EIO"),
        ("close", "EIO"),
        ("replace", "EBUSY"),
    ]:
        for number in range(0, bench.counts[call], 5):
            for forever in (False, True):
                bench.check(Fault(call, number, code, forever), threads[name])


def test_a_command_tells_it_in_one_line(tmp_path):
    (tmp_path / "plan.json").write_text(PLAN.to_json())
    folder, runner = tmp_path / "out", CliRunner()
    writing = ["write", str(tmp_path / "plan.json"), "--out", str(folder), "--max-shard-bytes", "1024", "--json"]
    verifying = ["verify", str(folder), "--repair", "--json"]

    def fails(command, call, number):
        with System(folder, Fault(call, number, "EDQUOT")).running():
            result = runner.invoke(app, command)
        assert result.exit_code == 1
        assert re.fullmatch(rf"fastinit: \[Errno \d+\] Disk quota exceeded: .*'{folder}.*'\n", result.stderr)

    fails([*writing, "--part", "1/2"], "close", 3)
    fails(writing, "fallocate", 1)
    parts_complete(folder)
    fails(["finalize", str(folder)], "fsync", 0)
    assert runner.invoke(app, writing).exit_code == 0
    damage(folder)
    fails(verifying, "pwrite", 0)
    assert runner.invoke(app, verifying).exit_code == 0
    sound(folder)


# --- file systems ---

WORLDS = {
    "NFS": {"nfs": True, "lacks": {"fallocate": "EOPNOTSUPP"}},
    "NFS without locks": {"nfs": True, "lacks": {"flock": "ENOLCK", "flock of a folder": "ENOLCK"}},
    "CIFS": {"lacks": {"fsync of a folder": "EINVAL", "link": "EOPNOTSUPP", "fallocate": "EOPNOTSUPP"}},
    "SMB server that refuses to flush a folder": {"lacks": {"fsync of a folder": "EACCES"}},
    "FAT": {"lacks": {"link": "EPERM", "fsync of a folder": "EBADF", "ftruncate of a new file": "EPERM"}},
    "a mounted bucket": {
        "lacks": {
            "flock": "ENOSYS",
            "flock of a folder": "ENOSYS",
            "link": "ENOSYS",
            "fsync of a folder": "EOPNOTSUPP",
            "fallocate": "ENOSYS",
            "ftruncate of a new file": "EINVAL",
            "statvfs": "ENOSYS",
        },
    },
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_command_on_file_systems_that_lack_something(tmp_path, name):
    bench = Bench(name, tmp_path)
    for world, rules in WORLDS.items():
        _, error = bench.start(**rules)
        assert error is None, world
        assert everything(bench.folder) == bench.expected, world


def test_parts_that_finish_at_once_where_folders_have_no_locks(tmp_path):
    """Several take themselves for the last one. One may be stopped by what another moves; the job can be finished."""
    bench = Bench("write", tmp_path)
    for attempt in range(10):
        folder, outcomes, start = tmp_path / str(attempt), [], threading.Barrier(3)

        def work(part, folder=folder, outcomes=outcomes, start=start):
            start.wait(30)
            try:
                outcomes.append(write(folder, part=part).finished)
            except OSError as error:
                outcomes.append(error)

        with System(folder, nfs=True).running():
            together = [threading.Thread(target=work, args=(f"{i}/3",)) for i in (1, 2, 3)]
            for thread in together:
                thread.start()
            for thread in together:
                thread.join()
        assert len(outcomes) == 3
        assert True in outcomes
        checkpoint.finalize(folder)
        assert everything(folder) == bench.expected
