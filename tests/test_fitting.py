"""Laws found again in draws of them, and refused in numbers of other laws; distances against SciPy's."""

import itertools
import math

import ml_dtypes
import numpy as np
import pytest
import scipy.stats
from numpy.testing import assert_allclose

import fastinit as fi
from fastinit._runtime.arrays import DTYPES
from fastinit.stats._fitting import (
    ALPHA,
    FEWEST,
    Sample,
    boundaries,
    cdf,
    distance,
    fit,
    reaches,
    rounding,
    same_moments,
)
from fastinit.stats._summary import chunks, merged

N = 40_000
LAWS = {
    "normal": fi.Normal(0, 0.02),
    "normal apart": fi.Normal(0.3, 0.02),
    "wide": fi.Normal(-2, 50),
    "uniform": fi.Uniform(-0.03, 0.03),
    "unit": fi.Uniform(0, 1),
    "narrow": fi.TruncatedNormal(0, 0.02, -0.04, 0.04),
    "narrower": fi.TruncatedNormal.in_sigma(0, 1, -1, 1),
    "one-sided": fi.TruncatedNormal(0, 1, 0, 50),
    "lopsided": fi.TruncatedNormal(0.5, 1, -0.5, 4),
    "constant": fi.Constant(0.3),
    "zeros": fi.Constant(0),
}
CUT = [name for name, law in LAWS.items() if isinstance(law, fi.TruncatedNormal)]


def drawn(law, dtype, seed=0, size=N):
    return fi.fill(np.empty(size, DTYPES[dtype]), law, seed=seed)


def fitted(x, dtype=None, step=7):
    dtype = x.dtype.name if dtype is None else dtype
    return fit(Sample.of(x[::step], dtype), fi.summarize(x), dtype)


@pytest.mark.parametrize("name", LAWS)
def test_our_draws_are_recognised(name):
    for dtype, seed in itertools.product(DTYPES, range(4)):
        check_recognised(LAWS[name], dtype, seed)


def check_recognised(law, dtype, seed):
    x = drawn(law, dtype, seed)
    found = fitted(x)
    assert type(found.distribution) is type(law)
    assert found.p > ALPHA
    near, step = found.distribution, float(ml_dtypes.finfo(dtype).eps)  # of bfloat16: a hundredth
    assert_allclose([near.mean, near.std], [law.mean, law.std], rtol=0.02, atol=0.02 * law.std + step * 1e-3)
    if isinstance(law, fi.Uniform):
        assert_allclose([near.low, near.high], [law.low, law.high], rtol=2 * step, atol=3e-3 * law.std)
    ks, p = distance(Sample.of(x[::7], dtype), law, dtype)
    assert p > ALPHA
    assert ks < 0.05
    summary = fi.summarize(x)
    assert reaches(summary, law, dtype)
    assert same_moments(summary, law, rounding(law, dtype)) == (True, True)


@pytest.mark.parametrize("name", CUT)
def test_a_cut_normal_law_is_found_before_its_cut(name):
    law = LAWS[name]
    for dtype in ("float32", "float64"):
        found = fitted(drawn(law, dtype, 9, 1 << 19), step=101).distribution
        assert_allclose([found.normal.mean, found.normal.std], [law.normal.mean, law.normal.std], rtol=0.03, atol=0.03)
        assert_allclose([found.mean, found.std], [law.mean, law.std], rtol=5e-3, atol=5e-3 * law.std)
        assert found.low == pytest.approx(law.low, abs=1e-3)


@pytest.mark.parametrize(
    "scheme", ["he_normal", "xavier_uniform", "lecun_normal", "truncated_normal", "kaiming_uniform"]
)
def test_the_schemes_are_recognised(scheme):
    law = fi.distribution(scheme, (300, 200))
    found = fitted(drawn(law, "bfloat16", 3))
    assert type(found.distribution) is type(law.simplest if isinstance(law, fi.TruncatedNormal) else law)


def test_weights_scaled_by_lsuv_stay_normal():
    """Whatever looks at the data and scales, the law stays: of orthogonal matrices, nearly normal for large ones."""
    x = 1.7 * drawn(fi.Normal(), "float32", 5)
    assert_allclose(fitted(x).distribution.std, 1.7, rtol=0.02)


