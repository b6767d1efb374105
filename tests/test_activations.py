"""Activations: values and slopes against torch's and finite differences, the ends, the gains, the words."""

import dataclasses
import functools

import mpmath as mp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
from compiled import compiled

import fastinit as fi
from fastinit._core.gains import NONLINEARITIES
from fastinit._native.catalogue import KEEPS
from fastinit._native.library import kernel
from fastinit.kernels import jit
from fastinit.nn._activations import ACTIVATIONS, Activation, as_activation

mp.mp.dps = 40
nn = torch.nn.functional
# Name -> (our parameters, torch's function).
CASES = {
    "identity": ({}, lambda z: z * 1),
    "relu": ({}, torch.relu),
    "leaky_relu": ({"slope": 0.25}, functools.partial(nn.leaky_relu, negative_slope=0.25)),
    "elu": ({"alpha": 0.75}, functools.partial(nn.elu, alpha=0.75)),
    "selu": ({}, nn.selu),
    "sigmoid": ({}, torch.sigmoid),
    "tanh": ({}, torch.tanh),
    "softplus": ({}, functools.partial(nn.softplus, threshold=50)),
    "gelu": ({}, nn.gelu),
    "gelu_tanh": ({}, functools.partial(nn.gelu, approximate="tanh")),
    "silu": ({}, nn.silu),
}

SCALE, ALPHA = mp.mpf("1.0507009873554804934193349852946"), mp.mpf("1.6732632423543772848170429916717")
EXACT = {
    "identity": lambda z: z,
    "relu": lambda z: max(z, mp.mpf(0)),
    "leaky_relu": lambda z: max(z, mp.mpf(0.25) * z),
    "elu": lambda z: z if z > 0 else mp.mpf(0.75) * mp.expm1(z),
    "selu": lambda z: SCALE * (z if z > 0 else ALPHA * mp.expm1(z)),
    "sigmoid": lambda z: 1 / (1 + mp.exp(-z)),
    "tanh": mp.tanh,
    "softplus": lambda z: mp.log1p(mp.exp(z)),
    "gelu": lambda z: z * mp.erfc(-z / mp.sqrt(2)) / 2,
    "gelu_tanh": lambda z: z / (1 + mp.exp(-mp.sqrt(8 / mp.pi) * (z + mp.mpf("0.044715") * z**3))),
    "silu": lambda z: z / (1 + mp.exp(-z)),
}
# In units of the dtype's eps, relative to what is above 1. torch's own slopes in float64 are off by 30 (silu's at 30).
TOLERANCE = {"float32": 4, "float64": 40}
DTYPES = ("float32", "float64")
# f at -inf and f' at -inf and inf; f(inf) is inf but for the two that saturate.
LIMITS = {
    "identity": (-np.inf, 1, 1),
    "relu": (0, 0, 1),
    "leaky_relu": (-np.inf, 0.25, 1),
    "elu": (-0.75, 0, 1),
    "selu": (-1.7580993408473766, 0, 1.0507009873554805),
    "sigmoid": (0, 0, 0),
    "tanh": (-1, 0, 0),
    "softplus": (0, 0, 1),
    "gelu": (0, 0, 1),
    "gelu_tanh": (0, 0, 1),
    "silu": (0, 0, 1),
}

each_name = pytest.mark.parametrize("name", CASES)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def made(name):
    return fi.activation(name, **CASES[name][0])


def value_and_slope(name, z):
    """f and f' as a layer takes them: the slope from what is kept."""
    activation = made(name)
    y = activation(z)
    return y, activation.derivative(y if activation.keeps == "output" else z)


def torchs(name, z):
    """torch's f and f' in float64."""
    x = torch.tensor(np.asarray(z, np.float64), requires_grad=True)
    y = CASES[name][1](x)
    y.sum().backward()
    return y.detach().numpy(), x.grad.numpy()


def points(dtype, size=1000):
    return np.random.default_rng(3).normal(0, 3, size).astype(dtype)


def close(found, expected, dtype):
    """Within the tolerance; the result has the right dtype."""
    assert found.dtype == dtype
    tolerance = TOLERANCE[dtype] * np.finfo(dtype).eps
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def test_the_tables_have_the_same_names():
    assert list(ACTIVATIONS) == list(KEEPS) == list(CASES) == list(EXACT) == list(LIMITS)


# --- values and slopes ---


