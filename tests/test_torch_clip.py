"""The torch face's clipping against torch's own, and against the same rule in float64."""

import functools
import inspect
import itertools
import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch.nn import utils
from torch.utils._python_dispatch import TorchDispatchMode

import fastinit.torch as ft
from fastinit._runtime import threads

NAMES = ("clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_", "get_total_norm")
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# One rounding, relative, and in float64 a few: the reference has them too. Torch's own results have several.
ROUNDING = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8, torch.float32: 2.0**-24, torch.float64: 2.0**-49}
ORDERS = (1, 2.0, 3, 0.5, math.inf)
EPS = 1e-6


TORCHS = {name: getattr(utils, name) for name in NAMES}
OURS = {name: getattr(ft, name) for name in NAMES}


@pytest.fixture
def own(monkeypatch):
    """The names of torch's own functions that were called."""
    calls = []
    for name, function in TORCHS.items():

        def spy(*args, _name=name, _function=function, **kwargs):
            calls.append(_name)
            return _function(*args, **kwargs)

        monkeypatch.setattr(utils, name, spy)
    return calls


def draw(shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def with_gradients(gradients):
    parameters = []
    for gradient in gradients:
        parameter = torch.nn.Parameter(torch.zeros(gradient.shape, dtype=gradient.dtype))
        parameter.grad = gradient
        parameters.append(parameter)
    return parameters


def wide(tensors):
    return [x.detach().to(torch.float64, copy=True).numpy() for x in tensors]


def versions(*several):
    return np.array([[p.grad._version for p in parameters] for parameters in several])


def norm_of(arrays, p):
    x = np.abs(np.concatenate([a.ravel() for a in arrays]))
    return x.max() if p == math.inf else float((x**p).sum() ** (1 / p))


# Gradients that the kernels take: memory of all kinds, a few dozen elements.
SHAPES = {
    "one": lambda dtype: [draw(17, dtype)],
    "many": lambda dtype: [draw((i % 3 + 1, 4), dtype, i) for i in range(9)] + [draw((), dtype, 99)],
    "transposed": lambda dtype: [draw((5, 7), dtype).T, draw((2, 3, 4), dtype, 1).permute(2, 0, 1)],
    "stepped": lambda dtype: [draw((6, 9), dtype)[::2, 1::3], draw(11, dtype, 1), draw((4, 4), dtype, 2)[:, 1]],
    "channels last": lambda dtype: [draw((2, 3, 4, 2), dtype).to(memory_format=torch.channels_last)],
    "slices of one buffer": lambda dtype: list(draw(60, dtype).split([10, 20, 30])),
    "a parameter": lambda dtype: [torch.nn.Parameter(draw((3, 4), dtype)), draw(3, dtype, 1)],
    "part of a graph": lambda dtype: [draw((3, 4), dtype).requires_grad_() * 2],
}
each_shape = pytest.mark.parametrize("make", SHAPES.values(), ids=SHAPES)


# --- the same as torch, by the kernels ---


def check_scaled(gradients, before, after, factor, torchs):
    """What was scaled is within a rounding of the float64 rule, and no further from it than what torch has."""
    for gradient, old, new, other in zip(gradients, before, wide(after), wide(torchs), strict=True):
        tiny = torch.finfo(gradient.dtype).smallest_normal * ROUNDING[gradient.dtype]
        wanted = old * factor
        assert_allclose(new, wanted, rtol=2.1 * ROUNDING[gradient.dtype], atol=tiny)
        assert_allclose(other, wanted, rtol=9 * ROUNDING[gradient.dtype], atol=2 * tiny)
        if gradient.dtype in (torch.float16, torch.bfloat16):
            assert np.abs(new - wanted).max() <= np.abs(other - wanted).max() + tiny


@each_shape
def test_clip_grad_norm_is_torchs(make, own):
    limits, ways = (0, 0.25, 1e4, math.inf), ((None, False), (False, True), (True, True))
    for dtype, p, max_norm, (foreach, error) in itertools.product(DTYPES, ORDERS, limits, ways):
        ours, theirs = with_gradients(make(dtype)), with_gradients(make(dtype))
        before, counted = wide(q.grad for q in ours), versions(ours, theirs)
        wanted = TORCHS["clip_grad_norm_"](theirs, max_norm, p, error, foreach)
        found = ft.clip_grad_norm_(ours, max_norm, p, error, foreach)
        check_norm(found, wanted, norm_of(before, p))
        factor = min(1.0, max_norm / (norm_of(before, p) + EPS))
        gradients = [q.grad for q in ours]
        check_scaled(gradients, before, gradients, factor, [q.grad for q in theirs])
        steps = versions(ours, theirs) - counted
        assert (steps[0] == steps[1]).all()
        assert (steps > 0).all()
    assert own == []


def check_norm(found, wanted, exact):
    assert (found.dtype, found.device, found.shape) == (wanted.dtype, wanted.device, wanted.shape)
    assert (found.requires_grad, found.is_inference()) == (wanted.requires_grad, wanted.is_inference())
    assert_allclose(found.item(), exact, rtol=1.01 * ROUNDING[found.dtype])
    assert abs(found.item() - exact) <= abs(wanted.item() - exact) + 1e-14 * exact


@each_shape
def test_get_total_norm_is_torchs(make, own):
    for dtype, p in itertools.product(DTYPES, ORDERS):
        tensors = make(dtype)
        before, counted = wide(tensors), [x._version for x in tensors]
        check_norm(ft.get_total_norm(tensors, p), TORCHS["get_total_norm"](tensors, p), norm_of(before, p))
        check_norm(ft.get_total_norm(iter(tensors), p), TORCHS["get_total_norm"](tensors, p), norm_of(before, p))
        assert [x._version for x in tensors] == counted
        after = wide(tensors)
        assert_array_equal(np.concatenate([x.ravel() for x in after]), np.concatenate([x.ravel() for x in before]))
    assert own == []


@each_shape
def test_clip_grads_with_norm_is_torchs(make, own):
    for dtype, norm_dtype in itertools.product(DTYPES, DTYPES):
        check_with_norm(make, dtype, norm_dtype, 7, 0.5)
    assert own == []


@pytest.mark.parametrize("norm", [1e-3, 0.3, 7, 3e4, math.inf, math.nan, -2.0])
def test_every_given_norm_is_torchs(norm, own):
    for max_norm, dtype, norm_dtype in itertools.product((0.0, 0.25, math.inf), DTYPES, DTYPES):
        check_with_norm(SHAPES["transposed"], dtype, norm_dtype, norm, max_norm)
    assert own == []


def check_with_norm(make, dtype, norm_dtype, norm, max_norm):
    coarse = 12 * max(ROUNDING[dtype], ROUNDING[norm_dtype])
    ours, theirs = with_gradients(make(dtype)), with_gradients(make(dtype))
    total = torch.tensor(norm, dtype=norm_dtype, requires_grad=True)
    before, counted = wide(q.grad for q in ours), versions(ours, theirs)
    assert TORCHS["clip_grads_with_norm_"](theirs, max_norm, total) is None
    assert ft.clip_grads_with_norm_(ours, max_norm, total) is None
    with np.errstate(all="ignore"):
        factor = np.minimum(1.0, max_norm / np.float64(total.item() + EPS))
    for q, r, old in zip(ours, theirs, before, strict=True):
        mine, torchs = wide([q.grad, r.grad])
        assert_allclose(mine, torchs, rtol=coarse, atol=1e-6)
        assert_allclose(mine, old * factor, rtol=2.1 * ROUNDING[dtype], atol=1e-7)
    steps = versions(ours, theirs) - counted
    assert (steps[0] == steps[1]).all()
    assert (steps > 0).all()


@each_shape
def test_clip_grad_value_is_torchs(make, own):
    for dtype, value, foreach in itertools.product(DTYPES, (0, 0.3, 1.0, 1e4, math.inf), (None, False, True)):
        ours, theirs = with_gradients(make(dtype)), with_gradients(make(dtype))
        for parameters in (ours, theirs):
            parameters[0].grad.detach()[(0,) * parameters[0].ndim] = math.nan
        counted = versions(ours)
        assert TORCHS["clip_grad_value_"](theirs, value, foreach) is None
        assert ft.clip_grad_value_(ours, value, foreach) is None
        assert (versions(ours) > counted).all()  # torch counts one or two, by its way through the memory
        for q, r in zip(ours, theirs, strict=True):
            assert_array_equal(*wide([q.grad, r.grad]))
    assert own == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_bounds_are_rounded_as_torch_rounds_them(dtype, own):
    for value in np.random.default_rng(3).uniform(0, 2, 300).tolist():
        ours, theirs = (
            with_gradients([torch.full((3,), 9.0, dtype=dtype)]),
            with_gradients([torch.full((3,), 9, dtype=dtype)]),
        )
        TORCHS["clip_grad_value_"](theirs, value)
        ft.clip_grad_value_(ours, value)
        assert torch.equal(ours[0].grad, theirs[0].grad)
    assert own == []


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(DTYPES, 2)), ids=str)
def test_gradients_of_several_dtypes(first, second, own):
    def make():
        return with_gradients([draw(40, first), draw((5, 6), second, 1), draw(3, first, 2)])

    ours, theirs = make(), make()
    before = wide(q.grad for q in ours)
    exact = norm_of(before, 2)
    check_norm(ft.clip_grad_norm_(ours, 0.5), TORCHS["clip_grad_norm_"](theirs, 0.5), exact)
    for q, old in zip(ours, before, strict=True):
        assert_allclose(wide([q.grad])[0], old * (0.5 / (exact + EPS)), rtol=2.1 * ROUNDING[q.dtype], atol=1e-7)
    assert own == []


