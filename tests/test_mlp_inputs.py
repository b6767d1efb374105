"""What `MLP` takes: labels, sample weights, sparse matrices, data frames, defaults; and the errors for the rest."""

import copy
import decimal
import fractions
import inspect
import pickle
import tracemalloc
import warnings

import ml_dtypes
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from pairs import pairs
from sklearn.neural_network import MLPClassifier

import fastinit as fi
from fastinit.nn import _layers, _samples, _training
from fastinit.nn._optimizers import OPTIMIZERS

RNG = np.random.default_rng(3)
X = RNG.standard_normal((60, 4))
CLASSES = np.argmax(X[:, :3], axis=1)  # 0, 1, 2: 20 or so each
HALVES = (X[:, 0] > 0).astype(int)


def model_of(outputs=3, output="softmax", **options):
    return fi.MLP([4, 8, outputs], "tanh", output, **({"seed": 0, "dtype": "float64"} | options))


def same(a, b):
    for name, array in a.parameters.items():
        np.testing.assert_array_equal(array, b.parameters[name])


# --- labels ---

WORDS = np.array(["cat", "dog", "eel"])
LABELS = {
    "strings": WORDS[CLASSES],
    "objects": WORDS.astype(object)[CLASSES],
    "a list of strings": WORDS[CLASSES].tolist(),
    "NumPy's other strings": WORDS[CLASSES].astype(np.dtypes.StringDType()),
    "1 to k": CLASSES + 1,
    "0 to k - 1": CLASSES,
    "gaps": (CLASSES + 1) * 10,
    "negative": CLASSES - 1,
    "uint8": (CLASSES + 200).astype(np.uint8),
    "large": CLASSES.astype(np.uint64) + 2**63,
    "floats": CLASSES.astype(float),
    "float32": (CLASSES + 1).astype(np.float32),
    "bfloat16": CLASSES.astype(ml_dtypes.bfloat16),
    "a column": (CLASSES + 1)[:, None],
    "a column of strings": WORDS[CLASSES][:, None],
    "integer objects": (CLASSES + 1).astype(object),
    "series": pd.Series(WORDS[CLASSES], index=RNG.permutation(60) * 7),
    "categories": pd.Series(pd.Categorical(WORDS[CLASSES], categories=["eel", "none", "dog", "cat"])),
    "nullable": pd.Series(CLASSES + 1, dtype="Int64"),
    "a frame of one column": pd.DataFrame({"animal": WORDS[CLASSES]}),
    "a tensor": torch.from_numpy(CLASSES + 1),
}


@pytest.mark.parametrize("y", LABELS.values(), ids=LABELS)
def test_labels_come_back(y):
    reference, model = model_of(), model_of()
    expected = reference.fit(X, CLASSES, 20, 16, fi.Adam(0.05))
    history = model.fit(X, y, 20, 16, fi.Adam(0.05), validation=(X, y))
    assert history.loss == expected.loss
    same(model, reference)
    flat = np.asarray(y).ravel()
    np.testing.assert_array_equal(model.classes_, np.unique(flat))
    np.testing.assert_array_equal(model.predict(X), model.classes_[reference.predict(X)])
    np.testing.assert_array_equal(model.predict_proba(X), reference.predict_proba(X))
    assert history.validation[-1] == model.score(X, y) == (model.predict(X) == flat).mean() > 0.9
    model.fit(X, y, 1)  # the same labels again


def test_classes_are_those_of_scikit_learn():
    for y in (
        WORDS[CLASSES],
        CLASSES + 1,
        HALVES == 1,
        HALVES.astype(float),
        HALVES * 2 - 1,
        (CLASSES * 5).astype("u1"),
    ):
        theirs = MLPClassifier((3,)).partial_fit(X, y, classes=np.unique(y))
        model = model_of(len(theirs.classes_))
        model.fit(X, y, 1)
        np.testing.assert_array_equal(model.classes_, theirs.classes_)
        assert model.classes_.dtype == theirs.classes_.dtype
        assert model.predict(X).dtype == theirs.predict(X).dtype
        assert model.predict_proba(X).shape == theirs.predict_proba(X).shape


TWO = {
    "strings": np.array(["no", "yes"]),
    "bools": np.array([False, True]),
    "signs": np.array([-1, 1]),
    "1 and 2": np.array([1, 2]),
    "floats": np.array([0.0, 1.0]),
}


