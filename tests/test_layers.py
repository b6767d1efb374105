"""Dense layers: against plain NumPy, torch and finite differences; the edges of shapes; what is written, what not."""

import functools
import itertools

import numpy as np
import pytest
import reference
import torch

import fastinit as fi
from fastinit.nn import _layers as layers
from fastinit.nn._activations import ACTIVATIONS

nn = torch.nn.functional
TORCH = {
    "identity": lambda z: z * 1,
    "relu": torch.relu,
    "leaky_relu": nn.leaky_relu,
    "elu": nn.elu,
    "selu": nn.selu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softplus": functools.partial(nn.softplus, threshold=50),
    "gelu": nn.gelu,
    "gelu_tanh": functools.partial(nn.gelu, approximate="tanh"),
    "silu": nn.silu,
}
TOLERANCE = {"float32": 2e-5, "float64": 1e-13}
SHAPES = [(1, 1, 1), (1, 5, 3), (3, 1, 7), (7, 3, 1), (5, 20, 1000), (4, 1000, 2), (33, 17, 9)]  # batch, in, out

each_name = pytest.mark.parametrize("name", ACTIVATIONS)


@pytest.fixture(autouse=True)
def small_layers_use_threads(monkeypatch):
    monkeypatch.setattr(layers, "PARALLEL_PRODUCTS", 0)


def problem(rows=6, inputs=5, outputs=4, dtype="float64", seed=0):
    """x, weight, bias and dy; no output lies so near to 0 that a difference could step over a corner."""
    rng = np.random.default_rng(seed)
    while True:
        x, weight, bias, dy = (
            rng.normal(size=shape).astype(dtype)
            for shape in ((rows, inputs), (outputs, inputs), outputs, (rows, outputs))
        )
        weight /= max(1, inputs) ** 0.5
        if rows * outputs > 100 or not (abs(x @ weight.T + bias) < 1e-3).any():
            return x, weight, bias, dy


def both_ways(x, weight, bias, dy, name):
    """(y, dx, dweight, dbias) by fastinit."""
    kept = np.full((len(x), len(weight)), np.nan, x.dtype)
    y = fi.dense_forward(x, weight, bias, name, kept=kept)
    return y, *fi.dense_backward(dy, x, y if fi.activation(name).keeps == "output" else kept, weight, name)


def by_reference(x, weight, bias, dy, name):
    z, y = reference.dense(x, weight, bias, name)
    return y, *reference.dense_gradients(dy, x, z, weight, name)


def by_torch(x, weight, bias, dy, name):
    leaves = [torch.tensor(array, dtype=torch.float64, requires_grad=True) for array in (x, weight, bias)]
    y = TORCH[name](nn.linear(*leaves))
    y.backward(torch.tensor(dy, dtype=torch.float64))
    return y.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves)


def close(found, expected, dtype):
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == dtype
        assert one.shape == other.shape
        size = max(1, abs(other).max()) if other.size else 1
        np.testing.assert_allclose(one, other, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * size)


# --- values and gradients ---


@each_name
def test_both_ways_are_the_references_and_torchs(name):
    for dtype in TOLERANCE:
        given = problem(dtype=dtype)
        found = both_ways(*given, name)
        close(found, by_reference(*given, name), dtype)
        close(found, by_torch(*given, name), dtype)


@pytest.mark.parametrize("name", ["relu", "gelu"])  # one that keeps its output, one that keeps its input
def test_widths_and_batches(name):
    for shape, dtype in itertools.product(SHAPES, TOLERANCE):
        given = problem(*shape, dtype=dtype)
        expected = by_reference(*given, name)
        for number in (1, 3, 8):  # 8: more than there are rows, or units
            with fi.thread_limit(number):
                close(both_ways(*given, name), expected, dtype)


def test_one_thread_is_enough_for_a_small_layer(monkeypatch):
    """And the number of helpers is asked for where it is large."""
    monkeypatch.setattr(layers, "PARALLEL_PRODUCTS", 6 * 5 * 4)
    seen, together = [], layers.together
    monkeypatch.setattr(layers, "together", lambda work, workers: seen.append(workers) or together(work, workers))
    with fi.thread_limit(3):
        for rows in (5, 6):
            x, weight, _, _ = problem(rows)
            fi.dense_forward(x, weight)
    assert seen == [1, 3]


