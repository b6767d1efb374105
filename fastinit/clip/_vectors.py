"""Many arrays as one list of runs of memory: their norms, and kernels over them in place.

Each array by itself would cost a call into compiled code; here all go in one list, which the threads share.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from fastinit._native.library import kernel
from fastinit._native.records import RUN
from fastinit._runtime.arrays import DTYPES, NUMBERS, PARTS, Array, address, check_source, check_target, memory_order
from fastinit._runtime.threads import CHUNK, PARALLEL_BYTES, RANGE, walk

Named: TypeAlias = list[tuple[str, Any]]  # arrays with what messages call them

_NAMES = tuple(DTYPES)
_CODES = {name: code for code, name in enumerate(_NAMES)}
_CODES |= {name: _CODES[parts] for name, parts in PARTS.items()}  # a complex number is two elements
_SIZES = np.array([dtype.itemsize for dtype in DTYPES.values()])
# A run: where it begins, how many elements it has, the number of its dtype, the number of its array.
_RUN = np.dtype([(name, np.int64) for name in ("place", "count", "code", "array")])
# The runs of one array: the first of them, how many there are, bytes from one to the next.
_UNITS = np.dtype([*_RUN.descr, ("height", np.int64), ("step", np.int64)])
_SUMS = {1.0: "absolute", 2.0: "squares", math.inf: "largest"}
# A float64 sum of squares below this may have lost digits to squares that underflowed.
_SURE_FROM = 2.0**-950


@dataclass
class Vectors:
    """Arrays as contiguous runs of memory, a record each.

    Most arrays are one run; by rows, each row is one. What has gaps is worked on in a contiguous copy. Complex numbers
    are pairs of real elements, which have the same L2 norm; `magnitudes` has their absolute values. Addresses keep
    nothing alive, so the arrays are kept here: those of a generator may have no other owner. Of `blocks`, the caller
    keeps the owners.
    """

    named: Named

    runs: Array  # of _RUN
    once: Array | None  # which runs are not those of an earlier array again; None where none is
    copies: dict[int, tuple[Array, Array]]  # number of the array: itself, its copy

    def for_kernel(self, names: tuple[str, ...], chosen: Array | None) -> Array:
        """The chosen runs, or all, as `records.RUN` for the kernel of each run's dtype, whose other names are given."""
        runs = self.runs if chosen is None else self.runs[chosen]
        codes = runs["code"]
        kernels = np.zeros(len(DTYPES), np.int64)
        for code in np.flatnonzero(np.bincount(codes)).tolist():
            kernels[code] = kernel(*names, _NAMES[code]).address
        records = np.zeros(len(runs), RUN)
        records["kernel"], records["size"] = kernels[codes], _SIZES[codes]
        records["place"], records["count"] = runs["place"], runs["count"]
        return records

    def change(self, name: str, parameters: Array, chosen: Array | None = None) -> None:
        """Run an in-place kernel over the chosen runs, or over all, with a row of `parameters` for each of all runs."""
        if self.once is not None:
            chosen = self.once if chosen is None else chosen & self.once
        if chosen is not None and not chosen.any():
            return
        parameters = np.ascontiguousarray(parameters, np.float64)
        records = self.for_kernel((name,), chosen)
        numbers = np.arange(len(self.runs)) if chosen is None else np.flatnonzero(chosen)
        records["parameters"] = address(parameters) + parameters.strides[0] * numbers
        _walk(records)
        if self.copies:
            changed = self.runs["array"] if chosen is None else self.runs["array"][chosen]
            for number in self.copies.keys() & set(changed.tolist()):
                array, copy = self.copies[number]
                array[...] = copy

    def magnitudes(self) -> Vectors:
        """Return the same runs with |z|, in float64, in the place of complex numbers z.

        NaN where a part is NaN: `abs` alone is infinite where the other part is.
        """
        runs, named = self.runs.copy(), list(self.named)
        for number, (name, x) in enumerate(self.named):
            if x.dtype.name in PARTS:
                with np.errstate(over="ignore"):
                    sizes = np.asarray(np.abs(x.astype(np.complex128)))
                sizes[np.isnan(x)] = np.nan
                named[number] = name, sizes
                runs[number] = address(sizes), sizes.size, _CODES["float64"], runs["array"][number]
        return Vectors(named, runs, self.once, self.copies)


def vectors(arrays: Iterable[tuple[str, Any]], *, write: bool, by_row: bool = False) -> Vectors:
    """Where named arrays lie, after all checks. With `by_row` the runs are the units of `clipping.adaptive_clip`.

    Raises:
        TypeError: not an array, or none of `NUMBERS`.
        ValueError: with `write`, read-only or self-overlapping memory, or arrays that share part of it.
    """
    named = list(arrays)
    check = check_target if write else check_source
    codes = [_CODES[check(x, name, NUMBERS)] for name, x in named]
    first: dict[Any, int] = {}  # what names a set of elements: the first array that is this set
    units: list[tuple[int, int, int, int, int, int]] = []
    gaps: list[int] = []  # arrays that have some
    for number, ((_, x), code) in enumerate(zip(named, codes, strict=True)):
        flat = memory_order(x)
        location, size = address(flat), _elements(flat)
        flags = flat.flags
        whole = flags.c_contiguous
        # Where units matter, the same elements in another order are not the same array.
        same = first.setdefault((location, code, *((size,) if whole and not by_row else (x.shape, x.strides))), number)
        units.append((location, size, code, same, 1, 0))
        if not whole or not flags.aligned:
            gaps.append(number)
    table = np.array(units, _UNITS)
    if write:
        _refuse_overlap(named, table, gaps)
    if by_row:
        gaps = [number for number, (_, x) in enumerate(named) if not _by_row(table[number], x)]
    copies: dict[int, tuple[Array, Array]] = {}
    for number in gaps:
        same = int(table["array"][number])
        if same == number:
            copies[number] = named[number][1], np.ascontiguousarray(named[number][1])
        table["place"][number] = address(copies[same][1])
        if by_row:
            _by_row(table[number], copies[same][1])
    once = None if len(first) == len(units) else table["array"] == np.arange(len(table))
    runs = table[list(_RUN.names or ())]
    if by_row:
        heights = table["height"]
        owners = np.repeat(np.arange(len(table)), heights)
        row = np.arange(len(owners)) - np.repeat(np.cumsum(heights) - heights, heights)
        runs, once = runs[owners], once if once is None else once[owners]
        runs["place"] += row * table["step"][owners]
    return Vectors(named, runs, once, copies)


