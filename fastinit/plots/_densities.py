"""Normalised histograms: of activations and gradients layer by layer; of weights, with the law they should have."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fastinit import schemes
from fastinit._core.distributions import Distribution
from fastinit._io.series import DASHES, NOT_FINITE
from fastinit._probe.results import Probe
from fastinit._probe.statistics import Signal
from fastinit._runtime.arrays import Array
from fastinit.nn._mlp import MLP
from fastinit.plan._serialization import label
from fastinit.plots._probes import Probes, as_probes, common_title, labels
from fastinit.plots._style import legend, linestyle, panels, shortened, style, styled
from fastinit.stats._histograms import Histogram

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Distributions: TypeAlias = "str | Distribution | Mapping[str, str | Distribution]"

NAMED = 6  # layers in a legend; the others are thin lines between them
_SMALLER, _LARGER = 20.0, 3.0  # axes fit the layers whose size is within these factors of those signals begin at
_SPIKE = 0.2  # share of the values in one bin from which the axis is logarithmic
_LOWEST = 0.02  # of the density that is the same everywhere: where a logarithmic axis begins
_INSIDE = 0.999  # share of a layer's values that the axis shows
_PANELS = 60


def activations(probes: Probes) -> Figure:
    """Normalised histograms of the hidden layers' activations, as in Glorot & Bengio, AISTATS 2010, Fig. 6.

    Args:
        probes: a `Probe`, a `Comparison`, or several probes; a panel for each.

    Returns:
        A figure; a line for every layer, from the first, dark, to the last, bright. Axes fit the layers
        that are a twentieth to three times the size of the first one (the last one, of gradients), in the middle of all
        panels; what they do not show is told in words.

    Raises:
        TypeError, ValueError: something else, or no probe.
        ImportError: matplotlib is missing.

    >>> from fastinit import compare
    >>> figure = activations(compare([64, *[100] * 5, 10], ["heuristic_uniform", "xavier_uniform"], ["tanh"]))
    >>> [len(axes.lines) for axes in figure.axes]
    [5, 5]
    """
    return _by_layer(probes, "activations")


def gradients(probes: Probes) -> Figure:
    """Normalised histograms of the gradients of the loss with respect to the hidden layers' activations, as in Glorot &
    Bengio, AISTATS 2010, Fig. 7.

    Args, Returns, Raises: as of `activations`.

    >>> from fastinit import probe
    >>> gradients(probe([8, 16, 16, 2])).axes[0].get_xlabel()
    'gradient'
    """
    return _by_layer(probes, "gradients")


def weights(arrays: Mapping[str, Any] | MLP | Probe, distributions: Distributions | None = None) -> Figure:
    """Normalised histograms of weights, and the density of the law that they should have.

    Args:
        arrays: real arrays of any shape by name, the weights of an `MLP`, or those that a `Probe` saw; at most 60.
        distributions: a scheme's name, text such as "normal(std=0.02)" or an elementwise distribution; or a dict of
            those for some of the names. Schemes compute fans from shapes, which a `Probe` does not know: give
            distributions there.

    Returns:
        A figure with a panel for each; values that are not finite are left out, and counted in its title.

    Raises:
        TypeError, ValueError: what does not fit, or a law without a density.
        ImportError: matplotlib is missing.

    >>> import fastinit as fi
    >>> figure = weights({"head": fi.he_normal((10, 256), seed=0)}, distributions="he_normal")
    >>> [line.get_label() for line in figure.axes[0].lines]
    ['he_normal']
    """
    found = list(_weights(arrays))
    if not 0 < len(found) <= _PANELS:
        raise ValueError(f"arrays must be 1 to {_PANELS}: choose some. Received: {len(found)}")
    chosen = _laws(found, distributions)
    columns = min(len(found), 3 if len(found) < 13 else 5)
    rows = -(-len(found) // columns)
    with styled():
        size = (max(4.2, (2.8 if columns <= 3 else 1.9) * columns), (2.0 if columns <= 3 else 1.5) * rows + 0.4)
        figure, each = panels(rows, columns, size, len(found))
        for axes, weight in zip(each, found, strict=True):
            _weight_panel(axes, weight, chosen.get(weight.name))
        for axes in each[::columns]:
            axes.set_ylabel("density")
    return figure


# --- layers of probes ---


def _by_layer(given: Probes, name: str) -> Figure:
    probes = as_probes(given)
    named = labels(probes, verdicts=True)
    columns = 1 if len(probes) <= 3 else 2
    rows = -(-len(probes) // columns)
    with styled():
        figure, each = panels(rows, columns, (6.2 if columns == 1 else 9.0, 2.1 * rows + 0.8), len(probes))
        hidden = [_hidden(probe, name) for probe in probes]
        for activation in {probe.activation for probe in probes}:
            group = [i for i, probe in enumerate(probes) if probe.activation == activation]
            window = _Window.of([hidden[i] if name == "activations" else hidden[i][::-1] for i in group])
            for i in group:
                _layer_lines(each[i], hidden[i], window)
        for i, axes in enumerate(each):
            axes.set_title(named[i])
            axes.set_ylabel("density" if i % columns == 0 else "")
            axes.set_xlabel(name.removesuffix("s") if i + columns >= len(each) else "")
        figure.suptitle(f"{name} of {common_title(probes)}")
        legend(figure)
    return figure


def _hidden(probe: Probe, name: str) -> list[tuple[str, Signal]]:
    kept = probe.layers[:-1] or probe.layers
    return [(layer.name, getattr(layer, name)) for layer in kept]


@dataclass(frozen=True)
class _Window:
    """What part of the plane panels show: those of one activation the same."""

    low: float
    high: float
    bottom: float
    top: float
    log: bool

    @classmethod
    def of(cls, panels: Sequence[Sequence[tuple[str, Signal]]]) -> _Window:
        """A window for all layers whose size is near that of the panels' first ones; of those the middle one counts."""
        signals = [[signal for _, signal in panel if 0 < signal.rms < math.inf] for panel in panels]
        firsts = sorted(found[0].rms for found in signals if found)
        if not firsts:
            return cls(-1.0, 1.0, 0.0, 1.0, False)
        usual = firsts[len(firsts) // 2]
        near = [one for found in signals for one in found if usual / _SMALLER <= one.rms <= usual * _LARGER]
        ends = [_inside(one.histogram) for one in near]
        low, high = min(end[0] for end in ends), max(end[1] for end in ends)
        log = max(max(one.histogram.counts) / one.histogram.total for one in near) > _SPIKE
        top = max(float(_density(one.histogram).max()) for one in near)
        margin = 0.03 * (high - low)
        bottom = _LOWEST / (high - low) if log else 0.0
        return cls(low - margin, high + margin, bottom, top * (2 if log else 1.06), log)


def _inside(histogram: Histogram) -> tuple[float, float]:
    """Where nearly all values lie."""
    shares = np.concatenate([[0.0], np.cumsum(histogram.counts) / max(1, histogram.total)])
    rest = (1 - _INSIDE) / 2
    low, high = np.interp([rest, 1 - rest], shares, histogram.edges)
    return float(low), float(high)


def _density(histogram: Histogram) -> Array:
    """Of every bin: the bins' shares over their width."""
    return np.asarray(histogram.counts) / max(1, histogram.total) / np.diff(histogram.edges)


def _layer_lines(axes: Axes, layers: Sequence[tuple[str, Signal]], window: _Window) -> None:
    named = np.linspace(0, len(layers) - 1, min(len(layers), NAMED)).round().astype(int).tolist()
    lost: dict[str, list[str]] = {}
    for i, (name, signal) in enumerate(layers):
        lost.setdefault(_lost(signal, window), []).append(shortened(name))
        if not 0 < signal.rms < math.inf:
            continue
        edges = signal.histogram.edges
        look: dict[str, Any] = {"linewidth": 0.6, "alpha": 0.6, "zorder": 2}
        if i in named:
            look = {"label": shortened(name), "linestyle": linestyle(DASHES[named.index(i)]), "zorder": 3}
        density = _density(signal.histogram)
        axes.plot((edges[:-1] + edges[1:]) / 2, density, color=shade(i, len(layers)), gid=name, **look)
    axes.set_xlim(window.low, window.high)
    axes.set_ylim(window.bottom, window.top)
    axes.locator_params(axis="x", nbins=7)
    if window.log:  # after the limits: matplotlib's own overflow where densities are large
        axes.set_yscale("log")
        axes.minorticks_off()
    lost.pop("", None)
    notes = [f"{what}: {names[0]}{_and_more(names[1:])}" for what, names in lost.items()]
    if notes:
        behind = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5}
        text = "\n".join(notes)
        axes.text(0.985, 0.95, text, transform=axes.transAxes, ha="right", va="top", fontsize=7.5, bbox=behind)


