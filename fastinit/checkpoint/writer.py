"""The writer: constant memory whatever the model, and never a file that is complete in name only."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastinit import threads as fill_threads
from fastinit.buffers import Array
from fastinit.checkpoint import crew, files
from fastinit.checkpoint.blocks import BLOCK_BYTES, Block, Maker, blocks
from fastinit.checkpoint.compare import compare
from fastinit.checkpoint.folder import Folder
from fastinit.checkpoint.job import Job
from fastinit.checkpoint.layout import MAX_SHARD_BYTES, Shard, as_bytes, share
from fastinit.checkpoint.parts import Part
from fastinit.errors import positive_int, unknown
from fastinit.key import Seed
from fastinit.plan import Plan
from fastinit.progress import progress as shown

Progress = Callable[[int], None]
# Writes the shards into a folder: (job, shards, folder, threads, fsync, progress).
Engine = Callable[[Job, Sequence[Shard], Path, int, bool, Progress], None]


@dataclass(frozen=True, slots=True)
class Report:
    """What was done. Of a part: its own files.

    Attributes:
        path: the file that stands for the checkpoint, the index or the only shard; the folder while parts are missing.
        files: shards, of which `written` were written now; the others were there, and were compared with what they
            should be.
        tensors, parameters: in them, tied ones once.
        nbytes: of the files.
        finished: whether the checkpoint is complete.
        peak_memory_bytes: of the whole process.
    """

    path: str
    files: int
    written: int
    tensors: int
    parameters: int
    nbytes: int
    seconds: float
    finished: bool
    peak_memory_bytes: int

    @property
    def gigabytes_per_second(self) -> float:
        return self.nbytes / self.seconds / 1e9


def write(
    plan: Plan,
    folder: str | Path,
    *,
    seed: Seed = None,
    overwrite: bool = False,
    max_shard_bytes: int | str = MAX_SHARD_BYTES,
    threads: int | None = None,
    fsync: bool = True,
    part: Part | str | None = None,
    engine: str = "threads",
    address: str | None = None,
    beside: Mapping[str, bytes] | None = None,
    progress: bool = False,
) -> Report:
    """Write a plan as safetensors files into a folder, as Hugging Face's libraries name and split them.

    Each thread makes blocks of 16 MB in a buffer of its own and writes them; laws whose elements depend on each other
    (orthogonal, sparse) are made whole, one tensor at a time. Until all is complete the files lie in a hidden folder
    inside. If a run is stopped, the same call goes on from the files that are complete, after it has compared them
    with what they should be, and the result is the same bit for bit.

    Args:
        plan: the tensors.
        folder: made where it is missing.
        seed: an int or a `Key`. Default: the plan's.
        overwrite: replace another checkpoint. What was there stays whole until the new one is.
        max_shard_bytes: bytes of tensors in a file, an int or a text such as "5GB" or "2GiB".
        threads: how many. Default: as many as a large fill has.
        fsync: whether files are on the disk before they count as complete.
        part: "2/8" writes the second of eight shares of the files, on this or on another machine with the same folder;
            whichever part is the last finishes the checkpoint. None writes all.
        engine: "threads", or "ray": a task of a Ray cluster for each file.
        address: of the Ray cluster.
        beside: further files for the folder, name -> bytes, e.g. a config.json.
        progress: whether to show a bar (lines, without a terminal) on stderr.

    Raises:
        FileExistsError: the folder holds another plan or seed, and `overwrite` is false.
        BlockingIOError: another run writes into the folder.
        OSError: the disk is full, the folder cannot be written...
    """
    start = time.perf_counter()
    number = fill_threads.count() if threads is None else positive_int("threads", threads)
    mine = Part.of(part)
    key = plan.key(seed)
    run = _engine(engine, address)
    job = Job(plan.portable(key), key, as_bytes(max_shard_bytes), dict(beside or {}))
    shards = job.layout.shards if mine is None else _share_of(job, mine)
    place = Folder(folder)
    place.path.mkdir(parents=True, exist_ok=True)
    with files.locked(place.path, place.busy, shared=mine is not None) as lock:
        place.begin(job, lock, overwrite=overwrite, shared=mine is not None)
        try:
            with _part_lock(place, mine), shown(sum(s.nbytes for s in shards), quiet=not progress) as advance:
                how = _How(run, overwrite, number, fsync, advance)
                written = _write_missing(job, shards, place, how)
        except BaseException:
            if mine is None:
                place.leave(job)
            raise
        # The last part is the one that gets the folder to itself and finds that nothing is missing: to exchange a
        # shared lock gives it back first.
        alone = mine is None or files.try_lock(lock)
        finished = alone and len(place.found(job)) == len(job.layout.shards)
        path = place.finish(job, sync=fsync) if finished else place.path
    entries = [entry.fill for shard in shards for entry in shard.entries]
    return Report(
        path=str(path),
        files=len(shards),
        written=written,
        tensors=len(entries),
        parameters=sum(fill.size for fill in entries),
        nbytes=sum(shard.nbytes for shard in shards),
        seconds=time.perf_counter() - start,
        finished=finished,
        peak_memory_bytes=peak_memory(),
    )


def peak_memory() -> int:
    """The largest resident size that this program had, in bytes.

    Linux's own high-water mark where there is one: getrusage's also counts the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def write_shards(
    job: Job, shards: Sequence[Shard], folder: Path, threads: int, fsync: bool, progress: Progress
) -> None:
    """Write shards into a folder on threads of this process: each appears under its name when it is complete."""
    maker = Maker(job.key)
    open_files: set[_Unfinished] = set()

    def items() -> Iterator[tuple[_Unfinished, Block]]:
        for shard in shards:
            file = _Unfinished(folder / shard.name, shard.nbytes)
            open_files.add(file)
            for block in blocks(shard):
                yield file, block

    def worker() -> Callable[[tuple[_Unfinished, Block]], None]:
        buffer = np.empty(BLOCK_BYTES, np.uint8)

        def work(item: tuple[_Unfinished, Block]) -> None:
            file, block = item
            if file.write(maker.make(block, buffer), block.start):
                file.finish(fsync)
                open_files.discard(file)
            progress(block.nbytes)

        return work

    try:
        crew.each(items(), worker, threads)
    finally:
        for file in open_files:
            file.abandon()


