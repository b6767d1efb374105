"""What the papers claim of initialisation and clipping, seen in this library's own networks."""

import math

import numpy as np
import pytest

import fastinit as fi

CHANCE = math.log(10)  # the loss of ten classes that are guessed
THIRTY = [64] + [64] * 29 + [10]  # thirty layers of weights


def classes(scale=1.0):
    """A thousand samples of ten overlapping clouds in 64 dimensions, which a linear model tells apart."""
    rng = np.random.default_rng(0)
    centres, y = rng.standard_normal((10, 64)), rng.integers(0, 10, 1000)
    return scale * (centres[y] + rng.standard_normal((1000, 64))), y


def spread_of_units(model, layer):
    """How far the incoming weights of two units of a layer are apart at most."""
    return float(np.ptp(model.parameters[f"layers.{layer}.weight"], axis=0).max())


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu"])
def test_zeros_keep_the_units_of_a_layer_equal_and_random_weights_do_not(activation):
    # Only sigmoid has outputs at zero: its weights do move, but all units of a layer alike. Where f(0) = 0 every
    # gradient but the last bias's is zero.
    x, y = classes()
    spreads = {}
    for init in ("zeros", fi.Normal(0, 0.01)):
        model = fi.MLP([64, 16, 16, 10], activation, init=init, seed=0)
        model.fit(x, y, 5, 50, fi.SGD(0.1, momentum=0.9))
        spreads[init] = [spread_of_units(model, layer) for layer in (0, 1)]
        if init == "zeros":
            assert np.abs(model.parameters["layers.2.bias"]).max() > 1e-3
            assert (np.abs(model.parameters["layers.0.weight"]).max() > 1e-3) == (activation == "sigmoid")
    assert max(spreads["zeros"]) < 1e-6
    assert min(spreads[fi.Normal(0, 0.01)]) > 0.03


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_thirty_relu_layers_train_under_he_and_stall_under_xavier(seed):
    # He et al., ICCV 2015, figure 3.
    x, y = classes()
    norms, losses = {}, {}
    for scheme in ("he_normal", "xavier_normal"):
        model = fi.MLP(THIRTY, "relu", init=scheme, seed=seed)
        model.loss_and_grad(x, y)
        norms[scheme] = np.linalg.norm(model.gradients["layers.0.weight"])
        losses[scheme] = model.fit(x, y, 25, 50, fi.SGD(0.01)).loss[-1]
    assert losses["he_normal"] < CHANCE - 1
    assert abs(losses["xavier_normal"] - CHANCE) < 0.01
    # The way back goes through 28 square matrices, of variance 1/64 in the place of 2/64, and one from 64 to 10 units.
    predicted = -28 / 2 + math.log2(math.sqrt((2 / 74) / (2 / 64)))
    assert math.log2(norms["xavier_normal"] / norms["he_normal"]) == pytest.approx(predicted, abs=0.6)


def test_a_fixed_sigma_lets_the_gradient_vanish_as_the_widths_say():
    # He et al., section 2.2: with a std of 0.01 each relu layer of n outputs leaves sqrt(n / 2) / 100 of the gradient.
    # One sample at a time, the gradient of a layer's bias is the signal itself.
    x, y = classes()
    widths = np.array([64, 128, 128, 256, 256, 512, 512])
    model = fi.MLP([64, *widths, 10], "relu", init=fi.Normal(0, 0.01), seed=0, dtype="float64")
    squares = np.zeros(len(widths))
    for sample, label in zip(x[:50], y[:50], strict=True):
        model.loss_and_grad(sample[None], [label])
        squares += [np.mean(model.gradients[f"layers.{i}.bias"] ** 2) for i in range(len(widths))]
    measured = np.sqrt(squares[:-1] / squares[1:])
    predicted = 0.01 * np.sqrt(widths[1:] / 2)
    np.testing.assert_allclose(measured, predicted, rtol=0.15)
    assert measured.prod() == pytest.approx(predicted.prod(), rel=0.3)
    assert predicted.prod() < 1e-5