def _lost(signal: Signal, window: _Window) -> str:
    """Why a panel does not show all of a layer; nothing if it does."""
    if signal.rms == 0:
        return "all 0"
    if not math.isfinite(signal.rms):
        return NOT_FINITE
    low, high = _inside(signal.histogram)
    if _density(signal.histogram).max() > window.top:
        return "higher than the picture"
    return "wider than the picture" if low < window.low or high > window.high else ""


def _and_more(names: Sequence[str]) -> str:
    return f" and {names[0] if len(names) == 1 else f'{len(names)} more'}" if names else ""


def shade(i: int, number: int) -> str:
    """The colour of one of so many layers, darker than those after it: cividis, without its brightest part."""
    import matplotlib as mpl
    from matplotlib.colors import to_hex

    return to_hex(mpl.colormaps["cividis"](0.85 * i / max(1, number - 1)))


# --- weights ---


@dataclass(frozen=True)
class _Weight:
    """A panel's data; the shape where it is known."""

    name: str
    histogram: Histogram
    shape: tuple[int, ...] | None
    left_out: int


def _weights(given: Any) -> Iterator[_Weight]:
    if isinstance(given, Probe):
        for layer in given.layers:
            if layer.weights is not None:
                yield _Weight(f"{layer.name}.weight", layer.weights.histogram, None, 0)
        return
    skipped = 0
    if isinstance(given, MLP):
        skipped = 0 if given.population is None else 1  # a population's members are no part of a weight's shape
        given = {name: array for name, array in given.parameters.items() if name.endswith("weight")}
    if not isinstance(given, Mapping):
        raise TypeError(f"arrays must be arrays by name, an MLP or a Probe. Received: {given!r:.200}")
    for name, array in given.items():
        values = np.asarray(array)
        histogram = Histogram.of(values)
        left_out = values.size - histogram.total
        yield _Weight(str(name), histogram, values.shape[skipped:], left_out)


