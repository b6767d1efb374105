"""Bad parameters, seeds and names: the message, and an array that nobody touched; and the parameters at the edge."""

import functools
import re
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats
from pairs import pairs

import fastinit as fi
from fastinit._core import draw as engine
from fastinit._runtime.arrays import DTYPES

SENTINEL = 7

each_kind = pytest.mark.parametrize("kind", DTYPES.values(), ids=list(DTYPES))
each_write = pytest.mark.parametrize("write", [fi.fill, fi.add])


@each_write
def test_what_is_no_distribution(write):
    out = np.full(4, 7.0)
    message = "distribution must be a scheme's name or a distribution. Received: "
    for law in (None, fi.Normal, 1.0, fi.normal):
        for call in (functools.partial(write, seed=0), fi.summarize):
            if law is not None or call is not fi.summarize:
                with pytest.raises(TypeError) as caught:
                    call(out, law)
                assert str(caught.value) == f"{message}{law!r}"
    assert (out == 7).all()


@each_write
def test_names_that_are_no_scheme(write):
    out = np.full(4, 7.0)
    for text, message in (
        ("he_norml", "unknown scheme 'he_norml'; did you mean 'he_normal'? Allowed: "),
        ("gaussian", "unknown scheme 'gaussian'; did you mean 'normal'? Allowed: "),
        ("normal(0.02)", "a scheme must be NAME or NAME(parameter=value, ...). Received: "),
        ("", "a scheme must be NAME or NAME(parameter=value, ...). Received: "),
        ("he_normal", "with fewer than 2 dimensions"),
    ):
        for call in (functools.partial(write, seed=0), fi.summarize):
            with pytest.raises(ValueError, match=re.escape(message)):
                call(out, text)
    assert (out == 7).all()


@pytest.mark.parametrize("law", [fi.Normal(), fi.Constant(1), fi.Eye(), fi.Sparse(0.5)], ids=repr)
@each_write
def test_bad_seeds(write, law):
    out = np.full((2, 2), 7.0)
    for seed, error, message in (
        (-1, ValueError, "seed must not be negative. Received: seed=-1"),
        (0.5, TypeError, "seed must be an int or a Key. Received: seed=0.5"),
        (True, TypeError, "seed must be an int, not a bool. Received: seed=True"),
        ("1", TypeError, "seed must be an int or a Key. Received: seed='1'"),
        ([1], TypeError, "seed must be an int or a Key. Received: seed=[1]"),
    ):
        with pytest.raises(error) as caught:
            write(out, law, seed=seed)
        assert str(caught.value) == message
    assert (out == 7).all()


# --- parameters ---

INF, NAN = float("inf"), float("nan")
BAD_PARAMETERS = [
    (lambda: fi.Normal(0, -1), "std must not be negative. Received: std=-1"),
    (lambda: fi.Normal(0, NAN), "std must be finite. Received: std=nan"),
    (lambda: fi.Normal(0, INF), "std must be finite. Received: std=inf"),
    (lambda: fi.Normal(NAN), "mean must be finite. Received: mean=nan"),
    (lambda: fi.Normal(-INF), "mean must be finite. Received: mean=-inf"),
    (lambda: fi.Uniform(2, 1), "low must not be above high. Received: low=2.0, high=1.0"),
    (lambda: fi.Uniform(NAN, 1), "low must be finite. Received: low=nan"),
    (lambda: fi.Uniform(-INF, 1), "low must be finite. Received: low=-inf"),
    (lambda: fi.Uniform(0, INF), "high must be finite. Received: high=inf"),
    (lambda: fi.Constant(NAN), "value must be finite. Received: value=nan"),
    (lambda: fi.Constant(INF), "value must be finite. Received: value=inf"),
    (lambda: fi.Constant(10**400), f"value must be finite. Received: value={10**400}"),
    (lambda: fi.TruncatedNormal(0, -1), "std must not be negative. Received: std=-1"),
    (lambda: fi.TruncatedNormal(NAN), "mean must be finite. Received: mean=nan"),
    (lambda: fi.TruncatedNormal(0, 1, -INF), "low must be finite. Received: low=-inf"),
    (lambda: fi.TruncatedNormal(0, 1, 1, NAN), "high must be finite. Received: high=nan"),
    (lambda: fi.TruncatedNormal(0, 1, 2, 1), "low must not be above high. Received: low=2.0, high=1.0"),
    (
        lambda: fi.TruncatedNormal(5, 0),
        "mean must lie in [low, high] where std is 0. Received: mean=5, low=-2.0, high=2.0",
    ),
    (
        lambda: fi.TruncatedNormal(0, 1, 50, 51),
        "low and high are too far from the mean, or too close to each other: no mass is left. "
        "Received: TruncatedNormal(mean=0.0, std=1.0, low=50.0, high=51.0)",
    ),
    (lambda: fi.add(np.zeros(2), fi.Normal(), scale=NAN), "scale must be finite. Received: scale=nan"),
    (lambda: fi.add(np.zeros(2), fi.Normal(), scale=-INF), "scale must be finite. Received: scale=-inf"),
]


