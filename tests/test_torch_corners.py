"""Corners of `fast_init` and `record`: memory that others see, views, unseen modules, odd ends of blocks."""

import copy
import gc
import io
import itertools
import pickle

import numpy as np
import pytest
import torch
from models import bits, differing, tensors
from torch import nn

import fastinit as fi
from fastinit.torch import fast_init, materialize, normal_, record
from fastinit.torch._tensors import DTYPES


def built(make, seed=0):
    with fast_init(seed=seed):
        return make()


def module(**named):
    made = nn.Module()
    for name, tensor in named.items():
        made.register_buffer(name, tensor)
    return made


def same(make):
    """Whether a plan makes the model that the block makes."""
    return differing(built(make, 5), materialize(make(), record(make), 5)) == []


# --- memory that others see ---


def test_what_is_saved_in_the_block_is_there():
    with fast_init(seed=0):
        layer, file = nn.Linear(3, 2), io.BytesIO()
        torch.save(layer.state_dict(), file)
        file.seek(0)
        loaded = torch.load(file)
        again = pickle.loads(pickle.dumps(torch.full((4,), 5.0)))
    assert torch.equal(loaded["weight"], layer.weight)
    assert again.tolist() == [5] * 4


def test_what_is_printed_is_there():
    """A text is shown, and no answer: a constructor that prints its weights is recorded."""
    with fast_init(seed=0):
        assert "5., 5." in str(torch.full((4,), 5.0))
    texts = []
    plan = record(lambda: texts.append(f"{(w := torch.randn(3))}") or module(w=w))
    assert plan["w"].distribution == fi.Normal()
    assert len({*texts, str(torch.zeros(3))}) == 2
    assert "e-" not in texts[0]


def test_what_is_saved_is_no_constant_of_a_plan():
    with pytest.raises(ValueError, match="branches on random values"):
        record(lambda: pickle.loads(pickle.dumps(nn.Linear(3, 2))))


def test_memory_of_numpy_and_of_files_is_filled_at_once(tmp_path):
    array, path = np.zeros(500, np.float32), tmp_path / "file"
    path.write_bytes(bytes(400))
    with fast_init(seed=0):
        torch.from_numpy(array).normal_()
        torch.from_file(str(path), shared=True, size=100).fill_(3.0)
        weight = torch.empty(5).normal_()
        seen = weight.numpy()
        weight.fill_(3.0)
        assert (seen == 3).all()
    assert array.std() > 0.9
    assert path.read_bytes() == np.full(100, 3, np.float32).tobytes()


@pytest.mark.parametrize("method", [torch.Tensor.data_ptr, torch.Tensor.untyped_storage, torch.Tensor.numpy])
def test_whoever_asks_for_the_memory_finds_the_values(method):
    with fast_init(seed=0):
        weight = torch.full((4,), 2.0)
        method(weight)
        text = weight.detach().clone()
    assert weight.tolist() == text.tolist() == [2] * 4


def test_storages_can_still_be_resized():
    layer = built(lambda: nn.Linear(3, 2))
    materialize(layer, record(lambda: nn.Linear(3, 2)), 1)
    normal_(layer.weight)
    assert layer.weight.untyped_storage().resizable()
    with fast_init(seed=0):
        tensor = torch.empty(10).normal_()
        tensor.resize_(50)
    assert tensor.shape == (50,)


# --- views ---


def flat():
    layer = nn.Linear(4, 5)
    memory = torch.zeros(25).uniform_(1, 2)
    layer.weight.data, layer.bias.data = memory[:20].view(5, 4), memory[20:]
    return layer


def vector():
    layer = nn.Linear(4, 4)
    nn.utils.vector_to_parameters(torch.rand(20) + 1, layer.parameters())
    return layer


def unbound():
    first, _ = (torch.rand(12, 2) + 1).unbind(-1)
    return module(first=first)


def rest():
    memory = torch.rand(12, 5) + 1
    return module(q=memory[:8].view(2, 4, 5), v=memory[9:])


@pytest.mark.parametrize("make", [flat, vector, unbound, rest])
def test_all_of_the_memory_of_views_is_filled(make):
    for tensor in tensors(built(make)).values():
        assert ((tensor >= 1) & (tensor < 2)).all()
    assert same(make)


def test_parts_of_memory_with_names_have_theirs():
    layer = built(flat)
    expected = fi.uniform((5, 4), low=1, high=2, seed=fi.Key(0) / "weight")
    assert bits(layer.weight) == expected.tobytes()


def test_what_no_module_owns_is_filled_too():
    with fast_init(seed=0):
        memory = torch.empty(1000, 4).fill_(2.0)
        owner = module(a=memory[:500])
    assert memory.eq(2).all()
    assert owner.a.shape == (500, 4)


# --- modules that nobody sees ---


@pytest.mark.parametrize("collect", [False, True])
def test_names_do_not_depend_on_the_collector(collect):
    with fast_init(seed=0):
        lost = nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))  # refers to itself
        del lost
        if collect:
            gc.collect()
        layer = nn.Embedding(4, 3)
    assert bits(layer.weight) == fi.normal((4, 3), seed=fi.Key(0) / "weight").tobytes()


KEPT = []


def with_teacher():
    KEPT.append(nn.Linear(3, 3))
    return nn.Linear(3, 3)


def assigned():
    layer = nn.Linear(3, 3)
    layer._parameters["weight"] = nn.Parameter(torch.randn(3, 3))
    return layer


def listed():
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = [nn.Linear(3, 3)]
            self.head = nn.Linear(3, 3)

    return Hidden()


