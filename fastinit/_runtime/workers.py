"""Threads that take items from one list until none is left.

`fastinit._runtime.pool` shares one fill among threads. Here every thread has a fill of its own and a file to write to:
while one waits for the disk, the others make the next blocks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

from fastinit._runtime import threads

Item = TypeVar("Item")


def each(items: Iterable[Item], worker: Callable[[], Callable[[Item], None]], number: int) -> None:
    """Call a function with every item, on several threads.

    Args:
        items: taken one at a time, in their order, by whichever thread is free.
        worker: called on each thread; gives the function, which may keep buffers.
        number: of threads. Fills on them have one thread each.

    The first exception, of a thread or of the caller (Ctrl-C), is raised here when all threads have ended; items that
    were not begun are left.
    """
    source, lock, stopped = iter(items), threading.Lock(), threading.Event()
    end = object()

    def take() -> object:
        with lock:
            return end if stopped.is_set() else next(source, end)

    def run() -> None:
        with threads.thread_limit(1):
            work = worker()
            while (item := take()) is not end:
                work(item)  # type: ignore[arg-type]

    with ThreadPoolExecutor(number, thread_name_prefix="fastinit-worker") as executor:
        try:
            running = [executor.submit(run) for _ in range(number)]
            wait(running, return_when=FIRST_EXCEPTION)
        finally:
            stopped.set()
    for one in running:
        one.result()