@pytest.mark.parametrize(("make", "message"), BAD_PARAMETERS, ids=[message[:40] for _, message in BAD_PARAMETERS])
def test_bad_parameters(make, message):
    with pytest.raises(ValueError, match="Received") as caught:
        make()
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("mean", fi.Normal),
        ("std", lambda value: fi.Normal(0, value)),
        ("low", fi.Uniform),
        ("high", lambda value: fi.Uniform(0, value)),
        ("value", fi.Constant),
        ("low", lambda value: fi.TruncatedNormal(low=value)),
    ],
)
def test_parameters_are_real_numbers(name, make):
    for value in ("1", None, True, 1j, [1.0], np.ones(1), np.bool_(True)):
        with pytest.raises(TypeError) as caught:
            make(value)
        assert str(caught.value) == f"{name} must be a real number. Received: {name}={value!r}"


TOO_LARGE = {"float16": 1e5, "bfloat16": 3.5e38, "float32": 3.5e38}


@pytest.mark.parametrize("dtype", TOO_LARGE)
@each_write
def test_a_law_over_the_range_of_the_dtype(write, dtype):
    big = TOO_LARGE[dtype]
    cases = [
        (fi.Constant(big), f"value is over the range of {dtype}. Received: value={big!r}"),
        (fi.Normal(-big), f"mean is over the range of {dtype}. Received: mean={-big!r}"),
        (fi.Normal(0, big), f"std is over the range of {dtype}. Received: std={big!r}"),
        (fi.TruncatedNormal(big, 0, 0, big), f"value is over the range of {dtype}. Received: value={big!r}"),
        (fi.TruncatedNormal(0, 1, -big, 1), f"low is over the range of {dtype}. Received: low={-big!r}"),
        (fi.Uniform(0, big), f"high is over the range of {dtype}. Received: high={big!r}"),
        (
            fi.Uniform(-big / 2, big / 2),
            f"high - low is over the range of {dtype}. Received: low={-big / 2!r}, high={big / 2!r}",
        ),
    ]
    for law, message in cases:
        out = np.full(5, SENTINEL, DTYPES[dtype])
        with pytest.raises(ValueError, match="is over the range of") as caught:
            write(out, law, seed=0)
        assert str(caught.value) == message
        assert (out == SENTINEL).all()


def test_a_width_over_the_range_of_float64():
    out = np.full(5, 7.0)
    with pytest.raises(ValueError, match=r"^high - low is over the range of float64\. Received: low=-1e\+308, high=1e"):
        fi.fill(out, fi.Uniform(-1e308, 1e308), seed=0)
    assert (out == 7).all()


