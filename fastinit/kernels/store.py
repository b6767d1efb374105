"""How a value gets into the target: its format (native, bfloat16, float16), and `fill` or `add`.

Numba has no 16-bit floats on a CPU, so both travel as uint16 and are rounded here, to nearest even, in integer
arithmetic that vectorises and needs no instruction that some CPU lacks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import types

from fastinit.kernels.jit import bits32, float_of_bits32, fma, scalar, scalars

f32, u16, u32 = np.float32, np.uint16, np.uint32

SIGN, MAGNITUDE, INFINITY = u32(0x80000000), u32(0x7FFFFFFF), u32(0x7F800000)
ONE, SIXTEEN, HALF_ULP = u32(1), u32(16), u32(0x7FFF)
QUIET_F16, INFINITY_F16 = u32(0x7E00), u32(0x7C00)
THIRTEEN, HALF_ULP_F16, REBIAS = u32(13), u32(0xFFF), u32((127 - 15) << 23)
SMALLEST_NORMAL_F16, OVERFLOW_F16 = u32((127 - 14) << 23), u32((127 + 16) << 23)
DENORMAL_MAGIC_BITS = u32((127 - 15 + 23 - 10 + 1) << 23)
DENORMAL_MAGIC = f32(0.5)  # the float with those bits: its last place is the step of float16's subnormals
WIDEN, WIDEN_TOP = f32(2.0**112), f32(65536.0)


@scalar
def bf16_of(value):
    """float32 -> the bits of the nearest bfloat16, ties to even; NaN stays a NaN."""
    bits = bits32(value)
    rounded = u32(u32(bits + u32(HALF_ULP + u32(u32(bits >> SIXTEEN) & ONE))) >> SIXTEEN)
    nan = u32(bits & MAGNITUDE) > INFINITY
    return u16(u32(u32(bits >> SIXTEEN) | u32(0x40)) if nan else rounded)


@scalar
def of_bf16(bits):
    return float_of_bits32(u32(u32(bits) << SIXTEEN))


@scalar
def f16_of(value):
    """float32 -> the bits of the nearest float16, ties to even, subnormals and infinity included."""
    bits = bits32(value)
    sign = u32(u32(bits & SIGN) >> SIXTEEN)
    size = u32(bits & MAGNITUDE)
    normal = u32(u32(size - REBIAS) + u32(HALF_ULP_F16 + u32(u32(size >> THIRTEEN) & ONE)))
    normal = u32(normal >> THIRTEEN)
    # The float adder rounds to the subnormals' step: adding 1/2 moves their last place to the mantissa's end.
    subnormal = u32(bits32(float_of_bits32(size) + DENORMAL_MAGIC) - DENORMAL_MAGIC_BITS)
    top = QUIET_F16 if size > INFINITY else INFINITY_F16
    finite = subnormal if size < SMALLEST_NORMAL_F16 else normal
    return u16(u32((top if size >= OVERFLOW_F16 else finite) | sign))


@scalar
def of_f16(bits):
    """The bits of a float16 -> float32, exactly: shift into place, then one multiply corrects the exponent."""
    half = u32(bits)
    size = u32(u32(half & u32(0x7FFF)) << THIRTEEN)
    value = float_of_bits32(size) * WIDEN
    value = float_of_bits32(u32(bits32(value) | INFINITY)) if value >= WIDEN_TOP else value
    return float_of_bits32(u32(bits32(value) | u32(u32(half & u32(0x8000)) << SIXTEEN)))


@scalar
def itself(value):
    return value


# Template arguments of what writes an element: a float32 or float64 to the format, and back.
TO, FROM = itself, itself


def fill(out, i, value, scale):
    out[i] = TO(value)


def add(out, i, value, scale):
    out[i] = TO(fma(scale, value, FROM(out[i])))


class Format(NamedTuple):
    """How a dtype lies in memory, and what reads and writes its elements; 16-bit floats are widened to float32."""

    element: Any
    load: Any
    fill: Any
    add: Any


def _format(element: Any, to: Any, load: Any) -> Format:
    made = scalars([fill, add], TO=to, FROM=load)
    return Format(element, load, made["fill"], made["add"])


FORMATS = {
    "float16": _format(types.uint16, f16_of, of_f16),
    "bfloat16": _format(types.uint16, bf16_of, of_bf16),
    "float32": _format(types.float32, itself, itself),
    "float64": _format(types.float64, itself, itself),
}
