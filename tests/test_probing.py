"""`probe` and `compare` of dense networks: the numbers against plain NumPy in float64, what is asked and refused."""

import json
import math

import numpy as np
import pytest

import fastinit as fi
from fastinit._probe.statistics import Signal, alike, dead, saturated

SIZES = [12, 20, 30, 16, 5]


def relu(z):
    return np.maximum(z, 0), (z > 0).astype(float)


def tanh(z):
    return np.tanh(z), 1 - np.tanh(z) ** 2


def silu(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, s * (1 + z * (1 - s))


FUNCTIONS = {"relu": relu, "tanh": tanh, "silu": silu}


def by_hand(model, x, y, output):
    """Outputs, gradients of them and of the weights, for every layer."""
    f = FUNCTIONS[model.activation.name]
    depth = len(model.sizes) - 1
    a, outputs, slopes, inputs = np.asarray(x, np.float64), [], [], []
    for i in range(depth):
        inputs.append(a)
        z = a @ model.parameters[f"layers.{i}.weight"].T.astype(np.float64) + model.parameters[f"layers.{i}.bias"]
        a, slope = f(z) if i < depth - 1 else (z, np.ones_like(z))
        outputs.append(a)
        slopes.append(slope)
    if output == "softmax":
        shares = np.exp(a) / np.exp(a).sum(axis=1, keepdims=True)
        loss = -np.log(shares[np.arange(len(y)), y]).mean()
        gradient = (shares - np.eye(a.shape[1])[y]) / len(y)
    else:
        loss = ((a - y) ** 2).mean()
        gradient = 2 * (a - y) / a.size
    gradients, of_weights = [], []
    for i in reversed(range(depth)):
        gradients.append(gradient)
        delta = gradient * slopes[i]
        of_weights.append(delta.T @ inputs[i])
        gradient = delta @ model.parameters[f"layers.{i}.weight"].astype(np.float64)
    return loss, outputs, gradients[::-1], of_weights[::-1]


@pytest.mark.parametrize("activation", FUNCTIONS)
@pytest.mark.parametrize("output", ["softmax", "identity"])
def test_the_numbers_are_those_of_numpy(activation, output):
    random = np.random.default_rng(0)
    x = random.standard_normal((50, 12)) * 2 + 0.5
    y = random.integers(0, 5, 50) if output == "softmax" else random.standard_normal((50, 5))
    model = fi.MLP(SIZES, activation, output, init="he_normal", seed=3, dtype="float64")
    for bias in (array for name, array in model.parameters.items() if "bias" in name):
        bias[...] = random.standard_normal(bias.shape)
    before = {name: array.copy() for name, array in model.parameters.items()}
    found = fi.probe(model, data=(x, y))
    loss, *wanted = by_hand(model, x, y, output)
    assert found.loss == pytest.approx(loss, rel=1e-12)
    weights = [model.parameters[f"layers.{i}.weight"] for i in range(4)]
    for name, arrays in zip(
        ("activations", "gradients", "weight_gradients", "weights"), (*wanted, weights), strict=True
    ):
        source = arrays[-2] if "gradients" in name else arrays[0]  # the last hidden layer, or the first layer
        first = math.sqrt((source**2).mean())
        for layer, array in zip(found.layers, arrays, strict=True):
            signal = getattr(layer, name)
            rms = math.sqrt((array**2).mean())
            expected = array.mean(), array.std(), np.linalg.norm(array), rms, rms / first
            got = signal.mean, signal.std, signal.norm, signal.rms, signal.ratio
            assert got == pytest.approx(expected, rel=1e-9, abs=1e-12 * rms)
            assert signal.histogram.total == array.size
            assert (signal.histogram.low, signal.histogram.high) == pytest.approx((array.min(), array.max()))
    for layer, array in zip(found.layers, wanted[0], strict=True):
        assert layer.dead == (array == 0).all(axis=0).mean()
        assert layer.units == array.shape[1]
    inputs = found.inputs
    assert (inputs.mean, inputs.std, inputs.norm) == pytest.approx((x.mean(), x.std(), np.linalg.norm(x)))
    assert [layer.name for layer in found.layers] == [f"layers.{i}" for i in range(4)]
    assert [layer.kind for layer in found.layers] == [*[activation] * 3, "identity"]
    assert all((model.parameters[name] == array).all() for name, array in before.items())  # as it was
    assert found.samples == 50
    assert found.loss_name == {"softmax": "softmax cross-entropy", "identity": "mean squared error"}[output]
    assert (found.network, found.scheme) == ("12-20-30-16-5", "as it is")


@pytest.mark.parametrize(("std", "grows"), [(0.2, True), (0.05, False)])
def test_ratios_and_verdict_have_one_direction(std, grows):
    """Above 1 a signal grows on its way, of gradients on their way back: in the table, its ends, and the verdict."""
    found = fi.probe([64, *[100] * 12, 10], f"normal(std={std})")
    forward, backward = found.layers[-2].activations.ratio, found.layers[0].gradients.ratio
    assert (forward, backward) == (found.verdict.forward, found.verdict.backward)
    assert (forward > 2, backward > 2) == (grows, grows)
    assert (forward < 0.5, backward < 0.5) == (not grows, not grows)
    assert (found.layers[0].activations.ratio, found.layers[-2].gradients.ratio) == (1, 1)


def test_sizes_are_the_mlp_of_the_seed():
    """A probe of sizes is that of the model which a user of these sizes, law and seed gets."""
    found = fi.probe(SIZES, scheme="xavier_uniform", activation="tanh", seed=7)
    model = fi.MLP(SIZES, "tanh", init="xavier_uniform", seed=7)
    again = fi.probe(model)
    assert found.layers == again.layers
    assert found.loss == again.loss
    assert fi.probe(model, scheme="xavier_uniform", seed=7).to_table() == found.to_table()
    assert fi.probe(SIZES, scheme="xavier_uniform", activation="tanh", seed=8).layers != found.layers
    assert found.samples == 256
    assert fi.probe(SIZES, samples=10).samples == 10


def test_drawn_data_are_standard_normal_and_classes_even():
    found = fi.probe([200, 300, 4], samples=500)
    assert found.inputs.mean == pytest.approx(0, abs=0.01)
    assert found.inputs.std == pytest.approx(1, abs=0.01)
    # Of even classes the gradient of an output of zeros has a known size: (1/4 - share) / samples.
    zeros = fi.probe([200, 300, 4], scheme="zeros", samples=500)
    assert zeros.layers[-1].gradients.rms == pytest.approx(math.sqrt((3 / 4**2 + (3 / 4) ** 2) / 4) / 500)
    assert zeros.loss == pytest.approx(math.log(4))


@pytest.mark.parametrize("output", ["softmax", "sigmoid", "identity"])
def test_every_output_has_targets(output):
    found = fi.probe([10, 20, 20, 3], output=output)
    assert 0.3 < found.loss < 20
    assert found.layers[-1].gradients.rms > 0


def test_laws_of_layers():
    laws = ["zeros", fi.Normal(0, 2), "normal(std=0.5)"]
    found = fi.probe([30, 40, 50, 60], scheme=laws)
    assert [layer.weights.std for layer in found.layers] == pytest.approx([0, 2, 0.5], rel=0.05)
    assert found.scheme == "3 schemes"
    assert fi.probe([3, 4, 5], scheme=fi.Normal(0, 0.02)).scheme == "normal(std=0.02)"
    assert fi.probe([3, 4, 5], scheme=" he_normal ").scheme == "he_normal"


def test_default_schemes_fit():
    assert fi.probe([3, 4, 5]).title == "3-4-5, relu, he_normal"
    assert fi.probe([3, 4, 5], activation="tanh").scheme == "xavier_uniform"
    assert fi.probe([3, 4, 5], activation=fi.activation("leaky_relu", slope=0.2)).activation == "leaky_relu(slope=0.2)"


def test_zeros_keep_units_alike():
    zeros = fi.probe([8, 16, 16, 3], scheme="zeros", activation="sigmoid")
    assert [layer.alike for layer in zeros.layers] == [1, 1, 1]
    assert [layer.alike for layer in fi.probe([8, 16, 16, 3], activation="sigmoid").layers] == [0, 0, 0]


def test_json_is_strict_and_whole():
    found = fi.probe([64, *[128] * 40, 10], scheme="normal(std=10)")
    assert not math.isfinite(found.layers[-1].activations.rms)
    table = json.loads(found.to_json(), parse_constant=pytest.fail)
    assert table == found.to_table()
    assert table["layers"][0]["activations"]["std"] == found.layers[0].activations.std
    assert table["layers"][-1]["activations"]["rms"] is None
    assert table["verdict"]["kinds"] == ["exploding"]
    assert len(table["layers"]) == 41


def test_a_grid():
    grid = fi.compare([16, 32, 32, 4], schemes=["zeros", "he_normal", None], activations=["relu", "tanh"], seed=5)
    assert [(one.activation, one.scheme) for one in grid] == [
        ("relu", "zeros"),
        ("relu", "he_normal"),
        ("relu", "he_normal"),
        ("tanh", "zeros"),
        ("tanh", "he_normal"),
        ("tanh", "xavier_uniform"),
    ]
    assert grid["he_normal", "tanh"].to_table() == fi.probe([16, 32, 32, 4], "he_normal", "tanh", seed=5).to_table()
    assert grid[0] is grid.probes[0]
    assert len(grid) == 6
    assert json.loads(grid.to_json())["probes"][1] == grid[1].to_table()
    lines = str(grid).splitlines()
    assert len(lines) == 7
    assert lines[1].split() == ["16-32x2-4", "relu", "zeros", "0", "0", "vanishing,", "symmetric"]
    with pytest.raises(KeyError, match="no probe of"):
        grid["he_normal", "gelu"]


def test_the_text_has_a_line_for_each_layer_and_leaves_out_the_middle_of_many():
    lines = str(fi.probe([8, 16, 16, 3], activation="tanh")).splitlines()
    assert lines[0].startswith("8-16x2-3, tanh, xavier_uniform: 256 samples, loss ")
    assert "saturated" in lines[1]
    assert [line.split()[0] for line in lines[2:-1]] == ["layers.0", "layers.1", "layers.2"]
    assert lines[-1].startswith("healthy. ")
    lines = str(fi.probe([8, *[16] * 60, 3])).splitlines()
    assert len(lines) == 2 + 24 + 1
    assert "... 38 more" in lines
    assert "saturated" not in lines[1]
    assert [line.split()[0] for line in (lines[13], lines[15], lines[25])] == ["layers.11", "layers.50", "layers.60"]


def test_the_page_has_every_probe():
    page = fi.compare([8, 16, 16, 3], ["zeros", "he_normal"]).to_html()
    assert page.count("<h2>") == 2
    assert page.count("<polyline") == 4 + 4  # lines and the legend
    assert "8-16x2-3, relu, zeros" in page
    page = fi.probe([8, 16, 3], scheme="he_normal").to_html()
    assert "<h1>8-16-3, relu, he_normal</h1>" in page
    assert "<h2>" not in page  # the only network is the page's title


class Strange:
    pass


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TypeError, "model_or_sizes must be sizes, an MLP or a torch module", (5,)),
        (TypeError, "model_or_sizes must be sizes, an MLP or a torch module", ("3,4,5",)),
        (TypeError, "model_or_sizes must be sizes, an MLP or a torch module", (Strange(),)),
        (ValueError, "sizes must be two or more", ([5],)),
        (TypeError, "sizes", ([5, 2.5],)),
        (ValueError, "unknown scheme 'he_norm'; did you mean 'he_normal'", ([5, 4], "he_norm")),
        (ValueError, "a scheme must be NAME or NAME", ([5, 4], "normal(0.1)")),
        (ValueError, "unknown parameter of normal 'sigma'", ([5, 4], "normal(sigma=1)")),
        (TypeError, "scheme must be a scheme's name, a distribution", ([5, 4], 3)),
        (TypeError, "scheme must be a scheme's name, a distribution", ([5, 4], [3])),
        (ValueError, "one for each of 1 layers. Received: 2", ([5, 4], ["zeros", "ones"])),
        (ValueError, "unknown activation 'rel'", ([5, 4, 3], None, "rel")),
        (ValueError, "X must have shape", ([5, 4], None, None, np.zeros((3, 4)))),
        (ValueError, "X must have shape", ([5, 4], None, None, np.zeros((0, 5)))),
        (ValueError, "data must not be all 0", ([5, 4], None, None, np.zeros((3, 5)))),
        (
            ValueError,
            "X must be finite. Received: nan in row 0, column 0",
            ([5, 4], None, None, np.full((3, 5), np.nan)),
        ),
        (TypeError, "X must be real numbers", ([5, 4], None, None, "data")),
        (ValueError, "y must be of the classes", ([5, 4], None, None, (np.ones((3, 5)), np.full(3, 0.5)))),
        (TypeError, "seed", ([5, 4], None, None, None, 1.5)),
    ],
)
def test_errors_say_what_is_wrong(error, message, arguments):
    with pytest.raises(error, match=message):
        fi.probe(*arguments)


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (ValueError, "samples must be positive", {"samples": 0}),
        (TypeError, "samples must be an int", {"samples": 2.0}),
        (ValueError, "unknown output 'linear'", {"output": "linear"}),
        (TypeError, "dtype must be one of", {"dtype": "float16"}),
        (TypeError, "loss is for a torch module only", {"loss": sum}),
    ],
)
def test_errors_of_options(error, message, options):
    with pytest.raises(error, match=message):
        fi.probe([5, 4, 3], **options)


