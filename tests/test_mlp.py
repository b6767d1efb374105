"""The model: gradients, steps, populations, shapes, what it refuses, what an interrupt leaves."""

import copy
import json
import math
import pickle
import threading

import numpy as np
import processes
import pytest
import torch
from pairs import pairs

import fastinit as fi
from fastinit.nn import _layers as layers
from fastinit.nn import _training as training
from fastinit.nn._activations import ACTIVATIONS
from fastinit.nn._network import FITTING

OUTPUTS = ("softmax", "sigmoid", "identity")
RNG = np.random.default_rng(5)


def data(features, outputs, output, samples=37):
    """Samples and targets that suit an output."""
    rng = np.random.default_rng(samples)
    x = rng.standard_normal((samples, features))
    if output == "softmax":
        return x, rng.integers(0, outputs, samples)
    if output == "sigmoid":
        return x, rng.integers(0, 2, (samples, outputs))
    return x, rng.standard_normal((samples, outputs))


def twin(model):
    """The same network in torch."""
    functions = {
        "identity": torch.nn.Identity(),
        "relu": torch.nn.ReLU(),
        "leaky_relu": torch.nn.LeakyReLU(0.01),
        "elu": torch.nn.ELU(),
        "selu": torch.nn.SELU(),
        "sigmoid": torch.nn.Sigmoid(),
        "tanh": torch.nn.Tanh(),
        "softplus": torch.nn.Softplus(threshold=100),
        "gelu": torch.nn.GELU(),
        "gelu_tanh": torch.nn.GELU("tanh"),
        "silu": torch.nn.SiLU(),
    }
    layers = []
    for i, (n, m) in enumerate(zip(model.sizes, model.sizes[1:], strict=False)):
        linear = torch.nn.Linear(n, m, dtype=getattr(torch, model.dtype.name))
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(model.parameters[f"layers.{i}.weight"].copy()))
            linear.bias.copy_(torch.from_numpy(model.parameters[f"layers.{i}.bias"].copy()))
        layers += [linear, functions[model.activation.name]]
    return torch.nn.Sequential(*layers[:-1])


def torch_loss(output, logits, y):
    if output == "softmax":
        return torch.nn.functional.cross_entropy(logits, torch.from_numpy(y))
    targets = torch.from_numpy(y.astype(logits.detach().numpy().dtype))
    if output == "sigmoid":
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, targets)
    return torch.nn.functional.mse_loss(logits, targets)


def torch_parameters(network):
    return {f"layers.{int(name.split('.')[0]) // 2}.{name.split('.')[1]}": p for name, p in network.named_parameters()}


@pytest.fixture
def sliced(monkeypatch):
    """Small steps are cut for the threads too."""
    monkeypatch.setattr(layers, "PARALLEL_PRODUCTS", 0)
    monkeypatch.setattr(training, "SHARED_PRODUCTS", 0)


# --- gradients ---


