"""`fast_init` and `record`: unmodified constructors, every fill done once and by name, all else as without them."""

import copy
import gc
import pickle
import threading
import warnings

import numpy as np
import pytest
import torch
from models import Everything, bits, differing, tensors, ties, unlike_the_plan
from scipy import stats
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import fastinit as fi
from fastinit._core.composite import Patched, SameAs, Values
from fastinit.plan._fills import Tied
from fastinit.torch import fast_init, init, materialize, record
from fastinit.torch._compat import optional
from fastinit.torch._record import execute
from fastinit.torch._record.replay import Computed

SEED = fi.Key(7)


def built(make, seed=SEED):
    with fast_init(seed=seed):
        return make()


def drawn(tensor, law, *names, seed=SEED):
    """What a tensor must hold, drawn by the core alone."""
    key = seed
    for name in names:
        key = key / name
    dtype = str(tensor.dtype).removeprefix("torch.")
    return fi.fill(np.empty(tuple(tensor.shape), fi._runtime.arrays.as_dtype(dtype)), law, seed=key)


def holds(tensor, law, *names, **how):
    expected = drawn(tensor, law, *names, **how)
    return bits(tensor) == np.ascontiguousarray(expected).tobytes()


# --- names ---


def test_every_tensor_is_drawn_with_its_name():
    model = built(lambda: nn.Sequential(nn.Linear(30, 20), nn.BatchNorm1d(20), nn.Conv2d(3, 4, 5)))
    assert holds(model[0].weight, fi.Uniform(-(30**-0.5), 30**-0.5), "0.weight")
    assert holds(model[0].bias, fi.Uniform(-(30**-0.5), 30**-0.5), "0.bias")
    assert holds(model[2].weight, fi.Uniform(-(75**-0.5), 75**-0.5), "2.weight")
    assert model[1].weight.eq(1).all()
    assert model[1].running_mean.eq(0).all()
    assert model[1].num_batches_tracked == 0


def test_the_order_of_construction_does_not_matter():
    def parts(order):
        made = {name: nn.Linear(4, 3) for name in order}
        return nn.ModuleDict({name: made[name] for name in sorted(order)})

    assert differing(built(lambda: parts("abc")), built(lambda: parts("cab"))) == []


def test_another_seed_is_another_model():
    assert differing(built(lambda: nn.Linear(4, 3)), built(lambda: nn.Linear(4, 3), SEED / "x")) == ["weight", "bias"]


def test_no_seed_is_fresh_entropy():
    assert differing(built(lambda: nn.Linear(4, 3), None), built(lambda: nn.Linear(4, 3), None)) == ["weight", "bias"]


def test_a_second_module_has_its_ordinal_in_the_key():
    with fast_init(seed=SEED):
        first, second, third = nn.Linear(4, 3), nn.Linear(4, 3), nn.Sequential(nn.Linear(4, 3))
    law = fi.Uniform(-0.5, 0.5)
    assert holds(first.weight, law, "weight")
    assert holds(second.weight, law, "1", "weight")
    assert holds(third[0].weight, law, "2", "0.weight")


def test_modules_that_are_gone_do_not_count():
    with fast_init(seed=SEED):
        nn.Linear(4, 3)
        gc.collect()
        layer = nn.Sequential(nn.Linear(4, 3))[0]
    assert holds(layer.weight, fi.Uniform(-0.5, 0.5), "weight")


def test_a_tensor_without_a_module_is_keyed_by_the_order_of_draws():
    with fast_init(seed=SEED):
        first, second = torch.empty(5).normal_(), torch.randn(6)
    assert holds(first, fi.Normal(), "unowned", "0")
    assert holds(second, fi.Normal(), "unowned", "1")


def test_the_first_name_of_tied_weights_counts():
    def tied():
        model = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 6, bias=False))
        model[1].weight = model[0].weight
        return model

    model = built(tied)
    assert model[1].weight is model[0].weight
    assert holds(model[0].weight, fi.Normal(), "0.weight")
    plan = record(tied)
    assert (plan["1.weight"], plan.parameters) == (Tied("0.weight"), 24)


