"""Every call on files fails once, with every likely cause: nothing is lost, and the same command finishes the job."""

import functools
import os
import re
import shutil
from pathlib import Path

import faults
import numpy as np
import pytest
from faults import FAULTS, Fault, System

import fastinit as fi
from fastinit import checkpoint
from fastinit._io import files
from fastinit.checkpoint import _blocks as blocks
from fastinit.checkpoint import _compare as compare
from fastinit.checkpoint import _folder
from fastinit.checkpoint import _shards as shards

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
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()} if folder.exists() else {}


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
    write(folder, WIDE, seed=7)
    stop(lambda: write(folder, seed=9, overwrite=True), _folder, "_move", 2)


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
    one, two, three, _ = sorted(folder.glob("model-*"))
    one.unlink()
    two.write_bytes(two.read_bytes()[:-9])
    three.write_bytes(three.read_bytes()[:-9] + bytes(9))
    (folder / "model.safetensors.index.json").unlink()


def report(folder):
    folder.mkdir()
    (folder / "report.html").write_bytes(b"old")


# --- commands ---


def both_parts(folder, **how):
    for part in ("1/2", "2/2"):
        write(folder, part=part, **how)


def sound(folder):
    assert checkpoint.verify(folder, threads=1).problems == ()


def repair(folder):
    found = checkpoint.verify(folder, repair=True, threads=1)
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
        return system, error

    def check(self, fault, run=None):
        """Run with a fault, then without."""
        system, error = self.start(fault, run)
        busy = fault.call == "flock" and fault.code in ("EAGAIN", "EACCES")
        if error is None:
            assert not system.grave, "an error was swallowed"
            assert visible(self.folder) == self.new or (busy and visible(self.folder) == self.old)
        else:
            assert not system.harmless, f"must be tolerated: {error}"
            check_error(error, self.folder, "is being written|is writing into" if busy else re.escape(fault.text))
            if self.is_whole and not (self.folder / ".fastinit" / "moving").exists():
                assert visible(self.folder) in (self.old, self.new), "something is lost"
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
    return [
        Fault(call, number, code) for call, codes in FAULTS.items() for number in range(bench.counts[call]) for code in codes
    ]


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_call_that_fails_once(tmp_path, name):
    bench, failed = Bench(name, tmp_path), []
    for fault in all_faults(bench):
        try:
            bench.check(fault)
        except Exception as error:
            print(fault, type(error), str(error).splitlines()[0] if str(error) else "")
