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


def host_array(tensor: torch.Tensor) -> Array | None:
    """The memory of a tensor as a NumPy array of the same shape and strides, shared.

    None for what the core does not fill: tensors on other devices, other dtypes and layouts, subclasses (DTensor,
    fake tensors), lazy negation, and tensors inside a transform such as `vmap`.
    """
    if type(tensor) not in _PLAIN or tensor.device.type != "cpu" or tensor.dtype not in DTYPES:
        return None
    if tensor.layout is not torch.strided or tensor.is_neg() or torch._C._functorch.is_functorch_wrapped_tensor(tensor):
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