class _Unfinished:
    """A file that several threads write, under another name until it is complete."""

    def __init__(self, path: Path, nbytes: int) -> None:
        self._path, self._temporary = path, files.unfinished(path)
        self._left, self._lock = nbytes, threading.Lock()
        self._descriptor = files.create(self._temporary)
        try:
            files.reserve(self._descriptor, nbytes, path)
        except BaseException:
            self.abandon()
            raise

    def write(self, data: Array, offset: int) -> bool:
        """Write some bytes; whether they were the last that were missing."""
        files.write_at(self._descriptor, data, offset)
        with self._lock:
            self._left -= data.size
            return self._left == 0

    def finish(self, fsync: bool) -> None:
        if fsync:
            os.fsync(self._descriptor)
        self._temporary.replace(self._path)
        os.close(self._descriptor)
        if fsync:
            files.sync_folder(self._path.parent)

    def abandon(self) -> None:
        os.close(self._descriptor)
        self._temporary.unlink(missing_ok=True)


class _How(NamedTuple):
    """How files are written."""

    engine: Engine
    overwrite: bool
    threads: int
    fsync: bool
    progress: Progress


def _write_missing(job: Job, shards: Sequence[Shard], place: Folder, how: _How) -> int:
    """Write the shards that are not there as they should be; the number of them.

    Raises:
        FileExistsError: one in its place is not what it should be, and `overwrite` is false.
    """
    for shard in shards:
        files.remove_unfinished(place.staging, shard.name)
    mine = set(shards)
    # With `overwrite` the files in their places are to be replaced; those that wait were made by a run like this.
    found = {
        shard: path
        for shard, path in place.found(job).items()
        if shard in mine and not (how.overwrite and path.parent == place.path)
    }
    items = ((block, path) for shard, path in found.items() for block in blocks(shard))
    wrong = {difference.file for difference in compare(items, job.key, how.threads, how.progress)}
    for shard, path in found.items():
        if shard.name in wrong:
            if path.parent == place.path:
                raise FileExistsError(f"{path} is not what the plan and the seed give; --overwrite replaces it")
            path.unlink()
    missing = [shard for shard in shards if shard not in found or shard.name in wrong]
    if missing:
        files.check_space(place.path, sum(shard.nbytes for shard in missing))
        how.engine(job, missing, place.staging, how.threads, how.fsync, how.progress)
    return len(missing)


@contextlib.contextmanager
def _part_lock(place: Folder, part: Part | None) -> Iterator[None]:
    """One run at a time for each part."""
    if part is None:
        yield
        return
    with files.locked(
        place.staging / f".part-{part.index}-of-{part.count}", f"part {part} is being written into {place.path}"
    ):
        yield


def _share_of(job: Job, part: Part) -> Sequence[Shard]:
    """The shards of a part. Every shard has bytes, so parts beyond the number of shards have none."""
    shards = job.layout.shards
    shares = share(shards, min(part.count, len(shards)))
    return shares[part.index - 1] if part.index <= len(shares) else []


def _engine(name: str, address: str | None) -> Engine:
    if name == "threads":
        return write_shards
    if name == "ray":
        from fastinit.checkpoint.on_ray import engine

        return engine(address)
    raise unknown("engine", name, ("threads", "ray"))
