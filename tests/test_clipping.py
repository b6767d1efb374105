"""Clipping against plain NumPy in float64, torch's clipping, and optax's formula written by hand."""

import itertools
import math

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal

import fastinit as fi
from fastinit._native.catalogue import NORMS
from fastinit._native.library import kernel
from fastinit._runtime import threads
from fastinit._runtime.arrays import DTYPES
from fastinit._runtime.headers import simple_runs
from fastinit._runtime.threads import CHUNK
from fastinit.clip._clipping import clamp, scale_by_norm, total_norm
from fastinit.clip._vectors import blocks

RANGE = 8 * CHUNK  # a whole number of ranges, whatever the number of threads
SIZES = (1, 2, 15, 16, 17, 1000, CHUNK - 1, CHUNK, CHUNK + 1, RANGE - 1, RANGE, RANGE + 1, 3 * RANGE + 5)
ORDERS = (1, 2, np.inf, 0.5, 3, 7.5)
NUMBERS = (1, 2, 3, 8)
# Half a unit in the last place, relative: what one rounding may change.
ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-52}

each_dtype = pytest.mark.parametrize("dtype", DTYPES)
each_order = pytest.mark.parametrize("p", ORDERS)


def norm(arrays, p=2.0):
    """The reference: one float64 vector, divided by its largest element."""
    x = np.abs(np.concatenate([np.asarray(a, np.float64).ravel() for a in arrays] or [np.empty(0)]))
    largest = x.max(initial=0.0)
    if largest == 0 or not np.isfinite(largest) or p == np.inf:
        return float(largest)
    return float(np.sum((x / largest) ** p) ** (1 / p) * largest)


def draw(shape, dtype="float32", seed=0):
    return fi.normal(shape, mean=0.1, seed=seed, dtype=dtype)


def clipped(x, limit, before, dtype):
    """What scaling makes of an array: the product rounded once to its dtype."""
    return (np.asarray(x, np.float64) * (limit / before)).astype(DTYPES[dtype]).astype(np.float64)


def assert_close(found, wanted, dtype, roundings=2.5):
    tiny = float(ml_dtypes.finfo(DTYPES[dtype]).smallest_subnormal)
    assert_allclose(np.asarray(found, np.float64), wanted, rtol=roundings * ROUNDING[dtype], atol=tiny)


# --- the norm ---


@each_dtype
def test_the_norm_is_that_of_float64(dtype):
    drawn = draw(max(SIZES), dtype, 1)
    for p, size in itertools.product(ORDERS, SIZES):
        x = drawn[-size:]
        assert_allclose(fi.global_norm(x, p), norm([x], p), rtol=1e-13)


@each_order
def test_one_norm_of_mixed_arrays(p):
    arrays = [draw(100 * i + 1, dtype, i) for i, dtype in enumerate([*DTYPES, *DTYPES])]
    arrays += [np.empty((3, 0)), np.array(2.5)]
    wanted = norm(arrays, p)
    assert_allclose(fi.global_norm(arrays, p), wanted, rtol=1e-13)
    assert fi.global_norm(tuple(arrays), p) == fi.global_norm(dict(enumerate(arrays)), p)
    assert fi.global_norm((a for a in arrays), p) == fi.global_norm(arrays, p)


def test_the_norm_of_many_arrays_is_that_of_each_by_itself():
    arrays = [draw(size, dtype, i) for i, (size, dtype) in enumerate(zip(SIZES, [*DTYPES] * 4, strict=False))]
    arrays.insert(3, np.empty(0))
    assert fi.clip_by_norm(arrays, np.inf) == [fi.global_norm(x) for x in arrays]


@each_order
def test_without_elements_the_norm_is_zero(p):
    for nothing in ([], {}, (), np.empty(0), [np.empty((0, 3), np.float16), np.empty(0)]):
        assert fi.global_norm(nothing, p) == fi.clip_by_global_norm(nothing, 1.0, norm_type=p) == 0


@pytest.mark.parametrize(
    ("value", "dtype"), [(1e19, "float32"), (3e38, "float32"), (1e-45, "float32"), (300, "float16"), (3e38, "bfloat16")]
)
def test_narrow_dtypes_do_not_overflow(value, dtype):
    x = np.full(1000, value, DTYPES[dtype])
    for p in (1, 2, np.inf, 30):
        assert_allclose(fi.global_norm(x, p), norm([x], p), rtol=1e-13)


@pytest.mark.parametrize("value", [1e200, 1e-200, 1.7e308, 1e308, 5e-324, 1e-320, 1e-154, 1e-160])
def test_float64_norms_beyond_its_squares(value):
    for p in (1, 2, np.inf, 3, 0.5, 10):
        count = 2 if value > 1e300 and p < 1 else 9
        x = np.full(count, value) * np.where(np.arange(count) % 2, -1, 1)
        with np.errstate(over="ignore"):
            wanted = np.float64(count) ** (1 / p) * value
        assert_allclose(fi.global_norm(x, p), wanted, rtol=1e-12, atol=5e-324)
        assert_allclose(fi.global_norm([x[:1], x[1:]], p), wanted, rtol=1e-12, atol=5e-324)
        assert_allclose(
            fi.clip_by_norm([x, np.ones(4), np.zeros(4)], np.inf, norm_type=p)[0], wanted, rtol=1e-12, atol=5e-324
        )