@pytest.mark.parametrize(
    "law", [fi.Eye(1e5), fi.Orthogonal(1e5), fi.DeltaOrthogonal(1e5), fi.Sparse(0.5, 1e5)], ids=repr
)
@each_write
def test_a_structured_law_over_the_range_of_the_dtype(write, law):
    out = np.full((4, 4, 3) if isinstance(law, fi.DeltaOrthogonal) else (4, 4), SENTINEL, np.float16)
    with pytest.raises(ValueError, match=r"^(gain|std) is over the range of float16\. Received: (gain|std)=100000\.0$"):
        write(out, law, seed=0)
    assert (out == SENTINEL).all()


@pytest.mark.parametrize("law", [fi.Normal(), fi.Orthogonal()], ids=repr)
def test_a_scale_over_the_range_of_the_dtype(law):
    out = np.full((2, 2), SENTINEL, np.float32)
    with pytest.raises(ValueError, match=r"^scale is over the range of float32\. Received: scale=1e\+300$"):
        fi.add(out, law, seed=0, scale=1e300)
    assert (out == SENTINEL).all()


@pytest.mark.parametrize(
    ("law", "message"),
    [
        (fi.Uniform(1.0001, 1.0002), "no float16 lies in [low, high). Received: low=1.0001, high=1.0002"),
        (fi.Uniform(0.9999, 1.0), "no float16 lies in [low, high). Received: low=0.9999, high=1.0"),
        (fi.TruncatedNormal(1, 1, 1.0001, 1.0002), "no float16 lies in [low, high]. Received: low=1.0001, high=1.0002"),
    ],
    ids=["uniform", "uniform below a value", "truncated"],
)
def test_bounds_between_two_values_of_the_dtype(law, message):
    out = np.full(5, SENTINEL, np.float16)
    with pytest.raises(ValueError, match="float16") as caught:
        fi.fill(out, law, seed=0)
    assert str(caught.value) == message
    assert (out == SENTINEL).all()
    assert fi.fill(np.empty(5), law, seed=0).min() >= law.low


def test_an_interval_with_one_value_of_the_dtype_is_that_value():
    for law, value in (
        (fi.Uniform(1.0, 1.0001), 1.0),
        (fi.Uniform(0.9999, 1.0001), 1.0),
        (fi.Uniform(1.0, np.nextafter(np.float16(1), np.float16(2))), 1.0),
        (fi.Uniform(-1e-50, 1e-50), 0.0),
        (fi.Uniform(0.0, 1e-50), 0.0),
        (fi.TruncatedNormal(1, 1, 0.9999, 1.0001), 1.0),
        (fi.TruncatedNormal(0, 1e-50, -1e-50, 1e-50), 0.0),
    ):
        for kind in (np.float16, DTYPES["bfloat16"]):
            x = fi.fill(np.full(300, SENTINEL, kind), law, seed=0)
            assert (x == value).all(), (law, kind)
            assert (fi.add(np.ones(300, kind), law, seed=0) == 1 + value).all(), (law, kind)
    assert not np.signbit(fi.fill(np.ones(3, np.float16), fi.Uniform(-1e-50, 1e-50), seed=0)).any()
    assert (fi.fill(np.empty(9, np.float32), fi.Uniform(1, 1 + 1e-9), seed=0) == 1).all()
    # Half a step above 1, where some numbers are rounded up: all of them are below `high`.
    assert (fi.fill(np.empty(300, np.float16), fi.Uniform(1.0003, 1.0009), seed=0) == 1).all()


@each_kind
def test_no_width_is_the_value(kind):
    laws = [fi.Normal(1.5, 0), fi.Uniform(1.5, 1.5), fi.TruncatedNormal(1.5, 0), fi.TruncatedNormal(1.5, 0, 1.5, 1.5)]
    for law in [*laws, fi.TruncatedNormal(0, 1, 1.5, 1.5)]:
        assert (law.mean, law.std) == (1.5, 0.0)
        assert (fi.fill(np.zeros(300, kind), law, seed=0) == 1.5).all()
        assert (fi.add(np.ones(300, kind), law, seed=0, scale=2) == 4).all()