def test_signatures_are_torchs():
    for name in NAMES:
        found, wanted = (inspect.signature(f[name]).parameters.values() for f in (OURS, TORCHS))
        assert [(a.name, a.kind, a.default) for a in found] == [(a.name, a.kind, a.default) for a in wanted]
    assert set(NAMES) <= set(ft.__all__)


# --- better than torch ---


def test_16_bit_gradients_are_summed_in_float64():
    x = torch.full((1 << 16,), 0.0101, dtype=torch.bfloat16)
    exact = 256 * x[0].item()
    assert ft.get_total_norm([x] * 3).item() == torch.tensor(exact * 3**0.5, dtype=torch.bfloat16).item()
    (parameter,) = with_gradients([x])
    ft.clip_grad_norm_(parameter, 0.123)
    assert_allclose(parameter.grad.double().norm(), 0.123, rtol=2.0**-8)


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 1e30), (torch.bfloat16, 1e30), (torch.float64, 1e200)])
def test_squares_that_overflow_are_no_infinite_norm(dtype, size):
    (parameter,) = with_gradients([torch.full((9,), size, dtype=dtype)])
    found = ft.clip_grad_norm_(parameter, 3.0, error_if_nonfinite=True)
    assert_allclose(found.item(), 3 * size, rtol=ROUNDING[dtype] * 2)
    assert_allclose(parameter.grad.double(), 1.0, rtol=ROUNDING[dtype] * 2)


