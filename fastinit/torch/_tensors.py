"""Tensors as the arrays that the core fills: without a copy, or not at all."""

from __future__ import annotations

import ctypes
from typing import Any

import ml_dtypes
import numpy as np
import torch

from fastinit._runtime.arrays import Array, as_dtype

# NumPy's own dtypes lack these: their bits go across as integers.
_BITS = {
    torch.bfloat16: (torch.uint16, ml_dtypes.bfloat16),
    torch.float8_e4m3fn: (torch.uint8, ml_dtypes.float8_e4m3fn),
    torch.float8_e5m2: (torch.uint8, ml_dtypes.float8_e5m2),
}
DTYPES = {torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float32: "float32", torch.float64: "float64"}
_NUMPY = {dtype: as_dtype(name) for dtype, name in DTYPES.items()}
numpy_dtype = _NUMPY.__getitem__
PLAIN = (torch.Tensor, torch.nn.Parameter)


def on_host(tensor: object) -> bool:
    """Whether the core can work on a tensor's memory: not on other devices, on other dtypes and layouts, on subclasses
    (DTensor, fake tensors), under lazy negation or zeros, nor inside a transform such as `vmap`."""
    if not (
        type(tensor) in PLAIN
        and isinstance(tensor, torch.Tensor)
        and tensor.is_cpu
        and tensor.dtype in DTYPES
        and tensor.layout is torch.strided
        and not tensor.is_neg()
    ):
        return False
    try:
        return tensor.data_ptr() != 0 or tensor.numel() == 0  # lazy zeros have no memory
    except RuntimeError:  # nor have the tensors inside a transform
        return False


def host_array(tensor: torch.Tensor) -> Array | None:
    """The memory of a tensor as a NumPy array of the same shape and strides, as long as the tensor lives; None where
    there is no such."""
    if not on_host(tensor):
        return None
    # By its address: `tensor.numpy()` would forbid for good that the storage is resized, as some code does.
    return array_at(tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)


def array_at(address: int, shape: tuple[int, ...], strides: tuple[int, ...], kind: torch.dtype) -> Array:
    """The memory at an address as an array; the strides are in elements."""
    dtype = _NUMPY[kind]
    if 0 in shape:
        return np.empty(shape, dtype)
    size = dtype.itemsize
    reach = 1 + sum(stride * (n - 1) for stride, n in zip(strides, shape, strict=True))
    memory: Any = (ctypes.c_char * (reach * size)).from_address(address)
    return np.ndarray(shape, dtype, memory, 0, [stride * size for stride in strides])


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
