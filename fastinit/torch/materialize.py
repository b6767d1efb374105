"""A plan into a model that has no values yet: plain or sharded, always the same model."""

from __future__ import annotations

import itertools
from typing import TypeVar

import numpy as np
import torch

from fastinit._core.key import Key, Seed
from fastinit._io.progress import Progress, progress_bar
from fastinit._runtime.arrays import prefer_huge_pages
from fastinit.plan._fills import Fill
from fastinit.plan._plan import Plan
from fastinit.torch._modules import named_tensors
from fastinit.torch._record.geometry import geometry
from fastinit.torch._record.recorder import active
from fastinit.torch._shards import local_parts, placements_of
from fastinit.torch._tensors import DTYPES, host_array, mark_written, on_host, tensor_of

Model = TypeVar("Model", bound=torch.nn.Module)


def materialize(
    model: Model,
    plan: Plan,
    seed: Seed = None,
    *,
    prefix: str = "",
    partial: bool = False,
    device: torch.device | str | None = None,
    progress: Progress = False,
) -> Model:
    """Fill a model with a plan: all parameters and buffers, in place; of sharded ones only what this rank holds.

    A model on the meta device gets memory first (as with `to_empty`, with ties kept). What a rank fills is a part of
    the one model that `fast_init(seed)` makes, whatever the mesh, the placements (`Shard` of any dimension, uneven,
    `_StridedShard`, `Replicate`) and the number of ranks. No rank talks to another.

    Args:
        model: a module with the plan's names and shapes, e.g. built under `torch.device("meta")`; its parameters may be
            DTensors (after `fully_shard` or `parallelize_module`). Its dtypes rule, not the plan's.
        plan: from `record`, or any other.
        seed: an int or a `Key`. Default: the plan's own, `plan.seed`, which is 0 where none was given.
        prefix: what the plan's names have before the model's: `prefix="encoder."` fills an encoder alone, as it is in
            the plan's whole model. Of a model whose names have a prefix, give the module inside (`model.module`).
        partial: whether the plan may have more tensors than the model, e.g. for a stage of a pipeline. Tensors that are
            tied to one that is not here get its values.
        device: where meta tensors get their memory. Default: the mesh's for a DTensor, the CPU for others.
        progress: as in `fastinit.checkpoint.write`.

    Returns:
        The model.

    Raises:
        ValueError: names or shapes that differ from the plan's, a dtype that cannot hold a distribution, or a `Partial`
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
    if not isinstance(prefix, str):
        raise TypeError(f"prefix must be a string. Received: prefix={prefix!r}")
    key = plan.key(seed)
    _check(_in_plan(model, prefix), plan, [] if partial else [name for name in plan if name.startswith(prefix)])
    _give_memory(model, device)
    tensors = _in_plan(model, prefix)
    filled: dict[str, torch.Tensor] = {}
    with progress_bar(progress, sum(t.nbytes for t in tensors.values())) as advance:
        for name, tensor in tensors.items():
            first = plan.first_name(name)
            if filled.get(first) is not tensor:
                _fill(tensor, plan.of(name), key)
                filled.setdefault(first, tensor)
            advance(tensor.nbytes)
    return model


def _in_plan(model: torch.nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    """A model's tensors by their names in the plan."""
    return {prefix + name: tensor for name, tensor in named_tensors(model).items()}


def _check(tensors: dict[str, torch.Tensor], plan: Plan, wanted: list[str]) -> None:
    """Raise ValueError where the plan is not one of this model, or the model lacks tensors that are wanted."""
    for name, tensor in tensors.items():
        if name not in plan:
            has = ", ".join(itertools.islice(plan, 3))
            raise ValueError(f"the plan must have all tensors of the model. Missing: {name}; it has {has}, ...")
        fill, shape, placements = plan.of(name), tuple(tensor.shape), placements_of(tensor)
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
    missing = [name for name in wanted if name not in tensors]
    if missing:
        shown = ", ".join(missing[:5])
        raise ValueError(
            f"the model must have all tensors of the plan, or partial=True be given. Missing: {shown} "
            f"({len(missing)} in all)"
        )


def _give_memory(model: torch.nn.Module, device: torch.device | str | None) -> None:
    """Replace meta tensors by tensors with memory. Ties stay."""
    meta = [(m, name, t) for m in model.modules() for name, t in named_tensors(m, recurse=False).items() if t.is_meta]
    replaced: dict[int, torch.Tensor] = {}
    for module, name, tensor in meta:
        if id(tensor) not in replaced:
            mesh = getattr(tensor, "device_mesh", None)
            new = torch.empty_like(tensor, device=device or (mesh.device_type if mesh is not None else "cpu"))
            if on_host(new):
                prefer_huge_pages(new.data_ptr(), new.nbytes)
            is_parameter = isinstance(tensor, torch.nn.Parameter)
            replaced[id(tensor)] = torch.nn.Parameter(new, tensor.requires_grad) if is_parameter else new
        setattr(module, name, replaced[id(tensor)])


def _fill(tensor: torch.Tensor, fill: Fill, key: Key) -> None:
    """Fill a tensor, or the part of it that is here."""
    with torch.no_grad():
        for part, region in local_parts(tensor):
            if not part.numel():
                continue
            for recorder in active.recorders:
                recorder.replaced(part)
            array = host_array(part)
            if fill.drawn and array is not None:
                fill.fill(array, key, region)
            else:  # made on the host in the plan's dtype, then copied to another device or dtype
                dtype = DTYPES[tensor.dtype] if fill.drawn else fill.dtype
                fresh = np.empty(tuple(part.shape), np.dtype(dtype))
                fill.fill(fresh, key, region)
                part.copy_(tensor_of(fresh))
            mark_written(part)
        mark_written(tensor)
