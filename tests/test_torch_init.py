"""The twin of torch.nn.init against torch.nn.init itself."""

import inspect
import itertools
import math
import threading
import warnings
from contextlib import contextmanager, nullcontext

import ml_dtypes
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from pairs import pairs
from processes import run
from scipy import stats
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import fastinit as fi
import fastinit.torch as ours
from fastinit._core import draw as engine
from fastinit.torch._record.recorder import active

theirs = torch.nn.init
THEIRS = [name for name, value in vars(theirs).items() if inspect.isfunction(value) and not name.startswith("_")]

DTYPES = {torch.float16: np.float16, torch.bfloat16: ml_dtypes.bfloat16, torch.float32: np.float32}
DTYPES[torch.float64] = np.float64
ADDITIONS = ("lecun_uniform_", "lecun_normal_", "variance_scaling_")
DEPRECATED = tuple(name for name in THEIRS if not name.endswith("_") and name != "calculate_gain")
WITHOUT_CHANCE = {"constant_": {"val": 0.3}, "ones_": {}, "zeros_": {}, "eye_": {}}
RANDOM = {  # the random functions with what they need
    "uniform_": {},
    "normal_": {},
    "trunc_normal_": {},
    "xavier_uniform_": {},
    "xavier_normal_": {},
    "kaiming_uniform_": {},
    "kaiming_normal_": {},
    "orthogonal_": {},
    "sparse_": {"sparsity": 0.3},
}
OURS = RANDOM | {name: {} for name in ADDITIONS}

each_random = pytest.mark.parametrize("name", OURS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(name, *, shape=(7, 5), seed=0, dtype=torch.float32, **more):
    tensor = torch.full(shape, torch.nan, dtype=dtype)
    return getattr(ours, name)(tensor, **OURS[name] | more, generator=seeded(seed))


def outcome(function, *args, **kwargs):
    """What a call gives, comes to or warns of: the type and message of its error, its warnings, and the result."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = function(*args, **kwargs)
        except Exception as error:
            result = (type(error), str(error))
    return result, [(warning.category, str(warning.message)) for warning in caught]


@contextmanager
def recording(recorder):
    active.recorders.append(recorder)
    try:
        yield recorder
    finally:
        active.recorders.remove(recorder)


class Taking:
    """A recorder that takes every fill, or none."""

    def __init__(self, answer=True):
        self.answer, self.fills = answer, []

    def fill(self, tensor, distribution):
        self.fills.append((tensor, distribution))
        return self.answer


@pytest.fixture
def no_torch(monkeypatch):
    """torch's own functions may not be called."""
    for name in ("uniform_", "normal_", "copy_", "mul_", "fill_", "zero_"):
        monkeypatch.setattr(torch.Tensor, name, lambda *args, name=name, **kwargs: pytest.fail(f"torch's {name}"))


# --- names ---


def test_every_name_of_torch_is_here():
    assert set(THEIRS) <= set(ours.__all__)
    assert set(ours.__all__) >= set(ADDITIONS)
    assert all(callable(getattr(ours, name)) for name in ours.__all__)
    assert len(set(ours.__all__)) == len(ours.__all__)


def test_signatures_are_those_of_torch():
    def parameters(function):
        return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]

    for name in THEIRS:
        assert parameters(getattr(ours, name)) == parameters(getattr(theirs, name))
        assert getattr(ours, name).__name__ == name
        assert len(getattr(ours, name).__doc__.split()) > 5


def test_our_own_signatures():
    def signature(name):
        return str(inspect.signature(getattr(ours, name)).replace(return_annotation=inspect.Signature.empty))

    for name in ADDITIONS:
        assert list(inspect.signature(getattr(ours, name)).parameters)[-1] == "generator"
    assert "scale: 'float' = 1.0, mode: 'str' = 'fan_in', distribution: 'str' = 'normal'" in signature(ADDITIONS[2])


def test_what_other_code_takes_from_torch_is_torchs():
    assert ours.calculate_gain is theirs.calculate_gain
    assert ours._calculate_fan_in_and_fan_out is theirs._calculate_fan_in_and_fan_out
    assert ours._calculate_correct_fan is theirs._calculate_correct_fan


def test_without_torch_the_extra_is_named():
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "try: import fastinit.torch\n"
        "except ImportError as error: print(error)\n"
    )
    assert run(script) == "fastinit.torch needs PyTorch: pip install 'fastinit-weights[torch]'"


# --- values ---