OTHERS = {
    "Student t": lambda rng: rng.standard_t(5, N),
    "Laplace": lambda rng: rng.laplace(size=N),
    "mixture": lambda rng: np.where(rng.random(N) < 0.9, 1, 4) * rng.normal(size=N),
    "two normals": lambda rng: rng.normal(size=N) + 3 * rng.choice([-1, 1], N),
    "log-normal": lambda rng: rng.lognormal(size=N),
    "half zeros": lambda rng: np.where(rng.random(N) < 0.5, 0, rng.normal(size=N)),
    "two values": lambda rng: rng.integers(0, 2, N) * 1.0,
    "exponential": lambda rng: rng.exponential(size=N),
    "one outlier": lambda rng: np.append(rng.normal(size=N - 1), 30.0),
    "triangle": lambda rng: rng.triangular(-1, 0, 1, N),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_laws_are_refused(name):
    for dtype, seed in itertools.product(DTYPES, range(3)):
        x = OTHERS[name](np.random.default_rng(seed)).astype(DTYPES[dtype])
        found = fitted(x, step=1)
        assert found.distribution is None or name in ("exponential", "triangle")
        if name in ("exponential", "triangle"):  # a cut normal law may have nearly these shapes; never a simple one
            assert found.distribution is None or isinstance(found.distribution, fi.TruncatedNormal)


@pytest.mark.parametrize("name", LAWS)
def test_a_wrong_plan_is_seen(name):
    for dtype in DTYPES:
        sample = Sample.of(drawn(LAWS[name], dtype), dtype)
        for other, law in LAWS.items():
            if other != name:
                assert distance(sample, law, dtype)[1] < ALPHA


@pytest.mark.parametrize("factor", [0.97, 1.03])
def test_another_std_is_seen_by_the_moments(factor):
    found = fi.summarize(drawn(fi.Normal(0, 0.02 * factor), "bfloat16"))
    assert same_moments(found, fi.Normal(0, 0.02), rounding(fi.Normal(0, 0.02), "bfloat16")) == (True, False)


def test_a_cut_at_four_sigma_is_seen_by_the_extremes():
    x = drawn(fi.TruncatedNormal.in_sigma(0, 1, -4, 4), "float32", size=1 << 22)
    found = fi.summarize(x)
    assert distance(Sample.of(x[::999], "float32"), fi.Normal(), "float32")[1] > ALPHA
    assert not reaches(found, fi.Normal(), "float32")
    assert reaches(found, fi.TruncatedNormal.in_sigma(0, 1, -4, 4), "float32")


@pytest.mark.parametrize("size", [100, 1000, N])
def test_distances_are_those_of_scipy(size):
    for law in (LAWS["normal"], LAWS["uniform"], LAWS["narrow"]):
        x = drawn(law, "float64", 1, size)
        ks, p = distance(Sample.of(x, "float64"), law, "float64")
        expected = scipy.stats.kstest(x, lambda value, law=law: cdf(law, value))
        assert_allclose(ks, expected.statistic, rtol=1e-9)
        assert_allclose(p, expected.pvalue, rtol=0.03, atol=1e-3)


@pytest.mark.parametrize(
    ("law", "known"),
    [
        (fi.Normal(1, 2), scipy.stats.norm(1, 2)),
        (fi.Uniform(-1, 3), scipy.stats.uniform(-1, 4)),
        (fi.TruncatedNormal(1, 2, -1, 4), scipy.stats.truncnorm(-1, 1.5, 1, 2)),
        (fi.TruncatedNormal(0, 1, 6, 8), scipy.stats.truncnorm(6, 8)),
        (fi.TruncatedNormal(0, 1, -8, -6), scipy.stats.truncnorm(-8, -6)),
    ],
    ids=["normal", "uniform", "truncated", "upper tail", "lower tail"],
)
def test_shares_are_those_of_scipy(law, known):
    x = np.linspace(-9, 9, 1001)
    assert_allclose(cdf(law, x), known.cdf(x), rtol=1e-8, atol=1e-13)


def test_shares_of_laws_of_one_value():
    x = np.array([-1.0, 0.5, 2.0])
    for law in (fi.Constant(0.5), fi.Uniform(0.5, 0.5), fi.Normal(0.5, 0), fi.TruncatedNormal(0.5, 0, 0, 1)):
        assert cdf(law, x).tolist() == [0, 1, 1]
    assert cdf(fi.Uniform(-1.7e308, 1.7e308), x * 5e307).tolist() == pytest.approx([1.2 / 3.4, 1.95 / 3.4, 2.7 / 3.4])
    with pytest.raises(TypeError, match=r"law must be an elementwise one\. Received: Orthogonal"):
        cdf(fi.Orthogonal(), x)


def test_rounding_makes_no_distance():
    """The steps of bfloat16 are far larger than the distance that this many numbers show."""
    x = drawn(fi.Normal(1, 0.01), "bfloat16", size=1 << 18)
    sample = Sample.of(x, "bfloat16")
    assert len(sample.values) < 30
    ks, p = distance(sample, fi.Normal(1, 0.01), "bfloat16")
    assert (ks, p) < (0.003, 1.1)
    assert p > 0.01
    assert scipy.stats.kstest(x.astype(float), scipy.stats.norm(1, 0.01).cdf).statistic > 0.1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_boundaries_are_where_rounding_changes(dtype):
    values = np.array([-3.0, -1.0, 0.0, 1e-3, 1.0, 2.0]).astype(DTYPES[dtype]).astype(float)
    lower, upper = boundaries(values, dtype) if dtype != "float32" else boundaries(values[4:5], dtype)
    own = values if dtype != "float32" else values[4:5]
    for value, low, high in zip(own, lower, upper, strict=True):
        assert low < value < high
        inside = np.array([low + (value - low) * 1e-3, high - (high - value) * 1e-3])
        assert (inside.astype(DTYPES[dtype]).astype(float) == value).all()
        outside = np.array([low - (value - low) * 1e-3, high + (high - value) * 1e-3])
        assert (outside.astype(DTYPES[dtype]).astype(float) != value).all()


@pytest.mark.parametrize("size", [0, 1, 2, FEWEST - 1])
def test_few_numbers_are_of_no_law(size):
    found = fitted(drawn(fi.Normal(), "float32", size=size), step=1)
    assert found.distribution is None
    assert math.isnan(found.ks)


def test_two_equal_numbers_are_constant_and_one_is_nothing():
    assert fitted(np.full(2, 3.0), step=1).distribution == fi.Constant(3.0)
    assert fitted(np.full(1, 3.0), step=1).distribution is None


def test_what_is_not_finite_is_left_out():
    x = drawn(fi.Normal(0, 0.02), "float32", 2)
    x[::50] = np.nan
    x[1::50] = np.inf
    assert_allclose(fitted(x, step=3).distribution.std, 0.02, rtol=0.03)
    assert fitted(np.full(500, np.nan), step=1).distribution is None


@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1e30, 1e38])
def test_the_ends_of_float32(scale):
    x = (drawn(fi.Uniform(-1, 1), "float64", 1) * scale).astype(np.float32)
    assert isinstance(fitted(x).distribution, fi.Uniform)


