"""Compiled functions by name: out of the cache of this machine, or compiled now."""

from __future__ import annotations

import ctypes
import functools
import importlib
import os
import struct
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import llvmlite.binding as llvm

from fastinit._native import cache, processor

_PACKED: Any = ctypes.CFUNCTYPE(None, ctypes.c_char_p)  # a function that takes its arguments from memory


class Kernel(NamedTuple):
    """A compiled function: compiled code calls it through its address, Python with its ints and floats.

    It stays for as long as the process lives, and runs without the lock of the interpreter. It returns nothing.
    """

    address: int
    call: Callable[..., None]


def kernel(name: str, *variant: str) -> Kernel:
    """A compiled function.

    Args:
        name: a key of `catalogue.KERNELS`.
        variant: one of the variants there, e.g. a dtype.
    """
    names = (name, *variant)
    found = _kernels.get(names)
    if found is None:
        with _lock:  # LLVM is not to load two files at once, nor one file twice
            found = _kernels.get(names)
            if found is None:
                found = _kernels[names] = _loaded(*names)
    return found


def compile_into_cache(*names: str) -> bool:
    """Compile a function that the cache lacks, for the processor that `processor.target` says; it is not loaded.

    Returns:
        whether the cache has it now.
    """
    name = _file_name(names, *processor.target())
    return cache.read(name) is not None or cache.save(name, _compiled(*names))


_lock = threading.RLock()
_kernels: dict[tuple[str, ...], Kernel] = {}


def _file_name(names: tuple[str, ...], processor_name: str, features: str) -> str:
    return f"{'-'.join(names)}-{processor.tag(processor_name, features)}.o"


def _cached(names: tuple[str, ...]) -> bytes | None:
    """What the cache has of a function: for this processor, or for a kind of processors that it is one of."""
    for target in (processor.target(), *((level, "") for level in processor.levels())):
        if (data := cache.read(_file_name(names, *target))) is not None:
            return data
    return None


def _loaded(*names: str) -> Kernel:
    data = _cached(names)
    if data is None:
        data = _compiled(*names)
        cache.save(_file_name(names, *processor.target()), data)
    return load(data, "-".join(names))


def load(data: bytes, symbol: str) -> Kernel:
    """Load what `kernels.objects.object_file` made: its function has the name `symbol`, which no other has.

    The letters of its arguments are those of `struct`, 64 bits each: `q`, `Q` and `d`.
    """
    letters, _, code = data.partition(b"\n")
    engine = _engine()
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    pack, packed = struct.Struct(b"=" + letters).pack, _PACKED(engine.get_function_address(f"{symbol}-packed"))

    def call(*arguments: float) -> None:
        packed(pack(*arguments))

    return Kernel(engine.get_function_address(symbol), call)


def _compiled(*names: str) -> bytes:
    """The letters of the arguments, a line break, and an object file with one function."""
    objects = importlib.import_module("fastinit.kernels.objects")  # and with it Numba
    data: bytes = objects.compiled(*names)
    return data


@functools.cache
def _engine() -> Any:
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), processor.machine())


if hasattr(os, "register_at_fork"):  # a child must not get the lock from a thread that it does not have
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
