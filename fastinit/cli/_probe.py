"""The command that looks at a network's initialisation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastinit._io.series import COLOURS
from fastinit.cli._app import AsJson, command, report_file, show

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fastinit._probe.results import Comparison

_SIZES = re.compile(r"\s*(\d{1,18})\s*(?:x\s*(\d{1,18})\s*)?")
MOST_LAYERS = 10_000


@command
def probe(
    sizes: Annotated[
        str, typer.Option("--sizes", help="Features, units of the layers, outputs; 256x30: 30 layers.", metavar="SIZES")
    ],
    scheme: Annotated[
        list[str] | None,
        typer.Option(
            "--scheme",
            help="A scheme, e.g. he_normal or 'normal(std=0.01)'. May be repeated. Default: that of fi.MLP.",
            metavar="SCHEME",
        ),
    ] = None,
    activation: Annotated[
        list[str] | None,
        typer.Option("--activation", help="Of the hidden layers. May be repeated. Default: relu.", metavar="NAME"),
    ] = None,
    output: Annotated[str, typer.Option(help="softmax, sigmoid or identity; it decides the loss.")] = "softmax",
    samples: Annotated[int, typer.Option(help="Standard normal samples.")] = 256,
    seed: Annotated[int, typer.Option(help="Of weights and samples.")] = 0,
    dtype: Annotated[str, typer.Option("--dtype", help="float32 or float64.")] = "float32",
    plot: Annotated[
        Path | None,
        typer.Option(help="A picture: .png, .svg or .pdf; of more than 7 networks a grid of verdicts.", metavar="FILE"),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="A page that needs nothing beside it.", metavar="FILE")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a dense network does to signals and gradients at initialisation: a table for every scheme, a verdict.

    Example: fastinit probe --sizes 784,256x30,10 --activation relu --scheme xavier_normal --scheme he_normal
    """
    widths = parse_sizes(sizes)
    for path in (plot, html):
        report_file(path)
    if plot is not None and html is not None and plot.resolve() == html.resolve():
        raise ValueError(f"--plot and --html must be two files. Received: {plot} for both")
    from fastinit._probe.probe import compare

    if plot is not None:
        from fastinit import plots

        plots.check(plot)
    found = compare(
        widths, scheme or [None], activation or ["relu"], seed=seed, output=output, samples=samples, dtype=dtype
    )
    if html is not None:
        report_file(html, found.to_html().encode())
    if plot is not None:
        plots.save(_picture(found), plot)
    if as_json:
        show(found.to_json())
        return
    shown = "\n\n".join(map(str, found))
    if len(found) > 1:
        shown += f"\n\n{found}"
    show(*shown.splitlines())


def _picture(found: Comparison) -> Figure:
    """Draw curves; or a grid, where curves would share colours. A grid has one cell for a scheme and an activation."""
    from fastinit import plots

    cells = {(probe.scheme, probe.activation) for probe in found}
    return plots.grid(found) if len(cells) == len(found) > len(COLOURS) else plots.layers(found)


def parse_sizes(text: str) -> list[int]:
    """Sizes as people write them.

    Raises:
        ValueError: they are no such text.

    >>> parse_sizes("784,256x3,10")
    [784, 256, 256, 256, 10]
    """
    wrong = f"--sizes must be like 784,256x30,10, of at most {MOST_LAYERS:,} layers. Received: {text!r:.200}"
    sizes: list[int] = []
    for part in text.split(","):
        found = _SIZES.fullmatch(part)
        times = int(found[2] or 1) if found else 0
        if found is None or not 0 < times <= MOST_LAYERS - len(sizes):
            raise ValueError(wrong)
        sizes += [int(found[1])] * times
    return sizes
