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


# --- layers, losses and optimisers, in float64 whatever they are given ---


def activated(name, z, slope=0.01, alpha=1.0):
    """f(z) and f'(z) by their formulas; SciPy's special functions."""
    z = np.asarray(z, np.float64)
    one, s, bell = np.ones_like(z), special.expit(z), np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
    inner = np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)
    slope_of_inner = np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * z**2)
    scale, of_selu = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
    left = np.expm1(np.minimum(z, 0))
    return {
        "identity": (z, one),
        "relu": (np.maximum(z, 0), one * (z > 0)),
        "leaky_relu": (np.where(z > 0, z, slope * z), np.where(z > 0, 1, slope)),
        "elu": (np.where(z > 0, z, alpha * left), np.where(z > 0, 1, alpha * (left + 1))),
        "selu": (scale * np.where(z > 0, z, of_selu * left), scale * np.where(z > 0, 1, of_selu * (left + 1))),
        "sigmoid": (s, s * (1 - s)),
        "tanh": (np.tanh(z), 1 - np.tanh(z) ** 2),
        "softplus": (np.logaddexp(z, 0), s),
        "gelu": (z * special.ndtr(z), special.ndtr(z) + z * bell),
        "gelu_tanh": (
            z * (1 + np.tanh(inner)) / 2,
            (1 + np.tanh(inner)) / 2 + z * (1 - np.tanh(inner) ** 2) * slope_of_inner / 2,
        ),
        "silu": (z * s, s + z * s * (1 - s)),
    }[name]


def dense(x, weight, bias, name):
    """(z, f(z)) of a dense layer."""
    z = np.asarray(x, np.float64) @ np.asarray(weight, np.float64).T + np.asarray(bias, np.float64)
    return z, activated(name, z)[0]


def dense_gradients(dy, x, z, weight, name):
    """(dx, dweight, dbias), from what the layer computed before its activation."""
    delta = np.asarray(dy, np.float64) * activated(name, z)[1]
    return delta @ np.asarray(weight, np.float64), delta.T @ np.asarray(x, np.float64), delta.sum(axis=0)


def loss(kind, logits, targets):
    """The loss "softmax" (targets are shares), "sigmoid" or "squared", and its gradient."""
    z, t = np.asarray(logits, np.float64), np.asarray(targets, np.float64)
    if kind == "softmax":
        logarithms = z - special.logsumexp(z, axis=1, keepdims=True)
        gradient = np.exp(logarithms) * t.sum(axis=1, keepdims=True) - t
        return -(t * logarithms).sum() / len(z), gradient / len(z)
    if kind == "sigmoid":
        return (np.logaddexp(0, -abs(z)) + np.maximum(z, 0) - t * z).mean(), (special.expit(z) - t) / z.size
    return ((z - t) ** 2).mean(), 2 * (z - t) / z.size


def updated(kind, weights, gradients, rate, *, momentum=0.0, nesterov=False, decay=0.0, betas=(0.9, 0.999), eps=1e-8):
    """The weights after a step for every gradient: "sgd", "adam" or "adamw", as their papers have them."""
    w = np.array(weights, np.float64)
    m, v = np.zeros_like(w), np.zeros_like(w)
    for step, g in enumerate(np.asarray(gradients, np.float64), start=1):
        if kind == "sgd":
            slope = g + decay * w
            m = momentum * m + slope
            w = w - rate * (slope + momentum * m if nesterov else m)
            continue
        slope = g if kind == "adamw" else g + decay * w
        m = betas[0] * m + (1 - betas[0]) * slope
        v = betas[1] * v + (1 - betas[1]) * slope**2
        kept = 1 - rate * decay if kind == "adamw" else 1
        w = kept * w - rate * (m / (1 - betas[0] ** step)) / (np.sqrt(v / (1 - betas[1] ** step)) + eps)
    return w
