"""Numba's private names: all that this package uses are here. Where one is missing, kernels still compile."""

from __future__ import annotations

import contextlib
import functools
import os
import pkgutil
import warnings
from collections.abc import Iterator
from typing import Any

import numba
from numba.core import codegen
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

_config: Any = numba.config
_OWN = {"DISABLE_JIT": 0, "BOUNDSCHECK": None, "DEBUGINFO_DEFAULT": 0, "ENABLE_PROFILING": 0}  # settings of our kernels
_SETTINGS = "numba.core.config._env_reloader.old_environ", "numba.core.config._env_reloader.process_environ"
_TARGET = ("numba.core.registry.cpu_target.target_context",)
_EMISSION = "numba.core.codegen.JITCodeLibrary._finalize_final_module", "numba.core.codegen.JITCPUCodegen.set_env"
FALLBACKS = {
    **dict.fromkeys(_SETTINGS, "a .numba_config.yaml that it read at its import holds for kernels too"),
    **dict.fromkeys(_TARGET, "it optimises kernels before LLVM does, which takes longer"),
    **dict.fromkeys(_EMISSION, "it makes machine code of its own of every function, which takes longer"),
}


def _exists(name: str) -> bool:
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


@functools.cache
def _has(names: tuple[str, ...]) -> bool:
    """Whether this Numba has all of these names; warns of the first that it lacks."""
    missing = [name for name in names if not _exists(name)]
    if missing:
        text = f"Numba {numba.__version__} has no {missing[0]}: {FALLBACKS[missing[0]]}"
        warnings.warn(text, RuntimeWarning, stacklevel=2)
    return not missing


@contextlib.contextmanager
def compiler() -> Iterator[None]:
    """Let Numba compile inside the with-block, with the settings of the environment alone.

    A `.numba_config.yaml` in the current folder is not read; what it set before is undone for the block. Numba reads it
    at its import and at each compilation. Whoever made the folder could name a cache, whose files are pickles, or
    modules to import.

    Settings that change what is made count for the caller's own functions only (`_OWN`). Test runs for coverage set
    NUMBA_DISABLE_JIT: Numba's decorators then return what they are given, inside its compiler too, and ours are made of
    instructions that Python does not have.

    The lock is that of all compilations, so no other thread puts the settings back too early.
    """
    with global_compiler_lock:
        before = {name: value for name, value in vars(_config).items() if name.isupper()}
        reload, old = _config.reload_config, _take_environment()
        given = {name: getattr(_config, name) for name in _OWN if hasattr(_config, name)}
        _config.reload_config = _nothing
        vars(_config).update({name: _OWN[name] for name in given})
        try:
            yield
        finally:
            _config.reload_config = reload
            vars(_config).update(given)
            if old is not None:
                vars(_config).update(before)
                _config._env_reloader.old_environ = old


@contextlib.contextmanager
def lowering() -> Iterator[None]:
    """Let Numba make LLVM's intermediate code inside the with-block, as `compiler` does, and nothing more.

    Numba neither optimises it nor makes machine code of it, which took a third of the time.
    """
    with compiler(), _emitting_nothing():
        level = _config.OPT
        if _has(_TARGET):
            _ = cpu_target.target_context  # made with the caller's level, which it keeps
            _config.OPT = type(level)(0)
        try:
            yield
        finally:
            _config.OPT = level


@contextlib.contextmanager
def _emitting_nothing() -> Iterator[None]:
    """Keep functions that are compiled inside the with-block out of Numba's engine: callers link their code."""
    if not _has(_EMISSION):
        yield
        return
    library: Any = codegen.JITCodeLibrary
    generator: Any = codegen.JITCPUCodegen
    finish, connect = library._finalize_final_module, generator.set_env
    library._finalize_final_module, generator.set_env = _mark_finished, _nothing
    try:
        yield
    finally:
        library._finalize_final_module, generator.set_env = finish, connect


def _mark_finished(library: Any) -> None:
    """Stand for what gives the code of a library to Numba's engine."""
    library._finalized = True


def _nothing(*_: Any) -> None:
    """Stand for `reload_config`, since the settings have just been read, and for `set_env`, without machine code."""


def _take_environment() -> dict[str, Any] | None:
    """Read the settings from the environment, if it has changed or a file had a part in them.

    Returns:
        What to put back afterwards: where the settings came from, if a file had a part in them; else None.
    """
    if not _has(_SETTINGS):
        return None
    reloader = _config._env_reloader
    environment = {name: os.environ[name] for name in list(os.environ) if name.startswith("NUMBA_")}
    old: dict[str, Any] = reloader.old_environ
    if old == environment:
        return None
    # It refuses a changed NUMBA_NUM_THREADS, which nothing here needs.
    with contextlib.suppress(RuntimeError):
        reloader.process_environ(environment)
        reloader.old_environ = environment
    return None if old.items() <= environment.items() else old
