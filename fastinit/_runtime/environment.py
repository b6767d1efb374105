"""What this installation is, and how to compile all of it ahead of time."""

from __future__ import annotations

import functools
import importlib.metadata
import itertools
import os
import platform
from collections.abc import Callable
from typing import Any

import llvmlite.binding

from fastinit._runtime.arrays import DTYPES, FLOATS
from fastinit._runtime.threads import count
from fastinit.kernels import drive
from fastinit.kernels.fill import BLOCKS, range_kernel
from fastinit.kernels.nn.activations import KEEPS, backward_kernel, forward_kernel
from fastinit.kernels.nn.losses import LOSSES, call_loss_at, loss_kernel
from fastinit.kernels.nn.network import ENTRIES, network_entry
from fastinit.kernels.nn.reflectors import reflect
from fastinit.kernels.nn.updates import UPDATES, update_kernel, update_pieces
from fastinit.kernels.norms import KINDS, clamp_kernel, norm_kernel, scale_kernel
from fastinit.kernels.reduce import moments, quick_moments

_PACKAGES = ("fastinit", "numba", "llvmlite", "numpy", "scipy", "ml_dtypes", "safetensors", "threadpoolctl")


def info() -> dict[str, Any]:
    """Versions, the CPU, the threading layer and threads, and where compiled kernels are kept (None: nowhere)."""
    return {
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "cpu": llvmlite.binding.get_host_cpu_name(),  # type: ignore[no-untyped-call]
        "cores": os.cpu_count(),
        "threads": count(),
        "threading_layer": "fastinit.pool",  # none of Numba's is started
        "cache_folder": getattr(drive.shared().stats, "cache_path", None),
    }


def warmup(progress: Callable[[str, int, int], None] | None = None) -> int:
    """Compile every kernel into the cache, as a container build wants it; returns how many there are.

    `progress` is called with a name, how many are done and how many there are.
    """
    jobs: list[tuple[str, Callable[[], Any]]] = [
        ("driver of one range", drive.single),
        ("driver of many ranges", drive.shared),
        ("driver of a list of ranges", drive.listed),
    ]
    for law, dtype, mode in itertools.product(BLOCKS, DTYPES, ("fill", "add")):
        jobs.append((f"{mode} {law} {dtype}", functools.partial(range_kernel, law, dtype, mode)))
    jobs += [(f"moments {dtype}", functools.partial(moments, dtype)) for dtype in DTYPES]
    quick = [dtype for dtype in DTYPES if dtype != "float64"]
    jobs += [(f"quick moments {dtype}", functools.partial(quick_moments, dtype)) for dtype in quick]
    for kind, dtype in itertools.product(KINDS, DTYPES):
        jobs.append((f"norm {kind} {dtype}", functools.partial(norm_kernel, kind, dtype)))
    for name, kernel in (("scale", scale_kernel), ("clamp", clamp_kernel)):
        jobs += [(f"{name} {dtype}", functools.partial(kernel, dtype)) for dtype in DTYPES]
    jobs += [(f"reflectors {dtype}", functools.partial(reflect, dtype)) for dtype in FLOATS]
    for activation, dtype in itertools.product(KEEPS, FLOATS):
        for way, kernel in (("forward", forward_kernel), ("backward", backward_kernel)):
            jobs.append((f"{way} {activation} {dtype}", functools.partial(kernel, activation, dtype)))
    for what, names, kernel in (
        ("loss", LOSSES, loss_kernel),
        ("update", UPDATES, update_kernel),
        ("network", ENTRIES, network_entry),
    ):
        for name, dtype in itertools.product(names, FLOATS):
            jobs.append((f"{what} {name} {dtype}", functools.partial(kernel, name, dtype)))
    jobs += [("driver of a loss", call_loss_at), ("driver of an update", update_pieces)]
    for done, (name, compile_) in enumerate(jobs, start=1):
        compile_()
        if progress is not None:
            progress(name, done, len(jobs))
    return len(jobs)