def test_a_very_large_p_is_the_largest_magnitude():
    assert ft.get_total_norm([torch.tensor([3.0, -4.0])], 2.0**70).item() == 4  # torch: infinity


def test_float16_norms_that_have_no_reciprocal():
    """Where torch's 0 / 1e-6 is 0 times infinity."""
    (parameter,) = with_gradients([torch.zeros(3, dtype=torch.float16)])
    ft.clip_grad_norm_(parameter, 0.0)
    assert_array_equal(parameter.grad, np.zeros(3))


def test_a_norm_beyond_its_dtype():
    make = lambda: with_gradients([torch.full((4,), 6e4, dtype=torch.float16)])  # noqa: E731
    (parameter,) = make()
    assert ft.clip_grad_norm_(parameter, 2.0).item() == math.inf
    assert_array_equal(parameter.grad, np.ones(4))  # torch has zeros
    assert outcome("clip_grad_norm_", OURS, make(), 2.0, 2.0, True) == outcome(
        "clip_grad_norm_", TORCHS, make(), 2.0, 2.0, True
    )


# --- everything else: as torch, whatever it is ---


def outcome(name, functions, parameters, *args):
    """All that a caller can see of a call: the result or the error, warnings, the gradients and their versions."""
    parameters = parameters() if callable(parameters) else parameters
    kept = parameters if isinstance(parameters, list) else []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = functions[name](parameters, *args)
        except Exception as error:
            result = type(error).__name__, str(error)
        else:
            result = result if result is None else (type(result).__name__, str(result.dtype), repr(result))
        told = {(warning.category, str(warning.message)) for warning in caught}
        left = [x for p in kept if isinstance(p, torch.Tensor) for x in (p if name == "get_total_norm" else p.grad,)]
    counted = [x is not None and not x.is_inference() and x._version for x in left]
    if name == "clip_grad_value_":
        counted = [count > 0 for count in counted]  # torch counts one or two, by its way through the memory
    return result, told, [x if x is None else repr(x) for x in left], counted


