"""Probes as a page: charts over the layers, and tables with histograms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fastinit._io.html import Cell, bars, fragment, heading, lines, page, table
from fastinit._probe.records import Layer, Record
from fastinit._probe.statistics import Signal

if TYPE_CHECKING:
    from markupsafe import Markup

_MOST_ROWS = 24  # layers in a notebook; of deeper networks those in the middle are left out
COLUMNS = ("layer", "kind", "units", "dead", "saturated", "alike")
SHOWN = {
    "activations": ("mean", "std", "norm", "ratio"),
    "gradients": ("mean", "std", "norm", "ratio"),
    "weights": ("std",),
    "weight_gradients": ("std", "norm", "ratio"),
}


def probe_page(probes: Sequence[Record]) -> str:
    """The page of one probe or several."""
    title = probes[0].title if len(probes) == 1 else f"{len(probes)} initialisations"
    return page(title, _parts(probes), {"probes": [probe.to_table() for probe in probes]})


def probe_fragment(probe: Record) -> str:
    """What a notebook shows of one probe."""
    return fragment([str(probe.verdict), *_charts([probe]), *_layers(probe, _MOST_ROWS)])


def comparison_fragment(probes: Sequence[Record]) -> str:
    """What a notebook shows of several probes."""
    return fragment([_overview(probes), *_charts(probes)])


def _parts(probes: Sequence[Record]) -> Iterator[str]:
    yield _overview(probes) if len(probes) > 1 else str(probes[0].verdict)
    yield from _charts(probes)
    for probe in probes:
        if len(probes) > 1:
            yield heading(probe.title)
            yield str(probe.verdict)
        yield from _layers(probe)


def _overview(probes: Sequence[Record]) -> Markup:
    losses = ", ".join(dict.fromkeys(probe.loss_name for probe in probes))
    return table(
        ("initialisation", "verdict", "forward", "backward", f"loss ({losses})", "in words"),
        [
            (p.title, ", ".join(p.verdict.kinds), p.verdict.forward, p.verdict.backward, p.loss, p.verdict.text)
            for p in probes
        ],
    )


def _charts(probes: Sequence[Record]) -> Iterator[Markup]:
    depth = max((len(probe.layers) for probe in probes), default=0)
    for name, what in (("activations", "Activations"), ("gradients", "Gradients of the activations")):
        series = {
            probe.title: [getattr(layer, name).rms for layer in probe.layers] + [None] * (depth - len(probe.layers))
            for probe in probes
        }
        yield lines(series, range(depth), caption=f"{what}: root mean square by layer", x="layer", y="root mean square")


def _layers(probe: Record, most: int | None = None) -> Iterator[str]:
    yield f"Loss {probe.loss:.4g} ({probe.loss_name}), {probe.samples:,} samples."
    yield table(_columns(), [list(_cells(layer)) for layer in probe.layers], most)


def _columns() -> list[str]:
    words = {name.replace("_", " "): numbers for name, numbers in SHOWN.items()}
    return [*COLUMNS, *(head for name in words for head in (name, *(f"{name}: {number}" for number in words[name])))]


def _cells(layer: Layer) -> Iterator[Cell]:
    yield from (getattr(layer, name) for name in ("name", *COLUMNS[1:]))
    for name, numbers in SHOWN.items():
        signal: Signal | None = getattr(layer, name)
        yield bars(signal.histogram) if signal else None
        yield from (getattr(signal, number, None) for number in numbers)
