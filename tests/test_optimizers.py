"""Optimisers: parity with torch's and plain NumPy over many steps, schedules, threads, and what is refused."""

import numpy as np
import pytest
import reference
import torch

import fastinit as fi
from fastinit._native.records import UPDATE_CHUNK as CHUNK
from fastinit._runtime import threads
from fastinit.nn import _optimizers as optimizers

STEPS = 100
# name -> (fastinit's, torch's, the reference's); of a layer's usual scale, 100 steps with a learning rate of 0.01.
CASES = {
    "sgd": (lambda: fi.SGD(0.01), torch.optim.SGD, {}, {}),
    "sgd decay": (lambda: fi.SGD(0.01, weight_decay=0.1), torch.optim.SGD, {"weight_decay": 0.1}, {"decay": 0.1}),
    "momentum": (lambda: fi.SGD(0.01, momentum=0.9), torch.optim.SGD, {"momentum": 0.9}, {"momentum": 0.9}),
    "momentum decay": (
        lambda: fi.SGD(0.01, momentum=0.5, weight_decay=0.1),
        torch.optim.SGD,
        {"momentum": 0.5, "weight_decay": 0.1},
        {"momentum": 0.5, "decay": 0.1},
    ),
    "nesterov": (
        lambda: fi.SGD(0.01, momentum=0.9, nesterov=True, weight_decay=0.1),
        torch.optim.SGD,
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        {"momentum": 0.9, "nesterov": True, "decay": 0.1},
    ),
    "adam": (lambda: fi.Adam(0.01), torch.optim.Adam, {}, {}),
    "adam decay": (
        lambda: fi.Adam(0.01, beta1=0.8, beta2=0.99, epsilon=1e-3, weight_decay=0.1),
        torch.optim.Adam,
        {"betas": (0.8, 0.99), "eps": 1e-3, "weight_decay": 0.1},
        {"betas": (0.8, 0.99), "eps": 1e-3, "decay": 0.1},
    ),
    "adamw": (lambda: fi.AdamW(0.01), torch.optim.AdamW, {}, {"decay": 0.01}),
    "adamw decay": (
        lambda: fi.AdamW(0.01, weight_decay=0.5),
        torch.optim.AdamW,
        {"weight_decay": 0.5},
        {"decay": 0.5},
    ),
}
# float32: the weights stay below 0.5 or so, whose last place is 3e-8; Adam's steps are as large as the rate, so that
# its weights wander and gather a hundred roundings.
TOLERANCE = {"float32": 1e-6, "float64": 1e-12}

each_case = pytest.mark.parametrize("case", CASES)
each_dtype = pytest.mark.parametrize("dtype", TOLERANCE)


def problem(dtype="float64", shape=(7, 9), steps=STEPS, seed=0):
    """Weights of a layer's usual scale, and a gradient for every step."""
    rng = np.random.default_rng(seed)
    return rng.normal(0, 0.05, shape).astype(dtype), rng.normal(0, 0.1, (steps, *shape)).astype(dtype)


def trained(optimizer, weights, gradients, **how):
    weights = weights.copy()
    for gradient in gradients:
        optimizer.update(weights, np.asarray(gradient), **how)
    return weights


def torchs(case, weights, gradients, schedule=None):
    _, kind, numbers, _ = CASES[case]
    parameter = torch.nn.Parameter(torch.tensor(weights))
    optimizer = kind([parameter], lr=0.01, **numbers)
    for step, gradient in enumerate(gradients):
        if schedule is not None:
            optimizer.param_groups[0]["lr"] = schedule(step)
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
    return parameter.detach().numpy()


def made(case):
    return CASES[case][0]()


# --- parity ---


@each_case
def test_a_hundred_steps_are_torchs(case):
    for dtype, tolerance in TOLERANCE.items():
        weights, gradients = problem(dtype)
        found = trained(made(case), weights, gradients)
        assert found.dtype == dtype
        np.testing.assert_allclose(found, torchs(case, weights, gradients), rtol=tolerance, atol=tolerance)


@each_case
def test_a_hundred_steps_are_the_references(case):
    name = case.split()[0].replace("momentum", "sgd").replace("nesterov", "sgd")
    for dtype, tolerance in TOLERANCE.items():
        weights, gradients = problem(dtype)
        expected = reference.updated(name, weights, gradients, 0.01, **CASES[case][3])
        np.testing.assert_allclose(trained(made(case), weights, gradients), expected, rtol=tolerance, atol=tolerance)


@each_case
def test_a_factor_scales_the_gradients_on_the_way(case):
    weights, gradients = problem()
    before = gradients.copy()
    found = trained(made(case), weights, gradients, factor=0.25)  # a power of two: the same bits
    np.testing.assert_array_equal(found, trained(made(case), weights, gradients * 0.25))
    np.testing.assert_array_equal(gradients, before)
    assert not np.array_equal(found, trained(made(case), weights, gradients))


