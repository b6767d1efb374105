"""The writer: constant memory whatever the model, and never a file that is complete in name only."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastinit._core.key import Key, Seed
from fastinit._io import files
from fastinit._io.progress import Progress, progress_bar
from fastinit._runtime.checks import unknown
from fastinit._runtime.threads import num_threads
from fastinit.checkpoint._blocks import blocks, check_memory
from fastinit.checkpoint._compare import compare
from fastinit.checkpoint._folder import REPLACES, Folder
from fastinit.checkpoint._job import Job
from fastinit.checkpoint._layout import MAX_SHARD_BYTES, Shard, as_bytes, split_evenly
from fastinit.checkpoint._notes import check_extra_files
from fastinit.checkpoint._parts import Part
from fastinit.checkpoint._shards import Engine, How, write_shards
from fastinit.plan._plan import Plan

PATIENCE = 5  # seconds


@dataclass(frozen=True, slots=True)
class Report:
    """What was done. Of a part: its own files.

    Attributes:
        path: the file that stands for the checkpoint, the index or the only shard; the folder while parts are missing.
        files: shards, of which `written` were written now; the others were there, and were compared with what they
            should be.
        tensors: in them, tied ones once.
        parameters: in those tensors.
        nbytes: of the files.
        finished: whether the checkpoint is complete.
        key: the seed that was used, as a `Key`: `report.key.seed`.
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
    key: Key

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
    extra_files: Mapping[str, bytes] | None = None,
    progress: Progress = False,
) -> Report:
    """Write a plan as safetensors files into a folder, as Hugging Face's libraries name and split them.

    Each thread makes blocks of 16 MB in a buffer of its own and writes them, on fewer threads where a limit of memory
    (of a container, `ulimit -v`) has no space for so many buffers; distributions whose elements depend on each other
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
        extra_files: further files for the folder, name -> bytes, e.g. a config.json. Plain names that are not those of
            a checkpoint's own files.
        progress: True shows a bar (lines, without a terminal) on stderr; a function is called, on any thread, with the
            bytes that are done, and all of them.

    Raises:
        ValueError, TypeError: an argument is wrong.
        FileExistsError: the folder holds another plan, seed or size of shards, and `overwrite` is false.
        BlockingIOError: another run writes into the folder. A part waits five seconds before it raises this.
        TimeoutError: no CPU of the Ray cluster was free for ten minutes.
        MemoryError: a tensor that must be made whole does not fit into the limits of memory.
        PermissionError: a file that would be replaced is another user's, in a sticky folder.
        OSError: the disk is full, the folder cannot be written... with the path; the same call goes on afterwards.
    """
    if not os.fspath(folder):
        raise ValueError("folder must be a path. Received: an empty text")
    start = time.perf_counter()
    number = num_threads(threads)
    mine = Part.of(part)
    key = plan.key(seed)
    run = _engine(engine, address)
    extra = check_extra_files(extra_files or {})
    job = Job.of(plan, key, as_bytes(max_shard_bytes), extra)
    job.layout  # noqa: B018  what no file can hold is refused before there is a folder
    if run is write_shards:  # tasks of Ray look where they run
        check_memory(job.layout.shards if mine is None else _shards_of(job, mine))
    place = Folder(folder, sync=fsync)
    place.path.mkdir(parents=True, exist_ok=True)
    with _begun(place, job, overwrite=overwrite, shared=mine is not None) as (job, lock):
        shards = job.layout.shards if mine is None else _shards_of(job, mine)
        try:
            with _part_lock(place, mine), progress_bar(progress, sum(s.nbytes for s in shards)) as advance:
                how = How(number, fsync, advance, place.path)
                written = _write_missing(job, shards, place, run, how, overwrite=overwrite)
        except BaseException:
            if mine is None:
                place.leave(job)
            raise
        finished = place.is_complete(job) if mine is None else _is_last(place, job, lock)
        path = place.finish(job, overwrite=overwrite) if finished else place.path
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
        key=job.key,
    )


@contextlib.contextmanager
def _begun(place: Folder, job: Job, *, overwrite: bool, shared: bool) -> Iterator[tuple[Job, int]]:
    """Lock a folder, begin a job in it, and give the job and the descriptor of the folder.

    A part tries again for `PATIENCE` seconds: others that begin or end in the same moment may need the folder for
    themselves.

    Raises:
        as `Folder.locked` and `Folder.begin`.
    """
    deadline = time.monotonic() + PATIENCE * shared
    while True:
        with contextlib.ExitStack() as stack:
            try:
                lock = stack.enter_context(place.locked(shared=shared))
                begun = place.begin(job, lock, overwrite=overwrite, shared=shared)
            except BlockingIOError as error:
                if error.errno is not None or time.monotonic() >= deadline:  # an errno: of a file, not of our locks
                    raise
            else:
                yield begun, lock
                return
        time.sleep(random.uniform(0.01, 0.1))  # at random: two that wait for each other do not meet for ever


def _is_last(place: Folder, job: Job, lock: int) -> bool:
    """Return True if all parts are written and this run has locked the folder for itself, to finish the checkpoint.

    The shared lock is given back first: a part that finds files missing must not stop the part that is the last.
    """
    place.unlock(lock)
    return place.is_complete(job) and place.try_lock(lock) and place.is_complete(job)


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


def _write_missing(
    job: Job, shards: Sequence[Shard], place: Folder, engine: Engine, how: How, *, overwrite: bool
) -> int:
    """Write the shards that are not there as they should be; the number of them.

    Raises:
        FileExistsError: one in its place is not what it should be, and `overwrite` is false.
    """
    files.remove_unfinished(place.staging, (shard.name for shard in shards))
    # With `overwrite` the files in their places are to be replaced; those that wait, or were moved since, are of a run
    # like this.
    replace = overwrite and not place.is_moving()
    found = {
        shard: path
        for shard, path in place.found(job, shards).items()  # a thousand parts would ask for a thousand times all
        if not (replace and path.parent == place.path)
    }
    items = ((block, path) for shard, path in found.items() for block in blocks(shard))
    wrong = {difference.file for difference in compare(items, job.key, how.threads, how.advance).differences}
    for shard, path in found.items():
        if shard.name in wrong and path.parent == place.path and not overwrite:
            raise FileExistsError(f"{path} is not what the plan and the seed give{REPLACES}")
    missing = [shard for shard in shards if shard not in found or shard.name in wrong]
    if missing:
        files.check_space(place.path, sum(shard.nbytes for shard in missing))
        engine(job, missing, place.staging, how)
    return len(missing)


def _part_lock(place: Folder, part: Part | None) -> contextlib.AbstractContextManager[object]:
    """Lock a part: one run at a time writes it."""
    if part is None:
        return contextlib.nullcontext()
    name = f".part-{part.index}-of-{part.count}"
    return files.locked(place.staging / name, f"part {part} is being written into {place.path}")


def _shards_of(job: Job, part: Part) -> Sequence[Shard]:
    """The shards of a part. Every shard has bytes, so parts beyond the number of shards have none."""
    shards = job.layout.shards
    groups = split_evenly(shards, min(part.count, len(shards)))
    return groups[part.index - 1] if part.index <= len(groups) else []


def _engine(name: str, address: str | None) -> Engine:
    if name == "threads":
        if address is not None:
            raise ValueError(f"address is for the engine ray. Received: address={address!r} for threads")
        return write_shards
    if name == "ray":
        from fastinit.checkpoint._on_ray import engine

        return engine(address)
    raise unknown("engine", name, ("threads", "ray"))
