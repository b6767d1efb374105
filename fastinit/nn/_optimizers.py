"""Optimisers: one fused pass over weights, gradients and the optimiser's memory, the clip factor inside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeAlias

import numpy as np

from fastinit._native.library import kernel
from fastinit._native.records import RATES, UPDATE, UPDATE_CHUNK
from fastinit._runtime.arrays import (
    FLOATS,
    Array,
    Arrays,
    address,
    check_contiguous,
    check_form,
    check_target,
    dtype_name,
    paired_arrays,
)
from fastinit._runtime.checks import finite, non_negative, unknown
from fastinit._runtime.threads import PARALLEL_FROM, walk

LearningRate: TypeAlias = float | Callable[[int], float]


@dataclass(eq=False)
class Optimizer:
    """What all optimisers share: `steps` that were made, and memory for the arrays that they were made on.

    An optimiser belongs to one model: it remembers the shapes that it first saw. Its `learning_rate` is a number, or a
    function of the number of steps made before, an int from 0: one of `fastinit.schedules`, for instance.
    """

    memories: ClassVar[int] = 1  # arrays of the parameters' size

    learning_rate: LearningRate
    steps: int = field(default=0, init=False)
    _memory: list[tuple[Array, ...]] = field(default_factory=list, init=False, repr=False)
    _checked: tuple[Any, Array] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self._names = [one.name for one in fields(self) if one.init]
        self.rates()

    @property
    def kernel(self) -> str:
        """The name of its update among the kernels."""
        raise NotImplementedError

    def rates(self, steps: int = 1) -> Array:
        """The numbers that the kernel takes, a row for each of the next `steps` steps.

        Raises:
            TypeError, ValueError: one of them is no number, or out of range.
        """
        given = tuple([getattr(self, name) for name in self._names])
        if self._checked is None or given != self._checked[0]:  # the checks cost as much as a small step's update
            self._checked = given, self._rates()[np.newaxis]
        rates = self._checked[1]
        if steps > 1 or callable(self.learning_rate):
            rates = np.repeat(rates, steps, axis=0)
        if callable(self.learning_rate):
            rates[:, 0] = [_scheduled(self.learning_rate, self.steps + step) for step in range(steps)]
        return rates

    def _rates(self) -> Array:
        """The numbers, checked. The learning rate comes first, 0 where it is a function."""
        raise NotImplementedError

    def memory(self, arrays: list[Array]) -> list[tuple[Array, ...]]:
        """The optimiser's memory for these parameters: zeros at first, then what the steps left.

        Raises:
            ValueError: other parameters than before, by number, shape or dtype.
        """
        shapes = [(array.shape, dtype_name(array.dtype)) for array in arrays]
        if not self.steps and shapes != [(m[0].shape, dtype_name(m[0].dtype)) for m in self._memory]:
            self._memory = [tuple(np.zeros_like(array) for _ in range(self.memories)) for array in arrays]
        known = [(memory[0].shape, dtype_name(memory[0].dtype)) for memory in self._memory]
        if shapes != known:
            raise ValueError(f"an optimizer belongs to one model. Received: {shapes}, before: {known}")
        return self._memory

    def update(self, parameters: Arrays, gradients: Arrays, *, factor: float = 1.0) -> None:
        """One step, in place, for those who bring their own model.

        Args:
            parameters: C-contiguous float32 or float64 arrays: one, a mapping or an iterable of them.
            gradients: as many of the same shapes, dtypes and, in a mapping, names. They are not changed.
            factor: what the gradients are multiplied with on the way: the clip factor.

        Raises:
            TypeError: no such arrays.
            ValueError: shapes or dtypes that do not fit, or other parameters than before. Nothing was written.

        >>> import numpy as np
        >>> weights = np.ones(3, np.float32)
        >>> SGD(0.5).update(weights, np.array([1, 2, 3], np.float32), factor=0.5)
        >>> weights
        array([0.75, 0.5 , 0.25], dtype=float32)
        """
        weights, slopes = _paired(parameters, gradients)
        factor, rates = finite("factor", factor), self.rates()
        memory = self.memory(weights)
        runs = np.empty(len(weights), UPDATE)
        dtypes = [dtype_name(array.dtype) for array in weights]
        runs["kernel"] = [kernel("nn.updates.update_kernel", self.kernel, dtype).address for dtype in dtypes]
        runs["weights"] = [address(array) for array in weights]
        runs["gradients"] = [address(array) for array in slopes]
        runs["first"] = [address(arrays[0]) for arrays in memory]
        runs["second"] = [address(arrays[-1]) for arrays in memory]
        runs["count"] = [array.size for array in weights]
        runs["size"] = [array.itemsize for array in weights]
        runs["factor"], runs["step"], runs["rates"] = factor, self.steps + 1, address(rates)
        large = bool(runs["count"].sum() >= PARALLEL_FROM)
        walk(kernel("nn.updates.listed_updates"), runs, UPDATE_CHUNK, large=large, most=None)
        self.steps += 1


@dataclass(eq=False)
class SGD(Optimizer):
    """Stochastic gradient descent: v = momentum v + g + weight_decay w, w -= learning_rate v.

    Args:
        learning_rate: the step's size, or a function of the step that returns it; 0.01 as in Keras.
        momentum: share of the velocity that is kept (Polyak 1964; Sutskever et al., ICML 2013), 0 to below 1.
        nesterov: look ahead: w -= learning_rate (g + momentum v).
        weight_decay: L2 penalty, added to the gradient.

    Results are torch.optim.SGD's to rounding.

    Raises:
        TypeError, ValueError: a number out of range, or Nesterov without momentum.

    >>> SGD(0.1, momentum=0.9)
    SGD(learning_rate=0.1, steps=0, momentum=0.9, nesterov=False, weight_decay=0.0)
    """

    learning_rate: LearningRate = 0.01
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    @property
    def kernel(self) -> str:
        """The name of its update among the kernels: the momentum, too, may follow a schedule."""
        return "momentum" if self.momentum else "sgd"

    def _rates(self) -> Array:
        momentum = _share("momentum", self.momentum)
        if not isinstance(self.nesterov, bool):
            raise TypeError(f"nesterov must be a bool. Received: nesterov={self.nesterov!r}")
        if self.nesterov and not momentum:
            raise ValueError(f"nesterov needs a momentum. Received: momentum={self.momentum!r}")
        return _numbers(
            _constant(self.learning_rate),
            non_negative("weight_decay", self.weight_decay),
            momentum,
            float(self.nesterov),
        )


@dataclass(eq=False)
class Adam(Optimizer):
    """Adam (Kingma & Ba, ICLR 2015, algorithm 1), with bias correction; `weight_decay` is added to the gradient.

    Results are torch.optim.Adam's to rounding.

    Raises:
        TypeError, ValueError: a number out of range.

    >>> Adam().rates().tolist()[0][2:5]
    [0.9, 0.999, 1e-08]
    """

    kernel = "adam"
    memories = 2

    learning_rate: LearningRate = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    def _rates(self) -> Array:
        decay = non_negative("weight_decay", self.weight_decay)
        return _numbers(
            _constant(self.learning_rate),
            0.0 if self.decoupled else decay,
            _share("beta1", self.beta1),
            _share("beta2", self.beta2),
            non_negative("epsilon", self.epsilon),
            decay if self.decoupled else 0.0,
        )

    decoupled: ClassVar[bool] = False  # whether the weights decay by themselves, beside the gradient


@dataclass(eq=False)
class AdamW(Adam):
    """Adam with decoupled weight decay: w *= 1 - learning_rate weight_decay (Loshchilov & Hutter, ICLR 2019).

    Results are torch.optim.AdamW's to rounding.

    >>> AdamW(1e-3).weight_decay
    0.01
    """

    decoupled = True

    weight_decay: float = 0.01


# The optimizers that have a name.
OPTIMIZERS: dict[str, Callable[[], Optimizer]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW}


def as_optimizer(optimizer: Any, named: dict[str, Optimizer]) -> Optimizer:
    """Return a checked optimizer; for a name the one in `named`, where it is put at first with its defaults.

    Raises:
        TypeError, ValueError: no optimizer, or one of its numbers is out of range.
    """
    if isinstance(optimizer, str):
        if optimizer not in OPTIMIZERS:
            raise unknown("optimizer", optimizer, OPTIMIZERS)
        return named.setdefault(optimizer, OPTIMIZERS[optimizer]())
    if not isinstance(optimizer, Optimizer):
        names = ", ".join(map(repr, OPTIMIZERS))
        received = type(optimizer).__name__
        if isinstance(optimizer, type):
            call = f"; call it: {optimizer.__name__}()" if issubclass(optimizer, Optimizer) else ""
            received = f"the class {optimizer.__module__}.{optimizer.__name__}{call}"
        raise TypeError(f"optimizer must be one of {names}, or an SGD, Adam or AdamW. Received: {received}")
    optimizer.rates()  # a number that was assigned may be out of range
    return optimizer


def _constant(learning_rate: Any) -> float:
    """The learning rate of all steps, checked; 0 where each has its own."""
    return 0.0 if callable(learning_rate) else non_negative("learning_rate", learning_rate)


def _scheduled(schedule: Callable[[int], Any], step: int) -> float:
    """The learning rate of a step, checked. Arrays of no dimensions, as optax's schedules return, are numbers."""
    rate = schedule(step)
    return non_negative(f"learning_rate({step})", rate.item() if getattr(rate, "shape", None) == () else rate)


def _numbers(*values: float) -> Array:
    rates = np.zeros(RATES)
    rates[: len(values)] = values
    return rates


def _share(name: str, value: float) -> float:
    result = non_negative(name, value)
    if result >= 1:
        raise ValueError(f"{name} must be below 1. Received: {name}={value!r}")
    return result


def _paired(parameters: Arrays, gradients: Arrays) -> tuple[list[Array], list[Array]]:
    """The arrays of both, checked to fit."""
    weights, slopes = paired_arrays(parameters, gradients)
    for number, (weight, gradient) in enumerate(zip(weights.arrays, slopes.arrays, strict=True)):
        name, gradient_name = weights.name(number), slopes.name(number)
        check_target(weight, name, FLOATS)
        check_form(gradient, gradient_name, weight.shape, weight.dtype)
        check_contiguous(weight, name)
        check_contiguous(gradient, gradient_name)
    return weights.arrays, slopes.arrays
