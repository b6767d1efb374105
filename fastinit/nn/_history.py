"""What happened in training, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastinit._io.html import fragment, lines, table
from fastinit._runtime.arrays import Array

_MOST_ROWS = 20  # in a notebook


@dataclass
class History:
    """What happened in each epoch. With a population, every entry is an array of its members' numbers.

    Attributes:
        loss: mean over the samples, by their weights.
        gradient_norm: mean L2 norm of the gradient before clipping.
        clipped: share of the steps whose gradient was clipped.
        validation: score on the validation data; empty without them.
    """

    loss: list[Any] = field(default_factory=list)
    gradient_norm: list[Any] = field(default_factory=list)
    clipped: list[Any] = field(default_factory=list)
    validation: list[Any] = field(default_factory=list)

    def _add(self, records: Array, weights: Array, largest: float | None) -> None:
        """Add an epoch: the losses and norms of its steps (steps, [members,] 2), and how many samples each step had."""
        losses, norms = records[..., 0], records[..., 1]
        clipped = norms > (math.inf if largest is None else largest)
        means = np.average(losses, axis=0, weights=weights), norms.mean(axis=0), clipped.mean(axis=0)
        for entries, mean in zip((self.loss, self.gradient_norm, self.clipped), means, strict=True):
            entries.append(mean if np.ndim(mean) else float(mean))

    def _repr_html_(self) -> str:
        """The table and the chart that notebooks show; of a population its medians."""
        columns = {name: _medians(entries) for name, entries in vars(self).items() if entries}
        epochs = range(1, len(self.loss) + 1)
        members = f", medians of {np.size(self.loss[0])} members" if self.loss and np.ndim(self.loss[0]) else ""
        rows = [[epoch, *row] for epoch, *row in zip(epochs, *columns.values(), strict=True)]
        parts: list[str] = [table(["epoch", *(name.replace("_", " ") for name in columns)], rows, most=_MOST_ROWS)]
        if self.loss:
            drawn = {name.replace("_", " "): columns[name] for name in ("loss", "gradient_norm") if name in columns}
            parts.insert(0, lines(drawn, epochs, caption=f"Loss and norm of the gradient by epoch{members}", x="epoch"))
        return fragment(parts)


def _medians(entries: Sequence[Any]) -> list[float]:
    """A number for each epoch; what is not finite counts as the largest."""
    values = np.asarray(entries, np.float64)
    if values.ndim < 2:
        return [float(value) for value in values]
    ordered = np.where(np.isfinite(values), values, math.inf)
    return [float(value) for value in np.quantile(ordered, 0.5, axis=1, method="inverted_cdf")]