# --- everything else as without the block ---


def test_everything_is_what_it_is_without_the_block():
    torch.manual_seed(0)
    with_us, without = built(Everything), Everything()
    for name, tensor in tensors(without).items():
        ours = tensors(with_us)[name]
        same = ours.dtype, ours.shape, ours.stride(), ours.requires_grad, ours.device, type(ours)
        assert same == (tensor.dtype, tensor.shape, tensor.stride(), tensor.requires_grad, tensor.device, type(tensor))
    assert ties(with_us) == ties(without) != []
    assert with_us.rates == without.rates
    for name in ("identity", "pass_on", "angles", "mask", "counter", "batch.running_var", "batch.num_batches_tracked"):
        assert bits(tensors(with_us)[name]) == bits(tensors(without)[name]), name
    assert list(with_us.state_dict()) == list(without.state_dict())


def test_the_values_of_everything():
    model = built(Everything)
    assert holds(model.scaled, fi.Normal(0, 0.02), "scaled")
    assert holds(model.shifted, fi.Uniform(-1, 1), "shifted")
    assert torch.equal(model.copied, model.scaled)
    assert torch.equal(model.master, model.scaled.double())
    assert holds(model.transposed, fi.Normal(0, 0.02), "transposed")  # bounds at 100 sigma cut nothing
    assert holds(model.square, fi.Orthogonal(), "square")
    assert torch.allclose(model.sparse.eq(0).sum(0).float(), torch.tensor(4.0))
    assert model.embedding.weight[3].eq(0).all()
    assert model.rounded.weight[3].eq(0).all()
    expected = drawn(model.embedding.weight, fi.Normal(), "embedding.weight")
    expected[3] = 0
    assert bits(model.embedding.weight) == expected.tobytes()
    assert holds(model.wide.weight.float(), fi.Uniform(-(5**-0.5), 5**-0.5), "wide.weight")
    assert torch.equal(model.wide.weight, model.wide.weight.float().double())  # made in float32
    bound = 5**-0.5 / 6**0.5
    assert (
        np.abs(
            drawn(model.first.weight, fi.Uniform(-bound, bound), "first.weight") - model.first.weight.numpy(force=True)
        ).max()
        <= 1e-7
    )
    assert model.first.bias[1:3].eq(0.5).all()
    assert not model.first.bias[[0, 3]].eq(0.5).any()
    gates = model.gates.weight_hh_l0.detach().reshape(3, 5, 5)
    assert torch.allclose(gates @ gates.mT, torch.eye(5).expand(3, 5, 5), atol=1e-5)
    assert not torch.equal(gates[0], gates[1])
    assert holds(model.q, fi.Normal(), "q")
    assert holds(model.k, fi.Normal(), "k")
    assert holds(model.v, fi.Normal(), "v")
    norms = model.normalised.parametrizations.weight
    assert torch.allclose(norms.original0, norms.original1.norm(dim=1, keepdim=True))
    assert sorted(model.shuffled.tolist()) == list(range(10))


@pytest.mark.parametrize(
    ("make", "law"),
    [
        (lambda: torch.randn(5, 6) * 0.02, fi.Normal(0, 0.02)),
        (lambda: 0.5 + 2 * torch.rand(5, 6), fi.Uniform(0.5, 2.5)),
        (lambda: torch.add(torch.rand(5, 6), 2, alpha=3), fi.Uniform(6, 7)),
        (lambda: torch.sub(torch.rand(5, 6), 2, alpha=0.5), fi.Uniform(-1, 0)),
        (lambda: torch.randn(5, 6).div_(4).add_(1), fi.Normal(1, 0.25)),
        (lambda: nn.init.trunc_normal_(torch.empty(5, 6)) * 2 + 1, fi.TruncatedNormal(1, 2, -3, 5)),
        (lambda: torch.normal(1.0, 2.0, (5, 6)), fi.Normal(1, 2)),
        (lambda: torch.randn(6, 5).to(torch.bfloat16), fi.Normal()),
        (lambda: torch.zeros(3).new_full((2, 2), 0.5), fi.Constant(0.5)),
        (lambda: torch.full((2, 2), 7.0), fi.Constant(7)),
        (lambda: torch.empty(4).copy_(torch.rand(4)), fi.Uniform()),
    ],
)
def test_laws_that_operators_make(make, law):
    module = type("Module", (nn.Module,), {})

    def build():
        made = module()
        made.weight = nn.Parameter(make())
        return made

    assert record(build)["weight"].distribution == law
    assert holds(built(build).weight, law, "weight")


