"""What PyTorch makes equal is equal, and nothing else: copies inside `fast_init`, and in the plans of `record`."""

import copy
import math

import numpy as np
import pytest
import torch
from models import bits, differing, tensors, unlike_the_plan
from torch import nn
from torch.nn.utils import parametrizations

import fastinit as fi
from fastinit._core.composite import Cast, Patched, SameAs
from fastinit.torch import fast_init, materialize, record

SEED = fi.Key(3)


def holder(**named):
    module = nn.Module()
    for name, tensor in named.items():
        module.register_parameter(name, nn.Parameter(tensor, requires_grad=tensor.is_floating_point()))
    return module


def pair(make):
    """A module that holds an original and what is made of it, in this order."""
    original = torch.randn(6, 8)
    return holder(a=original, b=make(original))


def checked(factory):
    """The model that `fast_init` builds; a plan of the same code fills another one alike, whole and by region."""
    with fast_init(seed=SEED):
        model = factory()
    plan = record(factory)
    assert unlike_the_plan(plan, model, SEED) == []
    assert differing(materialize(factory(), plan, SEED), model) == []
    for name, tensor in tensors(model).items():
        if tensor.ndim:
            rows = np.empty((len(tensor[1::2]), *tensor.shape[1:]), plan.of(name).dtype)
            plan.of(name).fill(rows, SEED, (slice(1, None, 2),))
            assert rows.tobytes() == bits(tensor[1::2])
    return model, plan


# --- one copy ---

COPIES = {
    "clone": lambda a: a.clone(),
    "transposed": lambda a: a.t().contiguous(),
    "transposed in place": lambda a: torch.empty(8, 6).copy_(a.t()),
    "into a transposed tensor": lambda a: torch.empty(8, 6).t().copy_(a),
    "reshaped": lambda a: a.clone().view(4, 12),
    "rows": lambda a: a[1:5].clone(),
    "every other row and column": lambda a: a[::2, 1::3].clone(),
    "a diagonal": lambda a: a.diagonal().clone(),
    "expanded": lambda a: a[2].expand(5, 8).clone(),
    "repeated": lambda a: a.repeat(2, 3),
    "joined": lambda a: torch.cat([a[3:], a[:3]]),
    "stacked": lambda a: torch.stack([a, a], dim=1),
    "into a slice": lambda a: torch.zeros(9, 9).narrow(0, 1, 6).narrow(1, 1, 8).copy_(a),
    "a copy of a copy": lambda a: a.t().clone()[2:].clone().t().clone(),
    "half and back": lambda a: a.half().float(),
    "wide": lambda a: a.double(),
    "wide, narrow": lambda a: a.double().bfloat16(),
    "deepcopy": copy.deepcopy,
    "swapped": lambda a: torch.cat([a[:3].clone(), a[3:].clone()]).copy_(a.flip(0)),
}


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_is_a_copy(name):
    model, _ = checked(lambda: pair(COPIES[name]))
    assert torch.equal(model.b, COPIES[name](model.a.detach()))
    assert bits(model.a) == fi.normal((6, 8), seed=SEED / "a").tobytes()


@pytest.mark.parametrize("name", [name for name in COPIES if name != "swapped"])
def test_a_copy_without_its_original_has_its_own_name(name):
    model, plan = checked(lambda: holder(b=COPIES[name](torch.randn(6, 8))))
    assert model.b.unique().numel() > 1
    whole = fi.normal(tuple(model.b.shape), seed=SEED / "b")
    if name in ("clone", "transposed", "transposed in place", "into a transposed tensor", "rows", "a copy of a copy"):
        assert plan["b"].distribution == fi.Normal()  # of independent elements any order is as good
        assert bits(model.b) == whole.tobytes()
    if name in ("half and back", "wide"):
        assert plan["b"].distribution == Cast(fi.Normal(), "float16" if name == "half and back" else "float32")


def test_one_16_bit_dtype_into_the_other_has_the_digits_of_the_first():
    model, plan = checked(lambda: holder(b=torch.randn(500, dtype=torch.bfloat16).half()))
    assert torch.equal(model.b, model.b.bfloat16().half())
    assert plan["b"].distribution == Cast(fi.Normal(), "bfloat16")


