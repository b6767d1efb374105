"""How many threads, and one parallel call at a time.

Numba's threading layers each have a trap: `omp` kills a forked child that starts a kernel, `workqueue` aborts when
two Python threads start one at once. So a lock is held round every parallel call (each uses all the threads there
are, two at once would only fight), and a forked child works on one thread. No setting of Numba's is changed.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import threading
from collections.abc import Iterator

import numba
import numpy as np

from fastinit.buffers import Rows
from fastinit.kernels import drive

_LOCK = threading.RLock()  # a signal handler that fills may interrupt a fill of its own thread
_LIMIT: contextvars.ContextVar[int | None] = contextvars.ContextVar("fastinit_threads", default=None)
_forked = False

# Starting two threads costs some 10 us, as much as 2^14 elements; but where another process holds a core, OpenMP's
# barrier waits for a time slice, milliseconds. From 2^17 elements on (0.1 to 0.2 ms) two threads win in both cases.
# Ranges are many more than threads, so that none waits for a slower core.
PARALLEL_FROM = 1 << 17
CHUNK = 1 << 13
# Elements per call into compiled code, where Ctrl-C has to wait: 0.1 s at the slowest law's pace on one thread.
SLAB = 1 << 23
BLOCK = 1 << 8  # what a row costs at least: the stream is made in blocks of 256 (float64: 128) elements


def _after_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def count() -> int:
    """How many threads a large fill uses: Numba's number, shared with the other ranks that torchrun started here."""
    if _forked:
        return 1
    limit = _LIMIT.get()
    if limit is not None:
        return limit
    ranks = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, numba.get_num_threads() // max(1, int(ranks) if ranks.isdecimal() else 1))


@contextlib.contextmanager
def thread_limit(number: int) -> Iterator[None]:
    """Use this many threads inside the with-block, in this thread or task only. The values do not depend on it.

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
    location, rows, columns, out_step, start, stream_step = region
    if rows * columns < PARALLEL_FROM:
        if rows == 1:
            drive.single()(kernel, location, start, columns, *words, parameters)
            return
        drive.serial()(kernel, location, size, rows, columns, out_step, start, stream_step, CHUNK, *words, parameters)
        return
    for slab in _slabs(region, size):
        workers = count()  # anew: a signal handler may have forked, and this be the child
        if workers == 1:
            drive.serial()(kernel, slab[0], size, *slab[1:], CHUNK, *words, parameters)
            continue
        counter = np.zeros(1, np.int64)
        with _LOCK:
            drive.parallel()(kernel, slab[0], size, *slab[1:], CHUNK, *words, parameters, counter.ctypes.data, workers)


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
