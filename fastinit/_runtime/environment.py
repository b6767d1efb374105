"""What this installation is, and how to compile all of it ahead of time."""

from __future__ import annotations

import functools
import importlib.metadata
import itertools
import os
import platform
from collections.abc import Callable, Iterable
from typing import Any

import llvmlite.binding

from fastinit._runtime.arrays import DTYPES, FLOATS
from fastinit._runtime.limits import memory_limits
from fastinit._runtime.threads import default_threads
from fastinit.kernels import drive
from fastinit.kernels.fill import BLOCKS, range_kernel
from fastinit.kernels.nn.activations import KEEPS, backward_kernel, forward_kernel
from fastinit.kernels.nn.losses import LOSSES, loss_kernel
from fastinit.kernels.nn.network import ENTRIES, network_entry
from fastinit.kernels.nn.reflectors import reflect
from fastinit.kernels.nn.updates import UPDATES, listed_updates, update_kernel
from fastinit.kernels.sums.moments import moments, quick_moments
from fastinit.kernels.sums.norms import KINDS, clamp_kernel, norm_kernel, scale_kernel
from fastinit.kernels.sums.reading import read

_PACKAGES = ("fastinit", "numba", "llvmlite", "numpy", "scipy", "ml_dtypes", "safetensors", "threadpoolctl")


def info() -> dict[str, Any]:
    """Versions, the CPU, threads and memory limit with what decided them (`_reason`), the threading layer, and where
    compiled kernels are kept (None: nowhere)."""
    threads, reason = default_threads()
    limit = next(iter(memory_limits()), None)
    return {
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "cpu": llvmlite.binding.get_host_cpu_name(),  # type: ignore[no-untyped-call]
        "cores": os.cpu_count(),
        "threads": threads,
        "threads_reason": reason,
        "memory_limit": limit and limit.nbytes,
        "memory_limit_reason": limit and limit.source,
        "threading_layer": "fastinit.pool",  # none of Numba's is started
        "cache_folder": getattr(drive.shared().stats, "cache_path", None),
    }


def kernels() -> list[tuple[str, Callable[[], Any]]]:
    """Return the name of every kernel and driver, and a function that compiles it into the cache."""
    quick = [dtype for dtype in DTYPES if dtype != "float64"]
    families: list[tuple[str, Callable[..., Any], *tuple[Iterable[str], ...]]] = [
        ("driver of one range", drive.single),
        ("driver of many ranges", drive.shared),
        ("driver of a list of runs", drive.listed),
        ("driver of a list of updates", listed_updates),
        ("fill", functools.partial(range_kernel, "fill"), BLOCKS, DTYPES),
        ("add", functools.partial(range_kernel, "add"), BLOCKS, DTYPES),
        ("stream", functools.partial(range_kernel, "stream"), ("constant",), DTYPES),
        ("moments", moments, DTYPES),
        ("quick moments", quick_moments, quick),
        ("norm", norm_kernel, KINDS, DTYPES),
        ("scale", scale_kernel, DTYPES),
        ("clamp", clamp_kernel, DTYPES),
        ("reflectors", reflect, FLOATS),
        ("forward", forward_kernel, KEEPS, FLOATS),
        ("backward", backward_kernel, KEEPS, FLOATS),
        ("loss", loss_kernel, LOSSES, FLOATS),
        ("update", update_kernel, UPDATES, FLOATS),
        ("network", network_entry, ENTRIES, FLOATS),
    ]
    if hasattr(os, "pread"):
        families.append(("driver of a file", read))
    return [
        (" ".join((family, *values)), functools.partial(kernel, *values))
        for family, kernel, *axes in families
        for values in itertools.product(*axes)
    ]
