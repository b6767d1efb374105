"""Words -> values: one aligned block of a stream at a time.

Every block function has the form `block(words, out, p, put)`: `words` are the planes that `philox.words32` or
`words64` made, which it may write to, `out` is the block's place in the target, `p` the distribution's parameters
(float64, in the order that `fastinit.distributions` packs them), and `put(out, i, value, scale)` stores one value in
the target's format.
Element 4j + w of a float32 stream is word w of block j; element 2j + w of a float64 stream is its 64-bit word w.
"""

from __future__ import annotations

import math

import numpy as np
from numba import types

from fastinit.kernels.elementary import (
    float_of_i64,
    float_of_u52,
    float_of_u64,
    log_of_parts32,
    log_of_parts64,
    middle_quantile32,
    quantile32,
    quantile64,
    sincospi32,
    sincospi64,
    split32,
    split64,
    tail_radius32,
)
from fastinit.kernels.jit import (
    bits32,
    bits64,
    carray,
    float_of_bits32,
    float_of_bits64,
    fma,
    scalar,
    scalars,
    stack_memory,
)
from fastinit.kernels.philox import COUNTERS, interleave32, interleave64

f32, f64, i32, u32, u64 = np.float32, np.float64, np.int32, np.uint32, np.uint64

BLOCK32, BLOCK64 = 4 * COUNTERS, 2 * COUNTERS  # elements of a block

SIGN_32, SIGN_64 = u32(1 << 31), u64(1 << 63)
SWAP_32, SWAP_64 = u32(1 << 30), u64(1 << 62)
STEP_24, STEP_31, STEP_32, STEP_33 = f32(2.0**-24), f32(2.0**-31), f32(2.0**-32), f32(2.0**-33)
STEP_53, STEP_54, STEP_65 = f64(2.0**-53), f64(2.0**-54), f64(2.0**-65)
ZERO_32, ONE_32, ZERO_64, ONE_64 = f32(0), f32(1), f64(0), f64(1)
MINUS_TWO_32, MINUS_TWO_64 = f32(-2), f64(-2)


# --- scalar: a word or two -> a standard value ---


@scalar
def unit32(word):
    """u = (w >> 8) 2^-24 in [0, 1)."""
    return f32(i32(word >> u32(8))) * STEP_24


@scalar
def unit64(word):
    """u = (W >> 11) 2^-53 in [0, 1)."""
    return float_of_u64(word >> u64(11)) * STEP_53


@scalar
def radius32(word):
    """sqrt(-2 ln u) with u = (w + 1/2) 2^-32, to full precision at both ends.

    Near u = 1 float32 has too few digits for u, so words of the upper half are complemented to f = 1 - u, and
    log(1 - f) is taken from f itself. The signed conversion is also the one that AVX2 has.
    """
    word = i32(word)
    upper = word < i32(0)
    f = fma(f32(i32(word ^ i32(word >> i32(31)))), STEP_32, STEP_33)
    k, m = split32(ONE_32 - f if upper else f)
    x = -f if upper and k == ZERO_32 else m - ONE_32
    return math.sqrt(MINUS_TWO_32 * log_of_parts32(k, x))


@scalar
def radius64(word):
    """sqrt(-2 ln u) with u = ((W >> 11) + 1/2) 2^-53; the upper half is complemented as in `radius32`."""
    upper = word >= SIGN_64
    f = fma(float_of_u52((~word if upper else word) >> u64(11)), STEP_53, STEP_54)
    k, m = split64(ONE_64 - f if upper else f)
    x = -f if upper and k == ZERO_64 else m - ONE_64
    return math.sqrt(MINUS_TWO_64 * log_of_parts64(k, x))


@scalar
def normal_pair32(radius, second):
    """Two standard normals from a radius (as bits) and a word.

    Box & Muller, Annals of Mathematical Statistics 29, 1958.
    The angle is t half-turns, t in [-1/4, 1/4), from the low 30 bits; bit 30 swaps the two and bit 31 negates both.
    """
    sine, cosine = sincospi32(f32(i32(i32(u32(second << u32(2))) >> i32(2))) * STEP_31)
    r = float_of_bits32(u32(radius ^ u32(second & SIGN_32)))
    swap = (second & SWAP_32) != u32(0)
    return r * (sine if swap else cosine), r * (cosine if swap else sine)


@scalar
def normal_pair64(radius, second):
    """The same in float64: the angle from the low 62 bits, swap by bit 62, sign by bit 63."""
    sine, cosine = sincospi64(float_of_i64(second << u64(2)) * STEP_65)
    r = float_of_bits64(radius ^ (second & SIGN_64))
    swap = (second & SWAP_64) != u64(0)
    return r * (sine if swap else cosine), r * (cosine if swap else sine)


@scalar
def centred32(word):
    """u - 1/2 with u = (w + 1/2) 2^-32."""
    return fma(f32(i32(u32(word ^ SIGN_32))), STEP_32, STEP_33)


@scalar
def side32(word, lower):
    """u if `lower`, else 1 - u, with u = (w + 1/2) 2^-32; the smaller of the two to full precision."""
    word = i32(word)
    f = fma(f32(i32(word ^ i32(word >> i32(31)))), STEP_32, STEP_33)
    return ONE_32 - f if lower == (word < i32(0)) else f


@scalar
def sides64(word):
    """(u, 1 - u) with u = ((W >> 11) + 1/2) 2^-53; the smaller is exact."""
    upper = word >= SIGN_64
    f = fma(float_of_u52((~word if upper else word) >> u64(11)), STEP_53, STEP_54)
    return (ONE_64 - f if upper else f), (f if upper else ONE_64 - f)


@scalar
def between(value, low, high):
    """The value, or the bound that it passed."""
    value = low if value < low else value
    return high if value > high else value


