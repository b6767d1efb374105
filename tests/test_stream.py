"""The page of the stream suffices: what it says, done in plain integers and IEEE arithmetic, gives its test vectors.

Nothing of the library is used but, in one test, the script that makes the page's tables. Coefficients, constants and
vectors are read from the page.
"""

import functools
import hashlib
import importlib.util
import math
import re
import struct
from pathlib import Path

import ml_dtypes
import mpmath
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "stream.md").read_text(encoding="utf-8")


def rows(name):
    """The cells of a table of the page, without backticks."""
    (text,) = re.findall(rf"<!-- {name}:begin -->\n(.*?)\n<!-- {name}:end -->", PAGE, re.DOTALL)
    head, _, *lines = ([cell.strip().replace("`", "") for cell in line[1:-1].split("|")] for line in text.splitlines())
    return head, lines


def number(text):
    """A float from its bits in hexadecimal."""
    return struct.unpack(">d" if len(text) == 16 else ">f", bytes.fromhex(text))[0]


def coefficients():
    found = {}
    for table in ("coefficients32", "coefficients64", "tail32", "quantile64", "near64", "far64"):
        head, lines = rows(table)
        for column, name in enumerate(head[1:], start=1):
            found[name] = [number(line[column]) for line in lines if line[column]]
    return found | {name: number(text) for name, text, _ in rows("constants")[1]}


C = coefficients()


class Binary64:
    """IEEE arithmetic, which Python's floats are; fma by integers, whose true division is rounded once."""

    name, half, mantissa, offset, step = "64", 63, 52, 0x3FE5555555555555, "<d"

    @staticmethod
    def r(x):
        return float(x)

    @staticmethod
    def exact(n, d):
        return n / d

    @classmethod
    def fma(cls, a, b, c):
        (an, ad), (bn, bd), (cn, cd) = (x.as_integer_ratio() for x in (a, b, c))
        n, d = an * bn * cd + cn * ad * bd, ad * bd * cd
        return cls.exact(n, d) if n else a * b + c  # a zero has a sign

    @classmethod
    def bits(cls, x):
        return int.from_bytes(struct.pack(cls.step, x), "little")

    @classmethod
    def from_bits(cls, n):
        return struct.unpack(cls.step, n.to_bytes(struct.calcsize(cls.step), "little"))[0]

    @classmethod
    def c(cls, name):
        return C.get(f"{name}_{cls.name}") or C[f"{name[:-2]}_{cls.name}{name[-2:]}"]


class Binary32(Binary64):
    """Python's floats, rounded after each operation: of + - * / and sqrt a second rounding does no harm, for binary64
    has more than twice the digits; of fma it would."""

    name, half, mantissa, offset, step = "32", 31, 23, 0x3F2AAAAB, "<f"

    @staticmethod
    def r(x):
        return float(np.float32(x))

    @classmethod
    def exact(cls, n, d):
        shift = 42 - abs(n).bit_length() + d.bit_length()  # so many digits, and the last one says if there are more
        q, rest = divmod(abs(n) << shift, d) if shift >= 0 else divmod(abs(n), d << -shift)
        return cls.r(math.copysign(math.ldexp(q | (rest != 0), -shift), n))


def polynomial(f, x, coefficients):
    terms, power = list(coefficients), x
    while len(terms) > 1:
        pairs = [f.fma(b, power, a) for a, b in zip(terms[::2], terms[1::2], strict=False)]
        terms = pairs + terms[2 * len(pairs) :]
        if len(terms) > 1:
            power = f.r(power * power)
    return terms[0]


def split(f, x):
    k = (f.bits(x) - f.offset) >> f.mantissa
    return float(k), f.from_bits(f.bits(x) - (k << f.mantissa))


def log_parts(f, k, x):
    if f is Binary32:
        inner = f.fma(k, f.c("LN2_LOW"), x)
        return f.fma(k, f.c("LN2_HIGH"), f.fma(f.r(x * x), polynomial(f, x, f.c("LOG1P")), inner))
    s = x / (2 + x)
    z = s * s
    h = (0.5 * x) * x
    t = s * f.fma(2 * z, polynomial(f, z, f.c("ATANH")), h)
    return f.fma(k, f.c("LN2_HIGH"), x - (h - f.fma(k, f.c("LN2_LOW"), t)))


