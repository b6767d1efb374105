"""Which law do numbers look like: Kolmogorov's distance of a sample from a law, and the nearest of the simple laws.

Floats are rounded, and a sample of bfloat16 has many equal values. So a law F is compared with the sample at the
boundaries between neighbouring values of the dtype, where the distance is that of the numbers before they were rounded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from fastinit._core.distributions import Constant, Distribution, Normal, TruncatedNormal, Uniform, rounded
from fastinit._runtime.arrays import DTYPES, Array
from fastinit.stats._summary import Summary

FEWEST = 100  # elements below which every law fits
# A law is taken for wrong where its own numbers would be as far from it once in a hundred thousand times: a model has
# some hundred tensors, and each has several chances.
ALPHA = 1e-5
# What generators leave out at the ends of a law: of a float32 they draw 24 bits, ours and the frameworks'.
_UNDRAWN = 2.0**-23
_CHANCE = 4.9  # sigma; ALPHA for a few tests at once
_EXACT = 5e-6  # how well a quick summary knows a std, on CPUs with short vectors too


def _special() -> Any:
    """SciPy's special functions: 0.15 s to import, which commands that only write need not wait for."""
    import scipy.special

    return scipy.special


@dataclass(frozen=True, slots=True)
class Fit:
    """The law that numbers look like.

    Attributes:
        distribution: Constant, Uniform, Normal or TruncatedNormal with its parameters; None where none of them fits, or
            there are fewer than 100 different numbers to tell by.
        ks: Kolmogorov's distance from it, or from the nearest one where none fits; NaN where none was tried.
        p: how often numbers of that law are as far from it or farther. The parameters come from the numbers
            themselves, so it is too large (Lilliefors, JASA 62, 1967; at most by a factor of some ten for a sample
            that is all of them, hardly where the sample is a small part of them): a law is let pass a little too
            often, and never refused too often.
    """

    distribution: Distribution | None
    ks: float
    p: float


@dataclass(frozen=True, slots=True)
class Sample:
    """Finite numbers of one dtype, sorted: each once, with how many there are up to it, the shares below it and up to
    it, and the boundaries towards its neighbours in the dtype."""

    size: int
    values: Array
    counted: Array
    below: Array
    up_to: Array
    lower: Array
    upper: Array

    @classmethod
    def of(cls, numbers: Array, dtype: str) -> Sample:
        """Of some elements of a tensor; those that are not finite are left out.

        Args:
            numbers: of the dtype, or of float64 with its values.
            dtype: one of the four that can be drawn.
        """
        wide = numbers.reshape(-1).astype(np.float64 if dtype == "float64" else np.float32)  # NumPy sorts no bfloat16
        wide = np.sort(wide[np.isfinite(wide)])
        first = np.flatnonzero(np.concatenate([[True], wide[1:] != wide[:-1]])[: wide.size])
        values = wide[first].astype(np.float64)
        ends = np.append(first[1:], wide.size)
        lower, upper = boundaries(values, dtype)
        size = max(1, wide.size)
        return cls(wide.size, values, ends, first / size, ends / size, lower, upper)


def boundaries(values: Array, dtype: str) -> tuple[Array, Array]:
    """Where numbers, in ascending order, begin and cease to be rounded to each value: midway to its neighbours.

    Both are the value itself in float64, and in float32 where the steps are below a millionth of the range: half of
    the work.
    """
    if dtype == "float64" or (dtype == "float32" and _is_fine(values)):
        return values, values
    own = values.astype(DTYPES[dtype])
    infinity = DTYPES[dtype].type(math.inf)
    with np.errstate(over="ignore", under="ignore"):
        beneath = np.nextafter(own, -infinity).astype(np.float64)
        above = np.nextafter(own, infinity).astype(np.float64)
    return (values + beneath) / 2, (values + above) / 2


def _is_fine(values: Array) -> bool:
    return values.size > 0 and bool(np.abs(values[[0, -1]]).max() * 2.0**-23 < 1e-6 * (values[-1] - values[0]))


def cdf(law: Distribution, x: Array) -> Array:
    """The share of an elementwise law up to x, float64.

    Raises:
        TypeError: another law.
    """
    match law:
        case Constant() | Uniform() if law.low == law.high:
            return (x >= law.low).astype(np.float64)
        case Uniform():
            half = 0.5 if math.isinf(law.high - law.low) else 1.0  # only there: half of a subnormal number may be 0
            with np.errstate(over="ignore"):
                return np.clip((x * half - law.low * half) / (law.high * half - law.low * half), 0, 1)
        case Normal():
            return _normal(law, x)
        case TruncatedNormal() if law.normal.std == 0 or law.low == law.high:
            return (x >= law.mean).astype(np.float64)
        case TruncatedNormal():
            # Upper tails above the mean: lower ones are 1 there, without digits.
            share = _upper if law.low > law.normal.mean else _normal
            first, last = share(law.normal, np.array([law.low, law.high]))
            inside = np.clip(x, law.low, law.high)
            shares: Array = np.divide(share(law.normal, inside) - first, last - first)
            return shares
    raise TypeError(f"law must be an elementwise one. Received: {law!r}")


