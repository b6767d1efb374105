"""The command that looks into checkpoints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastinit.cli._app import AsJson, MaxTensors, Threads, command, report_file, show

if TYPE_CHECKING:
    from fastinit.checkpoint._survey.survey import Contents


@command
def stats(
    path: Annotated[
        Path,
        typer.Argument(
            help="A safetensors file, an index or a folder with either, as the Hub has them.", metavar="FILE|DIR"
        ),
    ],
    name: Annotated[
        list[str] | None,
        typer.Option("--name", help="Only tensors whose names match. May be repeated.", metavar="PATTERN"),
    ] = None,
    plan: Annotated[
        str | None,
        typer.Option(
            "--plan",
            help="What the tensors should be, as in `fastinit plan`. Default: the fastinit.json in the folder.",
            metavar="SOURCE",
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a page with histograms too.", metavar="FILE")
    ] = None,
    max_tensors: MaxTensors = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Show what the tensors of a checkpoint are: moments, the distribution that they look like, and whether they are
    as planned.

    Example: fastinit stats gpt2-init --name '*.attn.*.weight' --html gpt2.html
    """
    from fastinit.checkpoint._survey.survey import Contents

    report_file(html)
    planned = None
    if plan is not None:
        from fastinit.sources import read

        planned = read(plan, max_tensors=max_tensors).plan
    _scan(Contents(path, name or (), plan=planned, threads=threads), html, as_json=as_json)


def _scan(contents: Contents, html: Path | None, *, as_json: bool) -> None:
    """Read the tensors and print them: as JSON one after the other, as a table at the end."""
    from fastinit.checkpoint._survey.records import JsonStream, Survey, Tensor, TextTable, check_page

    if html is not None:
        check_page(contents.number)
    kept = list[Tensor]()  # for the page
    stream = JsonStream(sys.stdout.write, contents.path, contents.nbytes, contents.missing) if as_json else None
    lines = None if as_json else TextTable()

    def show_one(tensor: Tensor) -> None:
        if html is not None:
            kept.append(tensor)
        if stream is not None:
            stream.add(tensor)
        if lines is not None:
            lines.add(tensor)

    contents.scan(show_one, progress=not as_json, histograms=html is not None or as_json)
    if html is not None:
        found = Survey(contents.path, tuple(kept), contents.missing, contents.nbytes, contents.seconds)
        report_file(html, found.to_html().encode())
    if stream is not None:
        stream.end(contents.seconds)
        print()
    if lines is not None:
        for line in lines.end(contents.nbytes, contents.missing):
            show(line)