def test_without_a_seed_all_of_a_comparison_have_one():
    grid = fi.compare([8, 16, 3], ["he_normal", "zeros"], seed=None)
    first, second = (one.seed for one in grid)
    assert first == second != fi.probe([8, 16, 3], seed=None).seed
    assert [one.inputs for one in grid] == [grid.probes[0].inputs] * 2
    again = fi.probe([8, 16, 3], "he_normal", seed=eval(first, {"Key": fi.Key}))
    assert again.to_json() == grid.probes[0].to_json()


def test_an_mlp_brings_its_activation_and_is_one():
    model = fi.MLP([5, 4, 3])
    with pytest.raises(TypeError, match="activation is for sizes only"):
        fi.probe(model, activation="tanh")
    with pytest.raises(ValueError, match="must not be a population"):
        fi.probe(fi.MLP([5, 4, 3], population=2))


@pytest.mark.parametrize("bad", ["he_normal", 5, []])
def test_a_grid_needs_lists(bad):
    with pytest.raises((TypeError, ValueError), match="schemes must"):
        fi.compare([5, 4, 3], bad)
    with pytest.raises((TypeError, ValueError), match="activations must"):
        fi.compare([5, 4, 3], ["zeros"], bad)


def test_numbers_of_arrays():
    """Of what is constructed, the numbers are known."""
    outputs = np.array([[0, 1, 1, 2.0], [0, 3, 3, -0.0], [0, 5, 5, 1]])
    assert dead(outputs) == 1 / 4
    assert alike(outputs) == 2 / 4
    assert alike(np.array([[0.0, -0.0, 1.0]])) == 2 / 3
    assert alike(np.array([[np.nan, np.nan, 1.0]], np.float32)) == 2 / 3
    edges = np.array([[0.979, 0.981, -0.979, -0.981]])
    assert saturated(edges, "tanh") == 0.5
    assert saturated((edges + 1) / 2, "sigmoid") == 0.5
    assert saturated(edges, "relu") is None
    found = Signal.of(np.array([[3.0, -4.0]], np.float32))
    assert (found.mean, found.std, found.ratio) == (-0.5, 3.5, 1)
    assert (found.norm, found.rms) == pytest.approx((5, math.sqrt(12.5)))
    broken = Signal.of(np.array([1.0, np.inf]))
    assert (math.isnan(broken.mean), math.isnan(broken.std), broken.norm, broken.rms) == (True, True, np.inf, np.inf)
    assert math.isnan(Signal.of(np.zeros(3)).ratio)
    big = Signal.of(np.full(4, 3e38, np.float32))
    assert big.norm == pytest.approx(6e38)