LARGE, ZEROS = [1e4, -1e4, 300, -300, 90, -90, 30, -30], [0.0, -0.0]


@each_name
def test_values_and_slopes_are_torchs(name):
    for dtype in DTYPES:
        ordinary = [points(dtype, size) for size in (1, 7, 1000)]
        for z in (*ordinary, np.array(LARGE, dtype), np.array(ZEROS, dtype)):
            for found, expected in zip(value_and_slope(name, z), torchs(name, z), strict=True):
                close(found, expected, dtype)


@each_name
def test_values_and_slopes_are_exact(name):
    for dtype in DTYPES:
        rng, eps = np.random.default_rng(4), np.finfo(dtype).eps
        z = np.concatenate([rng.uniform(-9, 9, 200), rng.uniform(-1, 1, 200)]).astype(dtype)
        exact = [mp.mpf(float(v)) for v in z]
        # An error of 2u, 35 at -9, is one of e^2u: gelu_tanh alone loses digits where it is small.
        lost = 60 if name == "gelu_tanh" else 4
        y, slope = value_and_slope(name, z)
        for found, v in zip(y, exact, strict=True):
            assert abs(mp.mpf(float(found)) - EXACT[name](v)) <= lost * eps * abs(EXACT[name](v))
        for found, v in zip(slope, exact, strict=True):
            assert abs(mp.mpf(float(found)) - mp.diff(EXACT[name], v)) <= 3 * eps


@each_name
def test_slopes_are_finite_differences(name):
    z, h = points("float64"), 1e-6
    z = z[abs(z) > 2 * h]
    activation = made(name)
    differences = (activation(z + h) - activation(z - h)) / (2 * h)
    np.testing.assert_allclose(value_and_slope(name, z)[1], differences, rtol=1e-8, atol=1e-8)


@each_name
def test_infinities_and_nan(name):
    left, left_slope, right_slope = LIMITS[name]
    right = 1 if name in ("sigmoid", "tanh") else np.inf
    for dtype in DTYPES:
        y, slope = value_and_slope(name, np.array([-np.inf, np.inf, np.nan], dtype))
        close(y, [left, right, np.nan], dtype)
        close(slope, [left_slope, right_slope, np.nan], dtype)


@each_dtype
def test_the_left_tail_of_gelu_keeps_its_digits(dtype):
    """z Phi(z) with Phi by erf, as torch has it, is off by a share of 1e-3 at -5 in float32."""
    z = -np.linspace(1, 12 if dtype == "float32" else 37, 200).astype(dtype)
    expected = z.astype(np.float64) * np.exp(scipy.stats.norm.logcdf(z.astype(np.float64)))
    rtol = 1e-6 if dtype == "float32" else 1e-12  # of SciPy's logarithm, hundreds, taken back by exp
    np.testing.assert_allclose(made("gelu")(z), expected, rtol=rtol)


@each_dtype
def test_parameters_change_the_function(dtype):
    z = np.array([-2.0, 3.0], dtype)
    for slope in (0.0, 0.5, 2.0):
        leaky = fi.activation("leaky_relu", slope=slope)
        np.testing.assert_array_equal(leaky(z), np.array([-2 * slope, 3], dtype))
        np.testing.assert_array_equal(leaky.derivative(leaky(z)), np.array([slope, 1], dtype))
    for alpha in (0.0, 3.0):
        elu = fi.activation("elu", alpha=alpha)
        close(elu(z) / 3, np.array([alpha * np.expm1(-2.0), 3]) / 3, dtype)
        close(elu.derivative(elu(z)) / 3, np.array([alpha * np.exp(-2.0), 1]) / 3, dtype)


# --- arrays ---


@each_name
def test_shapes_and_strides(name):
    for dtype in DTYPES:
        z = points(dtype, 60).reshape(3, 4, 5)
        activation = made(name)
        expected = activation(z.ravel()).reshape(z.shape)
        before = z.copy()
        for view in (lambda a: a, np.transpose, lambda a: a[::-1, ::2, 1:], lambda a: a[:, 0, 0], lambda a: a[:0]):
            found = activation(view(z))
            np.testing.assert_array_equal(found, view(expected))
            assert found.flags.c_contiguous
            out = np.full((6, 8, 10), 7, dtype)
            inner = view(out[1::2, ::2, ::2])
            assert activation(view(z), out=inner) is inner
            np.testing.assert_array_equal(inner, view(expected))
            assert (out[::2] == 7).all()
        np.testing.assert_array_equal(z, before)
        assert activation(z[0, 0, 0, ...]).shape == ()
        assert activation(z, out=z) is z
        np.testing.assert_array_equal(z, expected)