@pytest.mark.parametrize(
    "make",
    [with_teacher, assigned, listed, lambda: copy.deepcopy(nn.Linear(3, 3)), lambda: copy.copy(nn.Linear(3, 3))],
)
def test_a_plan_has_the_keys_of_the_block(make):
    assert same(make)


def test_deep_copies_of_buffers():
    def make():
        norm = nn.BatchNorm1d(3)
        norm.running_mean.normal_()
        norm.register_buffer("noise", torch.rand(5))
        return nn.ModuleList([norm, copy.deepcopy(norm)])

    assert same(make)
    first, second = built(make)
    assert differing(first, second) == []


def test_compiled_modules_have_their_own_names():
    def make():
        return torch.compile(nn.Linear(3, 3), backend="eager")

    plan = record(make)
    assert list(plan) == ["weight", "bias"]
    plain = materialize(nn.Linear(3, 3), plan, 5)
    assert torch.equal(built(make, 5).get_submodule("_orig_mod").weight, plain.weight)


# --- dtypes ---


def test_constants_are_rounded_on_the_way():
    def make():
        return module(
            a=torch.full((4,), 0.1, dtype=torch.bfloat16).float(),
            b=torch.full((3,), 0.1).double(),
            c=torch.ones(3) * 16777216 + 1 - 16777216,
            d=torch.ones(3) * 1e-30 * 1e-30 * 1e30 * 1e30,
        )

    assert differing(built(make), make()) == []
    assert same(make)


@pytest.mark.parametrize("way", list(itertools.permutations(DTYPES, 2)))
def test_draws_are_rounded_on_the_way(way):
    def make():
        start = torch.randn(300, dtype=torch.float64)
        first = start.to(way[0])
        return module(first=first, second=first.to(way[1]), third=first.to(way[1]).to(torch.float64))

    model = built(make)
    assert torch.equal(model.second, model.first.to(way[1]))
    assert torch.equal(model.third, model.second.double())
    assert same(make)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: torch.randint_like(torch.zeros(60), 100),
        lambda: torch.randn(60, dtype=torch.complex64),
        lambda: torch.randn_like(torch.zeros(60, dtype=torch.complex64)),
        lambda: torch.rand(60).bernoulli(),
    ],
)
def test_all_that_is_random_has_a_seed(draw):
    def make():
        return module(drawn=draw())

    state = torch.get_rng_state()
    assert differing(built(make), built(make)) == []
    assert differing(built(make), built(make, 1)) == ["drawn"]
    assert torch.equal(torch.get_rng_state(), state)
    assert same(make)


# --- blocks that end oddly ---


def test_blocks_that_close_out_of_order_leave_nothing_behind():
    first, second = fast_init(0), fast_init(1)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    weight = normal_(torch.full((5,), 9.0))
    assert (weight != 9).all()
    assert torch.full((5,), 4.0).eq(4).all()


def test_a_generator_that_is_not_run_to_its_end():
    def models():
        with fast_init(0):
            yield nn.Embedding(3, 3)

    generator = models()
    model = next(generator)
    other = torch.full((3,), 7.0)
    generator.close()
    assert bits(model.weight) == fi.normal((3, 3), seed=fi.Key(0) / "weight").tobytes()
    assert other.eq(7).all()


def test_the_decorator_form():
    @fast_init(seed=3)
    def make():
        return nn.Embedding(3, 3)

    assert bits(make().weight) == fi.normal((3, 3), seed=fi.Key(3) / "weight").tobytes()


# --- what is refused ---


def lazy():
    return nn.LazyLinear(4)


def on_meta():
    return nn.Linear(3, 4, device="meta")


def sparse():
    return module(index=torch.eye(3).to_sparse())


@pytest.mark.parametrize(
    ("factory", "error", "words"),
    [
        (42, TypeError, "factory must be a function that builds a module. Received: int"),
        (nn.Linear(2, 2), TypeError, "factory must be a function that builds a module. Received: Linear"),
        (lazy, ValueError, "weight has no shape yet"),
        (on_meta, ValueError, "weight is on the meta device"),
        (sparse, ValueError, "index must be a strided tensor on the CPU. Received: torch.sparse_coo"),
    ],
)
def test_what_no_plan_can_hold_is_named(factory, error, words):
    with pytest.raises(error, match=words):
        record(factory)


def test_factories_that_only_look_at_memory_are_recorded():
    def make():
        layer, empty = nn.Linear(3, 3), torch.empty(0)
        layer.share_memory()
        empty.set_(torch.randn(40))
        layer.register_buffer("set", empty)
        return layer

    assert same(make)


def test_materialize_names_what_it_was_given():
    plan = record(lambda: nn.Linear(3, 2))
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module. Received: int"):
        materialize(3, plan)
    with pytest.raises(TypeError, match=r"plan must be a Plan\. Received: dict"):
        materialize(nn.Linear(3, 2), {})
    wide = nn.Linear(3, 2)
    wide.weight = nn.Parameter(torch.zeros(1, 3).expand(2, 3))
    before = wide.bias.clone()
    with pytest.raises(ValueError, match="weight must not overlap itself"):
        materialize(wide, plan)
    assert torch.equal(wide.bias, before)


def test_plans_travel_unless_something_is_computed():
    plan = record(lambda: nn.Embedding(4, 3, padding_idx=1))
    again = pickle.loads(pickle.dumps(plan))
    assert bits(materialize(nn.Embedding(4, 3), again, 2).weight) == bits(
        materialize(nn.Embedding(4, 3), plan, 2).weight
    )
    computed = record(lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)))
    with pytest.raises(TypeError, match="a plan with computed tensors cannot be pickled: record it in every process"):
        pickle.dumps(computed)
    assert list(copy.deepcopy(computed)) == list(computed)