LOSSES = {
    "softmax classes": lambda z: fi.softmax_cross_entropy(z, np.arange(len(z)) % z.shape[1]),
    "softmax shares": lambda z: fi.softmax_cross_entropy(z, np.abs(np.sin(np.arange(z.size))).reshape(z.shape)),
    "sigmoid": lambda z: fi.sigmoid_cross_entropy(z, np.abs(np.sin(np.arange(z.size))).reshape(z.shape)),
    "squared": lambda z: fi.mean_squared_error(z, np.sin(np.arange(z.size)).reshape(z.shape)),
}


@each_name
def test_gradients_are_finite_differences(name):
    loss = list(LOSSES)[list(ACTIVATIONS).index(name) % len(LOSSES)]  # a layer gets dy, whichever loss made it
    x, weight, bias, _ = problem(5, 3, 4, seed=1)

    def value():
        return LOSSES[loss](fi.dense_forward(x, weight, bias, name))[0]

    _, dy = LOSSES[loss](fi.dense_forward(x, weight, bias, name))
    _, *found = both_ways(x, weight, bias, dy, name)
    h = 1e-5
    for array, gradient in zip((x, weight, bias), found, strict=True):
        for i in np.ndindex(array.shape):
            middle = array[i]
            array[i] = middle + h
            right = value()
            array[i] = middle - h
            left = value()
            array[i] = middle
            assert gradient[i] == pytest.approx((right - left) / (2 * h), rel=1e-7, abs=2e-9)


def test_parameters_of_an_activation_are_used():
    x, weight, bias, dy = problem()
    z = reference.dense(x, weight, bias, "identity")[0]
    for activation, parameters in ((fi.activation("leaky_relu", slope=0.3), {"slope": 0.3}),
                                   (fi.activation("elu", alpha=2.5), {"alpha": 2.5})):  # fmt: skip
        value, slope = reference.activated(activation.name, z, **parameters)
        y = fi.dense_forward(x, weight, bias, activation)
        close([y], [value], "float64")
        close([fi.dense_backward(dy, x, y, weight, activation)[2]], [(dy * slope).sum(axis=0)], "float64")


def test_no_bias_is_a_bias_of_zeros():
    x, weight, bias, _ = problem()
    expected = fi.dense_forward(x, weight, np.zeros_like(bias), "tanh")
    np.testing.assert_array_equal(fi.dense_forward(x, weight, None, "tanh"), expected)
    np.testing.assert_array_equal(fi.dense_forward(x, weight, activation="tanh"), expected)


# --- empty ---


@each_name
def test_empty_batches_and_widths(name):
    for dtype, shape in itertools.product(TOLERANCE, [(0, 5, 4), (6, 0, 4), (6, 5, 0), (0, 0, 0), (1, 0, 1)]):
        given = problem(*shape, dtype=dtype)
        places = [np.full_like(array, np.nan) for array in given[:3]]
        y, *found = both_ways(*given, name)
        expected = by_reference(*given, name)
        close([y, *found], expected, dtype)
        kept = y if fi.activation(name).keeps == "output" else reference.dense(*given[:3], name)[0].astype(dtype)
        fi.dense_backward(
            given[3], given[0], kept, given[1], name, **dict(zip(("dx", "dweight", "dbias"), places, strict=True))
        )
        close(places, expected[1:], dtype)


# --- what is read and written ---


@each_name
def test_results_go_where_they_are_wanted(name):
    for dtype in TOLERANCE:
        check_places(name, dtype)


