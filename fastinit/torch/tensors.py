"""Tensors as the arrays that the core fills: without a copy, or not at all."""

from __future__ import annotations

import threading
from typing import Protocol

import ml_dtypes
import torch

from fastinit.buffers import Array
from fastinit.distributions import Distribution

# NumPy has no bfloat16 that torch knows: its bits go across as uint16.
_BITS = {torch.bfloat16: (torch.uint16, ml_dtypes.bfloat16)}
DTYPES = {torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float32: "float32", torch.float64: "float64"}
_PLAIN = (torch.Tensor, torch.nn.Parameter)


def on_host(tensor: torch.Tensor) -> bool:
    """Whether the core can work on a tensor's memory: not on other devices, on other dtypes and layouts, on subclasses
    (DTensor, fake tensors), under lazy negation or zeros, nor inside a transform such as `vmap`."""
    if type(tensor) not in _PLAIN or not tensor.is_cpu or tensor.dtype not in DTYPES:
        return False
    if tensor.layout is not torch.strided or tensor.is_neg() or tensor._is_zerotensor():
        return False
    return not torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def host_array(tensor: torch.Tensor) -> Array | None:
    """The memory of a tensor as a NumPy array of the same shape and strides, shared; None where it is not `on_host`."""
    if not on_host(tensor):
        return None
    plain = tensor.detach()
    if tensor.dtype in _BITS:
        bits, dtype = _BITS[tensor.dtype]
        array: Array = plain.view(bits).numpy().view(dtype)
    else:
        array = plain.numpy()
    return array


def mark_written(tensor: torch.Tensor) -> None:
    """Tell autograd what NumPy's writes do not: the tensor's memory has changed."""
    if not tensor.is_inference():
        torch.autograd.graph.increment_version(tensor)


class Recorder(Protocol):
    """Takes fills instead of doing them: what `fast_init` and `record` put in the place of memory."""

    def fill(self, tensor: torch.Tensor, distribution: Distribution) -> bool:
        """Note that all of a tensor is now drawn from a law; False for tensors that are none of the recorder's."""


class _Active(threading.local):
    """The recorder of this thread, innermost; torch's modes are per thread too."""

    recorder: Recorder | None = None


active = _Active()
