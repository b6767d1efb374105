"""The exponential and what is made of it, in fma, + - * /, selects and polynomials, so that loops vectorise.

Every function is one body for both float types: `FLOAT` and the other capitals are float64's here, and float32's in
the copies that `jit.scalars` compiles. The errors in ulps that
the docstrings name are asserted against mpmath in the tests. NaN comes through everywhere: clamps are selects whose
comparison is false for it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastinit.kernels import elementary
from fastinit.kernels.coefficients import coefficients
from fastinit.kernels.jit import bits32, bits64, float_of_bits32, float_of_bits64, fma, polynomial, scalars

f32, f64, u32, u64 = np.float32, np.float64, np.uint32, np.uint64

EXPM1_32 = coefficients("EXPM1_32")
ERF_32 = coefficients("ERF_32")
ERFCX_32 = coefficients("ERFCX_32")
EXPM1_64 = coefficients("EXPM1_64")
ERF_64 = coefficients("ERF_64")
ERFCX_64 = coefficients("ERFCX_64")

# Template arguments: float64's here, float32's in `_FLOAT32`. Adding 1.5 * 2^(mantissa bits) to a small number rounds
# it to an integer and leaves that in the low bits: the conversion that AVX2 lacks for 64-bit integers.
FLOAT, WORD, BITS, OF_BITS, SIGN = f64, u64, bits64, float_of_bits64, u64(1 << 63)
ROUNDER, ROUNDER_BITS, MANTISSA, BIAS = f64(1.5 * 2.0**52), u64(0x4338000000000000), u64(52), u64(1023)
LN2_HIGH, LN2_LOW = elementary.LN2_HIGH_64, elementary.LN2_LOW_64
LOWEST, HIGHEST = f64(-746), f64(710)  # just past where exp is 0 and infinite
EXPM1, ERF, ERFCX, LOG_OF_PARTS = EXPM1_64, ERF_64, ERFCX_64, elementary.log_of_parts64

_FLOAT32: dict[str, Any] = {
    "FLOAT": f32, "WORD": u32, "BITS": bits32, "OF_BITS": float_of_bits32, "SIGN": u32(1 << 31),
    "ROUNDER": f32(1.5 * 2.0**23), "ROUNDER_BITS": u32(0x4B400000), "MANTISSA": u32(23), "BIAS": u32(127),
    "LN2_HIGH": elementary.LN2_HIGH_32, "LN2_LOW": elementary.LN2_LOW_32, "LOWEST": f32(-104), "HIGHEST": f32(89),
    "EXPM1": EXPM1_32, "ERF": ERF_32, "ERFCX": ERFCX_32, "LOG_OF_PARTS": elementary.log_of_parts32,
}  # fmt: skip

LOG2_E, SQRT_HALF = 1 / math.log(2), math.sqrt(0.5)
ERFCX_SHIFT = 4  # K of the script's `erfcx_over`


def reduced(x):
    """(word, e) with exp(x) = 2^k (1 + e): k is in the word's low bits, e = exp(r) - 1 for |r| <= ln 2 / 2."""
    t = fma(x, FLOAT(LOG2_E), ROUNDER)
    k = t - ROUNDER
    r = fma(-k, LN2_LOW, fma(-k, LN2_HIGH, x))
    return BITS(t), fma(r * r, polynomial(r, EXPM1), r)


def exp(x):
    """e^x within 1 ulp, subnormal results included; 0 and infinity beyond them."""
    x = LOWEST if x < LOWEST else x
    x = HIGHEST if x > HIGHEST else x
    word, e = reduced(x)
    # 2^k in two factors: at the ends k is no exponent of a float. The second one alone rounds.
    exponents = WORD(word - WORD(ROUNDER_BITS - WORD(BIAS + BIAS)))
    first = WORD(exponents >> WORD(1))
    second = WORD(exponents - first)
    return (FLOAT(1) + e) * OF_BITS(WORD(first << MANTISSA)) * OF_BITS(WORD(second << MANTISSA))


def expm1(x):
    """e^x - 1 for x <= 0, within 1.5 ulps."""
    x = FLOAT(-64) if x < FLOAT(-64) else x
    word, e = reduced(x)
    scale = OF_BITS(WORD(WORD(word + BIAS) << MANTISSA))
    return fma(e, scale, scale - FLOAT(1))


def with_sign(size, x):
    """The non-negative `size` with the sign of x."""
    return OF_BITS(WORD(BITS(size) | WORD(BITS(x) & SIGN)))


def tanh(x):
    """tanh(x) within 3 ulps: -m / (2 + m) with m = e^(-2 |x|) - 1, which keeps its digits near 0."""
    m = expm1(FLOAT(-2) * abs(x))
    return with_sign(abs(m) / (FLOAT(2) + m), x)


def sigmoid(x):
    """1 / (1 + e^-x) within 3 ulps; e^x in the far left tail, subnormal results included."""
    small = exp(-abs(x))
    return (FLOAT(1) if x >= FLOAT(0) else small) / (FLOAT(1) + small)


def softplus(x):
    """log(1 + e^x) within 3 ulps; e^x in the far left tail, subnormal results included."""
    small = exp(-abs(x))
    # log(1 + small): over 1/3 as ln 2 + log((1 + small) / 2), which is where the logarithm's polynomial is good.
    upper = small > FLOAT(1 / 3)
    k = FLOAT(1) if upper else FLOAT(0)
    excess = FLOAT(0.5) * (small - FLOAT(1)) if upper else small
    return (x if x > FLOAT(0) else FLOAT(0)) + LOG_OF_PARTS(k, excess)


def scaled_erfc(x):
    """exp(x^2) erfc(x) for x >= 1/2, within 6 ulps up to where erfc underflows."""
    inverse = FLOAT(1) / (x + FLOAT(ERFCX_SHIFT))
    return inverse * polynomial((x - FLOAT(ERFCX_SHIFT)) * inverse, ERFCX)


def normal_tail(z):
    """(Phi(-|z|), exp(-z^2 / 2)) for |z| <= 40, within 7 and 2 ulps while they are normal floats."""
    half = FLOAT(0.5) * z
    square = half * z
    # A rounded square would cost as many ulps as it is large: what was rounded off goes into the exponential.
    rounded = exp(-square)
    bell = fma(-fma(half, z, -square), rounded, rounded)
    x = FLOAT(SQRT_HALF) * abs(z)
    middle = FLOAT(0.5) - FLOAT(0.5) * x * polynomial(square, ERF)
    return (middle if x < FLOAT(0.5) else FLOAT(0.5) * bell * scaled_erfc(x)), bell


_BODIES = (reduced, exp, expm1, with_sign, tanh, sigmoid, softplus, scaled_erfc, normal_tail)

# What a body for both float types needs to call these: the template arguments and the compiled functions, by name.
NAMES = {"float32": scalars(_BODIES, **_FLOAT32), "float64": scalars(_BODIES, FLOAT=FLOAT)}