CASES = [  # name, arguments, shape
    ("uniform_", {}, (300, 200)),
    ("uniform_", {"a": -3, "b": 5.5}, (60000,)),
    ("normal_", {}, (300, 200)),
    ("normal_", {"mean": -2, "std": 0.02}, (10, 20, 300)),
    ("trunc_normal_", {}, (300, 200)),
    ("trunc_normal_", {"std": 0.02}, (300, 200)),
    ("trunc_normal_", {"mean": 1, "std": 2, "a": 0, "b": 3}, (300, 200)),
    ("trunc_normal_", {"mean": 0, "std": 1, "a": 1.5, "b": 9}, (300, 200)),
    ("xavier_uniform_", {}, (300, 200)),
    ("xavier_uniform_", {"gain": 5 / 3}, (40, 50, 5, 6)),
    ("xavier_normal_", {}, (300, 200)),
    ("xavier_normal_", {"gain": 0.1}, (40, 50, 5, 6)),
    *[
        (name, arguments, shape)
        for name in ("kaiming_uniform_", "kaiming_normal_")
        for arguments, shape in [
            ({}, (300, 200)),
            ({"a": math.sqrt(5)}, (300, 200)),
            ({"a": 0.2, "mode": "FAN_OUT"}, (40, 50, 5, 6)),
            ({"nonlinearity": "relu", "mode": "fan_out"}, (300, 200)),
            ({"nonlinearity": "relu"}, (40, 50, 5, 6)),
            ({"nonlinearity": "selu"}, (300, 200)),
        ]
    ],
    ("orthogonal_", {"gain": 2}, (300, 200)),
    ("sparse_", {"sparsity": 0.1}, (300, 200)),
]


@pytest.mark.parametrize(("name", "arguments", "shape"), CASES)
def test_the_law_is_that_of_torch(name, arguments, shape):
    mine = getattr(ours, name)(torch.empty(shape), **arguments, generator=seeded(1)).double().flatten()
    torch.manual_seed(2)
    other = getattr(theirs, name)(torch.empty(shape), **arguments).double().flatten()
    assert stats.ks_2samp(mine.numpy(), other.numpy()).pvalue > 1e-3
    tolerance = 5 * float(other.std()) / math.sqrt(mine.numel())
    assert_allclose(float(mine.mean()), float(other.mean()), rtol=0, atol=tolerance)
    assert_allclose(float(mine.std()), float(other.std()), rtol=0.02)
    with recording(Taking()) as recorder:
        getattr(ours, name)(torch.empty(shape), **arguments)
    assert len(recorder.fills) == 1  # it was drawn here, not by torch


@pytest.mark.parametrize("name", ["kaiming_uniform_", "kaiming_normal_"])
def test_every_nonlinearity_of_torch_has_its_gain(name):
    convolutions = [f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3)]
    for word in ("linear", *convolutions, "sigmoid", "tanh", "relu", "leaky_relu", "selu"):
        for slope in (0, 0.2):
            with recording(Taking()) as recorder:
                getattr(ours, name)(torch.empty(30, 20), slope, "fan_in", word)
            ((_, law),) = recorder.fills
            assert law.std == pytest.approx(theirs.calculate_gain(word, slope) / math.sqrt(20), rel=1e-14)
            assert type(law) is (fi.Uniform if "uniform" in name else fi.Normal)


# Those whose bounds lie within what 60000 draws reach.
BOUNDED = [case for case in CASES if "uniform" in case[0] or (case[0] == "trunc_normal_" and case[1] != {"std": 0.02})]


@pytest.mark.parametrize(("name", "arguments", "shape"), BOUNDED)
def test_the_bounds_are_those_of_torch(name, arguments, shape):
    mine = getattr(ours, name)(torch.empty(shape, dtype=torch.float64), **arguments, generator=seeded(1))
    other = getattr(theirs, name)(torch.empty(shape, dtype=torch.float64), **arguments, generator=seeded(2))
    near = 0.005 * float(other.max() - other.min())
    assert_allclose(float(mine.min()), float(other.min()), rtol=0, atol=near)
    if arguments.get("b") != 9:  # six sigma from where the mass is
        assert_allclose(float(mine.max()), float(other.max()), rtol=0, atol=near)


@each_dtype
def test_orthogonal(dtype):
    for shape in ((30, 20), (20, 30), (16, 4, 3, 3), (4, 9, 3)):
        matrix = ours.orthogonal_(torch.empty(shape, dtype=dtype), gain=-2, generator=seeded()).double().flatten(1)
        product = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
        near = {torch.float16: 0.01, torch.bfloat16: 0.1, torch.float32: 1e-5, torch.float64: 1e-13}[dtype]
        assert_allclose(product.numpy(), 4 * np.eye(len(product)), rtol=0, atol=near)


def test_sparse_has_as_many_zeros_in_a_column_as_torch():
    for sparsity in (0.0, 0.01, 0.25, 0.5, 1.0):
        mine, other = torch.empty(50, 30), torch.empty(50, 30)
        ours.sparse_(mine, sparsity, generator=seeded())
        theirs.sparse_(other, sparsity, generator=seeded())
        assert torch.equal((mine == 0).sum(0), (other == 0).sum(0))


@pytest.mark.parametrize(
    ("name", "arguments", "shape"),
    [
        ("constant_", {"val": 0.3}, (4, 5)),
        ("constant_", {"val": -0.0}, (3,)),
        ("constant_", {"val": math.nan}, (3,)),
        ("constant_", {"val": 1 + 2**-11 + 2**-40}, (3,)),
        ("constant_", {"val": True}, ()),
        ("constant_", {"val": torch.tensor(2.0)}, (3,)),
        ("ones_", {}, (4, 5)),
        ("zeros_", {}, (4, 5)),
        ("eye_", {}, (4, 6)),
        ("eye_", {}, (6, 4)),
        ("dirac_", {}, (4, 6, 3)),
        ("dirac_", {"groups": 2}, (6, 2, 4, 5)),
        ("dirac_", {"groups": 3}, (6, 4, 1, 2, 3)),
    ],
)
def test_what_is_not_random_is_torchs_to_the_bit(name, arguments, shape):
    for dtype in DTYPES:
        bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
        mine = getattr(ours, name)(torch.full(shape, torch.nan, dtype=dtype), **arguments)
        other = getattr(theirs, name)(torch.full(shape, torch.nan, dtype=dtype), **arguments)
        assert torch.equal(mine.view(bits), other.view(bits))


