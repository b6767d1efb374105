"""One rank of a job: `torchrun --standalone --nproc_per_node=N tests/sharded.py`. Every rank fills its shards of a
model; what the shards make together must be, bit for bit, what one process makes.

`python tests/sharded.py FILE` is a quick run of two ranks without torchrun: one process imports all and forks. The
ranks meet at the file, which must not be there.
"""

import copy
import itertools
import os
import sys

import pytest
import torch
import torch.distributed as dist
from models import Everything, bits, tensors
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import fastinit as fi
from fastinit.torch import fast_init, materialize, record


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(10)
        self.up, self.down = nn.Linear(10, 31), nn.Linear(31, 10)

    def forward(self, x):
        return x + self.down(torch.relu(self.up(self.norm(x))))


class Tied(nn.Module):
    """Sizes that nothing divides, an embedding with padding, its weight tied to the head, a buffer of angles."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(37, 10, padding_idx=5)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(10, 37, bias=False)
        self.head.weight = self.embed.weight
        nn.init.orthogonal_(self.blocks[0].down.weight)
        self.register_buffer("angles", torch.arange(10) / 10, persistent=False)

    def forward(self, x):
        x = self.embed(x) + self.angles
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Titan(nn.Module):
    """A model that is filled after it was sharded: on the meta device, `fully_shard`, `to_empty`, `init_weights`."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(10, 7), nn.Linear(7, 1)
        self.square = nn.Parameter(torch.empty(5, 5))

    def init_weights(self):
        for layer in (self.up, self.down):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.uniform_(layer.bias)
        nn.init.orthogonal_(self.square)


class Distil(nn.Module):
    """A student that is going to be sharded, and its copy."""

    def __init__(self):
        super().__init__()
        self.student = Tied()
        self.teacher = copy.deepcopy(self.student)


def inside_a_block(mesh):
    """Models that are built and sharded in one block, in several ways: the values are those without sharding."""
    with fast_init(seed=5):
        whole = Titan()
        whole.init_weights()
    with torch.device("meta"):
        model = Titan()
    fully_shard(model, mesh=mesh)
    model.to_empty(device="cpu")
    generator = torch.get_rng_state()
    with fast_init(seed=5):
        model.init_weights()
    assert torch.equal(torch.get_rng_state(), generator)
    check(model, tensors(whole))

    def build(ways):
        with fast_init(seed=5):
            model = Distil()
            for shard in ways:
                shard(model)
        return model

    expected = tensors(build([]))
    plan = {"blocks.0.up": ColwiseParallel(), "blocks.0.down": RowwiseParallel(), "head": ColwiseParallel()}
    for ways in (
        [lambda m: fully_shard(m, mesh=mesh)],
        [lambda m: fully_shard(m.student, mesh=mesh)],
        [lambda m: fully_shard(m.teacher, mesh=mesh)],
        [lambda m: parallelize_module(m.student, mesh, plan)],
        [lambda m: parallelize_module(m.teacher, mesh, plan), lambda m: fully_shard(m.student, mesh=mesh)],
    ):
        check(build(ways), expected)

    with fast_init(seed=5), pytest.raises(ValueError, match="cannot draw into a sharded tensor inside fast_init"):
        model.up.weight.detach().bernoulli_(0.5)
    with pytest.raises(ValueError, match="seed must be the same on all ranks"), fast_init(seed=dist.get_rank()):
        parallelize_module(nn.Linear(6, 6), mesh, ColwiseParallel())
    with pytest.raises(ValueError, match=r"student\..* is sharded: record the model before it is sharded"):
        record(lambda: fully_shard(Distil(), mesh=mesh))


