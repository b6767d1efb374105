"""The table of schemes: every row against the formulas of the mission and against other libraries, from the table."""

import inspect
import itertools
import math

import ml_dtypes
import numpy as np
import pytest
import scipy.stats
import torch

import fastinit as fi
from fastinit._core.fans import MODES
from fastinit._core.gains import NONLINEARITIES
from fastinit._runtime.checks import unknown
from fastinit.schemes import SCHEMES, find
from fastinit.schemes._families import TRUNCATION_STD

# The variance by n = fan_in and m = fan_out, written out; the defaults of every scheme.
VARIANCES = {
    "heuristic_uniform": lambda n, m: 1 / (3 * n),
    "heuristic_normal": lambda n, m: 1 / n,
    "xavier_uniform": lambda n, m: 2 / (n + m),
    "xavier_normal": lambda n, m: 2 / (n + m),
    "he_uniform": lambda n, m: 2 / n,
    "he_normal": lambda n, m: 2 / n,
    "lecun_uniform": lambda n, m: 1 / n,
    "lecun_normal": lambda n, m: 1 / n,
    "variance_scaling": lambda n, m: 1 / n,
    "mup": lambda n, m: 0.02**2 * 64 / n,
    "deepnet": lambda n, m: 96**-0.5 * 2 / (n + m),
    "tfixup": lambda n, m: 108**-0.5 * 2 / (n + m),
    "fixup": lambda n, m: 2 / n / 12,
}
BOUNDS = {
    "heuristic_uniform": lambda n, m: 1 / math.sqrt(n),
    "xavier_uniform": lambda n, m: math.sqrt(6 / (n + m)),
    "he_uniform": lambda n, m: math.sqrt(6 / n),
    "lecun_uniform": lambda n, m: math.sqrt(3 / n),
    "tfixup": lambda n, m: 108**-0.25 * math.sqrt(6 / (n + m)),
}
FIXED = {
    "zeros": fi.Constant(0),
    "ones": fi.Constant(1),
    "constant": fi.Constant(0.5),
    "uniform": fi.Uniform(0, 1),
    "normal": fi.Normal(0, 1),
    "truncated_normal": fi.TruncatedNormal(0, 1, -2, 2),
    "orthogonal": fi.Orthogonal(1),
    "delta_orthogonal": fi.DeltaOrthogonal(1),
    "eye": fi.Eye(1),
    "dirac": fi.Dirac(1),
    "sparse": fi.Sparse(0.25, 0.01),
    "depth_scaled": fi.Normal(0, 0.02 / math.sqrt(24)),
    "hadamard": fi.Hadamard(),
}
# Parameters without a default.
NEEDED = {"constant": {"value": 0.5}, "sparse": {"sparsity": 0.25}, "mup": {"base": 64}}
NEEDED |= {name: {"layers": 12} for name in ("depth_scaled", "deepnet", "tfixup", "fixup")}
OWN_SHAPES = {"eye": (6, 9), "sparse": (6, 9), "dirac": (6, 4, 3), "delta_orthogonal": (6, 4, 3)}
SHAPES = [(64, 32), (5, 7), (8, 3, 5), (6, 4, 3, 3), (4, 3, 2, 5, 3), (1, 1)]
KEY = fi.Key(9) / "initializers"

each_scheme = pytest.mark.parametrize("name", SCHEMES)
each_family = pytest.mark.parametrize("name", VARIANCES)


def having(parameter):
    return pytest.mark.parametrize("name", [row.name for row in SCHEMES.values() if parameter in row.parameters])


def shape_of(name):
    return OWN_SHAPES.get(name, (6, 4, 3))


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def torch_fans(shape):
    return torch.nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))


def io_of(shape):
    """(out, in, *kernel) -> (*kernel, in, out)."""
    return (*shape[2:], shape[1], shape[0])


# --- the table ---


def test_every_scheme_is_tested_here():
    assert set(VARIANCES) | set(FIXED) == set(SCHEMES)
    assert not set(VARIANCES) & set(FIXED)
    assert {
        name
        for name, row in SCHEMES.items()
        if isinstance(fi.distribution(name, shape_of(name), **NEEDED.get(name, {})), fi.Uniform)
    } == {
        *BOUNDS,
        "uniform",
    }