def jacobians(model, x):
    """Of every hidden layer's output with respect to the one before it, at one sample."""
    for i in range(len(model.sizes) - 2):
        weight = model.parameters[f"layers.{i}.weight"]
        x = np.tanh(weight @ x)
        yield (1 - x**2)[:, None] * weight


@pytest.mark.parametrize(("scheme", "around"), [("xavier_uniform", 0.8), ("heuristic_uniform", 0.5)])
def test_the_jacobians_of_a_tanh_network_have_singular_values_around_what_is_claimed(scheme, around):
    # Glorot & Bengio, AISTATS 2010, section 4.2.2: five hidden tanh layers, on average 0.8 against 0.5.
    model = fi.MLP([250] * 6 + [10], "tanh", init=scheme, seed=0, dtype="float64")
    x = np.random.default_rng(0).uniform(-1, 1, 250)
    values = [np.linalg.svd(jacobian, compute_uv=False).mean() for jacobian in jacobians(model, x)]
    assert np.mean(values) == pytest.approx(around, abs=0.1)
    # Without tanh it is the mean of the quarter circle law, 8 / (3 pi) at the variance 1/n.
    weight = model.parameters["layers.2.weight"]
    std = fi.distribution(scheme, weight.shape).std * math.sqrt(250)
    assert np.linalg.svd(weight, compute_uv=False).mean() == pytest.approx(std * 8 / (3 * math.pi), rel=0.02)


def test_deep_linear_orthogonal_networks_keep_all_singular_values_and_gaussian_ones_spread_them():
    # Saxe, McClelland, Ganguli, ICLR 2014: the variance of the Gaussian is right, and still most directions are lost.
    values = {}
    for scheme in ("orthogonal", "lecun_normal"):
        model = fi.MLP([64] * 51, "identity", "identity", init=scheme, seed=0, dtype="float64")
        values[scheme] = np.linalg.svd(model.forward(np.eye(64)), compute_uv=False)
    np.testing.assert_allclose(values["orthogonal"], 1, rtol=1e-12)
    assert values["lecun_normal"][0] > 2
    assert np.median(values["lecun_normal"]) < 1e-5


def test_clipping_rescues_a_run_that_explodes():
    # Pascanu, Mikolov, Bengio, ICML 2013: the direction of a step over a cliff is right, its length is not.
    x, y = classes()

    def train(max_grad_norm):
        model = fi.MLP([64] + [64] * 10 + [10], "relu", seed=0)
        return model, model.fit(x, y, 10, 50, fi.SGD(1.0), max_grad_norm=max_grad_norm)

    with pytest.warns(RuntimeWarning, match="the loss is not finite"):
        model, history = train(None)
    assert not np.isfinite(history.loss[-1])
    model, history = train(0.1)
    assert history.clipped[0] == 1
    assert np.isfinite(history.loss).all()
    assert history.loss[-1] < 0.1
    assert model.score(x, y) > 0.9  # 0.97 to 1, by the seed


@pytest.mark.parametrize(
    ("activation", "scale"),
    [
        ("relu", 1e6),
        ("tanh", 1e-6),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [("relu", 1e-6), ("relu", 1.0), ("tanh", 1.0), ("tanh", 1e6)]
        ),
    ],
)
def test_lsuv_gives_all_layers_unit_variance_whatever_the_scale_of_the_data(activation, scale):
    # Mishkin & Matas, ICLR 2016. The forward pass is NumPy's.
    x, y = classes(scale)
    model = fi.MLP(THIRTY, activation, seed=0)
    reported = fi.lsuv(model, x)
    f = {"relu": lambda z: np.maximum(z, 0), "tanh": np.tanh}[activation]
    hidden, variances = x, []
    for i in range(30):
        outputs = hidden @ model.parameters[f"layers.{i}.weight"].T.astype(np.float64)
        variances.append(outputs.var())
        hidden = f(outputs)
    np.testing.assert_allclose(variances, 1, atol=0.1)
    np.testing.assert_allclose(reported, variances, rtol=1e-3)
    if scale <= 1:  # Adam's steps are of one size, and the first layer's weights are a millionth for the large data
        history = model.fit(x, y, 10, 50, fi.Adam(1e-3))
        assert history.loss[-1] < 0.5
        assert model.score(x, y) > 0.9