@pytest.mark.parametrize("two", TWO.values(), ids=TWO)
def test_one_sigmoid_output_has_two_classes(two):
    reference, model = model_of(1, "sigmoid"), model_of(1, "sigmoid")
    reference.fit(X, HALVES, 20, 16, fi.Adam(0.05))
    for y in (two[HALVES], two[HALVES][:, None], two[HALVES].tolist()):
        model = model_of(1, "sigmoid")
        model.fit(X, y, 20, 16, fi.Adam(0.05))
        same(model, reference)
        np.testing.assert_array_equal(model.predict(X), two[reference.predict(X)])
        assert model.classes_.dtype == two.dtype
        assert model.score(X, y) == reference.score(X, HALVES) > 0.9
        assert (model.predict(X) == two[1]).tolist() == (model.predict_proba(X)[:, 1] > 0.5).tolist()


@pytest.mark.parametrize("name", ["strings", "signs", "1 and 2"])
def test_probabilities_are_for_the_classes_0_and_1(name):
    model = model_of(1, "sigmoid")
    model.fit(X, TWO[name][HALVES], 1)
    for y in (HALVES * 0, HALVES * 0.5):
        with pytest.raises(ValueError, match=r"^y must be of the classes .*\. Received: 0(\.0|\.5)? in row "):
            model.step(X, y)


def test_probabilities_of_one_output_stay():
    model, other = model_of(1, "sigmoid"), model_of(1, "sigmoid")
    shares = 0.1 + 0.8 * HALVES
    model.fit(X, shares, 5, 16)
    assert model.classes_.tolist() == [0, 1]
    other.fit(X, shares[:, None], 5, 16)
    same(model, other)
    model.fit(X, HALVES == 1, 1)  # equal by value
    model.step(X, shares)
    with pytest.raises(ValueError, match=r"^y must be of the classes 0, 1\. Received: -1 in row "):
        model.fit(X, HALVES * 2 - 1, 1)


def test_numbers_of_the_outputs_keep_their_meaning():
    """A class that does not occur leaves its output untouched; and so do missing numbers in the middle."""
    for y in (HALVES, HALVES + 1, HALVES * 2, np.zeros(60, int)):
        model, shares = model_of(), model_of()
        model.fit(X, y, 3, 16, fi.Adam(0.05))
        shares.fit(X, np.eye(3)[y], 3, 16, fi.Adam(0.05))
        for name, array in model.parameters.items():
            np.testing.assert_allclose(array, shares.parameters[name], rtol=1e-9, atol=1e-12)
        assert model.classes_.tolist() == [0, 1, 2]
        assert shares.classes_ is None
        assert shares.predict(X).tolist() == model.predict(X).tolist()


def test_classes_can_be_named():
    """In the order of the outputs; then a step needs not see all of them."""
    model, reference = model_of(classes=["eel", "cat", "dog"]), model_of()
    place = np.array([1, 2, 0])
    for batch in (slice(0, 1), slice(1, 9)):
        mine = model.step(X[batch], WORDS[CLASSES[batch]], fi.SGD(0.1))
        assert mine == reference.step(X[batch], place[CLASSES[batch]], fi.SGD(0.1))
    same(model, reference)
    model.fit(X, WORDS[HALVES], 1)
    assert model.classes_.tolist() == ["eel", "cat", "dog"]
    assert fi.MLP([4, 1], output="sigmoid", classes=(True, False)).predict(np.zeros((1, 4))).tolist() == [True]


def test_large_labels_keep_their_digits():
    y = CLASSES + 2**53
    model = model_of()
    model.fit(X, y, 20, 16, fi.Adam(0.05))
    assert model.score(X, y.astype(np.uint64)) == model.score(X, y) > 0.9


def test_a_population_has_its_labels():
    model = model_of(population=3)
    model.fit(X, WORDS[CLASSES], 10, 16, fi.Adam(0.05))
    assert model.predict(X).shape == (3, 60)
    np.testing.assert_array_equal(model.score(X, WORDS[CLASSES]), (model.predict(X) == WORDS[CLASSES]).mean(axis=1))


