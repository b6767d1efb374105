"""How many threads a fill has, and how a region is cut up for them."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import itertools
import math
import os
from collections.abc import Callable, Iterator

import numpy as np

from fastinit._native.library import Kernel, kernel
from fastinit._native.records import Rows
from fastinit._runtime import limits
from fastinit._runtime.arrays import Array, address
from fastinit._runtime.checks import positive_int
from fastinit._runtime.pool import forked, together

# From Python 3.13 on: PYTHON_CPU_COUNT where that is set, else the affinity.
_process_cpu_count: Callable[[], int | None] | None = getattr(os, "process_cpu_count", None)
_LIMIT: contextvars.ContextVar[int | None] = contextvars.ContextVar("fastinit_threads", default=None)
MOST_THREADS = 1 << 12  # that may be asked for; the largest machines have some 2,000 CPUs
# Waking a worker takes 20 to 100 us, so two threads win from here on (0.5 ms of normals on one).
PARALLEL_FROM = 1 << 18
CHUNK = 1 << 13  # elements of a partial sum (statistics, norms): their bits depend on it
# Ranges are several times as many as threads, so that none waits long for a slower core: this many for each, but of
# CHUNK elements at least and of these at most. Longer ones are faster, since each thread walks through memory in order.
RANGES = 16
LONGEST_RANGE = CHUNK << 4
# Elements for each thread per call into compiled code, where Ctrl-C has to wait: 0.1 s of the slowest distribution.
SLAB = 1 << 23
# The same for work that only reads or scales memory, as fast as that comes (0.5 ms for these bytes): bytes from which
# two threads win, and elements per call into compiled code (5 to 20 ms).
PARALLEL_BYTES = 1 << 23
READ_SLAB = 1 << 26
FEW_RUNS = 1 << 6  # with less work than two threads need, one call does them all
_ALL = (1 << 63) - 1  # the number of a range behind every last one
BLOCK = 1 << 8  # what a row costs at least: the stream is made in blocks of 256 (float64: 128) elements


def num_threads(given: int | None = None) -> int:
    """Return how many threads to use: a caller's `threads` argument, or as many as a large fill has."""
    return _checked("threads", given) if given is not None else default_threads()[0]


def _checked(name: str, given: object) -> int:
    number = positive_int(name, given)
    if number > MOST_THREADS:
        raise ValueError(f"{name} must be at most {MOST_THREADS:,}. Received: {name}={given!r}")
    return number