@pytest.mark.parametrize(
    ("name", "arguments", "law"),
    [
        ("lecun_uniform_", {}, fi.Uniform(-math.sqrt(3 / 500), math.sqrt(3 / 500))),
        ("lecun_normal_", {}, fi.Normal(0, math.sqrt(1 / 500))),
        ("variance_scaling_", {}, fi.Normal(0, math.sqrt(1 / 500))),
        ("variance_scaling_", {"mode": "fan_out", "scale": 3}, fi.Normal(0, math.sqrt(3 / 80))),
        (
            "variance_scaling_",
            {"mode": "fan_avg", "distribution": "uniform"},
            fi.distribution("xavier_uniform", (80, 500)),
        ),
        ("variance_scaling_", {"mode": "fan_geo_avg", "distribution": "truncated_normal"}, None),
    ],
)
def test_the_additions_are_their_schemes(name, arguments, law):
    law = law or fi.distribution("variance_scaling", (80, 500), **arguments)
    with recording(Taking()) as recorder:
        getattr(ours, name)(torch.empty(80, 500), **arguments)
    assert recorder.fills[0][1] == law
    values = getattr(ours, name)(torch.empty(80, 500), **arguments, generator=seeded())
    assert_allclose(float(values.std()), law.std, rtol=0.015)


@each_random
def test_a_16_bit_tensor_is_the_rounded_one_of_float32(name, no_torch):
    for dtype in DTYPES:
        narrow, wide = draw(name, shape=(20, 30), dtype=dtype), draw(name, shape=(20, 30), dtype=torch.float32)
        if dtype is torch.float64:
            assert not torch.equal(narrow, wide.double())  # a stream of its own, not float32's
            wide = narrow
        rounded = wide.to(dtype)
        assert float((rounded != narrow).double().mean()) < 0.02  # bounds
        assert torch.isfinite(narrow).all()


def test_intervals_without_room_are_one_value_as_in_torch():
    for a, b in ((1.0, 1.0), (1.0, 1.0001), (1.0001, 1.0002), (0.99999, 1.0)):
        for deferred in (False, True):
            tensors = []
            for library in (theirs, ours):
                with ours.fast_init(seed=0) if deferred else nullcontext():
                    tensors.append(library.uniform_(torch.empty(9, dtype=torch.float16), a, b, generator=None))
            assert torch.equal(*tensors), (a, b, deferred)
            assert (tensors[0] == 1).all(), (a, b, deferred)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_the_upper_end_of_uniform_is_never_drawn(dtype):
    values = ours.uniform_(torch.empty(1 << 20, dtype=dtype), generator=seeded())
    assert float(values.max()) < 1
    assert float(values.min()) >= 0


def test_one_value_for_equal_bounds():
    assert torch.equal(ours.uniform_(torch.empty(5), 2, 2), torch.full((5,), 2.0))
    assert torch.equal(ours.normal_(torch.empty(5), 2, 0), torch.full((5,), 2.0))
    assert torch.equal(ours.trunc_normal_(torch.empty(5), a=1, b=1), torch.full((5,), 1.0))


def test_the_same_tensor_comes_back():
    for name in OURS:
        for tensor in (torch.empty(4, 3), torch.nn.Parameter(torch.empty(4, 3)), torch.empty(4, 3, device="meta")):
            assert getattr(ours, name)(tensor, **OURS[name]) is tensor
            assert getattr(ours, name)(tensor=tensor, **OURS[name]) is tensor


# --- generators ---


@each_random
def test_the_default_generator_governs(name):
    def pair():
        return [getattr(ours, name)(torch.empty(7, 5), **OURS[name]) for _ in range(2)]

    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, second = pair()
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert all(map(torch.equal, pair(), (first, second)))
    torch.set_rng_state(state)
    with torch.random.fork_rng():
        pair()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, pair(), (first, second)))
    torch.manual_seed(4)
    assert not torch.equal(pair()[0], first)


@each_random
def test_a_generator_advances_alone(name):
    generator = seeded()
    before, default = generator.get_state(), torch.get_rng_state()
    first = getattr(ours, name)(torch.empty(7, 5), **OURS[name], generator=generator)
    assert not torch.equal(generator.get_state(), before)
    assert torch.equal(torch.get_rng_state(), default)
    second = getattr(ours, name)(torch.empty(7, 5), **OURS[name], generator=generator)
    assert not torch.equal(first, second)
    positional = [p.default for p in inspect.signature(getattr(ours, name)).parameters.values()][1:-1]
    filled = [OURS[name].get("sparsity") if default is inspect.Parameter.empty else default for default in positional]
    again = getattr(ours, name)(torch.empty(7, 5), *filled, seeded())
    assert torch.equal(again, first)