@pytest.mark.parametrize("name", ["strings", "uint8", "floats", "1 to k", "large"])
def test_files_and_copies_keep_the_classes(name, tmp_path):
    model = model_of()
    model.save(tmp_path / "new")
    assert fi.MLP.load(tmp_path / "new").classes_ is None
    model.fit(X, LABELS[name], 1)
    model.save(tmp_path / "model")
    for other in (fi.MLP.load(tmp_path / "model"), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.classes_.dtype == model.classes_.dtype
        np.testing.assert_array_equal(other.predict(X), model.predict(X))


def test_a_step_learns_no_classes():
    model = model_of()
    with pytest.raises(ValueError, match=r"Received: 'cat' in row 0; `fit` learns others, or name them by `classes`$"):
        model.step(X[:1], ["cat"])
    model.step(X[:2], [0, 2.0])
    assert model.classes_ is None
    binary = model_of(1, "sigmoid")
    for y in ([1], [-1], [0]):
        binary.step(X[:1], y)


MISSING = WORDS[CLASSES].astype(object)
MISSING[7] = None
HOLES = CLASSES.astype(float)
HOLES[7] = np.nan
MASKED = np.ma.masked_equal(CLASSES, 1)
VALUES = f'Received: {X[0, 0]} in row 0; use output="identity" for values'
COUNTED = "y must have 3 classes, one for each output. Received: "
ONE = (
    'output="softmax" needs two or more outputs. Received: 1 output; use output="sigmoid" for two classes, use output="'
)
IDENTITY = {"output": "identity"}
REFUSED = {
    "too many": (
        CLASSES,
        {"outputs": 2},
        ValueError,
        "y must have 2 classes, one for each output. Received: 3 classes: 0, 1, 2; the last of `sizes` counts them, or",
    ),
    "too few": (WORDS[HALVES], {}, ValueError, COUNTED + "2 classes: 'cat', 'dog'; name"),
    "hundreds": (np.arange(60) * 3, {}, ValueError, COUNTED + "60 classes: 0, 3, 6, 9, 12, ... 177; "),
    "values": (X[:, 0], {}, ValueError, f"y must be of the classes 0, 1, 2. {VALUES}"),
    "values, sigmoid": (
        X[:, 0],
        {"outputs": 1, "output": "sigmoid"},
        ValueError,
        f"y must be of the classes 0, 1. {VALUES}",
    ),
    "too many for one": (
        WORDS[CLASSES],
        {"outputs": 1, "output": "sigmoid"},
        ValueError,
        "y must have 2 classes for one sigmoid output. Received: 3 classes: 'cat', 'dog', 'eel'; "
        'use output="softmax" with 3 outputs',
    ),
    "a large int": ([10**400] * 60, IDENTITY, ValueError, "y must be in the range of float64. Received: an int"),
    "one output": (HALVES, {"outputs": 1}, ValueError, ONE),
    "None": (MISSING, {}, ValueError, "y must not have missing values. Received: None in row 7"),
    "nan": (HOLES, {}, ValueError, "y must be finite. Received: nan in row 7"),
    "nan beside strings": (["a", float("nan")] * 30, {}, ValueError, "y must not have missing values. Received: nan"),
    "a list of both": (
        ["a", 1] * 30,
        {},
        TypeError,
        "y must be strings, bools or numbers. Received: dtype object, with",
    ),
    "nan in objects": (
        np.array(["a", np.nan] * 30, object),
        {},
        ValueError,
        "y must not have missing values. Received: nan in row 1",
    ),
    "NA": (pd.Series([1, None, 3] * 20, dtype="Int64"), {}, ValueError, "y must "),
    "NA of strings": (
        pd.Series(["a", None, "b"] * 20, dtype="string"),
        {},
        ValueError,
        "y must not have missing values. Received: ",
    ),
    "masked": (MASKED, {}, ValueError, "y must not have missing values. Received: a masked array"),
    "mixed": (
        np.array([1, "a"] * 30, object),
        {},
        TypeError,
        "y must be strings, bools or numbers. Received: dtype object, with int, str",
    ),
    "bytes": ([b"a"] * 60, {}, TypeError, "y must be strings, bools or numbers. Received: dtype |S1"),
    "times": (
        np.zeros(60, "M8[s]"),
        {},
        TypeError,
        "y must be strings, bools or numbers. Received: dtype datetime64[s]",
    ),
    "complex": (CLASSES + 1j, {}, TypeError, "y must be strings, bools or numbers. Received: dtype complex128"),
    "ragged": ([[1], [1, 2]] * 30, {}, TypeError, "y must be what NumPy can make an array of: "),
    "strings for values": (
        WORDS[CLASSES],
        {"output": "identity"},
        TypeError,
        'y must be numbers for output="identity". Received: dtype <U3',
    ),
    "strings for several": (
        WORDS[CLASSES],
        {"output": "sigmoid"},
        TypeError,
        'y must be numbers for output="sigmoid". Received: dtype <U3',
    ),
    "nan for values": (
        np.where(X[:, :3] > 2, np.nan, X[:, :3]),
        IDENTITY,
        ValueError,
        "y must be finite. Received: nan in row ",
    ),
    "beyond float32": (
        np.full((60, 3), 1e300),
        IDENTITY | {"dtype": "float32"},
        ValueError,
        "y must be in the range of float32. Received: 1e+300 in row 0, column 0",
    ),
    "a row": (
        CLASSES[None],
        {},
        ValueError,
        "y must have shape (60, 3) or (60,) for 60 samples. Received: shape (1, 60)",
    ),
    "a number": (1, {}, ValueError, "y must have shape (60, 3) or (60,) for 60 samples. Received: shape ()"),
}


@pytest.mark.parametrize(("y", "options", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_labels_that_are_refused_change_nothing(y, options, error, message):
    model, untouched = model_of(**options), model_of(**options)
    with pytest.raises(error) as caught:
        model.fit(X, y, 1)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    same(model, untouched)
    assert (model.classes_, model.epochs) == (None, 0)


def test_other_labels_than_before_are_refused():
    model = model_of()
    before = model_of()
    with pytest.raises(ValueError, match=r"^y must be of the classes 'cat', 'dog', 'eel'\. Received: 'fox' in row 0$"):
        model.fit(X, WORDS[CLASSES], 1, validation=(X[:1], ["fox"]))
    assert model.classes_ is None
    same(model, before)
    model.fit(X, WORDS[CLASSES], 1)
    for y in (["fox"] * 60, CLASSES, np.where(np.arange(60) == 7, "fox", WORDS[CLASSES])):
        for call in (lambda y: model.fit(X, y, 1), lambda y: model.step(X, y), lambda y: model.score(X, y)):
            with pytest.raises(
                ValueError, match=r"^y must be of the classes 'cat', 'dog', 'eel'\. Received: "
            ) as caught:
                call(y)
            assert str(caught.value).endswith(
                f"{np.asarray(y)[7].item()!r} in row 7" if y[0] != "fox" and isinstance(y[0], str) else "in row 0"
            )
    model.fit(X[:2], WORDS[:2], 1)  # not all of them
    shares = model_of()
    with pytest.raises(ValueError, match="Received: 'cat' in row 0"):  # what is held out teaches nothing
        shares.fit(X, np.eye(3)[CLASSES], 1, validation=(X[:3], WORDS))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"classes": ["a", "b"]}, ValueError, "classes must be 3 different labels. Received: classes=['a', 'b']"),
        ({"classes": ["a", "b", "a"]}, ValueError, "classes must be 3 different labels. Received: "),
        ({"classes": "abc"}, ValueError, "classes must be 3 different labels. Received: classes='abc'"),
        ({"classes": [1.0, 2.0, np.nan]}, ValueError, "classes must be finite. Received: nan in row 2"),
        ({"classes": [1, "b", 2.5j]}, TypeError, "classes must be strings, bools or numbers. Received: dtype "),
        (
            {"classes": [1, 2, 3], "output": "identity"},
            ValueError,
            'classes are for output="softmax", or "sigmoid" with',
        ),
        (
            {"classes": [1, 2, 3], "output": "sigmoid"},
            ValueError,
            'classes are for output="softmax", or "sigmoid" with',
        ),
    ],
)
def test_what_are_no_classes(options, error, message):
    with pytest.raises(error) as caught:
        model_of(**options)
    assert str(caught.value).startswith(message)