@pytest.mark.parametrize("size", [CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 3])
@pytest.mark.parametrize("scale", [1e303, 1e200, 1e150, 1e-155, 1e-162, 1e-200, 1e-310])
def test_chunks_beyond_the_squares_of_float64(scale, size):
    x = draw(size, "float64", size) * scale
    assert_allclose([fi.global_norm(x), fi.clip_by_norm([x], np.inf)[0]], norm([x]), rtol=1e-13)
    assert_allclose(fi.global_norm([x, np.ones(3) * scale, np.ones(5, "f")]), norm([x, np.ones(3) * scale, np.ones(5)]))
    if scale > 1e-300:
        fi.clip_by_global_norm(x, scale)
        assert_allclose(fi.global_norm(x), scale, rtol=1e-12)


def test_a_very_large_p_is_the_largest():
    assert 49.0 * (1 / 49.0) < 1  # whose 1e300th power is 0, so that terms are divided
    assert fi.global_norm([np.array([1.0, -49.0]), np.array([3.0])], 1e300) == 49
    assert_allclose(fi.global_norm(np.array([0.3, 0.7]), 1e17), 0.7, rtol=1e-12)
    for p in (30, 50, 1000):  # below float64's normal numbers too
        assert fi.global_norm(np.array([1e-318]), p) == 1e-318
        assert fi.global_norm(np.array([3e-318j, 1e-320]), p) == 3e-318


@each_dtype
def test_a_nan_is_seen_anywhere_and_infinity_too(dtype):
    for p in ORDERS:
        for place in (0, 7, CHUNK - 1, CHUNK, 2 * CHUNK + 1):
            x = draw(2 * CHUNK + 2, dtype)
            x[place] = -np.inf
            assert fi.global_norm(x, p) == np.inf
            x[1 - place % 2] = np.nan
            assert np.isnan(fi.global_norm([x, np.ones(3)], p))


@each_dtype
def test_the_norm_does_not_depend_on_the_thread_count(dtype, monkeypatch):
    monkeypatch.setattr(threads, "PARALLEL_BYTES", 0)
    arrays = [draw(size, dtype, size) for size in (2 * RANGE + 3, 1, CHUNK + 1)]
    for p in ORDERS:
        found = []
        for number in NUMBERS:
            with fi.thread_limit(number):
                found.append((fi.global_norm(arrays, p), *fi.clip_by_norm(arrays, np.inf, norm_type=p)))
        assert len(set(found)) == 1


@pytest.mark.parametrize("kind", NORMS)
def test_a_norm_kernel_numbers_its_chunks_from_the_start(kind):
    x = draw(5 * CHUNK + 3)
    results, numbers = np.full(8, -1.0), np.array([1.0, 3.0])
    threads.spread(
        kernel("sums.norms.norm_kernel", kind, "float32"),
        4,
        x.ctypes.data,
        x.size,
        (CHUNK, numbers.ctypes.data),
        results.ctypes.data,
    )
    wide = np.abs(x.astype(np.float64))
    function = {
        "squares": lambda c: (c**2).sum(),
        "absolute": np.sum,
        "largest": np.max,
        "power": lambda c: (c**3).sum(),
    }
    wanted = [function[kind](wide[first : first + CHUNK]) for first in range(0, x.size, CHUNK)]
    assert_allclose(results, [*wanted, -1, -1], rtol=1e-13)


def test_reading_takes_read_only_and_overlapping_arrays():
    x = draw((30, 40))
    x.flags.writeable = False
    wide = np.broadcast_to(x[0], (7, 40))
    assert_allclose(fi.global_norm([x, wide, x]), norm([x, wide, x]), rtol=1e-13)


def test_arrays_that_nobody_else_holds_are_kept():
    sizes = range(1 << 17, (1 << 17) + 20)
    found = [fi.global_norm(np.full(size, 1.0) for size in sizes) for _ in range(5)]
    assert_allclose(found, sum(sizes) ** 0.5, rtol=1e-13)
    found = [fi.global_norm(np.broadcast_to(np.array([[i], [1.0]]), (2, 1 << 17)) for i in range(9)) for _ in range(5)]
    assert_allclose(found, ((204 + 9) * (1 << 17)) ** 0.5, rtol=1e-13)


# --- by one norm ---


@each_dtype
def test_clips_to_the_norm(dtype):
    for p, size in itertools.product(ORDERS, [1, 17, CHUNK + 1, 2 * RANGE + 5]):
        x = draw(size, dtype, 3)
        y = draw((3, 5), "float64", 4)
        old_x, old_y, before = x.copy(), y.copy(), norm([x, y], p)
        limit = before / 3
        found = fi.clip_by_global_norm([x, y], limit, norm_type=p)
        assert_allclose(found, before, rtol=1e-13)
        # By the norm that was found: NumPy adds in another order.
        assert_close(x, clipped(old_x, limit, found, dtype), dtype)
        assert_close(y, clipped(old_y, limit, found, "float64"), "float64")