@each_name
def test_the_slope_leaves_what_is_kept(name):
    kept = points("float32", 12).reshape(3, 4)
    before = kept.copy()
    found = made(name).derivative(kept.T)
    np.testing.assert_array_equal(kept, before)
    np.testing.assert_array_equal(found, made(name).derivative(kept).T)


# --- the kernels' own interface ---


def address(array):
    return array.ctypes.data


@each_name
def test_the_kernels_add_the_bias_and_multiply_the_gradient(name):
    for dtype in DTYPES:
        rng = np.random.default_rng(5)
        z, bias, gradient = (rng.normal(size=shape).astype(dtype) for shape in ((5, 9), 9, (5, 9)))
        expected, slopes = value_and_slope(name, z + bias)
        wide = np.full((5, 12), 7, dtype)  # rows of 9 elements, 12 apart
        saved, out, change = wide.copy(), wide.copy(), wide.copy()
        saved[:, :9], change[:, :9] = z, gradient
        packed = made(name).packed
        forward = kernel("nn.activations.forward_kernel", name, dtype)
        forward.call(address(saved), address(out), address(bias), 5, 9, 12, address(packed))
        if KEEPS[name] == "output":
            np.testing.assert_array_equal(saved[:, :9], expected)
            assert (out == 7).all()
        else:
            np.testing.assert_array_equal(saved[:, :9], z + bias)
            np.testing.assert_array_equal(out[:, :9], expected)
        backward = kernel("nn.activations.backward_kernel", name, dtype)
        backward.call(address(change), address(saved), 5, 9, 12, address(packed))
        np.testing.assert_array_equal(change[:, :9], gradient * slopes)
        assert all((matrix[:, 9:] == 7).all() for matrix in (saved, out, change))


def _forward_of(kernel, saved, out, bias, rows, columns, step, parameters):
    jit.call_forward(kernel, saved, out, bias, rows, columns, step, parameters)


def _backward_of(kernel, gradient, saved, rows, columns, step, parameters):
    jit.call_backward(kernel, gradient, saved, rows, columns, step, parameters)


def test_compiled_code_calls_the_kernels_by_address():
    i64 = jit.types.int64
    forward = compiled(_forward_of, jit.types.void(*(i64,) * 8)).call
    backward = compiled(_backward_of, jit.types.void(*(i64,) * 7)).call
    z, bias, packed = points("float32", 12).reshape(3, 4), np.arange(4, dtype=np.float32), made("silu").packed
    kept, out, gradient = z.copy(), np.empty_like(z), np.full_like(z, 2)
    there = [kernel(f"nn.activations.{way}_kernel", "silu", "float32").address for way in ("forward", "backward")]
    forward(there[0], address(kept), address(out), address(bias), 3, 4, 4, address(packed))
    backward(there[1], address(gradient), address(kept), 3, 4, 4, address(packed))
    expected, slopes = value_and_slope("silu", z + bias)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(gradient, 2 * slopes)


def test_an_address_is_an_integer():
    i64 = jit.types.int64
    signature = jit.types.void(i64, i64, jit.types.float32, *(i64,) * 4)
    with pytest.raises(jit.numba.TypingError, match=r"is called with an address and \[int64.*got \(int64, float32"):
        compiled(_backward_of, signature)


# --- the table ---


@each_name
def test_gains(name):
    activation = made(name)
    known = {"identity": "linear"}.get(name, name)
    if known in NONLINEARITIES:
        assert activation.gain == fi.gain(known, **activation_slope(activation))
        return

    def weighed(z):
        return float(activation(np.array(z))) ** 2 * scipy.stats.norm.pdf(z)

    moment = sum(scipy.integrate.quad(weighed, *ends, epsabs=1e-13)[0] for ends in ((-12, 0), (0, 12)))
    assert activation.gain == pytest.approx(moment**-0.5, rel=1e-10)


def activation_slope(activation):
    return dict(activation.parameters) if activation.name == "leaky_relu" else {}


