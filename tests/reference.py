"""Plain NumPy oracles, written from the specification of the stream and sharing nothing with the kernels.

Values are made in float64 (float32 targets) or with mpmath's help (float64 targets), so they agree with the kernels to
a few units in the last place, not to the bit; words, uniforms and roundings agree to the bit.
"""

import hashlib
import struct

import ml_dtypes
import numpy as np
from scipy import special

M0, M1, W0, W1, LOW = 0xD2511F53, 0xCD9E8D57, 0x9E3779B9, 0xBB67AE85, 0xFFFFFFFF
NUMPY = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32, "float64": np.float64}


def key_words(seed, *path):
    """(k0, k1, c2, c3) of a seed and a path of names."""
    parts = [seed.to_bytes((seed.bit_length() + 7) // 8, "little"), *(name.encode() for name in path)]
    encoding = b"".join(struct.pack("<I", len(part)) + part for part in parts)
    digest = hashlib.blake2b(encoding, digest_size=16, person=b"fastinit-v1").digest()
    return struct.unpack("<4I", digest)


def philox(counters, key):
    """Ten rounds; `counters` is a uint64 array of shape (n, 4) that holds 32-bit words, the result likewise."""
    c0, c1, c2, c3 = (counters[:, i].astype(np.uint64) for i in range(4))
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * np.uint64(M0), c2 * np.uint64(M1)
        high0, low0 = p0 >> np.uint64(32), p0 & np.uint64(LOW)
        high1, low1 = p1 >> np.uint64(32), p1 & np.uint64(LOW)
        c0, c1, c2, c3 = high1 ^ c1 ^ np.uint64(k0), low1, high0 ^ c3 ^ np.uint64(k1), low0
        k0, k1 = (k0 + W0) & LOW, (k1 + W1) & LOW
    return np.stack([c0, c1, c2, c3], axis=1)


def blocks(first, count, key):
    """Blocks [first, first + count) of the stream of `key_words`, one row each."""
    k0, k1, c2, c3 = key
    index = np.arange(count, dtype=np.uint64) + np.uint64(first)
    counters = np.stack(
        [index & np.uint64(LOW), index >> np.uint64(32), np.full(count, c2, np.uint64), np.full(count, c3, np.uint64)],
        axis=1,
    )
    return philox(counters, (k0, k1))


def words(start, count, key, *, wide):
    """The 32-bit words (64-bit with `wide`) of elements [start, start + count)."""
    per_block = 2 if wide else 4
    first = start // per_block
    rows = blocks(first, (start + count - 1) // per_block - first + 1, key)
    if wide:
        rows = np.stack([rows[:, 0] | rows[:, 1] << np.uint64(32), rows[:, 2] | rows[:, 3] << np.uint64(32)], axis=1)
    return rows.reshape(-1)[start - first * per_block :][:count]


def uniform(start, count, key, low, high, dtype):
    w = words(start, count, key, wide=dtype == "float64")
    kind = np.float64 if dtype == "float64" else np.float32
    if dtype == "float64":
        # float64's fma: exact in longdouble's 64 digits where low is 0 or the product is short; tests choose such.
        u = (w >> np.uint64(11)).astype(np.float64) * 2.0**-53
        value = (u.astype(np.longdouble) * np.longdouble(high - low) + np.longdouble(low)).astype(np.float64)
    else:
        u = (w >> np.uint64(8)).astype(np.float64) * 2.0**-24
        # 24 + 24 digits fit float64's 53, and one rounding of the sum to float64 hides none of float32's.
        value = (u * float(np.float32(high - low)) + float(np.float32(low))).astype(np.float32)
    last = np.nextafter(NUMPY[dtype](high), NUMPY[dtype](-np.inf))
    return np.minimum(value, kind(last)).astype(NUMPY[dtype])


def standard_normal(start, count, key, *, wide):
    """Standard normals in float64, before any rounding."""
    even = start - start % 2
    w = words(even, count + 2, key, wide=wide)
    w = w[: len(w) // 2 * 2].reshape(-1, 2)
    first, second = w[:, 0], w[:, 1]
    kind = np.longdouble
    if wide:
        u = ((first >> np.uint64(11)).astype(kind) + kind(0.5)) * kind(2) ** -53
        turn = (second << np.uint64(2)).astype(np.int64).astype(kind) * kind(2) ** -65
        swap, sign = second >> np.uint64(62) & np.uint64(1), second >> np.uint64(63)
    else:
        u = (first.astype(kind) + kind(0.5)) * kind(2) ** -32
        turn = (second << np.uint64(2)).astype(np.uint32).astype(np.int32).astype(kind) * kind(2) ** -33
        swap, sign = second >> np.uint64(30) & np.uint64(1), second >> np.uint64(31)
    pi = kind("3.14159265358979323846264338327950288")
    r = np.sqrt(-2 * np.log(u)) * np.where(sign == 1, kind(-1), kind(1))
    pair = np.stack([r * np.cos(pi * turn), r * np.sin(pi * turn)], axis=1)
    pair = np.where(swap[:, None] == 1, pair[:, ::-1], pair)
    return pair.reshape(-1)[start - even :][:count].astype(np.float64)


def truncated_normal(start, count, key, a, b, *, wide):
    """Standard normals between a and b in float64, each from the side whose tail is nearer."""
    w = words(start, count, key, wide=wide)
    if wide:
        top = (w >> np.uint64(11)).astype(np.longdouble)
        u, complement = (
            (top + 0.5) * np.longdouble(2) ** -53,
            (2**53 - top - np.longdouble(0.5)) * np.longdouble(2) ** -53,
        )
    else:
        u = (w.astype(np.longdouble) + 0.5) * np.longdouble(2) ** -32
        complement = 1 - u
    mass = special.ndtr(b) - special.ndtr(a) if a < 0 else special.ndtr(-a) - special.ndtr(-b)
    p = (u * mass + special.ndtr(a)).astype(np.float64)
    q = (complement * mass + special.ndtr(-b)).astype(np.float64)
    return np.where(p < q, special.ndtri(p), -special.ndtri(q))