@pytest.mark.parametrize("scale", [1.7e308, 1e200, 1e-200, 1e-300, 1e-310])
def test_the_ends_of_float64(scale):
    x = drawn(fi.Uniform(-1, 1), "float64", 1) * scale
    assert fitted(x).distribution == fi.Uniform(float(x.min()), float(x.max()))
    x = drawn(fi.Normal(0.5, 0.1), "float64", 1) * scale
    law = fitted(x).distribution
    assert_allclose([law.mean / scale, law.std / scale], [0.5, 0.1], rtol=0.01)
    law = fi.Normal(0.5 * scale, 0.1 * scale)
    assert same_moments(fi.summarize(x), law, rounding(law, "float64")) == (True, True)


def test_shares_at_the_ends_of_float64():
    for scale in (1.0, 1.7e308, 2.0**-1070):
        x = scale * np.array([-1.0, -0.5, 0.5, 1.0])
        assert_allclose(cdf(fi.Normal(-scale / 2, scale), x), scipy.stats.norm.cdf([-0.5, 0, 1, 1.5]), rtol=1e-12)
        assert_allclose(cdf(fi.Uniform(-scale, scale), x), [0, 0.25, 0.75, 1])
        assert_allclose(cdf(fi.Uniform(0, scale), x), [0, 0, 0.5, 1])
    assert cdf(fi.Uniform(0, 5e-324), np.array([0, 5e-324, 1e308])).tolist() == [0, 1, 1]
    assert cdf(fi.Normal(0, 5e-324), np.array([-1e308, 0, 1e308])).tolist() == [0, 0.5, 1]


@pytest.mark.parametrize("dtype", DTYPES)
def test_quick_moments_serve_as_well(dtype):
    x = drawn(LAWS["narrow"], dtype, 1)
    found = merged(chunks(x, quick=True), x.size)
    quick, slow = fit(Sample.of(x, dtype), found, dtype), fitted(x, step=1)
    assert_allclose(quick.distribution.normal.std, slow.distribution.normal.std, rtol=1e-4)
