"""What this installation is, and what it runs on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

from fastinit import __version__
from fastinit._native import cache, catalogue, library, processor
from fastinit._runtime.limits import memory_limits
from fastinit._runtime.threads import default_threads

STREAM_VERSION = 2  # of docs/stream.md: which bits a seed, a name and a distribution give
_PACKAGES = ("numba", "llvmlite", "numpy", "scipy", "ml_dtypes")


def info() -> dict[str, Any]:
    """Versions, also of the stream, the processor that is compiled for, the levels whose code it runs too, threads and
    memory limit with what decided them (`_reason`), the threading layer, where compiled kernels are kept (None:
    nowhere), how many of them are there, and how many there can be."""
    threads, reason = default_threads()
    limit = next(iter(memory_limits()), None)
    folder = cache.folder()
    return {
        "versions": {"fastinit": __version__} | {name: importlib.metadata.version(name) for name in _PACKAGES},
        "stream_version": STREAM_VERSION,
        "python": platform.python_version(),
        "cpu": processor.target()[0],
        "cpu_levels": processor.levels(),
        "cores": os.cpu_count(),
        "threads": threads,
        "threads_reason": reason,
        "memory_limit": limit and limit.nbytes,
        "memory_limit_reason": limit and limit.source,
        "threading_layer": "fastinit.pool",  # none of Numba's is started
        "cache_folder": folder and str(folder),
        "kernels_cached": library.number_cached(),
        "kernels": len(list(catalogue.everything())),
    }