# --- sample weights ---

WEIGHTS = RNG.integers(0, 4, 60)


def targets_of(output):
    if output == "softmax":
        return CLASSES
    return X[:, 1:] if output == "identity" else (X[:, 1:] > 0).astype(int)


@pairs(
    output=["softmax", "shares", "sigmoid", "identity"],
    population=[None, 3],
    threads=[1, 3],
    dtype=["float32", "float64"],
)
def test_a_weight_is_a_number_of_copies(output, population, threads, dtype, monkeypatch):
    monkeypatch.setattr(_layers, "PARALLEL_PRODUCTS", 0)
    y = np.eye(3)[CLASSES] if output == "shares" else targets_of(output)
    output = "softmax" if output == "shares" else output
    model, copies = (model_of(output=output, population=population, dtype=dtype) for _ in range(2))
    again = np.repeat(np.arange(60), WEIGHTS)
    with fi.thread_limit(threads):
        for scale in (1, 1e-320, 4e307, 0.1):
            loss, gradients = model.loss_and_grad(X, y, sample_weight=WEIGHTS * scale)
            wanted, expected = copies.loss_and_grad(X[again], y[again])
            close = (
                {"rtol": 1e-4, "atol": 1e-6}
                if dtype == "float32" or scale == 1e-320
                else {"rtol": 1e-11, "atol": 1e-13}
            )
            np.testing.assert_allclose(loss, wanted, **close)
            for name, gradient in gradients.items():
                np.testing.assert_allclose(gradient, expected[name], **close)
    np.testing.assert_allclose(model.score(X, y, WEIGHTS), copies.score(X[again], y[again]), rtol=1e-5)


