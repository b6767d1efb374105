"""A plan into a model that has no values yet: plain or sharded, always the same model."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
import torch

from fastinit._core.key import Key, Seed
from fastinit._io.progress import Progress, progress_bar
from fastinit._runtime.arrays import Array, Region
from fastinit.plan._fills import Fill
from fastinit.plan._plan import Plan
from fastinit.torch._modules import named_tensors
from fastinit.torch._record.geometry import geometry
from fastinit.torch._tensors import DTYPES, host_array, mark_written, tensor_of

Model = TypeVar("Model", bound=torch.nn.Module)
Block = tuple[Region, Region]  # a part of the local tensor, and where it is in the whole


def materialize(
    model: Model, plan: Plan, seed: Seed = 0, *, device: torch.device | str | None = None, progress: Progress = False
) -> Model:
    """Fill a model with a plan: all parameters and buffers, in place; of sharded ones only what this rank holds.

    A model on the meta device gets memory first (as with `to_empty`, with ties kept). What a rank fills is a part of
    the one model that `fast_init(seed)` makes, whatever the mesh, the placements (`Shard` of any dimension, uneven,
    `_StridedShard`, `Replicate`) and the number of ranks. No rank talks to another.

    Args:
        model: a module with the plan's names and shapes, e.g. built under `torch.device("meta")`; its parameters may be
            DTensors (after `fully_shard` or `parallelize_module`). Its dtypes rule, not the plan's.
        plan: from `record`, or any other.
        seed: an int or a `Key`; None is the plan's own.
        device: where meta tensors get their memory. Default: the mesh's for a DTensor, the CPU for others.
        progress: as in `fastinit.checkpoint.write`.

    Returns:
        The model.

    Raises:
        ValueError: names or shapes that differ from the plan's, a dtype that cannot hold a law, or a `Partial`
            placement. Nothing was changed.

    >>> from fastinit.torch import fast_init, record
    >>> build = lambda: torch.nn.Linear(784, 10)
    >>> with torch.device("meta"):
    ...     model = build()
    >>> with fast_init(seed=0):
    ...     expected = build()
    >>> bool((materialize(model, record(build), seed=0).weight == expected.weight).all())
    True
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model must be a torch.nn.Module. Received: {type(model).__name__}")
    if not isinstance(plan, Plan):
        raise TypeError(f"plan must be a Plan. Received: {type(plan).__name__}")
    key = plan.key(seed)
    _check(named_tensors(model), plan)
    _give_memory(model, device)
    tensors = named_tensors(model)
    filled: dict[str, torch.Tensor] = {}
    with progress_bar(progress, sum(t.nbytes for t in tensors.values())) as advance:
        for name, tensor in tensors.items():
            first = plan.first_name(name)
            if filled.get(first) is not tensor:
                _fill(tensor, plan.of(name), key / first)
                filled.setdefault(first, tensor)
            advance(tensor.nbytes)
    return model


def _check(tensors: dict[str, torch.Tensor], plan: Plan) -> None:
    """Raise ValueError where the plan is not one of this model."""
    for name, tensor in tensors.items():
        if name not in plan:
            has = ", ".join(itertools.islice(plan, 3))
            raise ValueError(f"the plan must have all tensors of the model. Missing: {name}; it has {has}, ...")
        fill, shape, placements = plan.of(name), tuple(tensor.shape), _placements(tensor)
        if shape != fill.shape:
            raise ValueError(f"{name} must have the shape {fill.shape}, as in the plan. Received: {shape}")
        if fill.drawn and tensor.dtype not in DTYPES:
            allowed = ", ".join(DTYPES.values())
            raise ValueError(f"{name} must have one of the dtypes {allowed}. Received: {tensor.dtype}")
        if fill.drawn:
            fill.with_dtype(DTYPES[tensor.dtype])
        if not placements and not tensor.is_meta and tensor.layout is torch.strided and geometry(tensor).overlaps:
            raise ValueError(f"{name} must not overlap itself. Received: strides {tensor.stride()}")
        if any(placement.is_partial() for placement in placements):
            raise ValueError(f"{name} must be sharded or replicated. Received: {placements}")
    missing = [name for name in plan if name not in tensors]
    if missing:
        shown = ", ".join(missing[:5])
        raise ValueError(f"the model must have all tensors of the plan. Missing: {shown} ({len(missing)} in all)")


def _give_memory(model: torch.nn.Module, device: torch.device | str | None) -> None:
    """Replace meta tensors by tensors with memory. Ties stay."""
    meta = [(m, name, t) for m in model.modules() for name, t in named_tensors(m, recurse=False).items() if t.is_meta]
    replaced: dict[int, torch.Tensor] = {}
    for module, name, tensor in meta:
        if id(tensor) not in replaced:
            mesh = getattr(tensor, "device_mesh", None)
            new = torch.empty_like(tensor, device=device or (mesh.device_type if mesh is not None else "cpu"))
            is_parameter = isinstance(tensor, torch.nn.Parameter)
            replaced[id(tensor)] = torch.nn.Parameter(new, tensor.requires_grad) if is_parameter else new
        setattr(module, name, replaced[id(tensor)])


def _fill(tensor: torch.Tensor, fill: Fill, key: Key) -> None:
    """Fill a tensor, or the part of it that is here."""
    with torch.no_grad():
        local: torch.Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
        blocks: list[Block] = [((), ())] if local is tensor else list(_blocks(tensor))
        array = host_array(local)
        for part, region in blocks:
            place: tuple[Any, ...] = (*part, ...)
            if fill.drawn and array is not None:
                fill.fill(array[place], key, region)
            else:  # made on the host in the plan's dtype, then copied to another device or dtype
                target = local[place]
                dtype = DTYPES[tensor.dtype] if fill.drawn else fill.dtype
                fresh = np.empty(tuple(target.shape), np.dtype(dtype))
                fill.fill(fresh, key, region)
                target.copy_(tensor_of(fresh))
        mark_written(local)
        if local is not tensor:
            mark_written(tensor)


def _placements(tensor: Any) -> tuple[Any, ...]:
    """How a DTensor lies on its mesh; nothing for other tensors."""
    return tuple(getattr(tensor, "placements", ()))


def _blocks(tensor: Any) -> Iterator[Block]:
    """The parts of a DTensor's local tensor that are regions of the whole."""
    runs = [_runs(size, axis, tensor.device_mesh, tensor.placements) for axis, size in enumerate(tensor.shape)]
    for combination in itertools.product(*runs):
        yield tuple(part for part, _ in combination), tuple(region for _, region in combination)


@functools.lru_cache(maxsize=4096)
def _runs(size: int, axis: int, mesh: Any, placements: tuple[Any, ...]) -> list[tuple[slice, slice]]:
    """The runs of consecutive indices along an axis that this rank has: (in the local tensor, in the whole)."""
    indices = _indices(size, axis, mesh, placements)
    if not len(indices):
        return []
    breaks = [0, *(np.flatnonzero(np.diff(indices) != 1) + 1).tolist(), len(indices)]
    return [
        (slice(first, last), slice(int(indices[first]), int(indices[first]) + last - first))
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
