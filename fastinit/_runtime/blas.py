"""BLAS on one thread while our own threads run: one pool inside another was up to 300 times slower than one pool."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import Any

_lock = threading.RLock()
_inside = 0  # with-blocks, of all threads: the first one saves BLAS's settings and the last one restores them
_before: list[tuple[Any, int]] = []


@functools.cache
def _libraries() -> list[Any]:
    """The BLAS libraries that are loaded, SciPy's among them. To find them takes milliseconds, so it is done once."""
    import scipy.linalg.cython_blas  # noqa: F401
    import threadpoolctl  # here, for the sake of `import fastinit`: 5 ms

    controller: Any = threadpoolctl.ThreadpoolController()  # type: ignore[no-untyped-call]
    return [library for library in controller.lib_controllers if library.user_api == "blas"]


def _set(library: Any, number: int) -> None:
    """Its number of threads. threadpoolctl's own setter (as of 3.8) listens to the first thread that ever set one, as
    long as it lives, and does nothing for the others: two threads that train would leave BLAS on one thread."""
    getattr(library, "_real_set_num_threads", library.set_num_threads)(number)


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """BLAS's own number of threads is 1 inside the block, for the whole process, and what it was before after it."""
    global _inside
    entered = False
    try:
        with _lock:
            libraries = _libraries()
            entered = True
            _inside += 1
            if _inside == 1:
                _before[:] = [(library, library.get_num_threads()) for library in libraries]
                for library, _ in _before:
                    _set(library, 1)
        yield
    finally:
        if entered:
            with _lock:
                _inside -= 1
                if _inside == 0:
                    for library, number in _before:
                        _set(library, number)