@pytest.mark.parametrize("output", ["softmax", "sigmoid", "identity"])
def test_batches_have_their_own_mean(output):
    """A step is sum(w loss) / sum(w) of its batch, from the losses of single samples; the history has that of all."""
    y, model = targets_of(output), model_of(output=output)
    losses = np.array([model.loss_and_grad(X[i : i + 1], y[i : i + 1])[0] for i in range(60)])
    weights = WEIGHTS + 0.5
    history = model.fit(X, y, 1, 7, fi.SGD(0.0), sample_weight=weights)
    assert history.loss[0] == pytest.approx(np.average(losses, weights=weights), rel=1e-12)
    assert model.step(X[:7], y[:7], fi.SGD(0.0), sample_weight=weights[:7].tolist()) == pytest.approx(
        np.average(losses[:7], weights=weights[:7]), rel=1e-12
    )


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_weight_of_zero_leaves_a_sample_out(shuffle):
    """Bit for bit, with batches as without the sample, whatever its features are."""
    inside = WEIGHTS > 0
    wild = np.where(inside[:, None], X, 1e30)
    model, less = model_of(), model_of()
    one = model.fit(wild, CLASSES, 3, 7, fi.Adam(), shuffle=shuffle, sample_weight=WEIGHTS)
    other = less.fit(X[inside], CLASSES[inside], 3, 7, fi.Adam(), shuffle=shuffle, sample_weight=WEIGHTS[inside])
    assert one == other
    same(model, less)


def test_equal_weights_are_none():
    model, plain = model_of(), model_of()
    one = model.fit(X, CLASSES, 5, 7, fi.Adam(), sample_weight=np.full(60, 3), validation=(X, CLASSES, WEIGHTS))
    other = plain.fit(X, CLASSES, 5, 7, fi.Adam())
    np.testing.assert_allclose(one.loss, other.loss, rtol=1e-12)
    for name, array in model.parameters.items():
        np.testing.assert_allclose(array, plain.parameters[name], rtol=1e-9, atol=1e-12)
    assert one.validation[-1] == pytest.approx(np.average(model.predict(X) == CLASSES, weights=WEIGHTS))


def test_weighted_training_is_scikit_learns():
    """One full batch of plain gradient descent, from the same weights."""
    weights = WEIGHTS + 0.25
    theirs = MLPClassifier((8,), "tanh", solver="sgd", momentum=0, alpha=0, learning_rate_init=0.1, batch_size=60)
    model = model_of()
    theirs.partial_fit(X, CLASSES, classes=[0, 1, 2])
    for i in range(2):
        model.parameters[f"layers.{i}.weight"][...] = theirs.coefs_[i].T
        model.parameters[f"layers.{i}.bias"][...] = theirs.intercepts_[i]
    theirs.partial_fit(X, CLASSES, sample_weight=weights)
    model.step(X, CLASSES, fi.SGD(0.1), sample_weight=weights)
    for i in range(2):
        np.testing.assert_allclose(model.parameters[f"layers.{i}.weight"], theirs.coefs_[i].T, rtol=1e-9)
        np.testing.assert_allclose(model.parameters[f"layers.{i}.bias"], theirs.intercepts_[i], rtol=1e-9)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (np.ones(59), ValueError, "sample_weight must have shape (60,) for 60 samples. Received: shape (59,)"),
        (np.ones((60, 1)), ValueError, "sample_weight must have shape (60,) for 60 samples. Received: shape (60, 1)"),
        (2.0, ValueError, "sample_weight must have shape (60,) for 60 samples. Received: shape ()"),
        (np.arange(60) - 1, ValueError, "sample_weight must not be negative, nor all zero. Received: from -1 to 58"),
        (np.zeros(60), ValueError, "sample_weight must not be negative, nor all zero. Received: from 0 to 0"),
        (HOLES, ValueError, "sample_weight must be finite. Received: nan in row 7"),
        (np.where(WEIGHTS == 3, np.inf, 1), ValueError, "sample_weight must be finite. Received: inf in row "),
        (pd.Series([1.0, None] * 30, dtype="Float64"), ValueError, "sample_weight must "),
        (["1"] * 60, TypeError, "sample_weight must be real numbers. Received: dtype <U1"),
    ],
)
def test_what_are_no_weights(weights, error, message):
    model, untouched = model_of(), model_of()
    for call in (
        lambda: model.fit(X, CLASSES, 1, sample_weight=weights),
        lambda: model.fit(X, CLASSES, 1, validation=(X, CLASSES, weights)),
        lambda: model.step(X, CLASSES, sample_weight=weights),
        lambda: model.score(X, CLASSES, weights),
    ):
        with pytest.raises(error) as caught:
            call()
        assert str(caught.value).startswith(message)
    same(model, untouched)