def test_parts_that_were_drawn_apart_are_copied_apart():
    def build():
        a = torch.randn(6, 8)
        a[1] = 0
        nn.init.orthogonal_(a[3:5])
        a[5].uniform_(1, 2)
        return holder(a=a, b=a.clone(), c=a.t().clone(), d=a[2:].clone(), e=a[:, 3:6].clone())

    model, plan = checked(build)
    for name, expected in {"b": model.a, "c": model.a.t(), "d": model.a[2:], "e": model.a[:, 3:6]}.items():
        assert torch.equal(getattr(model, name), expected), name
    assert isinstance(plan["a"].distribution, Patched)


def test_a_split_projection_keeps_its_values_in_each_part():
    def build():
        fused = torch.empty(12, 4).normal_(0, 0.02)
        return holder(**dict(zip("qkv", (part.clone() for part in fused.chunk(3)), strict=True)))

    model, plan = checked(build)
    for name in "qkv":
        assert plan[name].distribution == fi.Normal(0, 0.02)
        assert bits(getattr(model, name)) == fi.normal((4, 4), std=0.02, seed=SEED / name).tobytes()


def test_a_fused_projection_of_parts_is_the_parts():
    def build():
        parts = [nn.init.xavier_uniform_(torch.empty(4, 4)) for _ in range(3)]
        return holder(q=parts[0], k=parts[1], v=parts[2], fused=torch.cat(parts))

    model, _ = checked(build)
    assert torch.equal(model.fused, torch.cat([model.q, model.k, model.v]))


def test_what_is_drawn_again_after_it_was_copied_is_no_copy():
    def build():
        a = torch.randn(6, 8)
        b = a.clone()
        a[:2].normal_()
        b[4:].normal_()
        return holder(a=a, b=b)

    model, _ = checked(build)
    same = model.a == model.b
    assert same[2:4].all()
    assert not same[:2].any()
    assert not same[4:].any()


def test_a_tensor_that_takes_the_values_of_another_is_that_other():
    def build():
        a, b = torch.randn(6, 8), torch.randn(6, 8)
        kept = a.clone()
        torch._foreach_copy_([a], [b])
        return holder(a=a, b=b, kept=kept)

    model, _ = checked(build)
    assert torch.equal(model.a, model.b)
    assert not (model.a == model.kept).any()


def test_bounds_that_a_rounded_copy_reaches_stay_in_it():
    """A uniform draw in bfloat16 never has its upper bound, a rounded one may."""

    def build():
        a = torch.rand(1 << 16)
        return holder(a=a, b=a.bfloat16())

    model, _ = checked(build)
    assert torch.equal(model.b, model.a.bfloat16())
    assert model.b.max() == 1


# --- modules ---


class Student(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.body = nn.Embedding(7, 6, padding_idx=2), nn.GRU(6, 6)
        for name, weight in self.body.named_parameters():
            if "weight" in name:
                for gate in weight.chunk(3):
                    nn.init.orthogonal_(gate)
        self.head = nn.Linear(6, 7, bias=False)
        self.head.weight = self.embed.weight


class Distil(nn.Module):
    def __init__(self):
        super().__init__()
        self.student = Student()
        self.teacher = copy.deepcopy(self.student)
        self.average = torch.optim.swa_utils.AveragedModel(self.student)


def test_deep_copies_and_averages_start_as_their_originals():
    model, _ = checked(Distil)
    assert differing(model.teacher, model.student) == []
    assert differing(model.average.module, model.student) == []
    assert model.teacher.head.weight is model.teacher.embed.weight
    assert model.teacher.embed.weight[2].eq(0).all()


@pytest.mark.parametrize("assign", [False, True])
def test_a_target_network_of_the_block(assign):
    with fast_init(seed=SEED):
        online, target, third = Student(), Student(), Student()
        target.load_state_dict(online.state_dict(), assign=assign)
    assert differing(online, target) == []
    assert "body.weight_hh_l0" in differing(online, third)
    assert bits(online.head.weight[3]) == fi.normal((7, 6), seed=SEED / "embed.weight")[3].tobytes()


def test_a_copy_of_what_was_read_is_a_copy():
    def build():
        layer = nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8))
        return nn.ModuleList([layer, copy.deepcopy(layer)])

    model, _ = checked(build)
    assert differing(model[0], model[1]) == []
    assert bits(model[0].bias) == fi.uniform((8,), low=-(8**-0.5), high=8**-0.5, seed=SEED / "0.bias").tobytes()