def test_a_seed_is_a_64_bit_word_of_the_generator():
    word = torch.empty((), dtype=torch.int64).random_(-(1 << 63), None, generator=seeded(5)).item()
    expected = fi.fill(np.empty((3, 4), np.float32), fi.Normal(), seed=word % (1 << 64))
    assert np.array_equal(ours.normal_(torch.empty(3, 4), generator=seeded(5)).numpy(), expected)


def test_the_generator_advances_alike_whatever_is_drawn():
    states = set()
    for shape, std in (((1,), 1), ((500, 700), 1), ((3,), 0)):
        generator = seeded()
        ours.normal_(torch.empty(shape), std=std, generator=generator)
        states.add(generator.get_state().numpy().tobytes())
    assert len(states) == 1


def test_what_is_not_random_leaves_the_generator_alone():
    state = torch.get_rng_state()
    for name in (*WITHOUT_CHANCE, "dirac_"):
        getattr(ours, name)(torch.empty((4, 3, 5) if name == "dirac_" else (4, 3)), **WITHOUT_CHANCE.get(name, {}))
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_nothing_to_draw_leaves_the_generator_alone():
    for name in OURS:
        state = torch.get_rng_state()
        getattr(ours, name)(torch.empty(0, 3), **OURS[name])
        assert torch.equal(torch.get_rng_state(), state)


def test_a_tensor_without_values_advances_the_generator_as_in_torch():
    for name, arguments in OURS.items():
        states = []
        for module in (ours, theirs if hasattr(theirs, name) else None):
            torch.manual_seed(0)
            if module is not None:  # otherwise it is ours alone, and nothing is drawn
                getattr(module, name)(torch.empty(2, 3, device="meta"), **arguments)
            states.append(torch.get_rng_state())
        assert torch.equal(*states)


def test_a_refused_call_leaves_the_generator_and_the_tensor_alone():
    generator, tensor = seeded(), torch.zeros(3, 4)
    state = generator.get_state()
    for call in (
        lambda: ours.xavier_uniform_(tensor, gain=-1, generator=generator),
        lambda: ours.kaiming_normal_(tensor, nonlinearity="gelu", generator=generator),
        lambda: ours.normal_(tensor, std=-1, generator=generator),
        lambda: ours.variance_scaling_(tensor, scale=-1, generator=generator),
        lambda: ours.normal_(torch.zeros(3, 1).expand(3, 4), generator=generator),
    ):
        with pytest.raises((ValueError, RuntimeError)):
            call()
    assert torch.equal(generator.get_state(), state)
    assert not tensor.any()


def test_the_default_device_does_not_count():
    for name in OURS:
        tensor = torch.empty(7, 5)
        with torch.device("meta"):
            getattr(ours, name)(tensor, **OURS[name], generator=seeded())
        assert torch.equal(tensor, draw(name))


# --- memory ---


@each_random
def test_values_do_not_depend_on_strides(name, no_torch):
    for dtype, make in itertools.product(
        DTYPES,
        (
            lambda buffer: buffer[:35].view(5, 7).T,
            lambda buffer: buffer[:140].view(14, 10)[::2, ::2],
            lambda buffer: buffer[1:71].view(7, 10)[:, 3:8],
        ),
    ):
        whole = draw(name, dtype=dtype)
        buffer = torch.full((200,), 77.0, dtype=dtype)
        tensor = make(buffer)
        assert getattr(ours, name)(tensor, **OURS[name], generator=seeded()) is tensor
        assert torch.equal(tensor, whole)
        inside = torch.zeros(200, dtype=torch.bool)
        make(inside)[...] = True
        assert (buffer[~inside] == 77).all()
        assert not (buffer[inside] == 77).any()


def test_a_scalar_can_be_filled():
    tensor = torch.full((), 7.0)
    assert 0 <= float(ours.uniform_(tensor)) < 1


def test_large_tensors_are_filled_to_the_end():
    tensor = torch.full((1 << 20,), torch.nan)
    assert torch.isfinite(ours.normal_(tensor)).all()


def test_parameters_stay_leaves_and_their_versions_count():
    for name in OURS:
        weight = torch.nn.Parameter(torch.empty(9, 5))
        for target in (weight, weight[:7], weight.T[:, 2:], weight.detach(), weight.data):
            before = target._version
            getattr(ours, name)(target, **OURS[name])
            assert target._version > before
        assert weight.is_leaf
        assert weight.requires_grad
        assert weight.grad_fn is None
        assert torch.isfinite(weight).all()


def test_autograd_notices_the_write():
    weight = torch.nn.Parameter(torch.ones(3))
    loss = (weight * weight).sum()
    ours.normal_(weight)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_grad_mode_is_left_as_it_was():
    for name in OURS:
        for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
            weight = torch.nn.Parameter(torch.full((7, 5), torch.nan))
            with mode():
                enabled = torch.is_grad_enabled()
                getattr(ours, name)(weight, **OURS[name], generator=seeded())
                assert torch.is_grad_enabled() == enabled
            assert torch.equal(weight, draw(name))