def test_rows_are_complete():
    for name, row in SCHEMES.items():
        function = getattr(fi, name)
        assert row.name == function.__name__ == function.__qualname__ == name
        assert name in fi.__all__
        for text in (row.formula, row.source, row.doc[0]):
            assert text
            assert text in function.__doc__


def test_signatures():
    shared = ["shape", "out", "seed", "dtype", "layout", "batch_axes", "region"]
    for name, row in SCHEMES.items():
        parameters = inspect.signature(getattr(fi, name)).parameters
        assert list(parameters) == [*shared, *row.parameters]
        assert [parameters[p].default for p in shared] == [None, None, None, "float32", "oi", (), None]
        assert all(parameters[p].kind is inspect.Parameter.KEYWORD_ONLY for p in list(parameters)[1:])
        assert {p for p in parameters if parameters[p].default is inspect.Parameter.empty} == set(NEEDED.get(name, {}))
        assert list(inspect.signature(row.distribution).parameters)[1:] == list(row.parameters)


def test_docstrings_name_every_argument():
    for name in SCHEMES:
        function = getattr(fi, name)
        arguments = inspect.getdoc(function).partition("Args:")[2].partition("Returns:")[0]
        documented = []
        for line in arguments.splitlines():
            names, colon, _ = line.strip().partition(":")
            if colon and line.startswith(" " * 4) and not line.startswith(" " * 5):
                documented += names.split(", ")
        assert sorted(documented) == sorted(inspect.signature(function).parameters)
        assert "Raises:" in function.__doc__
        assert f">>> {name}(" in function.__doc__


def test_aliases():
    assert {name: alias for name, row in SCHEMES.items() for alias in row.aliases} == {
        "xavier_uniform": "glorot_uniform",
        "xavier_normal": "glorot_normal",
        "he_uniform": "kaiming_uniform",
        "he_normal": "kaiming_normal",
    }
    for alias, name in [(alias, name) for name, row in SCHEMES.items() for alias in row.aliases]:
        assert alias not in SCHEMES
        assert find(alias) is SCHEMES[name]
        assert getattr(fi, alias) is getattr(fi, name)
        assert fi.distribution(alias, (8, 5)) == fi.distribution(name, (8, 5))


# --- the laws ---


@each_family
def test_variances(name):
    for shape in SHAPES:
        law = fi.distribution(name, shape, **NEEDED.get(name, {}))
        expected = VARIANCES[name](*torch_fans(shape))
        assert law.mean == 0
        assert law.std**2 == pytest.approx(expected, rel=1e-14)
        if name in BOUNDS:
            bound = BOUNDS[name](*torch_fans(shape))
            assert (-law.low, law.high) == pytest.approx((bound, bound), rel=1e-14)
        else:
            assert law == fi.Normal(0, law.std)


@each_family
def test_what_is_drawn_has_the_variance(name):
    """s^2 of N values has a standard deviation of s^2 sqrt(2 / N) at most (less for a uniform law)."""
    shape = (400, 300)
    x = getattr(fi, name)(shape, seed=KEY / name, dtype="float64", **NEEDED.get(name, {}))
    expected = VARIANCES[name](300, 400)
    assert x.var() == pytest.approx(expected, rel=4 * math.sqrt(2 / x.size))
    assert abs(x.mean()) < 4 * math.sqrt(expected / x.size)


def test_laws_without_fans():
    assert {name: fi.distribution(name, shape_of(name), **NEEDED.get(name, {})) for name in FIXED} == FIXED


FAN_MODES = {"fan_in": lambda n, m: n, "fan_out": lambda n, m: m, "fan_avg": lambda n, m: (n + m) / 2}
FAN_MODES["fan_geo_avg"] = lambda n, m: math.sqrt(n * m)


@having("mode")
def test_modes(name):
    base = VARIANCES[name](1, 1)
    for shape, mode in itertools.product(SHAPES, MODES):
        expected = base / FAN_MODES[mode](*torch_fans(shape))
        assert fi.distribution(name, shape, mode=mode, **NEEDED.get(name, {})).std ** 2 == pytest.approx(
            expected, rel=1e-14
        )


