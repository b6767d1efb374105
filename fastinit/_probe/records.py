"""The data of a probe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastinit._io.text import plain
from fastinit._probe.statistics import Signal, alike, dead, over, saturated
from fastinit._runtime.arrays import Array


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer, on all samples.

    Attributes:
        name: as its parameters are named.
        kind: what it computes: "relu" of a dense layer, a module's class.
        units: outputs for a sample.
        activations: its outputs, after the activation.
        gradients: of the loss with respect to them.
        weights: its weight's numbers; None where it has none.
        weight_gradients: of the loss with respect to it.
        dead: share of the units that are 0 for every sample.
        saturated: share of the outputs within 1 % of an end of their range, for tanh and sigmoid; None for others.
        alike: share of the units that another one equals on every sample.
    """

    name: str
    kind: str
    units: int
    activations: Signal
    gradients: Signal
    weights: Signal | None
    weight_gradients: Signal | None
    dead: float
    saturated: float | None
    alike: float

    @classmethod
    def of(cls, name: str, kind: str, outputs: Array, units: Array, positions: int | None = None) -> Layer:
        """A layer before the backward pass: without a weight, its gradients 0.

        Args:
            name, kind: of the layer.
            outputs: of any shape.
            units: the same as a matrix, a column for each unit.
            positions: how many of the matrix' rows, evenly spread, units are compared on. Default: all.
        """
        return cls(
            name=name,
            kind=kind,
            units=units.shape[1],
            activations=Signal.of(outputs),
            gradients=Signal.zeros(outputs.size),
            weights=None,
            weight_gradients=None,
            dead=dead(units),
            saturated=saturated(outputs, kind),
            alike=alike(units, positions),
        )


def with_ratios(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """The layers, their `ratio`s those to the layer that their signals come from: of activations and weights the first
    one that has such a signal, of gradients the last hidden one, so that above 1 means growth in both."""
    for name in ("activations", "gradients", "weights", "weight_gradients"):
        present = [signal.rms for layer in layers if (signal := getattr(layer, name))]
        if name in ("gradients", "weight_gradients"):
            present = present[-2:-1] or present  # the output's gradients are of another kind: those of the loss
        layers = [
            layer
            if (signal := getattr(layer, name)) is None
            else replace(layer, **{name: replace(signal, ratio=over(signal.rms, present[0]))})
            for layer in layers
        ]
    return tuple(layers)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a probe found.

    Attributes:
        kinds: those that were found of "exploding", "vanishing", "symmetric" (all units of a layer compute the same,
            and will go on so) and "saturated", the worst first; ("healthy",) where none was.
        text: the same in whole sentences, with the numbers.
        forward: activations of the last hidden layer over those of the first, by their root mean squares.
        backward: gradients of the first layer's activations over those of the last hidden layer's.
        fitting: a scheme under which the same network was probed healthy, where something was found and there is one.
    """

    kinds: tuple[str, ...]
    text: str
    forward: float
    backward: float
    fitting: str | None

    @property
    def kind(self) -> str:
        """The first of `kinds`."""
        return self.kinds[0]

    def __str__(self) -> str:
        return f"{', '.join(self.kinds)}. {self.text}"


@dataclass(frozen=True, slots=True)
class Record:
    """The numbers of a `Probe`, which documents them."""

    network: str
    scheme: str
    activation: str | None
    samples: int
    seed: str
    inputs: Signal | None
    loss: float
    loss_name: str
    layers: tuple[Layer, ...]
    verdict: Verdict

    @property
    def title(self) -> str:
        """What was probed, in one line.

        >>> from fastinit import probe
        >>> probe([8, 16, 4], scheme="zeros").title
        '8-16-4, relu, zeros'
        """
        return ", ".join(part for part in (self.network, self.activation, self.scheme) if part)

    def to_table(self) -> dict[str, Any]:
        """All numbers as plain values, the ones that JSON holds. What is not finite is None."""
        table: dict[str, Any] = plain(self)
        return table
