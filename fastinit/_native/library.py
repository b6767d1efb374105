"""Compiled functions by name: out of the cache of this machine, or compiled now."""

from __future__ import annotations

import ctypes
import functools
import gc
import importlib
import logging  # noqa: F401  its lock is taken at a fork too: after ours, if it is registered before
import os
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import llvmlite.binding as llvm

from fastinit._native import cache, catalogue, processor

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
    return _kernels.get(names) or _undisturbed(functools.partial(_loaded_once, names))


def compile_into_cache(*names: str) -> bool:
    """Compile a function for the processor that `processor.target` says, and keep it; it is not loaded.

    Returns:
        whether the cache has it now.
    """
    return cache.save(_file_name(names, *processor.target()), _compiled(*names))


def is_cached(names: tuple[str, ...], target: tuple[str, str] | None = None) -> bool:
    """Whether the cache has a function for a processor, by its name and features: `processor.target`'s, or another."""
    return cache.read(_file_name(names, *(target or processor.target()))) is not None


def number_cached() -> int:
    """How many functions of the catalogue a process on this machine finds in the cache, by the names of the files."""
    files = cache.names()
    return sum(not files.isdisjoint(_file_names(names)) for names in catalogue.everything()) if files else 0


_lock = threading.RLock()
_kernels: dict[tuple[str, ...], Kernel] = {}


def _file_name(names: tuple[str, ...], processor_name: str, features: str) -> str:
    return f"{'-'.join(names)}-{processor.tag(processor_name, features)}.o"


def _file_names(names: tuple[str, ...]) -> Iterator[str]:
    """Where a function may be, the best first: for this processor, or for a kind of processors that it is one of."""
    for target in (processor.target(), *((level, "") for level in processor.levels())):
        yield _file_name(names, *target)


def _loaded_once(names: tuple[str, ...]) -> Kernel:
    with _lock:  # LLVM is not to load two files at once, nor one file twice
        if names not in _kernels:
            _kernels[names] = _loaded(*names)
        return _kernels[names]


def _loaded(*names: str) -> Kernel:
    found = (data for name in _file_names(names) if (data := cache.read(name)) is not None)
    data = next(found, None)
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
    collecting = gc.isenabled()
    gc.disable()  # it found nothing, and took a fifth of the time
    try:
        objects = importlib.import_module("fastinit.kernels.objects")  # and with it Numba
        data: bytes = objects.compiled(*names)
    finally:
        if collecting:
            gc.enable()
    return data


def _undisturbed(work: Callable[[], Kernel]) -> Kernel:
    """Run what loads a kernel where no handler of a signal runs: on another thread than the main one.

    What a handler raises inside llvmlite, between a call of LLVM and the note of who owns a module now, frees it twice.
    Ctrl-C ends the waiting alone: the kernel is loaded all the same.
    """
    done: list[Kernel] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:  # for the thread that waits
            errors.append(error)

    if threading.current_thread() is threading.main_thread():
        thread = threading.Thread(target=run, name="fastinit-load")
        try:
            thread.start()
        except RuntimeError:  # no more threads are to be had
            run()
        else:
            thread.join()
    else:
        run()
    if errors:
        raise errors[0]
    return done[0]


@functools.cache
def _engine() -> Any:
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), processor.machine())


if hasattr(os, "register_at_fork"):  # a child must not get the lock from a thread that it does not have
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
