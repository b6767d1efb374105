"""Losses: values and gradients against plain NumPy and torch, the ends of the range, labels of all kinds, the words."""

import itertools

import numpy as np
import pytest
import reference
import torch

import fastinit as fi

nn = torch.nn.functional
TOLERANCE = {"float32": 3e-6, "float64": 1e-13}
LOSSES = {"softmax": fi.softmax_cross_entropy, "sigmoid": fi.sigmoid_cross_entropy, "squared": fi.mean_squared_error}
TORCH = {
    "softmax": nn.cross_entropy,
    "sigmoid": nn.binary_cross_entropy_with_logits,
    "squared": nn.mse_loss,
}
SHAPES = [(1, 1), (1, 2), (1, 1000), (7, 1), (5, 3), (33, 10), (3, 1000)]

each_loss = pytest.mark.parametrize("loss", LOSSES)
each_dtype = pytest.mark.parametrize("dtype", TOLERANCE)


def problem(loss, shape, dtype="float64", seed=0):
    """Logits, and targets of all values that the loss allows; shares that sum to one."""
    rng = np.random.default_rng(seed)
    logits, targets = rng.normal(0, 3, shape).astype(dtype), rng.random(shape).astype(dtype)
    if loss == "softmax":
        targets /= targets.sum(axis=1, keepdims=True)
    return logits, targets * 5 - 2 if loss == "squared" else targets


def by_torch(loss, logits, targets):
    """Value and gradient in float64."""
    z = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    integers = loss == "softmax" and np.ndim(targets) == 1
    value = TORCH[loss](z, torch.tensor(targets, dtype=torch.int64 if integers else torch.float64))
    value.backward()
    return value.item(), z.grad.numpy()


def close(found, expected, dtype):
    """A loss and its gradient, whose largest numbers are about 1 / elements."""
    assert type(found[0]) is float
    assert found[0] == pytest.approx(expected[0], rel=TOLERANCE[dtype], abs=TOLERANCE[dtype] * 1e-3)
    assert (found[1].dtype, found[1].shape) == (dtype, expected[1].shape)
    size = max(abs(expected[1]).max(), 1e-30)
    np.testing.assert_allclose(found[1], expected[1], rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * size)


# --- values and gradients ---


@each_loss
def test_the_loss_is_the_references_and_torchs(loss):
    for shape, dtype in itertools.product(SHAPES, TOLERANCE):
        logits, targets = problem(loss, shape, dtype)
        found = LOSSES[loss](logits, targets)
        close(found, reference.loss(loss, logits, targets), dtype)
        close(found, by_torch(loss, logits, targets), dtype)


@each_dtype
def test_classes_are_one_hot_shares(dtype):
    for shape in SHAPES:
        logits, _ = problem("softmax", shape, dtype)
        labels = np.random.default_rng(1).integers(0, shape[1], shape[0])
        shares = np.eye(shape[1])[labels]
        found = fi.softmax_cross_entropy(logits, labels)
        close(found, by_torch("softmax", logits, labels), dtype)
        close(found, reference.loss("softmax", logits, shares), dtype)
        close(fi.softmax_cross_entropy(logits, shares), reference.loss("softmax", logits, shares), dtype)


@each_dtype
def test_shares_need_not_sum_to_one(dtype):
    logits, targets = problem("softmax", (4, 5), dtype)
    targets *= np.array([[0], [0.5], [2], [3]], dtype)
    found = fi.softmax_cross_entropy(logits, targets)
    close(found, by_torch("softmax", logits, targets), dtype)
    assert (found[1][0] == 0).all()