@having("nonlinearity")
def test_nonlinearities(name):
    for nonlinearity in NONLINEARITIES:
        k = fi.gain(nonlinearity) ** 2
        if name == "heuristic_normal" and nonlinearity == "tanh":
            k = 1  # the heuristic's own constant, where torch's gain is 5/3
        assert fi.distribution(name, (30, 20), nonlinearity=nonlinearity).std ** 2 == pytest.approx(k / 20, rel=1e-14)


@having("slope")
def test_slopes(name):
    for slope in (0, 0.01, 0.2, 1, -0.3, math.sqrt(5)):
        law = fi.distribution(name, (30, 20), nonlinearity="leaky_relu", slope=slope)
        assert law.std**2 == pytest.approx(2 / ((1 + slope**2) * 20), rel=1e-14)


def test_the_heuristic_for_relu_is_he():
    assert fi.distribution("heuristic_normal", (30, 20), nonlinearity="relu").std ** 2 == pytest.approx(2 / 20)


@having("truncated")
def test_truncation_keeps_the_wanted_std(name):
    law = fi.distribution(name, (30, 20), truncated=True)
    wanted = math.sqrt(VARIANCES[name](20, 30))
    before = law.normal.std
    assert (law.low, law.high) == pytest.approx((-2 * before, 2 * before), rel=1e-15)
    assert scipy.stats.truncnorm(-2, 2, scale=before).std() == pytest.approx(wanted, rel=1e-12)
    assert (law.mean, law.std) == (0, pytest.approx(wanted, rel=1e-14))
    assert pytest.approx(float(scipy.stats.truncnorm(-2, 2).std()), rel=1e-12) == TRUNCATION_STD
    x = getattr(fi, name)((300, 200), seed=KEY / name, truncated=True)
    assert abs(x).max() <= np.float32(2 * math.sqrt(VARIANCES[name](200, 300)) / TRUNCATION_STD)
    assert x.var() == pytest.approx(VARIANCES[name](200, 300), rel=4 * math.sqrt(2 / x.size))


@having("gain")
def test_gain_is_a_factor(name):
    shape = shape_of(name)
    x = getattr(fi, name)(shape, seed=KEY, dtype="float64", gain=1)
    for gain in (0, 0.5, 5 / 3):
        scaled = getattr(fi, name)(shape, seed=KEY, dtype="float64", gain=gain)
        np.testing.assert_allclose(scaled, gain * x, rtol=1e-14, atol=0)


@pytest.mark.parametrize("distribution", ["uniform", "normal", "truncated_normal"])
def test_variance_scaling_is_the_common_denominator(distribution):
    kinds = {"uniform": fi.Uniform, "normal": fi.Normal, "truncated_normal": fi.TruncatedNormal}
    for scale in (0.3, 1, 2):
        law = fi.distribution("variance_scaling", (30, 20), scale=scale, mode="fan_avg", distribution=distribution)
        assert law.std**2 == pytest.approx(scale / 25, rel=1e-14)
        assert type(law) is kinds[distribution]


@pytest.mark.parametrize(("inputs", "outputs"), [(20, 3000), (300, 200)])
def test_the_default_of_torchs_linear_is_the_uniform_heuristic(inputs, outputs):
    torch.manual_seed(0)
    largest = torch.nn.Linear(inputs, outputs).weight.abs().max().item()
    law = fi.distribution("heuristic_uniform", (outputs, inputs))
    assert law.high * 0.999 < largest <= law.high * (1 + 1e-6)
    assert law.high == pytest.approx(
        fi.distribution("he_uniform", (outputs, inputs), nonlinearity="leaky_relu", slope=5**0.5).high
    )


@each_scheme
def test_a_population_has_the_law_of_one_member(name):
    needed = NEEDED.get(name, {})
    layouts = {"oi": shape_of(name), "io": io_of(shape_of(name))}
    for layout, one in layouts.items():
        assert_members_have_the_law(name, one, layout, needed)