@each_case
def test_a_learning_rate_may_follow_a_schedule(case):
    def schedule(step):
        return 0.01 * (1 + step % 7) / (1 + step)

    for dtype, tolerance in TOLERANCE.items():
        weights, gradients = problem(dtype)
        optimizer, found = made(case), weights.copy()
        for step, gradient in enumerate(gradients):
            optimizer.learning_rate = schedule(step)
            optimizer.update(found, gradient)
        assert optimizer.steps == STEPS
        expected = torchs(case, weights, gradients, schedule)
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def test_a_momentum_may_follow_a_schedule():
    weights, gradients = problem(steps=3)
    optimizer, found, velocity, expected = fi.SGD(0.1), weights.copy(), np.zeros_like(weights), weights.copy()
    for momentum, gradient in zip((0.0, 0.5, 0.9), gradients, strict=True):
        optimizer.momentum = momentum
        optimizer.update(found, gradient)
        expected -= 0.1 * (momentum * velocity + gradient)
        velocity = momentum * velocity + gradient if momentum else velocity  # without one there is none to keep
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_learning_rate_of_zero_changes_nothing():
    weights, gradients = problem(steps=3)
    for case in CASES:
        optimizer = made(case)
        optimizer.learning_rate = 0
        np.testing.assert_array_equal(trained(optimizer, weights, gradients), weights)


# --- arrays ---


@pytest.mark.parametrize("case", ["sgd", "nesterov", "adamw"])
def test_one_array_a_list_a_mapping_and_an_iterator_are_the_same(case):
    shapes = {"a": (3, 4), "b": (4,), "c": (), "d": (0, 4), "e": (2, 1, 3)}
    weights = {name: problem(shape=shape)[0] for name, shape in shapes.items()}
    slopes = {name: problem(shape=shape)[1] for name, shape in shapes.items()}
    expected = {name: trained(made(case), weights[name], slopes[name][:5]) for name in shapes}
    forms = {
        "mapping": (dict, lambda found: dict(reversed(found.items()))),  # by name, not by place
        "list": (lambda found: list(found.values()), lambda found: list(found.values())),
        "iterator": (lambda found: iter(found.values()), lambda found: (one for one in found.values())),
        "mapping and list": (dict, lambda found: list(found.values())),
    }
    for of_weights, of_slopes in forms.values():
        optimizer, found = made(case), {name: np.array(array) for name, array in weights.items()}
        for step in range(5):
            slope = {name: np.asarray(array[step]) for name, array in slopes.items()}
            optimizer.update(of_weights(found), of_slopes(slope))
        assert optimizer.steps == 5
        for name in shapes:
            np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.parametrize("case", ["sgd", "nesterov", "adamw"])
def test_both_dtypes_in_one_step(case):
    single, double = (problem(dtype, shape) for dtype, shape in (("float32", (5, 3)), ("float64", (4,))))
    expected = [trained(made(case), weights, gradients) for weights, gradients in (single, double)]
    optimizer, found = made(case), [single[0].copy(), double[0].copy()]
    for step in range(STEPS):
        optimizer.update(found, [single[1][step], double[1][step]])
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@each_dtype
@pytest.mark.parametrize("case", ["sgd decay", "nesterov", "adamw"])
def test_the_bits_do_not_depend_on_the_thread_count(case, dtype, monkeypatch):
    monkeypatch.setattr(optimizers, "PARALLEL_FROM", 1)
    shapes = [(3 * CHUNK + 5,), (7,), (2, CHUNK), (0,), (CHUNK - 1,)]
    parts = [problem(dtype, shape, 3, i) for i, shape in enumerate(shapes)]
    found = {}
    for number in (1, 2, 3):
        optimizer, weights = made(case), [weight.copy() for weight, _ in parts]
        with fi.thread_limit(number):
            for step in range(3):
                optimizer.update(weights, [slopes[step] for _, slopes in parts])
        found[number] = [weight.tobytes() for weight in weights]
    assert found[1] == found[2] == found[3]
    kind, numbers = case.split()[0].replace("nesterov", "sgd"), CASES[case][3]
    for (weight, slopes), bits in zip(parts, found[1], strict=True):
        expected = reference.updated(kind, weight, slopes, 0.01, **numbers).ravel()
        tolerance = TOLERANCE[dtype]
        np.testing.assert_allclose(np.frombuffer(bits, dtype), expected, rtol=tolerance, atol=tolerance)


def test_helpers_are_asked_for_where_the_arrays_are_large(monkeypatch):
    seen = []
    monkeypatch.setattr(threads, "together", lambda work, workers: seen.append(workers) or work())
    with fi.thread_limit(3):
        for size in (optimizers.PARALLEL_FROM - 1, optimizers.PARALLEL_FROM):
            fi.SGD(0.1).update([np.zeros(size - 1), np.zeros(1)], [np.zeros(size - 1), np.zeros(1)])
    assert seen == [1, 3]


