"""How pictures look, the same whatever the caller's settings of matplotlib, and how they become files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from io import BytesIO
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from fastinit._io import series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")
DPI = 150
# By format, under which name a text goes with the file, and which entry must be empty for the same bytes every time.
_TEXT = {"png": "Description", "svg": "Description", "pdf": "Subject"}
_UNDATED: dict[str, dict[str, Any]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}

SETTINGS = Path(__file__).with_name("fastinit.mplstyle")


def style(i: int) -> dict[str, Any]:
    """How matplotlib draws the i-th series.

    >>> style(0)
    {'color': '#0072B2', 'marker': 'o', 'linestyle': '-'}
    """
    look = series.style(i)
    colour = "#000000" if look.colour == "currentColor" else look.colour
    return {"color": colour, "marker": look.marker, "linestyle": linestyle(look.dashes)}


def linestyle(dashes: tuple[float, ...]) -> Any:
    """Dashes as matplotlib takes them."""
    return (0, dashes) if dashes else "-"


STYLES = tuple(style(i) for i in range(len(series.COLOURS)))


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Pictures that are made or written inside look as all of them do.

    Raises:
        ImportError: matplotlib is missing.
    """
    with _matplotlib().rc_context(fname=SETTINGS):
        yield


def _matplotlib() -> ModuleType:
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise ImportError("fastinit.plots needs matplotlib: pip install 'fastinit-weights[plot]'") from error
    return mpl


def panels(rows: int, columns: int, size: tuple[float, float], number: int | None = None) -> tuple[Figure, list[Axes]]:
    """A figure of so many inches, without a window, and its panels row by row; those after `number` are not there."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    found = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for axes in found[number:] if number is not None else ():
        axes.remove()
    found = found[:number]
    for axes in found:  # ticks are made when they are drawn, under whatever settings there are then
        axes.tick_params(labelsize=8, color="black", labelcolor="black")
    return figure, found


def legend(figure: Figure) -> None:
    """One legend for all panels, below them: every label once, in as many columns as there is room for."""
    entries = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    if entries:
        inches = 0.75 + 0.07 * max(map(len, entries))  # of a column
        columns = min(len(entries), max(1, int(figure.get_figwidth() / inches)))
        columns = -(-len(entries) // -(-len(entries) // columns))  # rows of one length
        figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=columns)


def check(path: str | PathLike[str]) -> str:
    """What a picture's file will be, by its name; to be asked before anything is computed.

    Raises:
        ValueError: another ending than .png, .svg and .pdf.
        ImportError: matplotlib is missing.

    >>> check("weights.svg")
    'svg'
    """
    _matplotlib()
    found = Path(path).suffix.lower().removeprefix(".")
    if found not in FORMATS:
        raise ValueError(f"path must end in .{', .'.join(FORMATS)}. Received: {Path(path).name!r}")
    return found


def save(figure: Figure, path: str | PathLike[str], description: str | None = None) -> None:
    """Write a figure to a file that is there as a whole or not at all; the same bytes for the same figure.

    Args:
        figure: of matplotlib; those of this module, or any other.
        path: its ending says what it becomes: .png (150 dots per inch), .svg or .pdf. A file of the name is replaced.
        description: a text that goes with the file.

    Raises:
        ValueError, ImportError: as of `check`.
        OSError: the file cannot be written.
    """
    from fastinit._io.files import put

    kind = check(path)
    about = _UNDATED[kind] | ({_TEXT[kind]: description} if description is not None else {})
    content = BytesIO()
    with styled():
        figure.savefig(content, format=kind, dpi=DPI, metadata=about)
    put(Path(path), content.getvalue())


def shortened(name: str, length: int = 36) -> str:
    """A name whose middle is left out where it is too long.

    >>> shortened("model.layers.10.self_attn.q_proj.weight", 20)
    'model.lay…roj.weight'
    """
    if len(name) <= length:
        return name
    front = (length - 1) // 2
    return f"{name[:front]}…{name[front + 1 - length :]}"