def test_inference_tensors_are_written_in_inference_mode_only():
    with torch.inference_mode():
        tensor = torch.zeros(3)
        assert torch.equal(ours.normal_(tensor, generator=seeded()), draw("normal_", shape=(3,)))
    for module in (ours, theirs):
        with pytest.raises(RuntimeError, match="Inplace update to inference tensor"):
            module.normal_(tensor)


def test_a_thread_may_begin_in_inference_mode():
    """Each thread keeps a tensor that its seeds are drawn into: one of inference mode could not be used outside."""
    found = []

    def work():
        with torch.inference_mode():
            found.append(draw("normal_"))
        found.append(draw("normal_"))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(found) == 2
    assert all(torch.equal(values, draw("normal_")) for values in found)


def test_a_tensor_off_its_alignment_is_filled_through_a_copy(monkeypatch):
    """As arrays are in test_buffers: an address that is no multiple of an element's bytes is undefined behaviour."""
    flat = []
    monkeypatch.setattr(engine, "spread", lambda *args: flat.append(args))
    tensor = torch.frombuffer(bytearray(1 + 4 * 7 * 5), dtype=torch.float32, offset=1).view(7, 5)
    assert tensor.data_ptr() % 4
    ours.normal_(tensor, generator=seeded())
    monkeypatch.undo()
    assert torch.equal(tensor, draw("normal_"))
    assert not flat


# --- errors and warnings ---


def make(*shape, dtype=torch.float32):
    return lambda: torch.ones(shape, dtype=dtype)


BAD = [  # name, maker of the tensor, arguments
    ("uniform_", make(3), {"a": 1, "b": 0}),
    ("uniform_", make(3), {"a": 0, "b": math.inf}),
    ("uniform_", make(3), {"a": math.nan}),
    ("uniform_", make(3, dtype=torch.float16), {"b": 1e6}),
    ("uniform_", make(3), {"a": "0"}),
    ("uniform_", make(3), {"low": 0}),
    ("uniform_", make(3), {"generator": 5}),
    ("uniform_", make(3, dtype=torch.int64), {}),
    ("normal_", make(3), {"std": -1}),
    ("normal_", make(3), {"std": math.nan}),
    ("normal_", make(3), {"mean": None}),
    ("normal_", make(3, dtype=torch.int32), {}),
    ("normal_", lambda: [1.0], {}),
    ("normal_", lambda: None, {}),
    ("normal_", lambda: np.ones(3), {}),
    ("normal_", lambda: torch.ones(3, 1).expand(3, 4), {}),
    ("normal_", lambda: torch.ones(3, 3).to_sparse(), {}),
    ("trunc_normal_", make(3), {"std": 0}),
    ("trunc_normal_", make(3), {"std": 0.0, "a": 1, "b": 1}),
    ("trunc_normal_", make(3), {"a": 1, "b": -1}),
    ("trunc_normal_", make(3), {"a": "x"}),
    ("constant_", make(3, dtype=torch.float16), {"val": 1e10}),
    ("constant_", make(3), {"val": "x"}),
    ("constant_", make(3), {"val": 1j}),
    ("constant_", make(3), {}),
    ("ones_", make(3), {"val": 1}),
    ("eye_", make(3), {}),
    ("eye_", make(3, 3, 3), {}),
    ("dirac_", make(3, 3), {}),
    ("dirac_", make(3, 3, 3, 3, 3, 3), {}),
    ("dirac_", make(3, 3, 3), {"groups": 2}),
    ("dirac_", make(3, 3, 3), {"groups": 0}),
    ("xavier_uniform_", make(3), {}),
    ("xavier_uniform_", make(), {}),
    ("xavier_uniform_", make(3, 3), {"gain": -1}),
    ("xavier_uniform_", make(3, 3), {"gain": "relu"}),
    ("xavier_normal_", make(3), {}),
    ("xavier_normal_", make(3, 3), {"gain": -1.0}),
    ("xavier_normal_", make(3, 3), {"gain": math.nan}),
    ("xavier_normal_", make(0, 0), {}),
    *[
        (name, tensor, arguments)
        for name in ("kaiming_uniform_", "kaiming_normal_")
        for tensor, arguments in [
            (make(3), {}),
            (make(3, 3), {"mode": "fan_avg"}),
            (make(3, 3), {"mode": "fan_geo_avg"}),
            (make(3, 3), {"mode": "out"}),
            (make(3, 3), {"mode": 5}),
            (make(3), {"mode": 5, "nonlinearity": "x"}),
            (make(3, 3), {"mode": "x", "nonlinearity": "y"}),
            (make(3, 3), {"nonlinearity": "gelu"}),
            (make(3, 3), {"nonlinearity": "silu"}),
            (make(3), {"nonlinearity": "silu"}),
            (make(3, 3), {"nonlinearity": None}),
            (make(3, 3), {"a": True}),
            (make(3, 3), {"a": "x"}),
            (make(3, 3), {"a": 1e200}),
            (make(0, 3), {}),
            (make(0), {"mode": "x"}),
        ]
    ],
    ("orthogonal_", make(3), {}),
    ("orthogonal_", make(0), {}),
    ("orthogonal_", make(3, 3), {"gain": "x"}),
    ("sparse_", make(3), {"sparsity": 0.5}),
    ("sparse_", make(3, 3, 3), {"sparsity": 0.5}),
    ("sparse_", make(3, 3), {}),
    ("sparse_", make(3, 3), {"sparsity": math.nan}),
    ("sparse_", make(3, 3), {"sparsity": 0.5, "std": -1}),
    ("sparse_", make(3, 3), {"sparsity": "x"}),
    ("calculate_gain", lambda: "gelu", {}),
]


