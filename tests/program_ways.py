"""Run a constructor program in every way that fills a model."""

import contextlib
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist
from models import bits, tensors
from program_faults import patterns
from programs import Program, build
from safetensors.torch import load_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

import fastinit as fi
from fastinit.torch import fast_init, materialize, record

SEEDS = (0, 1, 2)  # elements that are equal under all of them are taken to be equal by construction
MORE_SEEDS = tuple(range(3, 15))  # where the equal elements differ: accidents of 16 bits and of sums do not last


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
    with noted("record"):
        recorded = plans(program)
    if "record" in results.errors:
        if program.escapes and "branches on random values" in results.errors["record"]:
            del results.errors["record"]
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