@each_dtype
@each_loss
def test_logits_of_any_size(loss, dtype):
    values = np.array([1e4, -1e4, 0, 300, -300, 90, -90], dtype)
    logits = np.array([np.roll(values, i) for i in range(7)])
    _, targets = problem(loss, logits.shape, dtype)
    for one in (targets, np.zeros_like(targets), np.eye(7, dtype=dtype)):
        close(LOSSES[loss](logits, one), reference.loss(loss, logits, one), dtype)
    if loss == "softmax":
        close(fi.softmax_cross_entropy(logits, np.arange(7)), by_torch(loss, logits, np.arange(7)), dtype)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_small_sigmoid_loss_keeps_its_digits(sign):
    """softplus(z) - t z would be 0 here, or off by a unit of z's last place."""
    logits = np.full((3, 1), sign * 20, np.float32)
    loss, _ = fi.sigmoid_cross_entropy(logits, np.full(3, sign > 0))
    assert loss == pytest.approx(np.log1p(np.exp(-20.0)), rel=1e-6)


@each_loss
def test_gradients_are_finite_differences(loss):
    logits, targets = problem(loss, (3, 4))
    cases = [targets, np.array([0, 3, 1])] if loss == "softmax" else [targets]
    for one in cases:
        _, gradient = LOSSES[loss](logits, one)
        h = 1e-5
        for i in np.ndindex(logits.shape):
            step = np.zeros_like(logits)
            step[i] = h
            difference = (LOSSES[loss](logits + step, one)[0] - LOSSES[loss](logits - step, one)[0]) / (2 * h)
            assert gradient[i] == pytest.approx(difference, rel=1e-7, abs=1e-9)


@each_loss
def test_what_is_read_is_left_as_it_was_whatever_its_strides(loss):
    logits, targets = problem(loss, (6, 5))
    before = logits.copy(), targets.copy()
    expected = LOSSES[loss](logits, targets)
    wide = np.full((12, 10), np.nan)
    wide[::2, ::2] = logits
    frozen = logits.copy()
    frozen.flags.writeable = False
    for one in (np.asfortranarray(logits), wide[::2, ::2], logits[::-1].copy()[::-1], frozen):
        for other in (targets, np.asfortranarray(targets)):
            found = LOSSES[loss](one, other)
            assert found[0] == expected[0]
            np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_array_equal(logits, before[0])
    np.testing.assert_array_equal(targets, before[1])
    assert not np.shares_memory(expected[1], logits)


# --- targets of all kinds ---


def test_integer_labels_of_every_dtype():
    logits, _ = problem("softmax", (4, 3))
    labels = [2, 0, 1, 2]
    expected = fi.softmax_cross_entropy(logits, labels)
    for kind in ("int8", "uint8", "int16", "int32", "uint32", "int64", "uint64", ">i4"):
        spread = np.repeat(np.array(labels, kind), 2)[::2]
        for one in (np.array(labels, kind), spread):
            found = fi.softmax_cross_entropy(logits, one)
            assert found[0] == expected[0]
            np.testing.assert_array_equal(found[1], expected[1])


@each_dtype
def test_minus_one_and_one_are_zero_and_one(dtype):
    logits, _ = problem("sigmoid", (6, 2), dtype)
    yes = np.random.default_rng(2).random((6, 2)) > 0.5
    expected = fi.sigmoid_cross_entropy(logits, yes)
    close(expected, reference.loss("sigmoid", logits, yes), dtype)
    for one in (yes.astype(int), yes.astype(np.float32), 2 * yes.astype(np.int8) - 1, (2.0 * yes - 1).tolist()):
        found = fi.sigmoid_cross_entropy(logits, one)
        assert found[0] == expected[0]
        np.testing.assert_array_equal(found[1], expected[1])
    close(
        fi.sigmoid_cross_entropy(logits, -np.ones((6, 2))), reference.loss("sigmoid", logits, np.zeros((6, 2))), dtype
    )


@each_dtype
@pytest.mark.parametrize("loss", ["sigmoid", "squared"])
def test_one_output_takes_a_target_for_every_sample(loss, dtype):
    logits, targets = problem(loss, (9, 1), dtype)
    expected = LOSSES[loss](logits, targets)
    for one in (targets[:, 0], targets[:, 0].tolist(), targets[:, 0].astype(np.float64)):
        found = LOSSES[loss](logits, one)
        assert found[0] == expected[0]
        np.testing.assert_array_equal(found[1], expected[1])