def test_an_interrupt_leaves_whole_steps(monkeypatch):
    """One call into compiled code does all of a step, however many elements it has."""
    calls, walk = [], threads.walk
    monkeypatch.setattr(optimizers, "walk", lambda *given, **how: calls.append(how["most"]) or walk(*given, **how))
    weights = [np.ones(3 * CHUNK + 5), np.ones(7, np.float32)]
    fi.SGD(0.5).update(weights, [np.ones_like(array) for array in weights])
    assert calls == [None]
    assert all((array == 0.5).all() for array in weights)


def test_the_gradients_are_not_changed_and_may_be_read_only():
    for case in CASES:
        weights, gradients = problem(steps=3)
        before = gradients.copy()
        gradients.flags.writeable = False
        trained(made(case), weights, gradients, factor=0.3)
        np.testing.assert_array_equal(gradients, before)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 0)], ids=str)
def test_empty_arrays(shape):
    for case in CASES:
        optimizer, empty = made(case), np.zeros(shape)
        optimizer.update(empty, empty)
        optimizer.update(empty, empty)
        assert optimizer.steps == 2


def test_no_arrays():
    for nothing in ([], {}, iter(())):
        optimizer = fi.Adam()
        optimizer.update(nothing, [])
        assert optimizer.steps == 1


@each_case
def test_a_nan_gradient_reaches_its_weight_and_no_other(case):
    for dtype in TOLERANCE:
        weights, gradients = problem(dtype, steps=3)
        expected = trained(made(case), weights, gradients)
        gradients[1, 2, 3] = np.nan
        found = trained(made(case), weights, gradients)
        assert np.isnan(found[2, 3])
        found[2, 3] = expected[2, 3]
        np.testing.assert_array_equal(found, expected)


def test_gradients_of_zero_leave_the_weights():
    """Adam's step is 0 / (0 + epsilon)."""
    weights, _ = problem()
    for make in (fi.Adam, fi.SGD):
        np.testing.assert_array_equal(trained(make(0.1), weights, np.zeros((3, *weights.shape))), weights)


# --- memory ---


@each_case
def test_two_optimizers_know_nothing_of_each_other(case):
    weights, gradients = problem(steps=6)
    first, second = made(case), made(case)
    one, other = weights.copy(), weights.copy()
    for gradient in gradients:
        first.update(one, gradient)
        second.update(other, gradient)
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(one, trained(made(case), weights, gradients))


@each_case
def test_another_models_arrays_are_refused(case):
    weights, gradients = problem(steps=4)
    optimizer, found = made(case), weights.copy()
    optimizer.update(found, gradients[0])
    before = "[((7, 9), 'float64')]"
    for other, shown in (
        (np.ones((9, 7)), "[((9, 7), 'float64')]"),
        (np.ones((7, 9), np.float32), "[((7, 9), 'float32')]"),
        ([np.ones((7, 9)), np.ones(3)], "[((7, 9), 'float64'), ((3,), 'float64')]"),
        ([], "[]"),
    ):
        kept = [array.copy() for array in (other if isinstance(other, list) else [other])]
        with pytest.raises(ValueError, match=r"^an optimizer belongs to one model\.") as caught:
            optimizer.update(other, other)
        assert str(caught.value) == f"an optimizer belongs to one model. Received: {shown}, before: {before}"
        for one, as_it_was in zip(other if isinstance(other, list) else [other], kept, strict=True):
            np.testing.assert_array_equal(one, as_it_was)
    assert optimizer.steps == 1
    for gradient in gradients[1:]:
        optimizer.update(found, gradient)
    np.testing.assert_array_equal(found, trained(made(case), weights, gradients))  # the errors left no trace


# --- errors ---


@each_case
def test_an_error_leaves_everything_as_it_was(case):
    weights, gradients = problem(steps=4)
    optimizer, found = made(case), weights.copy()
    optimizer.update(found, gradients[0])
    after_one = found.copy()
    good, bad = optimizer.learning_rate, gradients[1].astype(np.float32)
    for error, call in (
        (ValueError, lambda: optimizer.update(found, bad)),
        (ValueError, lambda: optimizer.update([found, found[1]], [gradients[1]])),
        (ValueError, lambda: optimizer.update(found, gradients[1], factor=np.nan)),
        (TypeError, lambda: optimizer.update(found, gradients[1], factor="1")),
        (TypeError, lambda: optimizer.update([found, 3], [gradients[1], 3])),
    ):
        with pytest.raises(error):
            call()
    for rate, error in ((-1, ValueError), (np.nan, ValueError), (None, TypeError), (np.inf, ValueError)):
        optimizer.learning_rate = rate
        with pytest.raises(error):
            optimizer.update(found, gradients[1])
    optimizer.learning_rate = good
    np.testing.assert_array_equal(found, after_one)
    assert optimizer.steps == 1
    for gradient in gradients[1:]:
        optimizer.update(found, gradient)
    np.testing.assert_array_equal(found, trained(made(case), weights, gradients))