@pytest.mark.parametrize("name", dict.fromkeys(name for name, *_ in BAD))
def test_errors_and_warnings_are_those_of_torch(name):
    for tensor, arguments in ((tensor, arguments) for wrong, tensor, arguments in BAD if wrong == name):
        expected, warned = outcome(getattr(theirs, name), tensor(), **arguments)
        assert isinstance(expected, tuple) or warned  # torch does object
        target = tensor()
        found, also = outcome(getattr(ours, name), target, **arguments)
        assert also == warned
        if isinstance(expected, tuple):
            assert found == expected
        else:
            assert found is target


def test_no_argument_is_the_error_of_torch():
    for name in THEIRS:
        assert outcome(getattr(ours, name)) == outcome(getattr(theirs, name))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("uniform_", {"a": torch.tensor(2.0), "b": torch.tensor(3.0)}),
        ("uniform_", {"a": False, "b": True}),
        ("uniform_", {"a": 1, "b": 1 + 1e-9}),
        ("trunc_normal_", {"a": -math.inf, "b": 0.5}),
        ("trunc_normal_", {"mean": torch.tensor(0.5)}),
        ("xavier_normal_", {"gain": torch.tensor(2.0)}),
        ("xavier_uniform_", {"gain": np.float32(2)}),
        ("sparse_", {"sparsity": 1.5}),
        ("sparse_", {"sparsity": -0.5}),
        ("normal_", {"mean": np.float64(0.5), "std": np.int64(2)}),
        ("orthogonal_", {"gain": True}),
    ],
)
def test_what_torch_takes_is_taken(name, arguments):
    mine, other = torch.full((60, 50), torch.nan), torch.full((60, 50), torch.nan)
    assert getattr(ours, name)(mine, **arguments, generator=seeded(1)) is mine
    getattr(theirs, name)(other, **arguments, generator=seeded(2))
    assert abs(float(mine.mean()) - float(other.mean())) <= 5 * (float(other.std()) + 1e-9) / math.sqrt(3000 / 2)
    assert_allclose(float(mine.std()), float(other.std()), rtol=0.1, atol=1e-6)


def test_a_mean_outside_the_bounds_gives_the_warning_of_torch():
    tensor = torch.empty(1000)
    with pytest.warns(UserWarning, match="mean is more than 2 std from"):
        ours.trunc_normal_(tensor, mean=5, std=1, a=-2, b=2)
    assert float(tensor.min()) >= -2
    assert 1.5 < float(tensor.max()) <= 2
    assert outcome(ours.trunc_normal_, torch.empty(3), 4.0)[1] == []  # exactly 2 std is none too much


def test_the_old_names_warn_at_the_caller_in_torchs_words():
    for name in DEPRECATED:
        arguments = {"constant": {"val": 2}, "sparse": {"sparsity": 0.5}}.get(name, {})
        shape = (4, 3, 5) if name == "dirac" else (4, 3)
        tensor = torch.empty(shape)
        result, warned = outcome(getattr(ours, name), tensor, **arguments)
        assert result is tensor
        assert warned == outcome(getattr(theirs, name), tensor, **arguments)[1]
        assert warned[0][0] is FutureWarning
        with pytest.warns(FutureWarning, match="is now deprecated") as caught:
            getattr(ours, name)(tensor, **arguments)
        assert caught[0].filename == __file__


@pytest.mark.parametrize("name", ADDITIONS)
def test_errors_of_what_torch_does_not_have_are_ours(name):
    function = getattr(ours, name)
    with pytest.raises(ValueError, match=r"fewer than 2 dimensions. Received: shape \(3,\)"):
        function(torch.empty(3))
    with pytest.raises(TypeError, match=r"tensor must be a torch.Tensor. Received: ndarray"):
        function(np.empty((3, 4)))
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'tensor'"):
        function()
    with pytest.raises(TypeError, match="unexpected keyword argument 'foo'"):
        function(torch.empty(3, 4), foo=1)


def test_variance_scaling_refuses_what_the_scheme_refuses():
    for arguments, words in [
        ({"mode": "fan"}, "unknown mode 'fan'; did you mean 'fan_in'"),
        ({"distribution": "cauchy"}, "unknown distribution 'cauchy'"),
        ({"scale": -1}, "scale must not be negative. Received: scale=-1"),
    ]:
        with pytest.raises(ValueError, match=words):
            ours.variance_scaling_(torch.empty(3, 4), **arguments)


# --- tensors and calls that are torch's ---