def test_weights_are_only_read():
    """A float64 array needs no copy to be taken, and is the caller's."""
    weights = np.arange(1.0, 61.0)
    frozen = pd.Series(weights.copy())  # whose memory is read-only from pandas 3 on
    weights.flags.writeable = False
    model, reference = model_of(), model_of()
    for fitted, taken in ((model, weights), (reference, frozen)):
        fitted.fit(X, CLASSES, 1, sample_weight=taken, validation=(X, CLASSES, taken))
        fitted.step(X[:20], CLASSES[:20], sample_weight=taken[:20])
        fitted.score(X, CLASSES, taken)
        assert (np.asarray(taken) == np.arange(1.0, 61.0)).all()
    same(model, reference)


# --- numbers ---


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_what_is_not_finite_is_one_error_before_any_step(bad):
    model, untouched = model_of(dtype="float32"), model_of(dtype="float32")
    spoiled = X.copy()
    spoiled[41, 2] = spoiled[50, 0] = bad
    forms = [spoiled, np.asfortranarray(spoiled), scipy.sparse.csc_array(spoiled), torch.from_numpy(spoiled)]
    frame = pd.DataFrame(spoiled, columns=["a", "b", "the third", "d"], index=np.arange(60) + 5)
    wanted = "in the range of float32" if bad == 1e300 else "finite"
    for x in (*forms, frame, spoiled.astype(object), spoiled.tolist()):
        column = "'the third'" if x is frame else 2
        for call in (
            lambda x: model.fit(x, CLASSES, 1),
            lambda x: model.fit(X, CLASSES, 1, validation=(x, CLASSES)),
            lambda x: model.step(x, CLASSES),
            lambda x: model.loss_and_grad(x, CLASSES),
            lambda x: model.score(x, CLASSES),
            model.forward,
            model.predict,
            model.predict_proba,
        ):
            with pytest.raises(ValueError, match=r"^X must be") as caught:
                call(x)
            assert str(caught.value) == f"X must be {wanted}. Received: {bad} in row 41, column {column}"
    same(model, untouched)
    assert model.epochs == 0


def test_large_numbers_are_finite():
    """Their sum is not."""
    model = model_of(dtype="float32")
    assert model.forward(np.full((3, 4), 3e38, np.float32)).shape == (3, 3)


NUMBERS = {
    "a list": X.tolist(),
    "objects": X.astype(object),
    "a read-only array": np.broadcast_to(X, X.shape),
    "Fortran": np.asfortranarray(X),
    "gaps": np.repeat(X, 2, axis=1)[:, ::2],
    "big-endian": X.astype(">f8"),
    "a matrix": np.ma.array(X, mask=False),
    "a tensor": torch.from_numpy(X),
    "fractions": np.array([[fractions.Fraction(float(value)) for value in row] for row in X], object),
    "a frame": pd.DataFrame(X, columns=list("abcd"), index=np.arange(60)[::-1]),
    "a nullable frame": pd.DataFrame(X).convert_dtypes(),
    "a frame of objects": pd.DataFrame(X).astype(object),
}


@pytest.mark.parametrize("x", NUMBERS.values(), ids=NUMBERS)
def test_features_of_every_kind(x):
    model, reference = model_of(), model_of()
    for fitted, samples in ((model, x), (reference, X)):
        fitted.fit(samples, WORDS[CLASSES], 2, 16, fi.SGD(0.1))
    same(model, reference)
    np.testing.assert_array_equal(model.predict_proba(x), reference.predict_proba(X))
    assert model.score(x, WORDS[CLASSES]) == reference.score(X, WORDS[CLASSES])


def test_columns_of_several_dtypes():
    frame = pd.DataFrame({"i": np.arange(60), "u": np.arange(60, dtype=np.uint8), "b": HALVES == 1, "f": X[:, 0]})
    plain = np.stack([np.arange(60), np.arange(60), HALVES, X[:, 0]], axis=1)
    model, reference = model_of(), model_of()
    model.fit(frame, CLASSES, 2)
    reference.fit(plain, CLASSES, 2)
    same(model, reference)


