"""Progress: a bar on a terminal, a line at every tenth elsewhere, or the caller's own function."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TypeAlias

# False: nothing; True: a bar or lines on stderr; a function: called with how much is done and how much there is.
Progress: TypeAlias = "bool | Callable[[int, int], object]"


@contextlib.contextmanager
def progress_bar(progress: Progress, total: int, unit: str = "bytes") -> Iterator[Callable[[int], None]]:
    """Give a function to call, on any thread, with how much was done since its last call.

    Args:
        progress: the caller's `progress` argument.
        total: how much there is to do.
        unit: of what, in the plural.

    Raises:
        TypeError: `progress` is neither a bool nor a function.
    """
    if not isinstance(progress, bool) and not callable(progress):
        raise TypeError(f"progress must be True, False or a function of (done, total). Received: {progress!r}")
    if progress is False or (progress is True and sys.stderr is None):  # a process without one: `2>&-`, pythonw
        yield lambda more: None
        return
    shown = contextlib.nullcontext(progress) if callable(progress) else _bar(total, unit)
    with shown as report:
        done, lock = 0, threading.Lock()

        def advance(more: int) -> None:
            nonlocal done
            with lock:
                done += more
                report(done, total)

        yield advance


@contextlib.contextmanager
def _bar(total: int, unit: str) -> Iterator[Callable[[int, int], object]]:
    if not sys.stderr.isatty():
        yield _lines(unit)
        return
    from rich import console, progress

    counts = [progress.DownloadColumn(), progress.TransferSpeedColumn()]
    if unit != "bytes":
        counts = [progress.MofNCompleteColumn()]
    columns = [progress.BarColumn(), *counts, progress.TimeRemainingColumn()]
    with progress.Progress(*columns, console=console.Console(stderr=True)) as bar:
        task = bar.add_task("", total=total)
        yield lambda done, _: bar.update(task, completed=done)


def _lines(unit: str) -> Callable[[int, int], object]:
    tenth = 0

    def report(done: int, total: int) -> None:
        nonlocal tenth
        before, tenth = tenth, 10 * done // max(1, total)
        if tenth != before:
            print(f"{done:,} of {total:,} {unit}", file=sys.stderr, flush=True)

    return report
