"""The elementwise laws: what is drawn, as frozen data that was checked when it was made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import ml_dtypes
import numpy as np

from fastinit._core import gaussian
from fastinit._native.records import QUANTILE_32_EDGE
from fastinit._runtime.arrays import DTYPES, Array
from fastinit._runtime.checks import finite, non_negative

# No draw of a normal law lies further from the mean, in sigma: sqrt(-2 ln 2^-54) is 8.652 (docs/stream.md, "Normal").
NORMAL_REACH = 8.66

# Below this mass between the bounds float64 has no digits left for the quantile: about 36 sigma from the mean.
_SMALLEST_MASS = 1e-290


class NoValueError(ValueError):
    """The interval of a distribution holds no value of a dtype."""


class Packed(NamedTuple):
    """A law as the kernels take it: its name in `kernels.fill.BLOCKS`, and numbers (the scale of `add` comes first)."""

    law: str
    numbers: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Distribution:
    """What all laws share. `mean`, `std`, `low` and `high` are those of the values drawn; None where it depends on the
    shape, or where there is no bound."""

    structured: ClassVar[bool] = False
    random: ClassVar[bool] = True  # whether the seed matters
    needs_all: ClassVar[bool] = False  # whether a part of a tensor takes the making of all of it
    portable: ClassVar[bool] = True  # whether another process can be told of it

    @property
    def inner(self) -> tuple[Distribution, ...]:
        """The laws that it is made of."""
        return ()

    def under(self, key: Any) -> Distribution:
        """The same, with the names of other tensors in it as keys under this one; most have no names in them."""
        return self

    def pack(self, dtype: str) -> Packed:
        """The law's numbers for one dtype.

        Raises:
            ValueError: the dtype cannot hold the law.
        """
        raise NotImplementedError

    def check(self, shape: tuple[int, ...], dtype: str) -> None:
        """Raise ValueError for a shape that the law does not exist for, or a dtype that cannot hold it."""
        self.pack(dtype)

    def work_bytes(self, shape: tuple[int, ...], dtype: str) -> int:
        """Return the bytes of work memory that making a whole tensor takes in addition to the tensor itself."""
        return 0

    def affine(self, factor: float, shift: float) -> Distribution:
        """The law of factor * x + shift, where x has this one, drawn as x is.

        Raises:
            ValueError: there is no such law here, a number is out of range, or the factor is negative (the draw of a
                law is not that of its mirror image).
        """
        raise ValueError(f"{self!r} has no affine image here")

    def density(self, x: Array) -> Array:
        """The density at some values, float64.

        Raises:
            ValueError: there is none: the law is one value, or its elements depend on each other or on their places.

        >>> Uniform(-1, 3).density(np.array([-2.0, 0.0]))
        array([0.  , 0.25])
        """
        raise ValueError(f"{self!r} has no density")


def rounded(name: str, value: float, dtype: str) -> float:
    """The nearest value of a dtype, as a float; ValueError, with the argument named, beyond the dtype's range."""
    with np.errstate(over="ignore"):
        result = float(DTYPES[dtype].type(value))
    if not math.isfinite(result):
        raise ValueError(f"{name} is over the range of {dtype}. Received: {name}={value!r}")
    return result


def _largest(dtype: str) -> float:
    """The largest finite value of a dtype."""
    return float(ml_dtypes.finfo(DTYPES[dtype]).max)  # type: ignore[no-untyped-call]


def _next(value: float, towards: float, dtype: str) -> float:
    """The neighbour of a value of a dtype."""
    kind: Any = DTYPES[dtype].type
    return float(np.nextafter(kind(value), kind(towards)))


def _at_most(value: float, dtype: str) -> float:
    """The largest value of a dtype that is not above."""
    near = rounded("high", value, dtype)
    return _next(near, -math.inf, dtype) if near > value else near


def _at_least(value: float, dtype: str) -> float:
    """The smallest value of a dtype that is not below."""
    near = rounded("low", value, dtype)
    return _next(near, math.inf, dtype) if near < value else near


@dataclass(frozen=True, slots=True)
class Constant(Distribution):
    """One value everywhere.

    Args:
        value: that value.

    Raises:
        ValueError: it is not finite.

    >>> Constant(0.5).mean, Constant(0.5).std
    (0.5, 0.0)
    """

    value: float
    random: ClassVar[bool] = False
    std: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", finite("value", self.value))

    @property
    def mean(self) -> float:
        return self.value

    @property
    def low(self) -> float:
        return self.value

    @property
    def high(self) -> float:
        return self.value

    def pack(self, dtype: str) -> Packed:
        return Packed("constant", (rounded("value", self.value, dtype),))