@pairs(activation=list(ACTIVATIONS), output=OUTPUTS, threads=[1, 2, 5])
def test_loss_and_gradients_are_torchs(activation, output, threads, sliced):
    model = fi.MLP([7, 9, 5, 4], activation, output, seed=3, dtype="float64")
    for name, array in model.parameters.items():
        if name.endswith("bias"):
            fi.fill(array, fi.Uniform(-0.5, 0.5), seed=fi.Key(1) / name)
    x, y = data(7, 4, output)
    with fi.thread_limit(threads):
        loss, gradients = model.loss_and_grad(x, y)
    network = twin(model)
    expected = torch_loss(output, network(torch.from_numpy(x)), y)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    for name, parameter in torch_parameters(network).items():
        np.testing.assert_allclose(gradients[name], parameter.grad.numpy(), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_are_finite_differences(activation):
    output = OUTPUTS[list(ACTIVATIONS).index(activation) % 3]  # all pairs are held against torch above
    model = fi.MLP([3, 4, 2], activation, output, seed=1, dtype="float64")
    x, y = data(3, 2, output, samples=6)
    _, gradients = model.loss_and_grad(x, y)
    gradients = {name: array.copy() for name, array in gradients.items()}
    step = 1e-6
    for name, array in model.parameters.items():
        for index in np.ndindex(array.shape):
            kept = array[index]
            array[index] = kept + step
            above, _ = model.loss_and_grad(x, y)
            array[index] = kept - step
            below, _ = model.loss_and_grad(x, y)
            array[index] = kept
            assert (above - below) / (2 * step) == pytest.approx(gradients[name][index], abs=1e-7)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (lambda: fi.SGD(0.1), lambda p: torch.optim.SGD(p, 0.1)),
        (
            lambda: fi.SGD(0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
            lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
        ),
        (lambda: fi.Adam(1e-2), lambda p: torch.optim.Adam(p, 1e-2)),
        (lambda: fi.AdamW(1e-2, weight_decay=0.1), lambda p: torch.optim.AdamW(p, 1e-2, weight_decay=0.1)),
    ],
)
def test_clipped_training_is_torchs(mine, theirs, dtype):
    model = fi.MLP([6, 16, 3], "tanh", seed=2, dtype=dtype)
    x, y = data(6, 3, "softmax", samples=45)
    x = x.astype(dtype)
    network, optimizer = twin(model), mine()
    reference = theirs(network.parameters())
    for _ in range(50):
        loss = model.step(x, y, optimizer, max_grad_norm=0.3)
        reference.zero_grad()
        expected = torch_loss("softmax", network(torch.from_numpy(x)), y)
        expected.backward()
        # torch divides by norm + 1e-6; the formula has no such number
        total = torch.nn.utils.get_total_norm([p.grad for p in network.parameters()])
        for p in network.parameters():
            p.grad *= min(1.0, 0.3 / total.item())
        reference.step()
        assert loss == pytest.approx(expected.item(), rel=1e-4 if dtype == "float32" else 1e-10)
    tolerance = 2e-4 if dtype == "float32" else 1e-10
    for name, parameter in torch_parameters(network).items():
        np.testing.assert_allclose(model.parameters[name], parameter.detach().numpy(), rtol=0, atol=tolerance)


# --- runs of steps ---


def state(model):
    return {name: array.copy() for name, array in model.parameters.items()}


def assert_equal_models(a, b):
    for name, array in a.parameters.items():
        np.testing.assert_array_equal(array, b.parameters[name])


@pairs(samples=[1, 2, 7, 16, 33], threads=[1, 2, 8])
def test_an_epoch_is_its_steps(samples, threads, sliced):
    """A batch of one, batches smaller than the thread count, a ragged last one."""
    x, y = data(5, 3, "softmax", samples)
    whole, single = fi.MLP([5, 8, 3], seed=0), fi.MLP([5, 8, 3], seed=0)
    one, other = fi.Adam(0.01), fi.Adam(0.01)
    with fi.thread_limit(threads):
        history = whole.fit(x, y, 2, 7, one, max_grad_norm=0.5, shuffle=False)
        losses, norms = [], []
        for _ in range(2):
            for first in range(0, samples, 7):
                batch = slice(first, first + 7)
                losses.append((single.step(x[batch], y[batch], other, 0.5), len(y[batch])))
                norms.append(math.sqrt(sum(float((g.astype("f8") ** 2).sum()) for g in single.gradients.values())))
    assert one.steps == other.steps == len(losses)
    assert_equal_models(whole, single)
    half = len(losses) // 2
    for epoch, part in enumerate((losses[:half], losses[half:])):
        mean = sum(loss * n for loss, n in part) / samples
        assert history.loss[epoch] == pytest.approx(mean, rel=1e-12)
    assert history.gradient_norm[1] == pytest.approx(np.mean(norms[half:]), rel=1e-5)
    assert history.clipped[1] == pytest.approx(np.mean(np.array(norms[half:]) > 0.5))