def test_one_class_has_no_loss():
    logits = np.array([[3.0], [-1e4]])
    for labels in ([0, 0], [[1], [1]]):
        loss, gradient = fi.softmax_cross_entropy(logits, labels)
        assert loss == 0
        assert (gradient == 0).all()


# --- NaN and infinities ---


@each_dtype
@each_loss
def test_nan_makes_the_loss_nan_and_stays_in_its_row(loss, dtype):
    for columns in (1, 3, 40):
        for place in (0, columns // 2, columns - 1):
            logits, targets = problem(loss, (4, columns), dtype)
            logits[2, place] = np.nan
            cases = [targets, np.zeros_like(targets)]
            if loss == "softmax":
                cases += [np.zeros(4, int), np.full(4, columns - 1)]
            for one in cases:
                value, gradient = LOSSES[loss](logits, one)
                assert np.isnan(value)
                assert np.isnan(gradient[2] if loss == "softmax" else gradient[2, place]).all()
                assert not np.isnan(np.delete(gradient, 2, axis=0)).any()


@each_dtype
def test_infinities(dtype):
    """What has no probability is left out, unless it is the class (torch's shares would make NaN of 0 * inf)."""
    logits = np.array([[1, -np.inf, 2], [0, 1, 2]], dtype)
    for labels in ([0, 1], [[0.25, 0, 0.75], [0, 1, 0]]):
        found = fi.softmax_cross_entropy(logits, labels)
        without = fi.softmax_cross_entropy(np.where(np.isinf(logits), -1e3, logits).astype(dtype), labels)
        close(found, without, dtype)
        assert found[1][0, 1] == 0
    for labels in ([1, 1], [[0.5, 0.5, 0], [0, 1, 0]]):
        assert fi.softmax_cross_entropy(logits, labels)[0] == np.inf
    for bad in ([np.inf, 0, 0], [np.inf, np.inf, 0], [-np.inf] * 3):
        for labels in ([0, 1], [2, 1], np.eye(3)[:2]):
            assert np.isnan(fi.softmax_cross_entropy(np.array([bad, [0, 1, 2]], dtype), labels)[0])
    for value, target in ((np.inf, 1), (-np.inf, 0)):
        assert np.isnan(fi.sigmoid_cross_entropy(np.array([[value], [0]], dtype), [target, 1])[0])
        assert fi.sigmoid_cross_entropy(np.array([[value], [0]], dtype), [1 - target, 1])[0] == np.inf
    for value in (np.inf, -np.inf):
        assert fi.mean_squared_error(np.array([[value], [0]], dtype), [0, 0])[0] == np.inf
        assert np.isnan(fi.mean_squared_error(np.array([[value], [0]], dtype), [value, 0])[0])


@each_dtype
def test_targets_that_are_not_finite(dtype):
    """A regression may have missing targets, and its loss tells; shares and probabilities are checked."""
    logits = np.zeros((2, 1), dtype)
    assert np.isnan(fi.mean_squared_error(logits, [np.nan, 0])[0])
    assert fi.mean_squared_error(logits, [np.inf, 0])[0] == np.inf
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match=r"^targets must be from 0 to 1, or -1 and 1\. Received: from "):
            fi.sigmoid_cross_entropy(logits, [bad, 0])
        with pytest.raises(
            ValueError, match=r"^shares of classes must not be negative, nor infinite\. Received: from "
        ):
            fi.softmax_cross_entropy(logits, [[bad], [0]])


# --- errors ---

