"""The exponential and what is made of it in units in the last place, against mpmath."""

import mpmath as mp
import numpy as np
import pytest
from pairs import pairs
from test_elementary import around, over, ulps

from fastinit.kernels import exponential as e
from scripts import coefficients

mp.mp.dps = 40
GENERATOR = np.random.default_rng(21)
POINTS = 600
KINDS = {"float32": np.float32, "float64": np.float64}
# Where e^x is normal, and where it is more than zero; how far erfc and the normal tail are normal.
NORMAL = {"float32": (-87.3, 88.7), "float64": (-708.3, 709.7)}
POSITIVE = {"float32": -103.2, "float64": -744.4}
FAR = {"float32": (9.1, 12.9), "float64": (26.5, 37.5)}

each_dtype = pytest.mark.parametrize("dtype", KINDS)


def sample(dtype, low, high, *edges):
    """Points everywhere in [low, high], about 0, and of every size down to the subnormals."""
    kind = KINDS[dtype]
    info = np.finfo(kind)
    tiny = 10 ** GENERATOR.uniform(np.log10(info.tiny) - 5, 0, 400)
    about = GENERATOR.uniform(-2.5, 2.5, POINTS)
    edge = around(kind, 0, 0.5, 1, 1 / 3, np.log(2) / 2, info.tiny, *edges)
    x = np.concatenate([GENERATOR.uniform(low, high, POINTS), about, tiny, -tiny, edge, -edge]).astype(kind)
    return x[(x >= low) & (x <= high)]


def worst(dtype, name, exact, x, which=None):
    """The largest error in ulps of a function of `exponential`."""
    return ulps(over(e.NAMES[dtype][name], x, which), [exact(mp.mpf(float(v))) for v in x])


@each_dtype
def test_exp(dtype):
    low, high = NORMAL[dtype]
    assert worst(dtype, "exp", mp.exp, sample(dtype, low, high, low, high)) < 1
    assert worst(dtype, "exp", mp.exp, sample(dtype, POSITIVE[dtype], low)) <= 1  # subnormal: one more rounding


@each_dtype
def test_exp_beyond_its_range(dtype):
    kind = KINDS[dtype]
    info = np.finfo(kind)

    def around_log(value):
        """The floats just below and just above the logarithm of a value."""
        exact = mp.log(value)
        near = kind(float(exact))
        other = np.nextafter(near, kind(np.inf if mp.mpf(float(near)) < exact else -np.inf))
        return sorted([near, other])

    def found(*x):
        return over(e.NAMES[dtype]["exp"], np.array(x, kind)).tolist()

    last, beyond = around_log(mp.mpf(float(info.max)))
    assert found(beyond, 1e4, info.max, np.inf) == [np.inf] * 4
    assert found(last)[0] < np.inf
    gone, first = around_log(mp.mpf(float(info.smallest_subnormal)) / 2)
    assert found(gone, -1e4, -info.max, -np.inf) == [0] * 4
    assert found(first) == [info.smallest_subnormal]


@each_dtype
def test_expm1(dtype):
    assert worst(dtype, "expm1", mp.expm1, sample(dtype, -70, 0)) < 1.5


@each_dtype
def test_tanh(dtype):
    assert worst(dtype, "tanh", mp.tanh, sample(dtype, -22, 22)) < 3


@each_dtype
def test_sigmoid(dtype):
    assert worst(dtype, "sigmoid", lambda x: 1 / (1 + mp.exp(-x)), sample(dtype, POSITIVE[dtype], 40)) < 3


@each_dtype
def test_softplus(dtype):
    def exact(x):
        return max(x, mp.mpf(0)) + mp.log1p(mp.exp(-abs(x)))

    assert worst(dtype, "softplus", exact, sample(dtype, POSITIVE[dtype], 40, np.log(3))) < 3


@each_dtype
def test_scaled_erfc(dtype):
    x = sample(dtype, 0.5, FAR[dtype][0])
    assert worst(dtype, "scaled_erfc", lambda x: mp.exp(x * x) * mp.erfc(x), x) < 6


@each_dtype
def test_the_normal_tail(dtype):
    far = FAR[dtype][1]
    x = sample(dtype, -far, far, np.sqrt(0.5))
    assert worst(dtype, "normal_tail", lambda z: mp.erfc(abs(z) / mp.sqrt(2)) / 2, x, 0) < 7
    assert worst(dtype, "normal_tail", lambda z: mp.exp(-z * z / 2), x, 1) < 2


# At inf, -inf, NaN, 0, -0, 1e4, -1e4, the largest float and its negative.
ENDS = {
    "exp": (np.inf, 0, np.nan, 1, 1, np.inf, 0, np.inf, 0),
    "tanh": (1, -1, np.nan, 0, -0.0, 1, -1, 1, -1),
    "sigmoid": (1, 0, np.nan, 0.5, 0.5, 1, 0, 1, 0),
    "softplus": (np.inf, 0, np.nan, np.log(2), np.log(2), 1e4, 0, None, 0),
}


@pairs(dtype=list(KINDS), name=list(ENDS))
def test_the_ends_of_the_range(name, dtype):
    kind = KINDS[dtype]
    largest = np.finfo(kind).max
    x = np.array([np.inf, -np.inf, np.nan, 0, -0.0, 1e4, -1e4, largest, -largest], kind)
    expected = np.array([largest if value is None else value for value in ENDS[name]], kind)
    found = over(e.NAMES[dtype][name], x)
    np.testing.assert_array_equal(found, expected)
    known = ~np.isnan(found)
    assert np.signbit(found[known]).tolist() == np.signbit(expected[known]).tolist()


@each_dtype
def test_expm1_at_the_left_end(dtype):
    x = np.array([-np.inf, -1e4, -64, np.nan], KINDS[dtype])
    np.testing.assert_array_equal(over(e.NAMES[dtype]["expm1"], x), [-1, -1, -1, np.nan])


def test_the_shift_is_that_of_the_script():
    assert coefficients.SHIFT == e.ERFCX_SHIFT