def test_a_shuffled_epoch_sees_every_sample_once_in_an_order_of_the_seed():
    x, y = np.eye(40), np.arange(40) % 4
    runs = []
    for seed in (0, 0, 1):
        model = fi.MLP([40, 4], init="zeros", seed=seed)
        model.fit(x, y, 1, 8, fi.SGD(1.0))
        runs.append(state(model))
    np.testing.assert_array_equal(runs[0]["layers.0.weight"], runs[1]["layers.0.weight"])
    assert (runs[0]["layers.0.weight"] != runs[2]["layers.0.weight"]).any()
    # Every sample is a feature of its own: its column has moved, once.
    assert (runs[0]["layers.0.weight"] != 0).all()
    first, second = (fi.MLP([40, 4], init="zeros", seed=0) for _ in range(2))
    optimizers = fi.SGD(1.0), fi.SGD(1.0)
    first.fit(x, y, 3, 8, optimizers[0])
    for _ in range(3):
        second.fit(x, y, 1, 8, optimizers[1])
    assert_equal_models(first, second)  # another epoch has another order, in one fit or in three


def test_bits_do_not_depend_on_who_does_the_work(sliced, monkeypatch):
    """Any number of threads, and helpers that come, come late or never come, make the same bits."""
    x, y = data(20, 5, "softmax", 300)

    def trained(threads):
        model = fi.MLP([20, 64, 100, 5], seed=0)
        with fi.thread_limit(threads):
            model.fit(x, y, 3, 50, fi.Adam())
        return model

    alone = trained(1)
    for threads in range(2, 9):
        assert_equal_models(trained(threads), alone)
    monkeypatch.setattr(training, "together", lambda work, _workers: work())
    assert_equal_models(trained(3), alone)


def test_small_steps_are_not_cut(monkeypatch):
    asked = []
    inner = training.together
    monkeypatch.setattr(training, "together", lambda work, workers: (asked.append(workers), inner(work, workers)))
    with fi.thread_limit(3):
        for width in (8, 2048):
            x, y = data(width, 5, "softmax", 1024)
            fi.MLP([width, 5], seed=0).fit(x, y, 1, 512, fi.SGD(0.1))
    assert asked == [1, 3]


def test_long_runs_go_in_several_calls(monkeypatch):
    x, y = data(6, 3, "softmax", 101)
    one, many = fi.MLP([6, 7, 3], seed=0), fi.MLP([6, 7, 3], seed=0)
    one.fit(x, y, 2, 10, fi.Adam())
    monkeypatch.setattr(training, "SLAB_PRODUCTS", 1)
    calls = []
    inner = training.together
    monkeypatch.setattr(training, "together", lambda *call: (calls.append(1), inner(*call)))
    many.fit(x, y, 2, 10, fi.Adam())
    assert len(calls) == 22
    assert_equal_models(one, many)
    np.testing.assert_array_equal(one.forward(x), many.forward(x))


# --- populations ---


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("activation", ["tanh", "gelu"])
def test_a_population_is_its_members(activation, output):
    x, y = data(6, 3, output, 41)
    population = fi.MLP([6, 8, 3], activation, output, population=4, seed=2, dtype="float64")
    singles = [fi.MLP([6, 8, 3], activation, output, seed=0, dtype="float64") for _ in range(4)]
    for i, single in enumerate(singles):
        for name, array in single.parameters.items():
            array[...] = population.parameters[name][i]
    assert (population.parameters["layers.0.weight"][0] != population.parameters["layers.0.weight"][1]).any()
    history = population.fit(x, y, 3, 9, fi.Adam(0.01), max_grad_norm=0.4, validation=(x, y), shuffle=False)
    for i, single in enumerate(singles):
        alone = single.fit(x, y, 3, 9, fi.Adam(0.01), max_grad_norm=0.4, validation=(x, y), shuffle=False)
        for found, expected in zip(vars(history).values(), vars(alone).values(), strict=True):
            assert [entry[i] for entry in found] == expected
        for name, array in single.parameters.items():
            np.testing.assert_array_equal(population.parameters[name][i], array)
        np.testing.assert_array_equal(population.forward(x)[i], single.forward(x))
        np.testing.assert_array_equal(population.predict(x)[i], single.predict(x))
        assert population.score(x, y)[i] == pytest.approx(single.score(x, y))
        if output != "identity":
            np.testing.assert_array_equal(population.predict_proba(x)[i], single.predict_proba(x))
    losses, gradients = population.loss_and_grad(x, y)
    assert losses.shape == (4,)
    assert gradients["layers.1.weight"].shape == (4, 3, 8)
    assert population.step(x, y, fi.SGD(0.1)).shape == (4,)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_a_populations_bits_do_not_depend_on_the_thread_count(threads, monkeypatch):
    monkeypatch.setattr(layers, "PARALLEL_PRODUCTS", 0)
    x, y = data(10, 3, "softmax", 64)
    with fi.thread_limit(1):
        expected = fi.MLP([10, 16, 3], population=5, seed=0)
        expected.fit(x, y, 2, 16, fi.Adam())
    with fi.thread_limit(threads):
        found = fi.MLP([10, 16, 3], population=5, seed=0)
        found.fit(x, y, 2, 16, fi.Adam())
        assert_equal_models(expected, found)
        np.testing.assert_array_equal(expected.forward(x), found.forward(x))