def test_a_block_inside_a_recording_changes_nothing():
    def build():
        with fast_init(seed=7) as key:
            assert key == fi.Key(7)
            return Distil()

    model = materialize(Distil(), record(build), SEED)
    with fast_init(seed=SEED):
        expected = Distil()
    assert differing(model, expected) == []


# --- what is read before the end ---


def test_what_is_read_has_its_name_in_the_end():
    def build():
        a = torch.randn(6, 8)
        return holder(a=a, norm=a.norm(dim=1), unit=a / a.norm(), rolled=a.roll(2, 0), picked=a[torch.tensor([4, 1])])

    model, plan = checked(build)
    a = fi.normal((6, 8), seed=SEED / "a")
    assert bits(model.a) == a.tobytes()
    assert plan["a"].distribution == fi.Normal()
    expected = build_of(torch.from_numpy(a))
    assert all(torch.equal(getattr(model, name), value) for name, value in expected.items())


def build_of(a):
    return {"norm": a.norm(dim=1), "unit": a / a.norm(), "rolled": a.roll(2, 0), "picked": a[torch.tensor([4, 1])]}


def test_what_is_changed_by_what_was_read_has_its_name_too():
    def build():
        layer = nn.Linear(6, 6)
        with torch.no_grad():
            layer.weight.div_(torch.linalg.matrix_norm(layer.weight, 2))
        return layer

    model, _ = checked(build)
    weight = torch.from_numpy(fi.uniform((6, 6), low=-(6**-0.5), high=6**-0.5, seed=SEED / "weight"))
    assert torch.allclose(model.weight, weight / torch.linalg.matrix_norm(weight, 2))


def test_numbers_that_leave_keep_their_draws():
    with fast_init(seed=SEED):
        a = nn.Linear(6, 6)
        seen = float(a.weight.detach().sum())
        unseen = a.weight.detach().sum()
    assert float(a.weight.detach().sum()) == seen == unseen
    assert bits(a.weight) != fi.uniform((6, 6), low=-(6**-0.5), high=6**-0.5, seed=SEED / "weight").tobytes()


def test_memory_that_others_write_is_theirs():
    with fast_init(seed=SEED):
        a = nn.Linear(6, 6)
        total = a.weight.sum()
        a.weight.detach().numpy()[0] = 5
        copied = a.weight.detach().clone()
    assert a.weight[0].eq(5).all()
    assert torch.equal(copied, a.weight)
    assert not torch.equal(total, a.weight.sum())


def test_a_decision_stands():
    """Code that draws until a condition holds finds it to hold in the end."""
    with fast_init(seed=SEED):
        layer, tries = nn.Linear(2, 2, bias=False), 0
        while not bool(layer.weight.sum() > 0.9):
            nn.init.normal_(layer.weight)
            tries += 1
    assert tries > 0
    assert layer.weight.sum() > 0.9


def test_an_answer_that_a_rare_seed_changes_is_refused_by_the_plan():
    def build():
        a = torch.randn(4)
        return holder(a=a, b=a.sqrt() if bool(a[0] > 2.2) else a.abs().sqrt())

    plan, refused = record(build), 0
    for seed in range(400):
        try:
            materialize(build(), plan, seed)
        except ValueError as error:
            assert "branches in another way" in str(error)  # noqa: PT017
            refused += 1
    assert 1 < refused < 15  # 1.4 %


