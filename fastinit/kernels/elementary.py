"""Elementary functions that vectorise and give the same bits on every CPU: fma, + - * /, sqrt and polynomials only.

Numba has no vector math library, so `math.log` in a loop is a call per element. The errors in ulps that the
docstrings name are asserted against mpmath in the tests.
"""

from __future__ import annotations

import math

import numpy as np

from fastinit._native.records import QUANTILE_32_EDGE
from fastinit.kernels.coefficients import coefficients
from fastinit.kernels.jit import bits32, bits64, float_of_bits32, float_of_bits64, fma, polynomial, scalar

f32, f64, i32, u32, u64 = np.float32, np.float64, np.int32, np.uint32, np.uint64

LOG1P_32 = coefficients("LOG1P_32")
SINPI_32 = coefficients("SINPI_32")
COSPI_32 = coefficients("COSPI_32")
ATANH_64 = coefficients("ATANH_64")
SINPI_64 = coefficients("SINPI_64")
COSPI_64 = coefficients("COSPI_64")
QUANTILE_32_P = coefficients("QUANTILE_32_P")
QUANTILE_32_Q = coefficients("QUANTILE_32_Q")
TAIL_32_P = coefficients("TAIL_32_P")
TAIL_32_Q = coefficients("TAIL_32_Q")
QUANTILE_64_P = coefficients("QUANTILE_64_P")
QUANTILE_64_Q = coefficients("QUANTILE_64_Q")
NEAR_TAIL_64_P = coefficients("NEAR_TAIL_64_P")
NEAR_TAIL_64_Q = coefficients("NEAR_TAIL_64_Q")
FAR_TAIL_64_P = coefficients("FAR_TAIL_64_P")
FAR_TAIL_64_Q = coefficients("FAR_TAIL_64_Q")


# ln 2 in two parts: the first has so few bits that k * LN2_HIGH is exact for any exponent k.
LN2_HIGH_32, LN2_LOW_32 = f32(0.693359375), f32(-2.12194440e-4)
LN2_HIGH_64, LN2_LOW_64 = f64(6.93147180369123816490e-01), f64(1.90821492927058770002e-10)
TWO_THIRDS_32 = u32(0x3F2AAAAB)
TWO_THIRDS_64, BIAS_64 = u64(0x3FE5555555555555), u64(0x3FF0000000000000)
EXPONENT_32, EXPONENT_64 = i32(23), u64(52)

MINUS_TWO_32, ZERO_32 = f32(-2), f32(0)
ONE_32, ONE_64, TWO_64, HALF_64 = f32(1), f64(1), f64(2), f64(0.5)

# Adding an integer below 2^52 (2^32 in steps of 2^32) to the bits of 2^52 (2^84) writes it into the mantissa: the
# conversion that AVX2 lacks for 64-bit integers.
MAGIC_52, MAGIC_84, MAGIC_84_SIGNED = u64(0x4330000000000000), u64(0x4530000000000000), u64(0x4530000080000000)
TWO_52, TWO_84, TWO_84_SIGNED = f64(2.0**52), f64(2.0**84), f64(2.0**84 + 2.0**63)
LOW, HALF_WORD = u64(0xFFFFFFFF), u64(32)
EXPONENT_BIAS = f64(2.0**52 + 1023)


@scalar
def float_of_u52(n):
    """An integer below 2^52 as float64, exactly."""
    return float_of_bits64(n | MAGIC_52) - TWO_52


@scalar
def float_of_u64(n):
    """An unsigned 64-bit integer as float64, rounded once."""
    return (float_of_bits64((n >> HALF_WORD) | MAGIC_84) - TWO_84) + float_of_u52(n & LOW)


@scalar
def float_of_i64(n):
    """The signed 64-bit integer whose bits are the unsigned n, as float64, rounded once."""
    return (float_of_bits64((n >> HALF_WORD) ^ MAGIC_84_SIGNED) - TWO_84_SIGNED) + float_of_u52(n & LOW)


@scalar
def split32(x):
    """(k, m) with x = 2^k m and m in [2/3, 4/3), for positive normal x."""
    bits = bits32(x)
    k = i32(i32(bits - TWO_THIRDS_32) >> EXPONENT_32)
    return f32(k), float_of_bits32(u32(bits - u32(u32(k) << u32(23))))


@scalar
def split64(x):
    """(k, m) with x = 2^k m and m in [2/3, 4/3), for positive normal x."""
    bits = bits64(x)
    biased = (bits - TWO_THIRDS_64 + BIAS_64) >> EXPONENT_64
    return float_of_bits64(biased | MAGIC_52) - EXPONENT_BIAS, float_of_bits64(bits - (biased << EXPONENT_64) + BIAS_64)