def _normal(law: Normal, x: Array) -> Array:
    if law.std == 0:
        return (x >= law.mean).astype(np.float64)
    shares: Array = _special().ndtr(_sigmas(law, x))
    return shares


def _upper(law: Normal, x: Array) -> Array:
    shares: Array = _special().ndtr(-_sigmas(law, x))
    return shares


def _sigmas(law: Normal, x: Array) -> Array:
    """(x - mean) / std; infinite where that is beyond float64's range."""
    half = 0.5 if law.std > 1 else 1.0  # the difference alone may be beyond it
    with np.errstate(over="ignore"):
        return (x * half - law.mean * half) / (law.std * half)


def _shares(law: Distribution, values: Array, lower: Array, upper: Array, dtype: str) -> tuple[Array, Array]:
    """The share of a law in a dtype below each value, and up to it. What would be rounded beyond the law's bounds is
    drawn as the outermost value inside."""
    up_to = cdf(law, upper)
    below = up_to if lower is upper else cdf(law, lower)
    if isinstance(law, Uniform | TruncatedNormal):
        try:
            numbers = law.pack(dtype).numbers
        except ValueError:  # not drawn in this dtype
            return below, up_to
        if len(numbers) > 1:
            bottom, top = (-math.inf, numbers[2]) if isinstance(law, Uniform) else numbers[2:4]
            below, up_to = np.where(values <= bottom, 0.0, below), np.where(values >= top, 1.0, up_to)
    elif isinstance(law, Constant):
        (value,) = law.pack(dtype).numbers
        below, up_to = (values > value).astype(np.float64), (values >= value).astype(np.float64)
    return below, up_to


def distance(sample: Sample, law: Distribution, dtype: str) -> tuple[float, float]:
    """Kolmogorov's distance of a sample from a law drawn in a dtype, and how often it is as large or larger.

    The second number is right where the law was known before the sample, by Kolmogorov's limit with the correction of
    Stephens (J. R. Statist. Soc. B 32, 1970) for its size; with many equal values it is too large. (NaN, NaN) of
    nothing.

    Raises:
        TypeError: no elementwise law.

    >>> numbers = np.linspace(0.005, 0.995, 100)
    >>> ks, p = distance(Sample.of(numbers, "float64"), Uniform(0, 1), "float64")
    >>> round(ks, 6), p > 0.999
    (0.005, True)
    """
    if not sample.size:
        return math.nan, math.nan
    below, up_to = _shares(law, sample.values, sample.lower, sample.upper, dtype)
    ks = float(max(np.abs(sample.up_to - up_to).max(), np.abs(sample.below - below).max()))
    root = math.sqrt(sample.size)
    return ks, float(_special().kolmogorov(ks * (root + 0.12 + 0.11 / root)))


def reaches(found: Summary, law: Distribution, dtype: str) -> bool:
    """Whether the smallest and the largest of all elements lie where those of a law do: not beyond its bounds, not so
    far out that hardly ever one is drawn there, and not so far in that many are missing.

    It sees what no sample does: heavy tails, and a normal law that was cut at 4 sigma.
    """
    number = found.count - found.nonfinite
    values = np.array([found.min, found.max])
    below, up_to = _shares(law, values, *boundaries(values, dtype), dtype)
    bounds = law.low, law.high  # type: ignore[attr-defined]
    outwards, beyond = (up_to[0], 1 - below[1]), (below[0], 1 - up_to[1])
    for bound, share, missing in zip(bounds, outwards, beyond, strict=True):
        if number * (missing - _UNDRAWN) > -math.log(ALPHA):
            return False
        if bound is None and number * share < ALPHA:
            return False
    return inside(found, law, dtype)


def inside(found: Summary, law: Distribution, dtype: str) -> bool:
    """Whether all elements are inside a law's bounds, each of which may have been rounded."""
    low, high = (getattr(law, name, None) for name in ("low", "high"))
    return (low is None or found.min >= min(low, rounded("low", low, dtype))) and (
        high is None or found.max <= max(high, rounded("high", high, dtype))
    )


