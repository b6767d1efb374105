"""Probes as a page: charts over the layers, and tables with histograms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from fastinit._io.html import bars, heading, lines, page, table

if TYPE_CHECKING:
    from fastinit._probe.records import Layer, Probe
    from fastinit._probe.statistics import Signal

COLUMNS = ("layer", "kind", "units", "dead", "saturated", "alike")
SHOWN = {
    "activations": ("mean", "std", "norm", "ratio"),
    "gradients": ("mean", "std", "norm", "ratio"),
    "weights": ("std",),
    "weight_gradients": ("std", "norm", "ratio"),
}


def probe_page(probes: Sequence[Probe]) -> str:
    """The page of one probe or several."""
    title = probes[0].title if len(probes) == 1 else f"{len(probes)} initialisations"
    return page(title, _parts(probes), {"probes": [probe.to_table() for probe in probes]})


def _parts(probes: Sequence[Probe]) -> Iterator[str]:
    if len(probes) > 1:
        yield table(
            ("initialisation", "verdict", "forward", "backward", "loss", "in words"),
            [
                (p.title, ", ".join(p.verdict.kinds), p.verdict.forward, p.verdict.backward, p.loss, p.verdict.text)
                for p in probes
            ],
        )
    depth = max(len(probe.layers) for probe in probes)
    for name, what in (("activations", "Activations"), ("gradients", "Gradients of the activations")):
        series = {
            probe.title: [getattr(layer, name).rms for layer in probe.layers] + [None] * (depth - len(probe.layers))
            for probe in probes
        }
        yield lines(
            series, range(1, depth + 1), caption=f"{what}: root mean square by layer", x="layer", y="root mean square"
        )
    for probe in probes:
        yield heading(probe.title)
        yield str(probe.verdict)
        yield table(_columns(), [list(_cells(layer)) for layer in probe.layers])


def _columns() -> list[str]:
    words = [(name.replace("_", " "), numbers) for name, numbers in SHOWN.items()]
    return [*COLUMNS, *(f"{name}{': ' + of if of else ''}" for name, numbers in words for of in ("", *numbers))]


def _cells(layer: Layer) -> Iterator[str | float | int | None]:
    yield from (layer.name, layer.kind, layer.units, layer.dead, layer.saturated, layer.alike)
    for name, numbers in SHOWN.items():
        signal: Signal | None = getattr(layer, name)
        if signal is None:
            yield from [None] * (1 + len(numbers))
        else:
            yield bars(signal.histogram)
            yield from _numbers(signal, numbers)


def _numbers(signal: Signal, names: Iterable[str]) -> Iterator[float]:
    return (getattr(signal, name) for name in names)
