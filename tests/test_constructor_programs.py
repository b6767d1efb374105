"""Random constructors, run in all ways that fill a model: what PyTorch makes equal is equal, and the bits agree.

`pytest -m slow tests/test_constructor_programs.py` runs 200 programs. FASTINIT_PROGRAMS=10000 runs more, other ones
each time; FASTINIT_STATEMENTS="module fill deepcopy" draws these statements only. A failure prints the program and the
call that repeats it.
"""

import contextlib
import os
import shutil
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import bits, tensors
from program_lines import STATEMENTS
from programs import Program, build, programs
from safetensors.torch import load_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

import fastinit as fi
from fastinit.torch import fast_init, materialize, record

SEEDS = (0, 1, 2)  # elements that are equal under all of them are taken to be equal by construction
MORE_SEEDS = tuple(range(3, 15))  # where the equal elements differ: accidents of 16 bits and of sums do not last
NUMBER = int(os.environ.get("FASTINIT_PROGRAMS", "200"))
CHOSEN = os.environ.get("FASTINIT_STATEMENTS", "").split()

pytestmark = pytest.mark.filterwarnings("ignore:DTensor random operators", "ignore:.*non-resizable", "ignore:An output")


# --- the ways ---


@dataclass
class Results:
    """The tensors, by name, that a program's modules have in each way; in lists by seed."""

    program: Program
    plain: list[dict] = field(default_factory=list)
    drawn: list[dict] = field(default_factory=list)  # by fast_init
    recorded: list[dict] = field(default_factory=list)  # record and materialize
    again: dict | None = None  # materialized a second time, with the first seed
    shards: dict | None = None  # materialize on each rank, the shards put together
    sharded: dict | None = None  # the program shards its own tensors, under fast_init
    written: dict | None = None  # a checkpoint; it lacks some names
    errors: dict[str, str] = field(default_factory=dict)  # by the way that raised them


def all_tensors(models):
    """The tensors of several modules: "0.weight" is that of the first."""
    return {f"{number}.{name}": t.detach() for number, model in enumerate(models) for name, t in tensors(model).items()}


def plain(program, seed, mesh=None):
    torch.manual_seed(seed)
    return build(program, mesh)


def drawn(program, seed, mesh=None):
    with fast_init(seed=seed):
        return build(program, mesh)


def plans(program):
    """A plan of each returned module. The others stay alive, as they do in the other ways."""
    found = []
    for number in range(len(program.returned)):
        models = []

        def factory(number=number, models=models):
            models += build(program)
            return models[number]

        found.append(record(factory))
    return found


@contextlib.contextmanager
def rank_of(rank, ranks):
    """A mesh that this process is one rank of. The others do not exist. Meshes of different ranks are not equal."""
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=ranks)
    try:
        yield init_device_mesh("cpu", (ranks,), mesh_dim_names=(f"rank{rank}of{ranks}",))
    finally:
        dist.destroy_process_group()


def together(ranks):
    """The whole tensors, from what each rank has: by name (local tensors, the axis of the shards or None)."""
    found = {}
    for name, tensor in ranks[0].items():
        local, axis = [rank[name][0] for rank in ranks], tensor[1]
        if axis is None:
            assert len({bits(part) for part in local}) == 1, f"{name} is not the same on all ranks"
        found[name] = local[0] if axis is None else torch.cat(local, axis)
    return found


def local(models):
    """What this rank has, by name: the local tensor, and the axis of the shards."""
    found = {}
    for name, tensor in all_tensors(models).items():
        if isinstance(tensor, DTensor):
            (placement,) = tensor.placements
            found[name] = tensor.to_local().clone(), getattr(placement, "dim", None)
        else:
            found[name] = tensor.clone(), None
    return found


def shard_all(model, mesh):
    """Replace every parameter by its shard, the axis by its place among them; ties stay."""
    replaced = {}
    for number, (path, tensor) in enumerate(list(model.named_parameters(remove_duplicate=False))):
        if id(tensor) not in replaced:
            placement = Shard(number % tensor.dim()) if tensor.dim() else Replicate()
            sharded = distribute_tensor(tensor.detach(), mesh, [placement], src_data_rank=None)
            replaced[id(tensor)] = tensor, torch.nn.Parameter(sharded)
        module, _, name = path.rpartition(".")
        setattr(model.get_submodule(module), name, replaced[id(tensor)][1])


def materialized(models, plans, seed):
    """The tensors of models that are filled in place."""
    for model, plan in zip(models, plans, strict=True):
        materialize(model, plan, seed)
    return {name: tensor.clone() for name, tensor in all_tensors(models).items()}


def by_shards(program, plans, seed):
    """Materialize on every rank in turn, on other values than the plan's."""
    ranks = []
    for rank in range(program.ranks):
        with rank_of(rank, program.ranks) as mesh:
            models = plain(program, seed + 100)
            for model, plan in zip(models, plans, strict=True):
                shard_all(model, mesh)
                materialize(model, plan, seed)
            ranks.append(local(models))
    return together(ranks)


