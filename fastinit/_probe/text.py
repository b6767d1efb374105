"""Probes as text: a table with small bars for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fastinit._io.text import aligned
from fastinit._probe.records import Layer, Record

BAR = 8  # characters, each of them DECADE powers of ten
DECADE = 1.0
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_SHOWN = 24  # layers; of deeper networks those in the middle are left out

HEAD = (
    "layer",
    "units",
    "activations",
    "",
    "of first",
    "dead",
    "saturated",
    "gradients",
    "",
    "of last",
    "weight grads",
)


def bar(value: float, largest: float) -> str:
    """A bar on a logarithmic scale: full at the largest value, a character shorter for each power of ten below.

    >>> bar(1.0, 1.0), bar(1e-5, 1.0), bar(0.0, 1.0)
    ('████████', '███     ', '        ')
    """
    if not math.isfinite(value):
        return "!" * BAR
    powers = math.log10(value / largest) / DECADE if value > 0 and math.isfinite(largest) else -math.inf
    eighths = round(8 * (BAR + max(powers, -BAR)))
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()).ljust(BAR)


def probe_text(probe: Record) -> str:
    """The table of a probe, and its verdict."""
    layers = probe.layers
    largest = [
        max((signal.rms for signal in signals if math.isfinite(signal.rms)), default=1.0)
        for signals in ([layer.activations for layer in layers], [layer.gradients for layer in layers])
    ]
    rows = [_row(layer, *largest) for layer in layers]
    if len(rows) > _SHOWN:
        left = len(rows) - _SHOWN + 1
        rows[_SHOWN // 2 : _SHOWN // 2 + left] = [(f"... {left} more", *[""] * (len(HEAD) - 1))]
    loss = f"loss {probe.loss:.4g}" if math.isfinite(probe.loss) else "loss not finite"
    about = f"{probe.title}: {probe.samples:,} samples, {loss} ({probe.loss_name}); root mean squares"
    columns = [column for column in zip(HEAD, *rows, strict=True) if not column[0] or any(column[1:])]
    texts = [i for i, column in enumerate(columns) if column[0] in ("layer", "")]
    return "\n".join([about, *aligned(list(zip(*columns, strict=True)), texts), str(probe.verdict)])


def comparison_text(probes: Sequence[Record]) -> str:
    """A line for every probe: what was probed, the two factors, and the verdict."""
    head = ("network", "activation", "scheme", "forward", "backward", "verdict")
    rows = [
        (
            probe.network,
            probe.activation or "",
            probe.scheme,
            _number(probe.verdict.forward),
            _number(probe.verdict.backward),
            ", ".join(probe.verdict.kinds),
        )
        for probe in probes
    ]
    return "\n".join(aligned([head, *rows], left=(0, 1, 2, 5)))


def _row(layer: Layer, activations: float, gradients: float) -> tuple[str, ...]:
    return (
        layer.name,
        f"{layer.units:,}",
        _number(layer.activations.rms),
        bar(layer.activations.rms, activations),
        _number(layer.activations.ratio),
        f"{layer.dead:.0%}",
        "" if layer.saturated is None else f"{layer.saturated:.0%}",
        _number(layer.gradients.rms),
        bar(layer.gradients.rms, gradients),
        _number(layer.gradients.ratio),
        _number(layer.weight_gradients.rms) if layer.weight_gradients else "",
    )


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2e}" if 0 < abs(value) < 1e-3 or abs(value) >= 1e4 else f"{value:.3g}"
