"""The grid of verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastinit._probe.results import Probe
from fastinit.plots._probes import Probes, as_probes, common_title
from fastinit.plots._style import panels, shortened, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Of each kind a tint, on which black can be read, and a sign.
SIGNS = {
    "healthy": ("#B3E2D5", "✓"),
    "exploding": ("#F2B48C", "▲"),
    "vanishing": ("#A9D3EE", "▼"),
    "symmetric": ("#F0D3E4", "="),
    "saturated": ("#F7DDA0", "■"),
}


def grid(comparison: Probes) -> Figure:
    """The verdicts of a comparison: a row for every scheme, a column for every activation.

    Args:
        comparison: a `Comparison`, or several probes of one network.

    Returns:
        A figure; in every cell the verdict's words, the worst one's colour and sign, and by how much activations and
        gradients change through the hidden layers.

    Raises:
        TypeError, ValueError: something else, no probe, or two of one scheme and activation.
        ImportError: matplotlib is missing.

    >>> from fastinit import compare
    >>> found = compare([64, *[32] * 9, 10], ["zeros", "xavier_normal", "he_normal"], ["relu", "tanh"])
    >>> [text.get_text() for text in grid(found).axes[0].texts][::2][-1]
    '✓ healthy'
    """
    probes = as_probes(comparison)
    cells = {(probe.scheme, probe.activation or probe.network): probe for probe in probes}
    if len(cells) != len(probes):
        raise ValueError("comparison must have one probe for each scheme and activation, of one network")
    rows, columns = (list(dict.fromkeys(key[i] for key in cells)) for i in range(2))
    with styled():
        figure, [axes] = panels(1, 1, (1.6 + 1.55 * len(columns), 0.75 + 0.52 * len(rows)))
        for (row, column), probe in cells.items():
            _cell(axes, columns.index(column), rows.index(row), probe)
        axes.set_xticks(range(len(columns)), [shortened(name, 24) for name in columns])
        axes.set_yticks(range(len(rows)), [shortened(name) for name in rows])
        axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
        axes.tick_params(length=0, top=False, bottom=False, labeltop=True, labelbottom=False)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        figure.suptitle(common_title(probes))
    return figure


def _cell(axes: Axes, x: int, y: int, probe: Probe) -> None:
    from matplotlib.patches import Rectangle

    verdict = probe.verdict
    colour, sign = SIGNS[verdict.kind]
    axes.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=colour, edgecolor="#444444", linewidth=0.6))
    axes.text(x, y - 0.16, f"{sign} {', '.join(verdict.kinds)}", ha="center", va="center", size=8.5)
    factors = f"→ {_factor(verdict.forward)}   ← {_factor(verdict.backward)}"
    axes.text(x, y + 0.22, factors, ha="center", va="center", size=7)


def _factor(value: float) -> str:
    return f"{value:.2g}×" if value < 1e4 else f"{value:.0e}×"