@pytest.mark.parametrize("make", [lambda: torch.rand(50) * -2, lambda: -torch.randn(50), lambda: 1 - torch.rand(50)])
def test_mirror_images_are_computed(make):
    with fast_init(seed=SEED):
        x = torch.rand(50)
        minus = x * -2
        other = make()
    assert torch.equal(minus, x * -2)
    assert other.std() > 0.2


def test_a_later_fill_wins_whatever_the_view():
    with fast_init(seed=SEED):
        layer = nn.Linear(6, 4, bias=False)
        nn.init.normal_(layer.weight)
        layer.weight.data.view(-1).uniform_(1, 2)
        layer.weight.data.T[2:4].fill_(3)
        layer.weight.data[0, 0] = 5.0
    expected = drawn(layer.weight, fi.Uniform(1, 2), "weight")
    expected[:, 2:4] = 3
    expected[0, 0] = 5
    assert bits(layer.weight) == expected.tobytes()


def test_a_part_that_is_filled_again_lies_over_what_came_between():
    with fast_init(seed=SEED):
        weight = nn.Linear(2, 6, bias=False).weight.data
        for rows, value in ((slice(0, 3), 1.0), (slice(2, 5), 2.0), (slice(0, 3), 3.0)):
            weight[rows].fill_(value)
    assert weight[:5, 0].tolist() == [3, 3, 3, 2, 2]


def test_what_is_read_is_there():
    with fast_init(seed=SEED):
        tensor = torch.empty(1000).normal_()
        norm, values, array, text = tensor.norm(), tensor.tolist(), tensor.numpy().copy(), str(tensor[:2])
        state = pickle.dumps(tensor)
        again = torch.empty(1000).normal_()
        twice = again + again
        stacked = torch.stack([torch.zeros(2), torch.ones(2)])
    assert torch.equal(norm, tensor.norm())
    assert tensor.tolist() == values
    assert (tensor.numpy() == array).all()
    assert str(tensor[:2]) == text
    assert torch.equal(pickle.loads(state), tensor)
    assert torch.equal(twice, 2 * again)
    assert stacked.tolist() == [[0, 0], [1, 1]]


def test_a_copy_is_equal_and_apart():
    with fast_init(seed=SEED):
        layer = nn.Linear(4, 3)
        twin = copy.deepcopy(layer)
        model = nn.ModuleList([layer, twin])
    assert differing(layer, twin) == []
    assert layer.weight.data_ptr() != twin.weight.data_ptr()
    assert holds(model[0].weight, fi.Uniform(-0.5, 0.5), "0.weight")


def test_the_generator_of_torch_is_left_alone():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    built(Everything)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_seed_of_torch_does_not_matter():
    torch.manual_seed(1)
    first = built(Everything)
    torch.manual_seed(2)
    assert differing(first, built(Everything)) == []


def test_threads_do_not_matter():
    def make():
        return nn.Linear(1200, 1100)

    with fi.thread_limit(1):
        one = built(make)
    with fi.thread_limit(3):
        assert differing(one, built(make)) == []


def test_versions_say_that_memory_changed_when_it_is_filled():
    """As without the block: a graph that is built in it is good after it."""
    with fast_init(seed=SEED):
        layer = nn.Linear(4, 3)
        before = layer.weight._version
    without = nn.Linear(4, 3)
    assert layer.weight._version == before == without.weight._version


