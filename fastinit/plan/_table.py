"""A plan as a table, for terminals and notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fastinit._io.html import fragment, table
from fastinit.plan._fills import Fill

_MOST_ROWS = 60  # in a notebook


def rows(fills: Iterable[tuple[str, Fill]]) -> Iterator[tuple[str, str, str, str, str]]:
    """Name, shape, dtype, scheme and standard deviation of each tensor.

    >>> list(rows([("a", Fill((3, 4), "float32", "normal"))]))
    [('a', '3 x 4', 'float32', 'normal', 'std 1')]
    """
    for name, fill in fills:
        std = getattr(fill.distribution, "std", None)
        shape = " x ".join(map(str, fill.shape)) or "scalar"
        yield name, shape, fill.dtype, fill.scheme, f"std {std:.4g}" if std else ""


def html(fills: Iterable[tuple[str, Fill]], totals: str) -> str:
    """The table for a notebook, and the totals below it."""
    return fragment([table(("name", "shape", "dtype", "scheme", ""), rows(fills), most=_MOST_ROWS), totals])
