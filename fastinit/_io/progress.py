"""Progress for people: a bar on a terminal, a line at every tenth elsewhere; all on stderr."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress(nbytes: int, *, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """A function to call with the number of bytes that were done since the last call, on any thread; it shows nothing
    where quiet."""
    if quiet or sys.stderr is None:  # a process without one: `2>&-`, pythonw
        yield lambda done: None
        return
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("", total=nbytes)
            yield lambda done: bar.advance(task, done)
        return
    done, lock = 0, threading.Lock()

    def advance(more: int) -> None:
        nonlocal done
        with lock:
            before, done = done, done + more
            if 10 * before // max(1, nbytes) != 10 * done // max(1, nbytes):
                print(f"{done:,} of {nbytes:,} bytes", file=sys.stderr, flush=True)

    yield advance