def assert_members_have_the_law(name, one, layout, needed):
    """Members along every axis in turn."""
    law = fi.distribution(name, one, layout=layout, **needed)
    for at in range(len(one) + 1):
        population = (*one[:at], 7, *one[at:])
        assert fi.distribution(name, population, layout=layout, batch_axes=at, **needed) == law
        out = getattr(fi, name)(population, seed=KEY, layout=layout, batch_axes=at, **needed)
        first = getattr(fi, name)(one, seed=KEY, layout=layout, **needed)
        assert out.shape == population
        if at == 0:  # members lie one after another in the stream
            assert same_bits(out[0], first)


def test_layout_changes_the_fans_only():
    for name in VARIANCES:
        needed = NEEDED.get(name, {})
        x = getattr(fi, name)((3, 5, 40), seed=KEY, layout="io", dtype="float64", **needed)
        y = fi.fill(np.empty((3, 5, 40)), fi.distribution(name, (40, 5, 3), **needed), seed=KEY)
        assert same_bits(x, y)


# --- the functions ---

DTYPES = {
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float32": np.float32,
    "float64": np.float64,
}


@each_scheme
def test_a_function_fills_by_its_law(name):
    shape, needed, function = shape_of(name), NEEDED.get(name, {}), getattr(fi, name)
    law = fi.distribution(name, shape, **needed)
    for dtype, kind in DTYPES.items():
        expected = fi.fill(np.empty(shape, kind), law, seed=KEY)
        for argument in (dtype, kind, np.dtype(kind)):
            assert same_bits(function(shape, seed=KEY, dtype=argument, **needed), expected)
        out = np.full(shape, 7, kind)
        assert function(out=out, seed=KEY, **needed) is out  # `dtype` is that of a new array: out keeps its own
        assert same_bits(out, expected)
        backwards = np.full(shape[::-1], 7, kind).T
        assert function(list(shape), out=backwards, seed=KEY, **needed) is backwards
        assert same_bits(backwards, expected)


def test_default_dtype_and_seed():
    for name in SCHEMES:
        needed, function = NEEDED.get(name, {}), getattr(fi, name)
        one, other = function(shape_of(name), **needed), function(shape_of(name), **needed)
        assert one.dtype == np.float32
        random = name not in ("zeros", "ones", "constant", "eye", "dirac", "hadamard")
        assert same_bits(one, other) != random


@each_scheme
def test_regions(name):
    shape, needed, function = shape_of(name), NEEDED.get(name, {}), getattr(fi, name)
    region = (slice(1, 5, 2), slice(None, None, -1))
    expected = function(shape, seed=KEY, **needed)[region]
    assert same_bits(function(shape, seed=KEY, region=region, **needed), expected)
    out = np.full(expected.shape, 7, np.float32)
    assert function(shape, out=out, seed=KEY, region=region, **needed) is out
    assert same_bits(out, expected)


@each_scheme
def test_fill_add_and_summarize_take_names(name):
    """With parameters, layouts and batches, and for parts: as the scheme's own function."""
    shape, needed = shape_of(name), NEEDED.get(name, {})
    text = f"{name}({', '.join(f'{key}={value!r}' for key, value in needed.items())})"
    expected = getattr(fi, name)(shape, seed=3, **needed)
    assert same_bits(fi.fill(np.empty(shape, "float32"), text, seed=3), expected)
    assert same_bits(
        fi.add(np.zeros(shape, "float32"), text, seed=3),
        fi.add(np.zeros(shape, "float32"), fi.distribution(name, shape, **needed), seed=3),
    )
    stacked, axes = (2, *shape[::-1]), {"layout": "io", "batch_axes": 0}
    expected = getattr(fi, name)(stacked, seed=3, **axes, **needed)
    assert same_bits(fi.fill(np.empty(stacked, "float32"), text, seed=3, **axes), expected)
    part = (slice(0, 1), slice(1, 2))
    filled = fi.fill(np.empty((1, 1, *shape[2:]), "float32"), text, seed=3, shape=shape, region=part)
    assert same_bits(filled, getattr(fi, name)(shape, seed=3, region=part, **needed))
    law = fi.distribution(name, shape, **needed)
    drawn = getattr(fi, name)(shape, seed=3, **needed)
    assert str(fi.summarize(drawn, text)) == str(fi.summarize(drawn, law))


