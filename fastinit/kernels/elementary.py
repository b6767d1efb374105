"""Elementary functions that vectorise and give the same bits on every CPU: fma, + - * /, sqrt and polynomials only.

Numba has no vector math library, so `math.log` in a loop is a call per element. The coefficients come from
`scripts/coefficients.py`; the errors in ulps that the docstrings name are asserted against mpmath in the tests.
"""

from __future__ import annotations

import math

import numpy as np

from fastinit.kernels.jit import bits32, bits64, float_of_bits32, float_of_bits64, fma, polynomial, scalar

f32, f64, i32, u32, u64 = np.float32, np.float64, np.int32, np.uint32, np.uint64

# --- made by scripts/coefficients.py, highest degree first ---
# relative error 2^-24.25
LOG1P_32 = (
    f32(-0.124222006),
    f32(0.137483091),
    f32(-0.122887216),
    f32(0.140558127),
    f32(-0.166733163),
    f32(0.200072340),
    f32(-0.249999442),
    f32(0.333332726),
    f32(-0.500000000),
)
# relative error 2^-28.13
SINPI_32 = (
    f32(-0.589075099),
    f32(2.54976696),
    f32(-5.16770782),
    f32(3.14159264),
)
# relative error 2^-30.52
COSPI_32 = (
    f32(0.232125414),
    f32(-1.33513781),
    f32(4.05871057),
    f32(-4.93480220),
)
# relative error 2^-54.55
ATANH_64 = (
    f64(0.068045151314292494),
    f64(0.066048541210297316),
    f64(0.076944339028068583),
    f64(0.090908688131514686),
    f64(0.11111111524175794),
    f64(0.14285714283637967),
    f64(0.20000000000003971),
    f64(0.33333333333333332),
)
# relative error 2^-57.99
SINPI_64 = (
    f64(0.00046153185538358100),
    f64(-0.0073700215869077703),
    f64(0.082145869180001746),
    f64(-0.59926452893964493),
    f64(2.5501640398733761),
    f64(-5.1677127800499545),
    f64(3.1415926535897932),
)
# relative error 2^-61.07
COSPI_64 = (
    f64(-0.00010370082971594627),
    f64(0.0019294938748949410),
    f64(-0.025806887964701876),
    f64(0.23533063028399222),
    f64(-1.3352627688538094),
    f64(4.0587121264167652),
    f64(-4.9348022005446793),
)
# relative error 2^-28.82
QUANTILE_32_P = (
    f32(22164.5423),
    f32(93647.2512),
    f32(48158.9047),
    f32(6652.65984),
    f32(305.130772),
    f32(4.21981618),
)
QUANTILE_32_Q = (
    f32(29892.3858),
    f32(52218.1247),
    f32(18331.7914),
    f32(2022.00434),
    f32(80.0712376),
    f32(1.00000000),
)
# relative error 2^-53.46
QUANTILE_64_P = (
    f64(2529.4919022411264),
    f64(33645.318724017339),
    f64(67594.727750859796),
    f64(46085.271094511413),
    f64(13764.943561894814),
    f64(1974.4846266747617),
    f64(133.23080189547103),
    f64(3.3871328727963666),
)
QUANTILE_64_Q = (
    f64(5265.2647007259363),
    f64(28897.686960518477),
    f64(39483.914089130947),
    f64(21283.090388493957),
    f64(5406.2371615333674),
    f64(688.12040665117778),
    f64(42.339646174608385),
    f64(1.0000000000000000),
)
# relative error 2^-54.13
NEAR_TAIL_64_P = (
    f64(0.48741069664679044),
    f64(8.8651048674431800),
    f64(40.375600969667229),
    f64(56.785259305729981),
    f64(10.713107236469312),
    f64(-37.272384560685251),
    f64(-28.125988990085295),
    f64(-3.4511415892897643),
)
NEAR_TAIL_64_Q = (
    f64(6.3098040070357853e-7),
    f64(0.34458783049862964),
    f64(6.2733742641437045),
    f64(29.425051064546518),
    f64(50.859765908995432),
    f64(41.526833192922419),
    f64(13.920184237527657),
    f64(1.0000000000000000),
)
# relative error 2^-53.66
FAR_TAIL_64_P = (
    f64(0.00019406236919207579),
    f64(0.019623240859222630),
    f64(0.52794147335406967),
    f64(4.7322045326773990),
    f64(13.217225782519937),
    f64(4.0246881462353358),
    f64(-11.667141163306387),
    f64(-3.1953118085196554),
)
FAR_TAIL_64_Q = (
    f64(1.8809840662893081e-12),
    f64(0.00013722187670078266),
    f64(0.013876087796642279),
    f64(0.37377545283355500),
    f64(3.3818964154255185),
    f64(10.094303631426494),
    f64(7.8329070848437035),
    f64(1.0000000000000000),
)
# --- end of what the script made ---


# ln 2 in two parts: the first has so few bits that k * LN2_HIGH is exact for any exponent k.
LN2_HIGH_32, LN2_LOW_32 = f32(0.693359375), f32(-2.12194440e-4)
LN2_HIGH_64, LN2_LOW_64 = f64(6.93147180369123816490e-01), f64(1.90821492927058770002e-10)
TWO_THIRDS_32 = u32(0x3F2AAAAB)
TWO_THIRDS_64, BIAS_64 = u64(0x3FE5555555555555), u64(0x3FF0000000000000)
EXPONENT_32, EXPONENT_64 = i32(23), u64(52)

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


QUANTILE_32_EDGE = 0.4782  # |Phi(x) - 1/2| up to which the float32 quantile is good: just past 2 sigma (0.47725)
EDGE_SQUARED_32, EDGE_SQUARED_64 = f32(0.4782**2), f64(0.425**2)
TAIL_64, FAR_64 = f64(0.075), f64(5.0)


@scalar
def middle_quantile32(q):
    """Phi^-1(1/2 + q) for |q| <= 0.4782, within 5 ulps. Beyond, float32 loses its digits: use `quantile64`."""
    v = fma(-q, q, EDGE_SQUARED_32)
    return q * (polynomial(v, QUANTILE_32_P) / polynomial(v, QUANTILE_32_Q))


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
