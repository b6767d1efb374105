"""Argument checks of probes of modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from fastinit.torch._modules import clean

Loss = Callable[[Any], Any]
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def arguments_of(data: Any) -> Arguments:
    """The positional and named arguments that a module is called with.

    Raises:
        TypeError: data of another type.
    """
    if isinstance(data, torch.Tensor | PackedSequence):
        return (data,), {}
    if isinstance(data, tuple):
        return data, {}
    if isinstance(data, Mapping) and all(isinstance(name, str) for name in data):
        return (), dict(data)
    received = "none" if data is None else type(data).__name__
    raise TypeError(
        "data must be what the module is called with: a tensor, a tuple of arguments, or a dict of named ones. "
        f"Received: {received}"
    )


def check_module(module: nn.Module, loss: Loss | None) -> None:
    """Check that a module can run, and its loss.

    Raises:
        TypeError: a loss that is no function.
        ValueError: a module without memory.
    """
    if loss is not None and not callable(loss):
        raise TypeError(f"loss must be a function of the module's output. Received: {loss!r:.200}")
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if nn.parameter.is_lazy(tensor):
            raise ValueError(f"module must be initialised. Received: {clean(name)} has no shape before the first call")
        if tensor.is_meta:
            raise ValueError(f"module must have memory. Received: {clean(name)} on the meta device")