def same_moments(found: Summary, law: Distribution, slack: float) -> tuple[bool, bool]:
    """Whether mean and std of all elements are those of a law, as far as chance lets them; `slack` is what rounding may
    add to either."""
    number = found.count - found.nonfinite
    mean, std = law.mean, law.std  # type: ignore[attr-defined]
    slack += _EXACT * max(abs(mean), std)
    # The std of a mean, and of a std of numbers whose fourth moment is at most that of a normal law.
    return (
        abs(found.mean - mean) <= _CHANCE * std / math.sqrt(number) + slack,
        abs(found.std - std) <= _CHANCE * std / math.sqrt(2 * number) + slack,
    )


def rounding(law: Distribution, dtype: str) -> float:
    """What the rounding of a law's draws may do to their mean and std: each has an error of up to half a step, evenly
    spread, and at the bounds some are moved by a whole one."""
    mean, std = law.mean, law.std  # type: ignore[attr-defined]
    step = _epsilon(dtype) * (abs(mean) + std)
    return float(math.hypot(std, math.sqrt(2) * step) - std)


def _epsilon(dtype: str) -> float:
    return float(ml_dtypes.finfo(DTYPES[dtype]).eps)  # type: ignore[no-untyped-call]


def fit(sample: Sample, found: Summary, dtype: str) -> Fit:
    """The law that a tensor looks like.

    Constant, uniform (between the extremes) or normal (mean and std) where one of these fits; of two the likelier.
    Where neither does, a normal law cut at the extremes, its mean and std before the cut by maximum likelihood.

    Args:
        sample: of the tensor's elements.
        found: of all of them.
        dtype: one of the four that can be drawn.

    >>> from fastinit import normal, summarize
    >>> x = normal(5000, std=0.02, seed=0)
    >>> fit(Sample.of(x, "float32"), summarize(x), "float32").distribution.std.__round__(3)
    0.02
    """
    number = found.count - found.nonfinite
    if number > 1 and found.min == found.max:
        return Fit(Constant(found.min), 0.0, 1.0)
    if number < FEWEST or not math.isfinite(found.std) or not found.std:
        return Fit(None, math.nan, math.nan)
    uniform, normal = Uniform(found.min, found.max), Normal(found.mean, found.std)
    # The likelihoods of all elements: width^-n, and (std sqrt(2 pi e))^-n.
    wide = found.max / 2 - found.min / 2 > found.std / 2 * math.sqrt(2 * math.pi * math.e)
    tried = []
    for law in (normal, uniform) if wide else (uniform, normal):
        tried.append(Fit(law, *distance(sample, law, dtype)))
        # The extremes are the bounds but for a step, and give the moments, which know more than the sample.
        alike = all(same_moments(found, law, 2 * _epsilon(dtype) * max(abs(found.min), abs(found.max))))
        if tried[-1].p >= ALPHA and alike and reaches(found, law, dtype):
            return tried[-1]
    cut = truncated(found)
    if cut is not None:
        tried.append(Fit(cut, *distance(sample, cut, dtype)))
        if tried[-1].p >= ALPHA and reaches(found, cut, dtype):
            return tried[-1]
    nearest = min(tried, key=lambda one: one.ks)
    return Fit(None, nearest.ks, nearest.p)


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(96)
_POWERS = np.stack([_NODES, _NODES**2])
_FARTHEST = 6.0  # sigma from the middle of the bounds: beyond, nothing is cut that a float32 would show


def truncated(found: Summary) -> TruncatedNormal | None:
    """The normal law cut at the extremes whose mean and std are those of the elements; None where there is none.

    With density exp(a t + b t^2) / Z between the bounds this is the maximum of the likelihood, and the only one, for
    its logarithm is concave in a and b (Cohen, Ann. Math. Statist. 21, 1950). Newton's method, the integrals by
    Gauss and Legendre.
    """
    half, middle = found.max / 2 - found.min / 2, found.max / 2 + found.min / 2
    mean, variance = (found.mean - middle) / half, (found.std / half) ** 2
    if not _FARTHEST**-2 < variance < 1:
        return None
    wanted = np.array([mean, variance + mean**2])
    numbers = np.array([mean, -0.5]) / variance
    for _ in range(50):
        exponent = numbers @ _POWERS
        shares = _WEIGHTS * np.exp(exponent - exponent.max())
        shares /= shares.sum()
        moments = _POWERS @ shares
        spread = (_POWERS * shares) @ _POWERS.T - np.outer(moments, moments)
        step = np.linalg.solve(spread, wanted - moments)
        numbers += step / max(1.0, float(np.abs(step).max()) / 4)  # no step runs away from a poor beginning
        if np.abs(step).max() < 1e-9 * (1 + np.abs(numbers).max()):
            a, b = map(float, numbers)
            if b >= 0:
                return None
            std = half * math.sqrt(-0.5 / b)
            try:
                return TruncatedNormal(middle - half * a / (2 * b), std, found.min, found.max)
            except ValueError:  # no mass between the bounds
                return None
    return None
