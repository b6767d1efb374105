"""BLAS on one thread while our own threads run: one pool inside another was up to 300 times slower than one pool."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import threading
from collections.abc import Iterator
from typing import Any

_ROUTINES = {"float32": "sgemm", "float64": "dgemm"}


@functools.cache
def gemm_address(dtype: str) -> int:
    """Where BLAS's matrix product for a dtype lies; SciPy's linear algebra is imported when it is first asked for.

    Cython modules export functions to compiled code as capsules, whose names are their signatures.
    """
    capsule = importlib.import_module("scipy.linalg.cython_blas").__pyx_capi__[_ROUTINES[dtype]]
    name, pointer = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    name.restype, name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return int(pointer(capsule, name(capsule)))


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