def test_an_error_of_torch_is_raised_where_it_happens():
    for wrong in (
        lambda: torch.empty(3).normal_(0, -1),
        lambda: torch.empty(3).uniform_(2, 1),
        lambda: nn.init.eye_(torch.empty(3)),
        lambda: nn.init.dirac_(torch.empty(3, 3)),
        lambda: torch.empty(3).expand(2, 3).normal_(),
    ):
        with pytest.raises((RuntimeError, ValueError)) as theirs:
            wrong()
        with pytest.raises(type(theirs.value)) as ours, fast_init(seed=SEED):
            wrong()
        assert str(ours.value) == str(theirs.value)


def test_values_that_no_law_has_are_torchs():
    with fast_init(seed=SEED):
        mask = torch.full((3, 3), float("-inf")).triu(1)
        counts, flags, grid = torch.zeros(3, dtype=torch.int64), torch.ones(2, dtype=torch.bool), torch.full((2,), 7)
        complex_ = torch.randn(3, dtype=torch.complex64)
    assert torch.equal(mask, torch.full((3, 3), float("-inf")).triu(1))
    assert (counts.tolist(), flags.tolist(), grid.tolist(), grid.dtype) == ([0] * 3, [True] * 2, [7, 7], torch.int64)
    assert complex_.abs().min() > 0


def test_an_exception_in_the_constructor_passes_and_leaves_nothing_undefined():
    kept = []

    def broken():
        kept.append(nn.Linear(40, 30))
        kept[0].weight.data.fill_(float("nan"))
        nn.init.normal_(kept[0].weight)
        raise LookupError("no such thing")

    with pytest.raises(LookupError, match="no such thing"):
        built(broken)
    assert holds(kept[0].weight, fi.Normal(), "weight")
    assert torch.randn(3).isfinite().all()


def test_blocks_inside_each_other():
    with fast_init(seed=1):
        outer = nn.Linear(4, 3)
        with fast_init(seed=2):
            inner = nn.Linear(4, 3)
            nn.init.zeros_(outer.bias)
        after = nn.Linear(4, 3)
    law = fi.Uniform(-0.5, 0.5)
    assert holds(outer.weight, law, "weight", seed=fi.Key(1))
    assert outer.bias.eq(0).all()
    assert holds(inner.weight, law, "weight", seed=fi.Key(2))
    assert holds(after.weight, law, "2", "weight", seed=fi.Key(1))


def test_an_inner_block_that_reads_what_it_wrote_comes_last():
    with fast_init(seed=1):
        layer = nn.Linear(4, 3)
        with fast_init(seed=2):
            layer.weight.data.normal_()
            norm = layer.weight.norm()
    assert torch.equal(norm, layer.weight.norm())
    assert holds(layer.weight, fi.Normal(), "weight", seed=fi.Key(2))  # a module of the outer block has its names here


def test_nothing_is_drawn_to_be_overwritten(monkeypatch):
    drawn = []
    original = execute.fill
    monkeypatch.setattr(execute, "fill", lambda out, law, **how: drawn.append(law) or original(out, law, **how))
    with fast_init(seed=SEED):
        layer = nn.Linear(40, 30, bias=False)
        weight = layer.weight
        weight.data.view(-1).uniform_(2, 3)
        weight.data.T.normal_()
        weight.data.copy_(torch.arange(1200.0).view(30, 40))
        nn.init.orthogonal_(weight)
    assert drawn == [fi.Orthogonal()]
    assert record(_refilled)["weight"].distribution == fi.Normal(1, 2)


def _refilled():
    layer = nn.Linear(40, 30)
    layer.weight.data.view(-1).uniform_(2, 3)
    layer.weight.data.normal_(1, 2)
    return layer


