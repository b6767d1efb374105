"""The verdicts on networks that are constructed to deserve them."""

import math
import re

import numpy as np
import pytest

import fastinit as fi
from fastinit.stats._histograms import Histogram

DEEP = [100, *[200] * 50, 10]


@pytest.fixture(autouse=True)
def no_histograms(monkeypatch):
    """Leave histograms out, which no verdict looks at: they take two thirds of the time."""
    monkeypatch.setattr(Histogram, "of", lambda *_, **__: Histogram(0.0, 1.0, (0,)))


def verdict(scheme, activation, sizes=DEEP, samples=64, **options):
    return fi.probe(sizes, scheme, activation, samples=samples, **options).verdict


@pytest.mark.parametrize(
    ("scheme", "activation", "kinds", "fitting"),
    [
        ("normal(std=0.01)", "relu", ("vanishing",), "he_normal"),
        ("normal(std=0.05)", "relu", ("vanishing",), "he_normal"),
        ("normal(std=0.1)", "relu", ("healthy",), None),  # sqrt(2 / 200): He's own
        ("normal(std=1)", "relu", ("exploding",), "he_normal"),
        ("normal(std=0.01)", "tanh", ("vanishing",), "xavier_uniform"),
        ("normal(std=0.05)", "tanh", ("vanishing",), "xavier_uniform"),
        ("normal(std=1)", "tanh", ("exploding", "saturated"), "xavier_uniform"),
        ("xavier_normal", "relu", ("vanishing",), "he_normal"),
        ("xavier_uniform", "relu", ("vanishing",), "he_normal"),
        ("he_normal", "relu", ("healthy",), None),
        ("he_uniform", "relu", ("healthy",), None),
        ("xavier_normal", "tanh", ("healthy",), None),
        ("lecun_normal", "selu", ("healthy",), None),
        ("orthogonal(gain=1.4142135623730951)", "relu", ("healthy",), None),
        ("zeros", "relu", ("vanishing", "symmetric"), "he_normal"),
        ("zeros", "tanh", ("vanishing", "symmetric"), "xavier_uniform"),
        ("constant(value=0.005)", "relu", ("symmetric",), "he_normal"),  # 200 times: 1
        ("xavier_normal", "sigmoid", ("vanishing",), None),  # a factor of 1/4 a layer, whatever the scheme
    ],
)
def test_fifty_layers(scheme, activation, kinds, fitting):
    found = verdict(scheme, activation)
    assert (found.kinds, found.fitting) == (kinds, fitting)
    assert found.kind == kinds[0]
    if kinds == ("healthy",):
        assert 0.01 < found.forward < 100
        assert 0.01 < found.backward < 100
    else:
        assert ("No usual scheme mends it" if fitting is None else f"{fitting} fits.") in found.text


def test_the_factors_are_those_of_the_theory():
    """Xavier halves the variance at every ReLU, forward and backward (He et al., 2015, section 2.2)."""
    found = verdict("xavier_normal", "relu", [400, *[400] * 20, 10])
    assert math.log2(found.forward) == pytest.approx(-19 / 2, abs=1)
    assert math.log2(found.backward) == pytest.approx(-19 / 2, abs=1)
    (each,) = re.findall(r"Activations shrink: ([\d.]+)x a layer", found.text)
    assert float(each) == pytest.approx(math.sqrt(0.5), abs=0.02)
    tenfold = verdict(f"normal(std={10 * math.sqrt(2 / 400)})", "relu", [400, *[400] * 20, 10])
    assert math.log10(tenfold.forward) == pytest.approx(19, abs=0.7)


def test_where_the_usual_scheme_does_not_fit_the_gain_of_the_activation_is_tried():
    """GELU falls below He's variance when its input does: the smaller, the more it is z / 2."""
    found = verdict("he_normal", "gelu", [100, *[400] * 50, 10])
    assert (found.kinds, found.fitting) == (("vanishing",), 'he_normal(nonlinearity="gelu")')


@pytest.mark.parametrize("seed", range(5))
def test_a_healthy_network_is_so_under_every_seed(seed):
    assert verdict("he_normal", "relu", [784, *[64] * 50, 10], seed=seed).kinds == ("healthy",)
    assert verdict("xavier_uniform", "tanh", [784, *[64] * 50, 10], seed=seed).kinds == ("healthy",)


@pytest.mark.parametrize(
    ("scheme", "sizes", "kind"),
    [
        ("normal(std=0.01)", [64, 32, 10], "vanishing"),
        ("normal(std=1)", [64, 32, 10], "exploding"),
        ("he_normal", [64, 32, 10], "healthy"),
        ("he_normal", [64, 10], "healthy"),
        ("he_normal", [64, 1024, 16, 10], "healthy"),  # gradients shrink 8x between the layers: widths, by design
        ("normal(std=0.01)", [64, 128, 128, 10], "vanishing"),
        ("normal(std=1)", [64, 128, 128, 10], "exploding"),
    ],
)
def test_shallow_networks_are_held_against_the_data(scheme, sizes, kind):
    assert verdict(scheme, "relu", sizes).kind == kind


def test_bounded_activations_are_not_held_against_large_data():
    pixels = np.random.default_rng(0).uniform(0, 255, (100, 64))
    found = verdict("xavier_normal", "tanh", [64, 128, 128, 10], data=pixels)
    assert found.kinds == ("saturated",)
    assert "% of the outputs of layers.0 lie at an end of their range" in found.text
    assert verdict("he_normal", "relu", [64, 128, 128, 10], data=pixels).kinds == ("healthy",)


def test_overflow_is_named_where_it_happens():
    found = fi.probe([256, *[256] * 40, 10], "normal(std=1)")
    first = next(layer.name for layer in found.layers if not math.isfinite(layer.activations.rms))
    assert f"Activations leave the range of the dtype in {first}." in found.verdict.text
    assert "Gradients leave the range" in found.verdict.text
    assert found.verdict.kinds == ("exploding",)  # units that overflow are not called alike
    assert found.verdict.forward == math.inf


def test_a_signal_that_ends_is_named_where_it_ends():
    laws = ["he_normal"] * 5
    laws[2] = "zeros"
    found = verdict(laws, "relu", [20, 30, 30, 30, 30, 5])
    assert found.kinds == ("vanishing",)
    assert "Activations are all 0 from layers.2 on." in found.text
    assert "No gradient reaches" in found.text


def test_a_head_that_starts_at_zero_is_no_fault():
    """Its first step makes weights of it: as the recipes for residual networks want it."""
    found = verdict(["he_normal"] * 10 + ["zeros"], "relu", [64, *[64] * 10, 10])
    assert found.kinds == ("healthy",)
    assert "layers.10 start at zero: what is behind learns from the second step on." in found.text


def test_alike_units_are_named():
    laws = ["he_normal", "constant(value=0.01)", "he_normal", "he_normal"]
    found = verdict(laws, "relu", [20, 30, 30, 30, 5])
    assert found.kinds == ("symmetric",)
    assert "In layers.1 all units compute the same" in found.text


def test_a_trained_model_is_judged_as_it_is():
    model = fi.MLP([4, 8, 8, 2], seed=0)
    model.parameters["layers.1.weight"][...] = 0
    assert fi.probe(model).verdict.kinds == ("vanishing",)
    assert fi.probe(model).verdict.fitting == "he_normal"


def test_a_verdict_reads_as_a_sentence():
    assert str(verdict("he_normal", "relu", [8, 16, 16, 3])).startswith(
        "healthy. Through the hidden layers activations"
    )