# --- initialisation ---


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_default_law_fits_the_activation(activation):
    model = fi.MLP([300, 200, 10], activation, seed=4)
    scheme = FITTING.get(activation, "xavier_uniform")
    for i, shape in enumerate([(200, 300), (10, 200)]):
        name = f"layers.{i}.weight"
        expected = fi.fill(np.empty(shape, np.float32), fi.distribution(scheme, shape), seed=fi.Key(4) / name)
        np.testing.assert_array_equal(model.parameters[name], expected)
        assert (model.parameters[f"layers.{i}.bias"] == 0).all()


def test_laws_by_name_by_distribution_and_by_layer():
    named = fi.MLP([5, 4, 3], init="lecun_uniform", seed=0)
    expected = fi.lecun_uniform((4, 5), seed=fi.Key(0) / "layers.0.weight")
    np.testing.assert_array_equal(named.parameters["layers.0.weight"], expected)
    each = fi.MLP([5, 4, 3], init=["orthogonal", fi.Constant(0.5)], seed=0)
    weight = each.parameters["layers.0.weight"]
    np.testing.assert_allclose(weight @ weight.T, np.eye(4), atol=1e-6)
    assert (each.parameters["layers.1.weight"] == 0.5).all()
    members = fi.MLP([5, 4, 3], init="orthogonal", seed=0, population=3).parameters["layers.0.weight"]
    for member in members:
        np.testing.assert_allclose(member @ member.T, np.eye(4), atol=1e-6)


def test_parameters_and_gradients_are_views_of_one_buffer():
    model = fi.MLP([5, 4, 3], seed=0)
    assert list(model.parameters) == ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"]
    for arrays in (model.parameters, model.gradients):
        bases = {id(array.base if array.base.base is None else array.base.base) for array in arrays.values()}
        assert len(bases) == 1
        assert all(array.flags.c_contiguous and array.flags.writeable for array in arrays.values())
    before = model.forward(np.ones((1, 5)))
    model.parameters["layers.1.bias"][...] += 1
    np.testing.assert_allclose(model.forward(np.ones((1, 5))), before + 1, rtol=1e-6)


# --- shapes of what comes out ---


def test_shapes_are_scikit_learns():
    x = np.ones((6, 4))
    softmax, binary = fi.MLP([4, 3], seed=0), fi.MLP([4, 1], output="sigmoid", seed=0)
    labels, values = fi.MLP([4, 3], output="sigmoid", seed=0), fi.MLP([4, 2], output="identity", seed=0)
    value = fi.MLP([4, 1], output="identity", seed=0)
    assert [m.predict(x).shape for m in (softmax, binary, labels, values, value)] == [(6,), (6,), (6, 3), (6, 2), (6,)]
    assert [m.predict_proba(x).shape for m in (softmax, binary, labels)] == [(6, 3), (6, 2), (6, 3)]
    for model in (softmax, binary):
        np.testing.assert_allclose(model.predict_proba(x).sum(axis=1), 1, rtol=1e-6)
        np.testing.assert_array_equal(model.predict_proba(x).argmax(axis=1), model.predict(x))
    assert softmax.predict(x[:0]).shape == (0,)
    assert softmax.forward(np.ones((1000, 4))).shape == (1000, 3)


