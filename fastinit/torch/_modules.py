"""The names and axes of a model's tensors."""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping
from typing import Any

import torch

from fastinit.torch._compat import WRAPPERS
from fastinit.torch._shards import local_parts


def clean(name: str) -> str:
    """A tensor's name without what wrappers put into it.

    >>> clean("_orig_mod.layers.0._checkpoint_wrapped_module.weight")
    'layers.0.weight'
    """
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def named_tensors(model: torch.nn.Module, *, recurse: bool = True) -> dict[str, torch.Tensor]:
    """All tensors by all of their names: parameters, then buffers; without `recurse` those of the module itself."""
    parameters = model.named_parameters(recurse=recurse, remove_duplicate=False)
    buffers = model.named_buffers(recurse=recurse, remove_duplicate=False)
    return {clean(name): tensor for name, tensor in (*parameters, *buffers)}


def holding(storages: Mapping[torch.UntypedStorage, int]) -> list[torch.nn.Module]:
    """The outermost modules of this process that hold parts of given storages.

    Args:
        storages: each with a number; the modules come in the order of the least numbers of what they hold.
    """
    gc.collect()  # a module that nobody can reach has no say
    modules = [found for found in gc.get_objects() if issubclass(type(found), torch.nn.Module)]
    parents: dict[torch.nn.Module, list[torch.nn.Module]] = {}
    for module in modules:
        for child in module.children():
            parents.setdefault(child, []).append(module)
    numbers: dict[torch.nn.Module, int] = {}  # of the outermost modules
    for module in modules:
        own = named_tensors(module, recurse=False).values()
        parts = (part for tensor in own for part, _ in local_parts(tensor) if part.layout is torch.strided)
        found = [storages[part.untyped_storage()] for part in parts if part.untyped_storage() in storages]
        for root in _outermost(module, parents) if found else ():
            numbers[root] = min([*found, numbers.get(root, found[0])])
    return sorted(numbers, key=numbers.__getitem__)


def _outermost(module: torch.nn.Module, parents: Mapping[torch.nn.Module, list[torch.nn.Module]]) -> list[Any]:
    """The modules without parents that a module is part of."""
    line = [module]
    for one in line:  # grows
        line += [parent for parent in parents.get(one, ()) if parent not in line]
    return [one for one in line if one not in parents]


def axes_of(module: torch.nn.Module, parameter: torch.Tensor) -> tuple[str, tuple[int, ...]]:
    """The layout and the batch axes of a parameter, as the schemes' functions take them.

    The weights of `Conv1D`, GPT-2's linear layer, are (in, out); a parameter of three axes in a module without a kernel
    is a stack of matrices, as experts.

    >>> linear = torch.nn.Linear(3, 4)
    >>> axes_of(linear, linear.weight)
    ('oi', ())
    """
    # Where a module is one of transformers', transformers is there.
    transposed = getattr(sys.modules.get("transformers.pytorch_utils"), "Conv1D", ())
    layout = "io" if isinstance(module, transposed) and parameter.dim() == 2 else "oi"
    return layout, (0,) if parameter.dim() == 3 and not hasattr(module, "kernel_size") else ()