# What a constructor learns from `w`, 60 numbers of U(-0.4, 0.4), and whether it is the same for all seeds.
FACTS = {
    "assert w.std() < 1": True,
    "assert torch.isfinite(w).all()": True,
    "assert torch.equal(w, w.clone())": True,
    "assert torch.allclose(w.exp().log(), w, atol=1e-5)": True,
    "assert w.isnan().sum().item() == 0": True,
    "assert w.isfinite().float().mean().item() == 1": True,
    "assert int(torch.count_nonzero(w)) == 60": True,
    "assert int(torch.linalg.matrix_rank(w)) == 6": True,
    "assert math.isnan(torch.log(w.abs().sum() - 1000))": True,
    "assert (w.abs() > 1).sum(1).tolist() == [0] * 10": True,
    "assert len(w.nonzero()) == 60": True,
    "assert w[w.abs() < 1].shape == (60,)": True,
    "assert 0 not in w": True,
    "if w[0, 0] > 0: w.neg_()": False,
    "while w.mean() < 0: w.uniform_(-0.4, 0.4)": False,
    "n = int(w.sum() * 100)": False,
    "assert w.abs().max().item() < 10": False,
    "w.div_(float(w.std()))": False,
    "n = w.argmax().item()": False,
    "rows = w.tolist()": False,
    "n = len(w[w > 0])": False,
    "n = w.unique(return_counts=True)[1].tolist() if (w > 0.39).any() else w.sum(1).nonzero()": False,
    "w.div_(1 + int((w > 0).sum()))": False,
    "assert w.numpy().max() < 1": False,
    "while abs(w.std() - 0.1) > 1e-3: w.mul_(0.1 / w.std().item())": False,
}


@pytest.mark.parametrize("line", FACTS)
def test_what_a_constructor_learns_is_recorded_where_it_does_not_depend_on_the_seed(line):
    def build():
        w = torch.empty(10, 6).uniform_(-0.4, 0.4)
        exec(line, {"w": w, "torch": torch, "math": math})
        return holder(a=nn.Linear(2, 2).weight.detach(), w=w, scaled=w / w.norm())

    if not FACTS[line]:
        with pytest.raises(ValueError, match=r"cannot record .* branches on random values \(in .*Use fast_init"):
            record(build)
        return
    plan = record(build)
    assert isinstance(plan["w"].distribution, fi.Uniform)
    for seed in range(3):
        with fast_init(seed=seed):
            model = build()
        assert differing(model, materialize(build(), plan, seed)) == []
        assert bits(model.w) == fi.uniform((10, 6), low=-0.4, high=0.4, seed=fi.Key(seed) / "w").tobytes()


PARAMETRISED = {
    "orthogonal": lambda: parametrizations.orthogonal(nn.Linear(5, 5)),
    "orthogonal, tall": lambda: parametrizations.orthogonal(nn.Linear(3, 5)),
    "orthogonal, wide": lambda: parametrizations.orthogonal(nn.Linear(5, 3), orthogonal_map="householder"),
    "orthogonal, Cayley": lambda: parametrizations.orthogonal(nn.Linear(5, 5), orthogonal_map="cayley"),
    "orthogonal, of one": lambda: parametrizations.orthogonal(orthogonal_layer(), use_trivialization=False),
    "spectral": lambda: parametrizations.spectral_norm(nn.Linear(5, 3)),
    "weight": lambda: parametrizations.weight_norm(nn.Linear(5, 3)),
    "twice": lambda: parametrizations.spectral_norm(parametrizations.orthogonal(nn.Linear(5, 5))),
}


def orthogonal_layer():
    layer = nn.Linear(5, 4)
    nn.init.orthogonal_(layer.weight)
    return layer


@pytest.mark.parametrize("name", PARAMETRISED)
def test_torchs_parametrisations_are_recorded(name):
    build = PARAMETRISED[name]
    plan = record(build)
    for seed in range(3):
        with fast_init(seed=seed):
            model = build()
        other = materialize(build(), plan, seed)
        assert differing(model, other) == []
        assert torch.equal(model.weight, other.weight)


def test_numbers_that_differ_keep_the_draws_behind_them_alone():
    """A block with many of them repeats what it computed once or twice, not once for each."""
    with fast_init(seed=SEED):
        layers = nn.ModuleList(nn.Linear(4, 4, bias=False) for _ in range(300))
        seen = [layer.weight.norm().item() for layer in layers[:299]]
        count = layers[299].weight.count_nonzero().item()
    assert seen == [layer.weight.norm().item() for layer in layers[:299]]
    assert count == 16
    assert bits(layers[299].weight) == fi.uniform((4, 4), low=-0.5, high=0.5, seed=SEED / "299.weight").tobytes()


