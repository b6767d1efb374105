"""How many threads a fill has, and how a region is cut up for them."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os
from collections.abc import Iterator

import numba
import numpy as np

from fastinit._runtime.arrays import Array, Rows, address
from fastinit._runtime.pool import forked, together
from fastinit.kernels import drive

_LIMIT: contextvars.ContextVar[int | None] = contextvars.ContextVar("fastinit_threads", default=None)
# Waking a helper takes 20 to 100 us, so two threads win from here on (0.5 ms of normals on one). Ranges are many more
# than threads, so that none waits for a slower core.
PARALLEL_FROM = 1 << 18
CHUNK = 1 << 13
# Elements per call into compiled code, where Ctrl-C has to wait: 0.1 s at the slowest law's pace on one thread.
SLAB = 1 << 23
# The same for work that only reads or scales memory, as fast as that comes (0.5 ms for these bytes): bytes from which
# two threads win, elements of a range (whole chunks), and ranges per call into compiled code.
PARALLEL_BYTES = 1 << 23
RANGE = CHUNK << 3
SLAB_RANGES = 1 << 9
BLOCK = 1 << 8  # what a row costs at least: the stream is made in blocks of 256 (float64: 128) elements


def count() -> int:
    """How many threads a large fill uses: as many as CPUs that this process may run on, or `NUMBA_NUM_THREADS` in its
    environment, shared with the other ranks that torchrun started here; 1 in a forked child."""
    if forked():
        return 1
    limit = _LIMIT.get()
    if limit is not None:
        return limit
    ranks = os.environ.get("LOCAL_WORLD_SIZE", "1")
    available = int(numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
    return max(1, available // max(1, int(ranks) if ranks.isdecimal() else 1))


@contextlib.contextmanager
def thread_limit(number: int) -> Iterator[None]:
    """Use this many threads inside the with-block, in this thread or task only. The values do not depend on it.

    Args:
        number: of threads, from 1; the thread that calls is one of them.

    Raises:
        TypeError: the number is no int.
        ValueError: it is below 1.

    >>> with thread_limit(1):
    ...     count()
    1
    """
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"number must be an int. Received: number={number!r}")
    if number < 1:
        raise ValueError(f"number must be at least 1. Received: number={number}")
    token = _LIMIT.set(number)
    try:
        yield
    finally:
        _LIMIT.reset(token)


def spread(kernel: int, size: int, region: Rows, words: tuple[int, int], parameters: int) -> None:
    """Run a range kernel over a region; `size` is an element's bytes, `parameters` the address of the law's numbers."""
    location, rows, columns, _, start, _ = region
    large = rows * columns >= PARALLEL_FROM
    if rows == 1 and not large:
        drive.single()(kernel, location, start, columns, *words, parameters)
        return
    for slab in _slabs(region, size):
        counter = np.zeros(1, np.int64)  # of the ranges that are taken
        work = functools.partial(
            drive.shared(), kernel, slab[0], size, *slab[1:], CHUNK, *words, parameters, address(counter)
        )
        together(work, count() if large else 1)  # anew: a signal handler may have forked, and this be the child


def ranges(locations: Array, counts: Array, sizes: Array) -> tuple[Array, Array]:
    """A list for `walk` and, for each of its ranges, the number of the run that it is a part of.

    Run i is `counts[i]` elements of `sizes[i]` bytes at the address `locations[i]`. It is cut into ranges of RANGE
    elements; the kernels and their last two arguments are left to the caller.
    """
    parts = -(-counts // RANGE)
    owners, done = np.arange(len(counts)), np.zeros_like(counts)
    if np.count_nonzero(parts != 1):
        owners = owners.repeat(parts)
        done = (np.arange(len(owners)) - (parts.cumsum() - parts)[owners]) * RANGE
    table = np.zeros((len(owners), drive.LIST_FIELDS), np.int64)
    table[:, 1] = locations[owners] + done * sizes[owners]
    table[:, 2] = np.minimum(counts[owners] - done, RANGE)
    return table, owners


def walk(table: Array, key: int, size: int) -> None:
    """Run the kernels of a list of ranges, which have `size` bytes in all; all kernels get the same `key`."""
    for first in range(0, len(table), SLAB_RANGES):
        counter = np.zeros(1, np.int64)  # of the ranges that are taken
        slab = table[first : first + SLAB_RANGES]
        work = functools.partial(drive.listed(), slab, key, address(counter))
        together(work, count() if size >= PARALLEL_BYTES else 1)  # anew, as in `spread`


def _slabs(region: Rows, size: int) -> Iterator[Rows]:
    """The region in pieces that cost as much as SLAB elements: a row, short as it may be, is a block of the stream."""
    location, rows, columns, out_step, start, stream_step = region
    height = max(1, SLAB // (columns + BLOCK))
    for row in range(0, rows, height):
        for column in range(0, columns, SLAB):
            yield (
                location + row * out_step + column * size,
                min(height, rows - row),
                min(SLAB, columns - column),
                out_step,
                start + row * stream_step + column,
                stream_step,
            )
