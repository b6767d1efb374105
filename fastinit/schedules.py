"""Learning-rate schedules: functions of the step for the `learning_rate` of `SGD`, `Adam` and `AdamW`.

>>> import fastinit as fi
>>> optimizer = fi.Adam(fi.schedules.LinearWarmup(fi.schedules.CosineDecay(0.1, steps=900), steps=100))
>>> [round(optimizer.learning_rate(step), 4) for step in (0, 50, 100, 550, 1000)]
[0.0, 0.05, 0.1, 0.05, 0.0]

A schedule is called with the number of steps that the optimizer made before, an int from 0. A step is one batch, not
one epoch. Any function of that kind is a schedule, also those of optax. These here can be pickled and compared, and
give the same bits on every machine: they are made of arithmetic alone, without libm's `cos` and `pow`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from fastinit._runtime.checks import non_negative, positive_int

__all__ = ["Constant", "CosineDecay", "LinearWarmup", "StepDecay"]


def _power(base: float, exponent: int) -> float:
    """Return base^exponent by squaring."""
    result = 1.0
    while exponent:
        if exponent & 1:
            result *= base
        base, exponent = base * base, exponent >> 1
    return result


def _half_cosine(x: float) -> float:
    """Return (1 + cos(pi x)) / 2 for x from 0 to 1: cos^2(pi x / 2), by the Taylor series of the sine up to pi / 4."""
    angle = math.pi / 2 * min(x, 1 - x)
    sine = term = angle
    for k in range(2, 18, 2):
        term *= -angle * angle / (k * (k + 1))
        sine += term
    return sine * sine if x > 0.5 else 1 - sine * sine


@dataclass(frozen=True)
class Constant:
    """The same learning rate for all steps.

    Args:
        learning_rate: not negative.

    Raises:
        TypeError, ValueError: not such a number.

    >>> Constant(0.1)(1000)
    0.1
    """

    learning_rate: float

    def __post_init__(self) -> None:
        non_negative("learning_rate", self.learning_rate)

    def __call__(self, step: int) -> float:
        """Return the learning rate of a step."""
        return self.learning_rate


@dataclass(frozen=True)
class StepDecay:
    """Multiply the learning rate by a factor every so many steps: torch's StepLR.

    Args:
        learning_rate: of the first steps, not negative.
        every: the number of steps with the same learning rate, at least 1.
        factor: not negative.

    Raises:
        TypeError, ValueError: not such numbers.

    >>> schedule = StepDecay(0.1, every=10, factor=0.5)
    >>> schedule(0), schedule(9), schedule(10), schedule(20)
    (0.1, 0.1, 0.05, 0.025)
    """

    learning_rate: float
    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        non_negative("learning_rate", self.learning_rate)
        positive_int("every", self.every)
        non_negative("factor", self.factor)

    def __call__(self, step: int) -> float:
        """Return the learning rate of a step."""
        return float(self.learning_rate * _power(self.factor, step // self.every))


@dataclass(frozen=True)
class CosineDecay:
    """Lower the learning rate along half a cosine, then keep it (Loshchilov & Hutter, ICLR 2017, without restarts).

    Args:
        learning_rate: of the first step, not negative.
        steps: after how many steps `end` is reached, at least 1.
        end: the learning rate of all later steps, not negative.

    Raises:
        TypeError, ValueError: not such numbers.

    >>> schedule = CosineDecay(0.1, steps=100)
    >>> schedule(0), round(schedule(50), 4), schedule(100), schedule(200)
    (0.1, 0.05, 0.0, 0.0)
    """

    learning_rate: float
    steps: int
    end: float = 0.0

    def __post_init__(self) -> None:
        non_negative("learning_rate", self.learning_rate)
        positive_int("steps", self.steps)
        non_negative("end", self.end)

    def __call__(self, step: int) -> float:
        """Return the learning rate of a step."""
        return self.end + (self.learning_rate - self.end) * _half_cosine(min(step / self.steps, 1))


@dataclass(frozen=True)
class LinearWarmup:
    """Raise the learning rate in a straight line, then follow a schedule (Goyal et al., 2017, arXiv:1706.02677).

    Args:
        learning_rate: what follows: a number that is kept, or a schedule, whose step 0 is the first one after the
            warm-up.
        steps: of the warm-up, at least 1.
        start: the learning rate of the first step, not negative.

    Raises:
        TypeError, ValueError: not such numbers.

    >>> schedule = LinearWarmup(StepDecay(0.1, every=10), steps=4)
    >>> schedule(0), schedule(2), schedule(4), round(schedule(14), 4)
    (0.0, 0.05, 0.1, 0.01)
    """

    learning_rate: float | Callable[[int], float]
    steps: int
    start: float = 0.0

    def __post_init__(self) -> None:
        if not callable(self.learning_rate):
            non_negative("learning_rate", self.learning_rate)
        positive_int("steps", self.steps)
        non_negative("start", self.start)

    def __call__(self, step: int) -> float:
        """Return the learning rate of a step."""
        later = max(0, step - self.steps)
        peak = self.learning_rate(later) if callable(self.learning_rate) else self.learning_rate
        return peak if step >= self.steps else self.start + (peak - self.start) * (step / self.steps)