@pytest.mark.parametrize("limit", [1.0, 1.5, np.inf, 1e300])
def test_leaves_what_is_short_enough(limit):
    arrays = [np.array([0.6, -0.0]), np.array([0.8], np.float32) * 0]
    arrays[1][:] = 0.75
    old = [a.tobytes() for a in arrays]
    fi.clip_by_global_norm(arrays, limit, eps=0.5)  # eps is no part of the comparison
    fi.clip_by_norm(arrays, limit)
    assert [a.tobytes() for a in arrays] == old


def test_eps_is_added_in_the_divisor():
    x = np.array([3.0, 4.0])
    assert fi.clip_by_global_norm(x, 1.0, eps=5.0) == 5
    assert_allclose(x, [0.3, 0.4])
    x = np.array([3.0, 4.0])
    fi.clip_by_norm(x, 1.0, eps=5.0)
    assert_allclose(x, [0.3, 0.4])


def test_a_limit_of_zero_makes_zeros():
    x = draw(100)
    fi.clip_by_global_norm(x, 0)
    assert not x.any()
    assert fi.clip_by_global_norm(x, 0) == 0


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, np.inf])
def test_agrees_with_torch(p):
    for limit, spoiled in itertools.product((0.1, 10.0, 1e6), (None, np.inf, np.nan)):
        arrays = [draw((40, 50), seed=1), draw(17, seed=2), draw((3, 4, 5), seed=3)]
        if spoiled is not None:
            arrays[1][5] = spoiled
        parameters = [torch.nn.Parameter(torch.zeros(a.shape)) for a in arrays]
        for parameter, a in zip(parameters, arrays, strict=True):
            parameter.grad = torch.from_numpy(a.copy())
        total = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters], p)
        assert_allclose(fi.global_norm(arrays, p), total.item(), rtol=1e-5)
        torch.nn.utils.clip_grad_norm_(parameters, limit, p)
        assert_allclose(fi.clip_by_global_norm(arrays, limit, norm_type=p, eps=1e-6), total.item(), rtol=1e-5)
        for parameter, a in zip(parameters, arrays, strict=True):
            assert_allclose(a, parameter.grad.numpy(), rtol=1e-5)


@pytest.mark.parametrize("call", [fi.clip_by_global_norm, fi.clip_by_norm])
@pytest.mark.parametrize("spoiled", [np.inf, np.nan])
def test_a_norm_that_is_not_finite_can_be_an_error(call, spoiled):
    arrays = [np.ones(3) * 9, np.array([1.0, spoiled])]
    name = "arrays" if call is fi.clip_by_global_norm else r"x\[1\]"
    with pytest.raises(ValueError, match=f"^the norm of {name} must be finite. Received: {spoiled}$"):
        call(arrays, 1.0, error_if_nonfinite=True)
    assert_array_equal(arrays[0], [9, 9, 9])


def test_a_norm_that_is_not_finite_spoils_its_own_array_only():
    arrays = [np.array([3.0, 4.0]), np.array([1.0, np.nan]), np.array([2.0, np.inf])]
    assert_array_equal(fi.clip_by_norm(arrays, 1.0), [5, np.nan, np.inf])
    assert_allclose(arrays[0], [0.6, 0.8])
    assert_array_equal(arrays[1], [np.nan, np.nan])
    assert_array_equal(arrays[2], [0, np.nan])


def test_scaling_keeps_the_digits_of_tiny_factors():
    x = np.full(100, 1e38, np.float32)
    fi.clip_by_global_norm(x, 1e-3)  # the factor is below float32's normal numbers
    assert_allclose(x, 1e-4, rtol=2e-7)
    x = np.full(4, 1e200)
    assert_allclose(fi.clip_by_norm(x, 1e-200), 2e200)
    assert_allclose(x, 0.0, atol=1e-200)


@each_dtype
def test_clipping_does_not_depend_on_the_thread_count(dtype, monkeypatch):
    monkeypatch.setattr(threads, "PARALLEL_BYTES", 0)
    monkeypatch.setattr(threads, "READ_SLAB", 3 * RANGE)
    found = set()
    for number in NUMBERS:
        arrays = [draw(size, dtype, size) for size in (7 * RANGE + 3, 1, CHUNK)]
        with fi.thread_limit(number):
            fi.clip_by_global_norm(arrays, 0.5)
            fi.clip_by_value(arrays, -0.001, 0.002)
        found.add(b"".join(a.tobytes() for a in arrays))
    assert len(found) == 1


# --- each by its own ---


def test_clips_each_by_its_own_norm():
    arrays = {"a": draw((30, 40)), "b": draw(10, "float64") / 100, "c": draw(50, "bfloat16"), "d": np.array(-7.0)}
    old = {name: a.copy() for name, a in arrays.items()}
    before = fi.clip_by_norm(arrays, 2.0)
    assert list(before) == list(arrays)
    for name, a in arrays.items():
        assert_allclose(before[name], norm([old[name]]), rtol=1e-13)
        dtype = a.dtype.name
        wanted = clipped(old[name], min(2.0, before[name]), before[name], dtype)
        assert_close(a, wanted, dtype)
    assert arrays["d"] == -2
    assert fi.clip_by_norm(np.array([3.0, 4.0]), 1.0) == 5.0
    assert fi.clip_by_norm((a for a in [np.ones(4)]), 1.0) == [2.0]
    assert fi.clip_by_norm([], 1.0) == []


