"""Helpers that sleep until there is work. The caller works too, and waits only for helpers that are inside.

OpenMP's threads, Numba's usual ones, meet at a barrier: where another process holds a core, a fill of 0.2 ms waits a
time slice for it, 8 to 12 ms; they also kill a forked child, and their loops take 0.7 s to compile. Here a helper that
comes late finds the job closed and goes back to sleep.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable


class _Job:
    """Work that several threads may run at once: each call of `work` does whatever share of it is still left.

    A helper says that it is inside before it looks whether the job is closed, and the caller closes the job before it
    looks who is inside. So either the caller waits for the helper, or the helper does nothing.
    """

    def __init__(self, work: Callable[[], object]) -> None:
        self._work: Callable[[], object] | None = work
        self._closed = False
        self._inside: list[threading.Lock] = []  # of helpers; released when the helper is outside again
        self.error: BaseException | None = None

    def help(self) -> None:
        inside = threading.Lock()
        with inside:
            self._inside.append(inside)
            if self._closed or self._work is None:
                return
            try:
                self._work()
            except BaseException as error:  # a helper has nobody to tell but the caller
                self.error = error

    def close(self) -> None:
        """Let no more helpers in and wait for those inside. May be called again, and in the middle of itself."""
        self._closed = True
        for inside in tuple(self._inside):
            with inside:
                pass
        self._work = None  # a late helper must not keep the caller's memory


_jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
_helpers: list[threading.Thread] = []
_running: dict[str, _Job] = {}  # the one job that has helpers, under "job"; setdefault is the lock that cannot hang
_forked = False


def forked() -> bool:
    """Whether this process is a forked child: it has no helpers, and must not wait for any."""
    return _forked


def together(work: Callable[[], object], workers: int) -> None:
    """Call `work` here and, as far as they come in time, on `workers - 1` helpers; return when all have left.

    One job at a time has helpers: a second thread, or a signal handler in the middle of a job, works alone. An
    exception of a helper is raised here.
    """
    if workers <= 1:
        work()
        return
    job = _Job(work)
    interrupt: BaseException | None = None
    try:
        if not _forked and _running.setdefault("job", job) is job:
            _invite(job, workers - 1)
        work()
    finally:
        while True:  # nobody may be inside when the caller goes on, not even after a second Ctrl-C
            try:
                job.close()
                if _running.get("job") is job:
                    del _running["job"]
                break
            except BaseException as caught:
                interrupt = caught
    error = interrupt or job.error
    if error is not None:
        raise error


def _invite(job: _Job, number: int) -> None:
    try:
        while len(_helpers) < number:
            helper = threading.Thread(target=_help, name=f"fastinit-{len(_helpers)}", daemon=True)
            helper.start()
            _helpers.append(helper)
    except RuntimeError:  # no more threads are to be had, or the interpreter is shutting down
        number = len(_helpers)
    for _ in range(number):
        _jobs.put(job)


def _help() -> None:
    while True:
        _jobs.get().help()


def _before_fork() -> None:
    """No helper may be inside: the child has none, and the work of one that was would be half done for ever."""
    job = _running.get("job")
    if job is not None:
        job.close()


def _in_child() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_in_child)
