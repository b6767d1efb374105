"""A checkpoint against its plan and seed: all of it, or a sample."""

from __future__ import annotations

import math
import random
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fastinit._core.key import Key
from fastinit._io import files
from fastinit._io.folders import snapshot
from fastinit._io.progress import Progress, progress_bar
from fastinit._io.text import LONGEST_LINE, printable
from fastinit._runtime.checks import finite
from fastinit._runtime.threads import num_threads
from fastinit.checkpoint._blocks import Block, Blocks
from fastinit.checkpoint._compare import compare
from fastinit.checkpoint._folder import Folder
from fastinit.checkpoint._job import Job
from fastinit.checkpoint._layout import INDEX_NAME, Shard
from fastinit.checkpoint._notes import MANIFEST
from fastinit.checkpoint._shards import How, mend_shards, write_shards
from fastinit.checkpoint._stored import Examined, examine


@dataclass(frozen=True, slots=True)
class Verification:
    """What a verification found.

    Attributes:
        path: the folder.
        tensors: of the checkpoint.
        nbytes: bytes that were compared.
        layout: "planned" if the files and their headers are those that `write` makes, "other" if another program has
            saved the checkpoint: into other files, in another order, with other metadata. That is no problem.
        problems: in words: files and tensors that are missing or of another size, shape or dtype, then the first
            difference of every tensor that differs, up to where its file ends. Control characters are escaped, and each
            has at most 500 characters; `differing` has the names as they are.
        differing: the names of the tensors that differ.
        repaired: whether all of it was written anew.
        key: the checkpoint's seed, as a `Key`.
    """

    path: str
    tensors: int
    nbytes: int
    seconds: float
    layout: str
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

    Tensors are found by the headers of the files that `from_pretrained` loads, so a checkpoint that was loaded and
    saved again by `save_pretrained` or `save_file` is sound as long as its tensors are.

    Args:
        folder: of the checkpoint.
        sample: the fraction of it to compare, 0.01 or "1%", in blocks of 16 MB; other blocks each time.
        repair: write what differs or is missing, which needs all of it compared. A file with elements that differ is
            replaced by a copy without them; no file is written to, since it may have other names, or be the one that a
            link leads to. If tensors are missing, have another dtype or shape or are none of the plan's, their files
            are written as `write` does; all files are, and those of another layout removed, where that does not fit.
        threads: how many. Default: as many as a large fill has.
        progress: True shows a bar (lines, without a terminal) on stderr; a function is called, on any thread, with the
            bytes that are done, and all of them.

    Raises:
        FileNotFoundError: there is no such folder, no `fastinit.json` in it, or an unfinished `write`.
        BlockingIOError: a run writes into the folder.
        PermissionError: a file that a repair would replace is another user's, in a sticky folder. Nothing was changed.
        MemoryError: as `write`.
    """
    start = time.perf_counter()
    number = num_threads(threads)
    fraction = _fraction(sample)
    if repair and fraction < 1:
        raise ValueError("repair needs all of the checkpoint: sample must be 1")
    place = Folder(snapshot(Path(folder)))
    with place.locked(shared=not repair):
        job = place.placed_job()
        if job is None or place.is_moving():
            raise FileNotFoundError(_unverifiable(place))
        found = examine(place, job)
        for note in found.notes:
            warnings.warn(printable(note, LONGEST_LINE), stacklevel=2)
        chosen, nbytes = _sample(_blocks(place, found, repair=repair), fraction)
        items = ((block, place.path / block.shard.name) for block in chosen)
        with progress_bar(progress, nbytes) as advance:
            differences, wrong = compare(items, job.key, number, advance)
        problems = [*found.problems, *map(str, differences)]
        if repair and problems:
            _restore(place, job, found, wrong, number)
    return Verification(
        path=str(place.path),
        tensors=sum(len(shard.entries) for shard in job.layout.shards),
        nbytes=nbytes,
        seconds=time.perf_counter() - start,
        layout="planned" if found.as_planned else "other",
        problems=tuple(printable(problem, LONGEST_LINE) for problem in problems),
        differing=tuple(
            dict.fromkeys([*found.differing, *(one.tensor for one in differences if one.tensor is not None)])
        ),
        repaired=repair and bool(problems),
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


def _blocks(place: Folder, found: Examined, *, repair: bool) -> Blocks:
    """The blocks of the files that are there: to their ends, or for a repair to where they should end.

    Raises:
        OSError: a repair has no space for the files that it writes because they are too short or missing.
    """
    sizes = {shard: (place.path / shard.name).stat().st_size for shard in found.shards}
    if repair:
        too_short = [shard for shard, size in sizes.items() if size < shard.nbytes and not found.is_rewritten(shard)]
        files.check_space(place.path, sum(shard.nbytes for shard in (*too_short, *found.rewritten)))
    return Blocks((shard, None if repair else size) for shard, size in sizes.items())


def _sample(every: Blocks, fraction: float) -> tuple[Iterable[Block], int]:
    """Some of the blocks, in their order, and their bytes."""
    if fraction == 1:
        return every, every.nbytes
    chosen = random.sample(range(len(every)), math.ceil(fraction * len(every)))
    some = [every.at(i) for i in sorted(chosen)]
    return some, sum(block.nbytes for block in some)


def _restore(place: Folder, job: Job, found: Examined, wrong: list[Block], threads: int) -> None:
    """Replace the files that are not what they should be, and the index. No existing file is written to: it may be the
    target of a link."""
    kept = [shard for shard in found.shards if not found.is_rewritten(shard)]
    mended: dict[Shard, list[Block]] = {
        shard: [] for shard in kept if (place.path / shard.name).stat().st_size != shard.nbytes
    }
    for block in wrong:
        if not found.is_rewritten(block.shard):
            mended.setdefault(block.shard, []).append(block)
    index = place.path / INDEX_NAME
    names = [shard.name for shard in (*mended, *found.rewritten)]
    replaces_index = found.index is not None or bool(found.removed)
    replaced = [*(place.path / name for name in names), *found.removed, *[index] * replaces_index]
    files.check_replaceable(replaced)
    files.remove_unfinished(place.path, (INDEX_NAME, *names))
    how = How(threads, fsync=True, advance=lambda nbytes: None)
    mend_shards(job.key, mended, place.path, how)
    if found.rewritten:
        write_shards(job, found.rewritten, place.path, how)
    for path in found.removed:
        path.unlink()
    if found.index is not None:
        files.put(index, found.index)
    elif found.removed:
        index.unlink(missing_ok=True)
    files.sync_folder(place.path)


def finalize(folder: str | Path, *, fsync: bool = True) -> Path:
    """Finish a checkpoint that was written in parts: check that every file is there with its size and header, move
    them into place, write the index. Values are not compared: `verify` does that.

    Only the files that the parts have written are moved. A file in place that is not this checkpoint's is replaced if
    the parts were written with `overwrite`, and it is the file that was there then.

    Args:
        folder: of the checkpoint.
        fsync: wait until the disk has it.

    Returns:
        The file that stands for the checkpoint.

    Raises:
        FileNotFoundError: there is nothing to finish, or files are missing.
        FileExistsError: a file in place is something else, and no part was to replace it.
        BlockingIOError: a part is still being written.
    """
    place = Folder(folder, sync=fsync)
    with place.locked():
        job = place.staged_job()
        if job is None:
            job = place.placed_job()
            if job is None:
                raise FileNotFoundError(f"nothing was written into {place.path}")
        missing = place.missing(job)
        if missing:
            number = len(job.layout.shards)
            raise FileNotFoundError(
                f"{len(missing)} of {number} files are not written yet, the first of them {missing[0]}"
            )
        return place.finish(job)