@pairs(distribution=["uniform", "normal", "truncated_normal"], scale=[0.0, 2.0])
def test_the_additions_go_through_torch_for_other_tensors(distribution, scale):
    with FakeTensorMode():
        fake = torch.empty(30, 50)
        if distribution != "truncated_normal" or not scale:  # torch draws that one in a loop that looks at values
            assert ours.variance_scaling_(fake, scale, distribution=distribution) is fake
    meta = torch.empty(30, 50, device="meta")
    assert ours.variance_scaling_(meta, scale, distribution=distribution) is meta
    wrapped = torch.empty(300, 50).as_subclass(Counting)
    torch.manual_seed(0)
    Counting.calls.clear()
    assert ours.variance_scaling_(wrapped, scale, distribution=distribution) is wrapped
    assert Counting.calls
    assert_allclose(float(wrapped.as_subclass(torch.Tensor).std()), (scale / 50) ** 0.5, rtol=0.05)


class Counting(torch.Tensor):
    """A subclass that sees what is done to it."""

    calls: list = []  # noqa: RUF012

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        cls.calls.append(func)
        return super().__torch_function__(func, types, args, kwargs or {})


@pytest.mark.parametrize("name", [*RANDOM, *WITHOUT_CHANCE])
def test_subclasses_see_the_calls_of_torch(name):
    arguments = (RANDOM | WITHOUT_CHANCE)[name]
    seen, values = [], []
    for module in (ours, theirs):
        tensor = torch.ones(4, 3).as_subclass(Counting)
        Counting.calls.clear()
        torch.manual_seed(0)
        getattr(module, name)(tensor, **arguments)
        seen.append(list(Counting.calls))
        values.append(tensor.as_subclass(torch.Tensor))
    assert seen[0] == seen[1] != []
    assert torch.equal(*values)


def test_complex_and_negated_tensors_are_torchs():
    for make in (
        lambda: torch.ones(3, dtype=torch.complex64),
        lambda: torch.ones(3, dtype=torch.complex64).conj().imag,
    ):
        mine, other = make(), make()
        torch.manual_seed(0)
        ours.normal_(mine)
        torch.manual_seed(0)
        theirs.normal_(other)
        assert torch.equal(mine, other)


class Seen(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.__name__)
        return func(*args, **kwargs or {})


