"""HTML pages in one file: tables, small histograms and line charts, for the screen, in the dark and in print.

A page loads nothing, from anywhere: styles, script and data stand in it, and its own policy forbids the rest. All text
is escaped here; only what the functions of this module return goes in as it is.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from fastinit.stats._histograms import Histogram


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Cell: TypeAlias = "str | int | float | bool | None"

# Okabe & Ito, "Color Universal Design" (2008); the black is whatever the page writes in. Colours, dashes and markers
# have different numbers, so 140 series differ, the first seven in each of the three that a reader may not see.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "currentColor")
_DASHES = ("none", "6 3", "2 3", "8 3 2 3")
_MARKERS = (
    "m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0z",
    "m-3-3h6v6h-6z",
    "m0-4l4 7h-8z",
    "m0-4l4 4l-4 4l-4-4z",
    "m-3-3l6 6m0-6l-6 6",
)

_STYLE = """
:root{color-scheme:light dark;--line:#ccc;--soft:#666;--bar:#0072B2;--under:#f4f4f4}
@media(prefers-color-scheme:dark){:root{--line:#444;--soft:#aaa;--bar:#56B4E9;--under:#222}}
body{font:15px/1.45 system-ui,sans-serif;margin:1.5rem;background:Canvas;color:CanvasText}
h1{font-size:1.5rem;margin:0 0 .5rem}h2{font-size:1.15rem;margin:1.5rem 0 .5rem}p{max-width:50rem}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.85rem;font-variant-numeric:tabular-nums}
th,td{padding:.2rem .6rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
td:first-child{font-family:ui-monospace,monospace;overflow-wrap:anywhere;min-width:12rem}
thead th{position:sticky;top:0;background:var(--under);white-space:nowrap}
tbody tr:hover{background:var(--under)}.n{text-align:right;white-space:nowrap}
th button{font:inherit;color:inherit;background:none;border:0;padding:0;cursor:pointer}
th[aria-sort=ascending] button::after{content:" \\25B2"}th[aria-sort=descending] button::after{content:" \\25BC"}
input{font:inherit;padding:.25rem .5rem;margin:.5rem .5rem .5rem 0;width:20rem;max-width:90%}
.bars{width:8rem;height:1.6rem;fill:var(--bar);vertical-align:middle}
.lines{width:100%;max-width:50rem;height:auto;font-size:11px;fill:currentColor}
.lines .grid{stroke:var(--line);fill:none}figure{margin:1rem 0}figcaption{color:var(--soft)}
@media print{body{margin:0;font-size:10pt}input{display:none}thead th{position:static}table{font-size:7pt}
tr,figure{break-inside:avoid}.wide{overflow:visible}svg{print-color-adjust:exact}}
"""

# Without it a page shows the same, in its own order.
_SCRIPT = """
for (const table of document.querySelectorAll("table.data")) {
  const body = table.tBodies[0], all = [...body.rows], number = all.length.toLocaleString("en");
  const field = document.createElement("input"), shown = document.createElement("small");
  field.type = "search"; field.placeholder = "show rows with this text";
  field.setAttribute("aria-label", field.placeholder);
  const texts = all.map(row => row.textContent.toLowerCase());
  const filter = () => {
    const text = field.value.trim().toLowerCase();
    let count = 0;
    all.forEach((row, i) => { row.hidden = !texts[i].includes(text); count += !row.hidden; });
    shown.textContent = text ? `${count.toLocaleString("en")} of ${number}` : "";
  };
  field.addEventListener("input", filter);
  table.parentNode.before(field, shown);
  const value = (row, i) => row.cells[i].dataset.v === undefined ? NaN : Number(row.cells[i].dataset.v);
  [...table.tHead.rows[0].cells].forEach((head, i) => {
    const button = document.createElement("button");
    button.append(...head.childNodes); head.append(button);
    button.addEventListener("click", () => {
      const turn = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", turn > 0 ? "ascending" : "descending");
      const keyed = all.map((row, j) => [value(row, i), row.cells[i].textContent, j, row]);
      keyed.sort((a, b) => {
        const [x, y] = [a[0], b[0]];
        if (isNaN(x) && isNaN(y)) return turn * a[1].localeCompare(b[1], "en", {numeric: true}) || a[2] - b[2];
        return isNaN(x) - isNaN(y) || turn * (x < y ? -1 : x > y) || a[2] - b[2];
      });
      body.append(...keyed.map(one => one[3]));
    });
  });
}
"""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def printable(text: str) -> str:
    r"""A text on one line, without the signs that a terminal obeys or a page cannot hold: a tensor's name may have any.

    >>> printable("a\x1b[2Jb\u202e")
    'a\\x1b[2Jb\\u202e'
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def page(title: str, parts: Iterable[str], data: Any = None) -> str:
    """A whole page.

    Args:
        title: of the page, and its heading.
        parts: what stands below: what the other functions return, or plain text, each a paragraph.
        data: plain values, put in as JSON: `JSON.parse(document.getElementById("data").textContent)`.

    Raises:
        ValueError: data with an infinity or NaN, which JSON does not have.

    >>> "<p>a &lt; b</p>" in page("Title", ["a < b"])
    True
    """
    shown = "\n".join(part if isinstance(part, Markup) else f"<p>{_text(part)}</p>" for part in parts)
    embedded = "" if data is None else f'<script type="application/json" id="data">{_embedded(data)}</script>\n'
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width">\n<link rel="icon" href="data:,">\n'
        f"<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{_text(title)}</h1>\n"
        f"{shown}\n{embedded}<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def heading(text: str) -> Markup:
    """A heading below the title."""
    return Markup(f"<h2>{_text(text)}</h2>")


def table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Markup:
    """A table that the page's script lets people sort by column and filter.

    Args:
        columns: their headings.
        rows: a cell for each column: text; a number, shown with 4 significant digits and kept whole in `data-v`; None
            for nothing; or what `bars` returns.

    >>> table(["name", "std"], [["a", 0.25]]).partition("<tbody>")[2].partition("</tbody>")[0]
    '<tr><td>a<td class=n data-v=0.25>0.25\\n'
    """
    shown = [list(row) for row in rows]
    first = shown[0] if shown else [""] * len(columns)
    heads = "".join(
        f"<th scope=col{' class=n' if _is_number(cell) else ''}>{_text(name)}</th>"
        for name, cell in zip(columns, first, strict=True)
    )
    body = "".join(f"<tr>{''.join(map(_cell, row))}\n" for row in shown)
    return Markup(
        f'<div class="wide"><table class="data"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def bars(histogram: Histogram, height: int = 24) -> Markup:
    """A histogram as a small picture; a bin that holds anything is seen.

    >>> from fastinit.stats._histograms import Histogram
    >>> bars(Histogram(0, 1, (0, 4, 1))).partition("<path")[2]
    ' d="M0 24h1V0h1V18h1V24z"/></svg>'
    """
    most = max(1, *histogram.counts)
    path, last, width = f"M0 {height}", height, 0
    for count in histogram.counts:
        top = height - math.ceil(count * height / most)
        if top != last:
            path += f"{f'h{width}' if width else ''}V{top}"
            last, width = top, 0
        width += 1
    path += f"h{width}V{height}z"
    label = f"histogram from {histogram.low:.4g} to {histogram.high:.4g}"
    return Markup(
        f'<svg class="bars" role="img" aria-label="{label}" viewBox="0 0 {len(histogram.counts)} {height}" '
        f'preserveAspectRatio="none"><path d="{path}"/></svg>'
    )


# --- line charts ---

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 320, 64, 40, 12, 44
_LEGEND_ROW = 18


def lines(
    series: Mapping[str, Sequence[float | None]],
    labels: Sequence[str | float],
    *,
    caption: str,
    x: str = "",
    y: str = "",
) -> Markup:
    """A line chart with a logarithmic y axis and a legend; colours, dashes and markers all differ.

    Args:
        series: name -> a number for each label. None is a gap. What has no logarithm is not left out: values of 0 or
            below lie on a line of their own at the bottom, infinities and NaN on one at the top.
        labels: of the points on the x axis.
        caption: below the chart.
        x, y: what the axes are.

    >>> lines({"he": [1.0, 0.5]}, [1, 2], caption="std by layer").partition("<figcaption>")[2]
    'std by layer</figcaption></figure>'
    """
    values = [v for row in series.values() for v in row if v is not None]
    proper = [math.log10(v) for v in values if 0 < v < math.inf]
    low, high = (math.floor(min(proper)), math.ceil(max(proper))) if proper else (0, 1)
    high = max(high, low + 1)
    none, beyond = any(v <= 0 for v in values), any(not v < math.inf for v in values)
    ceiling, floor = _TOP + 18 * beyond, _HEIGHT - _BOTTOM - 18 * none

    def across(i: int) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (i / (len(labels) - 1) if len(labels) > 1 else 0.5)

    def down(value: float) -> float:
        if not value < math.inf:
            return _TOP
        if value <= 0:
            return _HEIGHT - _BOTTOM
        return level(math.log10(value))

    def level(power: float) -> float:
        return floor - (floor - ceiling) * (power - low) / (high - low)

    step = -(-(high - low) // 8)
    ticks = [(level(power), _power(power)) for power in range(low, high + 1, step)]
    ticks += [(down(0.0), "≤ 0")] * none + [(down(math.inf), "not finite")] * beyond
    drawn = [_tick_y(place, text) for place, text in ticks]
    every = max(1, -(-len(labels) // 12))
    drawn += [_tick_x(across(i), str(labels[i])) for i in range(0, len(labels), every)]
    for i, row in enumerate(series.values()):
        drawn.append(_line(i, [None if v is None else (across(j), down(v)) for j, v in enumerate(row)]))
    drawn += [
        _label((_LEFT + _WIDTH) / 2, _HEIGHT - 6, x, "middle"),
        f'<g transform="translate(12 {_HEIGHT / 2:g}) rotate(-90)">{_label(0, 0, y, "middle")}</g>',
    ]
    drawn += [_key(i, name) for i, name in enumerate(series)]
    height = _HEIGHT + _LEGEND_ROW * (len(series) + 1)
    return Markup(
        f'<figure><svg class="lines" role="img" aria-label="{_text(caption)}" viewBox="0 0 {_WIDTH} {height}">'
        f"{''.join(drawn)}</svg><figcaption>{_text(caption)}</figcaption></figure>"
    )


def _line(number: int, points: Sequence[tuple[float, float] | None]) -> str:
    """A series: a line for every run of points without a gap, and a marker on each point."""
    runs: list[list[str]] = [[]]
    for point in points:
        if point is None:
            runs.append([])
        else:
            runs[-1].append(f"{point[0]:.1f},{point[1]:.1f}")
    drawn = "".join(f'<polyline points="{" ".join(run)}" fill="none"/>' for run in runs if run)
    marker = _MARKERS[number % len(_MARKERS)]
    marks = "".join(f"M{point[0]:.1f} {point[1]:.1f}{marker}" for point in points if point is not None)
    colour, dashes = COLOURS[number % len(COLOURS)], _DASHES[number % len(_DASHES)]
    points_on_it = f'<path d="{marks}" fill="{colour}" stroke-width="1.2"/>'
    return f'<g stroke="{colour}"><g stroke-width="1.8" stroke-dasharray="{dashes}">{drawn}</g>{points_on_it}</g>'


def _key(number: int, name: str) -> str:
    """A row of the legend."""
    place = _HEIGHT + _LEGEND_ROW * (number + 0.5)
    return _line(number, [(_LEFT, place), (_LEFT + 36, place)]) + _label(_LEFT + 46, place + 4, name, "start")


def _tick_y(place: float, text: str) -> str:
    rule = f'<path class="grid" d="M{_LEFT} {place:.1f}H{_WIDTH - _RIGHT}"/>'
    return rule + _label(_LEFT - 6, place + 4, text, "end")


def _tick_x(place: float, text: str) -> str:
    return _label(place, _HEIGHT - _BOTTOM + 18, text, "middle")


def _power(exponent: int) -> str:
    return f"{10.0**exponent:g}" if -3 <= exponent <= 3 else f"1e{exponent}"


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{_text(text)}</text>' if text else ""


# --- cells ---


def _is_number(cell: Cell) -> bool:
    return isinstance(cell, int | float) and not isinstance(cell, bool)


def _cell(cell: Cell) -> str:
    if isinstance(cell, Markup):
        return f"<td>{cell}"
    if cell is None:
        return "<td>"
    if isinstance(cell, str | bool):
        return f"<td>{_text(str(cell))}"
    if not math.isfinite(cell):
        return f"<td class=n>{cell}"
    return f"<td class=n data-v={cell!r}>{f'{cell:,}' if isinstance(cell, int) else f'{cell:.4g}'}"


def _text(text: str) -> str:
    return html.escape(printable(text))


def _embedded(data: Any) -> str:
    """JSON that no text in it can end: a script ends at `</script`, and changes its meaning at `<!--`."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))  # ASCII: U+2028 and lone surrogates are escaped
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