def test_the_sign_of_zero_does_not_depend_on_what_was_asked_for_before():
    """0.0 == -0.0, which what is remembered by value must not confuse: a fresh process is the judge."""
    script = "import numpy as np, fastinit as fi; print(fi.fill(np.ones(1), fi.Constant(-0.0))[0])"
    fresh = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    for before in (0.0, -0.0):
        engine._ready.cache_clear()
        fi.fill(np.ones(1), fi.Constant(before))
        assert str(fi.fill(np.ones(1), fi.Constant(-0.0))[0]) == fresh


@pairs(kind=list(DTYPES.values()), side=[1, -1], sigma=[5, 8, 12, 20, 30])
def test_truncation_far_from_the_mean(kind, side, sigma):
    mean, std = 0.5, 0.25
    bounds = sorted((mean + side * sigma * std, mean + side * (sigma + 1) * std))
    law = fi.TruncatedNormal(mean, std, *bounds)
    x = fi.fill(np.empty(4000, kind), law, seed=sigma).astype(np.float64)
    assert x.min() >= bounds[0]
    assert x.max() <= bounds[1]
    exact = scipy.stats.truncnorm(*((bound - mean) / std for bound in bounds), mean, std)
    assert law.mean == pytest.approx(exact.mean(), rel=1e-9)
    if kind in (np.float32, np.float64):  # the others have a handful of values there
        assert scipy.stats.kstest(x, exact.cdf).pvalue > 1e-3
        assert scipy.stats.kstest(x + 0.1 * exact.std(), exact.cdf).pvalue < 1e-6  # the test has the power to see it


# --- names ---

UNKNOWN = [
    (
        lambda: fi.distribution("he_unifrom", (3, 4)),
        "scheme",
        "he_unifrom",
        "he_uniform",
        "zeros, ones, constant, uniform,",
    ),
    (
        lambda: fi.he_normal((3, 4), mode="fan_inn"),
        "mode",
        "fan_inn",
        "fan_in",
        "fan_in, fan_out, fan_avg, fan_geo_avg",
    ),
    (lambda: fi.normal((3, 4), layout="oii"), "layout", "oii", "oi", "oi, io"),
    (
        lambda: fi.he_normal((3, 4), nonlinearity="leaky"),
        "nonlinearity",
        "leaky",
        "leaky_relu",
        "linear, sigmoid, tanh, relu, leaky_relu, selu, gelu, silu",
    ),
    (
        lambda: fi.variance_scaling((3, 4), distribution="unifrm"),
        "distribution",
        "unifrm",
        "uniform",
        "uniform, normal, truncated_normal",
    ),
]


@pytest.mark.parametrize(("call", "what", "received", "near", "allowed"), UNKNOWN, ids=[row[1] for row in UNKNOWN])
def test_unknown_names(call, what, received, near, allowed):
    with pytest.raises(ValueError, match=r"^unknown ") as caught:
        call()
    start = f"unknown {what} {received!r}; did you mean {near!r}? Allowed: {allowed}"
    message = str(caught.value)
    assert message.startswith(start) if allowed.endswith(",") else message == start


def test_an_unknown_name_that_is_near_to_none():
    with pytest.raises(ValueError, match=r"^unknown mode 'zzz'\. Allowed: fan_in, fan_out, fan_avg, fan_geo_avg$"):
        fi.he_normal((3, 4), mode="zzz")


@pytest.mark.parametrize("shape", [(), (4,), 4, (0,)], ids=str)
def test_fans_need_two_dimensions(shape):
    words = "Fan in and fan out can not be computed for tensor with fewer than 2 dimensions. "
    received = (4,) if shape == 4 else shape
    out = np.full(received, 7.0)
    for call in (
        lambda: fi.he_normal(shape),
        lambda: fi.xavier_uniform(out=out),
        lambda: fi.distribution("lecun_normal", shape),
    ):
        with pytest.raises(ValueError, match=r"^Fan in and fan out") as caught:
            call()
        assert str(caught.value) == f"{words}Received: shape {received}, batch_axes=()"
    assert (out == 7).all()