@dataclass(frozen=True, slots=True)
class Uniform(Distribution):
    """Evenly in [low, high); `high` itself is never drawn, in any dtype. With low == high, that value.

    Where both bounds are rounded to one value of a dtype, that value is drawn if it lies in [low, high), and
    otherwise the dtype is refused.

    Args:
        low, high: the bounds.

    Raises:
        ValueError: low > high, or a bound is not finite.

    >>> round(Uniform(-1, 1).std, 6)
    0.57735
    """

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        low, high = finite("low", self.low), finite("high", self.high)
        if low > high:
            raise ValueError(f"low must not be above high. Received: low={low!r}, high={high!r}")
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    @property
    def mean(self) -> float:
        return self.low / 2 + self.high / 2

    @property
    def std(self) -> float:
        return (self.high / 2 - self.low / 2) / math.sqrt(3)

    def pack(self, dtype: str) -> Packed:
        low, high = rounded("low", self.low, dtype), rounded("high", self.high, dtype)
        if self.low == self.high:
            return Packed("constant", (low,))
        width = self.high - self.low
        if not width <= _largest(dtype):
            raise ValueError(f"high - low is over the range of {dtype}. Received: low={self.low!r}, high={self.high!r}")
        last = _next(high, -math.inf, dtype)
        if last < low:  # both bounds are rounded to this value
            if not self.low <= low < self.high:
                raise NoValueError(f"no {dtype} lies in [low, high). Received: low={self.low!r}, high={self.high!r}")
            return Packed("constant", (low + 0.0,))
        return Packed("uniform", (self.low, width, last))

    def density(self, x: Array) -> Array:
        if self.low == self.high:
            return super(Uniform, self).density(x)
        return np.where((self.low <= x) & (x < self.high), 1 / (self.high - self.low), 0.0)

    def affine(self, factor: float, shift: float) -> Uniform:
        return Uniform(factor * self.low + shift, factor * self.high + shift)


@dataclass(frozen=True, slots=True)
class Normal(Distribution):
    """The normal law. With std = 0, the mean. A draw beyond the dtype's range becomes infinite, as in NumPy and torch.

    Args:
        mean, std: of the values; the std is a standard deviation, not a variance.

    Raises:
        ValueError: std is negative, or a parameter is not finite.

    >>> Normal(0, 0.02)
    Normal(mean=0.0, std=0.02)
    """

    mean: float = 0.0
    std: float = 1.0
    low: ClassVar[None] = None
    high: ClassVar[None] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", finite("mean", self.mean))
        object.__setattr__(self, "std", non_negative("std", self.std))

    def pack(self, dtype: str) -> Packed:
        mean = rounded("mean", self.mean, dtype)
        rounded("std", self.std, dtype)
        if self.std == 0:
            return Packed("constant", (mean,))
        return Packed("normal", (self.mean, self.std))

    def density(self, x: Array) -> Array:
        if self.std == 0:
            return super(Normal, self).density(x)
        found: Array = np.exp(-(((x - self.mean) / self.std) ** 2) / 2) / (math.sqrt(2 * math.pi) * self.std)
        return found

    def affine(self, factor: float, shift: float) -> Normal:
        return Normal(factor * self.mean + shift, factor * self.std)


