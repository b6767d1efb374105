"""Drop-in replacements for PyTorch's gradient clipping, on the clipping kernels.

PyTorch's own function does the whole call if the tensors or the numbers are not for the kernels; `_memory` decides.
So results, warnings and errors stay PyTorch's.
"""

from __future__ import annotations

import math
import types
import warnings
from collections.abc import Iterable
from functools import reduce
from typing import TypeAlias

import torch
from torch.nn import utils

from fastinit._runtime.arrays import NamedArrays
from fastinit.clip import _clipping as clipping
from fastinit.clip._vectors import Vectors, blocks, vectors
from fastinit.torch._compat import is_traced
from fastinit.torch._tensors import DTYPES, host_array, on_host

__all__ = [
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "get_total_norm",
]

Tensors: TypeAlias = torch.Tensor | Iterable[torch.Tensor]

_EPS = 1e-6  # torch's, a constant there too


def clip_grad_norm_(
    parameters: Tensors,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> torch.Tensor:
    """Scale all gradients by min(1, max_norm / (norm + 1e-6)), in place: `torch.nn.utils.clip_grad_norm_`.

    The norm is that of all gradients as one vector, summed in float64: it does not overflow, and 16-bit gradients are
    scaled by what it was before it was rounded to the tensor that is returned.

    Args:
        parameters: a parameter or several, whose gradients of float16, bfloat16, float32 or float64 on the CPU the
            kernels clip. Others (DTensors, other devices, complex, sparse or shared ones) go to torch's own function.
        max_norm: the largest norm.
        norm_type: p; infinity is the largest magnitude.
        error_if_nonfinite: whether an infinite or NaN norm is an error.
        foreach: as in torch; the kernels do not need it.

    Returns:
        The norm before: a tensor without axes, of the dtype that torch promotes the gradients' dtypes to.

    Raises:
        RuntimeError: the norm is not finite, and that is an error. Nothing was written.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.zeros(2))
    >>> weight.grad = torch.tensor([3.0, 4.0])
    >>> clip_grad_norm_([weight], max_norm=1.0)
    tensor(5.)
    >>> weight.grad
    tensor([0.6000, 0.8000])
    """
    if isinstance(parameters, types.GeneratorType):
        parameters = list(parameters)
        if not parameters:  # said here, since torch, given a generator, would name this line as the place
            warnings.warn("`parameters` is an empty generator, no gradient clipping will occur.", stacklevel=2)
    parameters, gradients = _with_gradients(parameters)
    memory = _memory(gradients, max_norm, norm_type, write=True)
    if memory is not None:
        norm = clipping.total_norm(memory, float(norm_type))
        result = _as_tensor(norm, gradients)
        if not error_if_nonfinite or math.isfinite(result.item()):
            clipping.scale_by_norm(memory, norm, float(max_norm), _EPS)
            torch.autograd.graph.increment_version(gradients)
            return result
    return utils.clip_grad_norm_(parameters, max_norm, norm_type, error_if_nonfinite, foreach)


def get_total_norm(
    tensors: Tensors, norm_type: float = 2.0, error_if_nonfinite: bool = False, foreach: bool | None = None
) -> torch.Tensor:
    """The p-norm of all tensors as one vector, summed in float64: `torch.nn.utils.get_total_norm`.

    Arguments, result and error are those of `clip_grad_norm_`, whose gradients these are.

    >>> import torch
    >>> get_total_norm([torch.tensor([3.0, 0.0]), torch.tensor([[4.0]])])
    tensor(5.)
    """
    tensors = _listed(tensors)
    memory = _memory(tensors, 0.0, norm_type, write=False)
    if memory is not None:
        result = _as_tensor(clipping.total_norm(memory, float(norm_type)), tensors)
        if not error_if_nonfinite or math.isfinite(result.item()):
            return result
    return utils.get_total_norm(tensors, norm_type, error_if_nonfinite, foreach)


def clip_grads_with_norm_(
    parameters: Tensors, max_norm: float, total_norm: torch.Tensor, foreach: bool | None = None
) -> None:
    """Scale all gradients by min(1, max_norm / (total_norm + 1e-6)): `torch.nn.utils.clip_grads_with_norm_`.

    Arguments are those of `clip_grad_norm_`; the kernels take norms that are tensors of a float dtype on the CPU,
    without axes.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.zeros(2))
    >>> weight.grad = torch.tensor([3.0, 4.0])
    >>> clip_grads_with_norm_([weight], max_norm=1.0, total_norm=torch.tensor(10.0))
    >>> weight.grad
    tensor([0.3000, 0.4000])
    """
    parameters, gradients = _with_gradients(parameters)
    memory = _memory(gradients, max_norm, write=True)
    if memory is None or not on_host(total_norm) or total_norm.ndim:
        utils.clip_grads_with_norm_(parameters, max_norm, total_norm, foreach)
        return
    clipping.scale_by_norm(memory, total_norm.item(), float(max_norm), _EPS)
    torch.autograd.graph.increment_version(gradients)


def clip_grad_value_(parameters: Tensors, clip_value: float, foreach: bool | None = None) -> None:
    """Move every element of the gradients into [-clip_value, clip_value]: `torch.nn.utils.clip_grad_value_`.

    `parameters` and `foreach` are those of `clip_grad_norm_`. NaN stays NaN.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.zeros(2))
    >>> weight.grad = torch.tensor([-3.0, 0.5])
    >>> clip_grad_value_(weight, 1.0)
    >>> weight.grad
    tensor([-1.0000,  0.5000])
    """
    parameters, gradients = _with_gradients(parameters)
    memory = _memory(gradients, clip_value, write=True)
    if memory is None or any(torch.finfo(dtype).max < clip_value < math.inf for dtype in _dtypes(gradients)):
        utils.clip_grad_value_(parameters, clip_value, foreach)  # which has an error for a bound beyond the dtype
        return
    clipping.clamp(memory, -float(clip_value), float(clip_value))
    torch.autograd.graph.increment_version(gradients)


def _memory(tensors: list[torch.Tensor], limit: float, norm_type: float = 2.0, *, write: bool) -> Vectors | None:
    """Where the tensors lie, for the kernels; None where torch's own function has to do the work."""
    if is_traced():
        return None
    numbers = isinstance(limit, (int, float)) and isinstance(norm_type, (int, float)) and limit >= 0 and norm_type > 0
    if not numbers or not tensors or not all(map(on_host, tensors)):
        return None
    if write and any(map(torch.Tensor.is_inference, tensors)):  # an error, outside of inference mode
        return None
    counts = [x.numel() for x in tensors]
    if norm_type == math.inf and not all(counts):  # an error too
        return None
    try:
        if all(map(torch.Tensor.is_contiguous, tensors)):
            return blocks([x.data_ptr() for x in tensors], counts, [DTYPES[x.dtype] for x in tensors], write=write)
        memory = vectors(NamedArrays("tensors", list(map(host_array, tensors)), None), write=write)
    except ValueError:  # shared memory: torch changes it as often as it is given, or has an error
        return None
    return memory if memory.once is None or not write else None


def _listed(tensors: Tensors) -> list[torch.Tensor]:
    return [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)


def _with_gradients(parameters: Tensors) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    listed = _listed(parameters)
    gradients = [parameter.grad for parameter in listed]
    return listed, [gradient for gradient in gradients if gradient is not None]


def _as_tensor(norm: float, tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.scalar_tensor(norm, dtype=reduce(torch.promote_types, _dtypes(tensors)), device="cpu")


def _dtypes(tensors: list[torch.Tensor]) -> set[torch.dtype]:
    return {x.dtype for x in tensors}
