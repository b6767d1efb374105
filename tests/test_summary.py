"""`summarize` against NumPy in float64."""

import itertools
import math

import ml_dtypes
import numpy as np
import pytest
from numpy.testing import assert_allclose

import fastinit as fi
from fastinit._runtime.arrays import DTYPES
from fastinit._runtime.threads import CHUNK

SIZES = (1, 2, 15, 16, 17, 1000, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5, 1 << 17)


def assert_agrees(found, x):
    wide = np.asarray(x, np.float64)
    finite = wide[np.isfinite(wide)]
    assert found.count == x.size
    assert found.nonfinite == x.size - finite.size
    assert found.zeros == np.count_nonzero(wide == 0)
    assert (found.min, found.max) == (finite.min(), finite.max())
    # NumPy sums pairwise, we by chunks: both are within a few roundings of the exact sum.
    scale = np.abs(finite).max()
    assert_allclose(found.mean, finite.mean(), rtol=1e-12, atol=1e-14 * scale)
    assert_allclose(found.std, finite.std(), rtol=1e-12, atol=1e-14 * scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_agrees_with_numpy(dtype, size):
    x = fi.normal(size, mean=3.0, std=0.5, seed=size, dtype=dtype)
    assert_agrees(fi.summarize(x), x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sees_what_is_not_finite(dtype):
    x = fi.uniform((100, 200), low=-2.0, high=1.0, seed=1, dtype=dtype)
    x[3, 4], x[5, 6], x[99, 199], x[0, 0], x[1, 1] = np.nan, np.inf, -np.inf, 0.0, -0.0
    found = fi.summarize(x)
    assert found.nonfinite == 3
    assert found.zeros >= 2
    assert_agrees(found, x)


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[::2],
        lambda x: x[:, ::-3],
        lambda x: x.T,
        lambda x: np.asfortranarray(x),
        lambda x: x[5:6, 7:8],
        lambda x: np.broadcast_to(x[0], x.shape),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_reads_any_strides(view, dtype):
    x = view(fi.normal((300, 701), seed=2, dtype=dtype))
    assert_agrees(fi.summarize(x), x)


def test_a_read_only_array_is_read():
    x = fi.normal(1000, seed=0)
    x.flags.writeable = False
    assert_agrees(fi.summarize(x), x)


def test_keeps_the_digits_of_a_small_spread_far_from_zero():
    """A sum of squares about zero would lose all digits here."""
    x = 1e9 + fi.normal(1 << 16, std=1e-3, seed=3, dtype="float64")
    assert_allclose(fi.summarize(x).std, x.std(), rtol=1e-6)
    assert not math.isclose(math.sqrt(max(0.0, (x * x).mean() - x.mean() ** 2)), x.std(), rel_tol=1e-2)


LARGEST = np.finfo(np.float64).max
PATTERNS = {
    "both signs": lambda u: u,
    "far from zero": lambda u: 1 - np.abs(u) / 8,
    "ends": lambda u: np.where(np.arange(u.size) % 2, 1.0, -1.0),
    "equal": lambda u: np.ones(u.size),
    "one large": lambda u: np.where(np.arange(u.size) == u.size // 2, 1.0, u * 1e-6),
}
SCALES = [LARGEST, 1e308, 1e200, 1e154, 1e150, 1e-121, 1e-154, 1e-162, 1e-200, 1e-307, 1e-310, 1e-320, 5e-324]


@pytest.mark.parametrize("size", [1, 2, 3, 1000, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 3])
def test_float64_sums_and_squares_may_leave_its_range(size):
    """The moments are right, and NumPy does not warn, near both ends of float64."""
    u = fi.uniform(size, low=-1.0, high=1.0, seed=size, dtype="float64")
    for scale, pattern in itertools.product(SCALES, PATTERNS.values()):
        x = pattern(u) * scale
        found = fi.summarize(x)
        assert (found.min, found.max) == (x.min(), x.max())
        if found.min == found.max:
            assert (found.mean, found.std) == (x[0], 0)
            continue
        # Exact sums of the same numbers near 1.
        exponent = math.frexp(np.abs(x).max())[1]
        scaled = np.ldexp(x, -exponent)
        mean = math.fsum(scaled) / size
        std = math.sqrt(math.fsum((scaled - mean) ** 2) / size)
        assert_allclose(math.ldexp(found.mean, -exponent), mean, rtol=0, atol=1e-14 + np.ldexp(1.0, -1074 - exponent))
        assert_allclose(found.std, math.ldexp(std, exponent), rtol=1e-13, atol=5e-324)


def test_chunks_of_different_scales():
    """Large and tiny chunks, those that are not finite, and a part of one that is."""
    parts = [np.full(CHUNK, 1e-200), np.full(CHUNK, np.nan), np.full(CHUNK, 1.5e308), np.full(CHUNK, -1.5e308)]
    parts.append(np.array([1e-320, np.inf, 0.0]))
    found, finite = fi.summarize(np.concatenate(parts)), 3 * CHUNK + 2
    assert (found.min, found.max, found.zeros, found.nonfinite) == (-1.5e308, 1.5e308, 1, CHUNK + 1)
    assert_allclose(found.std, 1.5e308 * math.sqrt(2 * CHUNK / finite), rtol=1e-14)
    tiny = fi.summarize(np.concatenate([np.full(CHUNK, 1e-200), np.full(CHUNK, 3e-200)]))
    assert_allclose([tiny.mean, tiny.std], [2e-200, 1e-200], rtol=1e-14)


def test_large_float32_and_float16_do_not_overflow():
    x = np.full(5000, 3e38, np.float32)
    x[::2] *= -1
    assert_allclose(fi.summarize(x).std, np.float64(np.float32(3e38)), rtol=1e-12)
    assert_allclose(fi.summarize(np.full(5000, 6e4, np.float16)).mean, np.float64(np.float16(6e4)), rtol=1e-12)


@pytest.mark.parametrize("x", [np.empty(0, np.float32), np.full(10, np.nan), np.full(3, np.inf, ml_dtypes.bfloat16)])
def test_without_a_finite_element_the_moments_are_nan(x):
    found = fi.summarize(x)
    assert (found.count, found.nonfinite) == (x.size, x.size)
    assert all(math.isnan(value) for value in (found.min, found.max, found.mean, found.std))


def test_does_not_depend_on_the_thread_count():
    x = fi.normal(1 << 20, seed=4)
    found = []
    for number in (1, 2, 3, 8):
        with fi.thread_limit(number):
            found.append(fi.summarize(x))
    assert len(set(found)) == 1


def test_names_the_bounds_of_the_law():
    law = fi.Uniform(-1, 1)
    found = fi.summarize(fi.fill(np.empty(100), law, seed=0), law)
    assert (found.low, found.high) == (-1.0, 1.0)
    assert found.low <= found.min <= found.max < found.high
    assert "low" in str(found)
    assert "low" not in str(fi.summarize(np.zeros(3)))


def test_prints_as_a_table():
    lines = str(fi.summarize(fi.zeros((10, 1000)))).splitlines()
    assert lines[0].split() == ["count", "10,000"]
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize(("x", "received"), [([1.0], "list"), (np.arange(3), "int64"), (np.zeros(3, ">f4"), ">f4")])
def test_refuses_what_it_cannot_read(x, received):
    with pytest.raises(TypeError, match=f"x must be a NumPy array of float16, .* Received: {received}"):
        fi.summarize(x)