def check_places(name, dtype):
    x, weight, bias, dy = given = problem(dtype=dtype)
    expected = both_ways(*given, name)
    out, kept = (np.full((6, 4), np.nan, dtype) for _ in range(2))
    assert fi.dense_forward(x, weight, bias, name, out=out, kept=kept) is out
    np.testing.assert_array_equal(out, expected[0])
    if fi.activation(name).keeps == "output":
        assert np.isnan(kept).all()
    else:
        close([kept], [reference.dense(x, weight, bias, name)[0]], dtype)
    kept = out if fi.activation(name).keeps == "output" else kept
    places = {
        "dx": np.full_like(x, np.nan),
        "dweight": np.full_like(weight, np.nan),
        "dbias": np.full_like(bias, np.nan),
    }
    found = fi.dense_backward(dy, x, kept, weight, name, **places)
    for one, place, wanted in zip(found, places.values(), expected[1:], strict=True):
        assert one is place
        np.testing.assert_array_equal(one, wanted)
    for i, place in enumerate(places):
        found = fi.dense_backward(dy, x, kept, weight, name, **{place: places[place]})
        assert [one is places[place] for one in found] == [j == i for j in range(3)]


@each_name
def test_what_is_read_is_left_as_it_was(name):
    given = problem()
    before = [array.copy() for array in given]
    for array in given:
        array.flags.writeable = False
    y = fi.dense_forward(*given[:3], name)
    y.flags.writeable = False
    kept = y.copy()
    fi.dense_backward(given[3], given[0], y, given[1], name)
    for one, other in zip([*given, y], [*before, kept], strict=True):
        np.testing.assert_array_equal(one, other)


def fortran(array):
    return np.asfortranarray(array)


def strided(array):
    wide = np.full(tuple(2 * n for n in array.shape), np.nan, array.dtype)
    view = wide[tuple(slice(None, None, 2) for _ in array.shape)]
    view[...] = array
    return view


def backwards(array):
    flip = tuple(slice(None, None, -1) for _ in array.shape)
    return array[flip].copy()[flip]