def assert_same(name, parameters, *args):
    assert outcome(name, OURS, parameters, *args) == outcome(name, TORCHS, parameters, *args)


def plain():
    return with_gradients([torch.tensor([3.0, 0.0]), torch.tensor([[4.0]])])


ORDER_ARGUMENTS = [0, -1.0, -math.inf, math.nan, "inf", "2", "x", None, torch.tensor(2.0), np.float32(2), np.float64(3)]
ORDER_ARGUMENTS += [True, False, 10**400, [2], 1j]
LIMIT_ARGUMENTS = [
    -1.0,
    math.nan,
    "0.5",
    "x",
    None,
    torch.tensor(0.5),
    torch.tensor([0.5]),
    np.float32(0.5),
    True,
]
LIMIT_ARGUMENTS += [10**400, [1.0], 1j, 1e-300, 1e300]


@pytest.mark.parametrize("p", ORDER_ARGUMENTS, ids=repr)
def test_any_norm_type_does_what_it_does_in_torch(p):
    assert_same("clip_grad_norm_", plain, 0.5, p)
    assert_same("get_total_norm", lambda: [torch.tensor([3.0, 0.0]), torch.tensor([[4.0]])], p)


@pytest.mark.parametrize("limit", LIMIT_ARGUMENTS, ids=repr)
def test_any_limit_does_what_it_does_in_torch(limit):
    assert_same("clip_grad_norm_", plain, limit)
    assert_same("clip_grads_with_norm_", plain, limit, torch.tensor(4.0))
    assert_same("clip_grad_value_", plain, limit)


@pytest.mark.parametrize("value", [65503.0, 65504.0, 65505.0, 1e5, 3.4e38, 1e39, math.inf])
def test_a_bound_beyond_the_dtype_does_what_it_does_in_torch(value):
    for dtype in DTYPES:
        make = functools.partial(torch.tensor, [math.inf, -2.0, 5e4], dtype=dtype)
        assert_same("clip_grad_value_", lambda make=make: with_gradients([make()]), value)


TOTALS = [5.0, None, torch.tensor(5), torch.tensor(True), torch.tensor([5.0]), torch.tensor(5 + 0j), torch.tensor(-EPS)]
TOTALS += [
    torch.empty((), device="meta"),
    torch.nn.Parameter(torch.tensor(2.0)),
    torch.tensor([[3.0, 4.0], [5.0, 6.0]]),
]


@pytest.mark.parametrize("total", TOTALS, ids=repr)
def test_any_total_norm_does_what_it_does_in_torch(total):
    assert_same("clip_grads_with_norm_", plain, 0.5, total)
    assert_same("clip_grads_with_norm_", plain, 0.5, total, False)


def overlapping():
    x = torch.arange(1.0, 10)
    return [x[:5], x[4:]]


def inference():
    with torch.inference_mode():
        return [torch.ones(3) * 9]


class Sub(torch.Tensor):
    pass


def sparse():
    return [torch.sparse_coo_tensor([[0, 2]], [3.0, 4.0], (5,), check_invariants=True), torch.tensor([5.0])]