# --- blocks: 64 counters of one stream ---


# Template arguments: float32's here, float64's in `_FLOAT64`. `WORDS` are a counter's words, `SIZE` those of a block,
# and `ORDERED` gives memory for them.
FLOAT, WORD, WORDS, BITS, UNIT, RADIUS, NORMAL_PAIR = f32, u32, 4, bits32, unit32, radius32, normal_pair32
SIZE, INTERLEAVE, ORDERED = BLOCK32, interleave32, stack_memory(types.float32, BLOCK32)

_FLOAT64 = {
    "FLOAT": f64,
    "WORD": u64,
    "SIZE": BLOCK64,
    "INTERLEAVE": interleave64,
    "ORDERED": stack_memory(types.float64, BLOCK64),
    "WORDS": 2,
    "BITS": bits64,
    "UNIT": unit64,
    "RADIUS": radius64,
    "NORMAL_PAIR": normal_pair64,
}


def constant(words, out, p, put):
    scale, value = FLOAT(p[0]), FLOAT(p[1])
    for i in range(WORDS * COUNTERS):
        put(out, i, value, scale)


def uniform(words, out, p, put):
    """low + u (high - low), and the last value below `high` instead of `high`. p: scale, low, high - low, last."""
    scale, low, width, last = FLOAT(p[0]), FLOAT(p[1]), FLOAT(p[2]), FLOAT(p[3])
    ordered = carray(ORDERED(), SIZE, WORD)
    INTERLEAVE(words, ordered)
    for i in range(SIZE):
        value = fma(UNIT(ordered[i]), width, low)
        put(out, i, last if value > last else value, scale)


def normal(words, out, p, put):
    """mean + std z. p: scale, mean, std.

    The radii are made first, then the pairs, in place of their words: short loops keep more of the long chain of a
    logarithm and a square root in flight than one long loop does.
    """
    scale, mean, std = FLOAT(p[0]), FLOAT(p[1]), FLOAT(p[2])
    for w in range(0, WORDS, 2):
        for j in range(COUNTERS):
            words[COUNTERS * w + j] = BITS(RADIUS(words[COUNTERS * w + j]))
    for w in range(0, WORDS, 2):
        for j in range(COUNTERS):
            a, b = NORMAL_PAIR(words[COUNTERS * w + j], words[COUNTERS * (w + 1) + j])
            words[COUNTERS * w + j], words[COUNTERS * (w + 1) + j] = BITS(a), BITS(b)
    values = carray(ORDERED(), SIZE, FLOAT)
    INTERLEAVE(words, values)
    for i in range(SIZE):
        put(out, i, fma(std, values[i], mean), scale)


def narrow_truncated32(words, out, p, put):
    """mean + std Phi^-1(Phi(a) + u (Phi(b) - Phi(a))), the bounds inclusive, for bounds inside 2 sigma.

    p: scale, mean, std, low, high, Phi(b) - Phi(a), (Phi(a) + Phi(b) - 1) / 2.
    """
    scale, mean, std, low, high = f32(p[0]), f32(p[1]), f32(p[2]), f32(p[3]), f32(p[4])
    mass, middle = f32(p[5]), f32(p[6])
    ordered = carray(ORDERED(), BLOCK32, u32)
    interleave32(words, ordered)
    for i in range(BLOCK32):
        z = middle_quantile32(fma(centred32(ordered[i]), mass, middle))
        put(out, i, between(fma(std, z, mean), low, high), scale)


def truncated32(words, out, p, put):
    """The same for any bounds. Beyond 2 sigma the quantile is that of the nearer tail, which keeps its digits.

    p: as `narrow_truncated32`, then Phi(a), 1 - Phi(b) and Phi(b) - Phi(a) in units of exp(-shift / 2), and the shift.
    The radii are made first, as in `normal`.
    """
    scale, mean, std, low, high = f32(p[0]), f32(p[1]), f32(p[2]), f32(p[3]), f32(p[4])
    mass, middle, below, above, tail_mass, shift = f32(p[5]), f32(p[6]), f32(p[7]), f32(p[8]), f32(p[9]), f32(p[10])
    ordered = carray(ORDERED(), BLOCK32, u32)
    interleave32(words, ordered)
    for i in range(BLOCK32):
        lower = fma(centred32(ordered[i]), mass, middle) < ZERO_32
        radius = tail_radius32(fma(side32(ordered[i], lower), tail_mass, below if lower else above), shift)
        words[i] = bits32(radius)
    for i in range(BLOCK32):
        z = quantile32(fma(centred32(ordered[i]), mass, middle), float_of_bits32(words[i]))
        put(out, i, between(fma(std, z, mean), low, high), scale)


def truncated64(words, out, p, put):
    """The same in float64. p: scale, mean, std, low, high, Phi(b) - Phi(a), Phi(a), 1 - Phi(b)."""
    ordered = carray(ORDERED(), BLOCK64, u64)
    interleave64(words, ordered)
    for i in range(BLOCK64):
        u, complement = sides64(ordered[i])
        z = quantile64(fma(u, p[5], p[6]), fma(complement, p[5], p[7]))
        put(out, i, between(fma(p[2], z, p[1]), p[3], p[4]), p[0])


_BODIES = constant, uniform, normal

# The blocks by the stream's float type and their names.
BLOCKS = {"float32": scalars(_BODIES), "float64": scalars(_BODIES, **_FLOAT64)}
_truncated64 = scalars([truncated64], **_FLOAT64)["truncated64"]
BLOCKS["float32"] |= {"narrow_truncated": scalar(narrow_truncated32), "truncated": scalar(truncated32)}
BLOCKS["float64"] |= {"narrow_truncated": _truncated64, "truncated": _truncated64}
