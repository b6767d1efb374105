"""The command line: arguments -> one job -> a call.

What a command needs is imported inside it, so that the others do not wait for it.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from fastinit.checkpoint import Report, Verification
    from fastinit.plan import Plan

app = typer.Typer(
    help="Fill the weights of large neural networks at memory speed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

SourceName = Annotated[
    str,
    typer.Argument(
        help="A plan or job file (TOML, JSON), a Hugging Face config.json, a safetensors file or index, a folder of "
        "any of these, or module:function that returns a torch module.",
        metavar="SOURCE",
    ),
]
SchemeName = Annotated[
    str | None,
    typer.Option("--scheme", help="For all tensors that it exists for, e.g. he_normal.", metavar="SCHEME"),
]
Rules = Annotated[
    list[str] | None,
    typer.Option("--rule", help="For the names that match; later ones win. May be repeated.", metavar="PATTERN=SCHEME"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
DtypeName = Annotated[
    str | None, typer.Option("--dtype", help="One of float16, bfloat16, float32, float64; for all that is drawn.")
]
SeedNumber = Annotated[int | None, typer.Option("--seed", help="Instead of the source's own.")]
Folder = Annotated[Path, typer.Argument(help="The folder of a checkpoint.", metavar="DIR")]
Threads = Annotated[int | None, typer.Option("--threads", help="Default: one per CPU.")]

_SHOWN = 20  # problems; --json has all

Command = TypeVar("Command", bound=Callable[..., None])


def _command(function: Command) -> Command:
    """Enter a command: an error of its own is one line and exit code 1, Ctrl-C is 130."""

    @functools.wraps(function)
    def run(*args: Any, **options: Any) -> None:
        try:
            function(*args, **options)
            sys.stdout.flush()
        except BrokenPipeError:  # whoever read our output has gone, as `| head` does
            _drop_output()
            raise typer.Exit(1) from None
        except (OSError, ValueError, TypeError, ImportError) as error:
            print(f"fastinit: {_one_line(error)}", file=sys.stderr)
            _drop_output()
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            print("fastinit: interrupted", file=sys.stderr)
            raise typer.Exit(130) from None

    app.command()(run)
    return function


def _drop_output() -> None:
    """Forget what cannot be printed: Python would try again at its end, and complain then."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _one_line(error: Exception) -> str:
    """What an error says, without line breaks and signs that a terminal obeys: names may hold any."""
    text = " ".join(line.strip() for line in str(error).splitlines())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def main() -> None:
    """The entry point of the `fastinit` command."""
    if sys.stdout is None:  # closed, as by `>&-`
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  until the end
    app()


def _json(report: Report | Verification) -> str:
    rate = {"gigabytes_per_second": report.gigabytes_per_second}
    return json.dumps(dataclasses.asdict(report) | rate)


def _pace(report: Report | Verification) -> str:
    return f"{report.seconds:.2f} s ({report.gigabytes_per_second:.2f} GB/s)"


@_command
def plan(
    source: SourceName,
    scheme: SchemeName = None,
    rule: Rules = None,
    dtype: DtypeName = None,
    seed: SeedNumber = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON, itself a source.")] = False,
    as_toml: Annotated[bool, typer.Option("--toml", help="Print the plan as a job file, itself a source.")] = False,
) -> None:
    """Show the tensors of a source: names, shapes, dtypes, schemes; and parameters and bytes in all.

    Example: fastinit plan config.json --rule '*.o_proj.weight=depth_scaled(std=0.02)' --toml > plan.toml
    """
    from fastinit.sources import read

    if as_json and as_toml:
        raise ValueError("--json and --toml exclude each other")
    gc.disable()  # importing torch and transformers makes much that stays: 0.5 s of 5
    found = read(source, scheme=scheme, rules=rule or (), dtype=dtype, lean=True).plan
    found = found if seed is None else found.with_seed(seed)
    if as_json or as_toml:
        sys.stdout.buffer.write((found.to_json() if as_json else found.to_toml()).encode())
    else:
        _show(found)
    sys.stdout.flush()
    if "torch" in sys.modules:  # taking torch down again would take 1 s
        os._exit(0)


def _show(plan: Plan) -> None:
    """A table for people."""
    lines = [
        (
            name if name.isprintable() else repr(name),
            " x ".join(map(str, t.shape)) or "scalar",
            t.dtype,
            t.scheme,
            f"std {std:.4g}" if (std := getattr(t.distribution, "std", None)) else "",
        )
        for name, t in plan.filled.items()
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    print(f"{len(plan):,} tensors, {plan.parameters:,} parameters, {plan.nbytes:,} bytes, seed {plan.seed}")


@_command
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
        str, typer.Option("--max-shard-bytes", help="Of tensors in a file: 5GB, 60MB, 2GiB.", metavar="SIZE")
    ] = "5GB",
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

    found = read(source, scheme=scheme, rules=rule or (), dtype=dtype, config=config, lean=True)
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
        beside=found.beside(),
        progress=not as_json,
    )
    if as_json:
        print(_json(report))
        return
    print(
        f"{report.path}: {report.tensors:,} tensors, {report.parameters:,} parameters, {report.nbytes:,} bytes in "
        f"{report.files:,} files ({report.written:,} written now), {_pace(report)}, peak memory "
        f"{report.peak_memory_bytes / 1e6:.0f} MB{'' if report.finished else '; other parts are missing'}"
    )


@_command
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
        print(_json(found))
    else:
        for problem in found.problems[:_SHOWN]:
            print(problem)
        if len(found.problems) > _SHOWN:
            print(f"and {len(found.problems) - _SHOWN:,} more")
        verdict = "repaired" if found.repaired else f"{len(found.problems):,} problems" if found.problems else "sound"
        print(f"{found.path}: {verdict}; {found.tensors:,} tensors, {found.nbytes:,} bytes compared, {_pace(found)}")
    if found.problems and not found.repaired:
        raise typer.Exit(1)


@_command
def finalize(folder: Folder) -> None:
    """Finish a checkpoint that was written in parts: check that no file is missing, write the index.

    Example: fastinit finalize llama-init
    """
    from fastinit import checkpoint

    print(checkpoint.finalize(folder))


@_command
def schemes() -> None:
    """List the schemes that a job file may name: laws, parameters, sources (Markdown).

    Example: fastinit schemes
    """
    from fastinit.schemes import table

    print(table())


@_command
def info(as_json: AsJson = False) -> None:
    """Show versions, the CPU, the threading layer, threads and the cache folder.

    Example: fastinit info --json
    """
    from fastinit.environment import info as collect

    found = collect()
    if as_json:
        print(json.dumps(found, indent=1))
        return
    for name, version in found.pop("versions").items():
        print(f"{name:<16}  {version}")
    for name, value in found.items():
        print(f"{name.replace('_', ' '):<16}  {value}")


@_command
def warmup() -> None:
    """Compile all kernels into the cache, so that no later process has to: for container builds.

    Example: RUN fastinit warmup
    """
    from fastinit.environment import warmup as compile_all

    number = compile_all(lambda name, done, total: print(f"{done}/{total} {name}", file=sys.stderr, flush=True))
    print(f"{number} kernels are compiled")


if __name__ == "__main__":
    main()