def test_an_activation_is_data():
    activation = fi.activation("leaky_relu")
    assert activation == Activation("leaky_relu", (("slope", 0.01),)) == as_activation("leaky_relu")
    assert as_activation(activation) is activation
    assert {activation: 1}[fi.activation("leaky_relu", slope=0.01)] == 1
    assert activation != fi.activation("leaky_relu", slope=0.02)
    assert fi.activation("leaky_relu", slope=-0.0) == fi.activation("leaky_relu", slope=0)
    assert activation.packed.tolist() == [0.01]
    assert activation.packed.dtype == np.float64
    assert fi.activation("elu").packed.tolist() == [1.0]
    assert fi.activation("tanh").packed.tolist() == [0.0]
    assert (activation.keeps, fi.activation("gelu").keeps) == ("output", "input")
    assert activation.source == "Maas, Hannun, Ng, ICML 2013"
    with pytest.raises(dataclasses.FrozenInstanceError):
        activation.name = "relu"


ALLOWED = ", ".join(CASES)


@pytest.mark.parametrize(
    ("name", "parameters", "error", "message"),
    [
        ("rellu", {}, ValueError, f"unknown activation 'rellu'; did you mean 'relu'? Allowed: {ALLOWED}"),
        ("swish", {}, ValueError, f"unknown activation 'swish'; did you mean 'silu'? Allowed: {ALLOWED}"),
        ("Linear", {}, ValueError, f"unknown activation 'Linear'; did you mean 'identity'? Allowed: {ALLOWED}"),
        ("xyz", {}, ValueError, f"unknown activation 'xyz'. Allowed: {ALLOWED}"),
        ("relu", {"slope": 0.1}, TypeError, "unknown parameter of relu 'slope'. Allowed: none"),
        ("elu", {"slope": 0.1}, TypeError, "unknown parameter of elu 'slope'. Allowed: alpha"),
        ("leaky_relu", {"slope": -1}, ValueError, "slope must not be negative. Received: slope=-1"),
        ("leaky_relu", {"slope": np.nan}, ValueError, "slope must be finite. Received: slope=nan"),
        ("leaky_relu", {"slope": "1"}, TypeError, "slope must be a real number. Received: slope='1'"),
        ("elu", {"alpha": -0.5}, ValueError, "alpha must not be negative. Received: alpha=-0.5"),
        ("elu", {"alpha": np.inf}, ValueError, "alpha must be finite. Received: alpha=inf"),
    ],
)
def test_bad_names_and_parameters(name, parameters, error, message):
    with pytest.raises(error) as caught:
        fi.activation(name, **parameters)
    assert str(caught.value) == message


@pytest.mark.parametrize("x", [None, 1, fi.fill], ids=["None", "a number", "a function"])
def test_what_is_no_activation(x):
    with pytest.raises(TypeError) as caught:
        as_activation(x)
    assert str(caught.value) == f"activation must be a name or an Activation. Received: {x!r}"


@pytest.mark.parametrize(
    ("received", "shown"),
    [
        ([1.0], "list"),
        (1.0, "float"),
        (np.ones(2, np.int64), "int64"),
        (np.ones(2, np.float16), "float16"),
        (np.ones(2, ">f4"), ">f4"),
    ],
    ids=str,
)
def test_what_is_no_array_of_floats(received, shown):
    relu = fi.activation("relu")
    for argument, call in (
        ("z", lambda: relu(received)),
        ("kept", lambda: relu.derivative(received)),
    ):
        with pytest.raises(TypeError) as caught:
            call()
        assert str(caught.value) == f"{argument} must be a NumPy array of float32 or float64. Received: {shown}"


def test_an_out_that_does_not_fit():
    relu, z = fi.activation("relu"), np.ones((2, 3), np.float32)
    for out, shown in (
        (1.0, "float"),
        (np.ones((3, 2), np.float32), "(3, 2) of float32"),
        (np.ones((2, 3)), "(2, 3) of float64"),
        (np.ones((2, 3), np.int64), "(2, 3) of int64"),
        (np.ones((2, 3), ">f4"), "(2, 3) of >f4"),
    ):
        with pytest.raises(ValueError if isinstance(out, np.ndarray) else TypeError) as caught:
            relu(z, out=out)
        assert str(caught.value) == f"out must be an array of shape (2, 3) of float32. Received: {shown}"
    frozen = np.ones((2, 3), np.float32)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match=r"^out must be writeable\. Received: a read-only array$"):
        relu(z, out=frozen)
