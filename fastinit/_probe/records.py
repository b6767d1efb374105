"""What a probe found, as frozen data: for people, as JSON, as a page."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastinit._probe.statistics import Signal, over
from fastinit._probe.verdicts import Verdict


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


SIGNALS = ("activations", "gradients", "weights", "weight_gradients")


def with_ratios(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """The layers, their `ratio`s those to the first layer that has such a signal."""
    for name in SIGNALS:
        present = [signal.rms for layer in layers if (signal := getattr(layer, name))]
        layers = [
            layer
            if (signal := getattr(layer, name)) is None
            else replace(layer, **{name: replace(signal, ratio=over(signal.rms, present[0]))})
            for layer in layers
        ]
    return tuple(layers)


@dataclass(frozen=True, slots=True)
class Probe:
    """What `probe` found: one forward and backward pass, layer by layer.

    Attributes:
        network: what was probed, e.g. "784-256x30-10" or a module's class.
        scheme: the weights' law; "as it is" for a model that brought its own.
        activation: of the hidden layers; None for a torch module.
        samples: how many.
        seed: of the draws.
        inputs: the data's numbers; None where they are no real numbers.
        loss: before any step.
        layers: in the order in which they ran; the last is the output.
        verdict: in words.
    """

    network: str
    scheme: str
    activation: str | None
    samples: int
    seed: str
    inputs: Signal | None
    loss: float
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
        """All of it as plain values, the ones that JSON holds: what is not finite is None."""
        return {
            "network": self.network,
            "scheme": self.scheme,
            "activation": self.activation,
            "samples": self.samples,
            "seed": self.seed,
            "loss": _plain(self.loss),
            "inputs": _signal(self.inputs),
            "verdict": {name: _plain(getattr(self.verdict, name)) for name in self.verdict.__slots__},
            "layers": [
                {name: _plain(getattr(layer, name)) for name in layer.__slots__ if name not in SIGNALS}
                | {name: _signal(getattr(layer, name)) for name in SIGNALS}
                for layer in self.layers
            ],
        }

    def to_json(self) -> str:
        """`to_table` as strict JSON."""
        return json.dumps(self.to_table(), allow_nan=False)

    def to_html(self) -> str:
        """A page that needs nothing beside it: charts, tables with histograms, and the numbers as JSON."""
        from fastinit._probe.html import probe_page

        return probe_page([self])

    def __str__(self) -> str:
        from fastinit._probe.text import probe_text

        return probe_text(self)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What `compare` found: a probe for every scheme and activation, the schemes of an activation together.

    >>> from fastinit import compare
    >>> grid = compare([64, *[128] * 20, 10], schemes=["xavier_normal", "he_normal"], activations=["relu", "tanh"])
    >>> [(probe.activation, probe.scheme, probe.verdict.kind) for probe in grid]  # doctest: +NORMALIZE_WHITESPACE
    [('relu', 'xavier_normal', 'vanishing'), ('relu', 'he_normal', 'healthy'),
     ('tanh', 'xavier_normal', 'healthy'), ('tanh', 'he_normal', 'healthy')]
    """

    probes: tuple[Probe, ...]

    def __iter__(self) -> Iterator[Probe]:
        return iter(self.probes)

    def __len__(self) -> int:
        return len(self.probes)

    def __getitem__(self, key: int | tuple[str, str]) -> Probe:
        """A probe by its place, or by its scheme and activation.

        Raises:
            KeyError, IndexError: there is none.
        """
        if isinstance(key, int):
            return self.probes[key]
        found = [probe for probe in self.probes if (probe.scheme, probe.activation) == key]
        if not found:
            known = ", ".join(str((probe.scheme, probe.activation)) for probe in self.probes)
            raise KeyError(f"no probe of {key!r}. There are: {known}")
        return found[0]

    def to_table(self) -> dict[str, Any]:
        """All of it as plain values, the ones that JSON holds."""
        return {"probes": [probe.to_table() for probe in self.probes]}

    def to_json(self) -> str:
        """`to_table` as strict JSON."""
        return json.dumps(self.to_table(), allow_nan=False)

    def to_html(self) -> str:
        """A page that needs nothing beside it, as of a `Probe`."""
        from fastinit._probe.html import probe_page

        return probe_page(self.probes)

    def __str__(self) -> str:
        from fastinit._probe.text import grid_text

        return grid_text(self.probes)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return list(value) if isinstance(value, tuple) else value


def _signal(signal: Signal | None) -> dict[str, Any] | None:
    if signal is None:
        return None
    numbers = {name: _plain(getattr(signal, name)) for name in signal.__slots__ if name != "histogram"}
    return numbers | {"histogram": signal.histogram.to_table()}