def sharding_itself(program, seed):
    """Run a program that shards its tensors on every rank in turn."""
    ranks = []
    for rank in range(program.ranks):
        with rank_of(rank, program.ranks) as mesh:
            ranks.append(local(drawn(program, seed, mesh)))
    return together(ranks)


def is_sound_on_shards(program):
    """Whether PyTorch runs a program that shards its own tensors."""
    try:
        with rank_of(0, program.ranks) as mesh:
            plain(program, 0, mesh)
    except (RuntimeError, ValueError, NotImplementedError):
        return False
    return True


def read_back(plans, seed):
    """Write a checkpoint of each plan that has tensors, and read it."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    found = {}
    for number, plan in enumerate(plans):
        if not len(plan):
            continue
        folder = Path(tempfile.mkdtemp(dir=base))
        try:
            fi.checkpoint.write(plan, folder, seed=seed, fsync=False)
            for file in folder.glob("*.safetensors"):
                found |= {f"{number}.{name}": tensor for name, tensor in load_file(file).items()}
        finally:
            shutil.rmtree(folder)
        names = {f"{number}.{name}" for name, fill in plan.filled.items() if fill.persistent}
        assert names == {name for name in found if name.startswith(f"{number}.")}, "the files lack tensors of the plan"
    return found


# --- what must agree ---


def rows(runs):
    """The values of all elements, a row each, a column for each seed; as the bits of float64 numbers."""
    columns = [np.concatenate([np.ravel(t.double().numpy()) for t in run.values()] or [np.empty(0)]) for run in runs]
    return (np.stack(columns, 1) + 0.0).view(np.int64)


def first_equals(rows):
    """For each element the first one that is equal to it under all seeds."""
    _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return first[inverse.reshape(-1)]


def structure(run):
    """What a constructor must have whatever the random numbers: names, layouts, ties."""
    first = {}
    return [(name, t.dtype, t.shape, t.stride(), first.setdefault(t.data_ptr(), name)) for name, t in run.items()]


def elements(run):
    return [f"{name}{list(map(int, index))}" for name, tensor in run.items() for index in np.ndindex(*tensor.shape)]


def patterns(plain, drawn):
    """How the equal elements and the constants of two ways differ."""
    if structure(plain[0]) != structure(drawn[0]):
        return [f"fast_init: names, layouts or ties differ: {structure(plain[0])}, {structure(drawn[0])}"]
    if not plain[0]:
        return []
    names, theirs, ours = elements(plain[0]), rows(plain), rows(drawn)
    found = []
    expected, actual = first_equals(theirs), first_equals(ours)
    for i in np.flatnonzero(expected != actual)[:1]:
        if (ours[i] != ours[expected[i]]).any():
            found.append(f"fast_init: {names[i]} does not equal {names[expected[i]]}, as it does in PyTorch")
        else:
            found.append(f"fast_init: {names[i]} equals {names[actual[i]]}, unlike in PyTorch")
    constant = (theirs == theirs[:, :1]).all(1)
    for wrong, text in (
        (constant & (ours != theirs).any(1), "is not the constant that it is in PyTorch"),
        (~constant & (ours == ours[:, :1]).all(1), "does not depend on the seed, as it does in PyTorch"),
    ):
        found += [f"fast_init: {names[i]} {text}" for i in np.flatnonzero(wrong)[:1]]
    return found


def unlike(way, run, expected):
    """The first tensor of a way that is not, bit for bit, what `fast_init` makes."""
    if run is None:
        return []
    differing = [name for name, tensor in run.items() if bits(tensor) != bits(expected[name])]
    return [f"{way}: {name} is not what fast_init makes" for name in differing[:1]]


def faults(results):
    """All properties that do not hold. Of equal bits follow equal patterns: these are compared once."""
    found = [f"{way}: {error}" for way, error in results.errors.items()]
    if not results.drawn:
        return found
    found += patterns(results.plain, results.drawn)
    for recorded, expected in zip(results.recorded, results.drawn, strict=False):
        found += unlike("materialize", recorded, expected)
    if results.again is not None:
        found += unlike("materialize again", results.again, results.recorded[-1])
    found += unlike("sharded materialize", results.shards, results.drawn[0])
    found += unlike("sharded fast_init", results.sharded, results.drawn[0])
    return found + unlike("write", results.written, results.drawn[0])


def run(program):
    """Run a program in every way. An exception of a way is a result too."""
    results = Results(program)
    results.plain = [all_tensors(plain(program, seed)) for seed in SEEDS]

    @contextlib.contextmanager
    def noted(way):
        try:
            yield
        except Exception as error:
            results.errors[way] = f"{type(error).__name__}: {error}"

    with noted("fast_init"):
        results.drawn = [all_tensors(drawn(program, seed)) for seed in SEEDS]
        if patterns(results.plain, results.drawn):
            results.plain += [all_tensors(plain(program, seed)) for seed in MORE_SEEDS]
            results.drawn += [all_tensors(drawn(program, seed)) for seed in MORE_SEEDS]
    if program.shards and is_sound_on_shards(program):
        with noted("sharded fast_init"):
            results.sharded = sharding_itself(program, SEEDS[0])
    if program.escapes:
        return results
    with noted("record"):
        recorded = plans(program)
    if "record" in results.errors:
        return results
    with noted("materialize"):
        for seed in SEEDS:
            models = plain(program, seed + 100)
            results.recorded.append(materialized(models, recorded, seed))
        results.again = materialized(models, recorded, SEEDS[-1])
    with noted("sharded materialize"):
        results.shards = by_shards(program, recorded, SEEDS[0])
    with noted("write"):
        results.written = read_back(recorded, SEEDS[0])
    return results


def check(program):
    found = faults(run(program))
    assert not found, "\n".join([*found, "", f"check({program})"])


# --- the tests ---

DRAWN = CHOSEN or STATEMENTS


@pytest.mark.slow
@settings(
    max_examples=NUMBER,
    deadline=None,
    derandomize="FASTINIT_PROGRAMS" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.one_of(programs(DRAWN), programs(DRAWN), programs([*DRAWN, "escape", "escape"])))
def test_a_constructor_means_the_same_in_every_way(program):
    check(program)


# A layer, a copy of it, two tensors that are not equal, a constant.
SOUND = Program(
    (
        "root = nn.Module()",
        "root.m0 = nn.Linear(6, 4)",
        "root.m1 = copy.deepcopy(root.m0)",
        "root.w2 = nn.Parameter(torch.zeros(4))",
        "root.w3 = nn.Parameter(root.m0.bias.detach().clone())",
        "nn.init.normal_(root.w3)",
    )
)


def test_a_sound_program_has_no_faults():
    results = run(SOUND)
    assert faults(results) == []
    assert [len(results.recorded), len(results.written), len(results.shards)] == [3, 6, 6]


def changed(runs, name, change):
    return [{**run, f"0.{name}": change(run)} for run in runs]


@pytest.mark.parametrize(
    ("name", "change", "fault"),
    [
        ("m1.bias", lambda run: run["0.m1.bias"] * 2, "m1.bias[0] does not equal 0.m0.bias[0]"),
        ("w3", lambda run: run["0.m0.bias"].clone(), "m0.bias[0] equals 0.w3[0], unlike in PyTorch"),
        ("w2", lambda run: torch.ones(4), "w2[0] is not the constant"),
        ("w3", lambda run: torch.arange(4.0) + 9, "w3[0] does not depend on the seed"),
        ("w3", lambda run: run["0.w3"].double(), "names, layouts or ties differ"),
        ("w3", lambda run: run["0.w2"], "names, layouts or ties differ"),
    ],
)
def test_other_patterns_are_found(name, change, fault):
    results = run(SOUND)
    found = faults(replace(results, drawn=changed(results.drawn, name, change)))
    assert any(text.startswith("fast_init: ") and fault in text for text in found), found


@pytest.mark.parametrize("way", ["recorded", "again", "shards", "sharded", "written"])
def test_other_bits_are_found(way):
    results = run(SOUND)
    run_of_way = results.drawn[0] if way == "sharded" else getattr(results, way)
    one = isinstance(run_of_way, dict)

    def next_number(run):
        return torch.nextafter(run["0.w3"], torch.full((4,), 9.0))

    runs = changed([run_of_way] if one else run_of_way, "w3", next_number)
    texts = {"recorded": "materialize", "again": "materialize again", "written": "write"}
    text = texts.get(way, "sharded materialize" if way == "shards" else "sharded fast_init")
    assert f"{text}: 0.w3 is not what fast_init makes" in faults(replace(results, **{way: runs[0] if one else runs}))


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (("float(root.w0.sum())",), "record: ValueError: cannot record"),  # not marked as one that reads
        (("root.w1 = nn.Parameter(root.w0.detach()[1:])",), "record: ValueError: w1 and w0 share part"),
    ],
)
def test_what_a_way_raises_is_a_fault(lines, fault):
    first = ("root = nn.Module()", "root.w0 = nn.Parameter(torch.randn(4, 6))")
    assert any(text.startswith(fault) for text in faults(run(Program((*first, *lines)))))


def test_a_program_is_shown_as_code_that_runs():
    assert eval(str(SOUND)) == SOUND


@settings(max_examples=30, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(programs([*STATEMENTS, "escape"]))
def test_programs_run_again_as_they_were_written(program):
    """Two runs with one seed are equal, and no line is refused."""
    once, again = all_tensors(plain(program, 0)), all_tensors(plain(program, 0))
    assert {name: bits(tensor) for name, tensor in once.items()} == {n: bits(t) for n, t in again.items()}