REAL, GONE = "X must be real numbers. Received: ", "X must not have missing values. Received: "
SHAPE = "X must have shape (samples, 4) and at least one sample. Received: "
ARRAY = "X must be what NumPy can make an array of: "


def frame_with(**columns):
    return pd.DataFrame(X[:, : 4 - len(columns)]).assign(**columns).rename(columns=str)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (frame_with(animal=WORDS[CLASSES]), TypeError, REAL + "dtype <U3, in column 'animal'"),
        (frame_with(digits=CLASSES.astype(str)), TypeError, REAL + "dtype <U1, in column 'digits'"),
        (frame_with(kind=pd.Categorical(WORDS[CLASSES])), TypeError, REAL + "dtype <U3, in column 'kind'"),
        (frame_with(day=pd.date_range("2020", periods=60)), TypeError, REAL + "dtype datetime64["),
        (frame_with(mix=[1, "a"] * 30), TypeError, REAL + "dtype object, with int, str, in column 'mix'"),
        (frame_with(gone=pd.Series([1, None] * 30, dtype="Int64")), ValueError, GONE + "<NA> in row 1, column 'gone'"),
        (np.array([[1, 2, None, 4]] * 60, object), ValueError, GONE + "None in row 0, column 2"),
        (np.array([[1, 2, decimal.Decimal(3), 4]] * 60, object), TypeError, REAL + "dtype object, with Decimal, int"),
        (X.astype(str), TypeError, REAL + "dtype <U32"),
        (X.astype(str).astype(object), TypeError, REAL + "dtype <U"),
        (X.astype(complex), TypeError, REAL + "dtype complex128"),
        (scipy.sparse.csr_array(X.astype(complex)), TypeError, REAL + "dtype complex128"),
        (np.ma.masked_greater(X, 2), ValueError, GONE + "a masked array"),
        (torch.from_numpy(X).requires_grad_(), TypeError, ARRAY + "Can't call numpy() on Tensor that requires grad"),
        (torch.from_numpy(X).to_sparse(), TypeError, ARRAY + "can't convert Sparse layout tensor to numpy"),
        ([[1.0, 2.0], [3.0]] * 30, TypeError, ARRAY),
        (pd.Series(X[:, 0]), ValueError, SHAPE + "shape (60,)"),
        (scipy.sparse.csr_array(X[:, :3]), ValueError, SHAPE + "shape (60, 3)"),
        (scipy.sparse.csr_array((0, 4)), ValueError, SHAPE + "shape (0, 4)"),
        (None, ValueError, GONE + "None"),
    ],
)
def test_features_that_are_refused(x, error, message):
    model, untouched = model_of(), model_of()
    with pytest.raises(error) as caught:
        model.fit(x, CLASSES, 1)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    same(model, untouched)


# --- sparse matrices ---

SPARSE = scipy.sparse.random(300, 40, density=0.1, format="csr", random_state=0)
SPARSE_Y = np.where(np.asarray(SPARSE.sum(axis=1)).ravel() > 2, "much", "little")
FORMATS = ("bsr", "coo", "csc", "csr", "dia", "dok", "lil")


@pytest.mark.parametrize("kind", ["array", "matrix"])
@pytest.mark.parametrize("form", FORMATS)
def test_every_sparse_format_is_taken(form, kind):
    with warnings.catch_warnings(action="ignore"):  # too many diagonals
        x = getattr(scipy.sparse, f"{form}_{kind}")(SPARSE)
    plain = SPARSE.toarray()
    model, reference = (fi.MLP([40, 8, 2], seed=0) for _ in range(2))
    for fitted, samples in ((model, x), (reference, plain)):
        fitted.step(samples, ["little", "much"] * 150 if fitted.classes_ is not None else [0, 1] * 150, fi.SGD(0.1))
        fitted.fit(samples, SPARSE_Y, 2, 32, fi.SGD(0.1), validation=(samples, SPARSE_Y))
    same(model, reference)
    np.testing.assert_array_equal(model.predict_proba(x), reference.predict_proba(plain))
    np.testing.assert_array_equal(model.predict(x), reference.predict(plain))
    assert model.score(x, SPARSE_Y) == reference.score(plain, SPARSE_Y)
    assert model.loss_and_grad(x, SPARSE_Y)[0] == reference.loss_and_grad(plain, SPARSE_Y)[0]
    np.testing.assert_allclose(fi.lsuv(model, x), fi.lsuv(reference, plain))
    assert fi.probe(model, data=x).layers == fi.probe(model, data=plain.astype(np.float32)).layers


