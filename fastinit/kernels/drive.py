"""The drivers: they know neither law nor dtype, nor threads, only how a region is cut into ranges, or a list of ranges.

A region is `rows` runs of `columns` elements. Row r begins at byte `r * out_step` of the target and at element
`start + r * stream_step` of the stream. Ranges are numbered row by row, `chunk` elements each.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import types

from fastinit.kernels.jit import call_range, entry, fetch_add, scalar

i64, u64 = np.int64, np.uint64


@scalar
def _one_range(i, per_row, kernel, out, size, columns, out_step, start, stream_step, chunk, key, stream, parameters):
    row, first = i // per_row, (i % per_row) * chunk
    place, element = out + row * out_step + first * size, u64(start + row * stream_step + first)
    call_range(kernel, place, element, u64(min(chunk, columns - first)), key, stream, parameters)


def _single(kernel, out, start, count, key, stream, parameters):
    call_range(kernel, out, u64(start), u64(count), key, stream, parameters)


def _shared(kernel, out, size, rows, columns, out_step, start, stream_step, chunk, key, stream, parameters, counter):
    """Take the next range until none is left. Any number of threads do so at once: with a static split all would wait
    for the slower core."""
    per_row = (columns + chunk - 1) // chunk
    ranges = rows * per_row
    i = fetch_add(counter)
    while i < ranges:
        _one_range(i, per_row, kernel, out, size, columns, out_step, start, stream_step, chunk, key, stream, parameters)
        i = fetch_add(counter)


# What a row of a list says: a kernel, where its range lies, its elements, the kernel's `stream` and its `parameters`.
LIST_FIELDS = 5


def _listed(ranges, key, counter):
    """Take the next range of a list until none is left, on any number of threads at once. The ranges lie anywhere and
    may each have another kernel."""
    i = fetch_add(counter)
    while i < ranges.shape[0]:
        call_range(ranges[i, 0], ranges[i, 1], u64(0), u64(ranges[i, 2]), key, u64(ranges[i, 3]), ranges[i, 4])
        i = fetch_add(counter)


_REGION = (types.int64,) * 9 + (types.uint64, types.uint64, types.int64)


@functools.cache
def single() -> Any:
    """One range: the short way for a small call, whose cost is its arguments."""
    return entry(_single, types.void(*(types.int64,) * 4, types.uint64, types.uint64, types.int64), "single")


@functools.cache
def shared() -> Any:
    """All the ranges of a region, shared by the threads that call it with one counter (its address comes last)."""
    return entry(_shared, types.void(*_REGION, types.int64), "shared")


@functools.cache
def listed() -> Any:
    """All the ranges of a list, an int64 array of LIST_FIELDS columns, shared as those of `shared`."""
    return entry(_listed, types.void(types.int64[:, ::1], types.uint64, types.int64), "listed")