@each_scheme
def test_wrong_calls(name):
    shape, needed, function = shape_of(name), NEEDED.get(name, {}), getattr(fi, name)
    out = np.full(shape, 7.0)
    no_parameter = str(unknown(f"parameter of {name}", "sdt", SCHEMES[name].parameters))
    larger = (shape[0] + 1, *shape[1:])
    cases = [
        (TypeError, f"{name} needs a shape or out", lambda: function(**needed)),
        (TypeError, "region needs shape, the global one", lambda: function(out=out, region=(slice(1),), **needed)),
        (TypeError, no_parameter, lambda: function(out=out, sdt=1, **needed)),
        (TypeError, "seed must be an int or a Key. Received: seed=0.5", lambda: function(out=out, seed=0.5, **needed)),
        (
            ValueError,
            f"out must have the region's shape {larger}, of the global {larger}. Received: {shape}",
            lambda: function(larger, out=out, **needed),
        ),
        (
            TypeError,
            "dtype must be one of float16, bfloat16, float32, float64. Received: dtype='int32'",
            lambda: function(shape, dtype="int32", **needed),
        ),
        (ValueError, "unknown layout 'xyz'. Allowed: oi, io", lambda: function(out=out, layout="xyz", **needed)),
    ]
    if needed:
        (missing,) = needed
        cases.append((TypeError, f"{name} needs the parameter {missing!r}", lambda: function(out=out)))
    for error, message, call in cases:
        with pytest.raises(error) as caught:
            call()
        assert str(caught.value) == message
    assert (out == 7).all()


BAD_NUMBERS = [("nan", math.nan, ValueError), ("inf", math.inf, ValueError), ("text", "1", TypeError)]
NUMBERS = {"gain", "value", "low", "high", "mean", "std", "scale", "sparsity"}
BAD_ARGUMENTS = [
    (name, parameter, value, error)
    for name, row in SCHEMES.items()
    for parameter, (_, value, error) in itertools.product(row.parameters, BAD_NUMBERS)
    if parameter in NUMBERS
]
BAD_ARGUMENTS += [(row.name, "std", -1, ValueError) for row in SCHEMES.values() if "std" in row.parameters]
BAD_ARGUMENTS += [(f"xavier_{kind}", "gain", -1, ValueError) for kind in ("uniform", "normal")]
BAD_ARGUMENTS += [("variance_scaling", "scale", -1, ValueError), ("sparse", "sparsity", 1.5, ValueError)]
BAD_ARGUMENTS += [("dirac", "groups", 0, ValueError), ("dirac", "groups", 1.5, TypeError)]
BAD_ARGUMENTS += [(f"xavier_{kind}", "gain", 1e200, ValueError) for kind in ("uniform", "normal")]
BAD_COUNTS = [(0, ValueError), (-3, ValueError), (2.0, TypeError), (True, TypeError), ("12", TypeError)]
BAD_COUNTS += [(None, TypeError), (10**400, ValueError)]
BAD_ARGUMENTS += [
    (name, parameter, value, error)
    for name, row in SCHEMES.items()
    for parameter, (value, error) in itertools.product(row.parameters, BAD_COUNTS)
    if parameter in ("layers", "base")
]
BAD_ARGUMENTS += [("deepnet", "other_layers", value, error) for value, error in BAD_COUNTS if value is not None]
BAD_ARGUMENTS += [("fixup", "branch", value, error) for value, error in [*BAD_COUNTS[:-1], (1, ValueError)]]


@pytest.mark.parametrize("name", sorted({row[0] for row in BAD_ARGUMENTS}))
def test_wrong_parameters_are_named(name):
    out = np.full(shape_of(name), 7.0)
    for _, parameter, value, error in (row for row in BAD_ARGUMENTS if row[0] == name):
        with pytest.raises(error) as caught:
            getattr(fi, name)(out=out, seed=0, **{**NEEDED.get(name, {}), parameter: value})
        message = str(caught.value)
        assert message.startswith(f"{parameter} must ")
        assert f"Received: {parameter}={value!r}" in message
    assert (out == 7).all()