def test_nothing_is_repeated_for_each_number(monkeypatch):
    from fastinit.torch._record import calls

    runs = []
    replayed = calls.replayed
    monkeypatch.setattr(calls, "replayed", lambda *args: runs.append(1) or replayed(*args))
    with fast_init(seed=SEED):
        layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(50))
        for layer in layers:
            layer.weight.norm().item()
    assert len(runs) < 4


def test_a_block_keeps_little_to_compute_again(monkeypatch):
    """From a limit on, the names of the moment count, and what was kept is let go."""
    from fastinit.torch._record.recorder import Recorder

    monkeypatch.setattr(Recorder, "limit", 1000)
    with fast_init(seed=SEED):
        layer = nn.Linear(6, 6)
        norms = [layer.weight.norm() for _ in range(40)]
    assert all(torch.equal(norm, layer.weight.norm()) for norm in norms)
    assert bits(layer.weight) == fi.uniform((6, 6), low=-(6**-0.5), high=6**-0.5, seed=SEED / "weight").tobytes()


# --- what others do inside a block ---


def test_running_statistics_are_those_of_the_weights():
    """The operator behind batch norm writes to them without saying so."""

    def build():
        model = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7))
        model(torch.eye(5))
        return model

    model, _ = checked(build)
    assert torch.allclose(model[1].running_mean, 0.1 * model[0](torch.eye(5)).mean(0))
    assert model[1].num_batches_tracked == 1


def test_what_materialize_fills_in_a_block_stays():
    def build():
        return nn.Linear(3, 2)

    plan = record(build)
    with fast_init(seed=0):
        model, other = build(), build()
        total = model.weight.sum()
        materialize(model, plan, 4)
        early = model.weight.tolist()
        copied = model.weight.detach().clone()
    expected = materialize(build(), plan, 4)
    assert differing(model, expected) == []
    assert model.weight.tolist() == early == copied.tolist()
    assert "weight" in differing(model, other)
    assert not torch.equal(total, model.weight.sum())


def test_scaling_is_torchs_where_the_unscaled_values_stay():
    def build():
        online, target = nn.Linear(50, 70), nn.Linear(50, 70)
        target.load_state_dict(online.state_dict())
        unscaled = online.weight.detach().clone()
        online.weight.data.mul_(0.9)
        target.weight.data.mul_(torch.tensor(0.9))
        return nn.ModuleList([online, target, holder(unscaled=unscaled, again=unscaled * 0.9)])

    model, _ = checked(build)
    assert torch.equal(model[0].weight, model[1].weight)
    assert torch.equal(model[0].weight, model[2].unscaled * 0.9)
    with fast_init(seed=SEED):
        layer = nn.Linear(50, 70)
        scaled = layer.weight * 0.9
    assert torch.equal(scaled, layer.weight * 0.9)


def test_graphs_go_on_after_the_block():
    with fast_init(seed=SEED):
        layer = nn.Linear(6, 6)
        squares = layer.weight * layer.weight
        parts = layer.weight.chunk(3)
    squares.sum().backward()
    assert torch.equal(layer.weight.grad, 2 * layer.weight)
    parts[0].sum().backward()
    assert torch.equal(squares, layer.weight**2)


def test_modules_are_exported_inside_a_block():
    with fast_init(seed=SEED):
        layer = nn.Linear(3, 2)
        exported = torch.export.export(layer, (torch.ones(1, 3),))
    assert torch.equal(exported.module()(torch.ones(1, 3)), layer(torch.ones(1, 3)))


def test_conjugates_are_computed_again():
    def build():
        a = torch.randn(3, dtype=torch.cfloat)
        module = nn.Module()
        module.a, module.b = nn.Parameter(a), nn.Parameter(a.conj().clone())
        return module

    with fast_init(seed=SEED):
        model = build()
    again = materialize(build(), record(build), SEED)
    assert torch.equal(again.b, again.a.conj())
    assert torch.equal(again.b, model.b)


# --- seeds ---


def test_without_a_seed_torchs_generator_decides():
    def build():
        with fast_init() as key:
            return nn.Linear(5, 4), key

    torch.manual_seed(1)
    (first, one), (second, _) = build(), build()
    torch.manual_seed(1)
    again, same = build()
    assert differing(first, second) == ["weight", "bias"]
    assert differing(first, again) == []
    assert one == same
    with fast_init(seed=one.seed):
        assert differing(nn.Linear(5, 4), first) == ["weight", "bias"]  # not yet filled
        later = nn.Linear(5, 4)
    torch.manual_seed(1)
    word = torch.empty((), dtype=torch.int64).random_(-(1 << 63), None).item() % (1 << 64)
    assert one.seed == word
    del later


