"""Commands that plan, write and verify checkpoints."""

from __future__ import annotations

import dataclasses
import json
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastinit._io.text import LONGEST_CELL, aligned, printable
from fastinit.cli._app import (
    AsJson,
    DtypeName,
    Folder,
    MaxTensors,
    Rules,
    SchemeName,
    SeedNumber,
    SourceName,
    Threads,
    command,
    show,
)
from fastinit.cli._settings import start_ray_elsewhere

if TYPE_CHECKING:
    from fastinit.checkpoint import Report, Verification
    from fastinit.plan._plan import Plan

_SHOWN = 20  # problems; --json has all


def _json(report: Report | Verification) -> str:
    values = {field.name: getattr(report, field.name) for field in dataclasses.fields(report) if field.name != "key"}
    values |= {"seed": report.key.seed, "seed_path": report.key.path}
    return json.dumps(values | {"gigabytes_per_second": report.gigabytes_per_second})


def _seed_and_pace(report: Report | Verification) -> str:
    seed = printable(repr(report.key) if report.key.path else str(report.key.seed), LONGEST_CELL)
    return f"seed {seed}, {report.seconds:.2f} s ({report.gigabytes_per_second:.2f} GB/s)"


@command
def plan(
    source: SourceName,
    scheme: SchemeName = None,
    rule: Rules = None,
    dtype: DtypeName = None,
    seed: SeedNumber = None,
    max_tensors: MaxTensors = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON, itself a source.")] = False,
    as_toml: Annotated[bool, typer.Option("--toml", help="Print the plan as a job file, itself a source.")] = False,
) -> None:
    """Show the tensors of a source: names, shapes, dtypes, schemes; and parameters and bytes in all.

    Example: fastinit plan config.json --rule '*.o_proj.weight=depth_scaled(std=0.02)' --toml > plan.toml
    """
    from fastinit.sources import read

    if as_json and as_toml:
        raise ValueError("--json and --toml exclude each other")
    read_from = read(source, scheme=scheme, rules=rule or (), dtype=dtype, max_tensors=max_tensors)
    found = read_from.plan if seed is None else read_from.plan.with_seed(seed)
    if as_json or as_toml:
        to_text, config = found.to_json if as_json else found.to_toml, read_from.config
        show(*to_text(None if config is None else _name_here(config)).splitlines())
    else:
        _show(found)


def _name_here(config: Path) -> str | None:
    """The name of a config in a plan that is saved in the current folder; None, with a warning, if it is not inside."""
    from fastinit._io.documents import is_unicode

    name = os.path.relpath(config)
    if Path(name).parts[0] != os.pardir and is_unicode(name):
        return name
    warnings.warn(
        f"{config} is not in the current folder, and the plan does not name it. Give it to write by --config",
        stacklevel=2,
    )
    return None


def _show(plan: Plan) -> None:
    """A table for people."""
    from fastinit.plan._table import rows

    show(*aligned(list(rows(plan.filled.items())), left=range(5)))
    show(plan.totals)


@command
def write(
    source: SourceName,
    out: Annotated[str, typer.Option("--out", help="The folder; made where it is missing.", metavar="DIR")],
    scheme: SchemeName = None,
    rule: Rules = None,
    dtype: DtypeName = None,
    seed: SeedNumber = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="A config.json to put beside. Default: the source's.")
    ] = None,
    max_shard_bytes: Annotated[
        str, typer.Option("--max-shard-bytes", help="Of tensors in a file: 5GB or 5G, 60MB, 2GiB.", metavar="SIZE")
    ] = "5GB",
    max_tensors: MaxTensors = None,
    part: Annotated[
        str | None,
        typer.Option(
            "--part", help="Write the i-th of n shares of the files; auto: as torchrun or Slurm says.", metavar="i/n"
        ),
    ] = None,
    threads: Threads = None,
    fsync: Annotated[bool, typer.Option(help="Wait until files are on the disk.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another checkpoint.")] = False,
    engine: Annotated[str, typer.Option(help="threads, or ray: a task of a Ray cluster for each file.")] = "threads",
    address: Annotated[str | None, typer.Option(help="Of the Ray cluster.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write the initial checkpoint of a model as safetensors. Given again, it goes on where it was stopped.

    Example: fastinit write examples/gpt2.toml --out gpt2-init --dtype bfloat16
    """
    from fastinit import checkpoint
    from fastinit.sources import read

    found = read(source, scheme=scheme, rules=rule or (), dtype=dtype, config=config, max_tensors=max_tensors)
    if found.models:
        raise ValueError(
            f"{source} holds {len(found.models)} models: give the folder of one: {', '.join(found.models)}"
        )
    if engine == "ray":
        start_ray_elsewhere()
    report = checkpoint.write(
        found.plan,
        out,
        seed=seed,
        overwrite=overwrite,
        max_shard_bytes=max_shard_bytes,
        threads=threads,
        fsync=fsync,
        part=part,
        engine=engine,
        address=address,
        extra_files=found.extra_files(),
        progress=not as_json,
    )
    if as_json:
        show(_json(report))
        return
    path = printable(report.path, LONGEST_CELL)
    show(
        f"{path}: {report.tensors:,} tensors, {report.parameters:,} parameters, {report.nbytes:,} bytes in "
        f"{report.files:,} files ({report.written:,} written now), {_seed_and_pace(report)}, peak memory "
        f"{report.peak_memory_bytes / 1e6:.0f} MB{'' if report.finished else '; other parts are missing'}"
    )


@command
def verify(
    folder: Folder,
    sample: Annotated[str, typer.Option(help="The share to compare: 1%, 0.01.", metavar="SHARE")] = "100%",
    repair: Annotated[bool, typer.Option("--repair", help="Write what differs; not with --sample.")] = False,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Compare a checkpoint with what its plan and seed give. Exit code 1 where it differs.

    Example: fastinit verify gpt2-init --sample 10%
    """
    from fastinit import checkpoint

    found = checkpoint.verify(folder, sample=sample, repair=repair, threads=threads, progress=not as_json)
    if as_json:
        show(_json(found))
    else:
        for problem in found.problems[:_SHOWN]:
            show(problem)
        if len(found.problems) > _SHOWN:
            show(f"and {len(found.problems) - _SHOWN:,} more")
        verdict = "sound" if found.layout == "planned" else "same tensors, other layout"
        if found.problems:
            verdict = "repaired" if found.repaired else f"{len(found.problems):,} problems"
        compared = f"{found.tensors:,} tensors, {found.nbytes:,} bytes compared"
        show(f"{printable(found.path, LONGEST_CELL)}: {verdict}; {compared}, {_seed_and_pace(found)}")
    if found.problems and not found.repaired:
        raise typer.Exit(1)


@command
def finalize(folder: Folder) -> None:
    """Finish a checkpoint that was written in parts: check that no file is missing, write the index.

    Example: fastinit finalize llama-init
    """
    from fastinit import checkpoint

    show(str(checkpoint.finalize(folder)))
