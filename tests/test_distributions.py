"""The elementwise laws: against plain NumPy, element by element, and as distributions, with proof of power."""

import math

import mpmath
import numpy as np
import pytest
import reference
from scipy import stats

import fastinit as fi
from fastinit._runtime.arrays import DTYPES
from fastinit.schemes._families import TRUNCATION_STD

KEY = fi.Key(7) / "w"
WORDS = reference.key_words(7, "w")
N = 1 << 21
P_VALUE = 1e-6  # a right law fails a test once in a million seeds; the seeds are fixed
DIGITS = {"float16": 10, "bfloat16": 7, "float32": 23, "float64": 52}


def drawn(law, dtype="float32", size=N, seed=KEY):
    return fi.fill(np.empty(size, DTYPES[dtype]), law, seed=seed)


def close(found, wanted, dtype, digits_lost):
    """Equal but for the last digits, relative to the largest of the neighbours at hand."""
    tolerance = 2.0 ** (digits_lost - DIGITS[dtype])
    np.testing.assert_allclose(found.astype(np.float64), wanted, rtol=tolerance, atol=tolerance / 4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_uniform_is_the_reference(dtype):
    for low, high in ((0.0, 1.0), (-0.5, 0.25), (3.0, 4.0)):
        wanted = reference.uniform(0, 10_001, WORDS, low, high, dtype)
        np.testing.assert_array_equal(drawn(fi.Uniform(low, high), dtype, 10_001), wanted)


@pytest.mark.parametrize("dtype", DTYPES)
def test_normal_is_the_reference(dtype):
    wanted = reference.standard_normal(0, 10_001, WORDS, wide=dtype == "float64")
    close(drawn(fi.Normal(), dtype, 10_001), wanted, dtype, 2)
    close(drawn(fi.Normal(2.0, 0.5), dtype, 10_001), 2 + 0.5 * wanted, dtype, 3)


@pytest.mark.parametrize(("a", "b"), [(-2, 2), (-1, 0.5), (-3, 3), (-100, 100), (-8, 1), (5, 30), (-30, -5), (20, 21)])
def test_truncated_normal_is_the_reference(a, b):
    for dtype in DTYPES:
        wanted = reference.truncated_normal(0, 10_001, WORDS, a, b, wide=dtype == "float64")
        found = drawn(fi.TruncatedNormal(0, 1, a, b), dtype, 10_001)
        close(found, np.clip(wanted, a, b), dtype, 4 if dtype != "float64" else 6)
        assert a <= found.min() <= found.max() <= b


BOUNDS = [(-0.1, 0.1), (-0.5, 3), (-3, 3), (-8.6, 8.6), (-8, 1), (-1, 2.5), (0, 9), (0.1, 30), (0.5, 2), (1, 1.001),
          (2, 2.5), (2.5, 9), (5, 30), (-30, -5), (10, 10.001), (20, 21), (30, 36), (-36.2, -35.9)]  # fmt: skip


@pytest.mark.parametrize(("a", "b"), BOUNDS)
def test_truncated_float32_values_have_their_digits(a, b):
    """Against 30 digits: 7 ulps of z, and of 1/4 where z is smaller, for z there is a difference of masses."""
    mpmath.mp.dps = 30
    low, high = mpmath.ncdf(a), mpmath.ncdf(b)
    above = mpmath.ncdf(-b)
    mass = mpmath.ncdf(-a) - above if a > 0 else high - low
    words = reference.words(0, 200, WORDS, wide=False)
    found = drawn(fi.TruncatedNormal(0, 1, a, b), "float32", 200)
    for word, z in zip(words.tolist(), found.astype(np.float64).tolist(), strict=True):
        u = (mpmath.mpf(word) + 0.5) / 2**32
        p, q = low + u * mass, above + (1 - u) * mass
        # One step of Newton's from the value that was found is exact to the square of its error.
        exact = z + (p - mpmath.ncdf(z)) / mpmath.npdf(z) if p < q else z - (q - mpmath.ncdf(-z)) / mpmath.npdf(z)
        assert abs(z - exact) < 7 * np.spacing(np.float32(max(abs(z), 0.25)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_add_is_one_fused_multiply_add(dtype):
    before = drawn(fi.Uniform(-1, 1), dtype, 10_001, seed=1)
    wide = np.float64 if dtype == "float64" else np.float32
    z = drawn(fi.Normal(), np.dtype(wide).name, 10_001).astype(np.longdouble)
    wanted = (before.astype(np.longdouble) + np.longdouble(wide(0.3)) * z).astype(wide).astype(DTYPES[dtype])
    found = fi.add(before.copy(), fi.Normal(), seed=KEY, scale=0.3)
    # longdouble holds the product of two float64 in 64 of 106 digits: once in a thousand it rounds the other way.
    assert np.count_nonzero(found != wanted) <= (40 if dtype == "float64" else 0)
    np.testing.assert_allclose(found.astype(np.float64), wanted.astype(np.float64), rtol=2.0 ** -DIGITS[dtype])


# --- as distributions ---

# How many draws, and the relative error of a scale that as many show with a p-value below P_VALUE. The largest distance
# between N(0, 1) and N(0, 1 + e) is 0.242 e, and n distances squared have to be above 7.3: 1.3e6 draws for 1%, 3.5e4
# for 6%.
SAMPLES = [
    pytest.param(1 << 16, 0.06, id="6%"),
    pytest.param(N, 0.01, id="1%", marks=pytest.mark.slow),  # 25 s, most of them in SciPy's truncnorm.cdf
]

LAWS = {
    "uniform": (fi.Uniform(-1, 3), stats.uniform(-1, 4)),
    "normal": (fi.Normal(1, 2), stats.norm(1, 2)),
    "narrow": (fi.TruncatedNormal(0, 1, -2, 2), stats.truncnorm(-2, 2)),
    "wide": (fi.TruncatedNormal(1, 2, -7, 5), stats.truncnorm(-4, 2, 1, 2)),
    "tail": (fi.TruncatedNormal(0, 1, 5, 30), stats.truncnorm(5, 30)),
}


def ks(x, law):
    return stats.kstest(x.astype(np.float64), law.cdf).pvalue


@pytest.mark.parametrize(("size", "error"), SAMPLES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LAWS)
def test_kolmogorov_smirnov(name, dtype, size, error):
    law, exact = LAWS[name]
    x = drawn(law, dtype, size)
    assert ks(x, exact) > P_VALUE
    centre = float(exact.mean())
    assert ks(centre + (x - centre) * (1 + error), exact) < P_VALUE  # a scale that is so far off is found


def cells(kind, exact):
    """All values of a 16-bit dtype with the exact probability that a float32 draw rounds to each, the rare ones pooled
    at the ends."""
    with np.errstate(invalid="ignore"):  # the patterns that are NaN
        values = np.arange(1 << 16, dtype=np.uint16).view(kind).astype(np.float64)
    values = np.unique(values[np.isfinite(values)])
    edges = np.concatenate([[-np.inf], (values[1:] + values[:-1]) / 2, [np.inf]])
    return values, np.diff(exact.cdf(edges))


def chi_square(x, values, probability):
    """The p-value of the counts of a 16-bit sample; neighbouring cells are pooled until 500 draws are expected."""
    counts = np.bincount(np.searchsorted(values, x.astype(np.float64)), minlength=values.size)
    pool = np.floor(np.cumsum(probability * x.size) / 500).astype(int)
    counts, expected = np.bincount(pool, counts), np.bincount(pool, probability * x.size)
    keep = expected > 100
    assert expected[~keep].sum() < 1e-3 * x.size
    return stats.chi2.sf(((counts - expected)[keep] ** 2 / expected[keep]).sum(), keep.sum() - 1)


@pytest.mark.parametrize(("size", "error"), SAMPLES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(("law", "exact"), [(fi.Normal(), stats.norm()), (fi.Normal(0.1, 0.02), stats.norm(0.1, 0.02))])
def test_cells_of_16_bit_types(dtype, law, exact, size, error):
    found = cells(DTYPES[dtype].type, exact)
    assert chi_square(drawn(law, dtype, 2 * size), *found) > P_VALUE
    wrong = fi.Normal(law.mean, law.std * (1 + error))
    assert chi_square(drawn(wrong, dtype, 2 * size), *found) < P_VALUE


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_cells_of_a_16_bit_uniform(dtype):
    """The topmost value takes the draws that would have rounded to 1."""
    x = drawn(fi.Uniform(0, 1), dtype)
    values, probability = cells(x.dtype.type, stats.uniform())
    top = np.searchsorted(values, 1.0)
    probability[top - 1] += probability[top]
    probability[top] = 0
    assert chi_square(x, values, probability) > P_VALUE
    assert x.max() < 1
    assert chi_square(drawn(fi.Uniform(0, 0.99), dtype), values, probability) < P_VALUE


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tails_to_5_sigma(dtype):
    n, parts, tails = 1 << 24, 4, [(side, sigma) for side in (-1, 1) for sigma in (1, 2, 3, 4, 5)]
    counts = np.zeros(len(tails), int)
    for part in range(parts):
        x = drawn(fi.Normal(), dtype, n // parts, seed=KEY / str(part))
        counts += [np.count_nonzero(side * x > sigma) for side, sigma in tails]
    for (_, sigma), count in zip(tails, counts, strict=True):
        assert stats.binomtest(int(count), n, stats.norm.sf(sigma)).pvalue > P_VALUE
        if sigma <= 4:  # at 5 sigma there are 5 draws in 2^24, too few to see 1%
            shifted = stats.binom.isf(P_VALUE, n, stats.norm.sf(sigma))
            assert n * stats.norm.sf(sigma / 1.2) > shifted


def test_neighbours_are_independent():
    x = drawn(fi.Normal(), size=N).astype(np.float64)
    first, second = x[::2], x[1::2]
    bound = stats.norm.isf(P_VALUE) / math.sqrt(N / 2)
    for a, b in ((first, second), (first**2, second**2), (np.abs(first), np.abs(second)), (x[1:-1:2], x[2::2])):
        assert abs(np.corrcoef(a, b)[0, 1]) < bound
    assert abs(np.corrcoef(first, second + 0.02 * first)[0, 1]) > bound


@pytest.mark.parametrize("other", [fi.Key(8) / "w", fi.Key(7), fi.Key(7) / "v", fi.Key(7) / "w" / "w"])
def test_keys_are_independent(other):
    a, b = drawn(fi.Normal()), drawn(fi.Normal(), seed=other)
    assert abs(np.corrcoef(a, b)[0, 1]) < stats.norm.isf(P_VALUE) / math.sqrt(N)


@pytest.mark.parametrize("dtype", DTYPES)
def test_uniform_never_returns_high(dtype):
    kind = DTYPES[dtype].type
    for low, high in ((0, 1), (-1, 1), (0.99, 1), (-1, -0.5), (0, 0.1), (1, 1.02)):
        x = drawn(fi.Uniform(low, high), dtype, 1 << 18)
        below = np.nextafter(kind(high), kind(-np.inf))
        assert x.max() <= below < kind(high)
        if DIGITS[dtype] <= 10:
            assert (x == below).any()  # a draw that had rounded to high is the one below


# --- moments and parameters ---


@pytest.mark.parametrize("name", LAWS)
def test_moments_are_those_of_scipy_and_of_the_sample(name):
    law, exact = LAWS[name]
    assert law.mean == pytest.approx(exact.mean(), rel=1e-9, abs=1e-12)
    assert law.std == pytest.approx(exact.std(), rel=1e-6)  # SciPy's own loses digits in the tail
    x = drawn(law, "float64")
    assert abs(x.mean() - law.mean) < 6 * law.std / math.sqrt(N)
    assert x.std() == pytest.approx(law.std, rel=0.02 if name == "tail" else 0.005)
    assert (law.low is None) == (name == "normal")


def test_the_truncation_constant():
    assert pytest.approx(stats.truncnorm(-2, 2).std(), rel=1e-14) == TRUNCATION_STD
    assert fi.TruncatedNormal(0, 1, -2, 2).std == TRUNCATION_STD


def test_constant_moments():
    law = fi.Constant(-2)
    assert (law.mean, law.std, law.low, law.high) == (-2.0, 0.0, -2.0, -2.0)


@pytest.mark.parametrize(
    ("law", "known"),
    [
        (fi.Uniform(-0.5, 2.0), stats.uniform(-0.5, 2.5)),
        (fi.Normal(1.0, 0.3), stats.norm(1.0, 0.3)),
        (fi.TruncatedNormal(1.0, 2.0, 0.5, 6.0), stats.truncnorm(-0.25, 2.5, 1.0, 2.0)),
    ],
)
def test_densities_are_scipys(law, known):
    x = np.linspace(-3.0, 7.0, 1002)  # not at the bounds
    np.testing.assert_allclose(law.density(x), known.pdf(x), rtol=1e-12)


@pytest.mark.parametrize(
    "law",
    [
        fi.Constant(1.0),
        fi.Uniform(2.0, 2.0),
        fi.Normal(1.0, 0.0),
        fi.TruncatedNormal(0.0, 1.0, 1.0, 1.0),
        fi.Orthogonal(),
    ],
)
def test_laws_of_one_value_and_structured_ones_have_no_density(law):
    with pytest.raises(ValueError, match="has no density"):
        law.density(np.zeros(3))
