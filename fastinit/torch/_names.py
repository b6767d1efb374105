"""The names of a model's tensors."""

from __future__ import annotations

import torch

# What wrappers put between the names of modules: torch.compile, and checkpointing of activations.
_WRAPPERS = ("_orig_mod.", "_checkpoint_wrapped_module.")


def clean(name: str) -> str:
    """A tensor's name without what wrappers put into it.

    >>> clean("_orig_mod.layers.0._checkpoint_wrapped_module.weight")
    'layers.0.weight'
    """
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def named_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """All tensors by all of their names: parameters, then buffers."""
    named = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    return {clean(name): tensor for name, tensor in named}
