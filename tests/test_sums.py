"""Sums in a fixed order, against the same order in NumPy."""

import numpy as np
import pytest

import fastinit as fi
from fastinit._runtime.threads import CHUNK


def halves(lanes):
    """Accumulators added in pairs."""
    while lanes.size > 1:
        lanes = lanes[: lanes.size // 2] + lanes[lanes.size // 2 :]
    return float(lanes[0])


def in_order(terms):
    """The float64 sum of at most one chunk, as `kernels/sums/order.py` says."""
    terms = np.asarray(terms, np.float64)
    if terms.size <= 24:
        lanes, whole = np.zeros(4), terms.size - terms.size % 4
        for row in terms[:whole].reshape(-1, 4):
            lanes = lanes + row
        for term in terms[whole:]:
            lanes[0] += term
        return float((lanes[0] + lanes[1]) + (lanes[2] + lanes[3]))
    lanes, whole = np.zeros(32), terms.size - terms.size % 128
    for one, two, three, four in terms[:whole].reshape(-1, 4, 32):
        lanes = lanes + ((one + two) + (three + four))
    for first in range(whole, terms.size, 32):
        row = terms[first : first + 32]
        lanes[: row.size] += row
    return halves(lanes)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_norms_have_the_order_of_the_reference(dtype):
    for size in (1, 3, 4, 23, 24, 25, 31, 33, 127, 128, 129, 1000, CHUNK - 1, CHUNK):
        x = fi.normal(size, seed=size, dtype=dtype)
        wide = x.astype(np.float64)
        assert fi.global_norm([x]) == np.sqrt(in_order(wide * wide))
        assert fi.global_norm([x], 1) == in_order(abs(wide))


def test_the_order_shows():
    """NumPy's own sum has other last bits, so the test above tells orders apart."""
    x = fi.normal(CHUNK, seed=0, dtype="float64")
    assert in_order(abs(x)) != abs(x).sum()
    assert fi.global_norm([x], 1) != in_order(abs(x[::-1]))


def test_summaries_have_the_order_of_the_reference():
    for size in (5, 100, CHUNK):
        x = fi.normal(size, mean=0.5, seed=size, dtype="float64")
        found = fi.summarize(x)
        mean = in_order(x) / size
        assert found.mean == size * mean / size
        assert found.std == pytest.approx(np.sqrt(in_order((x - mean) ** 2) / size), rel=4e-16)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_losses_have_the_order_of_the_reference(dtype):
    for shape in ((5, 3), (7, 100), (3, 1000)):
        logits, targets = fi.normal(shape, seed=1, dtype=dtype), fi.normal(shape, seed=2, dtype=dtype)
        loss, _ = fi.mean_squared_error(logits, targets)
        differences = (logits - targets).astype(np.float64).reshape(-1)
        assert loss == in_order(differences * differences) * (1 / shape[0]) / shape[1]