def assembled(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def check(model, expected):
    for name, tensor in tensors(model).items():
        assert bits(assembled(tensor)) == bits(expected[name]), f"{name}: {getattr(tensor, 'placements', None)}"


def placements_of_one_tensor(meshes):
    """Every tensor of every kind under every pair of placements that it can have."""
    plan, seed = record(Everything), fi.Key(3)
    with fast_init(seed=seed):
        expected = tensors(Everything())
    ways, cases = (Replicate(), Shard(0), Shard(1)), 0
    for mesh, (name, fill) in itertools.product(meshes, plan.filled.items()):
        for placements in itertools.product(ways, repeat=mesh.ndim):
            if any(isinstance(p, Shard) and p.dim >= len(fill.shape) for p in placements):
                continue
            tensor = distribute_tensor(torch.zeros_like(expected[name]), mesh, placements, src_data_rank=None)
            module = nn.Module()
            module.register_buffer("tensor", tensor)
            materialize(module, fi.Plan({"tensor": plan[name]}), seed)  # another name: compared with the fill below
            whole = torch.zeros_like(expected[name])
            plain = nn.Module()
            plain.register_buffer("tensor", whole)
            materialize(plain, fi.Plan({"tensor": plan[name]}), seed)
            theirs = distribute_tensor(whole, mesh, placements, src_data_rank=None)
            assert bits(tensor.to_local()) == bits(theirs.to_local()), (name, placements)
            cases += 1
    return cases


def sharded():
    """Record a model with ties and materialize it sharded; return the plan, the whole model and the shards."""
    plan = record(Tied)
    with fast_init(seed=5):
        reference = Tied()
    with torch.device("meta"):
        model = Tied()
    for block in model.blocks:
        fully_shard(block)
    fully_shard(model)
    assert materialize(model, plan, seed=5) is model
    assert model.head.weight is model.embed.weight
    return plan, reference, model


def quick(file):
    """FSDP2 on two ranks: one layer, and a model with ties, filled and gathered again."""
    rank = 1 if os.fork() == 0 else 0
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    _, reference, model = sharded()
    expected = tensors(reference)
    assert {type(p).__name__ for tensor in model.parameters() for p in tensor.placements} == {"Shard"}
    check(model, expected)
    inside_a_block(init_device_mesh("cpu", (2,)))
    dist.barrier()
    dist.destroy_process_group()
    if rank == 1:
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
    print(f"2 ranks, {len(expected)} tensors: the same bits")


def main():
    dist.init_process_group("gloo")
    ranks = dist.get_world_size()
    plan, reference, model = sharded()
    expected = tensors(reference)
    check(model, expected)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    words = torch.arange(12).view(2, 6) + dist.get_rank()
    loss, theirs = model(words).logsumexp(-1).mean(), reference(words).logsumexp(-1).mean()
    assert torch.allclose(loss, theirs)
    loss.backward()
    optimizer.step()
    assert not torch.equal(model.embed.weight.full_tensor(), reference.embed.weight)
    assert model.head.weight is model.embed.weight

    meshes = [init_device_mesh("cpu", (ranks,))]
    if ranks % 2 == 0:
        mesh = init_device_mesh("cpu", (ranks // 2, 2), mesh_dim_names=("dp", "tp"))
        meshes.append(mesh)
    if ranks % 2 == 0 and torch.__version__ >= (2, 8):  # before, FSDP2 cuts parallelised layers into even shards only
        with torch.device("meta"):
            model = Tied()
        for block in model.blocks:
            parallelize_module(block, mesh["tp"], {"up": ColwiseParallel(), "down": RowwiseParallel()})
            fully_shard(block, mesh=mesh["dp"])
        fully_shard(model, mesh=mesh["dp"])
        materialize(model, plan, seed=5)
        check(model, expected)
        with fast_init(seed=5):  # sharded twice, in the block
            model = Tied()
            for block in model.blocks:
                parallelize_module(block, mesh["tp"], {"up": ColwiseParallel(), "down": RowwiseParallel()})
                fully_shard(block, mesh=mesh["dp"])
            fully_shard(model, mesh=mesh["dp"])
        check(model, expected)
        kinds = {type(p).__name__ for tensor in model.parameters() for p in tensor.placements}
        assert kinds >= {"_StridedShard", "Shard"}, kinds
    inside_a_block(meshes[0])
    cases = placements_of_one_tensor(meshes)

    partial = nn.Module()
    partial.register_buffer("tensor", DTensor.from_local(torch.zeros(3), meshes[0], [Partial()], run_check=False))
    with pytest.raises(ValueError, match="tensor must be sharded or replicated"):
        materialize(partial, fi.Plan({"tensor": ((3,), "float32", "normal")}))
    dist.barrier()
    if dist.get_rank() == 0:
        print(f"{ranks} ranks, {len(expected)} tensors, {cases} placements: the same bits")
    dist.destroy_process_group()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        quick(sys.argv[1])
    else:
        main()
