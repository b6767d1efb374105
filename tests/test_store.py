"""Rounding to 16 bits and back, against ml_dtypes and NumPy."""

import ml_dtypes
import numba
import numpy as np
import pytest

from fastinit.kernels import store

EVERY_HALF = np.arange(1 << 16, dtype=np.uint16)
FORMATS = {
    "bfloat16": (store.bf16_of, store.of_bf16, ml_dtypes.bfloat16),
    "float16": (store.f16_of, store.of_f16, np.float16),
}


def over(function, x, kind):
    @numba.njit(error_model="numpy")
    def loop(x, out):
        for i in range(x.size):
            out[i] = function(x[i])

    out = np.empty(x.shape, kind)
    loop(x, out)
    return out


def patterns():
    """Float32 patterns: random ones, and the neighbourhood of every half and of every midpoint between two."""
    random = np.random.default_rng(0).integers(0, 2**32, 1 << 20, dtype=np.uint32)
    centres = []
    for kind in (ml_dtypes.bfloat16, np.float16):
        with np.errstate(invalid="ignore"):
            value = EVERY_HALF.view(kind).astype(np.float32)
        value = np.sort(value[np.isfinite(value)])
        with np.errstate(over="ignore"):
            centres += [value, ((value[1:].astype(np.float64) + value[:-1]) / 2).astype(np.float32)]
    centre = np.concatenate(centres).view(np.uint32)
    return np.concatenate([random, centre, centre + np.uint32(1), centre - np.uint32(1)]).view(np.float32)


@pytest.mark.parametrize("name", FORMATS)
def test_rounds_to_nearest_even(name):
    narrow, _, kind = FORMATS[name]
    x = patterns()
    found = over(narrow, x, np.uint16)
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = x.astype(kind).view(np.uint16)
    nan = np.isnan(x)
    assert nan.any()
    np.testing.assert_array_equal(found[~nan], wanted[~nan])
    assert np.isnan(found[nan].view(kind).astype(np.float32)).all()


@pytest.mark.parametrize("name", FORMATS)
def test_widens_every_half(name):
    _, widen, kind = FORMATS[name]
    found = over(widen, EVERY_HALF, np.float32)
    with np.errstate(invalid="ignore"):
        wanted = EVERY_HALF.view(kind).astype(np.float32)
    nan = np.isnan(wanted)
    np.testing.assert_array_equal(np.isnan(found), nan)
    np.testing.assert_array_equal(found[~nan].view(np.uint32), wanted[~nan].view(np.uint32))