@pytest.mark.parametrize("lay", [fortran, strided, backwards])
@pytest.mark.parametrize("name", ["tanh", "silu"])
def test_the_strides_of_what_is_read_do_not_matter(name, lay):
    given = problem()
    expected = both_ways(*given, name)
    x, weight, bias, dy = map(lay, given)
    kept = np.empty((6, 4))
    y = fi.dense_forward(x, weight, bias, name, kept=kept)
    found = fi.dense_backward(dy, x, lay(y if name == "tanh" else kept), weight, name)
    for one, other in zip((y, *found), expected, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.flags.c_contiguous


def test_the_gradient_of_the_inputs_may_take_the_place_of_the_gradient_of_the_outputs():
    x, weight, bias, dy = given = problem(6, 4, 4)
    expected = both_ways(*given, "relu")[1]
    y = fi.dense_forward(x, weight, bias, "relu")
    assert fi.dense_backward(dy, x, y, weight, "relu", dx=dy)[0] is dy
    np.testing.assert_array_equal(dy, expected)


@each_name
def test_nan_comes_through(name):
    for dtype in TOLERANCE:
        x, weight, bias, dy = problem(dtype=dtype)
        x[2, 1] = np.nan
        y, dx, dweight, dbias = both_ways(x, weight, bias, dy, name)
        assert np.isnan(y[2]).all()
        assert not np.isnan(np.delete(y, 2, axis=0)).any()
        assert np.isnan(dx[2]).all()
        assert not np.isnan(np.delete(dx, 2, axis=0)).any()
        assert np.isnan(dweight).all()
        assert np.isnan(dbias).all()
        for loss in LOSSES.values():
            assert np.isnan(loss(y)[0])
        bias[3] = np.nan
        assert np.isnan(both_ways(problem(dtype=dtype)[0], weight, bias, dy, name)[0][:, 3]).all()


# --- errors ---

X, WEIGHT, BIAS, DY = problem()
GOOD = {"x": X, "weight": WEIGHT, "bias": BIAS, "dy": DY, "kept": np.zeros((6, 4))}
FLOATS = "must be a NumPy array of float32 or float64. Received: "
FRAME = np.zeros((6, 8))
FROZEN = np.zeros((6, 4))
FROZEN.flags.writeable = False
FORWARD = [
    ({"x": X.tolist()}, TypeError, f"x {FLOATS}list"),
    ({"x": None}, TypeError, f"x {FLOATS}NoneType"),
    ({"x": X.astype(int)}, TypeError, f"x {FLOATS}int64"),
    ({"x": X.astype(np.float16)}, TypeError, f"x {FLOATS}float16"),
    ({"x": X.astype(">f8")}, TypeError, f"x {FLOATS}>f8"),
    ({"x": X[0]}, ValueError, "x must have two dimensions (rows, columns). Received: shape (5,)"),
    ({"weight": 1.0}, TypeError, f"weight {FLOATS}float"),
    ({"weight": BIAS}, ValueError, "weight must have two dimensions (rows, columns). Received: shape (4,)"),
    (
        {"weight": WEIGHT.astype(np.float32)},
        ValueError,
        "weight must have the dtype float64 of the others. Received: float32",
    ),
    ({"weight": WEIGHT.T}, ValueError, "weight must be (out, in) for x of (batch, in). Received: (5, 4) for (6, 5)"),
    ({"bias": [0.0] * 4}, TypeError, "bias must be an array of shape (4,) of float64. Received: list"),
    ({"bias": X[0]}, ValueError, "bias must be an array of shape (4,) of float64. Received: (5,) of float64"),
    (
        {"bias": BIAS.astype(np.float32)},
        ValueError,
        "bias must be an array of shape (4,) of float64. Received: (4,) of float32",
    ),
    ({"activation": None}, TypeError, "activation must be a name or an Activation. Received: None"),
    ({"out": "y"}, TypeError, "out must be an array of shape (6, 4) of float64. Received: str"),
    (
        {"out": np.zeros((4, 6))},
        ValueError,
        "out must be an array of shape (6, 4) of float64. Received: (4, 6) of float64",
    ),
    (
        {"out": np.zeros((6, 4), np.float32)},
        ValueError,
        "out must be an array of shape (6, 4) of float64. Received: (6, 4) of float32",
    ),
    ({"out": FRAME[:, ::2]}, ValueError, "out must be C-contiguous and aligned. Received: strides (64, 16)"),
    ({"out": FROZEN}, ValueError, "out must be writeable. Received: a read-only array"),
    ({"kept": 7}, TypeError, "kept must be an array of shape (6, 4) of float64. Received: int"),
    ({"kept": np.zeros(4)}, ValueError, "kept must be an array of shape (6, 4) of float64. Received: (4,) of float64"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), FORWARD, ids=[row[2] for row in FORWARD])
def test_bad_arguments_of_forward(wrong, error, message):
    out, kept = np.full((6, 4), 7.0), np.full((6, 4), 7.0)
    good = {"x": X, "weight": WEIGHT, "bias": BIAS, "activation": "silu", "out": out, "kept": kept}
    with pytest.raises(error) as caught:
        fi.dense_forward(**(good | wrong))
    assert str(caught.value) == message
    assert (out == 7).all()
    assert (kept == 7).all()


SHAPED = (
    "dy and kept must be (batch, out), x (batch, in) and weight (out, in). Received: dy {}, kept {}, x {}, weight {}"
)
BACKWARD = [
    ({"dy": DY.tolist()}, TypeError, f"dy {FLOATS}list"),
    ({"dy": DY[0]}, ValueError, "dy must have two dimensions (rows, columns). Received: shape (4,)"),
    ({"dy": DY[1:]}, ValueError, SHAPED.format((5, 4), (6, 4), (6, 5), (4, 5))),
    ({"dy": DY.astype(np.float32)}, ValueError, "x must have the dtype float32 of the others. Received: float64"),
    ({"x": X[1:]}, ValueError, SHAPED.format((6, 4), (6, 4), (5, 5), (4, 5))),
    ({"x": [1]}, TypeError, f"x {FLOATS}list"),
    ({"kept": DY[:, 1:]}, ValueError, SHAPED.format((6, 4), (6, 3), (6, 5), (4, 5))),
    ({"kept": DY > 0}, TypeError, f"kept {FLOATS}bool"),
    ({"kept": DY.astype("f4")}, ValueError, "kept must have the dtype float64 of the others. Received: float32"),
    ({"weight": WEIGHT.T}, ValueError, SHAPED.format((6, 4), (6, 4), (6, 5), (5, 4))),
    ({"weight": WEIGHT[:3]}, ValueError, SHAPED.format((6, 4), (6, 4), (6, 5), (3, 5))),
    ({"activation": 3}, TypeError, "activation must be a name or an Activation. Received: 3"),
    ({"dx": 1}, TypeError, "dx must be an array of shape (6, 5) of float64. Received: int"),
    ({"dx": X[1:]}, ValueError, "dx must be an array of shape (6, 5) of float64. Received: (5, 5) of float64"),
    (
        {"dweight": np.zeros((5, 4)).T},
        ValueError,
        "dweight must be C-contiguous and aligned. Received: strides (8, 32)",
    ),
    ({"dbias": [0] * 4}, TypeError, "dbias must be an array of shape (4,) of float64. Received: list"),
    (
        {"dbias": np.zeros(4, np.float32)},
        ValueError,
        "dbias must be an array of shape (4,) of float64. Received: (4,) of float32",
    ),
]


@pytest.mark.parametrize(("wrong", "error", "message"), BACKWARD, ids=[row[2] for row in BACKWARD])
def test_bad_arguments_of_backward(wrong, error, message):
    places = {"dx": np.full((6, 5), 7.0), "dweight": np.full((4, 5), 7.0), "dbias": np.full(4, 7.0)}
    good = {"dy": DY, "x": X, "kept": DY, "weight": WEIGHT, "activation": "gelu", **places}
    with pytest.raises(error) as caught:
        fi.dense_backward(**(good | wrong))
    assert str(caught.value) == message
    assert all((place == 7).all() for place in places.values())


def test_an_unknown_activation():
    for call in (
        lambda: fi.dense_forward(X, WEIGHT, BIAS, "rellu"),
        lambda: fi.dense_backward(DY, X, DY, WEIGHT, "rellu"),
    ):
        with pytest.raises(ValueError, match=r"^unknown activation 'rellu'; did you mean 'relu'\?"):
            call()


def test_results_lie_apart():
    x, weight, bias, dy = problem(4, 4, 4)
    out = np.full((4, 4), 7.0)
    flat = np.full(40, 7.0)
    first, second = flat[:16].reshape(4, 4), flat[15:31].reshape(4, 4)
    cases = [
        (lambda: fi.dense_forward(x, weight, bias, out=x), "out must not share memory with x"),
        (lambda: fi.dense_forward(x, weight, bias, out=weight), "out must not share memory with weight"),
        (lambda: fi.dense_forward(x, weight, first[0], out=first), "out must not share memory with bias"),
        (lambda: fi.dense_forward(x, weight, bias, "silu", kept=x), "kept must not share memory with x"),
        (lambda: fi.dense_forward(x, weight, bias, "silu", out=out, kept=out), "kept must not share memory with out"),
        (lambda: fi.dense_backward(dy, x, out, weight, dx=x), "dx must not share memory with x"),
        (lambda: fi.dense_backward(dy, x, out, weight, dx=weight), "dx must not share memory with weight"),
        (lambda: fi.dense_backward(dy, x, out, weight, dweight=weight), "dweight must not share memory with weight"),
        (
            lambda: fi.dense_backward(dy, x, out, weight, dx=first, dweight=second),
            "dweight must not share memory with dx",
        ),
        (
            lambda: fi.dense_backward(dy, x, out, weight, dweight=first, dbias=first[0]),
            "dbias must not share memory with dweight",
        ),
    ]
    before = [array.copy() for array in (x, weight, bias, dy)]
    for call, message in cases:
        with pytest.raises(ValueError, match="must not share memory") as caught:
            call()
        assert str(caught.value) == message
    for one, other in zip((x, weight, bias, dy), before, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (out == 7).all()
    assert (flat == 7).all()
    fi.dense_forward(x, weight, bias, "relu", out=out, kept=x)  # not used, so not refused


def test_a_view_that_is_copied_is_no_overlap():
    """An x that is not contiguous is read from a copy."""
    square = np.arange(16.0).reshape(4, 4)
    expected = square.T @ np.eye(4)
    np.testing.assert_array_equal(fi.dense_forward(square.T, np.eye(4), out=square), expected)
