"""Norms and what clips by them: range kernels that sum chunk by chunk in float64, and that scale or clamp in place.

A chunk gives one float64 number, whichever thread makes it, and in a fixed order: a norm depends neither on the thread
count nor on the processor.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastinit.kernels import store
from fastinit.kernels.jit import (
    RANGE_SIGNATURE,
    Definition,
    carray,
    definition,
    float_of_bits32,
    float_of_bits64,
    pointer,
    scalar,
)
from fastinit.kernels.sums.order import fixed_sum, square

f32, f64, i64, u16, u32, u64 = np.float32, np.float64, np.int64, np.uint16, np.uint32, np.uint64


@scalar
def _unscaled(stream):
    return f64(1), f64(1)


@scalar
def _scaled(stream):
    numbers = carray(pointer(stream), 2, f64)
    return numbers[0], numbers[1]


@scalar
def _size(value, divisor, exponent):
    return abs(f64(value))


@scalar
def _power(value, largest, exponent):
    return (abs(f64(value)) / largest) ** exponent


# Template arguments, as in `kernels.fill`.
ELEMENT, LOAD, TERM, NUMBERS = f32, store.itself, square, _unscaled


def _sums(data, start, count, key, stream, results):
    """The sum of the terms of every chunk of `key` elements in [start, start + count), chunk i's at results[i].

    `start` is a multiple of `key`. A power reads its divisor and its exponent at the address `stream`.
    """
    data = carray(data, count, ELEMENT)
    chunks = (start + count + key - u64(1)) // key
    results = carray(results, chunks)
    divisor, exponent = NUMBERS(stream)
    for chunk in range(start // key, chunks):
        first = chunk * key - start
        results[chunk] = fixed_sum(data[first : min(first + key, count)], LOAD, TERM, divisor, exponent)


# The bits of an element, signed and not, what makes a number of them, and the largest magnitude.
INTEGER, WORD, FLOAT_OF, LARGEST = np.int32, u32, float_of_bits32, np.int32(2**31 - 1)


def _largest(data, start, count, key, stream, results):
    """The largest magnitude of every chunk, NaN where there is one; the rest as in `_sums`.

    Bits without their sign have the order of the magnitudes, and a NaN is above infinity there: an integer maximum
    keeps it, and vectorises, which one of floats does not.
    """
    data = carray(data, count, INTEGER)
    chunks = (start + count + key - u64(1)) // key
    results = carray(results, chunks)
    for chunk in range(start // key, chunks):
        first = chunk * key - start
        x = data[first : min(first + key, count)]
        largest = INTEGER(0)
        for i in range(x.size):
            largest = max(largest, INTEGER(x[i] & LARGEST))
        results[chunk] = f64(FLOAT_OF(WORD(largest)))


# Kind -> (a term of the sum, where its divisor and exponent come from).
_TERMS = {"squares": (square, _unscaled), "absolute": (_size, _unscaled), "power": (_power, _scaled)}
_INTEGERS: dict[str, tuple[Any, Any, Any]] = {
    "float16": (np.int16, u16, store.of_f16),
    "bfloat16": (np.int16, u16, store.of_bf16),
    "float32": (np.int32, u32, float_of_bits32),
    "float64": (np.int64, u64, float_of_bits64),
}
KINDS = (*_TERMS, "largest")


def norm_kernel(kind: str, dtype: str) -> Definition:
    """The range kernel that reduces chunks of `key` elements.

    Kinds: "squares", "absolute" (sums of x^2 and |x|), "largest" (of |x|), "power" (the sum of
    (|x| / divisor)^exponent, two float64 numbers at the address `stream`).
    """
    if kind == "largest":
        integer, word, float_of = _INTEGERS[dtype]
        names = {"INTEGER": integer, "WORD": word, "FLOAT_OF": float_of, "LARGEST": integer(np.iinfo(integer).max)}
        return definition(_largest, RANGE_SIGNATURE, **names)
    form = store.FORMATS[dtype]
    term, numbers = _TERMS[kind]
    names = {"ELEMENT": form.element, "LOAD": form.load, "TERM": term, "NUMBERS": numbers}
    return definition(_sums, RANGE_SIGNATURE, **names)


PUT, NUMBER = store.fill, f64


def _scale(data, start, count, key, stream, parameters):
    """Multiply by parameters[0]: 16-bit elements in float32, others in float64; rounded once."""
    data = carray(data, count, ELEMENT)
    factor = NUMBER(carray(parameters, 1)[0])
    for i in range(data.size):
        PUT(data, i, NUMBER(LOAD(data[i])) * factor, factor)


def _clamp(data, start, count, key, stream, parameters):
    """Into [parameters[0], parameters[1]], which the dtype holds; NaN stays."""
    data = carray(data, count, ELEMENT)
    bounds = carray(parameters, 2)
    low, high = NUMBER(bounds[0]), NUMBER(bounds[1])
    for i in range(data.size):
        value = NUMBER(LOAD(data[i]))
        value = low if value < low else value
        PUT(data, i, high if value > high else value, low)


def _in_place(function: Any, dtype: str, number: type) -> Definition:
    form = store.FORMATS[dtype]
    names = {"ELEMENT": form.element, "LOAD": form.load, "PUT": form.fill, "NUMBER": number}
    return definition(function, RANGE_SIGNATURE, **names)


def scale_kernel(dtype: str) -> Definition:
    """The range kernel that multiplies by parameters[0] in place."""
    return _in_place(_scale, dtype, f64 if dtype in ("float32", "float64") else f32)


def clamp_kernel(dtype: str) -> Definition:
    """The range kernel that clamps between parameters[0] and [1] in place."""
    return _in_place(_clamp, dtype, f64 if dtype == "float64" else f32)