W = np.ones((2, 3))
FROZEN = np.ones((2, 3))
FROZEN.flags.writeable = False
ARRAYS = [
    (1.0, W, TypeError, "parameters must be a NumPy array or several in a list or dict. Received: float"),
    (W, None, TypeError, "gradients must be a NumPy array or several in a list or dict. Received: NoneType"),
    ("w", W, TypeError, "parameters[0] must be a NumPy array of float32 or float64. Received: str"),
    ([1.0], [1.0], TypeError, "parameters[0] must be a NumPy array of float32 or float64. Received: float"),
    (W.astype(int), W, TypeError, "parameters must be a NumPy array of float32 or float64. Received: int64"),
    (W.astype(np.float16), W, TypeError, "parameters must be a NumPy array of float32 or float64. Received: float16"),
    (FROZEN, W, ValueError, "parameters must be writeable. Received: a read-only array"),
    (W, [[1.0]], TypeError, "gradients[0] must be an array of shape (2, 3) of float64. Received: list"),
    (W, W.T, ValueError, "gradients must be an array of shape (2, 3) of float64. Received: (3, 2) of float64"),
    (
        W, W.astype(np.float32), ValueError,
        "gradients must be an array of shape (2, 3) of float64. Received: (2, 3) of float32",
    ),
    (W, W.astype(">f8"), ValueError, "gradients must be an array of shape (2, 3) of float64. Received: (2, 3) of >f8"),
    ([W, W], [W], ValueError, "gradients must be as many as parameters, 2. Received: 1"),
    (
        {"a": W, "b": W}, {"a": W, "c": W}, ValueError,
        "gradients must have the keys of parameters. Received: only one has 'b', 'c'",
    ),
    (
        np.asfortranarray(W), W, ValueError,
        "parameters must be C-contiguous and aligned. Received: strides (8, 16)",
    ),
    (
        W, np.asfortranarray(W), ValueError,
        "gradients must be C-contiguous and aligned. Received: strides (8, 16)",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("weights", "gradients", "error", "message"), ARRAYS, ids=[row[3] for row in ARRAYS])
def test_bad_arrays(weights, gradients, error, message):
    optimizer = fi.Adam()
    with pytest.raises(error) as caught:
        optimizer.update(weights, gradients)
    assert str(caught.value) == message
    assert optimizer.steps == 0
    assert (W == 1).all()


NUMBERS = [
    (lambda: fi.SGD(-1), ValueError, "learning_rate must not be negative. Received: learning_rate=-1"),
    (lambda: fi.SGD(np.nan), ValueError, "learning_rate must be finite. Received: learning_rate=nan"),
    (lambda: fi.SGD("1"), TypeError, "learning_rate must be a real number. Received: learning_rate='1'"),
    (lambda: fi.SGD(True), TypeError, "learning_rate must be a real number. Received: learning_rate=True"),
    (lambda: fi.SGD(1, momentum=1), ValueError, "momentum must be below 1. Received: momentum=1"),
    (lambda: fi.SGD(1, momentum=-0.1), ValueError, "momentum must not be negative. Received: momentum=-0.1"),
    (lambda: fi.SGD(1, nesterov=True), ValueError, "nesterov needs a momentum. Received: momentum=0.0"),
    (lambda: fi.SGD(1, weight_decay=-1), ValueError, "weight_decay must not be negative. Received: weight_decay=-1"),
    (lambda: fi.Adam(np.inf), ValueError, "learning_rate must be finite. Received: learning_rate=inf"),
    (lambda: fi.Adam(beta1=1.0), ValueError, "beta1 must be below 1. Received: beta1=1.0"),
    (lambda: fi.Adam(beta2=1.5), ValueError, "beta2 must be below 1. Received: beta2=1.5"),
    (lambda: fi.Adam(beta1=-0.5), ValueError, "beta1 must not be negative. Received: beta1=-0.5"),
    (lambda: fi.Adam(epsilon=-1e-8), ValueError, "epsilon must not be negative. Received: epsilon=-1e-08"),
    (lambda: fi.AdamW(weight_decay=None), TypeError, "weight_decay must be a real number. Received: weight_decay=None"),
]


@pytest.mark.parametrize(("make", "error", "message"), NUMBERS, ids=[row[2] for row in NUMBERS])
def test_bad_numbers(make, error, message):
    with pytest.raises(error) as caught:
        make()
    assert str(caught.value) == message
