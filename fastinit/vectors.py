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

_NAMES = tuple(DTYPES)
_CODES = {name: code for code, name in enumerate(_NAMES)}
_SIZES = np.array([dtype.itemsize for dtype in DTYPES.values()])
_SUMS = {1.0: "absolute", 2.0: "squares", math.inf: "largest"}
# A float64 sum of squares below this may have lost digits to squares that underflowed.
_SURE_FROM = 2.0**-950
_LARGEST_FACTOR = 2.0**1023


@dataclass
class Vectors:
    """Arrays as contiguous runs of memory, a row each: address, elements, number of the dtype, number of the array.

    Most arrays are one run; by rows, each row is one. What has gaps is worked on in a contiguous copy. Addresses keep
    nothing alive, so the arrays are kept here: those of a generator may have no other owner. Of `blocks`, the caller
    keeps the owners.
    """

    named: Named

    runs: Array
    once: Array  # which runs are not those of an earlier array again
    copies: dict[int, tuple[Array, Array]]  # number of the array: itself, its copy

    def change(self, kernel: Callable[[str], tuple[int, Any]], parameters: Array, chosen: Array) -> None:
        """Run an in-place kernel over the chosen runs, with a row of `parameters` for each run."""
        chosen = chosen & self.once
        if not chosen.any():
            return
        runs, parameters = self.runs[chosen], np.ascontiguousarray(parameters[chosen], np.float64)
        table, owners = _ranges(kernel, runs)
        table[:, 4] = parameters.ctypes.data + parameters.strides[0] * owners
        walk(table, 0, _bytes(runs))
        for number in self.copies.keys() & set(runs[:, 3].tolist()):
            array, copy = self.copies[number]
            array[...] = copy


def vectors(named: Named, *, write: bool, by_row: bool = False) -> Vectors:
    """Where the arrays lie, after all checks. With `by_row` the runs are the units of `clipping.adaptive_clip`.

    Raises:
        TypeError: not an array, or of another dtype.
        ValueError: with `write`, read-only or self-overlapping memory, or arrays that share part of it.
    """
    check = check_target if write else check_source
    codes = [_CODES[check(x, name)] for name, x in named]
    first: dict[Any, int] = {}  # what names a set of elements: the first array that is this set
    rows: list[
        tuple[int, int, int, int, int, int]
    ] = []  # a run's fields; how many there are, bytes from one to the next
    gaps: list[int] = []  # arrays that have some
    for number, ((_, x), code) in enumerate(zip(named, codes, strict=True)):
        flat = memory_order(x)
        location, size = address(flat), flat.size
        whole = flat.flags.c_contiguous
        # Where units matter, the same elements in another order are not the same array.
        same = first.setdefault((location, code, *((size,) if whole and not by_row else (x.shape, x.strides))), number)
        rows.append((location, size, code, same, 1, 0))
        if not whole or not flat.flags.aligned:
            gaps.append(number)
    table = np.array(rows, np.int64).reshape(-1, 6)
    if write:
        _refuse_overlap(named, table, gaps)
    if by_row:
        gaps = [number for number, (_, x) in enumerate(named) if not _by_row(table[number], x)]
    copies: dict[int, tuple[Array, Array]] = {}
    for number in gaps:
        same = rows[number][3]
        if same == number:
            copies[number] = named[number][1], np.ascontiguousarray(named[number][1])
        table[number, 0] = address(copies[same][1])
        if by_row:
            _by_row(table[number], copies[same][1])
    once = table[:, 3] == np.arange(len(table))
    runs = table[:, :4]
    if by_row:
        heights = table[:, 4]
        owners = np.repeat(np.arange(len(table)), heights)
        row = np.arange(len(owners)) - np.repeat(np.cumsum(heights) - heights, heights)
        runs, once = runs[owners], once[owners]
        runs[:, 0] += row * table[owners, 5]
    return Vectors(named, runs, once, copies)


