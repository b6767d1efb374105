"""Numba's private names: all that this package uses are here. Where one is missing, kernels still compile."""

from __future__ import annotations

import contextlib
import functools
import os
import pkgutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
from numba.core.compiler_lock import global_compiler_lock

_config: Any = numba.config
_SETTINGS = "numba.core.config._env_reloader.old_environ", "numba.core.config._env_reloader.process_environ"
_CACHE = (
    "numba.core.caching.IndexDataCacheFile._load_data",
    "numba.core.caching.IndexDataCacheFile._load_index",
    "numba.core.caching.IndexDataCacheFile._open_for_write",
    "numba.core.caching.NullCache",
    "numba.core.ccallback.CFunc",
    "numba.core.compiler.CompileResult._rebuild",
    "numba.core.compiler.CompileResult._reduce",
    "numba.core.sigutils.normalize_signature",
)
FALLBACKS = {
    **dict.fromkeys(_SETTINGS, "a .numba_config.yaml that it read at its import holds for kernels too"),
    **dict.fromkeys(_CACHE, "every process compiles its kernels anew"),
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

    NUMBA_DISABLE_JIT counts for the caller's own functions only. Test runs for coverage set it. Numba's decorators then
    return what they are given, inside its compiler too; ours are made of instructions that Python does not have.

    The lock is that of all compilations, so no other thread puts the settings back too early.
    """
    with global_compiler_lock:
        before = {name: value for name, value in vars(_config).items() if name.isupper()}
        reload, old = _config.reload_config, _take_environment()
        disabled = _config.DISABLE_JIT
        _config.reload_config, _config.DISABLE_JIT = _nothing, 0
        try:
            yield
        finally:
            _config.reload_config, _config.DISABLE_JIT = reload, disabled
            if old is not None:
                vars(_config).update(before)
                _config._env_reloader.old_environ = old


def _nothing() -> None:
    """Stand for `reload_config`, which the compiler calls: the settings have just been read."""


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


def kernel_cache(folder: Path, name: str, stamp: str, check: Callable[[Path], None]) -> Any:
    """A cache of one kernel, for `compile_entry` and `compile_callback`.

    Args:
        folder: where its files are.
        name: of the files.
        stamp: of the source: files with another one do not count.
        check: is called before a file is loaded. Whatever it raises ends the compilation.

    Returns:
        The cache; None, with a warning, where Numba lacks a name.
    """
    return _cache_class()(folder, name, stamp, check) if _has(_CACHE) else None


@functools.cache
def _cache_class() -> Any:
    from numba.core.caching import IndexDataCacheFile, NullCache
    from numba.core.compiler import CompileResult

    class Files(IndexDataCacheFile):
        def __init__(self, folder: Path, name: str, stamp: str, check: Callable[[Path], None]) -> None:
            super().__init__(str(folder), name, stamp)
            self._folder, self._check = folder, check

        def _load_index(self) -> Any:
            self._check(Path(self._index_path))
            return super()._load_index()

        def _load_data(self, name: str) -> Any:
            self._check(self._folder / name)
            return super()._load_data(name)

        @contextlib.contextmanager
        def _open_for_write(self, path: str) -> Iterator[Any]:
            """As Numba's, but nobody else may write to the file, whatever the umask."""
            temporary = Path(f"{path}.tmp.{os.urandom(8).hex()}")
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            try:
                with open(descriptor, "wb") as file:  # noqa: PTH123  a descriptor
                    yield file
                temporary.replace(path)
            except BaseException:
                with contextlib.suppress(OSError):
                    temporary.unlink()
                raise

    class KernelCache(NullCache):
        def __init__(self, folder: Path, name: str, stamp: str, check: Callable[[Path], None]) -> None:
            self._folder, self._files = folder, Files(folder, name, stamp, check)

        @property
        def cache_path(self) -> str:
            return str(self._folder)

        def load_overload(self, signature: Any, target: Any) -> Any:
            target.refresh()
            data = self._files.load((signature, target.codegen().magic_tuple()))
            return None if data is None else CompileResult._rebuild(target, *data)

        def save_overload(self, signature: Any, compiled: Any) -> None:
            if not compiled.library.has_dynamic_globals:  # addresses of this process
                with contextlib.suppress(OSError):  # a read-only folder, a full disk
                    self._files.save((signature, compiled.codegen.magic_tuple()), compiled._reduce())

    return KernelCache


def compile_entry(dispatcher: Any, signature: Any, kept: Any) -> Any:
    """Compile a function for one signature, or take it from its cache."""
    dispatcher._cache = kept
    dispatcher.compile(signature)
    dispatcher.disable_compile()
    return dispatcher


def compile_callback(function: Callable[..., Any], signature: Any, options: dict[str, Any], kept: Any) -> Any:
    """Compile a C function, or take it from its cache."""
    from numba.core.ccallback import CFunc
    from numba.core.sigutils import normalize_signature

    callback: Any = CFunc(function, normalize_signature(signature), locals={}, options=options)
    callback._cache = kept
    callback.compile()
    return callback
