"""Histograms as plain data: what pages and plots show, and what JSON holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastinit._runtime.arrays import Array
from fastinit._runtime.checks import finite, positive_int, whole

BINS = 64
_LARGEST = float(np.finfo(np.float64).max)
_NARROWEST = 1e-300  # half of a range around one value: below, float64 has no digits left for the edges


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many values lie in each of some bins of equal width; a bin holds its lower edge, the last one both.

    Attributes:
        low: the first edge.
        high: the last one.
        counts: one for each bin.

    Raises:
        ValueError: no bin, a negative count, low is not below high, or one of them is not finite.

    >>> Histogram.of([0.0, 1.0, 1.0, 2.0, float("nan")], bins=2)
    Histogram(low=0.0, high=2.0, counts=(1, 3))
    """

    low: float
    high: float
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        low, high, counts = finite("low", self.low), finite("high", self.high), tuple(self.counts)
        if not all(type(count) is int for count in counts):
            counts = tuple(map(whole, counts))
        if not low < high:
            raise ValueError(f"low must be below high. Received: low={low!r}, high={high!r}")
        if not counts or min(counts) < 0:
            raise ValueError(
                f"counts must hold a number for each bin, none of them negative. Received: {counts!r:.100}"
            )
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)
        object.__setattr__(self, "counts", counts)

    @classmethod
    def of(
        cls,
        values: Any,
        bins: int = BINS,
        low: float | None = None,
        high: float | None = None,
        *,
        weights: Any = None,
    ) -> Histogram:
        """Count some numbers. Numbers that are not finite, or not in [low, high], are left out.

        Args:
            values: an array of any real dtype and shape, or what NumPy makes one of.
            bins: how many.
            low, high: the first and the last edge. Default: the smallest and the largest finite value. A range of one
                value is widened by half of it on both sides (zero: to -0.5, 0.5), and without a value it is [0, 1].
            weights: how often each of the values counts, as integers. Default: once.

        Raises:
            TypeError: values that are no real numbers, or another argument that is none.
            ValueError: low is above high, or one of them is not finite.

        >>> Histogram.of([1.0, 1.0], bins=2)
        Histogram(low=0.5, high=1.5, counts=(0, 2))
        >>> Histogram.of([0.0, 1.0, 2.0], bins=2, weights=[1, 2, 1])
        Histogram(low=0.0, high=2.0, counts=(1, 3))
        """
        bins = positive_int("bins", bins)
        found = np.asarray(values)
        if found.dtype.kind not in "biufV":  # ml_dtypes' floats are of kind V
            raise TypeError(f"values must be real numbers. Received: {found.dtype}")
        wide = found.reshape(-1).astype(np.float64)
        valid = np.isfinite(wide)
        wide = wide[valid]
        first, last = _range(wide, low, high)
        # Given the edges, NumPy sorts blocks and finds the edges in them: no width that overflows or rounds to nothing.
        weights = None if weights is None else np.reshape(weights, -1)[valid]
        counts, _ = np.histogram(wide, _edges(first, last, bins), weights=weights)
        return cls(first, last, tuple(counts.tolist()))

    @property
    def edges(self) -> Array:
        """The edges of the bins, float64, one more than there are bins.

        >>> Histogram(0, 1, (3, 0, 1, 2)).edges
        array([0.  , 0.25, 0.5 , 0.75, 1.  ])
        """
        return _edges(self.low, self.high, len(self.counts))

    @property
    def total(self) -> int:
        """How many values there are in all bins."""
        return sum(self.counts)

    def to_table(self) -> dict[str, Any]:
        """The histogram as plain values, the ones that JSON holds.

        >>> Histogram(0, 1, (3, 1)).to_table()
        {'low': 0.0, 'high': 1.0, 'counts': [3, 1]}
        """
        return {"low": self.low, "high": self.high, "counts": list(self.counts)}

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Histogram:
        """The histogram that `to_table` made a table of.

        >>> Histogram.from_table(Histogram(0, 1, (3, 1)).to_table())
        Histogram(low=0.0, high=1.0, counts=(3, 1))
        """
        return cls(table["low"], table["high"], tuple(table["counts"]))


def _range(values: Array, low: float | None, high: float | None) -> tuple[float, float]:
    """The first and the last edge, one below the other."""
    first = None if low is None else finite("low", low)
    last = None if high is None else finite("high", high)
    if first is not None and last is not None and first > last:
        raise ValueError(f"low must not be above high. Received: low={low!r}, high={high!r}")
    if first is None and last is None and not values.size:
        return 0.0, 1.0
    ends = [end for end in (first, last) if end is not None]
    first = float(values.min(initial=min(ends, default=math.inf))) if first is None else first
    last = float(values.max(initial=max(ends, default=-math.inf))) if last is None else last
    if first < last:
        return first, last
    half = max(abs(first) / 2, _NARROWEST) if first else 0.5
    return max(first - half, -_LARGEST), min(first + half, _LARGEST)


def _edges(low: float, high: float, bins: int) -> Array:
    if math.isinf(high - low):  # the width itself is over float64's range
        return 2 * np.linspace(low / 2, high / 2, bins + 1)
    return np.linspace(low, high, bins + 1)
