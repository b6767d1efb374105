"""The results of `probe` and `compare`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fastinit._probe.html import comparison_fragment, probe_fragment, probe_page
from fastinit._probe.records import Record
from fastinit._probe.text import comparison_text, probe_text


@dataclass(frozen=True, slots=True)
class Probe(Record):
    """The result of `probe`: one forward and backward pass, layer by layer.

    Attributes:
        network: what was probed, e.g. "784-256x30-10" or a module's class.
        scheme: the weights' distribution; "as it is" for a model that brought its own.
        activation: of the hidden layers; None for a torch module.
        samples: how many.
        seed: the key of the draws, as text: "Key(0)".
        inputs: the data's numbers; None where they are no real numbers.
        loss: before any step; `loss_name` says which: "softmax cross-entropy", for example.
        layers: in the order in which they ran; the last is the output.
        verdict: in words.
    """

    def to_json(self) -> str:
        """`to_table` as strict JSON."""
        return json.dumps(self.to_table(), allow_nan=False)

    def to_html(self) -> str:
        """A page that needs no other file: charts, tables with histograms, and the numbers as JSON."""
        return probe_page([self])

    def _repr_html_(self) -> str:
        """What notebooks show: the charts and the table of `to_html`, of deep networks the ends."""
        return probe_fragment(self)

    def __str__(self) -> str:
        return probe_text(self)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of `compare`: a probe for every scheme and activation, the schemes of an activation together.

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
        """All numbers as plain values, the ones that JSON holds."""
        return {"probes": [probe.to_table() for probe in self.probes]}

    def to_json(self) -> str:
        """`to_table` as strict JSON."""
        return json.dumps(self.to_table(), allow_nan=False)

    def to_html(self) -> str:
        """A page that needs no other file, as of a `Probe`."""
        return probe_page(self.probes)

    def _repr_html_(self) -> str:
        """What notebooks show: the charts, and a row for every probe."""
        return comparison_fragment(self.probes)

    def __str__(self) -> str:
        return comparison_text(self.probes)
