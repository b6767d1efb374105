"""A checkpoint against its plan and seed: all of it, or a sample."""

from __future__ import annotations

import math
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path

from fastinit._core.key import Key
from fastinit._io import files
from fastinit._io.progress import Progress, progress_bar
from fastinit._runtime.checks import finite
from fastinit._runtime.threads import num_threads
from fastinit.checkpoint._blocks import Block, blocks
from fastinit.checkpoint._compare import compare
from fastinit.checkpoint._folder import MANIFEST, Folder
from fastinit.checkpoint._job import Job
from fastinit.checkpoint._layout import INDEX_NAME, Shard
from fastinit.checkpoint._shards import How, write_shards


@dataclass(frozen=True, slots=True)
class Verification:
    """What a verification found.

    Attributes:
        path: the folder.
        tensors: of the checkpoint.
        nbytes: bytes that were compared.
        problems: in words: files that are missing or of another size, then the first difference of every tensor that
            differs, up to where its file ends.
        differing: the names of the tensors that differ.
        repaired: whether all of it was written anew.
        key: the checkpoint's seed, as a `Key`.
    """

    path: str
    tensors: int
    nbytes: int
    seconds: float
    problems: tuple[str, ...]
    differing: tuple[str, ...]
    repaired: bool
    key: Key

    @property
    def gigabytes_per_second(self) -> float:
        return self.nbytes / self.seconds / 1e9


def verify(
    folder: str | Path,
    *,
    sample: float | str = 1.0,
    repair: bool = False,
    threads: int | None = None,
    progress: Progress = False,
) -> Verification:
    """Compare a checkpoint with what its plan and seed give, which stand in `fastinit.json` beside it.

    Elements that went through LAPACK (orthogonal laws), or that a constructor computed, may differ by rounding.

    Args:
        folder: of the checkpoint.
        sample: the fraction of it to compare, 0.01 or "1%", in blocks of 16 MB; other blocks each time.
        repair: write what differs or is missing, which needs all of it compared.
        threads: how many. Default: as many as a large fill has.
        progress: True shows a bar (lines, without a terminal) on stderr; a function is called, on any thread, with the
            bytes that are done, and all of them.

    Raises:
        FileNotFoundError: there is no such folder, no `fastinit.json` in it, or an unfinished `write`.
        BlockingIOError: a run writes into the folder.
    """
    start = time.perf_counter()
    number = num_threads(threads)
    fraction = _fraction(sample)
    if repair and fraction < 1:
        raise ValueError("repair needs all of the checkpoint: sample must be 1")
    place = Folder(folder)
    with files.locked(place.existing(), place.busy, shared=not repair):
        job = place.placed_job()
        if job is None or place.is_moving():
            raise FileNotFoundError(_unverifiable(place))
        problems, present = _examine(place, job)
        chosen = _sample([block for shard in present for block in blocks(shard)], fraction)
        items = ((block, place.path / block.shard.name) for block in chosen)
        nbytes = sum(block.nbytes for block in chosen)
        with progress_bar(progress, nbytes) as advance:
            differences = compare(items, job.key, number, advance, repair=repair)
        if repair and (problems or differences):
            _restore(place, job, present, number)
    return Verification(
        path=str(place.path),
        tensors=sum(len(shard.entries) for shard in job.layout.shards),
        nbytes=nbytes,
        seconds=time.perf_counter() - start,
        problems=(*problems, *map(str, differences)),
        differing=tuple(dict.fromkeys(one.tensor for one in differences if one.tensor is not None)),
        repaired=repair and bool(problems or differences),
        key=job.key,
    )


def _fraction(sample: float | str) -> float:
    text = sample.strip() if isinstance(sample, str) else ""
    try:
        if isinstance(sample, str):
            fraction = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        else:
            fraction = finite("sample", sample)
    except ValueError:
        fraction = 0.0
    if not 0 < fraction <= 1:
        raise ValueError(f"sample must be above 0 and at most 1, or a text such as 1%. Received: sample={sample!r}")
    return fraction


def _unverifiable(place: Folder) -> str:
    if place.staged_job() is not None:
        return f"{place.path} is not finished: give the same `write` command again, or `finalize` after the last part"
    return f"{place.path / MANIFEST} is missing: only checkpoints that fastinit wrote can be verified"


def _examine(place: Folder, job: Job) -> tuple[list[str], list[Shard]]:
    """What is wrong with the files as such, and the shards of which there is a file."""
    problems, present = [], []
    for shard in job.layout.shards:
        path = place.path / shard.name
        if not path.exists():
            problems.append(f"{shard.name} is missing")
            continue
        present.append(shard)
        if path.stat().st_size != shard.nbytes:
            problems.append(f"{shard.name} must have {shard.nbytes:,} bytes. Received: {path.stat().st_size:,}")
    if job.layout.index is not None and not place.has_index(job):
        there = (place.path / INDEX_NAME).exists()
        problems.append(f"{INDEX_NAME} {'is not what it should be' if there else 'is missing'}")
    return problems, present


def _sample(every: list[Block], fraction: float) -> list[Block]:
    """Some of the blocks, in their order."""
    chosen = random.sample(range(len(every)), math.ceil(fraction * len(every)))
    return [every[i] for i in sorted(chosen)]


def _restore(place: Folder, job: Job, present: list[Shard], threads: int) -> None:
    """What blocks alone do not mend: sizes, files that are missing, the index."""
    for shard in present:
        with files.opened(place.path / shard.name, os.O_RDWR) as descriptor:
            os.ftruncate(descriptor, shard.nbytes)
            os.fsync(descriptor)
    missing = [shard for shard in job.layout.shards if shard not in present]
    files.remove_unfinished(place.path, (INDEX_NAME, *(shard.name for shard in missing)))
    if missing:
        write_shards(job, missing, place.path, How(threads, fsync=True, advance=lambda nbytes: None))
    if job.layout.index is not None:
        files.put(place.path / INDEX_NAME, job.layout.index)


def finalize(folder: str | Path, *, fsync: bool = True) -> Path:
    """Finish a checkpoint that was written in parts: check that every file is there with its size and header, move
    them into place, write the index.

    Args:
        folder: of the checkpoint.
        fsync: wait until the disk has it.

    Returns:
        The file that stands for the checkpoint.

    Raises:
        FileNotFoundError: there is nothing to finish, or files are missing.
        BlockingIOError: a part is still being written.
    """
    place = Folder(folder, sync=fsync)
    with files.locked(place.existing(), place.busy):
        job = place.staged_job()
        if job is None:
            job = place.placed_job()
            if job is None:
                raise FileNotFoundError(f"nothing was written into {place.path}")
        found = place.found(job)
        missing = [shard.name for shard in job.layout.shards if shard not in found]
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} of {len(job.layout.shards)} files are not written yet, the first of them {missing[0]}"
            )
        return place.finish(job)
