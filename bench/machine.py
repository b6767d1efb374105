"""What measured times depend on: the CPU and the versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

PACKAGES = ("fastinit", "numba", "numpy", "scipy", "torch", "jax", "keras", "transformers", "scikit-learn")


def machine() -> dict[str, Any]:
    """Return the CPU as the system and as LLVM name it, the CPUs that this process may use, and the versions."""
    import llvmlite.binding

    return {
        "cpu_name": _cpu_name(),
        "llvm_cpu": llvmlite.binding.get_host_cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
