"""The chart of the page of performance: how many times as fast as each other library fastinit is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from bench.lines import NAMES, Line, ReportError
from fastinit import plots
from fastinit.plots._style import legend, panels, styled

# What people come for first; a row of panels has one range of ratios.
PANELS = (
    ("normal, float32", "uniform, float32", "normal cut at 2 sigma, float32", "`fast_init`"),
    ("normal, bfloat16", "normal, float64", "uniform, float64", "x += scale * normal, float32"),
    (
        "training step",
        "global norm, clipping, float32",
        "global norm of 1,000 arrays, clipping, float32",
        "constant, float32",
    ),
)
RIVALS = ("numpy", "numpy_legacy", "torch", "torch_compile", "jax", "sklearn")  # a look for each
LOOKS = {name: plots.STYLES[i] for i, name in enumerate(RIVALS)}
FEWEST = 64  # elements; where a line has less, its order is a place in a list
MOST_TICKS = 8
LOSS = "#fbe3e0"


def ratios(lines: list[Line], work: str) -> tuple[list[Line], dict[str, dict[int, float]]]:
    """Return a work's lines and, by rival, the ratio at the places of the lines that have one."""
    own = sorted(
        (line for line in lines if line.work == work and "fastinit" in line.seconds), key=lambda line: line.order
    )
    if not own:
        raise ReportError(f"the results hold no time of fastinit for {work!r}: run `pytest --benchmark-only --sweep`")
    found: dict[str, dict[int, float]] = {}
    for i, line in enumerate(own):
        for name, seconds in line.rivals.items():
            found.setdefault(name, {})[i] = seconds / line.seconds["fastinit"]
    return own, found


def plot(lines: list[Line], path: Path) -> None:
    """Draw a panel for each work: the ratio over the size, one line for each other library.

    A row of panels has one range; below 1, where fastinit is slower, the background is tinted and says so.
    """
    with styled():
        figure, grid = panels(len(PANELS), 4, (12, 3.3 * len(PANELS)))
        figure.get_layout_engine().set(h_pad=0.12)  # inches, between the ticks of a row and the titles of the next
        for i, works in enumerate(PANELS):
            row = grid[4 * i : 4 * i + 4]
            values = [1.0]
            for axes, work in zip(row, works, strict=True):
                values += _panel(axes, work, *ratios(lines, work))
            low, high = min(0.5, min(values) / 1.3), max(values) * 1.3
            for axes in row:
                _finish(axes, low, high)
            row[0].set_ylabel("times as fast")
        legend(figure)
        figure.suptitle("How many times as fast as each other library fastinit is, by size")
    path.parent.mkdir(parents=True, exist_ok=True)
    plots.save(figure, path)


def _panel(axes: Any, work: str, lines: list[Line], found: dict[str, dict[int, float]]) -> list[float]:
    numbers = all(line.order >= FEWEST for line in lines)  # sizes of one work; else models, which no line joins
    for name in RIVALS:
        if name in found:
            look = LOOKS[name] | ({} if numbers else {"linestyle": "none"})
            axes.plot(list(found[name]), list(found[name].values()), label=f"of {NAMES[name]}", **look)
    places = range(len(lines) % 2 == 0, len(lines), 2) if len(lines) > MOST_TICKS else range(len(lines))
    axes.set_xticks(places, [_short(lines[i]) for i in places])
    if not numbers:  # names: each ends below its tick, so that long ones do not overlap
        for label in axes.get_xticklabels():
            label.set(rotation=30, horizontalalignment="right", rotation_mode="anchor")
    axes.set_xlim(-0.4, len(lines) - 0.6)
    axes.set_title(work.replace("`", "").replace(" of 1,000 arrays", ", 1,000 arrays"), fontsize=8.5)
    return [ratio for points in found.values() for ratio in points.values()]


def _short(line: Line) -> str:
    """The size as a tick shows it: a power of two, or a model's name without its description."""
    return f"2^{round(math.log2(line.order))}" if line.order >= FEWEST else line.size.split(",")[0]


def _finish(axes: Any, low: float, high: float) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.axhspan(low, 1, color=LOSS, zorder=0)
    axes.axhline(1, color="0.4", linewidth=1, zorder=1)
    axes.text(0.99, 0.01, "slower", transform=axes.transAxes, ha="right", va="bottom", color="#a03020", fontsize=8)