@pairs(
    shuffle=[True, False], population=[None, 2], weighted=[True, False], batch=[7, 32, 300, 500], slab=[1, 40 * 4 * 64]
)
def test_some_batches_are_dense_at_a_time(shuffle, population, weighted, batch, slab, monkeypatch):
    monkeypatch.setattr(_samples, "SLAB_BYTES", slab)
    sizes = []
    inner = _samples.blocks

    def watched(*arguments):
        for block, part in inner(*arguments):
            sizes.append(len(block))
            yield block, part

    monkeypatch.setattr(_training, "blocks", watched)
    weights = np.arange(300) % 3 if weighted else None
    model, reference = (fi.MLP([40, 8, 2], seed=0, population=population) for _ in range(2))
    one = model.fit(SPARSE, SPARSE_Y, 2, batch, fi.Adam(), shuffle=shuffle, sample_weight=weights)
    assert max(sizes) <= max(min(batch, 300), slab // (40 * 4))
    assert len(sizes) >= 2
    other = reference.fit(SPARSE.toarray(), SPARSE_Y, 2, batch, fi.Adam(), shuffle=shuffle, sample_weight=weights)
    same(model, reference)
    np.testing.assert_array_equal(one.loss, other.loss)
    np.testing.assert_array_equal(model.forward(SPARSE), reference.forward(SPARSE.toarray()))


def test_a_sparse_matrix_is_never_dense_as_a_whole():
    """An array of it would take 262 MB."""
    x = scipy.sparse.random(500, 1 << 17, density=1e-4, format="csr", random_state=0)
    before, y = x.copy(), np.arange(500) % 2
    model = fi.MLP([1 << 17, 2], seed=0, init="zeros")
    tracemalloc.start()
    try:
        model.fit(x, y, 1, 20, fi.SGD(0.1))
        assert model.score(x, y) > 0.9
        assert tracemalloc.get_traced_memory()[1] < 64e6
    finally:
        tracemalloc.stop()
    assert (x != before).nnz == 0  # the caller's stays as it was
    assert x.dtype == np.float64


def test_sparse_targets():
    y = scipy.sparse.csr_array((X[:, 1:] > 0).astype(int))
    model, reference = model_of(output="sigmoid"), model_of(output="sigmoid")
    model.fit(X, y, 2)
    reference.fit(X, y.toarray(), 2)
    same(model, reference)


# --- defaults and names ---


def test_the_defaults_are_scikit_learns():
    many = np.repeat(X, 10, axis=0)
    labels = np.repeat(CLASSES, 10)
    for x, y, batch in ((X, CLASSES, 60), (many, labels, 200)):
        model, reference = model_of(), model_of()
        model.fit(x, y, 2)
        reference.fit(x, y, 2, batch, fi.Adam(1e-3))
        same(model, reference)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_has_a_name(name):
    """It is one object of the model, that goes on."""
    model, reference = model_of(), model_of()
    optimizer = OPTIMIZERS[name]()
    for fitted, chosen in ((model, name), (reference, optimizer)):
        fitted.fit(X, CLASSES, 2, 16, chosen)
        fitted.fit(X, CLASSES, 1, 16, chosen)
        fitted.step(X, CLASSES, chosen)
    same(model, reference)
    other, fresh = model_of(), model_of()
    other.step(X, CLASSES, name)
    fresh.step(X, CLASSES, OPTIMIZERS[name]())
    same(other, fresh)


@pytest.mark.parametrize(
    ("optimizer", "error", "message"),
    [
        ("AdamW", ValueError, "unknown optimizer 'AdamW'; did you mean 'adamw'? Allowed: sgd, adam, adamw"),
        ("SGD", ValueError, "unknown optimizer 'SGD'; did you mean 'sgd'?"),
        (fi.Adam, TypeError, "Received: the class fastinit.nn._optimizers.Adam; call it: Adam()"),
        (dict, TypeError, "Received: the class builtins.dict"),
    ],
)
def test_what_are_no_optimizers(optimizer, error, message):
    with pytest.raises(error) as caught:
        model_of().step(X, CLASSES, optimizer)
    assert message in str(caught.value)


def test_a_column_with_a_number_for_a_name():
    frame = pd.DataFrame(np.zeros((60, X.shape[1])), columns=np.arange(X.shape[1]) * 10)
    frame.iloc[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"^X must be finite\. Received: nan in row 3, column 10$"):
        model_of().predict(frame)


def test_the_names_are_documented():
    text = inspect.getdoc(fi.MLP.fit)
    assert all(f'"{name}"' in text for name in OPTIMIZERS)
    assert fi.SGD().learning_rate == 0.01