# --- by value ---


@each_dtype
def test_clips_by_value_as_torch_and_numpy(dtype):
    for low, high in ((-0.3, 0.4), (0.1, 0.1), (-np.inf, 0.0), (0.5, np.inf), (-1e300, 1e300)):
        x = draw(3 * RANGE + 5, dtype)
        x[[3, 4, 5]] = np.nan, np.inf, -np.inf
        wanted = torch.from_numpy(x.astype(np.float64)).clamp(low, high).numpy()
        with np.errstate(over="ignore"):
            wanted = wanted.astype(x.dtype)
        fi.clip_by_value(x, low, high)
        if abs(low) == 1e300 and dtype != "float64":  # beyond the range: no bound
            wanted[[4, 5]] = np.inf, -np.inf
        assert_array_equal(x.astype(np.float64), wanted.astype(np.float64))


def test_agrees_with_torchs_clip_grad_value():
    x = draw((20, 30))
    parameter = torch.nn.Parameter(torch.zeros(20, 30))
    parameter.grad = torch.from_numpy(x.copy())
    torch.nn.utils.clip_grad_value_([parameter], 0.7)
    fi.clip_by_value([x], -0.7, 0.7)
    assert_array_equal(x, parameter.grad.numpy())


# --- row by row ---


def optax_adaptive(parameters, gradients, clipping, eps):
    """`optax.adaptive_grad_clip` in float64; units are rows here, where optax's weights have them last."""

    def unitwise_norm(x):
        axes = tuple(range(x.ndim)) if np.squeeze(x).ndim <= 1 else tuple(range(1, x.ndim))
        return np.broadcast_to(np.sqrt(np.sum(x * x, axis=axes, keepdims=True)), x.shape)

    g, w = np.asarray(gradients, np.float64), np.asarray(parameters, np.float64)
    g_norm, max_norm = unitwise_norm(g), clipping * np.maximum(unitwise_norm(w), eps)
    return np.where(g_norm < max_norm, g, g * (max_norm / np.maximum(g_norm, 1e-6)))


