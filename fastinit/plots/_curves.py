"""Curves over layers or epochs; what a logarithmic axis cannot hold stands at its ends, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastinit._io.series import HIGHEST, LOWEST, NOT_FINITE, below_word
from fastinit._runtime.arrays import Array
from fastinit.nn._history import History
from fastinit.plots._probes import Probes, as_probes, common_title, labels
from fastinit.plots._style import legend, panels, style, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DECADES = 2.0  # that a logarithmic axis shows at least: what hardly changes shall look flat
_ROW = 0.055  # of the axis' height, for a row of marks at its end, and for the word that says what they are
_LAST = 307.0  # powers of ten at which an axis ends, at most
_TICKS = 8  # at most
_MARKED = 10  # marks on a curve, about
_QUANTILES = (0.1, 0.9)  # of a population, around its median

TITLES = {
    "loss": "loss",
    "gradient_norm": "norm of the gradient",
    "clipped": "share of the steps that were clipped",
    "validation": "score on the validation data",
}
LOGARITHMIC = ("loss", "gradient_norm")


@dataclass(frozen=True)
class Curve:
    """A line over `first`, `first` + 1, ..., and a band around it."""

    label: str
    values: Array
    low: Array | None = None
    high: Array | None = None
    first: int = 1


def layers(probes: Probes) -> Figure:
    """The root mean square of activations and of gradients, layer by layer: a line for every probe.

    Args:
        probes: a `Probe`, a `Comparison`, or several probes.

    Returns:
        A figure of two panels, its layers numbered from 0, as in their names, the last being the output. What is 0 or
        not finite is marked at the bottom or the top.

    Raises:
        TypeError, ValueError: something else, or no probe.
        ImportError: matplotlib is missing.

    >>> from fastinit import compare
    >>> figure = layers(compare([64, *[32] * 10, 10], ["normal(std=0.01)", "he_normal"]))
    >>> [axes.get_title("left") for axes in figure.axes]
    ['activations, root mean square', 'gradients, root mean square']
    """
    found = as_probes(probes)
    named = labels(found, verdicts=True)
    with styled():
        figure, both = panels(1, 2, (8.3, 2.7 + 0.22 * -(-len(found) // 3)))
        for axes, name in zip(both, ("activations", "gradients"), strict=True):
            sizes = [np.array([getattr(layer, name).rms for layer in probe.layers]) for probe in found]
            draw(axes, [Curve(label, values, first=0) for label, values in zip(named, sizes, strict=True)], log=True)
            axes.set_title(f"{name}, root mean square")
            axes.set_xlabel("layer")
        figure.suptitle(common_title(found))
        legend(figure)
    return figure


def history(histories: History | Mapping[str, History]) -> Figure:
    """Training curves, epoch by epoch: loss, norm of the gradient, share of the steps clipped, validation score.

    Args:
        histories: what `MLP.fit` returned, or several by their names. Of a population the median is shown, and the
            band between the quantiles 0.1 and 0.9.

    Returns:
        A figure with a panel for everything that there is something to say about.

    Raises:
        TypeError, ValueError: something else, or no epoch.
        ImportError: matplotlib is missing.

    >>> from fastinit import History
    >>> figure = history(History(loss=[2.3, 0.7], gradient_norm=[1.0, 3.0], clipped=[0.0, 0.5]))
    >>> len(figure.axes)
    3
    """
    named = _histories(histories)
    shown = [name for name in TITLES if any(np.any(getattr(one, name)) for one in named.values())]
    shown = shown or ["loss"]
    with styled():
        rows = -(-len(shown) // 2)
        extra = 0.25 if len(named) > 1 else 0.0
        figure, each = panels(rows, min(len(shown), 2), (4.15 * min(len(shown), 2), 2.5 * rows + extra), len(shown))
        for axes, name in zip(each, shown, strict=True):
            curves = [_curve(label, getattr(one, name)) for label, one in named.items()]
            draw(axes, curves, log=name in LOGARITHMIC)
            axes.set_title(TITLES[name])
            axes.set_xlabel("epoch")
        if len(named) > 1:
            legend(figure)
    return figure


def _histories(given: Any) -> dict[str, History]:
    named = {"training": given} if isinstance(given, History) else given
    if not isinstance(named, Mapping) or not all(isinstance(one, History) for one in named.values()):
        raise TypeError(f"histories must be a History, or a dict of them by name. Received: {given!r:.200}")
    if not named or not all(one.loss for one in named.values()):
        raise ValueError("histories must have at least one epoch each")
    return {str(name): one for name, one in named.items()}


def _curve(label: str, entries: Sequence[Any]) -> Curve:
    """Of a population the median and two quantiles, which are members themselves: what is not finite counts as the
    largest."""
    values = np.asarray(entries, np.float64)
    if values.ndim < 2:
        return Curve(label, values)
    ordered = np.where(np.isfinite(values), values, math.inf)
    low, middle, high = np.quantile(ordered, (_QUANTILES[0], 0.5, _QUANTILES[1]), axis=1, method="inverted_cdf")
    return Curve(label, middle, low, high)


def draw(axes: Axes, curves: Sequence[Curve], *, log: bool) -> None:
    """Draw curves over their numbers, and mark at the ends of the axis what it cannot show."""
    for i, curve in enumerate(curves):
        look, xs, values = style(i), np.arange(len(curve.values)) + curve.first, _drawable(curve.values, log)
        axes.plot(xs, values, label=curve.label, markevery=_marked(values, i), **look)
        if curve.low is not None and curve.high is not None:
            low, high = _drawable(curve.low, log), _drawable(curve.high, log)
            axes.fill_between(xs, low, high, color=look["color"], alpha=0.18, linewidth=0)
    first, last = curves[0].first, max(curve.first + len(curve.values) - 1 for curve in curves)
    margin = max(0.03 * (last - first), 0.3)
    axes.set_xlim(first - margin, last + margin)
    axes.locator_params(axis="x", integer=True)
    axes.set_xticks([tick for tick in axes.get_xticks() if first <= tick <= last])
    _draw_ends(axes, curves, log=log)


def _marked(values: Array, shift: int) -> list[int]:
    """Where the i-th curve has its marks: apart from those of others, and wherever there would be no line."""
    every = max(1, len(values) // _MARKED)
    gaps = np.isnan(np.concatenate([[math.nan], values, [math.nan]]))
    alone = np.flatnonzero(~gaps[1:-1] & gaps[:-2] & gaps[2:])
    return sorted({*range(shift % every, len(values), every), *alone.tolist()})


def _drawable(values: Array, log: bool) -> Array:
    """The values, NaN where an axis cannot show them."""
    shown = (np.abs(values) <= HIGHEST) & ((values >= LOWEST) | (not log))
    return np.where(shown, values, math.nan)


def _draw_ends(axes: Axes, curves: Sequence[Curve], *, log: bool) -> None:
    """Set the limits of the y axis; draw a row of marks beyond them for every curve that has values there."""
    parts = [_drawable(part, log) for c in curves for part in (c.values, c.low, c.high) if part is not None]
    low, high = _limits(np.concatenate(parts), log)
    below = [(c.values < LOWEST) & log for c in curves]
    above = [np.isnan(_drawable(c.values, log)) & ~under for c, under in zip(curves, below, strict=True)]
    shares = [_ROW * (rows + 1.4) if (rows := sum(map(np.any, end))) else 0.0 for end in (below, above)]
    unit = (high - low) / max(0.2, 1 - sum(shares))
    bottom, top = low - unit * shares[0], high + unit * shares[1]
    if log:
        bottom, top = max(bottom, -_LAST), min(top, _LAST)
        axes.set_ylim(10.0**bottom, 10.0**top)
        axes.set_yscale("log")
        step = math.ceil((high - low) / _TICKS)
        axes.set_yticks([10.0**k for k in range(math.ceil(low), math.floor(high) + 1) if k % step == 0])
        axes.minorticks_off()
    else:
        axes.set_ylim(bottom, top)
        axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= high])
    height = top - bottom
    word = below_word(value for curve in curves for value in curve.values)
    first = curves[0].first
    _draw_marks(axes, below, first, (low - bottom) / height, word, at_top=False)
    _draw_marks(axes, above, first, (top - high) / height, NOT_FINITE, at_top=True)


def _limits(values: Array, log: bool) -> tuple[float, float]:
    """Of the axis, with margins; in powers of ten where it is logarithmic."""
    values = values[~np.isnan(values)]
    if not values.size:
        return (-1.0, 1.0) if log else (0.0, 1.0)
    low, high = float(values.min()), float(values.max())
    if log:
        low, high = math.log10(low), math.log10(high)
        missing = max(0.0, _DECADES - (high - low)) / 2
        low, high = low - missing, high + missing
    margin = 0.05 * (high - low) or max(abs(low) * 0.05, 0.05)
    return low - margin, high + margin


def _draw_marks(axes: Axes, marked: Sequence[Array], first: int, share: float, word: str, *, at_top: bool) -> None:
    """Rows of marks in the lowest or the highest share of a panel."""
    from matplotlib.patches import Rectangle

    def place(y: float) -> float:
        return 1 - y if at_top else y

    rows = [i for i, where in enumerate(marked) if np.any(where)]
    if not rows:
        return
    axes.add_patch(
        Rectangle((0, place(0)), 1, place(share) - place(0), color="#eeeeee", zorder=0, transform=axes.transAxes)
    )
    height = share / (len(rows) + 1.4)
    for row, i in enumerate(rows):
        xs = np.flatnonzero(marked[i]) + first
        ys = np.full(len(xs), place(height * (len(rows) - row - 0.2)))
        every = max(1, len(marked[i]) // (2 * _MARKED))
        look = style(i) | {"linestyle": "none", "markersize": 4}
        axes.plot(xs, ys, transform=axes.get_xaxis_transform(), markevery=every, gid=f"{word}: {i}", **look)
    axes.text(0.012, place(share - 0.6 * height), word, transform=axes.transAxes, ha="left", va="center", fontsize=7)
