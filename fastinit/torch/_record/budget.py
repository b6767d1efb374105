"""A limit for what a constructor computes: tensors of values, as tables of positions and masks, take memory at once."""

from __future__ import annotations

import math
from typing import Any

import torch

from fastinit.torch._compat import DispatchMode
from fastinit.torch._record.draws import tensors_in
from fastinit.torch._record.operators import EMPTY, Operator

_PRODUCTS = {torch.ops.aten.mm.default, torch.ops.aten.bmm.default}


class ComputedBytes(DispatchMode):
    """Count the bytes of the tensors that operators make, and refuse the operator that would exceed a number.

    What takes no memory, as uninitialised tensors, views and what is written in place, does not count. To be entered
    outside of a recording, whose deferred fills never come here.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most, self._done = most, 0

    def __torch_dispatch__(
        self, func: Operator, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        in_place = func.overloadpacket.__name__.endswith("_")
        if func in EMPTY or func.is_view or in_place:
            return func(*args, **kwargs)
        inputs = list(tensors_in((args, kwargs)))
        self._check(_expected_bytes(func, args, kwargs, inputs))
        out = func(*args, **kwargs)
        known = {tensor.untyped_storage().data_ptr() for tensor in inputs}
        made = [one for one in tensors_in(out) if one.untyped_storage().data_ptr() not in known]
        self._done += sum(tensor.nbytes for tensor in made)
        self._check(0)
        return out

    def _check(self, more: int) -> None:
        if self._done + more > self._most:
            raise ValueError(f"it computes tensors of more than {self._most:,} bytes in all")


def _expected_bytes(func: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: list[torch.Tensor]) -> int:
    """About how many bytes an operator makes, by the sizes it is given, or those of its operands broadcast."""
    if not inputs:
        sizes = args[0] if args and isinstance(args[0], (list, tuple)) else ()
        ends = [value for value in args[:2] if isinstance(value, (int, float))]  # of `arange`
        elements = math.prod(sizes) if sizes else max(map(abs, ends), default=0)
        return int(elements * (kwargs.get("dtype") or torch.get_default_dtype()).itemsize)
    itemsize = max(tensor.itemsize for tensor in inputs)
    if func in _PRODUCTS:
        return inputs[0].numel() // max(1, inputs[0].shape[-1]) * inputs[1].shape[-1] * itemsize
    try:
        shape = torch.broadcast_shapes(*(tensor.shape for tensor in inputs))
    except RuntimeError:  # it does not broadcast them
        return 0
    return int(math.prod(shape) * itemsize)
