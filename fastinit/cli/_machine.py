"""Commands about the library and the machine."""

from __future__ import annotations

import json

from fastinit._io.terminal import say
from fastinit.cli._app import AsJson, command, show


@command
def schemes() -> None:
    """List the schemes that a job file may name: laws, parameters, sources (Markdown).

    Example: fastinit schemes
    """
    from fastinit.schemes._registry import table

    show(*table().splitlines())


@command
def info(as_json: AsJson = False) -> None:
    """Show versions, the CPU, threads and memory limit with what sets them, the threading layer and the cache folder.

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
    for name, value in found.items():
        reason = f" ({reasons[name]})" if reasons.get(name) else ""
        show(f"{name.replace('_', ' '):<16}  {value}{reason}")


@command
def warmup() -> None:
    """Compile all kernels into the cache, so that no later process has to: for container builds.

    Example: RUN fastinit warmup
    """
    from fastinit._runtime.environment import kernels

    jobs = kernels()
    for done, (name, compile_) in enumerate(jobs, start=1):
        compile_()
        say(f"{done}/{len(jobs)} {name}")
    show(f"{len(jobs)} kernels are compiled")