def test_other_random_operators_have_seeds_of_their_own():
    def make():
        module = nn.Module()
        module.register_buffer("dropped", nn.functional.dropout(torch.ones(200)))
        module.register_buffer("native", torch.native_dropout(torch.ones(200), 0.5, True)[0])  # takes no generator
        module.register_buffer("whole", torch.randint_like(torch.ones(200, dtype=torch.int64), 10))
        module.register_buffer("flips", torch.empty(200).bernoulli_(0.3))
        module.register_buffer("order", torch.randperm(200))
        return module

    torch.manual_seed(4)
    state = torch.get_rng_state()
    model, plan = built(make), record(make)
    assert torch.equal(torch.get_rng_state(), state)
    assert differing(model, built(make)) == []
    assert differing(model, built(make, 3)) == ["dropped", "native", "whole", "flips", "order"]
    assert unlike_the_plan(plan, model, SEED) == []


def test_modules_of_helper_threads_are_torchs_own():
    made = []
    with fast_init(seed=SEED):
        helper = threading.Thread(target=lambda: made.append(nn.Linear(4, 3)))
        helper.start()
        helper.join()
        model = nn.Sequential(made[0], nn.Linear(4, 3))
        nn.init.orthogonal_(model[1].weight)
    assert 0 < model[0].weight.abs().max() <= 0.5
    assert not holds(model[0].weight, fi.Uniform(-0.5, 0.5), "0.weight")
    assert holds(model[1].weight, fi.Orthogonal(), "1.weight")


