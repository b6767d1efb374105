"""Which part of a sharded tensor (a DTensor) this rank has."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import torch

from fastinit._runtime.arrays import Array, Region


def is_sharded(tensor: object) -> bool:
    """Whether a tensor is a DTensor, sharded or replicated."""
    return hasattr(tensor, "placements") and hasattr(tensor, "device_mesh")


def placements_of(tensor: Any) -> tuple[Any, ...]:
    """How a DTensor lies on its mesh; nothing for other tensors."""
    return tuple(getattr(tensor, "placements", ()))


def local_parts(tensor: Any) -> list[tuple[torch.Tensor, Region]]:
    """The parts of a tensor that this rank has, and which regions of the whole they are; () is all of it."""
    if not is_sharded(tensor):
        return [(tensor, ())]
    with torch.no_grad():
        local = tensor.to_local()
    if not local.numel():
        return [(local, (slice(0, 0, 1),) * tensor.dim())]
    axes = [_runs(size, axis, tensor.device_mesh, tensor.placements) for axis, size in enumerate(tensor.shape)]
    found = []
    for combination in itertools.product(*axes):
        place: tuple[Any, ...] = (*(part for part, _ in combination), ...)
        found.append((local[place], tuple(region for _, region in combination)))
    return found


@functools.lru_cache(maxsize=4096)
def _runs(size: int, axis: int, mesh: Any, placements: tuple[Any, ...]) -> list[tuple[slice, slice]]:
    """The runs of consecutive indices along an axis that this rank has: (in the local tensor, in the whole)."""
    indices = _indices(size, axis, mesh, placements)
    if not len(indices):
        return []
    breaks = [0, *(np.flatnonzero(np.diff(indices) != 1) + 1).tolist(), len(indices)]
    return [
        (slice(first, last), slice(int(indices[first]), int(indices[first]) + last - first, 1))
        for first, last in itertools.pairwise(breaks)
    ]


def _indices(size: int, axis: int, mesh: Any, placements: tuple[Any, ...]) -> Array:
    """The global indices along an axis that this rank has: torch shards a list of them as it shards the axis."""
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    def along(placement: Any) -> Any:
        if getattr(placement, "dim", None) != axis:
            return Replicate()
        if hasattr(placement, "split_factor"):  # _StridedShard
            return type(placement)(0, split_factor=placement.split_factor)
        return Shard(0)

    own = [along(placement) for placement in placements]
    numbers = torch.arange(size, device=mesh.device_type)
    here = distribute_tensor(numbers, mesh, own, src_data_rank=None).to_local()
    indices: Array = here.cpu().numpy()
    return indices


def check_same_seed(recorder: Any, mesh: Any, mesh_dim: int) -> None:
    """Raise ValueError where the ranks along an axis of a mesh have other keys: their shards would make no tensor.

    The ranks communicate; once for each recorder and axis.
    """
    from torch import distributed

    group = mesh.get_group(mesh_dim)
    if group in recorder.checked_groups:
        return
    recorder.checked_groups.add(group)
    words = torch.tensor([word >> 1 for word in recorder.key.words()], device=mesh.device_type)  # integers have a sign
    ends = torch.stack([words, -words])
    distributed.all_reduce(ends, distributed.ReduceOp.MAX, group=group)
    if not torch.equal(ends[0], -ends[1]):  # the largest and the least of all ranks
        raise ValueError(
            "seed must be the same on all ranks that share a tensor; without one, torch.manual_seed must be. "
            f"Received: {recorder.key!r}"
        )
