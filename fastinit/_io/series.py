"""How series of numbers are drawn, on pages and in pictures alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

# What an axis shows: float64's own ends leave no space for margins.
LOWEST, HIGHEST = 1e-250, 1e250
NOT_FINITE = "not finite"

# Okabe & Ito, "Color Universal Design" (2008); the last one is the colour of the text.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "currentColor")
_MARKERS = (  # in matplotlib, and as a path of SVG
    ("o", "m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0z"),
    ("s", "m-3-3h6v6h-6z"),
    ("^", "m0-4l4 7h-8z"),
    ("D", "m0-4l4 4l-4 4l-4-4z"),
    ("v", "m0 4l4-7h-8z"),
    ("P", "m-4 0h8m-4-4v8"),
    ("X", "m-3-3l6 6m0-6l-6 6"),
)
DASHES: tuple[tuple[float, ...], ...] = (  # lengths of lines and gaps, in widths of the line
    (),
    (6, 2),
    (6, 2, 1, 2),
    (1.5, 1.5),
    (3, 1.5),
    (10, 2),
    (4, 1, 1, 1, 1, 1),
)


class Style(NamedTuple):
    """How one series is drawn."""

    colour: str
    marker: str
    outline: str
    dashes: tuple[float, ...]


def style(i: int) -> Style:
    """The style of the i-th series.

    The first seven differ in colour, marker and dashes each, the first 49 in colour and marker, 343 in one of the
    three.

    >>> style(0)
    Style(colour='#0072B2', marker='o', outline='m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0z', dashes=())
    """
    turn, number = i // len(COLOURS), len(COLOURS)
    return Style(COLOURS[i % number], *_MARKERS[(i + turn) % number], DASHES[(i + 2 * turn + turn // number) % number])


def below_word(values: Iterable[float]) -> str:
    """The label of values that lie below a logarithmic axis.

    >>> below_word([0.0, 1.0]), below_word([0.0, 1e-300])
    ('0', '0, or below 1e-250')
    """
    return f"0, or below {LOWEST:g}" if any(value and value < LOWEST for value in values) else "0"