def test_forward_is_the_formula():
    model = fi.MLP([6, 50, 1], "relu", "identity", seed=0, dtype="float64")
    x = RNG.standard_normal((777, 6))
    w, v = model.parameters["layers.0.weight"], model.parameters["layers.1.weight"]
    for threads in (1, 3):
        with fi.thread_limit(threads):
            np.testing.assert_allclose(model.forward(x), np.maximum(x @ w.T, 0) @ v.T, rtol=1e-12, atol=1e-12)


def test_scores_are_scikit_learns():
    from sklearn.metrics import accuracy_score, r2_score

    for output, outputs in (("softmax", 3), ("sigmoid", 1), ("sigmoid", 3), ("identity", 1), ("identity", 2)):
        model = fi.MLP([5, 8, outputs], output=output, seed=0)
        x, y = data(5, outputs, output, 50)
        score = r2_score if output == "identity" else accuracy_score
        assert model.score(x, y) == pytest.approx(score(y, model.predict(x)), abs=1e-6)
    constant = fi.MLP([5, 1], output="identity", init="zeros")
    assert constant.score(np.ones((4, 5)), np.zeros(4)) == 1
    assert constant.score(np.ones((4, 5)), np.ones(4)) == 0


def test_targets_that_mean_the_same_are_the_same():
    x, y = data(5, 3, "softmax", 30)
    losses = {fi.MLP([5, 3], seed=0).loss_and_grad(x, t)[0] for t in (y, y.astype(np.uint8), y.tolist())}
    assert len(losses) == 1
    assert fi.MLP([5, 3], seed=0).loss_and_grad(x, np.eye(3)[y])[0] == pytest.approx(losses.pop(), rel=1e-6)
    assert fi.MLP([5, 3], seed=0).score(x, np.eye(3)[y]) == fi.MLP([5, 3], seed=0).score(x, y)
    sign = np.where(y > 0, 1, -1)
    binary = [fi.MLP([5, 1], output="sigmoid", seed=0) for _ in range(4)]
    forms = (sign, (sign > 0).astype(int), (sign > 0)[:, None], (sign > 0).astype(float))
    assert len({m.loss_and_grad(x, t)[0] for m, t in zip(binary, forms, strict=True)}) == 1
    assert len({m.score(x, t) for m, t in zip(binary, forms, strict=True)}) == 1


# --- what is refused, and what is reported ---

