"""Values as text for terminals, and as what JSON holds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

_CUT = "..."
LONGEST_LINE = 500  # characters of an error or a warning
LONGEST_CELL = 200  # of a cell of a table, whose column is as wide as its longest cell


def printable(text: str, most: int | None = None) -> str:
    r"""Escape the characters that a terminal would obey, or that a page cannot hold.

    Args:
        text: any.
        most: characters of the result; of a longer one the middle is left out. Default: any number.

    >>> printable("a\x1b[2Jb\u202e")
    'a\\x1b[2Jb\\u202e'
    >>> printable("model.layers.11.weight", 13)
    'model...eight'
    """
    part = text if most is None or len(text) <= most else text[:most] + text[-most:]  # it may be of many megabytes
    shown = part if part.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in part)
    if most is None or max(len(text), len(shown)) <= most:
        return shown
    kept = most - len(_CUT)
    return shown[: kept - kept // 2] + _CUT + shown[len(shown) - kept // 2 :]


def aligned(rows: Sequence[Sequence[str]], left: Collection[int]) -> list[str]:
    """Pad the cells of every column to one width. Cells are `printable`, and shortened to 200 characters.

    Args:
        rows: of equal length; at least one.
        left: the columns aligned to the left. The others are aligned to the right.

    Returns:
        A line for each row.

    >>> aligned([("name", "std"), ("a", "0.25")], left=[0])
    ['name   std', 'a     0.25']
    """
    shown = list(map(cells, rows))
    return list(padded(shown, [max(map(len, column)) for column in zip(*shown, strict=True)], left))


def cells(row: Iterable[str]) -> list[str]:
    """Escape and shorten the cells of a table's row."""
    # To call `printable` for each cell would take longer than all else.
    return [cell if len(cell) <= LONGEST_CELL and cell.isprintable() else printable(cell, LONGEST_CELL) for cell in row]


def padded(rows: Iterable[Sequence[str]], widths: Sequence[int], left: Collection[int]) -> Iterator[str]:
    """Pad cells to the widths of their columns; `left` as in `aligned`. Cells beyond the last width are left out."""
    formats = [f"{'<' if i in left else '>'}{width}" for i, width in enumerate(widths)]
    for row in rows:
        yield "  ".join(map(format, row, formats)).rstrip()


def plain(value: Any) -> Any:
    """Convert a value to what strict JSON holds: dataclasses to dicts, tuples to lists, infinities and NaN to None.

    >>> plain((1.0, float("nan"), "a", None))
    [1.0, None, 'a', None]
    """
    if value is None or isinstance(value, int | str):  # first: rows of 100,000 tensors have many
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value
