"""Moments of an array: one pass over memory, chunk by chunk.

`moments` reads a chunk twice while it is in cache, first for its mean and then for the deviations from it, in float64,
which keeps all digits. `quick_moments` has float32 sums, 6 digits at least, and keeps up with memory. Sums have a fixed
order, and chunks are merged in theirs, so the result depends neither on the processor nor on the thread count.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numba import types

from fastinit._native.records import FIELDS
from fastinit.kernels import store
from fastinit.kernels.jit import (
    RANGE_SIGNATURE,
    Definition,
    bits32,
    bits64,
    carray,
    definition,
    float_of_bits32,
    float_of_bits64,
    scalar,
    scalars,
)
from fastinit.kernels.sums.order import LANES32, accumulators32, fixed_sum, total32

f32, f64, i16, i32, i64 = np.float32, np.float64, np.int16, np.int32, np.int64
u16, u32, u64 = np.uint16, np.uint32, np.uint64

# Template arguments, as in `kernels.fill`: float32's here, float64's in `_FLOAT64`.
ELEMENT, LOAD, INTEGER, UNSIGNED, BITS, OF_BITS = f32, store.itself, i32, u32, bits32, float_of_bits32
LOWEST, HIGHEST, SIGN_BIT, INFINITY = i32(-(2**31)), i32(2**31 - 1), i32(31), f32(np.inf)

# float64 alone can hold magnitudes whose sums or squares it cannot. A chunk whose largest magnitude is in between is
# summed as it is: 2^13 squares of at most 2^1002 are below 2^1024, and if not all elements are equal, some differ by
# 2^-54 of the largest, and their squares, of 2^-908, have all their digits. Other chunks are multiplied by a power of
# two that brings the largest magnitude there.
WIDE = False
SMALLEST_SAFE, LARGEST_SAFE = f64(2.0**-400), f64(2.0**500)
UP, UP_AGAIN, DOWN, DOWN_AGAIN = f64(2.0**900), f64(2.0**-900), f64(2.0**-700), f64(2.0**700)
GREATEST = f64(np.finfo(np.float64).max)


def order(x):
    """A float's bits as a signed integer of the same order: integer minima vectorise, those of floats do not, for NaN's
    sake."""
    bits = INTEGER(BITS(x))
    return INTEGER(bits ^ INTEGER(INTEGER(bits >> SIGN_BIT) & HIGHEST))


def unorder(key):
    return f64(OF_BITS(UNSIGNED(INTEGER(key ^ INTEGER(INTEGER(key >> SIGN_BIT) & HIGHEST)))))


def scaled(value, factor, mean):
    """What is finite, multiplied by a power of two."""
    return f64(value) * factor if abs(value) < INFINITY else f64(0)


def squared_deviation(value, factor, mean):
    """The square of what is finite, multiplied by a power of two, less the mean of such."""
    deviation = f64(value) * factor - mean if abs(value) < INFINITY else f64(0)
    return deviation * deviation


def exact(x):
    """The fields of one chunk: float64 sums of what is finite, of the deviations in a second pass."""
    finite, zeros = INTEGER(0), INTEGER(0)  # as wide as the elements, for the vectors' sake: chunks are short enough
    smallest, largest = HIGHEST, LOWEST
    for i in range(x.size):
        value = LOAD(x[i])
        finite = INTEGER(finite + INTEGER(abs(value) < INFINITY))
        zeros = INTEGER(zeros + INTEGER(value == 0))
        key = order(value)
        smallest, largest = min(smallest, key), max(largest, key)
    if finite != x.size:  # rare: minima with a condition do not vectorise
        smallest, largest = HIGHEST, LOWEST
        for i in range(x.size):
            value = LOAD(x[i])
            if abs(value) < INFINITY:
                key = order(value)
                smallest, largest = min(smallest, key), max(largest, key)
    low, high, number = unorder(smallest), unorder(largest), f64(max(finite, INTEGER(1)))
    factor, back = f64(1), f64(1)
    if WIDE and finite > INTEGER(0):
        magnitude = max(abs(low), abs(high))
        if magnitude > LARGEST_SAFE:
            factor, back = DOWN, DOWN_AGAIN
        if f64(0) < magnitude < SMALLEST_SAFE:
            factor, back = UP, UP_AGAIN
    mean = fixed_sum(x, LOAD, scaled, factor, f64(0)) / number
    if finite > INTEGER(0):  # rounding alone may carry the mean beyond the extremes, and out of float64's range
        mean = min(max(mean, low * factor), high * factor)
    squares = fixed_sum(x, LOAD, squared_deviation, factor, mean)
    std = min(math.sqrt(squares / number) * back, GREATEST)
    return f64(finite), f64(zeros), low, high, mean * back, std


def _moments(data, start, count, key, stream, results):
    """The fields of every chunk of `key` elements in [start, start + count), those of chunk i at results[FIELDS * i].

    `start` is a multiple of `key`.
    """
    data = carray(data, count, ELEMENT)
    chunks = (start + count + key - u64(1)) // key
    results = carray(results, chunks * u64(FIELDS))
    for chunk in range(start // key, chunks):
        first = chunk * key - start
        found = results[chunk * u64(FIELDS) :]
        found[0], found[1], found[2], found[3], found[4], found[5] = exact(data[first : min(first + key, count)])


_FLOAT64: dict[str, Any] = {
    "INTEGER": i64,
    "UNSIGNED": u64,
    "BITS": bits64,
    "OF_BITS": float_of_bits64,
    "LOWEST": i64(-(2**63)),
    "HIGHEST": i64(2**63 - 1),
    "SIGN_BIT": i64(63),
    "INFINITY": f64(np.inf),
    "WIDE": True,
}


def moments(dtype: str) -> Definition:
    """The kernel for a dtype."""
    return definition(_moments, RANGE_SIGNATURE, **_exact(dtype))


@functools.cache  # two kernels share what is compiled
def _exact(dtype: str) -> dict[str, Any]:
    """The template arguments and the scalar functions for a dtype, by name."""
    form = store.FORMATS[dtype]
    names = {"ELEMENT": form.element, "LOAD": form.load, **(_FLOAT64 if dtype == "float64" else {})}
    return scalars([order, unorder, scaled, squared_deviation, exact], **names)


# --- the same at the pace of memory, with float32 sums ---

# Chunks that float32 has no digits for go the exact way: those with a mean square outside of these.
FAINTEST, STRONGEST = f64(1e-26), f64(1e30)
# From this share of the mean square on that is the square of the mean, deviations are taken from the mean.
CENTRED = f64(0.8)

# Template arguments: here those of float32. A word is the bits of an element, a pair what the sums read at once.
WORD, SIGNED, SIGN, MAGNITUDE, INFINITE = u32, i32, u32(0x80000000), u32(0x7FFFFFFF), u32(0x7F800000)
LOWEST_WORD, FLOAT, PAIR, IN_PAIR = i32(-(2**31)), float_of_bits32, types.float32, u64(1)


@scalar
def low_bf16(pair):
    return float_of_bits32(u32(pair << u32(16)))


@scalar
def high_bf16(pair):
    return float_of_bits32(u32(pair & u32(0xFFFF0000)))


@scalar
def high_f16(pair):
    """The higher of two finite float16: sign and magnitude shifted into place, and one multiply for the exponent."""
    return float_of_bits32(u32(u32(i32(pair) >> i32(3)) & u32(0x8FFFE000))) * store.WIDEN


@scalar
def low_f16(pair):
    return high_f16(u32(pair << u32(16)))


LOW, HIGH = low_bf16, high_bf16


@scalar
def two_words(x, j, centre):
    """Elements j and j + LANES32, as deviations."""
    return f32(x[j] - centre), f32(x[j + LANES32] - centre)


@scalar
def one_word(x, j, centre):
    return f32(x[j] - centre), f32(0)


def two_halves(x, j, centre):
    """The two 16-bit floats of word j, as deviations."""
    return f32(LOW(x[j]) - centre), f32(HIGH(x[j]) - centre)


TWO, LAST, ROW = two_words, one_word, 2 * LANES32  # ROW: the words that have two floats for each accumulator


def of_two(x, j, centre):
    """The sum and the sum of squares of two deviations."""
    a, b = TWO(x, j, centre)
    return a + b, a * a + b * b


def sums(x, centre):
    """The sums of x - centre and of their squares. Each accumulator adds up eight elements at a time."""
    totals, squares = carray(accumulators32(), LANES32, f32), carray(accumulators32(), LANES32, f32)
    for j in range(LANES32):
        totals[j], squares[j] = f32(0), f32(0)
    whole = x.size - x.size % (4 * ROW)
    for first in range(0, whole, 4 * ROW):
        part = x[first : first + 4 * ROW]
        for j in range(LANES32):
            one, first_squares = of_two(part, j, centre)
            two, second_squares = of_two(part, ROW + j, centre)
            three, third_squares = of_two(part, 2 * ROW + j, centre)
            four, fourth_squares = of_two(part, 3 * ROW + j, centre)
            totals[j] += (one + two) + (three + four)
            squares[j] += (first_squares + second_squares) + (third_squares + fourth_squares)
    for first in range(whole, x.size, LANES32):
        part = x[first : first + LANES32]
        for j in range(part.size):
            a, b = LAST(part, j, centre)
            totals[j] += a + b
            squares[j] += a * a + b * b
    return total32(totals), total32(squares)


# A float is a sign and a magnitude: the greatest is the largest word read as a signed integer, the least one the
# largest read as unsigned, as long as there are floats of both signs; if not, the smallest magnitude says the rest, and
# whether there are zeros. NaN and infinity have the largest magnitudes. Four instructions for a vector.


def extremes(words):
    """The largest of a chunk's words, signed and unsigned, and their smallest magnitude."""
    top, high, least = LOWEST_WORD, WORD(0), MAGNITUDE
    for i in range(words.size):
        word = words[i]
        top, high, least = max(top, SIGNED(word)), max(high, word), min(least, WORD(word & MAGNITUDE))
    return top, high, least


