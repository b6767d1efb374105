"""The drivers: they know neither distribution nor dtype, nor threads, only how a region or a list of runs is cut up.

The ranges of a region are numbered row by row, `chunk` elements each; those of a list run by run. Any number of threads
take the next range from a shared counter: with a static split all would wait for the slower core.
"""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np
from numba import types

from fastinit.kernels.jit import call_range, entry, fetch_add, scalar
from fastinit.kernels.records import RUN, Rows

i64, u64 = np.int64, np.uint64


def _single(kernel, out, start, count, key, stream, parameters):
    call_range(kernel, out, u64(start), u64(count), key, stream, parameters)


def _shared(kernel, region, size, chunk, key, stream, parameters, counter):
    """Take the next range of a region until none is left."""
    per_row = (region.columns + chunk - 1) // chunk
    i = fetch_add(counter)
    while i < region.rows * per_row:
        row, first = i // per_row, (i % per_row) * chunk
        place = region.place + row * region.out_step + first * size
        element = u64(region.start + row * region.stream_step + first)
        call_range(kernel, place, element, u64(min(chunk, region.columns - first)), key, stream, parameters)
        i = fetch_add(counter)


@scalar
def _run_range(run, first, count):
    place = run.place + first * run.size
    call_range(run.kernel, place, u64(first), u64(count), run.key, run.stream, run.parameters)


CALL = _run_range  # a template argument


def _listed(runs, chunk, stop, counter):
    """Take the next range of a list, up to number `stop`, until none is left."""
    wanted = fetch_add(counter)
    before = i64(0)  # ranges of the runs so far
    for i in range(runs.size):
        run = runs[i]
        ranges = (run.count + chunk - 1) // chunk
        while wanted < min(stop, before + ranges):
            first = (wanted - before) * chunk
            CALL(run, first, min(chunk, run.count - first))
            wanted = fetch_add(counter)
        before += ranges


@functools.cache
def single() -> Any:
    """One range. Its arguments are plain: they are most of what a small call costs."""
    return entry(_single, types.void(*(types.int64,) * 4, types.uint64, types.uint64, types.int64), "single")


@functools.cache
def shared() -> Any:
    """All the ranges of a region, `records.Rows`; the arguments are those of `_shared`, places as addresses."""
    region = types.NamedUniTuple(types.int64, len(Rows._fields), Rows)
    words = types.uint64, types.uint64
    return entry(_shared, types.void(types.int64, region, *(types.int64,) * 2, *words, *(types.int64,) * 2), "shared")


@functools.cache
def listed() -> Any:
    """Some of the ranges of a list of runs, an array of `records.RUN`."""
    return list_driver(RUN, _run_range, "listed")


def list_driver(record: np.dtype[Any], call: Any, name: str) -> Any:
    """Compile a driver of a list: `call(run, first, count)` is a scalar function for elements of one record.

    Its arguments: the records, elements of a range, the number of the range to stop at, and the counter's address.
    """
    runs = types.Array(numba.from_dtype(record), 1, "C")
    return entry(_listed, types.void(runs, types.int64, types.int64, types.int64), name, CALL=call)