def test_two_models_in_two_threads():
    made, barrier = {}, threading.Barrier(2)

    def build(seed):
        with fast_init(seed=seed):
            barrier.wait()
            model = Everything()
            barrier.wait()
            made[seed] = model

    threads = [threading.Thread(target=build, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, model in made.items():
        assert differing(model, built(Everything, seed)) == []
    assert torch.nn.init.orthogonal_.__module__ == "torch.nn.init"


def test_torch_is_as_before_afterwards():
    before = {name: getattr(nn.init, name) for name in ("orthogonal_", "eye_", "dirac_", "_no_grad_trunc_normal_")}
    with pytest.raises(KeyError), fast_init(seed=0):
        raise KeyError
    built(lambda: nn.Linear(3, 2))
    assert before == {name: getattr(nn.init, name) for name in before}
    hooks = torch.nn.modules.module
    assert not hooks._global_parameter_registration_hooks
    assert not hooks._global_module_registration_hooks
    assert not hooks._global_buffer_registration_hooks


def test_tensors_that_die_are_not_filled():
    """Memory of temporaries goes back at once: a hundred of 40 MB fit in the time of one."""
    with fast_init(seed=SEED):
        for _ in range(100):
            torch.empty(10**7).normal_()
        kept = torch.empty(3).normal_()
    assert holds(kept, fi.Normal(), "unowned", "100")


def test_progress(capfd):
    with fast_init(seed=0, progress=True):
        nn.Linear(100, 100)
        layer = nn.Linear(100, 100)
    lines = capfd.readouterr().err.splitlines()
    assert lines[-1] == f"{layer.weight.nbytes + layer.bias.nbytes:,} of 40,400 bytes"


@pytest.mark.parametrize("seed", [-1, 1.5, "0", True])
def test_bad_seeds_are_refused_before_anything_is_built(seed):
    with pytest.raises((TypeError, ValueError), match="seed"), fast_init(seed=seed):
        raise AssertionError


# --- torch's private helper ---


def test_truncated_normals_without_torchs_helper(monkeypatch):
    """Torch's own loop then draws through the operators that are seen; a warning says that it is slow."""
    original = nn.init.trunc_normal_

    def loop(tensor, mean=0.0, std=1.0, a=-2.0, b=2.0, generator=None):  # as a torch without the helper would have it
        with torch.no_grad():
            tensor.normal_(mean, std, generator=generator)
            while (bad := (tensor < a) | (tensor > b)).any():
                tensor.copy_(torch.where(bad, torch.empty_like(tensor).normal_(mean, std), tensor))
        return tensor

    monkeypatch.delattr(nn.init, "_no_grad_trunc_normal_")
    monkeypatch.setattr(nn.init, "trunc_normal_", loop)
    tensor = torch.empty(20000)
    optional.cache_clear()
    try:
        with (
            pytest.warns(RuntimeWarning, match="no torch.nn.init._no_grad_trunc_normal_: .* slowly"),
            fast_init(seed=SEED),
        ):
            loop(tensor, std=1.5)
    finally:
        optional.cache_clear()
    assert stats.kstest(tensor.numpy() / 1.5, stats.truncnorm(-2 / 1.5, 2 / 1.5).cdf).pvalue > 1e-4
    assert original is not nn.init.trunc_normal_


def test_torch_warns_of_bounds_far_from_the_mean():
    with pytest.warns(UserWarning, match="mean is more than 2 std"), fast_init(seed=SEED):
        tensor = nn.init.trunc_normal_(torch.empty(10), mean=5.0, std=1.0)
    assert tensor.abs().max() <= 2


def test_parts_that_are_no_regions_are_different_draws_too():
    class Gates(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.empty(12, 4))
            for gate in range(2):
                nn.init.orthogonal_(self.weight.data[gate * 4 : gate * 4 + 4])
            nn.init.orthogonal_(self.weight.data[8:].T)  # as a structured law no region: its axes are exchanged

    model, plan = built(Gates), record(Gates)
    assert unlike_the_plan(plan, model, SEED) == []
    gates = model.weight.detach().view(3, 4, 4)
    assert torch.allclose(gates @ gates.mT, torch.eye(4).expand(3, 4, 4), atol=1e-5)
    assert not any(torch.allclose(gates[i], gates[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_what_is_computed_out_of_draws_is_computed_again():
    class Computes(nn.Module):
        def __init__(self):
            super().__init__()
            scale = torch.arange(1.0, 5.0)
            self.row = nn.Parameter(torch.arange(12.0).view(3, 4))
            self.row.data[0].copy_(torch.rand(4).sqrt())  # part of what is not random
            self.scaled = nn.Parameter(torch.rand(4).sqrt().mul_(scale))
            scale.add_(5)  # after it was used
            self.chained = nn.Parameter(torch.cat([self.scaled.data, self.row.data[0]]).cumsum(0))

    model, plan = built(Computes), record(Computes)
    assert unlike_the_plan(plan, model, SEED) == []
    assert model.row[1:].tolist() == [[4, 5, 6, 7], [8, 9, 10, 11]]
    assert torch.allclose(model.chained, torch.cat([model.scaled, model.row[0]]).cumsum(0))


def test_a_part_set_to_a_random_number_is_the_same_in_both():
    class Part(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 4))
            self.weight.data[0] = torch.rand(())
            self.weight.data[1].fill_(torch.rand(2).sum())

    model, plan = built(Part), record(Part)
    assert unlike_the_plan(plan, model, SEED) == []
    assert model.weight.data[:2].std(1).eq(0).all()


# --- record ---


def test_a_plan_holds_what_the_block_makes():
    plan, model = record(Everything), built(Everything)
    assert set(plan) == set(tensors(model))
    assert unlike_the_plan(plan, model, SEED) == []


def test_the_kinds_of_a_plan():
    plan = record(Everything)
    assert plan["scaled"].distribution == fi.Normal(0, 0.02)
    assert plan["copied"].distribution == SameAs(("scaled",), fi.Normal(0, 0.02), (5, 6))
    assert plan["square"].distribution == fi.Orthogonal()
    assert isinstance(plan["embedding.weight"].distribution, Patched)
    assert isinstance(plan["computed"].distribution, Computed)
    assert isinstance(plan["angles"].distribution, Values)
    assert plan["tied.weight"] == Tied("first.weight")
    assert (plan["counter"].dtype, plan["mask"].dtype, plan["rounded.weight"].dtype) == ("int64", "bool", "bfloat16")
    assert [name for name, fill in plan.filled.items() if not fill.persistent] == ["angles"]


def test_a_plan_is_filled_by_region():
    plan, model = record(Everything), built(Everything)
    for name, tensor in tensors(model).items():
        if tensor.ndim == 0:
            continue
        region = (slice(1, 3), *(slice(0, 2) for _ in tensor.shape[1:]))
        part = tensor[region]
        array = np.empty(tuple(part.shape), plan.of(name).dtype)
        plan.of(name).fill(array, SEED, region)
        assert array.tobytes() == bits(part), name


def test_recording_takes_no_memory():
    """A terabyte, on any machine: single tensors of 512 GB too."""

    def huge():
        return nn.Sequential(nn.Linear(1 << 18, 1 << 19), nn.Embedding(1 << 20, 1 << 17, padding_idx=0))

    plan = record(huge)
    assert plan.parameters == (1 << 37) + (1 << 19) + (1 << 37)
    part = np.empty((2, 3), np.float32)
    plan.of("1.weight").fill(part, SEED, (slice(0, 2), slice(0, 3)))
    assert (part[0] == 0).all()
    assert (part[1] != 0).all()


def test_undefined_memory_is_zero_in_a_plan():
    class Undefined(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.empty(3, 4))
            self.register_buffer("count", torch.empty(3, dtype=torch.int64))

    plan = record(Undefined)
    assert plan["weight"].distribution == fi.Constant(0)
    assert plan["count"].distribution.array.tolist() == [0, 0, 0]


def test_a_course_that_depends_on_random_values_is_refused():
    def dependent():
        layer = nn.Linear(3, 2)
        if layer.weight.sum() > 0:
            layer.weight.data.zero_()
        return layer

    with pytest.raises(ValueError, match="branches on random values"):
        record(dependent)
    with pytest.raises(ValueError, match="branches on random values"):
        record(lambda: nn.Linear(int(torch.rand(1).tolist()[0] * 10), 3))
    built(dependent)


def test_tensors_that_share_part_of_their_memory_are_refused():
    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.flat = nn.Parameter(torch.randn(12))
            self.part = nn.Parameter(self.flat.data[:6].view(2, 3))

    with pytest.raises(ValueError, match=r"part and flat share part of their memory"):
        record(Views)
    model = built(Views)
    assert holds(model.flat, fi.Normal(), "flat")
    assert torch.equal(model.part.view(-1), model.flat[:6])


@pytest.mark.parametrize("result", [None, 3, torch.zeros(3)])
def test_a_factory_must_return_a_module(result):
    with pytest.raises(TypeError, match=r"factory must return a torch\.nn\.Module"):
        record(lambda: result)


def test_a_block_inside_a_recording_belongs_to_the_plan():
    def make():
        with fast_init(seed=5):
            return nn.Linear(4, 3)

    assert record(make)["weight"].distribution.high == pytest.approx(0.5)


def test_values_from_outside_are_kept():
    table = torch.arange(6.0).view(2, 3)

    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.outside = nn.Parameter(table)
            self.loaded = nn.Parameter(torch.from_numpy(np.arange(4.0)))
            self.patched = nn.Parameter(table.clone())
            nn.init.normal_(self.patched.data[1])

    plan, model = record(Table), built(Table)
    assert plan["outside"].distribution.array.tolist() == table.tolist()
    assert plan["loaded"].distribution.array.tolist() == [0, 1, 2, 3]
    with torch.device("meta"):
        empty = Table()
    assert differing(materialize(empty.to(torch.device("meta")), plan, SEED), model) == []
    assert torch.equal(model.patched[0], table[0])


def test_under_fake_tensors_nothing_happens():
    with FakeTensorMode(), fast_init(seed=SEED), warnings.catch_warnings():
        layer = nn.Linear(3, 2)
    assert layer.weight.shape == (2, 3)


# --- materialize on one process ---


def test_materialize_is_the_same_model():
    with torch.device("meta"):
        empty = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Embedding(6, 4, padding_idx=2), nn.GRU(4, 5))

    def make():
        return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Embedding(6, 4, padding_idx=2), nn.GRU(4, 5))

    assert materialize(empty, record(make), SEED) is empty
    assert differing(empty, built(make)) == []


def test_materialize_in_place_keeps_the_tensors():
    model, plan = Everything(), record(Everything)
    before = {name: tensor.data_ptr() for name, tensor in tensors(model).items()}
    versions = {name: tensor._version for name, tensor in tensors(model).items()}
    materialize(model, plan, SEED)
    assert differing(model, built(Everything)) == []
    assert before == {name: tensor.data_ptr() for name, tensor in tensors(model).items()}
    assert all(tensor._version > versions[name] for name, tensor in tensors(model).items())


@pytest.mark.parametrize("mode", [lambda: torch.device("meta"), lambda: fast_init(seed=3)], ids=["device", "block"])
def test_computed_tensors_are_the_same_under_modes(mode):
    class Rotation(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("q", torch.linalg.qr(torch.randn(8, 8))[0])

    model, plan = Rotation(), record(Rotation)
    with mode():
        materialize(model, plan, SEED)
    assert differing(model, built(Rotation)) == []


def test_materialize_keeps_ties():
    def tied():
        model = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 6, bias=False))
        model[1].weight = model[0].weight
        return model

    with torch.device("meta"):
        empty = tied()
    materialize(empty, record(tied), SEED)
    assert empty[1].weight is empty[0].weight
    assert isinstance(empty[1].weight, nn.Parameter)


def test_the_models_dtypes_rule():
    plan = record(lambda: nn.Embedding(40, 30))
    with torch.device("meta"):
        empty = nn.Embedding(40, 30, dtype=torch.bfloat16)
    materialize(empty, plan, SEED)
    assert torch.equal(empty.weight, built(lambda: nn.Embedding(40, 30)).weight.bfloat16())


def test_what_does_not_fit_is_refused_before_anything_changes():
    plan = record(lambda: nn.Linear(4, 3))
    with torch.device("meta"):
        other, longer, fewer = nn.Linear(5, 3), nn.Sequential(nn.Linear(4, 3)), nn.Linear(4, 3, bias=False)
        whole = nn.Linear(4, 3, dtype=torch.complex64)
    for model, message in (
        (other, r"weight must have the shape \(3, 4\), as in the plan\. Received: \(3, 5\)"),
        (longer, r"the plan must have all tensors of the model\. Missing: 0\.weight"),
        (fewer, r"the model must have all tensors of the plan, or partial=True .*Missing: bias \(1 in all\)"),
        (whole, r"weight must have one of the dtypes float16, .*Received: torch\.complex64"),
    ):
        with pytest.raises(ValueError, match=message):
            materialize(model, plan)
        assert all(tensor.is_meta for tensor in model.parameters())


def test_names_that_wrappers_make_are_those_of_the_model():
    def make():
        return nn.Sequential(nn.Linear(4, 3), nn.Tanh())

    plan, wrapped = record(make), torch.compile(make(), backend="eager")
    assert any("_orig_mod" in name for name in tensors(wrapped))
    materialize(wrapped, plan, SEED)
    assert torch.equal(wrapped.get_submodule("_orig_mod.0").weight, built(make)[0].weight)


# --- the twin of torch.nn.init under a recorder ---


def test_the_twins_tell_the_recorder_their_laws():
    class Twins(nn.Module):
        def __init__(self):
            super().__init__()
            for name, fill in {
                "a": lambda w: init.kaiming_normal_(w, nonlinearity="relu"),
                "b": lambda w: init.orthogonal_(w, gain=2),
                "c": lambda w: init.sparse_(w, 0.25),
                "d": lambda w: init.lecun_uniform_(w),
                "e": init.eye_,
                "f": lambda w: init.constant_(w, 0.5),
                "g": lambda w: init.trunc_normal_(w, std=0.5),
            }.items():
                self.register_parameter(name, nn.Parameter(fill(torch.empty(4, 3))))

    plan, model = record(Twins), built(Twins)
    kinds = {name: type(fill.distribution).__name__ for name, fill in plan.items()}
    laws = ("Normal", "Orthogonal", "Sparse", "Uniform", "Eye", "Constant", "TruncatedNormal")
    assert kinds == dict(zip("abcdefg", laws, strict=True))
    assert unlike_the_plan(plan, model, SEED) == []