def test_a_plan_has_its_own_seed():
    plan = record(lambda: nn.Linear(5, 4))
    assert plan.seed == 0
    own = materialize(nn.Linear(5, 4), plan.with_seed(5))
    assert differing(own, materialize(nn.Linear(5, 4), plan, 5)) == []
    assert differing(own, materialize(nn.Linear(5, 4), plan)) == ["weight", "bias"]


# --- parts of a model ---


class Whole(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(8, 6)
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(4))
        self.head = nn.Linear(6, 8, bias=False)
        self.head.weight = self.embed.weight


def test_stages_of_a_pipeline_are_parts_of_the_model():
    plan = record(Whole)
    with fast_init(seed=SEED):
        whole = Whole()
    with torch.device("meta"):
        stage = Whole()
    del stage.embed, stage.layers[0:2]
    stage.layers = nn.ModuleDict({"2": stage.layers[0], "3": stage.layers[1]})
    with pytest.raises(ValueError, match="all tensors of the plan, or partial=True"):
        materialize(stage, plan, SEED)
    materialize(stage, plan, SEED, partial=True)
    for name, tensor in tensors(stage).items():  # the head has the values of the embedding, which is elsewhere
        assert torch.equal(tensor, tensors(whole)[name]), name


def test_a_part_under_a_prefix():
    plan = record(Whole)
    with fast_init(seed=SEED):
        whole = Whole()
    part = materialize(nn.Linear(6, 6), plan, SEED, prefix="layers.1.")
    assert differing(part, whole.layers[1]) == []
    with pytest.raises(ValueError, match=r"Missing: layers\.9\.weight"):
        materialize(nn.Linear(6, 6), plan, SEED, prefix="layers.9.")
    with pytest.raises(ValueError, match=r"Missing: layers\.1\.bias \(1 in all\)"):
        materialize(nn.Linear(6, 6, bias=False), plan, SEED, prefix="layers.1.")


def test_a_fill_has_one_key_whatever_it_is_called():
    plan, out = record(Whole), np.empty((8, 6), np.float32)
    plan.of("head.weight").fill(out, SEED)
    assert (out == fi.normal((8, 6), seed=SEED / "embed.weight")).all()
    with pytest.raises(ValueError, match="key must be the plan's, without the tensor's name"):
        plan.of("head.weight").fill(out, SEED / "embed.weight")
    with pytest.raises(ValueError, match="name is not known: take the Fill out of a Plan"):
        fi.Fill((8, 6), "float32", "normal").fill(out, SEED)


def test_modules_from_outside_have_their_names():
    outside = Whole()
    with fast_init(seed=SEED):
        for layer in outside.layers:
            nn.init.trunc_normal_(layer.weight, std=0.02)
    expected = fi.normal((6, 6), std=0.02, seed=SEED / "layers.3.weight")  # bounds at 100 sigma
    assert bits(outside.layers[3].weight) == expected.tobytes()


def test_layers_that_are_put_into_a_model_from_outside_have_its_names():
    outside = Whole()
    with fast_init(seed=SEED):
        outside.layers.append(nn.Linear(6, 6))
        outside.value = nn.Linear(6, 1)
    bound = 6**-0.5
    for name in ("layers.4.weight", "value.weight"):
        expected = fi.uniform(tuple(tensors(outside)[name].shape), low=-bound, high=bound, seed=SEED / name)
        assert bits(tensors(outside)[name]) == expected.tobytes(), name


def test_the_form_of_a_copy_in_a_plan():
    plan = record(lambda: pair(lambda a: a[2:4].t().contiguous()))
    assert plan["b"].distribution == SameAs(("a",), fi.Normal(), (6, 8), 16, (1, 8))
    table = plan.to_table()["tensors"]["b"]
    assert table["same_as"] == ["a"]
    assert (table["of_shape"], table["offset"], table["strides"]) == ([6, 8], 16, [1, 8])
    assert fi.Plan.from_table(plan.to_table())["b"].distribution == plan["b"].distribution