def _laws(found: Sequence[_Weight], distributions: Any) -> dict[str, tuple[str, Distribution]]:
    """What the law of each that has one is called, and the law, asked for its density."""
    if distributions is None:
        return {}
    names = [weight.name for weight in found]
    given = distributions if isinstance(distributions, Mapping) else dict.fromkeys(names, distributions)
    if unknown := [name for name in given if name not in names]:
        raise ValueError(f"distributions must be for names of arrays. Received: {unknown[0]!r}")
    chosen = {weight.name: _law(given[weight.name], weight) for weight in found if weight.name in given}
    for name, (_, one) in chosen.items():
        try:
            one.density(np.zeros(1))
        except ValueError as error:
            raise ValueError(f"distributions must have densities, for {name!r}: {error}") from None
    return chosen


def _law(given: Any, weight: _Weight) -> tuple[str, Distribution]:
    if isinstance(given, Distribution):
        return label(given, weight.shape or (1, 1)), given
    if not isinstance(given, str):
        raise TypeError(f"distributions must be schemes or distributions. Received: {given!r:.200}")
    if weight.shape is None:
        raise ValueError(f"distributions of a Probe must be distributions: it has no shapes. Received: {given!r}")
    return given.strip(), schemes.as_distribution(given, weight.shape)


def _weight_panel(axes: Axes, weight: _Weight, given: tuple[str, Distribution] | None) -> None:
    edges = weight.histogram.edges
    axes.stairs(_density(weight.histogram), edges, fill=True, color=style(0)["color"], alpha=0.45, linewidth=0)
    if given is not None:
        name, drawn_from = given
        low, high = edges[0], edges[-1]
        xs = np.linspace(low - 0.04 * (high - low), high + 0.04 * (high - low), 400)
        axes.plot(xs, drawn_from.density(xs), color=style(3)["color"], label=name)
    shape = "" if weight.shape is None else f"  {'×'.join(map(str, weight.shape)) or 'scalar'}"
    left_out = f", {weight.left_out:,} not finite" if weight.left_out else ""
    drawn_by = f"\n{shortened(given[0], 34)}" if given else ""
    axes.set_title(f"{shortened(weight.name, 22)}{shape}{left_out}{drawn_by}")
    axes.set_ylim(bottom=0)
    axes.locator_params(axis="x", nbins=4)
    axes.locator_params(axis="y", nbins=4)