class NoInit(TorchFunctionMode):
    """torch's documented way to skip initialisation."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def test_a_dispatch_mode_sees_the_fill():
    for name in OURS:
        with Seen() as seen:
            getattr(ours, name)(torch.empty(3, 4), **OURS[name])
        assert {"normal_.default", "uniform_.default"} & set(seen.names)


@pytest.mark.parametrize("name", ["uniform_", "normal_", "constant_", "kaiming_uniform_"])
def test_a_function_mode_can_skip_initialisation(name):
    tensor = torch.ones(3, 4)
    with torch.device("cpu"), NoInit():
        assert getattr(ours, name)(tensor, **(RANDOM | WITHOUT_CHANCE)[name]) is tensor
    assert torch.equal(tensor, torch.ones(3, 4))


def test_fake_tensors_are_a_no_op():
    for name in OURS:
        if name == "trunc_normal_":
            continue  # torch's own cannot: it looks at values
        real = torch.ones(3, 4)
        with FakeTensorMode():
            fake = torch.empty(3, 4)
            assert getattr(ours, name)(fake, **OURS[name]) is fake
            with pytest.raises(AssertionError, match="convert all Tensors to FakeTensors"):
                getattr(ours, name)(real, **OURS[name])
        assert torch.equal(real, torch.ones(3, 4))


def test_vmap_is_that_of_torch():
    stack, captured = torch.ones(5, 3), torch.ones(3)
    with pytest.raises(RuntimeError, match="randomness error mode"):
        torch.vmap(ours.normal_)(stack)
    with pytest.raises(RuntimeError, match="randomness error mode"):
        torch.vmap(lambda x: x + ours.normal_(captured))(stack)
    assert torch.equal(captured, torch.ones(3))
    results = {}
    for module in (ours, theirs):
        torch.manual_seed(0)
        results[module] = (
            torch.vmap(module.normal_, randomness="different")(torch.ones(5, 3)),
            torch.vmap(lambda x, module=module: x + module.normal_(captured), randomness="same")(stack),
        )
    assert all(map(torch.equal, results[ours], results[theirs]))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own formulas
def test_forward_derivatives_are_those_of_torch():
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(torch.ones(3), torch.ones(3))
        ours.normal_(dual)
        assert torch.equal(forward_ad.unpack_dual(dual).tangent, torch.zeros(3))


def test_compiled_code_is_that_of_torch(compiles):
    results = []
    for module in (ours, theirs):
        torch.manual_seed(0)
        compiled = torch.compile(
            lambda x, module=module: module.kaiming_uniform_(x.clone()), backend="eager", fullgraph=True
        )
        results.append(compiled(torch.empty(3, 4)))
    assert torch.equal(*results)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace` is deprecated")
def test_a_traced_call_is_in_the_trace():
    traced = torch.jit.trace(lambda x: ours.normal_(x.clone()), torch.zeros(3), check_trace=False)
    assert "normal_" in str(traced.graph)


def test_twins_in_the_place_of_torchs_functions_do_not_find_themselves(monkeypatch):
    for name in [*RANDOM, *WITHOUT_CHANCE, "dirac_"]:
        monkeypatch.setattr(theirs, name, getattr(ours, name))
    ours.ones_(torch.empty(3))
    ours.orthogonal_(torch.empty(3, 4, device="meta"))
    ours.variance_scaling_(torch.empty(3, 4, device="meta"))
    with pytest.raises(ValueError, match="Only tensors with 2 dimensions"):
        theirs.eye_(torch.empty(3))


# --- recorders ---


@pytest.mark.parametrize("name", [*OURS, *WITHOUT_CHANCE])
def test_a_recorder_is_asked_first(name):
    arguments = (OURS | WITHOUT_CHANCE)[name]
    state = torch.get_rng_state()
    real = torch.zeros(3, 4)
    with FakeTensorMode():
        fake = torch.empty(3, 4, dtype=torch.bfloat16)
        with recording(Taking()) as recorder:
            assert getattr(ours, name)(fake, **arguments) is fake
    with recording(recorder):
        assert getattr(ours, name)(real, **arguments) is real
    assert [tensor for tensor, _ in recorder.fills] == [fake, real]
    assert recorder.fills[0][1] == recorder.fills[1][1]
    assert isinstance(recorder.fills[0][1], fi.Distribution)
    assert torch.equal(torch.get_rng_state(), state)
    assert not real.any()


@pytest.mark.parametrize("name", [*OURS, *WITHOUT_CHANCE])
def test_what_the_recorder_refuses_is_seen_by_it_as_torchs_operations(name):
    tensor = torch.full((3, 4), torch.nan)
    with recording(Taking(answer=False)) as recorder, Seen() as seen:
        getattr(ours, name)(tensor, **(OURS | WITHOUT_CHANCE)[name])
    assert len(recorder.fills) >= 1
    assert seen.names
    assert torch.isfinite(tensor).all()


@pytest.mark.parametrize("name", RANDOM)
def test_what_a_recorder_refuses_is_torchs(name):
    mine, other = torch.empty(3, 4), torch.empty(3, 4)
    torch.manual_seed(0)
    with recording(Taking(answer=False)):
        getattr(ours, name)(mine, **RANDOM[name])
    torch.manual_seed(0)
    getattr(theirs, name)(other, **RANDOM[name])
    assert torch.equal(mine, other)


def test_a_recorder_is_not_asked_for_what_cannot_be():
    with recording(Taking()) as recorder:
        for name, tensor, arguments in [
            ("eye_", torch.empty(3), {}),
            ("dirac_", torch.empty(3, 3), {}),
            ("normal_", torch.empty(3), {"std": -1}),
            ("constant_", torch.empty(3, dtype=torch.float16), {"val": 1e10}),
            ("normal_", [1.0], {}),
            ("normal_", torch.empty(3, dtype=torch.int64), {}),
        ]:
            assert outcome(getattr(ours, name), tensor, **arguments) == outcome(
                getattr(theirs, name), tensor, **arguments
            )
        assert outcome(ours.kaiming_normal_, torch.empty(0, 3))[1]  # the warning of an empty tensor
    assert recorder.fills == []


def test_a_recorder_is_one_of_its_thread():
    tensor = torch.zeros(3)
    with recording(Taking()) as recorder:
        thread = threading.Thread(target=ours.normal_, args=(tensor,))
        thread.start()
        thread.join()
    assert recorder.fills == []
    assert tensor.all()


# --- whole modules ---


class Layer(torch.nn.Module):
    """torch's Linear and its reset_parameters, word for word, with the twin as `init`."""

    def __init__(self, inputs, outputs, init):
        super().__init__()
        self.init = init
        self.weight = torch.nn.Parameter(torch.empty(outputs, inputs))
        self.bias = torch.nn.Parameter(torch.empty(outputs))
        self.reset_parameters()

    def reset_parameters(self):
        self.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        fan_in, _ = self.init._calculate_fan_in_and_fan_out(self.weight)
        bound = 1 / math.sqrt(fan_in) if fan_in > 0 else 0
        self.init.uniform_(self.bias, -bound, bound)

    def forward(self, x):
        return torch.nn.functional.linear(x, self.weight, self.bias)


def test_a_module_that_uses_the_twin_trains():
    torch.manual_seed(0)
    model = torch.nn.Sequential(Layer(8, 32, ours), torch.nn.ReLU(), Layer(32, 1, ours))
    x = torch.randn(64, 8)
    y = x[:, :1]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(5):
        loss = torch.nn.functional.mse_loss(model(x), y)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0]


def test_the_twin_in_the_place_of_torchs_module(monkeypatch):
    """The layers of torch look `init` up in their modules."""
    from torch.nn.modules import conv, linear

    for module in (conv, linear):
        monkeypatch.setattr(module, "init", ours)
    for layer in (torch.nn.Linear(30, 40), torch.nn.Conv2d(3, 8, 3)):
        torch.manual_seed(1)
        layer.reset_parameters()
        torch.manual_seed(1)
        assert torch.equal(layer.weight, ours.kaiming_uniform_(torch.empty_like(layer.weight), a=math.sqrt(5)))
        bound = layer.weight[0].numel() ** -0.5
        assert torch.equal(layer.bias, ours.uniform_(torch.empty_like(layer.bias), -bound, bound))
