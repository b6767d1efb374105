"""The numbers of one array of a layer: its activations, weights or gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastinit._runtime.arrays import Array
from fastinit.stats._histograms import Histogram
from fastinit.stats._summary import summarize

# An output is saturated within this share of the range that a bounded activation has: tanh beyond 0.98, where less
# than 4 % of the gradient pass.
SATURATED = 0.01
BOUNDS = {"tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0)}


@dataclass(frozen=True, slots=True)
class Signal:
    """The numbers of one array.

    Attributes:
        mean: of all its elements; NaN where one of them is not finite.
        std: the standard deviation (of the population); NaN likewise.
        norm: the L2 norm of all of them together; infinite where one is not finite.
        rms: the root of the mean square, norm / sqrt(elements), which does not depend on the size.
        ratio: rms over that of the first layer; of gradients over that of the last hidden layer, which they come from.
            NaN where that is 0.
        histogram: of the finite elements.
    """

    mean: float
    std: float
    norm: float
    rms: float
    ratio: float
    histogram: Histogram

    @classmethod
    def of(cls, array: Array) -> Signal:
        """The numbers of an array of floats, for a first layer: `ratio` is 1, or NaN where all is 0."""
        found = summarize(array)
        if found.nonfinite or not found.count:
            mean = std = math.nan
            rms = math.inf if found.nonfinite else 0.0
        else:
            mean, std = found.mean, found.std
            rms = math.hypot(mean, std)
        return cls(mean, std, rms * math.sqrt(found.count), rms, over(rms, rms), Histogram.of(array))

    @classmethod
    def zeros(cls, size: int) -> Signal:
        """The numbers of an array of so many zeros."""
        return cls(0.0, 0.0, 0.0, 0.0, math.nan, Histogram.of([0.0], weights=[size]))


def over(value: float, first: float) -> float:
    """A ratio to another layer's; NaN where there is none."""
    return value / first if first > 0 and not (math.isinf(value) and math.isinf(first)) else math.nan


def dead(outputs: Array) -> float:
    """The share of the units, columns of (samples, units), that are 0 for every sample."""
    return float((outputs == 0).all(axis=0).mean())


def saturated(outputs: Array, kind: str) -> float | None:
    """The share of the outputs that lie at an end of their range; None for a kind of layer without two ends."""
    if kind.lower() not in BOUNDS:
        return None
    low, high = BOUNDS[kind.lower()]
    margin = SATURATED * (high - low)
    return float(((outputs <= low + margin) | (outputs >= high - margin)).mean())


def alike(outputs: Array, positions: int | None = None) -> float:
    """The share of the units, columns of (samples, units), that another unit equals on every sample.

    Units are compared bit by bit, so that units which are NaN are alike too; dead units are. They are compared on at
    most so many positions, evenly spread.
    """
    if positions is not None and len(outputs) > positions:
        outputs = outputs[np.linspace(0, len(outputs) - 1, positions).astype(np.int64)]
    columns = np.ascontiguousarray(outputs.T) + outputs.dtype.type(0)  # -0 becomes 0
    rows: Any = columns.view(np.dtype((np.void, columns.itemsize * columns.shape[1]))).ravel()
    _, counts = np.unique(rows, return_counts=True)
    return float(counts[counts > 1].sum() / len(columns))