Z = np.zeros((3, 2))
SHAPED = "targets must have shape {} for 3 samples. Received: shape {}"
ERRORS = [
    ("softmax", Z, [0, 1, 2], ValueError, "labels must be classes from 0 to 1. Received: from 0 to 2"),
    ("softmax", Z, [0, -1, 1], ValueError, "labels must be classes from 0 to 1. Received: from -1 to 1"),
    (
        "softmax",
        Z,
        np.array([0, 1, 2**64 - 1], np.uint64),
        ValueError,
        f"labels must be classes from 0 to 1. Received: from 0 to {2**64 - 1}",
    ),
    ("softmax", Z, [0, 1], ValueError, "labels must have shape (3,) for 3 samples. Received: shape (2,)"),
    (
        "softmax",
        Z,
        [0.0, 1.0, 0.0],
        TypeError,
        "labels must be integer classes, or shares of classes. Received: dtype float64",
    ),
    (
        "softmax",
        Z,
        [True, False, True],
        TypeError,
        "labels must be integer classes, or shares of classes. Received: dtype bool",
    ),
    ("softmax", Z, [[0], [1], [0]], ValueError, SHAPED.format("(3, 2) or (3,)", "(3, 1)")),
    ("softmax", Z, 1, ValueError, SHAPED.format("(3, 2) or (3,)", "()")),
    ("softmax", Z, ["a", "b", "c"], TypeError, "targets must be numbers. Received: dtype <U1"),
    ("softmax", Z, None, TypeError, "targets must be numbers. Received: dtype object"),
    (
        "softmax",
        Z,
        [[0, -1], [1, 0], [0, 1]],
        ValueError,
        "shares of classes must not be negative, nor infinite. Received: from -1 to 1",
    ),
    ("sigmoid", Z, [0, 1, 0], ValueError, SHAPED.format("(3, 2)", "(3,)")),
    ("sigmoid", Z[:, :1], [0, 1], ValueError, SHAPED.format("(3, 1) or (3,)", "(2,)")),
    (
        "sigmoid",
        Z[:, :1],
        [0, 1, 2],
        ValueError,
        "targets must be from 0 to 1, or -1 and 1. Received: from 0 to 2",
    ),
    (
        "sigmoid",
        Z[:, :1],
        [-1, 0, 1],
        ValueError,
        "targets must be from 0 to 1, or -1 and 1. Received: from -1 to 1",
    ),
    ("sigmoid", Z[:, :1], [1j, 0, 1], TypeError, "targets must be numbers. Received: dtype complex128"),
    ("squared", Z, [1, 2, 3], ValueError, SHAPED.format("(3, 2)", "(3,)")),
    ("squared", Z, Z.T, ValueError, SHAPED.format("(3, 2)", "(2, 3)")),
    ("squared", Z, Z[..., None], ValueError, SHAPED.format("(3, 2)", "(3, 2, 1)")),
    ("squared", Z, Z.astype("M8[s]"), TypeError, "targets must be numbers. Received: dtype datetime64[s]"),
]


@pytest.mark.parametrize(("loss", "logits", "targets", "error", "message"), ERRORS, ids=[row[4] for row in ERRORS])
def test_bad_targets(loss, logits, targets, error, message):
    with pytest.raises(error) as caught:
        LOSSES[loss](logits, targets)
    assert str(caught.value) == message


FLOATS = "logits must be a NumPy array of float32 or float64. Received: "


BAD_LOGITS = [
    ([[1.0]], TypeError, f"{FLOATS}list"),
    (np.ones((1, 1), int), TypeError, f"{FLOATS}int64"),
    (np.ones((1, 1), np.float16), TypeError, f"{FLOATS}float16"),
    (np.ones((1, 1), ">f4"), TypeError, f"{FLOATS}>f4"),
    (np.ones(1), ValueError, "logits must have two dimensions (rows, columns). Received: shape (1,)"),
    (np.ones((1, 1, 1)), ValueError, "logits must have two dimensions (rows, columns). Received: shape (1, 1, 1)"),
    (np.ones((0, 3)), ValueError, "logits must have samples and outputs. Received: shape (0, 3)"),
    (np.ones((3, 0)), ValueError, "logits must have samples and outputs. Received: shape (3, 0)"),
]


@each_loss
def test_bad_logits(loss):
    for logits, error, message in BAD_LOGITS:
        if loss == "squared":
            message = message.replace("logits", "predictions", 1)
        with pytest.raises(error) as caught:
            LOSSES[loss](logits, np.zeros(np.shape(logits)))
        assert str(caught.value) == message
