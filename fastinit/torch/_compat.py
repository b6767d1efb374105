"""The private names of PyTorch that this package uses: all of them are here, and any of them may be missing.

The first use of a missing name gives one RuntimeWarning, and then the fallback in `FALLBACKS` applies.
"""

from __future__ import annotations

import contextlib
import functools
import pkgutil
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import forward_ad

_BY_TORCH = "PyTorch fills all tensors itself"
_TRACERS = (
    "torch._C._functorch.peek_interpreter_stack",
    "torch._C._len_torch_dispatch_stack",
    "torch._C._len_torch_function_stack",
    "torch.overrides._get_current_function_mode_stack",
    "torch.autograd.forward_ad._current_level",
)
_DEVICE_MODE = "torch.utils._device.DeviceContext"
_SCHEMA = "torch.ops.aten.zero_.default._schema"
_TREE_MAP = "torch.utils._pytree.tree_map"
DISPATCH_MODE = "torch.utils._python_dispatch.TorchDispatchMode"
TO_COPY = "torch.ops.aten._to_copy.default"
FOREACH_COPY = "torch.ops.aten._foreach_copy_.default"
# `trunc_normal_` redraws until all values are inside its bounds: no operator says what it means. Libraries keep the
# public function from before any patch (transformers does), but it calls this helper.
TRUNCATED = "torch.nn.init._no_grad_trunc_normal_"

FALLBACKS = {
    **dict.fromkeys(_TRACERS, _BY_TORCH),
    _DEVICE_MODE: f"under a function mode, `with torch.device(...)` too, {_BY_TORCH}",
    _SCHEMA: "which arguments an operator writes is read from its name",
    _TREE_MAP: "only dicts, lists and tuples are searched for tensors",
    DISPATCH_MODE: f"in fast_init {_BY_TORCH}, with values of its own generator; record is not available",
    TO_COPY: "fills are not deferred when a tensor is converted",
    FOREACH_COPY: "fills are not deferred when lists of tensors are copied",
    TRUNCATED: "truncated normals are drawn by PyTorch's own loop, slowly",
}

# What `distribute_tensor` makes the shards with; each takes `tensor`, `mesh`, `mesh_dim` and `src_data_rank`.
_DISTRIBUTING: tuple[str, ...] = (
    "torch.distributed.tensor.Shard._make_shard_tensor",
    "torch.distributed.tensor.placement_types._StridedShard._make_shard_tensor",
    "torch.distributed.tensor.Replicate._make_replicate_tensor",
)
if torch.__version__ < "2.10":  # compared as versions
    _DISTRIBUTING = (
        "torch.distributed.tensor.Shard._shard_tensor",
        "torch.distributed.tensor.Replicate._replicate_tensor",
    )
FALLBACKS |= dict.fromkeys(_DISTRIBUTING, "in fast_init distribute_tensor sends values, whose draws have no names")

COMPILER = "torch._dynamo"  # in sys.modules once something may be compiled

# What `torch.compile` and activation checkpointing put into the names of modules.
COMPILED = "_orig_mod"
WRAPPERS = (f"{COMPILED}.", "_checkpoint_wrapped_module.")


@functools.cache
def optional(name: str) -> Any:
    """The object with one of the names in `FALLBACKS`; None, with a warning, if this PyTorch has no such object."""
    found = _resolve(name)
    if found is None:
        warnings.warn(f"PyTorch {torch.__version__} has no {name}: {FALLBACKS[name]}", RuntimeWarning, stacklevel=3)
    return found


def _resolve(name: str) -> Any:
    with contextlib.suppress(ImportError, AttributeError):
        return pkgutil.resolve_name(name)
    return None


_Mode: Any = _resolve(DISPATCH_MODE) or object  # without a warning: that comes when a recorder is needed


class DispatchMode(_Mode):  # type: ignore[misc]
    """A mode that sees all operators of its thread."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # the wrapper that True puts around the operators imports the compiler: seconds


@functools.cache
def _tracers() -> tuple[Any, ...]:
    return tuple(map(optional, _TRACERS))


def is_traced() -> bool:
    """Whether PyTorch's operations on this thread are traced: what NumPy writes would be missed.

    Tracers are compilers, transforms such as `vmap`, forward derivatives and modes. `with torch.device(...)` is a mode
    too, but only looks at functions that make tensors.
    """
    if torch.compiler.is_compiling():  # first: the compiler does not get through what follows
        return True
    interpreter, dispatch_modes, number_of_modes, function_modes, level = _tracers()
    if interpreter is None or dispatch_modes is None or number_of_modes is None or function_modes is None:
        return True
    return (
        level is None
        or torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
        or interpreter() is not None
        or forward_ad._current_level >= 0
        or dispatch_modes() > 0
        or (number_of_modes() > 0 and not all(map(_is_device_mode, function_modes())))
    )


def _is_device_mode(mode: object) -> bool:
    kind = optional(_DEVICE_MODE)
    return kind is not None and isinstance(mode, kind)


@functools.cache
def distributing() -> list[tuple[Any, str]]:
    """The methods that make the shards of a tensor: classes and names."""
    parts = [name.rpartition(".") for name in _DISTRIBUTING if optional(name) is not None]
    return [(pkgutil.resolve_name(owner), method) for owner, _, method in parts]


def schema_arguments(operator: Any) -> list[Any] | None:
    """The arguments in an operator's schema; None if schemas cannot be read."""
    return None if optional(_SCHEMA) is None else list(operator._schema.arguments)


def tree_map(function: Callable[[Any], Any], tree: Any) -> Any:
    """Apply a function to all leaves of nested containers."""
    mapped = optional(_TREE_MAP)
    if mapped is not None:
        return mapped(function, tree)
    if type(tree) is dict:
        return {name: tree_map(function, value) for name, value in tree.items()}
    return type(tree)(tree_map(function, value) for value in tree) if type(tree) in (list, tuple) else function(tree)
