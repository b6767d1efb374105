"""HTML pages in one file: tables, small histograms and line charts, for the screen, in the dark and in print.

A page loads nothing: styles, script and data are part of it, and its own policy forbids the rest. The templates in the
folder `page` escape all text. Only what the functions of this module return goes in as it is.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from fastinit._io.series import HIGHEST, LOWEST, NOT_FINITE, below_word, style
from fastinit._io.text import printable
from fastinit.stats._histograms import Histogram

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_JOINTS = re.compile(r"([._/])(?=\w)")
Cell: TypeAlias = str | int | float | bool | None


@functools.cache
def _environment() -> Environment:
    import jinja2  # takes 50 ms

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fastinit._io", "page"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.tests["finite"] = math.isfinite
    environment.filters["breakable"] = _breakable
    return environment


def _breakable(text: Any) -> Any:
    """Let a name break after its dots, slashes and underscores, not in the middle of a word."""
    from markupsafe import Markup, escape

    if type(text) is not str:
        return text
    return Markup(_JOINTS.sub(r"\1<wbr>", str(escape(printable(text)))))


@functools.cache
def _macros() -> Any:
    return _environment().get_template("macros.html.j2").module


def page(title: str, parts: Iterable[str], data: Any = None) -> str:
    """A whole page.

    Args:
        title: of the page, and its heading.
        parts: the content: what the other functions return, or plain text, each a paragraph.
        data: plain values, embedded as JSON: `JSON.parse(document.getElementById("data").textContent)`.

    Raises:
        ValueError: data with an infinity or NaN, which JSON does not have.

    >>> "<p>a &lt; b</p>" in page("Title", ["a < b"])
    True
    """
    return _environment().get_template("page.html.j2").render(title=title, parts=parts, data=data)


def fragment(parts: Iterable[str]) -> str:
    """A part of another page, as notebooks show it: without scripts, and with styles for itself only.

    >>> fragment(["a < b"]).partition("</style>")[2]
    '\\n<p>a &lt; b</p>\\n</div>'
    """
    return _environment().get_template("fragment.html.j2").render(parts=parts)


def heading(text: str) -> Markup:
    """A heading below the title."""
    return _macros().heading(text)  # type: ignore[no-any-return]


def table(columns: Sequence[str], rows: Iterable[Sequence[Cell]], most: int | None = None) -> Markup:
    """A table that the page's script sorts by column and filters.

    Args:
        columns: their headings.
        rows: a cell for each column: text; a number, shown with 4 significant digits and stored whole in `data-v`; None
            for an empty cell; or what `bars` returns.
        most: of rows. Where there are more, one says how many are left out in the middle.

    Raises:
        ValueError: a row of another length.

    >>> table(["name", "std"], [["a", 0.25]]).partition("<tbody>")[2].partition("</tbody>")[0]
    Markup('<tr><td>a<td class=n data-v=0.25>0.25\\n')
    """
    listed = [list(row) for row in rows]
    for row in listed:
        if len(row) != len(columns):
            raise ValueError(f"rows must have a cell for each of {len(columns)} columns. Received: {len(row)} cells")
    if most is not None and len(listed) > most:
        left = len(listed) - most + 1
        listed[most // 2 : most // 2 + left] = [[f"... {left:,} more", *[None] * (len(columns) - 1)]]
    return _macros().table(columns, listed)  # type: ignore[no-any-return]


def bars(histogram: Histogram, height: int = 24) -> Markup:
    """A histogram as a small picture. A bin that holds anything is visible.

    >>> bars(Histogram(0, 1, (0, 4, 1))).partition("<path")[2]
    Markup(' d="M0 24h1V0h1V18h1V24z"/></svg>')
    """
    most = max(1, *histogram.counts)
    tops = (height - math.ceil(count * height / most) for count in histogram.counts)
    runs = [(top, len(list(run))) for top, run in itertools.groupby(tops)]
    path = "".join(f"V{top}h{width}" for top, width in runs).removeprefix(f"V{height}")
    return _macros().bars(histogram, height, f"M0 {height}{path}V{height}z")  # type: ignore[no-any-return]


class _Box:
    """The part of a line chart that the axes span, in its units."""

    width, height = 760, 320
    left, right, top, bottom = 64, 720, 12, 276


def lines(
    series: Mapping[str, Sequence[float | None]],
    labels: Sequence[str | float],
    *,
    caption: str,
    x: str = "",
    y: str = "",
) -> Markup:
    """A line chart with a logarithmic y axis and a legend. Series differ in colour, dashes and marker.

    Args:
        series: name -> a number for each label. None is a gap. Values of 0 or below lie on a line at the bottom,
            infinities and NaN on one at the top.
        labels: of the points on the x axis.
        caption: below the chart.
        x, y: the labels of the axes.

    >>> lines({"he": [1.0, 0.5]}, [1, 2], caption="std by layer").partition("<figcaption>")[2]
    Markup('std by layer</figcaption></figure>')
    """
    values = [v for row in series.values() for v in row if v is not None]
    powers = [math.log10(v) for v in values if LOWEST <= v <= HIGHEST] or [0.0]
    low, high = math.floor(min(powers)), math.ceil(max(powers))
    high = max(high, low + 1)
    below, above = any(v < LOWEST for v in values), not all(v <= HIGHEST for v in values)
    ceiling, floor = _Box.top + 18 * above, _Box.bottom - 18 * below

    def across(i: int) -> float:
        share = i / (len(labels) - 1) if len(labels) > 1 else 0.5
        return round(_Box.left + (_Box.right - _Box.left) * share, 1)

    def level(power: float) -> float:
        return round(floor - (floor - ceiling) * (power - low) / (high - low), 1)

    def down(value: float) -> float:
        if value < LOWEST:
            return _Box.bottom
        return level(math.log10(value)) if value <= HIGHEST else _Box.top

    def runs(row: Sequence[float | None]) -> list[list[tuple[float, float]]]:
        """The points between the gaps."""
        places = [None if v is None else (across(i), down(v)) for i, v in enumerate(row)]
        split = itertools.groupby(places, key=lambda place: place is None)
        return [[place for place in run if place] for gap, run in split if not gap]

    ticks = [(level(power), _power(power)) for power in range(low, high + 1, -(-(high - low) // 8))]
    ticks += [(_Box.bottom, below_word(values))] * below + [(_Box.top, NOT_FINITE)] * above
    every = max(1, -(-len(labels) // 12))
    columns = [(across(i), str(labels[i])) for i in range(0, len(labels), every)]
    curves = [(name, style(i), runs(row)) for i, (name, row) in enumerate(series.items())]
    return _macros().lines(_Box, columns, ticks, curves, caption, x, y)  # type: ignore[no-any-return]


def _power(exponent: int) -> str:
    return f"{10.0**exponent:g}" if -3 <= exponent <= 3 else f"1e{exponent}"
