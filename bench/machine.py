"""What measured times depend on: the CPU, its clock and the versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from pathlib import Path
from typing import Any

import fastinit

PACKAGES = ("numba", "numpy", "scipy", "torch", "jax", "keras", "transformers", "scikit-learn")


def machine() -> dict[str, Any]:
    """Return the CPU as the system and as LLVM name it, its clock and the width of its vectors, the CPUs that this
    process may use, and the versions."""
    import llvmlite.binding

    features = llvmlite.binding.get_host_cpu_features()
    return {
        "gigahertz": round(gigahertz(), 2),
        "vector_bits": 512 if features.get("avx512f") else 256 if features.get("avx2") else 128,
        "cpu_name": _cpu_name(),
        "llvm_cpu": llvmlite.binding.get_host_cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "versions": {"python": platform.python_version(), "fastinit": fastinit.__version__}
        | {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def gigahertz() -> float:
    """Measure the clock of a busy core, by a chain of integer operations that takes one cycle for each.

    The system tells a nominal clock, or none. The chain alternates between addition and exclusive or, each with a
    number that the compiler does not know: it cannot join two of them, and no processor skips one, as some do with
    small constants.
    """
    import numba

    @numba.njit("uint64(uint64, uint64, uint64, int64)")
    def chain(x: int, a: int, b: int, pairs: int) -> int:
        for _ in range(pairs):
            x = (x + a) ^ b
        return x

    pairs, times = 200_000, []
    for _ in range(50):  # the fastest: a turbo takes its time, and others take the core
        start = time.perf_counter()
        chain(1, 12_345, 987_654_321, pairs)
        times.append(time.perf_counter() - start)
    return 2 * pairs / min(times) / 1e9


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