def count_zeros(words):
    zeros = SIGNED(0)  # as wide as the words, for the vectors' sake: chunks are short enough
    for i in range(words.size):
        zeros = SIGNED(zeros + SIGNED(WORD(words[i] & MAGNITUDE) == WORD(0)))
    return zeros


def quick(words, pairs, found):
    """The fields of one chunk, or False where it is not finite or float32 sums cannot tell them."""
    top, high, least = extremes(words)
    if top >= SIGNED(INFINITE) or high >= WORD(INFINITE | SIGN):
        return False
    largest = FLOAT(WORD(top if top >= SIGNED(0) else SIGNED(least | SIGN)))
    smallest = FLOAT(WORD(high if high >= SIGN else least))
    number, mean, squares, total = f64(words.size), f64(smallest), f64(0), f64(0)
    if smallest != largest:
        total, squares = sums(pairs, f32(0))
        if not FAINTEST * number < squares < STRONGEST * number:
            return False
        mean = total / number
        if mean * mean * number > CENTRED * squares:
            centre = f32(mean)
            total, squares = sums(pairs, centre)
            if not FAINTEST * number < squares:
                return False
            mean = f64(centre) + total / number
        squares = max(squares - total * (total / number), f64(0))
    found[0], found[1] = number, f64(count_zeros(words) if least == WORD(0) else SIGNED(0))
    found[2], found[3] = f64(smallest), f64(largest)
    found[4], found[5] = mean, math.sqrt(squares / number)
    return True