@pytest.mark.parametrize(
    "shape",
    [(), (1,), (50,), (1, 9), (9, 1), (20, 30), (3, CHUNK + 5), (7, 3, 5), (6, 5, 3, 3), (4, 0), (2, RANGE + 1)],
)
def test_agrees_with_optaxs_formula(shape):
    for dtype in DTYPES:
        weight, gradient = draw(shape, seed=1), draw(shape, dtype, 2)
        if shape:
            weight[: len(weight) // 2] = 0
        for clipping, eps in ((0.01, 1e-3), (1.0, 0.5), (0.0, 0.0)):
            wanted = optax_adaptive(weight, gradient, clipping, eps)
            fi.adaptive_clip(weight, gradient, clipping, eps)
            assert_close(gradient, wanted, dtype, 8)


def test_adaptive_clipping_spreads_nan_within_its_unit():
    weight, gradient = np.ones((3, 4)), np.ones((3, 4))
    gradient[1, 2] = np.nan
    fi.adaptive_clip(weight, gradient, 0.01)
    assert_allclose(gradient[[0, 2]], 0.01)
    assert np.isnan(gradient[1]).all()


def test_adaptive_clipping_of_many_matches_dicts_by_their_keys():
    weights = {name: draw((4, 5), seed=i) for i, name in enumerate("abc")}
    gradients = {name: draw((4, 5), seed=9 + i) for i, name in enumerate("cab")}
    wanted = {name: optax_adaptive(weights[name], g, 0.1, 1e-3) for name, g in gradients.items()}
    fi.adaptive_clip(weights, gradients, 0.1)
    for name, g in gradients.items():
        assert_close(g, wanted[name], "float32", 4)
    weight, gradient = draw((4, 5), seed=1), draw((4, 5), seed=2)
    wanted = optax_adaptive(weight.T, gradient.T, 0.1, 1e-3)
    fi.adaptive_clip([weight.T], [gradient.T], 0.1)  # optax's layout
    assert_close(gradient.T, wanted, "float32", 4)


# --- memory ---

VIEWS = {
    "stepped": lambda x: x[::2],
    "both stepped": lambda x: x[1::3, ::-2],
    "reversed": lambda x: x[::-1, ::-1],
    "transposed": lambda x: x.T,
    "columns": lambda x: x[:, 3:7],
    "one": lambda x: x[2:3, 4:5],
    "empty": lambda x: x[:0],
    "rows": lambda x: x[3:6],
    "0-d": lambda x: x[2, 3, ...],
}


class Other(np.ndarray):
    """Another class, whose arrays are checked one by one."""


def headers():
    """Arrays by name, and which of them can be read, and written, as runs without further checks."""
    x = draw((31, 20))
    read_only = draw(5)
    read_only.flags.writeable = False
    simple = {name: view(x) for name, view in VIEWS.items() if name in ("one", "rows", "0-d", "empty")}
    simple |= {dtype: draw((2, 3, 4), dtype) for dtype in DTYPES}
    simple |= {
        "axes": np.ones((1,) * 60 + (3, 2)),
        "long": np.ones((2, 0, 3)),
        "part": draw(9)[4:6],
        "both orders": draw((1, 7)).T,
    }
    others = {name: view(x) for name, view in VIEWS.items() if name not in simple}
    others |= {
        "class": draw(3).view(Other),
        "unaligned": np.zeros(9, np.uint8)[1:].view(np.float32),
        "big-endian": np.ones(3, ">f4"),
        "int": np.arange(3),
        "complex": np.ones(2, complex),
        "list": [1.0],
    }
    return simple, {"read-only": read_only}, others


def test_headers_tell_what_the_attributes_do():
    simple, readable, others = headers()
    for arrays, write in ((simple, True), (simple | readable, False)):
        runs, codes = simple_runs(list(arrays.values()), write=write)
        wanted = [(a.ctypes.data, a.size, a.itemsize) for a in arrays.values()]
        assert [(run["place"], run["count"], run["size"]) for run in runs] == wanted
        assert [list(DTYPES.values())[code] for code in codes] == [a.dtype for a in arrays.values()]
        for name in ("kernel", "key", "stream", "parameters"):
            assert not runs[name].any()
        for other in others.values():
            for place in (0, 3, len(arrays)):
                listed = list(arrays.values())
                assert simple_runs([*listed[:place], other, *listed[place:]], write=write) is None
    assert simple_runs([*simple.values(), *readable.values()], write=True) is None
    assert simple_runs([], write=True) is None


def test_arrays_that_are_checked_one_by_one_are_clipped_alike():
    arrays = [draw(size, dtype, i) for i, (size, dtype) in enumerate(zip(SIZES, [*DTYPES] * 4, strict=False))]
    twins = [a.copy() for a in arrays]
    twins[2] = twins[2].view(Other)
    assert fi.clip_by_global_norm(arrays, 0.5) == fi.clip_by_global_norm(twins, 0.5)
    assert [a.tobytes() for a in arrays] == [a.tobytes() for a in twins]


def work_on(kind, view):
    if kind == "adaptive":
        fi.adaptive_clip(np.zeros(view.shape), view, 0.1)
    elif kind == "value":
        fi.clip_by_value(view, -0.2, 0.1)
    else:
        fi.clip_by_global_norm([view], 0.5)


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_any_strides_and_the_gaps_stay(view):
    for dtype, kind in itertools.product(DTYPES, ("norm", "value", "adaptive")):
        x = draw((31, 20), dtype)
        wanted = x.copy()
        part = view(wanted).copy()
        work_on(kind, part)
        view(wanted)[...] = part
        work_on(kind, view(x))
        untouched = np.ones(x.shape, bool)
        view(untouched)[...] = False
        assert_array_equal(x[untouched], wanted[untouched])
        assert_close(x, wanted.astype(np.float64), dtype)


def test_unaligned_arrays_are_copied():
    memory = np.zeros(4 * 10 + 1, np.uint8)
    x = memory[1:].view(np.float32)
    x[:] = 3
    assert_allclose(fi.clip_by_global_norm([x, x], 1.0), 180**0.5)
    assert_allclose(x, 3 / 180**0.5, rtol=1e-6)


def test_a_repeated_array_counts_twice_and_is_scaled_once():
    x, y = np.array([[3.0, 0.0], [0.0, 4.0]]), draw((6, 6), "float64")[::2, ::2]
    old_x, old_y = x.copy(), y.copy()
    arrays = [x, y, x.T, x.reshape(-1)[::-1], y]
    before = norm(arrays)
    assert_allclose(fi.clip_by_global_norm(arrays, 1.0), before)
    assert_allclose(fi.global_norm(arrays), 1.0)
    assert_allclose(x, old_x / before)
    assert_allclose(y, old_y / before)
    assert_allclose(fi.clip_by_norm([x, x], 0.1), [5 / before] * 2)
    assert_allclose(norm([x]), 0.1)


def test_arrays_that_share_a_part_are_refused():
    x = draw(100)
    old = x.tobytes()
    cases = {
        r"arrays\[0\] and arrays\[1\]": [x[:60], x[50:]],
        r"arrays\[1\] and arrays\[2\]": [np.ones(3), x[40:60], x],
        r"arrays\['a'\] and arrays\['b'\]": {"a": x[::2], "b": x[::3]},
        r"arrays\[0\] and arrays\[2\]": [x, np.ones(2), x.view(np.float64)],
    }
    for names, arrays in cases.items():
        with pytest.raises(ValueError, match=f"^arrays must not share part of their memory. Received: {names}$"):
            fi.clip_by_global_norm(arrays, 1e-3)
    with pytest.raises(ValueError, match=r"^arrays must not share part"):
        fi.adaptive_clip([np.ones((3, 3))] * 2, [x[:9].reshape(3, 3), x[:9].reshape(3, 3).T], 0.1)
    assert x.tobytes() == old
    fi.clip_by_global_norm([x[::2], x[1::2], x[:0], x[50:50]], 1.0)  # interleaved, but apart
    assert_allclose(norm([x]), 1.0, rtol=1e-6)


elements = st.floats(-1e3, 1e3, width=32)
many = st.lists(
    st.sampled_from(["float32", "float64"]).flatmap(
        lambda dtype: hnp.arrays(
            dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=6), elements=elements
        )
    ),
    max_size=5,
)