def default_threads() -> tuple[int, str]:
    """Return how many threads a large fill has, and what decided that. The first of these that there is:

    1. A forked child has one thread.
    2. `thread_limit`, inside its with-block.
    3. `NUMBA_NUM_THREADS`, also above the number of CPUs; else the CPUs that this thread may run on (its affinity), or
       the CPU quota of the process's control groups where that is smaller. A part of a CPU counts as one, as in Java
       and Go: of 1.5 CPUs, one thread would leave a third unused.

    The ranks that torchrun starts on a machine share the third number: it is divided by `LOCAL_WORLD_SIZE`. Values of
    variables that are no positive ints are ignored, and so is `OMP_NUM_THREADS`, which torchrun sets to 1.
    """
    if forked():
        return 1, "a forked child"
    limit = _LIMIT.get()
    if limit is not None:
        return limit, "thread_limit"
    number, source = _available()
    ranks = _positive(os.environ.get("LOCAL_WORLD_SIZE"))
    if ranks is None or ranks == 1:
        return number, source
    return max(1, number // ranks), f"{source}: {number}, shared by LOCAL_WORLD_SIZE={ranks} processes"


def _available() -> tuple[int, str]:
    """How many threads this process can have, and why."""
    number = _positive(os.environ.get("NUMBA_NUM_THREADS"))
    if number is not None:
        return number, "NUMBA_NUM_THREADS"
    cpus, quota = _cpus(), limits.cpu_quota()
    if quota is not None and quota.cpus < cpus:
        return max(1, math.ceil(quota.cpus)), f"a quota of {quota.cpus:g} CPUs in {quota.source}"
    return cpus, "CPU affinity"


def _cpus() -> int:
    """The CPUs that this thread may run on; the machine's where the system does not tell."""
    if _process_cpu_count is not None:
        return _process_cpu_count() or 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _positive(text: str | None) -> int | None:
    """The number in an environment variable, where it is a positive int."""
    text = (text or "").strip()
    return (int(text) or None) if text.isdecimal() else None


@contextlib.contextmanager
def thread_limit(number: int) -> Iterator[None]:
    """Use this many threads inside the with-block, in this thread or task only. The values do not depend on it.

    Args:
        number: of threads, from 1; the thread that calls is one of them.

    Raises:
        TypeError: the number is no int.
        ValueError: it is below 1, or above 4,096.

    >>> with thread_limit(1):
    ...     num_threads()
    1
    """
    token = _LIMIT.set(_checked("number", number))
    try:
        yield
    finally:
        _LIMIT.reset(token)


def spread(
    run: Kernel, size: int, place: int, count: int, words: tuple[int, int], parameters: int, start: int = 0
) -> None:
    """Run a range kernel over contiguous memory.

    Args:
        run: what runs.
        size: bytes of an element.
        place: where the elements lie.
        count: how many they are.
        words: the kernel's `key` and `stream`.
        parameters: the address of what else the kernel reads or writes.
        start: the first element's number in the stream.
    """
    if count < PARALLEL_FROM:
        run.call(place, start, count, *words, parameters)
    else:
        spread_rows(run, size, Rows(place, 1, count, 0, start, 0), words, parameters)


def spread_rows(run: Kernel, size: int, region: Rows, words: tuple[int, int], parameters: int) -> None:
    """Run a range kernel over rows of memory; the other arguments are those of `spread`."""
    large = region.rows * region.columns >= PARALLEL_FROM
    if region.rows == 1 and not large:
        run.call(region.place, region.start, region.columns, *words, parameters)
        return
    workers = num_threads() if large else 1
    chunk = _range_length(region.rows * region.columns, workers)
    for slab in _slabs(region, size, SLAB * workers):
        counter = np.zeros(1, np.int64)  # of the ranges that are taken
        arguments = (run.address, *slab, size, chunk, *words, parameters, address(counter))
        work = functools.partial(kernel("drive.shared").call, *arguments)
        together(work, num_threads() if large else 1)  # anew: a signal handler may have forked, and this be the child


def _range_length(count: int, workers: int) -> int:
    """Elements of a range, of `count` elements in all: whole chunks."""
    return min(LONGEST_RANGE, max(CHUNK, count // (RANGES * workers) // CHUNK * CHUNK))


def spread_runs(records: Array) -> None:
    """Run the range kernels of a list, an array of `records.RUN`, from the first element of each stream on."""
    total = int(records["count"].sum())
    large = total >= PARALLEL_FROM
    workers = num_threads() if large else 1
    length = _range_length(total, workers)
    walk(kernel("drive.listed"), records, length, large=large, most=SLAB * workers)


def read_runs(runs: Array) -> None:
    """Run range kernels that read or scale memory as fast as that comes, over a list, an array of `records.RUN`."""
    large = runs["count"] @ runs["size"] >= PARALLEL_BYTES
    length = _range_length(int(runs["count"].sum()), num_threads()) if large else LONGEST_RANGE
    walk(kernel("drive.listed"), runs, length, large=large, most=READ_SLAB)


def walk(driver: Kernel, runs: Array, chunk: int, *, large: bool, most: int | None) -> None:
    """Run a driver of lists over its records.

    Args:
        driver: a kernel that `drive.list_driver` defines.
        runs: the records, with a field `count`.
        chunk: elements of a range.
        large: whether to use several threads.
        most: elements per call into compiled code, where Ctrl-C has to wait; None: all of them.
    """
    # To count the elements of a few runs would take longer than a small call.
    calls = [(runs, 0, _ALL)] if not large and len(runs) <= FEW_RUNS else _calls(runs, chunk, most)
    for part, first, stop in calls:
        counter = np.array(first, np.int64)  # of the ranges that are taken
        work = functools.partial(driver.call, address(part), len(part), chunk, stop, address(counter))
        together(work, num_threads() if large else 1)  # anew, as in `spread_rows`


def _calls(runs: Array, chunk: int, most: int | None) -> Iterator[tuple[Array, int, int]]:
    """The runs of each call, the first of their ranges that it has, and the one where it stops.

    A short run counts as a block of a stream.
    """
    counts = runs["count"]
    costs = np.maximum(counts, BLOCK).cumsum()  # up to the end of each run
    if most is None or not len(runs) or costs[-1] <= most:
        yield runs, 0, _ALL
        return
    ends = (-(-counts // chunk)).cumsum()  # ranges, likewise
    cuts = np.arange(most, costs[-1], most)
    inside = costs.searchsorted(cuts, "right")  # the run that each cut is in
    begins, first = (np.concatenate(([0], numbers[:-1]))[inside] for numbers in (costs, ends))
    bounds = np.unique([0, *first + (cuts - begins) // chunk, ends[-1]]).tolist()
    for first, last in itertools.pairwise(bounds):
        begin, end = ends.searchsorted((first, last - 1), "right").tolist()
        before = int(ends[begin - 1]) if begin else 0
        yield runs[begin : end + 1], first - before, last - before


def _slabs(region: Rows, size: int, most: int) -> Iterator[Rows]:
    """The region in parts that cost as much as `most` elements: a row, short as it may be, is a block of the stream."""
    height = max(1, most // (region.columns + BLOCK))
    if region.rows <= height and region.columns <= most:
        yield region
        return
    for row in range(0, region.rows, height):
        for column in range(0, region.columns, most):
            yield region._replace(
                place=region.place + row * region.out_step + column * size,
                rows=min(height, region.rows - row),
                columns=min(most, region.columns - column),
                start=region.start + row * region.stream_step + column,
            )