def _quick_moments(data, start, count, key, stream, results):
    """As `_moments`; 16-bit floats begin at a multiple of 4 bytes, and chunks are even."""
    x, words, pairs = carray(data, count, ELEMENT), carray(data, count, WORD), carray(data, count // IN_PAIR, PAIR)
    chunks = (start + count + key - u64(1)) // key
    results = carray(results, chunks * u64(FIELDS))
    for chunk in range(start // key, chunks):
        first = chunk * key - start
        last = min(first + key, count)
        found = results[chunk * u64(FIELDS) :]
        whole = (last - first) % IN_PAIR == u64(0)
        if not (whole and quick(words[first:last], pairs[first // IN_PAIR : last // IN_PAIR], found)):
            found[0], found[1], found[2], found[3], found[4], found[5] = exact(x[first:last])


_HALVES: dict[str, Any] = {
    "WORD": u16,
    "SIGNED": i16,
    "SIGN": u16(0x8000),
    "MAGNITUDE": u16(0x7FFF),
    "LOWEST_WORD": i16(-(2**15)),
    "PAIR": types.uint32,
    "IN_PAIR": u64(2),
    "ROW": LANES32,
}
_OF: dict[str, dict[str, Any]] = {
    "float16": _HALVES | {"INFINITE": u16(0x7C00), "FLOAT": store.of_f16, "LOW": low_f16, "HIGH": high_f16},
    "bfloat16": _HALVES | {"INFINITE": u16(0x7F80), "FLOAT": store.of_bf16, "LOW": low_bf16, "HIGH": high_bf16},
    "float32": {},
}


def quick_moments(dtype: str) -> Definition:
    """The kernel of `moments` for float16, bfloat16 or float32, with float32 sums."""
    names: dict[str, Any] = _OF[dtype] | _exact(dtype)
    if dtype != "float32":
        names |= scalars([two_halves], **names)
        names |= {"TWO": names["two_halves"], "LAST": names["two_halves"]}
    names |= scalars([of_two, sums, extremes, count_zeros, quick], **names)
    return definition(_quick_moments, RANGE_SIGNATURE, **names)
