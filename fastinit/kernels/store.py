"""How a value gets into the target: its format (native, bfloat16, float16), and `fill` or `add`.

Numba has no 16-bit floats on a CPU, so both travel as uint16 and are rounded here, to nearest even, in integer
arithmetic that vectorises and needs no instruction that some CPU lacks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types

from fastinit.kernels.jit import bits32, float_of_bits32, fma, intrinsic, scalar, scalars

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


LINE = 64  # bytes of a cache line


@intrinsic
def store_line(typing_context: Any, place: Any, value: Any) -> Any:
    """Write a number to all of the cache line at an address, a multiple of LINE, past the caches.

    The processor need not read the line first. Such stores are in no order with others until `fence`.
    """

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        element = context.get_value_type(value)
        numbers = ir.VectorType(element, LINE * 8 // value.bitwidth)
        lanes = ir.VectorType(ir.IntType(32), numbers.count)
        first = builder.insert_element(ir.Constant(numbers, ir.Undefined), arguments[1], ir.Constant(ir.IntType(32), 0))
        everywhere = builder.shuffle_vector(first, ir.Constant(numbers, ir.Undefined), ir.Constant(lanes, None))
        store = builder.store(everywhere, builder.inttoptr(arguments[0], numbers.as_pointer()), align=LINE)
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.void(types.int64, value), generate


@intrinsic
def address_of(typing_context: Any, pointer: Any) -> Any:
    """A pointer as an address."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ptrtoint(arguments[0], ir.IntType(64))

    return types.int64(pointer), generate


@intrinsic
def fence(typing_context: Any) -> Any:
    """Let other threads see all that was stored, also past the caches.

    A target's own instruction (`sfence`) would tie the module to it. LLVM takes a locked one or `mfence` on x86, `dmb`
    on ARM: stores past the caches are in order with each of these.
    """

    def generate(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


class Format(NamedTuple):
    """How a dtype lies in memory, and what reads and writes its elements; 16-bit floats are widened to float32."""

    element: Any
    to: Any
    load: Any
    fill: Any
    add: Any


def _format(element: Any, to: Any, load: Any) -> Format:
    made = scalars([fill, add], TO=to, FROM=load)
    return Format(element, to, load, made["fill"], made["add"])


FORMATS = {
    "float16": _format(types.uint16, f16_of, of_f16),
    "bfloat16": _format(types.uint16, bf16_of, of_bf16),
    "float32": _format(types.float32, itself, itself),
    "float64": _format(types.float64, itself, itself),
}