def blocks(places: list[tuple[int, int, str]], *, write: bool) -> Vectors:
    """Contiguous memory of arrays that are not NumPy's: address, elements and dtype of each.

    Raises:
        ValueError: with `write`, memory that is shared, be it all of two arrays.
    """
    runs = np.array([(*place[:2], _CODES[place[2]], number) for number, place in enumerate(places)], np.int64)
    runs = runs.reshape(-1, 4)
    if write and _overlapping(runs[:, 0], runs[:, 0] + runs[:, 1] * _SIZES[runs[:, 2]]).size:
        raise ValueError("arrays must not share their memory")
    return Vectors([], runs, np.ones(len(runs), bool), {})


def _overlapping(low: Array, high: Array) -> Array:
    """The numbers of the intervals by their lower ends where some overlap, none where no two do."""
    order = np.argsort(low, kind="stable")
    order = order[high[order] > low[order]]
    overlap = (low[order[1:]] < np.maximum.accumulate(high[order])[:-1]).any()
    return order if overlap else order[:0]


def _by_row(fields: Array, x: Array) -> bool:
    """Put the units of an array into its fields: its rows, or all of it. False where a unit has gaps."""
    height, step, unit = 1, 0, x
    if x.size and sum(n > 1 for n in x.shape) > 1:
        height, step, unit = x.shape[0], x.strides[0], x[0]
    unit = memory_order(unit)
    fields[:2] = address(unit), unit.size
    fields[4:] = height, step
    return bool(unit.flags.c_contiguous and x.flags.aligned)


def _refuse_overlap(named: Named, table: Array, gaps: list[int]) -> None:
    """Arrays that share a part of their memory would be changed twice there, by two threads at once."""
    low, high = table[:, 0].copy(), table[:, 0] + table[:, 1] * _SIZES[table[:, 2]]
    for number in gaps:
        low[number], high[number] = np.lib.array_utils.byte_bounds(named[number][1])
    again = table[:, 3] != np.arange(len(table))
    low[again] = high[again]  # the same elements once more
    inside: list[int] = []  # arrays that begin before this one and may reach into it
    for number in _overlapping(low, high).tolist():
        inside = [other for other in inside if high[other] > low[number]]
        for other in inside:
            if _share(named[other][1], named[number][1]):
                both = " and ".join(named[i][0] for i in sorted((other, number)))
                raise ValueError(f"arrays must not share part of their memory. Received: {both}")
        inside.append(number)


def _share(a: Array, b: Array) -> bool:
    try:
        return np.shares_memory(a, b, max_work=1 << 20)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def _ranges(kernel: Callable[[str], tuple[int, Any]], runs: Array) -> tuple[Array, Array]:
    """The list of ranges of runs, for the kernel of each run's dtype; and each range's run."""
    codes = runs[:, 2]
    kernels = np.zeros(len(DTYPES), np.int64)
    for code in set(codes.tolist()):
        kernels[code], _ = kernel(_NAMES[code])
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
    if len(table) == len(results) == len(runs):  # a chunk each
        return results
    some = per_run > 0
    totals = np.zeros(len(runs))
    if some.any():
        merge = np.maximum if kind == "largest" else np.add
        with np.errstate(invalid="ignore", over="ignore"):  # a signalling NaN; a sum beyond float64
            totals[some] = merge.reduceat(results, (np.cumsum(per_run) - per_run)[some])
    return totals


def norms_of(memory: Vectors, p: float, *, whole: bool) -> Array:
    """The p-norm of every run, or with `whole` the one of all."""

    def merged(kind: str, runs: Array, numbers: Array | None = None) -> Array:
        totals = _totals(kind, runs, numbers)
        if not whole:
            return totals
        with np.errstate(invalid="ignore", over="ignore"):
            return np.array([totals.max(initial=0.0) if kind == "largest" else totals.sum()])

    runs, kind = memory.runs, _SUMS.get(p, "power")
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
