"""The processor that is compiled for, and what compiled code depends on."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm

PACKAGE = Path(__file__).parents[1]

# Processors that stand for many: LLVM's name -> the features that one of the kind has, the best first. The levels are
# those of the x86-64 psABI; `generic` is the least that an architecture has.
_V2 = {"cx16", "popcnt", "sse3", "sse4.1", "sse4.2", "ssse3"}
_V3 = _V2 | {"avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"}
_V4 = _V3 | {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"}
_X86 = {"x86-64-v4": _V4, "x86-64-v3": _V3, "x86-64-v2": _V2} if platform.machine() in ("x86_64", "AMD64") else {}
LEVELS: dict[str, set[str]] = {**_X86, "generic": set()}


def target() -> tuple[str, str]:
    """The name and the features of the processor, in LLVM's terms: the host's, or those that the environment names.

    NUMBA_CPU_NAME and NUMBA_CPU_FEATURES mean what they mean to Numba: a name without features has the host's, but for
    `generic`, which has none.
    """
    host, features = _host()
    name = os.environ.get("NUMBA_CPU_NAME") or host
    return name, os.environ.get("NUMBA_CPU_FEATURES", "" if name.lower() == "generic" else features)


@functools.cache
def _host() -> tuple[str, str]:
    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


def levels() -> list[str]:
    """The keys of LEVELS whose code runs on the host; none where the environment names a processor."""
    if os.environ.get("NUMBA_CPU_NAME") or "NUMBA_CPU_FEATURES" in os.environ:
        return []
    has = {feature[1:] for feature in _host()[1].split(",") if feature.startswith("+")}
    return [name for name, needed in LEVELS.items() if needed <= has]


def machine(triple: str | None = None, cpu: str | None = None, features: str = "") -> Any:
    """LLVM's target machine: for what `target` says, or for another triple and processor.

    Addresses are absolute, of 64 bits: the parts of an object file may be loaded anywhere. On ARM this is what LLVM
    takes itself for code that it loads; for macOS it puts the addresses into a table, not into the code.
    """
    if triple is None:
        _initialize()
        triple, (cpu, features) = llvm.get_process_triple(), target()
    else:
        _initialize_all()
    found = llvm.Target.from_triple(triple)
    return found.create_target_machine(cpu=cpu, features=features, opt=3, reloc="static", codemodel="large", jit=True)


def vector_bits() -> int:
    """The bits of the vectors in code for what `target` says: 512, 256 or 128."""
    return _vector_bits(*target())


@functools.cache
def _vector_bits(name: str, features: str) -> int:
    text = """define <16 x float> @add(<16 x float> %a) "prefer-vector-width"="512" {
        %b = fadd <16 x float> %a, %a
        ret <16 x float> %b
    }"""
    made = machine().emit_assembly(llvm.parse_assembly(text))
    return 512 if "zmm" in made else 256 if "ymm" in made else 128


@functools.cache
def _initialize() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


@functools.cache
def _initialize_all() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


@functools.cache
def tag(name: str, features: str) -> str:
    """What code for a processor depends on, as 12 hex digits: the sources, the compiler's versions, the processor.

    The kind of machine too: x86-64 and ARM may share a home folder, and both have a processor `generic`.
    """
    digest = hashlib.blake2b(digest_size=6)
    for folder in ("_native", "kernels"):
        for path in sorted((PACKAGE / folder).rglob("*")):
            if path.suffix in (".py", ".json"):
                digest.update(path.read_bytes())
    ours = importlib.import_module("fastinit").__version__  # an installation may have no sources that could be read
    versions = (ours, *map(importlib.metadata.version, ("numba", "llvmlite")))
    digest.update(repr((versions, llvm.get_process_triple(), name, features)).encode())
    return digest.hexdigest()