@dataclass(frozen=True, slots=True, init=False, repr=False)
class TruncatedNormal(Distribution):
    """A normal law cut to [low, high], the bounds absolute and inclusive.

    Args:
        mean, std: of the normal law before the cut. The attributes of the same name are those of what is left,
            as with every law; `normal` keeps the law before.
        low, high: the bounds, in units of the values (not of sigma).

    Raises:
        ValueError: std is negative, low > high, a parameter is not finite, or no mass that float64 can resolve lies
            between the bounds (beyond some 36 sigma). With std = 0: the mean is outside the bounds.

    >>> law = TruncatedNormal(0, 1, -2, 2)
    >>> law, round(law.std, 12)
    (TruncatedNormal(mean=0.0, std=1.0, low=-2.0, high=2.0), 0.879625661034)
    """

    normal: Normal
    low: float
    high: float

    def __init__(self, mean: float = 0.0, std: float = 1.0, low: float = -2.0, high: float = 2.0) -> None:
        normal = Normal(mean, std)
        low, high = finite("low", low), finite("high", high)
        if low > high:
            raise ValueError(f"low must not be above high. Received: low={low!r}, high={high!r}")
        if normal.std == 0 and not low <= normal.mean <= high:
            raise ValueError(f"mean must lie in [low, high] where std is 0. Received: mean={mean!r}, {low=}, {high=}")
        object.__setattr__(self, "normal", normal)
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)
        if normal.std and low < high and self._cut().mass < _SMALLEST_MASS:
            where = "too far from the mean, or too close to each other"
            raise ValueError(f"low and high are {where}: no mass is left. Received: {self!r}")

    @classmethod
    def in_sigma(cls, mean: float = 0.0, std: float = 1.0, low: float = -2.0, high: float = 2.0) -> TruncatedNormal:
        """The law whose bounds are counted from the mean, in units of the std before the cut, as Keras, JAX and
        TensorFlow do.

        >>> TruncatedNormal.in_sigma(1, 0.5)
        TruncatedNormal(mean=1.0, std=0.5, low=0.0, high=2.0)
        """
        mean, std = finite("mean", mean), non_negative("std", std)
        return cls(mean, std, mean + std * finite("low", low), mean + std * finite("high", high))

    def __repr__(self) -> str:
        return f"TruncatedNormal({repr(self.normal)[7:-1]}, low={self.low!r}, high={self.high!r})"

    @property
    def simplest(self) -> Normal | TruncatedNormal:
        """The normal law itself, which is drawn several times as fast, where the bounds lie beyond all its values.

        >>> TruncatedNormal(0, 0.02, -2, 2).simplest
        Normal(mean=0.0, std=0.02)
        """
        mean, reach = self.normal.mean, NORMAL_REACH * self.normal.std
        return self.normal if self.low <= mean - reach and mean + reach <= self.high else self

    def _cut(self) -> gaussian.Truncation:
        mean, std = self.normal.mean, self.normal.std
        # Past 1e3 sigma nothing is cut; the clamp keeps the decimals short.
        a, b = ((bound - mean) / std for bound in (self.low, self.high))
        return gaussian.truncation(max(-1e3, min(1e3, a)), max(-1e3, min(1e3, b)))

    @property
    def _degenerate(self) -> bool:
        return self.normal.std == 0 or self.low == self.high

    @property
    def mean(self) -> float:
        if self._degenerate:
            return self.low if self.low == self.high else self.normal.mean
        return self.normal.mean + self.normal.std * self._cut().mean

    @property
    def std(self) -> float:
        return 0.0 if self._degenerate else self.normal.std * self._cut().std

    def density(self, x: Array) -> Array:
        if self._degenerate:
            return super(TruncatedNormal, self).density(x)
        inside = (self.low <= x) & (x <= self.high)
        return np.where(inside, self.normal.density(x) / self._cut().mass, 0.0)

    def affine(self, factor: float, shift: float) -> TruncatedNormal:
        law = self.normal.affine(factor, shift)
        return TruncatedNormal(law.mean, law.std, factor * self.low + shift, factor * self.high + shift)

    def pack(self, dtype: str) -> Packed:
        if self._degenerate:
            return Constant(self.mean).pack(dtype)
        self.normal.pack(dtype)
        low, high = _at_least(self.low, dtype), _at_most(self.high, dtype)
        if low > high:
            raise NoValueError(f"no {dtype} lies in [low, high]. Received: low={self.low!r}, high={self.high!r}")
        cut = self._cut()
        numbers = self.normal.mean, self.normal.std, low, high, cut.mass
        if dtype == "float64":
            return Packed("truncated", (*numbers, cut.below, cut.above))
        if max(abs(cut.below - 0.5), abs(cut.above - 0.5)) <= QUANTILE_32_EDGE:
            return Packed("narrow_truncated", (*numbers, cut.centre))
        return Packed("truncated", (*numbers, cut.centre, *cut.in_tail_units()))


def as_drawn_by_frameworks(distribution: Distribution, dtype: str) -> Distribution:
    """The distribution, or a constant where its interval holds no value of a dtype: what the lower bound is rounded to.

    JAX and Keras round the bounds first, and then draw between equal ones.

    >>> as_drawn_by_frameworks(Uniform(1.0001, 1.0002), "float16")
    Constant(value=1.0)
    """
    if isinstance(distribution, Uniform | TruncatedNormal):
        try:
            distribution.pack(dtype)
        except NoValueError:
            return Constant(rounded("low", distribution.low, dtype))
    return distribution
