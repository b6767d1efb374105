"""Progress: a bar on a terminal, one line in a notebook, a line at every tenth elsewhere, or the caller's function."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from fastinit._io import terminal

# False: nothing; True: a bar or lines on stderr; a function: called with how much is done and how much there is.
Progress: TypeAlias = "bool | Callable[[int, int], object]"

_WITHOUT_CURSOR = "dumb", "unknown"  # terminals that cannot draw over a line, by their TERM


@contextlib.contextmanager
def progress_bar(progress: Progress, total: int, unit: str = "bytes") -> Iterator[Callable[[int], None]]:
    """Give a function to call, on any thread, with how much was done since its last call.

    A stderr that is full, or that nobody reads any more, ends the bar and not the work. What the caller's own function
    raises is raised.

    Args:
        progress: the caller's `progress` argument.
        total: how much there is to do.
        unit: of what, in the plural.

    Raises:
        TypeError: `progress` is neither a bool nor a function.
    """
    if not isinstance(progress, bool) and not callable(progress):
        raise TypeError(f"progress must be True, False or a function of (done, total). Received: {progress!r}")
    stderr = terminal.stderr()
    if progress is False or (progress is True and stderr is None):
        yield lambda more: None
        return
    shown = contextlib.nullcontext(progress) if callable(progress) else _bar(stderr, total, unit)
    with shown as report:
        done, lock = 0, threading.Lock()

        def advance(more: int) -> None:
            nonlocal done
            with lock:
                done += more
                report(done, total)

        yield advance


@contextlib.contextmanager
def _bar(stderr: Any, total: int, unit: str) -> Iterator[Callable[[int, int], object]]:
    console = _console(stderr)
    if console is None:
        yield _line(stderr, unit) if _in_notebook() else _lines(unit)
        return
    from rich import progress

    counts = [progress.DownloadColumn(), progress.TransferSpeedColumn()]
    if unit != "bytes":
        counts = [progress.MofNCompleteColumn()]
    columns = [progress.BarColumn(), *counts, progress.TimeRemainingColumn()]
    with progress.Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=total)
        yield lambda done, _: bar.update(task, completed=done)


def _console(stderr: Any) -> Any:
    """Return a terminal on which a bar can be drawn, or None."""
    if not stderr.isatty() or os.environ.get("TERM") in _WITHOUT_CURSOR:
        return None
    from rich.console import Console

    with contextlib.suppress(ValueError):  # COLUMNS or LINES of digits that are no number
        return Console(file=stderr)
    return None


def _in_notebook() -> bool:
    """Return True if stderr is the output of a notebook's cell, where a return of the cursor clears the line."""
    return type(sys.stderr).__module__.partition(".")[0] == "ipykernel"


def _line(stderr: Any, unit: str) -> Callable[[int, int], object]:
    """One line that is written again at every hundredth, and ended when all is done."""
    hundredth = -1

    def report(done: int, total: int) -> None:
        nonlocal hundredth
        before, hundredth = hundredth, 100 * done // max(1, total)
        if hundredth != before:
            end = "\n" if done >= total else ""
            stderr.write(f"\r{hundredth:3}%  {done:,} of {total:,} {unit}{end}")
            stderr.flush()

    return report


def _lines(unit: str) -> Callable[[int, int], object]:
    tenth = 0

    def report(done: int, total: int) -> None:
        nonlocal tenth
        before, tenth = tenth, 10 * done // max(1, total)
        if tenth != before:
            terminal.say(f"{done:,} of {total:,} {unit}")

    return report
