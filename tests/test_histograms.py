"""Histograms against counting by hand, at the ends of float64 too."""

import itertools
import json

import ml_dtypes
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastinit as fi
from fastinit._runtime.arrays import DTYPES
from fastinit.stats._histograms import Histogram

LARGEST = np.finfo(np.float64).max


def counted(values, edges):
    """By the definition: a bin holds its lower edge, the last one both."""
    wide = [float(value) for value in np.ravel(values)]
    inside = [sum(low <= value < high for value in wide) for low, high in itertools.pairwise(edges)]
    inside[-1] += sum(value == edges[-1] for value in wide)
    return tuple(inside)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bins", [1, 2, 7, 64])
def test_counts_what_lies_between_the_edges(dtype, bins):
    x = fi.normal((20, 31), std=0.5, seed=bins, dtype=dtype)
    found = Histogram.of(x, bins)
    assert (found.low, found.high, len(found.counts)) == (float(x.min()), float(x.max()), bins)
    assert found.counts == counted(x, found.edges)
    assert found.total == x.size


def test_agrees_with_numpy():
    x = fi.uniform(10_000, low=-3.0, high=5.0, seed=0, dtype="float64")
    counts, edges = np.histogram(x, 64)
    assert_array_equal(Histogram.of(x, 64).edges, edges)
    assert_array_equal(Histogram.of(x, 64).counts, counts)


def test_values_at_the_edges():
    assert Histogram.of([0, 1, 2, 3, 4], bins=4).counts == (1, 1, 1, 2)
    assert Histogram.of([0.0, -0.0, 1.0], bins=2).counts == (2, 1)


@pytest.mark.parametrize(
    "x",
    [
        np.array([-3e38, 3e38, 0.0, 1e38], np.float32),
        np.array([-LARGEST, LARGEST, 0.0, 1.0, LARGEST / 2]),
        np.array([LARGEST, np.nextafter(LARGEST, 0)]),
        np.array([5e-324, 1e-323, 0.0]),
        np.array([1.0, np.nextafter(1.0, 2)]),
        np.array([True, False, True]),
        np.array([-(2**63), 2**63 - 1, 5], np.int64),
        np.array([1.0, 2.0, 448.0], ml_dtypes.float8_e4m3fn),
    ],
    ids=lambda x: f"{x.dtype} {x[0]}",
)
def test_every_finite_value_is_in_a_bin_at_the_ends_of_a_dtype(x):
    found = Histogram.of(x, 8)
    assert found.total == x.size
    assert np.isfinite(found.edges).all()
    assert (np.diff(found.edges / 4) >= 0).all()  # a quarter: the steps themselves may be over the range
    assert found.counts == counted(x, found.edges)


@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, -0.02, 1e300, LARGEST, -LARGEST, 5e-324, 1e-310])
def test_a_constant_lies_inside_a_range_around_it(value):
    found = Histogram.of(np.full(10, value), 64)
    assert found.low <= value <= found.high
    assert len(set(found.edges)) == 65
    assert found.total == max(found.counts) == 10


def test_non_finite_values_are_left_out():
    x = np.array([np.nan, np.inf, -np.inf, 1.0, 3.0])
    assert Histogram.of(x, 2) == Histogram.of(x[3:], 2)
    for empty in (x[:3], x[:0], []):
        assert Histogram.of(empty, 3) == Histogram(0.0, 1.0, (0, 0, 0))


def test_bounds_leave_out_what_is_beyond():
    x = np.arange(10.0)
    assert Histogram.of(x, 2, low=2, high=6).counts == (2, 3)
    assert Histogram.of(x, 2, low=5) == Histogram(5.0, 9.0, (2, 3))
    assert Histogram.of(x, 3, high=3) == Histogram(0.0, 3.0, (1, 1, 2))
    assert Histogram.of(x, 1, low=20) == Histogram(10.0, 30.0, (0,))
    assert Histogram.of([], 1, high=-4) == Histogram(-6.0, -2.0, (0,))


def test_weights_count_a_value_several_times():
    x, weights = np.array([0.0, np.nan, -LARGEST, 3.5, LARGEST, 3.0]), np.array([3, 100, 1, 0, 2, 5])
    for low, high in ((None, None), (0, 4)):
        found = Histogram.of(x, 4, low, high, weights=weights)
        assert found == Histogram.of(np.repeat(x, weights), 4, low, high)
        assert found.total == (11 if low is None else 8)


def test_goes_through_json_and_back():
    found = Histogram.of(fi.normal(1000, seed=1), 16)
    assert Histogram.from_table(json.loads(json.dumps(found.to_table(), allow_nan=False))) == found


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (([1j],), {}, TypeError, "values must be real numbers. Received: complex128"),
        ((["a"],), {}, TypeError, "values must be real numbers"),
        (([1.0], 0), {}, ValueError, "bins must be positive. Received: bins=0"),
        (([1.0], 2.5), {}, TypeError, "bins must be an int"),
        (([1.0],), {"low": 2, "high": 1}, ValueError, "low must not be above high"),
        (([1.0],), {"low": float("nan")}, ValueError, "low must be finite"),
        (([1.0],), {"high": "a"}, TypeError, "high must be a real number"),
    ],
)
def test_names_what_is_wrong(arguments, options, error, message):
    with pytest.raises(error, match=message):
        Histogram.of(*arguments, **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.0, 1.0, (1,)), "low must be below high"),
        ((0.0, float("inf"), (1,)), "high must be finite"),
        ((0.0, 1.0, ()), "counts must hold a number for each bin"),
        ((0.0, 1.0, (1, -1)), "none of them negative"),
    ],
)
def test_no_histogram_is_made_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        Histogram(*arguments)