@scalar
def log_of_parts32(k, x):
    """k ln 2 + log(1 + x) for x in [-1/3, 1/3]."""
    return fma(k, LN2_HIGH_32, fma(x * x, polynomial(x, LOG1P_32), fma(k, LN2_LOW_32, x)))


@scalar
def log_of_parts64(k, x):
    """k ln 2 + log(1 + x) for x in [-1/3, 1/3], through atanh: log(1 + x) = 2 atanh(x / (2 + x))."""
    s = x / (TWO_64 + x)
    z = s * s
    half_square = HALF_64 * x * x
    tail = s * fma(TWO_64 * z, polynomial(z, ATANH_64), half_square)
    return fma(k, LN2_HIGH_64, x - (half_square - fma(k, LN2_LOW_64, tail)))


@scalar
def log32(x):
    """Natural logarithm of a positive normal float32, within 1 ulp."""
    k, m = split32(x)
    return log_of_parts32(k, m - ONE_32)


@scalar
def log64(x):
    """Natural logarithm of a positive normal float64, within 1 ulp."""
    k, m = split64(x)
    return log_of_parts64(k, m - ONE_64)


@scalar
def sincospi32(t):
    """(sin pi t, cos pi t) for t in [-1/4, 1/4], within 2.5 and 1.5 ulps."""
    z = t * t
    return t * polynomial(z, SINPI_32), fma(z, polynomial(z, COSPI_32), ONE_32)


@scalar
def sincospi64(t):
    """(sin pi t, cos pi t) for t in [-1/4, 1/4], within 2.5 and 1.5 ulps."""
    z = t * t
    return t * polynomial(z, SINPI_64), fma(z, polynomial(z, COSPI_64), ONE_64)


EDGE_32 = f32(QUANTILE_32_EDGE)
EDGE_SQUARED_32, EDGE_SQUARED_64 = f32(0.4782**2), f64(0.425**2)
TAIL_64, FAR_64 = f64(0.075), f64(5.0)


@scalar
def middle_quantile32(q):
    """Phi^-1(1/2 + q) for |q| <= 0.4782, within 5 ulps. Beyond, float32 loses its digits: use `quantile32`."""
    v = fma(-q, q, EDGE_SQUARED_32)
    return q * (polynomial(v, QUANTILE_32_P) / polynomial(v, QUANTILE_32_Q))


@scalar
def tail_radius32(p, shift):
    """sqrt(-2 ln p + shift), for a p of at least 2^-126: of a smaller one the scale is in the shift."""
    k, m = split32(p)
    return math.sqrt(fma(MINUS_TWO_32, log_of_parts32(k, m - ONE_32), shift))


@scalar
def quantile32(q, radius):
    """Phi^-1(1/2 + q) for |z| up to 38, within 5 ulps; `radius` is sqrt(-2 ln p), p the mass beyond z.

    Up to `QUANTILE_32_EDGE` that of `middle_quantile32`, beyond it a function of the radius.
    """
    # Both are made and one is chosen, before the one division: a branch would stop vectorisation.
    middle, v = abs(q) <= EDGE_32, fma(-q, q, EDGE_SQUARED_32)
    tail = polynomial(radius, TAIL_32_P)
    top = q * polynomial(v, QUANTILE_32_P) if middle else (-tail if q < ZERO_32 else tail)
    return top / (polynomial(v, QUANTILE_32_Q) if middle else polynomial(radius, TAIL_32_Q))


@scalar
def middle_quantile64(q):
    """Phi^-1(1/2 + q) for |q| <= 0.425, within 5 ulps."""
    v = fma(-q, q, EDGE_SQUARED_64)
    return q * (polynomial(v, QUANTILE_64_P) / polynomial(v, QUANTILE_64_Q))


@scalar
def tail_quantile64(p):
    """Phi^-1(p) for p from 1e-307 to 0.075, within 5 ulps."""
    r = math.sqrt(-log64(p))
    near = polynomial(r, NEAR_TAIL_64_P) / polynomial(r, NEAR_TAIL_64_Q)
    far = polynomial(r, FAR_TAIL_64_P) / polynomial(r, FAR_TAIL_64_Q)
    return -(near if r < FAR_64 else far)


@scalar
def quantile64(p, complement):
    """Phi^-1(p), the standard normal's quantile; `complement` is 1 - p with its own full precision.

    Giving both sides keeps every digit in both tails. The division into a middle and two tails is that of Wichura's
    AS 241 (Applied Statistics 37, 1988); the coefficients are our own.
    """
    lower = p < complement
    smaller = p if lower else complement
    # Both are made and one is chosen: a branch would stop vectorisation.
    middle, tail = middle_quantile64(smaller - HALF_64), tail_quantile64(smaller)
    below = middle if smaller > TAIL_64 else tail
    return below if lower else -below