@settings(max_examples=100, deadline=None)
@given(arrays=many, limit=st.floats(1e-3, 1e4), p=st.sampled_from(ORDERS))
def test_after_clipping_the_norm_is_the_limit_or_what_it_was(arrays, limit, p):
    old = [a.astype(np.float64) for a in arrays]
    before = fi.clip_by_global_norm(arrays, limit, norm_type=p)
    assert_allclose(before, norm(old, p), rtol=1e-12, atol=1e-300)
    for a, was in zip(arrays, old, strict=True):
        assert_allclose(a, was * min(1.0, limit / before if before else 1.0), rtol=3e-7, atol=1e-44)
    if sum(a.size for a in arrays):
        assert fi.global_norm(arrays, p) <= limit * (1 + 1e-6)


# --- step by step, as the faces do it ---


def located(arrays, **how):
    return blocks([a.ctypes.data for a in arrays], [a.size for a in arrays], [a.dtype.name for a in arrays], **how)


def test_blocks_are_worked_on_as_arrays_are():
    arrays = [draw(size, dtype, i) for i, (size, dtype) in enumerate(zip(SIZES, [*DTYPES] * 4, strict=False))]
    arrays.insert(2, np.empty(0))
    twins = [a.copy() for a in arrays]
    memory = located(arrays, write=True)
    norm = total_norm(memory, 2.0)
    assert norm == fi.clip_by_global_norm(twins, 1.0, eps=0.25)
    scale_by_norm(memory, norm, 1.0, 0.25)
    clamp(memory, -0.001, 0.002)
    fi.clip_by_value(twins, -0.001, 0.002)
    assert [a.tobytes() for a in arrays] == [a.tobytes() for a in twins]


def test_blocks_that_are_written_share_no_memory():
    x = np.ones(10)
    located([x[5:], x[:5], x[3:3], x[7:7]], write=True)
    for shared in ([x, x], [x[:5], x[4:]], [x[3:4], x[5:6], x], [x, x[3:4]]):
        assert_allclose(total_norm(located(shared, write=False), 1), sum(a.size for a in shared))
        with pytest.raises(ValueError, match=r"^arrays must not share their memory$"):
            located(shared, write=True)


@pytest.mark.parametrize(
    ("norm", "limit", "factor"),
    [
        (3.0, 1.0, 0.25),
        (0.5, 1.0, 2 / 3),
        (0.0, 1.0, 1.0),
        (0.0, 0.0, 0.0),
        (np.inf, 2.0, 0.0),
        (np.inf, np.inf, np.nan),
        (np.nan, 1.0, np.nan),
        (5.0, np.inf, 1.0),
        (-1.0, 1.0, 1.0),
        (-2.0, 1.0, -1.0),
    ],
)
def test_scaling_by_a_norm_that_is_given(norm, limit, factor):
    x = np.array([3.0, -4.0])
    scale_by_norm(located([x], write=True), norm, limit, 1.0)
    assert_allclose(x, np.array([3.0, -4.0]) * factor)


def test_a_bad_number_is_named_there_too():
    memory = located([np.ones(2)], write=True)
    with pytest.raises(ValueError, match=r"^max_norm must be at least 0"):
        scale_by_norm(memory, 1.0, -1.0, 0.0)
    with pytest.raises(ValueError, match=r"^norm_type must be above 0"):
        total_norm(memory, 0.0)


# --- complex numbers ---

each_complex = pytest.mark.parametrize("dtype", ["complex64", "complex128"])


def draw_complex(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)


def complex_views(dtype):
    x = draw_complex((6, 10), dtype)
    packed = np.zeros(3 * x.itemsize + 1, np.uint8)[1:].view(dtype)
    packed[:] = x[0, :3]
    read_only = x.copy()
    read_only.flags.writeable = False
    return {
        "C": x,
        "Fortran": np.asfortranarray(x),
        "gaps": x[::2, ::3],
        "backwards": x[::-1, ::-1],
        "transposed": x.T[1:],
        "0-d": x[0, :1].reshape(()),
        "empty": x[:0],
        "unaligned": packed,
        "read-only": read_only,
    }


@each_complex
@each_order
def test_the_norm_of_complex_numbers_is_that_of_their_moduli(dtype, p):
    for name, x in complex_views(dtype).items():
        wanted = norm([np.abs(x.astype(np.complex128))], p)
        assert fi.global_norm(x, p) == pytest.approx(wanted, rel=1e-12), name
        both = [x, np.float32([[3.0, -4.0]])]  # mixed with real ones
        assert fi.global_norm(both, p) == pytest.approx(norm([np.abs(x.astype("c16")), both[1]], p), rel=1e-12), name
    large = draw_complex(3 * CHUNK + 5, dtype)
    assert fi.global_norm(large, p) == pytest.approx(norm([np.abs(large.astype("c16"))], p), rel=1e-12)


