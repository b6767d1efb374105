"""Threads that take items from one list until none is left.

`fastinit._runtime.pool` shares one fill among threads. Here every thread has a fill of its own and a file to write to:
while one waits for the disk, the others make the next blocks.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from fastinit._runtime import limits, threads

Item = TypeVar("Item")


def each(
    items: Iterable[Item], worker: Callable[[], Callable[[Item], None]], number: int, buffer_bytes: int = 0
) -> None:
    """Call a function with every item, on several threads.

    Fewer threads do it where a limit of memory has no space for the buffers of all, or the system starts no more.

    Args:
        items: taken one at a time, in their order, by whichever thread is free.
        worker: called on each thread; gives the function, which may keep buffers.
        number: of threads. Fills on them have one thread each.
        buffer_bytes: of the buffers of one thread.

    The first exception, of a thread or of the caller (Ctrl-C), is raised here when all threads have ended; items that
    were not begun are left.

    Raises:
        MemoryError: there is no memory for the buffers of one thread.
    """
    source, lock, stopped = iter(items), threading.Lock(), threading.Event()
    end = object()
    without_buffers: list[MemoryError] = []
    working = threading.Event()

    def take() -> object:
        with lock:
            return end if stopped.is_set() else next(source, end)

    def run() -> None:
        with threads.thread_limit(1):
            try:
                work = worker()
            except MemoryError as error:
                without_buffers.append(error)
                return
            working.set()
            while (item := take()) is not end:
                work(item)  # type: ignore[arg-type]

    running: list[Future[None]] = []
    with ThreadPoolExecutor(max(number, 1), thread_name_prefix="fastinit-worker") as executor:
        try:
            with contextlib.suppress(RuntimeError, MemoryError):  # no more threads are to be had
                for _ in range(limits.fitting(number, buffer_bytes)):
                    started = executor.submit(run)
                    running.append(started)
            if not running:
                run()
            wait(running, return_when=FIRST_EXCEPTION)
        finally:
            stopped.set()
    for one in running:
        one.result()
    if without_buffers and not working.is_set():
        raise MemoryError(f"{without_buffers[0]}. {limits.in_words()}") from without_buffers[0]
