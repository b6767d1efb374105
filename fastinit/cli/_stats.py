"""The command that looks into checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastinit.cli._app import AsJson, Threads, command, report_file, show


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
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Show what the tensors of a checkpoint are: moments, the law that they look like, and whether they are as planned.

    Example: fastinit stats gpt2-init --name '*.attn.*.weight' --html gpt2.html
    """
    from fastinit import checkpoint
    from fastinit._io.folders import files_of

    report_file(html, read=[*files_of(path), *(files_of(Path(plan)) if plan else ())])
    planned = None
    if plan is not None:
        from fastinit.sources import read

        planned = read(plan).plan
    found = checkpoint.survey(
        path,
        name or (),
        plan=planned,
        threads=threads,
        progress=not as_json,
        histograms=html is not None or as_json,
    )
    if html is not None:
        report_file(html, found.to_html().encode())
    if as_json:
        show(found.to_json())
    else:
        show(*str(found).splitlines())
