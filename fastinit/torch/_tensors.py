"""Tensors as the arrays that the core fills: without a copy, or not at all."""

from __future__ import annotations

import ctypes
import threading
from typing import Any, Protocol

import ml_dtypes
import numpy as np
import torch
from torch.autograd import forward_ad
from torch.overrides import _get_current_function_mode_stack as function_modes
from torch.utils._device import DeviceContext

from fastinit._core.distributions import Distribution
from fastinit._runtime.arrays import Array, as_dtype

# NumPy's own dtypes lack these: their bits go across as integers.
_BITS = {
    torch.bfloat16: (torch.uint16, ml_dtypes.bfloat16),
    torch.float8_e4m3fn: (torch.uint8, ml_dtypes.float8_e4m3fn),
    torch.float8_e5m2: (torch.uint8, ml_dtypes.float8_e5m2),
}
DTYPES = {torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float32: "float32", torch.float64: "float64"}
_NUMPY = {dtype: as_dtype(name) for dtype, name in DTYPES.items()}
_PLAIN = (torch.Tensor, torch.nn.Parameter)


def on_host(tensor: object) -> bool:
    """Whether the core can work on a tensor's memory: not on other devices, on other dtypes and layouts, on subclasses
    (DTensor, fake tensors), under lazy negation or zeros, nor inside a transform such as `vmap`."""
    return (
        type(tensor) in _PLAIN
        and isinstance(tensor, torch.Tensor)
        and tensor.is_cpu
        and tensor.dtype in DTYPES
        and tensor.layout is torch.strided
        and not tensor.is_neg()
        and not tensor._is_zerotensor()
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    )


def host_array(tensor: torch.Tensor) -> Array | None:
    """The memory of a tensor as a NumPy array of the same shape and strides, as long as the tensor lives; None where
    there is no such."""
    if not on_host(tensor):
        return None
    dtype, shape = _NUMPY[tensor.dtype], tuple(tensor.shape)
    if 0 in shape:
        return np.empty(shape, dtype)
    # By its address: `tensor.numpy()` would forbid for good that the storage is resized, as some code does.
    size, strides = dtype.itemsize, tensor.stride()
    reach = 1 + sum(stride * (n - 1) for stride, n in zip(strides, shape, strict=True))
    memory: Any = (ctypes.c_char * (reach * size)).from_address(tensor.data_ptr())
    return np.ndarray(shape, dtype, memory, 0, [stride * size for stride in strides])


def followed() -> bool:
    """Whether something follows torch's operations on this thread, and would not see what NumPy writes.

    That is a compiler or tracer, a transform such as `vmap`, forward derivatives, or a mode. `with torch.device(...)`
    is a mode too, but looks only at what makes tensors.
    """
    return (
        torch.compiler.is_compiling()
        or torch._C._is_tracing()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
        or torch._C._len_torch_dispatch_stack() > 0
        or (
            torch._C._len_torch_function_stack() > 0
            and any(not isinstance(mode, DeviceContext) for mode in function_modes())
        )
    )


def values_of(tensor: torch.Tensor) -> Array:
    """The memory of a plain CPU tensor of any dtype that NumPy or ml_dtypes has."""
    plain = tensor.detach().resolve_conj().resolve_neg()
    if tensor.dtype not in _BITS:
        return plain.numpy()
    bits, dtype = _BITS[tensor.dtype]
    array: Array = plain.view(bits).numpy().view(dtype)
    return array


def tensor_of(array: Array) -> torch.Tensor:
    """A tensor over the memory of an array; the other way round."""
    for dtype, (bits, name) in _BITS.items():
        if array.dtype == name:
            return torch.from_numpy(array.view(str(bits).removeprefix("torch."))).view(dtype)
    return torch.from_numpy(array)


def mark_written(tensor: torch.Tensor) -> None:
    """Tell autograd what NumPy's writes do not: the tensor's memory has changed."""
    if not tensor.is_inference():
        torch.autograd.graph.increment_version(tensor)


class Recorder(Protocol):
    """Takes fills instead of doing them: what `fast_init` and `record` put in the place of memory."""

    def fill(self, tensor: torch.Tensor, distribution: Distribution) -> bool:
        """Note that all of a tensor is now drawn from a law; False for tensors that are none of the recorder's."""

    def flush(self, tensor: torch.Tensor) -> None:
        """Do what waits for a tensor's memory, which somebody else is about to read or write."""


class _Active(threading.local):
    """The recorders of this thread; torch's modes are per thread too."""

    def __init__(self) -> None:
        self.recorders: list[Recorder] = []

    @property
    def recorder(self) -> Recorder | None:
        """The innermost one."""
        return self.recorders[-1] if self.recorders else None


active = _Active()