OTHERS = {
    "complex": lambda: [torch.tensor([3 + 4j, 1.0]), torch.tensor([2.0])],
    "sparse": sparse,
    "expanded": lambda: [torch.tensor([3.0]), torch.tensor([4.0]).expand(3)],
    "expanded rows": lambda: [torch.tensor([3.0, 1.0]).expand(4, 2)],
    "given twice": lambda: [torch.tensor([3.0, 4.0])] * 2,
    "the same memory": lambda: (lambda x: [x[:], x[:]])(torch.tensor([3.0, 4.0])),
    "two orders of one memory": lambda: (lambda x: [x, x.T])(torch.tensor([[3.0, 4.0], [1.0, 2.0]])),
    "two gaps in one memory": lambda: (lambda x: [x[::2], x[::3]])(torch.arange(9.0)),
    "neighbours in gaps": lambda: (lambda x: [x[::2], x[1::2]])(torch.arange(9.0)),
    "overlapping": overlapping,
    "inference": inference,
    "meta": lambda: [torch.empty(3, device="meta")],
    "meta too": lambda: [torch.ones(3), torch.empty(3, device="meta")],
    "subclass": lambda: [torch.ones(3).as_subclass(Sub), torch.ones(2)],
    "empty": lambda: [torch.empty(0, 3)],
    "empty too": lambda: [torch.tensor([3.0]), torch.empty(0, 3), torch.empty(0)],
    "negated": lambda: [torch._neg_view(torch.tensor([3.0, 4.0]))],
    "a zero tensor": lambda: [torch._efficientzerotensor(3), torch.ones(2)],
    "float8": lambda: [torch.ones(3).to(torch.float8_e5m2)],
    "a view of an output of many": lambda: list(torch.ones(3, 2).unbind()),
}


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_other_tensors_do_what_they_do_in_torch(make):
    def parameters():
        found = []
        for gradient in make():
            parameter = torch.nn.Parameter(torch.empty(gradient.shape, dtype=gradient.dtype, device=gradient.device))
            parameter.grad = gradient
            found.append(parameter)
        return found

    for p in (2.0, math.inf):
        assert_same("get_total_norm", make, p)
        for foreach in (None, False, True):
            assert_same("clip_grad_norm_", parameters, 0.5, p, False, foreach)
            assert_same("clip_grad_norm_", parameters, 100.0, p, True, foreach)
    assert_same("clip_grads_with_norm_", parameters, 0.5, torch.tensor(2.0))
    if make is not OTHERS["expanded rows"] and make is not OTHERS["expanded"]:
        assert_same("clip_grad_value_", parameters, 2.0, False)


PARAMETERS = {
    "a list of nothing": list,
    "nothing": lambda: (),
    "no generator": lambda: iter(()),
    "an empty generator": lambda: (x for x in ()),
    "a generator": lambda: (p for p in plain()),
    "one tensor": lambda: plain()[0],
    "one without a gradient": lambda: torch.zeros(3),
    "none with a gradient": lambda: [torch.zeros(3), torch.zeros(2)],
    "some without a gradient": lambda: [torch.zeros(3), *plain(), torch.zeros(3)],
    "a dict": lambda: {"a": plain()[0]},
    "values of a dict": lambda: dict(enumerate(plain())).values(),
    "not one": lambda: 5,
    "None": lambda: None,
    "none of them": lambda: [None, 3],
    "names too": lambda: torch.nn.Linear(2, 2).named_parameters(),
    "a result": lambda: [torch.ones(2, requires_grad=True) * 2],
}


@pytest.mark.parametrize("make", PARAMETERS.values(), ids=PARAMETERS)
def test_any_parameters_do_what_they_do_in_torch(make):
    for maximum in (0.5, "x"):
        result, told, *after = outcome("clip_grad_norm_", OURS, make, maximum)
        if torch.__version__ < (2, 8):  # the first to warn of an empty generator; we do for all
            told = {warning for warning in told if "empty generator" not in warning[1]}
        assert (result, told, *after) == outcome("clip_grad_norm_", TORCHS, make, maximum)
    assert_same("clip_grads_with_norm_", make, 0.5, torch.tensor(5.0))
    assert_same("clip_grad_value_", make, 0.5)
    assert_same("get_total_norm", make)


def test_the_warning_names_the_line_of_the_caller():
    with pytest.warns(UserWarning, match="empty generator") as caught:
        ft.clip_grad_norm_((x for x in ()), 1.0)
    assert [warning.filename for warning in caught] == [__file__]


