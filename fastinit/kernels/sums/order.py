"""Sums in an order that is the same on every processor.

A compiler vectorises a sum only where it may reorder it, and then the width of the vectors decides the order, and with
it the last bits. Here the order is written out: element i of a run goes to accumulator i modulo `LANES`, four rows of
them at a time, and the accumulators are added in pairs. All loops are elementwise, so they vectorise at any width, and
products are rounded before they are added: whether a processor has an fma instruction does not show either.
"""

from __future__ import annotations

import numpy as np
from numba import types

from fastinit.kernels.jit import carray, scalar, stack_memory

f32, f64 = np.float32, np.float64

LANES = 32  # accumulators; with 16 or 64, or eight rows at a time, no sum was faster (Zen 4)
_ROWS = 4 * LANES
_FEW = 24  # elements for which four accumulators do: to clear and to add up more takes longer than the sum
_accumulators = stack_memory(types.float64, LANES)

# float32 sums have twice as many, for the sake of their digits: each adds up 1/64 of a run.
LANES32 = 64
accumulators32 = stack_memory(types.float32, LANES32)
_widened = stack_memory(types.float64, LANES32)


@scalar
def _total(lanes, width):
    """The sum of `width` accumulators, a power of two, in pairs: each half is added to the other until one is left."""
    while width > 1:
        width //= 2
        for j in range(width):
            lanes[j] += lanes[width + j]
    return lanes[0]


@scalar
def total32(lanes):
    """The float64 sum of `LANES32` float32 accumulators."""
    wide = carray(_widened(), LANES32, f64)
    for j in range(LANES32):
        wide[j] = f64(lanes[j])
    return _total(wide, LANES32)


@scalar
def fixed_sum(x, load, term, a, b):
    """The float64 sum of term(load(element), a, b) over a flat array."""
    if x.size <= _FEW:
        one, two, three, four = f64(0), f64(0), f64(0), f64(0)
        whole = x.size - x.size % 4
        for i in range(0, whole, 4):
            one, two = one + term(load(x[i]), a, b), two + term(load(x[i + 1]), a, b)
            three, four = three + term(load(x[i + 2]), a, b), four + term(load(x[i + 3]), a, b)
        for i in range(whole, x.size):
            one += term(load(x[i]), a, b)
        return (one + two) + (three + four)
    lanes = carray(_accumulators(), LANES, f64)
    for j in range(LANES):
        lanes[j] = f64(0)
    whole = x.size - x.size % _ROWS
    for first in range(0, whole, _ROWS):
        part = x[first : first + _ROWS]
        for j in range(LANES):
            one, two = term(load(part[j]), a, b), term(load(part[LANES + j]), a, b)
            three, four = term(load(part[2 * LANES + j]), a, b), term(load(part[3 * LANES + j]), a, b)
            lanes[j] += (one + two) + (three + four)
    for first in range(whole, x.size, LANES):
        part = x[first : first + LANES]
        for j in range(part.size):
            lanes[j] += term(load(part[j]), a, b)
    return _total(lanes, LANES)


@scalar
def as_is(value, a, b):
    """The term of a plain sum."""
    return f64(value)


@scalar
def square(value, a, b):
    """The term of a sum of squares."""
    return f64(value) * f64(value)