def log(f, x):
    k, m = split(f, x)
    return log_parts(f, k, f.r(m - 1))


def ratio(f, x, name):
    return f.r(polynomial(f, x, f.c(f"{name}_P")) / polynomial(f, x, f.c(f"{name}_Q")))


def middle(f, q):
    return f.r(q * ratio(f, f.fma(-q, q, f.c("EDGE_SQUARED")), "QUANTILE"))


def tail(p):
    r = math.sqrt(-log(Binary64, p))
    return -ratio(Binary64, r, "NEAR_TAIL" if r < 5 else "FAR_TAIL")


def quantile32(q, r):
    f = Binary32
    if abs(q) <= C["EDGE_32"]:
        v = f.fma(-q, q, C["EDGE_SQUARED_32"])
        return f.r(f.r(q * polynomial(f, v, C["QUANTILE_32_P"])) / polynomial(f, v, C["QUANTILE_32_Q"]))
    return math.copysign(ratio(f, r, "TAIL"), q)


def quantile(p, c):
    s = p if p < c else c
    y = middle(Binary64, s - 0.5) if s > C["TAIL_64"] else tail(s)
    return y if p < c else -y


def key_words(seed, *names):
    parts = [seed.to_bytes((seed.bit_length() + 7) // 8, "little"), *(name.encode() for name in names)]
    encoding = b"".join(len(part).to_bytes(4, "little") + part for part in parts)
    return hashlib.blake2b(encoding, digest_size=16, person=b"fastinit-v1").digest()


@functools.lru_cache(maxsize=100_000)
def block(digest, b):
    k0, k1, c2, c3 = struct.unpack("<4I", digest)
    c0, c1 = b % 2**32, b >> 32
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 % 2**32, (p0 >> 32) ^ c3 ^ k1, p0 % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c0, c1, c2, c3


def word(f, digest, e):
    if f is Binary32:
        return block(digest, e // 4)[e % 4]
    low, high = block(digest, e // 2)[2 * (e % 2) :][:2]
    return low + 2**32 * high


def complemented(f, w):
    """(upper, f): the word's distance to the nearer end, in (0, 1/2)."""
    upper = w >> f.half & 1
    n = (~w if upper else w) & (2 ** (f.half + 1) - 1)
    digits = 32 if f is Binary32 else 53
    return upper, f.fma(f.r(n >> (f.half + 1 - digits)), 2.0**-digits, 2.0 ** -(digits + 1))


@functools.lru_cache(maxsize=100_000)
def standard_pair(f, digest, j):
    a, b = word(f, digest, 2 * j), word(f, digest, 2 * j + 1)
    upper, near = complemented(f, a)
    k, m = split(f, f.r(1 - near) if upper else near)
    r = f.r(math.sqrt(f.r(-2 * log_parts(f, k, -near if upper and k == 0 else f.r(m - 1)))))
    size = f.half - 1
    low = b % 2**size
    t = f.r(f.r(low - (low >> (size - 1) << size)) * 2.0**-f.half)
    z = f.r(t * t)
    sine, cosine = f.r(t * polynomial(f, z, f.c("SINPI"))), f.fma(z, polynomial(f, z, f.c("COSPI")), 1.0)
    r = -r if b >> f.half & 1 else r
    pair = (sine, cosine) if b >> size & 1 else (cosine, sine)
    return tuple(f.r(r * part) for part in pair)


# --- laws: (format, dtype, digest, element) -> the value before it is stored ---

KINDS = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32, "float64": np.float64,
         "complex64": np.float32, "complex128": np.float64}  # fmt: skip


def next_to(x, towards):
    return float(np.nextafter(x, type(x)(towards)))


def constant(f, kind, digest, e, value):
    return float(kind(value))


def uniform(f, kind, digest, e, low, high):
    if f is Binary32:
        u = float(word(f, digest, e) >> 8) * 2.0**-24
    else:
        u = float(word(f, digest, e) >> 11) * 2.0**-53
    return min(f.fma(u, f.r(high - low), f.r(low)), next_to(kind(high), -math.inf))


def normal(f, kind, digest, e, mean, std):
    return f.fma(f.r(std), standard_pair(f, digest, e // 2)[e % 2], f.r(mean))


@functools.cache
def masses(mean, std, low, high):
    with mpmath.workdps(60):
        a, b = (mpmath.mpf(max(-1000.0, min(1000.0, (bound - mean) / std))) for bound in (low, high))
        below, above = mpmath.erfc(-a / mpmath.sqrt(2)) / 2, mpmath.erfc(b / mpmath.sqrt(2)) / 2
        other = mpmath.erfc(a / mpmath.sqrt(2)) / 2
        mass = other - above if a > 0 else 1 - below - above
        return float(below), float(above), float(mass), float((below - above) / 2)


def in_tail_units(below, above, mass):
    if below <= 0.5 >= above:
        return below, above, mass, 0.0
    below, above = (0.0, above) if below > 0.5 else (below, 0.0)
    e = math.frexp(below + above + mass)[1]
    return *(math.ldexp(value, -e) for value in (below, above, mass)), -2 * e * 0.6931471805599453


def truncated(f, kind, digest, e, mean, std, low, high):
    below, above, mass, centre = masses(mean, std, low, high)
    lowest, highest = kind(low), kind(high)
    lowest = next_to(lowest, math.inf) if float(lowest) < low else float(lowest)
    highest = next_to(highest, -math.inf) if float(highest) > high else float(highest)
    w = word(f, digest, e)
    if f is Binary32 and max(abs(below - 0.5), abs(above - 0.5)) <= 0.4782:
        d = f.fma(f.r(w - 2**31), 2.0**-32, 2.0**-33)
        x = f.fma(f.r(std), middle(f, f.fma(d, f.r(mass), f.r(centre))), f.r(mean))
        return min(max(x, lowest), highest)
    upper, near = complemented(f, w)
    if f is Binary32:
        q = f.fma(f.fma(f.r(w - 2**31), 2.0**-32, 2.0**-33), f.r(mass), f.r(centre))
        below, above, mass, shift = in_tail_units(below, above, mass)
        s = near if (q < 0) != upper else f.r(1 - near)
        k, m = split(f, f.fma(s, f.r(mass), f.r(below if q < 0 else above)))
        r = f.r(math.sqrt(f.fma(-2.0, log_parts(f, k, f.r(m - 1)), f.r(shift))))
        return min(max(f.fma(f.r(std), quantile32(q, r), f.r(mean)), lowest), highest)
    u, v = (1 - near, near) if upper else (near, 1 - near)
    z = quantile(Binary64.fma(u, mass, below), Binary64.fma(v, mass, above))
    return f.r(min(max(Binary64.fma(std, z, mean), lowest), highest))


def law_of(text):
    name, _, arguments = text.partition("(")
    made = {"constant": constant, "uniform": uniform, "normal": normal, "truncated": truncated}[name]
    return made, [float(argument) for argument in arguments.rstrip(")").split(",")]


def format_of(dtype):
    return Binary64 if dtype in ("float64", "complex128") else Binary32


def values(text, dtype, digest, indices):
    law, parameters = law_of(text)
    return [law(format_of(dtype), KINDS[dtype], digest, e, *parameters) for e in indices]


def hexed(xs, kind):
    array = np.array(xs, np.float64).astype(np.float32 if kind is not np.float64 else kind).astype(kind)
    return " ".join(x.tobytes()[::-1].hex() for x in array), array.tobytes()


KEYS = {label: key_words(int(seed), *filter(None, names.split(", "))) for label, seed, names, _ in rows("keys")[1]}


def test_the_keys():
    assert [line[3] for line in rows("keys")[1]] == [digest.hex() for digest in KEYS.values()]
    encoding = re.search(r"encoding   ([0-9a-f ]+)\n", PAGE)[1]
    digest = hashlib.blake2b(bytes.fromhex(encoding), digest_size=16, person=b"fastinit-v1").digest()
    assert digest == KEYS["B"]


def test_the_words():
    for label, number_of_block, *found in rows("words")[1]:
        assert [f"{w:08x}" for w in block(KEYS[label], int(number_of_block))] == found


@pytest.mark.parametrize("text", dict.fromkeys(line[0] for line in rows("elements")[1]))
def test_elements(text):
    for dtype, first, expected in (line[1:] for line in rows("elements")[1] if line[0] == text):
        indices = range(int(first), int(first) + 4)
        assert hexed(values(text, dtype, KEYS["B"], indices), KINDS[dtype])[0] == expected, (dtype, first)


@pytest.mark.parametrize("text", dict.fromkeys(line[0] for line in rows("digests")[1]))
def test_many_elements_written_and_added(text):
    for dtype, *expected in (line[1:] for line in rows("digests")[1] if line[0] == text):
        f, kind = format_of(dtype), KINDS[dtype]
        drawn = values(text, dtype, KEYS["C"], range(1001))
        added = [f.fma(f.r(0.3), x, 1.0) for x in drawn]
        found = [hashlib.blake2b(hexed(xs, kind)[1], digest_size=8).hexdigest() for xs in (drawn, added)]
        assert found == expected, dtype


def complex_values(text, dtype, names, indices):
    """(real, imaginary) pairs."""
    (name, numbers), kind = law_of(text), KINDS[dtype]
    if name is normal:
        radius, parts = math.inf, f"normal(0, {numbers[1] / math.sqrt(2)!r})"
    else:
        radius = math.sqrt(2) * ((numbers[1] / 2 - numbers[0] / 2) / math.sqrt(3))
        parts = f"uniform({-radius!r}, {radius!r})"
    for e in indices:
        for attempt in range(100):
            key = key_words(0, *names, *([f"redraw.{attempt}"] if attempt else []))
            pair = values(parts, dtype, key, (2 * e, 2 * e + 1))
            if pair[0] * pair[0] + pair[1] * pair[1] <= radius * radius:
                break
        yield from (float(kind(x)) for x in pair)


def test_sparse_and_complex():
    names = ["layers.0.weight"]
    sparse, others = [], []
    for line in rows("structured")[1]:
        (sparse if line[0].startswith("sparse") else others).append(line)
    weights = np.array(values("normal(0, 0.01)", "float32", KEYS["B"], range(15))).reshape(5, 3)
    ranks = values("uniform(0, 1)", "float64", key_words(0, *names, "sparse.zeros"), range(15))
    for column in range(3):
        order = sorted(range(5), key=lambda row, column=column: ranks[3 * row + column])
        weights[order[: math.ceil(0.5 * 5)], column] = 0
    assert [hexed(row, np.float32)[0] for row in weights] == [line[2] for line in sparse]
    assert len(others) == 4
    for text, dtype, expected in others:
        found = list(complex_values(text.partition(")")[0] + ")", dtype, names, range(6)))
        assert hexed(found, KINDS[dtype])[0] == expected
    drawn = [values("uniform(-1, 1)", "complex64", KEYS["B"], (2 * e, 2 * e + 1)) for e in range(6)]
    assert any(x * x + y * y > 1 for x, y in drawn), "the vectors show no element that is drawn again"


def chain(f, a, b, z=0.0):
    for x, y in zip(a, b, strict=True):
        z = f.fma(x, y, z)
    return z


def squares(x):
    x = [value * value for value in x]
    if len(x) <= 24:
        sums, whole = [0.0] * 4, len(x) - len(x) % 4
        for i, value in enumerate(x):
            sums[i % 4 if i < whole else 0] += value
        return (sums[0] + sums[1]) + (sums[2] + sums[3])
    sums, whole = [0.0] * 32, len(x) - len(x) % 128
    for first in range(0, whole, 128):
        for j in range(32):
            a, b, c, d = x[first + j : first + 128 : 32]
            sums[j] += (a + b) + (c + d)
    for i, value in enumerate(x[whole:]):
        sums[i % 32] += value
    for w in (16, 8, 4, 2, 1):
        for j in range(w):
            sums[j] += sums[w + j]
    return sums[0]


def vector(f, g, parts):
    """The parts of v, tau and those of d."""
    head = g[:parts]
    if not any(head):
        head = [1.0, 0.0][:parts]
    s = sum(part * part for part in head)
    h, n = math.sqrt(s), math.sqrt(s + squares(g[parts:]))
    divisor = math.copysign(h + n, head[0]) if parts == 1 else h + n
    v = [1.0, 0.0][:parts] + [f.r(x / divisor) for x in g[parts:]]
    return v, f.r((h + n) / n), [f.r(-(part / h)) for part in head]


def factor(f, r, tau):
    """The columns of N, as far as they are not zero."""
    columns = []
    for j, row in enumerate(r):
        s = [chain(f, other[k:], row[k:]) for k, other in enumerate(r[:j])]  # a row begins with as many zeros
        above = [chain(f, [columns[k][i] for k in range(i, j)], s[i:]) for i in range(j)]
        columns.append([f.r(x * -tau[j]) for x in above] + [-tau[j]])
    return columns


def reflections(f, digest, tall, short, parts):
    """The vectors, their factors tau, and the parts of d."""
    drawn = values("normal(0, 1)", f"float{f.name}", digest, range(parts * tall * short))
    vectors, taus, turns = [], [], []
    for k in range(short):
        row = drawn[k * parts * tall :][parts * k : parts * tall]
        v, tau, d = vector(f, row, parts)
        vectors.append(v)
        if parts == 2:
            vectors.append([x for j in range(0, len(v), 2) for x in (-v[j + 1], v[j])])
        taus += [tau] * parts
        turns.append(d)
    return vectors, taus, turns


def orthogonal(f, digest, tall, short, parts):
    """The columns of Q, part by part."""
    vectors, taus, turns = reflections(f, digest, tall, short, parts)
    columns = [[0.0] * parts * k + d + [0.0] * parts * (tall - k - 1) for k, d in enumerate(turns)]
    for first in reversed(range(0, parts * short, 64)):
        some, tau = vectors[first : first + 64], taus[first : first + 64]
        width = parts * tall - first
        r = [[0.0] * (width - len(v)) + v for v in some]
        n = factor(f, r, tau)
        for k in range(first // parts, short):
            q = columns[k][first:]
            w = [chain(f, row[i:], q[i:]) for i, row in enumerate(r)]
            y = [chain(f, [n[j][i] for j in range(i, len(r))], w[i:]) for i in range(len(r))]
            upper = [min(j + 1, len(r)) for j in range(width)]  # further rows have zeros there
            columns[k][first:] = [
                chain(f, [row[j] for row in r[: upper[j]]], y[: upper[j]], x) for j, x in enumerate(q)
            ]
    return columns


@pytest.mark.parametrize("line", rows("orthogonal")[1], ids=lambda line: " ".join(line[:2]))
def test_orthogonal_matrices(line):
    (out, inputs), dtype, gain = map(int, line[0].split(" x ")), line[1], float(line[2])
    f, parts = format_of(dtype), 2 if dtype.startswith("complex") else 1
    columns = np.array(orthogonal(f, KEYS["B"], max(out, inputs), min(out, inputs), parts))
    columns = columns.reshape(min(out, inputs), max(out, inputs), parts)
    matrix = columns.transpose(1, 0, 2) if out >= inputs else columns
    text, data = hexed([f.r(f.r(gain) * x) for x in matrix.ravel().tolist()], KINDS[dtype])
    assert line[3] == (text if out * inputs <= 9 else hashlib.blake2b(data, digest_size=8).hexdigest())


def test_the_tables_are_those_of_the_library():
    spec = importlib.util.spec_from_file_location("stream_page", ROOT / "scripts" / "stream_page.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.updated(PAGE) == PAGE