def test_a_generator_is_read_once_and_clipped():
    parameters = plain()
    assert ft.clip_grad_norm_((p for p in parameters), 1.0).item() == 5
    assert_allclose(torch.cat([p.grad.ravel() for p in parameters]), [0.6, 0.0, 0.8], rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_norms_that_are_not_finite(dtype):
    for p, spoiled in itertools.product(ORDERS, (math.inf, -math.inf, math.nan)):

        def make(spoiled=spoiled):
            x = draw((3, 4), dtype)
            x[1, 2] = spoiled
            return with_gradients([x, draw(5, dtype, 1)])

        for foreach, limit in itertools.product((None, False), (0.0, 1.0, math.inf)):
            assert_same("clip_grad_norm_", make, limit, p, False, foreach)
            assert_same("clip_grad_norm_", make, limit, p, True, foreach)
        error, _, _, counted = outcome("clip_grad_norm_", OURS, make, 1.0, p, True)
        assert error[0] == "RuntimeError"
        assert f"The total norm of order {float(p)} for gradients" in error[1]
        assert counted == [make()[0].grad._version, 0]
        assert_same("get_total_norm", lambda make=make: [make()[0].grad], p, True)


def test_a_limit_below_eps_scales_what_is_shorter():
    """Torch's eps counts in the comparison: a norm of half the limit is scaled by a tenth."""
    (parameter,) = with_gradients([torch.tensor([3e-8, 4e-8])])
    ft.clip_grad_norm_(parameter, 1e-7)
    assert_allclose(parameter.grad, np.array([3e-8, 4e-8]) * (1e-7 / 1.05e-6), rtol=1e-6)


# --- torch's machinery ---


class Record(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.operations.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["clip_grad_norm_", "clip_grad_value_"])
def test_a_dispatch_mode_sees_torchs_operations(name, own):
    seen = []
    for functions in (OURS, TORCHS):
        with Record() as record:
            functions[name](plain(), 1.0)
        seen.append(record.operations)
    assert seen[0] == seen[1]
    assert any("foreach" in operation for operation in seen[0])
    assert own == [name]


def test_compiled_code_has_torchs_operations(compiles):
    def compiled(functions, fullgraph):
        parameters, function = plain(), functions["clip_grad_norm_"]
        step = torch.compile(lambda parameters: function(parameters, 1.0), backend="eager", fullgraph=fullgraph)
        try:
            return step(parameters).item(), parameters[1].grad.item()
        except RuntimeError as error:  # a PyTorch that does not compile its own function as one graph
            return type(error)

    assert compiled(OURS, fullgraph=True) == compiled(TORCHS, fullgraph=True)
    assert compiled(OURS, fullgraph=False) == pytest.approx((5, 0.8))


def test_autograd_sees_that_gradients_have_changed():
    for name, args in (
        ("clip_grad_norm_", (1.0,)),
        ("clip_grads_with_norm_", (1.0, torch.tensor(1.0))),
        ("clip_grad_value_", (1.0,)),
    ):
        parameters = plain()
        result = (torch.ones(2, requires_grad=True) * parameters[0].grad).sum()  # keeps the gradient for its own
        OURS[name](parameters, *args)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            result.backward()


def test_inside_of_inference_mode(own):
    with torch.inference_mode():
        found, wanted = (f["clip_grad_norm_"](plain(), 1.0) for f in (OURS, TORCHS))
        assert found == wanted
        assert found.is_inference() == wanted.is_inference()


def test_the_norm_is_on_the_cpu_whatever_the_default():
    with torch.device("meta"):
        assert ft.get_total_norm([torch.ones(4, device="cpu")]).item() == 2
    tensors = [torch.ones(4, dtype=torch.float16)]
    torch.set_default_dtype(torch.float64)
    try:
        assert ft.get_total_norm(tensors).dtype == torch.float16
        assert_same("clip_grad_norm_", list, 1.0)
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_model_clipped_by_ours_trains_as_one_clipped_by_torch(own):
    def train(clip):
        torch.manual_seed(1)
        model = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(288, 5)
        )
        model.to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        norms = []
        for step in range(5):
            loss = torch.nn.functional.cross_entropy(model(10 * draw((16, 3, 8, 8), seed=step)), torch.arange(16) % 5)
            optimizer.zero_grad()
            loss.backward()
            norms.append(clip(model.parameters(), 0.05))
            optimizer.step()
        return torch.stack(norms).numpy(), np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])

    norms, weights = train(ft.clip_grad_norm_)
    assert own == []
    wanted_norms, wanted = train(TORCHS["clip_grad_norm_"])
    assert (norms > 0.5).all()
    assert_allclose(norms, wanted_norms, rtol=1e-4)
    assert_allclose(weights, wanted, rtol=1e-4, atol=1e-6)
    assert np.abs(train(lambda *_: torch.zeros(()))[1] - wanted).max() > 0.1


