"""Fans and gains: against torch's, and against the integral where torch has none."""

import math

import pytest
import scipy.integrate
import scipy.stats
import torch

import fastinit as fi
from fastinit._core.fans import MODES, axis_fans
from fastinit._core.gains import NONLINEARITIES

SHAPES = [(64, 32), (5, 7), (8, 3, 5), (6, 4, 3, 3), (4, 3, 2, 5, 3), (1, 1), (0, 5), (5, 0), (3, 4, 0)]


def torch_fans(shape):
    return torch.nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))


def io_of(shape):
    """(out, in, *kernel) -> (*kernel, in, out)."""
    return (*shape[2:], shape[1], shape[0])


# --- fans ---


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fans_are_torchs_in_every_layout(shape):
    expected = torch_fans(shape)
    assert fi.fans(shape) == fi.fans(io_of(shape), layout="io") == expected
    assert fi.fans(shape).fan_in == expected[0]
    for axis in range(-1, len(shape)):
        for layout, whole in (("oi", shape), ("io", io_of(shape))):
            at = axis % (len(shape) + 1)
            assert fi.fans((*whole[:at], 11, *whole[at:]), layout=layout, batch_axes=axis) == expected
    assert fi.fans((11, *shape, 12), batch_axes=(0, -1)) == fi.fans((11, 12, *shape), batch_axes=[1, 0]) == expected


@pytest.mark.parametrize(
    ("batch_axes", "error", "message"),
    [
        (3, ValueError, "batch_axes must be axes of 3 dimensions. Received: batch_axes={}"),
        (-4, ValueError, "batch_axes must be axes of 3 dimensions. Received: batch_axes={}"),
        ((0, -3), ValueError, "batch_axes must not repeat. Received: batch_axes={}"),
        (True, TypeError, "batch_axes must be ints. Received: batch_axes={}"),
        ((0.5,), TypeError, "batch_axes must be ints. Received: batch_axes={}"),
        ((0, 1), ValueError, "Fan in and fan out can not be computed for tensor with fewer than 2 dimensions. "
         "Received: shape (4, 5, 6), batch_axes={}"),
    ],
    ids=str,
)  # fmt: skip
def test_bad_batch_axes(batch_axes, error, message):
    with pytest.raises(error) as caught:
        fi.fans((4, 5, 6), batch_axes=batch_axes)
    assert str(caught.value) == message.format(repr(batch_axes))
    with pytest.raises(error, match=r"^(batch_axes must|Fan in)"):
        fi.he_normal((4, 5, 6), batch_axes=batch_axes)


@pytest.mark.parametrize("mode", MODES)
def test_an_empty_tensor_divides_by_nothing(mode):
    assert fi.fans((0, 0)).by_mode(mode) == 1
    assert fi.fans((0, 5)).by_mode("fan_out") == 1
    assert fi.fans((0, 5)).by_mode("fan_in") == 5


# --- gains ---

ACTIVATIONS = {
    "gelu": lambda z: z * scipy.stats.norm.cdf(z),
    "silu": lambda z: z / (1 + math.exp(-z)),
}
TORCH_GAINS = [name for name in NONLINEARITIES if name not in ACTIVATIONS]


def test_gains_of_torch():
    for name in TORCH_GAINS:
        assert fi.gain(name) == pytest.approx(torch.nn.init.calculate_gain(name), rel=1e-15)


def test_gain_of_a_leaky_relu():
    for slope in (0, 0.01, 0.2, 1, -0.3, math.sqrt(5)):
        expected = torch.nn.init.calculate_gain("leaky_relu", slope)
        assert fi.gain("leaky_relu", slope) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gains_that_keep_the_second_moment(name):
    activation = ACTIVATIONS[name]
    moment, _ = scipy.integrate.quad(
        lambda z: activation(z) ** 2 * scipy.stats.norm.pdf(z), -12, 12, epsabs=1e-14, epsrel=1e-13, limit=200
    )
    assert fi.gain(name) == pytest.approx(1 / math.sqrt(moment), rel=1e-12)


@pytest.mark.parametrize("slope", [math.nan, math.inf, 1e200])
def test_a_slope_without_a_gain(slope):
    with pytest.raises(ValueError, match=r"^slope must ") as caught:
        fi.gain("leaky_relu", slope)
    assert f"Received: slope={slope!r}" in str(caught.value)


@pytest.mark.parametrize("name", ["", "ReLU", "swish", None], ids=repr)
def test_unknown_nonlinearities(name):
    with pytest.raises(ValueError, match=r"^unknown nonlinearity ") as caught:
        fi.gain(name)
    assert repr(name) in str(caught.value)
    assert str(caught.value).endswith(f"Allowed: {', '.join(NONLINEARITIES)}")


@pytest.mark.parametrize("shape", [(3, 4), (7, 7, 3, 64), (2, 5, 3, 4, 6)])
def test_fans_of_axes_are_those_of_io(shape):
    assert axis_fans(shape) == fi.fans(shape, layout="io")
    assert axis_fans(shape, in_axis=len(shape) - 2, out_axis=[-1]) == fi.fans(shape, layout="io")
    assert axis_fans((9, *shape), batch_axis=0) == fi.fans((9, *shape), layout="io", batch_axes=0)


def test_fans_of_axes_named_twice():
    """An embedding in Flax has `in_axis=-2, out_axis=0`: the tokens are both."""
    assert axis_fans((1000, 64), out_axis=0) == (64, 64)
    assert axis_fans((8,), in_axis=0, out_axis=0, batch_axis=0) == (1 / 8, 1 / 8)
    assert axis_fans((8,), in_axis=0, out_axis=0, batch_axis=0).by_mode("fan_in") == 1 / 8


def test_fans_of_axes_of_nothing():
    with pytest.raises(ValueError, match=r"shape must not be empty. Received: shape=\(0, 3\)"):
        axis_fans((0, 3))


def test_fans_of_empty_tensors_divide_nothing_by_zero():
    assert fi.fans((1, 0)).by_mode("fan_avg") == fi.fans((0, 1)).by_mode("fan_geo_avg") == 1
