"""PyTorch's operators as distributions: which fill a tensor, make a new filled one, or transform a distribution."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any, TypeAlias

import torch

from fastinit._core.distributions import Constant, Distribution, Normal, Uniform

aten = torch.ops.aten
Operator: TypeAlias = Any  # an overload of an operator: `aten.zero_.default`


def _normal(mean: float = 0.0, std: float = 1.0, generator: Any = None) -> Distribution:
    return Normal(mean, std)


def _uniform(low: float = 0.0, high: float = 1.0, generator: Any = None, **names: float) -> Distribution:
    return Uniform(names.get("from", low), names.get("to", high))


# Fills in place: what the arguments after the tensor mean.
FILLS: dict[Operator, Callable[..., Distribution]] = {
    aten.normal_.default: _normal,
    aten.uniform_.default: _uniform,
    aten.fill_.Scalar: Constant,
    aten.fill_.Tensor: Constant,  # the recorder reads the tensor's one value first
    aten.zero_.default: lambda: Constant(0.0),
}

_STANDARD, _UNIT, _ZERO, _ONE = Normal(), Uniform(), Constant(0.0), Constant(1.0)

# New tensors: (distribution, number of arguments before the value, operator that makes the tensor without values). If
# the distribution is None, the fill value is the argument that follows.
NEW: dict[Operator, tuple[Distribution | None, int, Operator]] = {
    aten.randn.default: (_STANDARD, 1, aten.empty.memory_format),
    aten.randn.generator: (_STANDARD, 1, aten.empty.memory_format),
    aten.rand.default: (_UNIT, 1, aten.empty.memory_format),
    aten.rand.generator: (_UNIT, 1, aten.empty.memory_format),
    aten.zeros.default: (_ZERO, 1, aten.empty.memory_format),
    aten.ones.default: (_ONE, 1, aten.empty.memory_format),
    aten.full.default: (None, 1, aten.empty.memory_format),
    aten.randn_like.default: (_STANDARD, 1, aten.empty_like.default),
    aten.rand_like.default: (_UNIT, 1, aten.empty_like.default),
    aten.zeros_like.default: (_ZERO, 1, aten.empty_like.default),
    aten.ones_like.default: (_ONE, 1, aten.empty_like.default),
    aten.full_like.default: (None, 1, aten.empty_like.default),
    aten.new_zeros.default: (_ZERO, 2, aten.new_empty.default),
    aten.new_ones.default: (_ONE, 2, aten.new_empty.default),
    aten.new_full.default: (None, 2, aten.new_empty.default),
    aten.normal.float_float: (None, 1, aten.empty.memory_format),  # mean and std come before
}

# New tensors without values.
EMPTY = {
    aten.empty.memory_format,
    aten.empty_strided.default,
    aten.empty_like.default,
    aten.new_empty.default,
    aten.new_empty_strided.default,
}

# Operators that take a tensor for its shape, dtype and memory alone.
SHAPE_ONLY = {operator for operator in NEW if torch.Tag.nondeterministic_seeded not in operator.tags} | {
    aten.sym_size.int,
    aten.is_same_size.default,
    aten.set_.source_Tensor,
    aten.set_.source_Tensor_storage_offset,
    aten.set_.source_Storage,
    aten.set_.source_Storage_storage_offset,
}


def _times(factor: float) -> tuple[float, float]:
    return factor, 0.0


def _over(divisor: float) -> tuple[float, float]:
    return 1 / divisor, 0.0


def _plus(shift: float, alpha: float = 1.0) -> tuple[float, float]:
    return 1.0, alpha * shift


def _minus(shift: float, alpha: float = 1.0) -> tuple[float, float]:
    return 1.0, -alpha * shift


# Arguments that operators write to although their schemas do not say so, by their places.
HIDDEN_WRITES: dict[Operator, tuple[int, ...]] = {aten.native_batch_norm.default: (3, 4)}  # the running statistics

# factor * x + shift: (factor, shift) of the arguments after the tensor.
AFFINE: dict[Operator, Callable[..., tuple[float, float]]] = {
    operator: meaning
    for name, meaning in (("mul", _times), ("div", _over), ("add", _plus), ("sub", _minus))
    for packet in (getattr(aten, name), getattr(aten, f"{name}_"))
    for operator in (packet.Tensor, packet.Scalar)
}


def in_place(operator: Operator) -> bool:
    """Whether an operator writes to its first argument, by its name.

    >>> in_place(aten.mul_.Tensor), in_place(aten.mul.Tensor)
    (True, False)
    """
    name: str = operator.name()  # "aten::mul_.Tensor"
    return name.partition(".")[0].endswith("_")


def new_law(operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Distribution | None:
    """The distribution of a new tensor; None if it has none (a value that makes an integer tensor)."""
    law, before, _ = NEW[operator]
    if law is not None:
        return law
    if operator is aten.normal.float_float:
        return Normal(*args[:2])
    value = args[before] if len(args) > before else kwargs.get("fill_value")
    if operator is aten.full.default and kwargs.get("dtype") is None and not isinstance(value, float):
        return None
    return Constant(value)  # type: ignore[arg-type]  # what is no number is refused there


def empty_of(operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Operator, Any, Any]:
    """The call (operator, arguments) that makes the tensor of an operator of `NEW` without its values."""
    _, before, empty = NEW[operator]
    if operator is aten.normal.float_float:
        args = args[2:]
    return empty, args[:before], {k: v for k, v in kwargs.items() if k not in ("generator", "fill_value")}


def affine_of(operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[float, float] | None:
    """(factor, shift) where an operator of `AFFINE` has numbers for arguments."""
    numbers_only = all(isinstance(x, numbers.Real) and not isinstance(x, bool) for x in (*args[1:], *kwargs.values()))
    if len(args) < 2 or not numbers_only or (operator in _DIVISIONS and args[1] == 0):
        return None
    return AFFINE[operator](*args[1:], **kwargs)


_DIVISIONS = {operator for operator, meaning in AFFINE.items() if meaning is _over}