def test_large_gradients_on_threads(monkeypatch, own):
    monkeypatch.setattr(threads, "PARALLEL_BYTES", 0)
    ours, theirs = (with_gradients([draw((700, 501)), draw(3, seed=1)]) for _ in range(2))
    exact = norm_of(wide(q.grad for q in ours), 2)
    check_norm(ft.clip_grad_norm_(ours, 1.0), TORCHS["clip_grad_norm_"](theirs, 1.0), exact)
    for q, r in zip(ours, theirs, strict=True):
        assert_allclose(q.grad, r.grad, rtol=1e-5)
    assert own == []


DISTRIBUTED = """
import torch, torch.distributed as dist
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor, init_device_mesh
import fastinit.torch as ft

dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
mesh = init_device_mesh("cpu", (1,))


def parameters(*placements):
    found = []
    for i, placement in enumerate(placements):
        gradient = torch.arange(1.0, 13).reshape(4, 3) * (i + 1)
        whole = placement is None
        parameter = torch.nn.Parameter(gradient * 0 if whole else distribute_tensor(gradient * 0, mesh, [placement]))
        parameter.grad = gradient if whole else distribute_tensor(gradient, mesh, [placement])
        found.append(parameter)
    return found


def local(x):
    return x.to_local() if isinstance(x, DTensor) else x


for placements in ([Shard(0)], [Shard(1), Replicate()]):
    ours, theirs = parameters(*placements), parameters(*placements)
    found, wanted = ft.clip_grad_norm_(ours, 2.0), torch.nn.utils.clip_grad_norm_(theirs, 2.0)
    assert type(found) is type(wanted) is DTensor
    assert torch.equal(found.full_tensor(), wanted.full_tensor()), (found, wanted)
    assert found.placements == wanted.placements
    total = ft.get_total_norm([p.grad for p in ours])
    assert type(total) is DTensor
    ft.clip_grads_with_norm_(ours, 1.0, total)
    torch.nn.utils.clip_grads_with_norm_(theirs, 1.0, torch.nn.utils.get_total_norm([p.grad for p in theirs]))
    ft.clip_grad_value_(ours, 0.1)
    torch.nn.utils.clip_grad_value_(theirs, 0.1)
    for p, q in zip(ours, theirs):
        assert type(p.grad) is DTensor
        assert torch.equal(local(p.grad), local(q.grad))
    print(found.full_tensor().item() > 2, max(local(p.grad).max().item() for p in ours))

# A norm that is a DTensor and gradients that are not, and the other way round.
outcomes = []
for functions in (ft, torch.nn.utils):
    for placement, total in ((None, ft.get_total_norm([parameters(Shard(0))[0].grad])), (Shard(0), torch.tensor(3.0))):
        (p,) = parameters(placement)
        try:
            functions.clip_grads_with_norm_([p], 2.0, total)
        except Exception as error:
            outcomes.append(type(error).__name__)
        else:
            outcomes.append(local(p.grad).tolist())
print(outcomes[:2] == outcomes[2:])
dist.destroy_process_group()
"""


@pytest.mark.slow  # another process that imports torch.distributed, 5 s; by default "subclass" above goes to torch
def test_dtensors_go_to_torch():
    done = subprocess.run([sys.executable, "-c", DISTRIBUTED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["True", "True", "True"]