X, Y = np.zeros((4, 5), np.float32), np.array([0, 1, 2, 0])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"sizes": [5]},
            ValueError,
            "sizes must be two or more ints: features, units of each layer. Received: sizes=[5]",
        ),
        ({"sizes": 5}, ValueError, "sizes must be two or more ints: features, units of each layer. Received: sizes=5"),
        ({"sizes": [5, 0]}, ValueError, "sizes must be positive. Received: sizes=0"),
        ({"sizes": [5, 2.0]}, TypeError, "sizes must be an int. Received: sizes=2.0"),
        ({"activation": "rely"}, ValueError, "unknown activation 'rely'; did you mean 'relu'?"),
        ({"activation": 3}, TypeError, "activation must be a name or an Activation. Received: 3"),
        ({"output": "softmaxx"}, ValueError, "unknown output 'softmaxx'; did you mean 'softmax'?"),
        ({"dtype": "float16"}, TypeError, "dtype must be one of float32, float64. Received: dtype='float16'"),
        ({"population": 0}, ValueError, "population must be positive. Received: population=0"),
        ({"population": 2.0}, TypeError, "population must be an int. Received: population=2.0"),
        ({"init": "he"}, ValueError, "unknown scheme 'he'"),
        ({"init": ["he_normal"]}, ValueError, "init must be one, or one for each of 2 layers. Received: 1"),
        ({"init": 3}, TypeError, "init must be a scheme's name, a distribution, or a sequence of them. Received: 3"),
        ({"seed": -1}, ValueError, "seed must not be negative. Received: seed=-1"),
    ],
    ids=str,
)
def test_what_is_no_model(arguments, error, message):
    with pytest.raises(error) as caught:
        fi.MLP(**({"sizes": [5, 4, 3]} | arguments))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"X": X[:, :4]}, ValueError, "X must have shape (samples, 5) and at least one sample. Received: shape (4, 4)"),
        ({"X": X[0]}, ValueError, "X must have shape (samples, 5) and at least one sample. Received: shape (5,)"),
        ({"X": X[:0]}, ValueError, "X must have shape (samples, 5) and at least one sample. Received: shape (0, 5)"),
        ({"X": X.astype(complex)}, TypeError, "X must be real numbers. Received: dtype complex128"),
        ({"X": X.astype(str)}, TypeError, "X must be real numbers. Received: dtype <U32"),
        ({"y": Y[:3]}, ValueError, "y must have shape (4, 3) or (4,) for 4 samples. Received: shape (3,)"),
        ({"y": np.zeros((4, 2))}, ValueError, "y must have shape (4, 3) or (4,) for 4 samples. Received: shape "),
        ({"y": np.full((4, 3), -1)}, ValueError, "shares of classes must not be negative, nor infinite. Received: "),
        (
            {"y": ["a"] * 4},
            ValueError,
            "y must have 3 classes, one for each output. Received: 1 class: 'a'; name them all by ",
        ),
        ({"epochs": 0}, ValueError, "epochs must be positive. Received: epochs=0"),
        ({"batch_size": 2.5}, TypeError, "batch_size must be an int. Received: batch_size=2.5"),
        ({"optimizer": "sdg"}, ValueError, "unknown optimizer 'sdg'; did you mean 'sgd'? Allowed: sgd, adam, adamw"),
        (
            {"optimizer": fi.SGD},
            TypeError,
            "optimizer must be one of 'sgd', 'adam', 'adamw', or an SGD, Adam or AdamW. ",
        ),
        ({"optimizer": None}, TypeError, "optimizer must be one of 'sgd', 'adam', 'adamw', or an SGD, Adam or AdamW. "),
        ({"max_grad_norm": -1}, ValueError, "max_grad_norm must not be negative. Received: max_grad_norm=-1"),
        ({"max_grad_norm": math.nan}, ValueError, "max_grad_norm must be finite. Received: max_grad_norm=nan"),
        ({"validation": (X[:, :1], Y)}, ValueError, "X must have shape (samples, 5) and at least one "),
        ({"validation": (X, Y, None, 1)}, TypeError, "validation must be a tuple (X, y) or (X, y, sample_weight). "),
        ({"validation": 0.1}, TypeError, "validation must be a tuple (X, y) or (X, y, sample_weight). Received: float"),
        ({"validation": (X[:0], Y[:0])}, ValueError, "X must have shape (samples, 5) and at least one sample. "),
        ({"callback": 3}, TypeError, "callback must be callable. Received: 3"),
        ({"validation": (X, Y + 9)}, ValueError, "y must be of the classes 0, 1, 2. Received: 9 in row 0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_cannot_be_fitted_changes_nothing(change, error, message):
    model = fi.MLP([5, 4, 3], seed=0)
    before = state(model)
    arguments = {"X": X, "y": Y, "epochs": 1, "batch_size": 2, "optimizer": fi.SGD(0.1)} | change
    with pytest.raises(error) as caught:
        model.fit(**arguments)
    assert str(caught.value).startswith(message)
    for name, array in model.parameters.items():
        np.testing.assert_array_equal(array, before[name])
    assert model.epochs == 0


def test_a_rate_that_was_assigned_is_checked_before_anything():
    model, optimizer = fi.MLP([5, 4, 3], seed=0), fi.SGD(0.1)
    optimizer.learning_rate = -1.0
    with pytest.raises(ValueError, match=r"learning_rate must not be negative. Received: learning_rate=-1.0"):
        model.fit(X, Y, 1, 2, optimizer)
    assert model.epochs == 0


def test_parameters_are_written_into_not_replaced():
    model = fi.MLP([5, 4, 3], seed=0)
    with pytest.raises(TypeError):
        model.parameters["layers.0.weight"] = np.zeros((4, 5), np.float32)
    with pytest.raises(TypeError):
        model.gradients["layers.0.weight"] = np.zeros((4, 5), np.float32)


def test_without_a_seed_every_network_is_another_and_its_key_gives_it_again():
    one, other = fi.MLP([5, 4, 3]), fi.MLP([5, 4, 3])
    assert one.key != other.key
    assert (one.parameters["layers.0.weight"] != other.parameters["layers.0.weight"]).any()
    for seed in (one.key, one.key.seed):
        again = fi.MLP([5, 4, 3], seed=seed)
        assert again.key == one.key
        for name, array in one.parameters.items():
            assert (again.parameters[name] == array).all()
    # Shuffling goes by the key too.
    again.fit(X, Y, 2, 2, fi.SGD(0.1))
    one.fit(X, Y, 2, 2, fi.SGD(0.1))
    assert (again.parameters["layers.0.weight"] == one.parameters["layers.0.weight"]).all()


def test_numpy_numbers_are_numbers():
    model = fi.MLP(np.array([5, 4, 3]), population=np.int64(2))
    model.fit(X, Y, np.int32(2), np.uint8(2), fi.SGD(0.1), callback=lambda e, h: (h.loss[-1] > 0).all())
    assert model.epochs == 1  # what the callback returned is NumPy's bool


def test_an_optimizer_belongs_to_one_model():
    optimizer = fi.Adam()
    fi.MLP([5, 4, 3], seed=0).step(X, Y, optimizer)
    other = fi.MLP([5, 3], seed=0)
    before = state(other)
    with pytest.raises(ValueError, match="an optimizer belongs to one model"):
        other.step(X, Y, optimizer)
    for name, array in other.parameters.items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nan_in_the_weights_reaches_the_loss_and_is_reported(activation):
    for output in OUTPUTS:
        x, y = data(5, 3, output, 9)
        model = fi.MLP([5, 4, 3], activation, output, seed=0)
        model.parameters["layers.0.weight"][1, 2] = np.nan
        assert math.isnan(model.loss_and_grad(x, y)[0])
        with pytest.warns(RuntimeWarning, match="the loss is not finite in epoch 0"):
            history = model.fit(x, y, 1, 3, fi.SGD(0.1))
        assert math.isnan(history.loss[0])
        if activation in ("identity", "relu"):
            model = fi.MLP([5, 4, 3], activation, output, seed=0)
            model.parameters["layers.0.weight"][1, 2] = np.inf
            assert not math.isfinite(model.loss_and_grad(x, y)[0])


def test_callbacks_and_progress():
    seen = []

    def stop(epoch, history):
        seen.append((epoch, len(history.loss)))
        return epoch == 2

    history = fi.MLP([5, 4, 3], seed=0).fit(X, Y, 9, 2, fi.SGD(0.1), callback=stop, progress=True)
    assert seen == [(0, 1), (1, 2), (2, 3)]
    assert len(history.loss) == 3
    counts = []
    fi.MLP([5, 4, 3], seed=0).fit(X, Y, 3, 2, fi.SGD(0.1), progress=lambda *both: counts.append(both))
    assert counts == [(1, 3), (2, 3), (3, 3)]
    assert history.validation == []


# --- copies and files ---


@pytest.mark.parametrize("population", [None, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_files_and_copies_go_on_as_the_model_would(population, dtype, tmp_path):
    x, y = data(5, 2, "sigmoid", 20)
    activation = fi.activation("leaky_relu", slope=0.2)
    key = fi.Key(2**100) / "a"
    model = fi.MLP([5, 4, 2], activation, "sigmoid", seed=key, dtype=dtype, population=population)
    model.fit(x, y, 2, 8, fi.SGD(0.1))
    model.save(tmp_path / "model.safetensors")
    others = [
        fi.MLP.load(tmp_path / "model.safetensors"),
        copy.deepcopy(model),
        copy.copy(model),
        pickle.loads(pickle.dumps(model)),
    ]
    for other in others:
        assert_equal_models(model, other)
        assert other.activation == activation
        assert other.key == key
    model.fit(x, y, 2, 8, fi.SGD(0.1))
    for other in others:
        other.fit(x, y, 2, 8, fi.SGD(0.1))
        assert_equal_models(model, other)


def test_the_file_is_read_by_safetensors(tmp_path):
    from safetensors.numpy import load_file, save_file

    model = fi.MLP([5, 4, 3], seed=0)
    model.save(tmp_path / "model.safetensors")
    found = load_file(tmp_path / "model.safetensors")
    assert set(found) == set(model.parameters)
    for name, array in model.parameters.items():
        np.testing.assert_array_equal(found[name], array)
    about = {"fastinit.MLP": json.dumps(model._about())}
    bias = found["layers.0.bias"]
    other = tmp_path / "other.safetensors"
    save_file(found, other, metadata=about)  # in an order of its own
    assert_equal_models(fi.MLP.load(other), model)
    for tensors, metadata in (
        (found, {}),
        (found, {"fastinit.MLP": "{"}),
        (found, {"fastinit.MLP": "[]"}),
        (found | {"layers.0.bias": bias[:1]}, about),
        (found | {"layers.0.bias": bias.astype(np.float64)}, about),
        (found | {"more": bias}, about),
        ({"layers.0.bias": bias}, about),
    ):
        save_file(tensors, other, metadata=metadata)
        with pytest.raises(ValueError, match=r"path must be a file that MLP\.save wrote"):
            fi.MLP.load(other)
    for content in (b"", b"no safetensors"):
        other.write_bytes(content)
        with pytest.raises(ValueError, match=r"path must be a file that MLP\.save wrote"):
            fi.MLP.load(other)
    for path, error in ((tmp_path / "none", FileNotFoundError), (tmp_path, IsADirectoryError)):
        with pytest.raises(error):
            fi.MLP.load(path)
    with pytest.raises(FileNotFoundError):
        model.save(tmp_path / "none" / "model.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", "other.safetensors"]
    assert repr(model) == "MLP([5, 4, 3], 'relu', 'softmax', dtype='float32')"


# --- threads and interrupts ---


def test_no_threads_are_left_but_the_helpers():
    x, y = data(64, 10, "softmax", 512)
    model, before = fi.MLP([64, 256, 256, 10], seed=0), set(threading.enumerate())
    with fi.thread_limit(3):
        for _ in range(2):
            model.fit(x, y, 1, 128, fi.SGD(0.1))
            model.forward(x)
    new = set(threading.enumerate()) - before
    assert all(one.daemon and one.name.startswith("fastinit-") for one in new)
    assert len([one for one in threading.enumerate() if one.name.startswith("fastinit-")]) >= 2


def test_python_threads_train_at_once():
    x, y = data(30, 4, "softmax", 400)

    def train(results, seed):
        model = fi.MLP([30, 64, 4], seed=seed)
        model.fit(x, y, 5, 32, fi.Adam())
        results[seed] = model

    alone, together = {}, {}
    for seed in range(4):
        train(alone, seed)
    workers = [threading.Thread(target=train, args=(together, seed)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for seed in range(4):
        assert_equal_models(alone[seed], together[seed])


INTERRUPTED = """
import json, os, signal, threading, time
import numpy as np
import fastinit as fi
signal.signal(signal.SIGINT, signal.default_int_handler)
rng = np.random.default_rng(0)
x, y = rng.standard_normal((4096, 64)).astype("f"), rng.integers(0, 10, 4096)

def model():
    return fi.MLP([64, 512, 512, 10], seed=0)

found, optimizer = model(), fi.Adam()
found.step(x[:32], y[:32], optimizer)  # compiled before the signal
found, optimizer, sent = model(), fi.Adam(), []

def send():
    sent.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)

threading.Timer(0.5, send).start()
try:
    found.fit(x, y, 10**6, 32, optimizer, shuffle=False)
except KeyboardInterrupt:
    latency = time.monotonic() - sent[0]
again, other = model(), fi.Adam()
per_epoch = 4096 // 32
while other.steps + per_epoch <= optimizer.steps:
    again.fit(x, y, 1, 32, other, shuffle=False)
for first in range(0, 32 * (optimizer.steps - other.steps), 32):
    again.step(x[first:first + 32], y[first:first + 32], other)
same = all((found.parameters[name] == again.parameters[name]).all() for name in found.parameters)
found.fit(x, y, 1, 32, optimizer)
print(json.dumps([latency, optimizer.steps, other.steps, same]))
"""


@pytest.mark.slow
def test_an_interrupt_leaves_whole_steps():
    latency, steps, others, same = json.loads(processes.run(INTERRUPTED, NUMBA_NUM_THREADS="2"))
    assert latency < 0.5
    assert steps - 128 == others > 0
    assert same
