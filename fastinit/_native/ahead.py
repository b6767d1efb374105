"""Compile everything into the cache, before it is needed."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from fastinit._native import cache, catalogue, library, processor

_Names = tuple[str, ...]


def compile_everything(workers: int, level: str | None = None) -> Iterator[tuple[_Names, bool]]:
    """Compile all functions that the cache lacks, and give the names of each and whether the cache has it now.

    Args:
        workers: processes. They end with the iterator.
        level: a key of `processor.LEVELS`, or what `processor.target` says.

    Raises:
        OSError: nothing can be kept, or a process fails.
    """
    target = (level, "") if level is not None else processor.target()
    missing = []
    for names in catalogue.everything():
        if library.is_cached(names, target):
            yield names, True
        else:
            missing.append(names)
    if missing and not cache.is_writable():
        raise OSError(
            f"compiled functions cannot be kept: the cache folder cannot be written to ({cache.folder()}). Set "
            "FASTINIT_CACHE_DIR to the absolute path of a folder that only you can write to"
        )
    groups = [list(group) for _, group in itertools.groupby(sorted(missing, key=_shared), _shared)]
    yield from _compiled(sorted(groups, key=_cost, reverse=True), workers, target)


def _shared(names: _Names) -> tuple[str, str]:
    """What functions have in common that share most of their code: the module and the dtype."""
    name, *variant = names
    return name.rpartition(".")[0], variant[-1] if variant else ""


def _cost(group: list[_Names]) -> tuple[bool, int]:
    """What takes longest comes first, so that no process is left alone with it: some functions take several times as
    long as others."""
    return group[0][0].startswith(("nn.network", "sums.moments")), len(group)


def _compiled(groups: list[list[_Names]], workers: int, target: tuple[str, str]) -> Iterator[tuple[_Names, bool]]:
    """Compile groups of functions, each in one process; a process takes the number of the next group from a pipe."""
    take, give = os.pipe()
    os.write(give, bytes(range(len(groups))))
    os.close(give)
    listen, tell = os.pipe()
    running: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(min(workers, len(groups))):
            running += [_started(groups, target, take, tell)]
        os.close(tell)
        left = sum(map(len, groups))
        with open(listen, encoding="utf-8") as lines:  # noqa: PTH123  a descriptor; it ends when all processes have
            for line in lines:
                names, kept, error = json.loads(line)
                if error:
                    raise OSError(error)
                left -= 1
                yield tuple(names), kept
        if left:
            raise OSError(f"a process that compiles was killed: {left} functions are not compiled")
    finally:
        os.close(take)
        for process in running:
            process.kill()
            process.wait()


def _started(groups: list[list[_Names]], target: tuple[str, str], take: int, tell: int) -> subprocess.Popen[bytes]:
    """Start a process that runs `work`. It imports nothing from the current folder, and Ctrl-C does not reach it."""
    environment = {"NUMBA_CPU_NAME": target[0], "NUMBA_CPU_FEATURES": target[1]}
    environment["PYTHONPATH"] = os.pathsep.join(filter(os.path.isabs, sys.path))
    return subprocess.Popen(
        [sys.executable, "-P", "-c", f"from fastinit._native.ahead import work; work({tell})", json.dumps(groups)],
        cwd=Path(sys.executable).anchor,
        env=os.environ | environment,
        stdin=take,
        stdout=subprocess.DEVNULL,  # what settings of Numba and others print
        pass_fds=[tell],
        start_new_session=True,
    )


def work(descriptor: int) -> None:
    """Compile one group of functions after the other, in a process of its own, and report each to a pipe."""

    def tell(names: list[str], kept: bool, error: str = "") -> None:
        """Write a line in one piece, since several processes write to the pipe."""
        os.write(descriptor, (json.dumps([names, kept, error]) + "\n").encode())

    groups = json.loads(sys.argv[1])
    with contextlib.suppress(BrokenPipeError):  # the process that started this one has gone
        try:
            while number := os.read(0, 1):
                for names in groups[number[0]]:
                    tell(names, library.compile_into_cache(*names))
        except Exception as error:  # that process reports it
            tell([], False, " ".join(str(error).split()))
