"""The names of a model's tensors."""

from __future__ import annotations

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