def blocks(addresses: list[int], counts: list[int], dtypes: list[str], *, write: bool) -> Vectors:
    """Contiguous memory of arrays that are not NumPy's: where each begins, its elements, its dtype.

    Raises:
        ValueError: with `write`, memory that is shared, be it all of two arrays.
    """
    runs = np.empty(len(addresses), _RUN)
    runs["place"], runs["count"] = addresses, counts
    runs["code"], runs["array"] = [_CODES[name] for name in dtypes], range(len(runs))
    if write and len(_overlapping(runs["place"], _ends(runs))):
        raise ValueError("arrays must not share their memory")
    return Vectors([], runs, None, {})


def _overlapping(low: Array, high: Array) -> Array:
    """The numbers of the intervals by their lower ends where some overlap, none where no two do."""
    order = low.argsort(kind="stable")
    order = order[(high > low)[order]]
    return order if np.count_nonzero(low[order[1:]] < high[order[:-1]]) else order[:0]


def _elements(x: Array) -> int:
    """The number of real elements."""
    return 2 * x.size if x.dtype.kind == "c" else x.size


def _by_row(units: Any, x: Array) -> bool:
    """Put the units of an array into its record: its rows, or all of it. False where a unit has gaps."""
    height, step, unit = 1, 0, x
    if x.size and sum(n > 1 for n in x.shape) > 1:
        height, step, unit = x.shape[0], x.strides[0], x[0]
    unit = memory_order(unit)
    units["place"], units["count"] = address(unit), _elements(unit)
    units["height"], units["step"] = height, step
    return bool(unit.flags.c_contiguous and x.flags.aligned)


def _refuse_overlap(named: Named, table: Array, gaps: list[int]) -> None:
    """Arrays that share a part of their memory would be changed twice there, by two threads at once."""
    low, high = table["place"].copy(), _ends(table)
    for number in gaps:
        low[number], high[number] = np.lib.array_utils.byte_bounds(named[number][1])
    again = table["array"] != np.arange(len(table))
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


def _ends(runs: Array) -> Array:
    """The addresses behind the last elements."""
    ends: Array = runs["place"] + runs["count"] * _SIZES[runs["code"]]
    return ends


def _walk(records: Array) -> None:
    walk(kernel("drive.listed"), records, RANGE, large=records["count"] @ records["size"] >= PARALLEL_BYTES)


def _totals(memory: Vectors, kind: str, chosen: Array | None, numbers: Array | None = None) -> Array:
    """The sum, or the largest, of every chosen run, or of all; for a power, `numbers` are divisor and exponent of each
    of all runs."""
    records = memory.for_kernel(("sums.norms.norm_kernel", kind), chosen)
    chunks = -(-records["count"] // CHUNK)
    starts = chunks.cumsum() - chunks
    results = np.zeros(chunks.sum())
    records["key"], records["parameters"] = CHUNK, address(results) + results.itemsize * starts
    if numbers is not None:
        owners = np.arange(len(numbers)) if chosen is None else np.flatnonzero(chosen)
        records["stream"] = address(numbers) + numbers.strides[0] * owners
    _walk(records)
    if (chunks == 1).all():
        return results
    some = chunks > 0
    totals = np.zeros(len(records))
    if some.any():
        merge = np.maximum if kind == "largest" else np.add
        with np.errstate(invalid="ignore", over="ignore"):  # a signalling NaN; a sum beyond float64
            totals[some] = merge.reduceat(results, starts[some])
    return totals


def norms_of(memory: Vectors, p: float, *, whole: bool) -> Array:
    """The p-norm of every run, or with `whole` the one of all."""

    kind = _SUMS.get(p, "power")
    if kind != "squares" and any(x.dtype.kind == "c" for _, x in memory.named):
        memory = memory.magnitudes()
    runs = memory.runs

    def merged(kind: str, chosen: Array | None = None, numbers: Array | None = None) -> Array:
        totals = _totals(memory, kind, chosen, numbers)
        if not whole:
            return totals
        with np.errstate(invalid="ignore", over="ignore"):
            return np.array([totals.max(initial=0.0) if kind == "largest" else totals.sum()])

    if kind == "power":  # always of what was divided by the largest: powers leave float64's range soon
        norms = largest = merged("largest")
        rare = np.ones(len(norms), bool)
    else:
        totals = merged(kind)
        norms = np.sqrt(totals) if kind == "squares" else totals
        rare = (totals == math.inf) | (totals < _SURE_FROM)
        if kind == "largest" or not rare.any() or _CODES["float64"] not in runs["code"]:
            return norms
        largest = merged("largest")
    rare &= np.isfinite(largest) & (largest > 0)
    if rare.any():
        numbers = np.empty((len(runs), 2))
        numbers[:, 0], numbers[:, 1] = largest, p
        with np.errstate(over="ignore"):
            norms[rare] = merged("power", None if whole else rare, numbers) ** (1 / p) * largest[rare]
    return norms
