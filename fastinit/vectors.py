"""Many arrays as one list of runs of memory: their norms, and kernels over them in place.

Each array by itself would cost a call into compiled code; here all go in one list, which the threads share.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from fastinit.buffers import DTYPES, Array, address, check_source, check_target, memory_order
from fastinit.kernels.norms import norm_kernel
from fastinit.threads import CHUNK, ranges, walk

Named: TypeAlias = list[tuple[str, Any]]  # arrays with what messages call them

_CODES = {name: code for code, name in enumerate(DTYPES)}
_SIZES = np.array([dtype.itemsize for dtype in DTYPES.values()])
_SUMS = {1.0: "absolute", 2.0: "squares", math.inf: "largest"}
# A float64 sum of squares below this may have lost digits to squares that underflowed.
_SURE_FROM = 2.0**-950
_LARGEST_FACTOR = 2.0**1023


@dataclass
class Vectors:
    """Arrays as contiguous runs of memory, a row each: address, elements, number of the dtype, number of the array.

    Most arrays are one run; by rows, each row is one. What has gaps is worked on in a contiguous copy.
    """

    runs: Array
    once: Array  # which runs are not those of an earlier array again
    copies: dict[int, tuple[Array, Array]]  # number of the array: itself, its copy

    def change(self, kernel: Callable[[str], tuple[int, Any]], parameters: Array, chosen: Array) -> None:
        """Run an in-place kernel over the chosen runs, with a row of `parameters` for each run."""
        chosen = chosen & self.once
        runs, parameters = self.runs[chosen], np.ascontiguousarray(parameters[chosen], np.float64)
        table, owners = _ranges(kernel, runs)
        table[:, 4] = parameters.ctypes.data + parameters.strides[0] * owners
        walk(table, 0, _bytes(runs))
        for number in self.copies.keys() & set(runs[:, 3].tolist()):
            array, copy = self.copies[number]
            array[...] = copy


def vectors(named: Named, *, write: bool, by_row: bool = False) -> Vectors:
    """Where the arrays lie, after all checks; the runs of a row are the units of `adaptive_clip` with `by_row`."""
    codes = [_CODES[(check_target if write else check_source)(x, name)] for name, x in named]
    first: dict[Any, int] = {}  # what names a set of elements: the first array that is this set
    numbers = [first.setdefault(_identity(x), number) for number, (_, x) in enumerate(named)]
    if write:
        _refuse_overlap([named[number] for number in first.values()])
    rows: list[tuple[int, int, int, int]] = []  # address of the first run, how many, bytes from run to run, elements
    copies: dict[int, tuple[Array, Array]] = {}
    for number, (_, x) in zip(numbers, named, strict=True):
        found = _rows(copies[number][1] if number in copies else x, by_row)
        if found is None:
            copies[number] = x, np.ascontiguousarray(x)
            found = _rows(copies[number][1], by_row)
            assert found is not None
        rows.append(found)
    locations, heights, steps, counts = np.array(rows, np.int64).reshape(-1, 4).T
    owners = np.repeat(np.arange(len(rows)), heights)
    row = np.arange(len(owners)) - np.repeat(np.cumsum(heights) - heights, heights)
    runs = np.stack([locations + 0, counts, np.array(codes, np.int64), np.array(numbers, np.int64)], axis=1)[owners]
    runs[:, 0] += row * steps[owners]
    return Vectors(runs, (np.array(numbers) == np.arange(len(rows)))[owners], copies)


def _rows(x: Array, by_row: bool) -> tuple[int, int, int, int] | None:
    """The units of an array as runs of memory, or None where a unit is not contiguous."""
    if x.size == 0:
        return 0, 1, 0, 0
    if by_row and sum(n > 1 for n in x.shape) > 1:
        height, step, unit = x.shape[0], x.strides[0], memory_order(x[0])
    else:
        height, step, unit = 1, 0, memory_order(x)
    if not (unit.flags.c_contiguous and x.flags.aligned):
        return None
    return address(unit), height, step, unit.size


def _identity(x: Array) -> tuple[Any, ...]:
    """Equal for views of exactly the same elements."""
    x = memory_order(x)
    return (address(x), x.dtype, x.size) if x.flags.c_contiguous else (address(x), x.dtype, x.shape, x.strides)


def _refuse_overlap(named: Named) -> None:
    """Arrays that share a part of their memory would be scaled twice there, by two threads at once."""
    named = [(name, x) for name, x in named if x.size]
    bounds = [_bounds(x) for _, x in named]
    order = sorted(range(len(named)), key=bounds.__getitem__)
    inside: list[int] = []  # arrays that begin before this one and may reach into it
    for number in order:
        low = bounds[number][0]
        inside = [other for other in inside if bounds[other][1] > low] if inside else inside
        for other in inside:
            if _share(named[other][1], named[number][1]):
                both = " and ".join(named[i][0] for i in sorted((other, number)))
                raise ValueError(f"arrays must not share part of their memory. Received: {both}")
        inside.append(number)


def _bounds(x: Array) -> tuple[int, int]:
    if x.flags.c_contiguous:
        first = address(x)
        return first, first + x.nbytes
    return np.lib.array_utils.byte_bounds(x)


def _share(a: Array, b: Array) -> bool:
    try:
        return np.shares_memory(a, b, max_work=1 << 20)
    except np.exceptions.TooHardError:
        return True


def _ranges(kernel: Callable[[str], tuple[int, Any]], runs: Array) -> tuple[Array, Array]:
    """The list of ranges of runs, for the kernel of each run's dtype; and each range's run."""
    kernels = np.zeros(len(DTYPES), np.int64)
    for code in set(runs[:, 2].tolist()):
        kernels[code], _ = kernel(tuple(DTYPES)[code])
    codes = runs[:, 2]
    return ranges(kernels[codes], runs[:, 0], runs[:, 1], _SIZES[codes])


def _bytes(runs: Array) -> int:
    return int((runs[:, 1] * _SIZES[runs[:, 2]]).sum())


def _totals(kind: str, runs: Array, numbers: Array | None = None) -> Array:
    """The sum, or the largest, of every run; `numbers` are factor and exponent of every run, for a power."""
    table, owners = _ranges(functools.partial(norm_kernel, kind), runs)
    chunks = -(-table[:, 2] // CHUNK)
    results = np.zeros(chunks.sum())
    table[:, 4] = results.ctypes.data + results.itemsize * (np.cumsum(chunks) - chunks)
    if numbers is not None:
        table[:, 3] = numbers.ctypes.data + numbers.strides[0] * owners
    walk(table, CHUNK, _bytes(runs))
    per_run = -(-runs[:, 1] // CHUNK)
    some = per_run > 0
    totals = np.zeros(len(runs))
    if some.any():
        merge = np.maximum if kind == "largest" else np.add
        with np.errstate(invalid="ignore", over="ignore"):  # a signalling NaN; a sum beyond float64
            totals[some] = merge.reduceat(results, (np.cumsum(per_run) - per_run)[some])
    return totals


def norms_of(runs: Array, p: float, *, whole: bool) -> Array:
    """The p-norm of every run, or with `whole` the one of all."""

    def merged(kind: str, runs: Array, numbers: Array | None = None) -> Array:
        totals = _totals(kind, runs, numbers)
        if not whole:
            return totals
        with np.errstate(invalid="ignore", over="ignore"):
            return np.array([totals.max(initial=0.0) if kind == "largest" else totals.sum()])

    kind = _SUMS.get(p, "power")
    if kind == "power":  # always of what was divided by the largest: powers leave float64's range soon
        norms = largest = merged("largest", runs)
        rare = np.ones(len(norms), bool)
    else:
        totals = merged(kind, runs)
        norms = np.sqrt(totals) if kind == "squares" else totals
        rare = (totals == math.inf) | (totals < _SURE_FROM)
        if kind == "largest" or not rare.any() or _CODES["float64"] not in runs[:, 2]:
            return norms
        largest = merged("largest", runs)
    rare &= np.isfinite(largest) & (largest > 0)
    if rare.any():
        chosen = runs if whole else runs[rare]
        with np.errstate(over="ignore"):
            factors = np.minimum(1 / largest[rare], _LARGEST_FACTOR)
            numbers = np.stack(np.broadcast_arrays(factors, np.full(len(chosen), p)), axis=1)
            norms[rare] = merged("power", chosen, numbers) ** (1 / p) / factors
    return norms
