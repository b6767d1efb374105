"""Many arrays as one list of runs of memory: their norms, and kernels over them in place.

Each array by itself would cost a call into compiled code; here all go in one list, which the threads share.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from fastinit._native.library import kernel
from fastinit._native.records import RUN
from fastinit._runtime.arrays import (
    DTYPES,
    NUMBERS,
    PARTS,
    Array,
    NamedArrays,
    address,
    check_source,
    check_target,
    memory_order,
)
from fastinit._runtime.headers import simple_runs
from fastinit._runtime.threads import CHUNK, read_runs

_NAMES = tuple(DTYPES)
_CODES = {name: code for code, name in enumerate(_NAMES)}
_FLOAT64 = _CODES["float64"]
_CODES |= {name: _CODES[parts] for name, parts in PARTS.items()}  # a complex number is two elements
_SIZES = np.array([dtype.itemsize for dtype in DTYPES.values()])
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

    named: NamedArrays
    runs: Array  # `records.RUN`; the kernel and what it reads are those of the last call
    codes: Array  # the number of each run's dtype
    arrays: Array  # the number of each run's array: the first of those with the same elements
    once: Array | None  # which runs are not those of an earlier array again; None where none is
    copies: dict[int, tuple[Array, Array]]  # number of the array: itself, its copy

    def for_kernel(self, names: tuple[str, ...], chosen: Array | None) -> Array:
        """The chosen runs, or all, for the kernel of each run's dtype, whose other names are given."""
        runs, codes = (self.runs, self.codes) if chosen is None else (self.runs[chosen], self.codes[chosen])
        kernels = np.zeros(len(DTYPES), np.int64)
        for code in set(codes.tolist()):
            kernels[code] = kernel(*names, _NAMES[code]).address
        runs["kernel"] = kernels[codes]
        return runs

    def change(self, name: str, parameters: Array, chosen: Array | None = None) -> None:
        """Run an in-place kernel over the chosen runs, or over all, with a row of `parameters` for each of all runs, or
        with one row for all."""
        if self.once is not None:
            chosen = self.once if chosen is None else chosen & self.once
        if chosen is not None and not chosen.any():
            return
        parameters = np.ascontiguousarray(parameters, np.float64)
        runs = self.for_kernel((name,), chosen)
        runs["parameters"] = address(parameters)
        if len(parameters) > 1:
            numbers = np.arange(len(parameters)) if chosen is None else np.flatnonzero(chosen)
            runs["parameters"] += parameters.strides[0] * numbers
        read_runs(runs)
        if self.copies:
            changed = self.arrays if chosen is None else self.arrays[chosen]
            for number in self.copies.keys() & set(changed.tolist()):
                array, copy = self.copies[number]
                array[...] = copy

    def magnitudes(self) -> Vectors:
        """Return the same runs with |z|, in float64, in the place of complex numbers z.

        NaN where a part is NaN: `abs` alone is infinite where the other part is.
        """
        runs, codes, arrays = self.runs.copy(), self.codes.copy(), list(self.named.arrays)
        for number, x in enumerate(self.named.arrays):
            if x.dtype.name in PARTS:
                with np.errstate(over="ignore"):
                    sizes = np.asarray(np.abs(x.astype(np.complex128)))
                sizes[np.isnan(x)] = np.nan
                arrays[number] = sizes
                runs["place"][number], runs["count"][number] = address(sizes), sizes.size
                runs["size"][number], codes[number] = sizes.itemsize, _FLOAT64
        named = replace(self.named, arrays=arrays)
        return Vectors(named, runs, codes, self.arrays, self.once, self.copies)


