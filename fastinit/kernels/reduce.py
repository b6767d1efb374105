"""Moments of an array: one pass over memory, float64 sums, chunk by chunk.

A chunk is read twice while it is in cache, first for its mean and then for the deviations from it, which keeps all
digits; chunks are merged in their order, so the result does not depend on the thread count.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from fastinit.kernels import store
from fastinit.kernels.jit import (
    RANGE_SIGNATURE,
    address,
    bits32,
    bits64,
    carray,
    float_of_bits32,
    float_of_bits64,
    scalar,
)

f32, f64, i32, i64, u32, u64 = np.float32, np.float64, np.int32, np.int64, np.uint32, np.uint64

FIELDS = 6  # finite, zeros, smallest, largest, mean, sum of squared deviations


# A float's bits as a signed integer of the same order: integer minima vectorise, those of floats do not, for NaN's
# sake.
@scalar
def order32(x):
    bits = i32(bits32(x))
    return i32(bits ^ i32(i32(bits >> i32(31)) & i32(0x7FFFFFFF)))


@scalar
def unorder32(key):
    return f64(float_of_bits32(u32(i32(key ^ i32(i32(key >> i32(31)) & i32(0x7FFFFFFF))))))


@scalar
def order64(x):
    bits = i64(bits64(x))
    return bits ^ ((bits >> i64(63)) & i64(0x7FFFFFFFFFFFFFFF))


@scalar
def unorder64(key):
    return float_of_bits64(u64(key ^ ((key >> i64(63)) & i64(0x7FFFFFFFFFFFFFFF))))


# Template arguments, as in `kernels.fill`.
ELEMENT, LOAD, ORDER, UNORDER, LOWEST, HIGHEST = f32, store.itself, order32, unorder32, i32(-(2**31)), i32(2**31 - 1)
INFINITY = f32(np.inf)


def _moments(data, start, count, key, stream, results):
    """The fields of every chunk of `key` elements in [start, start + count), those of chunk i at results[FIELDS * i].

    `start` is a multiple of `key`.
    """
    data = carray(data, count, ELEMENT)
    chunks = (start + count + key - u64(1)) // key
    results = carray(results, chunks * u64(FIELDS))
    for chunk in range(start // key, chunks):
        first = chunk * key - start
        x = data[first : min(first + key, count)]
        finite, zeros, total = i64(0), i64(0), f64(0)
        smallest, largest = HIGHEST, LOWEST
        for i in range(x.size):
            value = LOAD(x[i])
            inside = abs(value) < INFINITY
            finite += i64(inside)
            zeros += i64(value == 0)
            total += f64(value) if inside else f64(0)
            order = ORDER(value)
            smallest = min(smallest, order if inside else HIGHEST)
            largest = max(largest, order if inside else LOWEST)
        mean = total / f64(max(finite, i64(1)))
        squares = f64(0)
        for i in range(x.size):
            value = LOAD(x[i])
            deviation = f64(value) - mean if abs(value) < INFINITY else f64(0)
            squares += deviation * deviation
        found = results[chunk * u64(FIELDS) :]
        found[0], found[1] = f64(finite), f64(zeros)
        found[2], found[3] = UNORDER(smallest), UNORDER(largest)
        found[4], found[5] = mean, squares


@functools.cache
def moments(dtype: str) -> tuple[int, Any]:
    """The address of the kernel for a dtype, and what keeps it alive."""
    element, load = store.LOADS[dtype]
    names: dict[str, Any] = {}
    if dtype == "float64":
        names = {"ORDER": order64, "UNORDER": unorder64, "LOWEST": i64(-(2**63)), "HIGHEST": i64(2**63 - 1)}
        names["INFINITY"] = f64(np.inf)
    return address(_moments, RANGE_SIGNATURE, f"moments_{dtype}", reassociate=True, ELEMENT=element, LOAD=load, **names)
