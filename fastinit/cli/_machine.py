"""Commands about the library and the machine."""

from __future__ import annotations

import json
import platform
from typing import Annotated

import typer

from fastinit._io.terminal import say
from fastinit._native.processor import LEVELS
from fastinit.cli._app import AsJson, command, show


@command
def schemes() -> None:
    """List the schemes that a job file may name: distributions, parameters, sources (Markdown).

    Example: fastinit schemes
    """
    from fastinit.schemes._registry import table

    show(*table().splitlines())


@command
def info(as_json: AsJson = False) -> None:
    """Show versions, the processor that is compiled for, threads and memory limit with what sets them, and the cache.

    Example: fastinit info --json
    """
    from fastinit._runtime.environment import info as collect

    found = collect()
    if as_json:
        show(*json.dumps(found, indent=1).splitlines())
        return
    for name, version in found.pop("versions").items():
        show(f"{name:<16}  {version}")
    reasons = {name: found.pop(f"{name}_reason") for name in ("threads", "memory_limit")}
    found["cpu_levels"] = ", ".join(found["cpu_levels"])
    found["kernels_cached"] = f"{found['kernels_cached']} of {found.pop('kernels')}"
    for name, value in found.items():
        reason = f" ({reasons[name]})" if reasons.get(name) else ""
        show(f"{name.replace('_', ' '):<16}  {value}{reason}")


@command
def warmup(
    levels: Annotated[
        str, typer.Option("--for", metavar="LEVEL,...", help=f"Other processors: {', '.join(LEVELS)}.")
    ] = "",
) -> None:
    """Compile all kernels into the cache, so that no later process has to: for container builds.

    Without --for, they are compiled for this processor. A level is good for all processors that have its instructions.

    Example: RUN fastinit warmup --for x86-64-v3,x86-64-v4
    """
    from fastinit._native.ahead import compile_everything
    from fastinit._native.catalogue import everything
    from fastinit._runtime.threads import num_threads

    wanted: list[str | None] = [level.strip() for level in levels.split(",")] if levels else [None]
    for level in wanted:
        if level is not None and level not in LEVELS:
            allowed = f"{', '.join(LEVELS)} on this kind of machine ({platform.machine()})"
            raise ValueError(f"--for must be one or more of {allowed}, separated by commas. Received: {level!r}")
    total, done, missing = len(list(everything())) * len(wanted), 0, 0
    for level in wanted:
        for names, kept in compile_everything(num_threads(), level):
            done, missing = done + 1, missing + (not kept)
            say(f"{done}/{total} {' '.join(names)}" + (f" for {level}" if level else ""))
    if missing:
        raise OSError(f"{missing} kernels could not be written to the cache: is the disk full?")
    show(f"{total} kernels are compiled")