def vectors(named: NamedArrays, *, write: bool, by_row: bool = False) -> Vectors:
    """Where arrays lie, after all checks. With `by_row` the runs are the units of `clipping.adaptive_clip`.

    Raises:
        TypeError: not an array, or none of `NUMBERS`.
        ValueError: with `write`, read-only or self-overlapping memory, or arrays that share part of it.
    """
    arrays = named.arrays
    simple = None if by_row else simple_runs(arrays, write=write)
    if simple is not None:
        memory = _apart(named, *simple)
        if not write or not _overlap(memory.runs):
            return memory
    check = check_target if write else check_source
    codes = [_CODES[check(x, named.name(number), NUMBERS)] for number, x in enumerate(arrays)]
    places: list[int] = []
    counts: list[int] = []
    first: dict[Any, int] = {}  # what names a set of elements: the first array that is this set
    owners: list[int] = []  # for each array, that number
    gaps: list[int] = []  # arrays that have some
    for number, (x, code) in enumerate(zip(arrays, codes, strict=True)):
        flat = memory_order(x)
        location, size, flags = address(flat), _elements(flat), flat.flags
        whole = flags.c_contiguous
        # Where units matter, the same elements in another order are not the same array.
        same = (location, code, size) if whole and not by_row else (location, code, x.shape, x.strides)
        places.append(location)
        counts.append(size)
        owners.append(first.setdefault(same, number))
        if not whole or not flags.aligned:
            gaps.append(number)
    memory = Vectors(named, *_runs(places, counts, codes), np.array(owners, np.int64), None, {})
    if len(first) < len(arrays):
        memory.once = memory.arrays == np.arange(len(arrays))
    if write:
        _refuse_overlap(memory, gaps)
    if by_row:
        return _by_row(memory)
    _copy_gaps(memory, gaps)
    return memory


def blocks(places: list[int], counts: list[int], dtypes: list[str], *, write: bool) -> Vectors:
    """Contiguous memory of arrays that are not NumPy's: where each begins, its elements, its dtype.

    Raises:
        ValueError: with `write`, memory that is shared, be it all of two arrays.
    """
    runs, codes = _runs(places, counts, [_CODES[name] for name in dtypes])
    if write and _overlap(runs):
        raise ValueError("arrays must not share their memory")
    return _apart(NamedArrays("arrays", [], None), runs, codes)


def _apart(named: NamedArrays, runs: Array, codes: Array) -> Vectors:
    """Contiguous arrays, none of them given twice."""
    return Vectors(named, runs, codes, np.arange(len(runs)), None, {})


def _runs(places: list[int], counts: list[int], codes: list[int]) -> tuple[Array, Array]:
    """Runs of memory, and the numbers of their dtypes."""
    runs, numbers = np.zeros(len(places), RUN), np.array(codes, np.int64)
    runs["place"], runs["count"], runs["size"] = places, counts, _SIZES[numbers]
    return runs, numbers


def _copy_gaps(memory: Vectors, gaps: list[int]) -> None:
    """Let the runs of arrays with gaps be those of contiguous copies, one for all arrays with the same elements."""
    for number in gaps:
        same = int(memory.arrays[number])
        if same == number:
            memory.copies[number] = memory.named.arrays[number], np.ascontiguousarray(memory.named.arrays[number])
        memory.runs["place"][number] = address(memory.copies[same][1])


def _by_row(memory: Vectors) -> Vectors:
    """The same memory with a run for each unit, those of `clipping.adaptive_clip`."""
    units = [_units(x) for x in memory.named.arrays]
    gaps = [number for number, unit in enumerate(units) if not unit.whole]
    _copy_gaps(memory, gaps)
    for number in gaps:
        units[number] = _units(memory.copies[int(memory.arrays[number])][1])
    places, counts, heights, steps, _ = np.array(units, np.int64).reshape(-1, len(_Units._fields)).T
    owners = np.repeat(np.arange(len(units)), heights)
    row = np.arange(len(owners)) - np.repeat(np.cumsum(heights) - heights, heights)
    runs = memory.runs[owners]
    runs["place"], runs["count"] = places[owners] + row * steps[owners], counts[owners]
    once = None if memory.once is None else memory.once[owners]
    return Vectors(memory.named, runs, memory.codes[owners], memory.arrays[owners], once, memory.copies)


def _overlapping(low: Array, high: Array) -> Array:
    """The numbers of the intervals by their lower ends where some overlap, none where no two do."""
    order = low.argsort(kind="stable")
    if np.count_nonzero(low[order[1:]] < high[order[:-1]]):
        order = order[(high > low)[order]]
        if np.count_nonzero(low[order[1:]] < high[order[:-1]]):
            return order
    return order[:0]


def _overlap(runs: Array) -> bool:
    return len(_overlapping(runs["place"], _ends(runs))) > 0


