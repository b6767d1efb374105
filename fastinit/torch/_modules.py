"""The names and axes of a model's tensors."""

from __future__ import annotations

import sys

import torch

from fastinit.torch._compat import WRAPPERS


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
