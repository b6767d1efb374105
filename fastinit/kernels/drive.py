"""The drivers: they know neither distribution nor dtype, nor threads, only how a region or a list of runs is cut up.

The ranges of a region are numbered row by row, `chunk` elements each; those of a list run by run. Any number of threads
take the next range from a shared counter: with a static split all would wait for the slower core.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from fastinit._native.records import RUN, Rows
from fastinit.kernels.jit import Definition, call_range, carray, definition, fetch_add, pointer, scalar

i64, u64 = np.int64, np.uint64


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


CALL, RECORD = _run_range, RUN  # template arguments


def _listed(runs, number, chunk, stop, counter):
    """Take the next range of a list of `number` records, up to number `stop`, until none is left."""
    runs = carray(pointer(runs), number, RECORD)
    wanted = fetch_add(counter)
    before = i64(0)  # ranges of the runs so far
    for i in range(number):
        run = runs[i]
        ranges = (run.count + chunk - 1) // chunk
        while wanted < min(stop, before + ranges):
            first = (wanted - before) * chunk
            CALL(run, first, min(chunk, run.count - first))
            wanted = fetch_add(counter)
        before += ranges


def shared() -> Definition:
    """All the ranges of a region, `records.Rows`; the arguments are those of `_shared`, places as addresses."""
    region = types.NamedUniTuple(types.int64, len(Rows._fields), Rows)
    words = types.uint64, types.uint64
    return definition(_shared, types.void(types.int64, region, *(types.int64,) * 2, *words, *(types.int64,) * 2))


def listed() -> Definition:
    """Some of the ranges of a list of runs, an array of `records.RUN`."""
    return list_driver(RUN, _run_range)


def list_driver(record: np.dtype[Any], call: Any) -> Definition:
    """A driver of a list: `call(run, first, count)` is a scalar function for elements of one record.

    Its arguments: the address and the number of the records, elements of a range, the number of the range to stop at,
    and the counter's address.
    """
    return definition(_listed, types.void(*(types.int64,) * 5), CALL=call, RECORD=record)