@each_complex
@each_order
def test_complex_arrays_are_scaled_in_place_and_keep_their_direction(dtype, p):
    views = {name: x for name, x in complex_views(dtype).items() if name != "read-only"}
    for name, x in views.items():
        before = x.copy()
        length = fi.clip_by_global_norm(x, 0.5, norm_type=p)
        assert_allclose(x, before * 0.5 / max(length, 0.5), rtol=1e-6 if dtype == "complex64" else 1e-13, err_msg=name)
        assert length <= 0.5 or fi.global_norm(x, p) == pytest.approx(0.5, rel=1e-6)
    arrays = {"w": draw_complex((3, 4), dtype), "b": np.float32([3.0, 4.0])}
    before = {name: x.copy() for name, x in arrays.items()}
    lengths = fi.clip_by_norm(arrays, 1.0, norm_type=p)
    for name, x in arrays.items():
        assert lengths[name] == pytest.approx(norm([np.abs(before[name].astype("c16"))], p), rel=1e-6)
        assert_allclose(x, before[name] / lengths[name], rtol=1e-6)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, np.inf])
def test_complex_clipping_agrees_with_torch(p):
    x = draw_complex((20, 30), "complex128")
    parameter = torch.nn.Parameter(torch.zeros(x.shape, dtype=torch.complex128))
    parameter.grad = torch.from_numpy(x.copy())
    total = torch.nn.utils.clip_grad_norm_(parameter, 2.0, p)
    assert fi.clip_by_global_norm(x, 2.0, norm_type=p, eps=1e-6) == pytest.approx(total.item(), rel=1e-12)
    assert_allclose(x, parameter.grad.numpy(), rtol=1e-12)


@each_order
@pytest.mark.parametrize(
    ("value", "dtype"), [(3e38, "complex64"), (1e-45, "complex64"), (1e308, "complex128"), (5e-324, "complex128")]
)
def test_complex_norms_neither_overflow_nor_underflow(value, dtype, p):
    x = np.full(1, complex(value, value), dtype)
    assert fi.global_norm(x, p) == pytest.approx(math.hypot(float(x.real[0]), float(x.imag[0])), rel=1e-12)


@each_order
def test_a_nan_part_is_seen_beside_an_infinite_one(p):
    for bad in (complex(np.inf, np.nan), complex(np.nan, 0), complex(0, np.nan)):
        assert math.isnan(fi.global_norm(np.array([1j, bad]), p))
    assert fi.global_norm(np.array([1j, complex(0, -np.inf)]), p) == np.inf
    assert fi.global_norm(np.zeros(3, complex), p) == 0


def test_adaptive_clipping_takes_complex_units():
    """A vector is one unit, a matrix has its rows, whatever lies in memory beside each other."""
    for shape in ((5,), (4, 3), (4, 1), (2, 3, 2)):
        weight, gradient = draw_complex(shape, "complex64"), draw_complex(shape, "complex64", 1) * 100
        gradient = gradient.T.copy().T
        before = gradient.copy()
        fi.adaptive_clip(weight, gradient, 0.01)
        axes = tuple(range(1 if sum(n > 1 for n in shape) > 1 else 0, len(shape)))
        sizes = [np.sqrt((np.abs(x.astype("c16")) ** 2).sum(axes, keepdims=True)) for x in (weight, before)]
        assert_allclose(gradient, before * 0.01 * sizes[0] / sizes[1], rtol=1e-5)
    fi.adaptive_clip(np.ones(2, np.float32), gradient := np.array([3j, 4]), 0.1)  # a real parameter
    assert_allclose(np.linalg.norm(gradient), 0.1 * math.sqrt(2))


def test_the_parts_of_a_complex_array_are_the_same_memory():
    x = np.array([3 + 4j, 0])
    assert fi.clip_by_global_norm([x, x.view(np.float64)], 1.0) == pytest.approx(math.sqrt(50))
    assert_allclose(x, [(3 + 4j) / math.sqrt(50), 0])
    with pytest.raises(ValueError, match=r"^arrays must not share part of their memory"):
        fi.clip_by_global_norm([x, x.real], 1.0)


def test_complex_numbers_have_no_order():
    x = np.array([3 + 4j])
    with pytest.raises(TypeError) as caught:
        fi.clip_by_value([X, x], -1, 1)
    wanted = "arrays[1] must be real: complex numbers have no order. Received: complex128; "
    assert str(caught.value) == f"{wanted}clip it by its norm, or its parts by `view`"
    assert_array_equal(x, [3 + 4j])
    fi.clip_by_value(x.view(np.float64), -1, 1)
    assert_array_equal(x, [1 + 1j])


# --- errors: what is named, and that nothing was written ---