def _elements(x: Array) -> int:
    """The number of real elements."""
    return 2 * x.size if x.dtype.kind == "c" else x.size


class _Units(NamedTuple):
    """The units of an array."""

    place: int  # where the first of them begins
    elements: int  # of each
    height: int  # how many there are
    step: int  # bytes from one to the next
    whole: bool  # whether they have no gaps


def _units(x: Array) -> _Units:
    """The units of an array: its rows, or all of it."""
    height, step, unit = 1, 0, x
    if x.size and sum(n > 1 for n in x.shape) > 1:
        height, step, unit = x.shape[0], x.strides[0], x[0]
    unit = memory_order(unit)
    whole = bool(unit.flags.c_contiguous and x.flags.aligned)
    return _Units(address(unit), _elements(unit), height, step, whole)


def _refuse_overlap(memory: Vectors, gaps: list[int]) -> None:
    """Arrays that share a part of their memory would be changed twice there, by two threads at once."""
    named = memory.named
    low, high = memory.runs["place"], _ends(memory.runs)
    if gaps or memory.once is not None:
        low = low.copy()
        for number in gaps:
            low[number], high[number] = np.lib.array_utils.byte_bounds(named.arrays[number])
        if memory.once is not None:
            low[~memory.once] = high[~memory.once]  # the same elements once more
    inside: list[int] = []  # arrays that begin before this one and may reach into it
    for number in _overlapping(low, high).tolist():
        inside = [other for other in inside if high[other] > low[number]]
        for other in inside:
            if _share(named.arrays[other], named.arrays[number]):
                both = " and ".join(map(named.name, sorted((other, number))))
                raise ValueError(f"arrays must not share part of their memory. Received: {both}")
        inside.append(number)


def _share(a: Array, b: Array) -> bool:
    try:
        return np.shares_memory(a, b, max_work=1 << 20)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def _ends(runs: Array) -> Array:
    """The addresses behind the last elements."""
    ends: Array = runs["place"] + runs["count"] * runs["size"]
    return ends


def _totals(memory: Vectors, kind: str, chosen: Array | None, numbers: Array | None = None) -> Array:
    """The sum, or the largest, of every chosen run, or of all; for a power, `numbers` are divisor and exponent of each
    of all runs."""
    runs = memory.for_kernel(("sums.norms.norm_kernel", kind), chosen)
    several = np.count_nonzero(runs["count"] > CHUNK) > 0
    if several:
        chunks = -(-runs["count"] // CHUNK)
        starts = chunks.cumsum() - chunks
    else:  # with one chunk at most, each run has the result of its number
        starts = np.arange(len(runs))
    results = np.zeros(chunks.sum() if several else len(runs))
    runs["key"], runs["parameters"] = CHUNK, address(results) + results.itemsize * starts
    if numbers is not None:
        owners = np.arange(len(numbers)) if chosen is None else np.flatnonzero(chosen)
        runs["stream"] = address(numbers) + numbers.strides[0] * owners
    read_runs(runs)
    if not several:
        return results
    some = chunks > 0
    totals = np.zeros(len(runs))
    merge = np.maximum if kind == "largest" else np.add
    with np.errstate(invalid="ignore", over="ignore"):  # a signalling NaN; a sum beyond float64
        totals[some] = merge.reduceat(results, starts[some])
    return totals


def norms_of(memory: Vectors, p: float, *, whole: bool) -> Array:
    """The p-norm of every run, or with `whole` the one of all."""

    kind = _SUMS.get(p, "power")
    if kind != "squares" and any(x.dtype.kind == "c" for x in memory.named.arrays):
        memory = memory.magnitudes()

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
        if kind == "largest" or not np.count_nonzero(memory.codes == _FLOAT64):
            return norms
        rare = (totals == math.inf) | (totals < _SURE_FROM)
        if not rare.any():
            return norms
        largest = merged("largest")
    rare &= np.isfinite(largest) & (largest > 0)
    if rare.any():
        numbers = np.empty((len(memory.runs), 2))
        numbers[:, 0], numbers[:, 1] = largest, p
        with np.errstate(over="ignore"):
            norms[rare] = merged("power", None if whole else rare, numbers) ** (1 / p) * largest[rare]
    return norms