READ_ONLY = np.ones(3)
READ_ONLY.flags.writeable = False
REAL, ALL = "float16, bfloat16, float32 or float64", "float16, bfloat16, float32, float64, complex64 or complex128"
BAD = [
    (READ_ONLY, ValueError, "must be writeable. Received: a read-only array"),
    (
        np.lib.stride_tricks.as_strided(np.ones(9), (3, 3), (8, 8)),
        ValueError,
        "must not overlap itself. Received: shape",
    ),
    (
        np.arange(3),
        TypeError,
        "must be a NumPy array of {allowed}. Received: int64",
    ),
    (
        np.ones(3, ">f4"),
        TypeError,
        "must be a NumPy array of {allowed}. Received: >f4",
    ),
    ([1.0], TypeError, "must be a NumPy array of {allowed}. Received: list"),
    (None, TypeError, "must be a NumPy array of {allowed}. Received: NoneType"),
]
CALLS = {
    "clip_by_global_norm": (lambda x: fi.clip_by_global_norm(x, 1.0), "arrays", ALL),
    "clip_by_norm": (lambda x: fi.clip_by_norm(x, 1.0), "x", ALL),
    "clip_by_value": (lambda x: fi.clip_by_value(x, -1, 1), "arrays", REAL),
    "adaptive_clip": (lambda x: fi.adaptive_clip([np.ones(3), np.ones(3)], x, 0.01), "gradients", ALL),
}


@pytest.mark.parametrize(("call", "name", "allowed"), CALLS.values(), ids=CALLS)
def test_a_bad_array_is_refused_before_any_write(call, name, allowed):
    for bad, error, message in BAD:
        good = np.full(3, 9.0)
        with pytest.raises(error) as caught:
            call([good, bad])
        assert str(caught.value).startswith(f"{name}[1] {message.format(allowed=allowed)}")
        assert_array_equal(good, [9, 9, 9])


def test_bad_arrays_are_named():
    cases = (
        ([np.ones(2), 3], "arrays[1]", "int"),
        ({"w": 3}, "arrays['w']", "int"),
        ("ab", "arrays[0]", "str"),
        ([np.ones(3, ">c8")], "arrays[0]", ">c8"),
    )
    for arrays, name, received in cases:
        with pytest.raises(TypeError) as caught:
            fi.global_norm(arrays)
        assert str(caught.value) == f"{name} must be a NumPy array of {ALL}. Received: {received}"
    with pytest.raises(TypeError) as caught:
        fi.global_norm(3.0)
    assert str(caught.value) == "arrays must be a NumPy array or several in a list or dict. Received: float"
    with pytest.raises(TypeError, match=r"^parameters must be a NumPy array of float16, .* Received: int64$"):
        fi.adaptive_clip(np.arange(3), np.ones(3), 0.1)


X = np.full(3, 9.0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fi.clip_by_global_norm(X, -1), ValueError, "max_norm must be at least 0. Received: max_norm=-1"),
        (lambda: fi.clip_by_norm(X, np.nan), ValueError, "max_norm must be at least 0. Received: max_norm=nan"),
        (lambda: fi.clip_by_norm(X, "1"), TypeError, "max_norm must be a real number. Received: max_norm='1'"),
        (lambda: fi.clip_by_norm(X, True), TypeError, "max_norm must be a real number. Received: max_norm=True"),
        (
            lambda: fi.global_norm(X, 0),
            ValueError,
            "norm_type must be above 0; infinity is allowed. Received: norm_type=0",
        ),
        (
            lambda: fi.clip_by_norm(X, 1, norm_type=-(10**400)),
            ValueError,
            f"norm_type must be above 0; infinity is allowed. Received: norm_type={-(10**400)}",
        ),
        (lambda: fi.global_norm(X, "fro"), TypeError, "norm_type must be a real number. Received: norm_type='fro'"),
        (lambda: fi.clip_by_norm(X, 1, eps=-1e-6), ValueError, "eps must not be negative. Received: eps=-1e-06"),
        (lambda: fi.clip_by_global_norm(X, 1, eps=np.nan), ValueError, "eps must be finite. Received: eps=nan"),
        (
            lambda: fi.clip_by_value(X, 1, -1),
            ValueError,
            "low must not be above high, nor one of them NaN. Received: low=1, high=-1",
        ),
        (
            lambda: fi.clip_by_value(X, np.nan, 1),
            ValueError,
            "low must not be above high, nor one of them NaN. Received: low=nan, high=1",
        ),
        (lambda: fi.clip_by_value(X, 0, None), TypeError, "high must be a real number. Received: high=None"),
        (
            lambda: fi.adaptive_clip(X, X, -0.1),
            ValueError,
            "clipping must not be negative. Received: clipping=-0.1",
        ),
        (lambda: fi.adaptive_clip(X, X, 0.1, np.inf), ValueError, "eps must be finite. Received: eps=inf"),
        (
            lambda: fi.adaptive_clip([X], [X, X], 0.1),
            ValueError,
            "gradients must be as many as parameters, 1. Received: 2",
        ),
        (
            lambda: fi.adaptive_clip([np.ones(4)], [X], 0.1),
            ValueError,
            "gradients[0] must have the shape of parameters[0], (4,). Received: (3,)",
        ),
        (
            lambda: fi.adaptive_clip({"a": X, "b": X}, {"a": X, "c": X}, 0.1),
            ValueError,
            "gradients must have the keys of parameters. Received: only one has 'b', 'c'",
        ),
    ],
)
def test_a_bad_argument_is_named(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message
    assert_array_equal(X, [9, 9, 9])
