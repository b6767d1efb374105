"""What libraries would take from the current folder. It may be a stranger's, so neither settings nor code counts."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator

# A file in the current folder, and the module at whose import it is read. Numba's can name modules to import, and a
# cache whose files are pickles; matplotlib's a module to draw with, and a text for LaTeX.
_READERS = {".numba_config.yaml": "fastinit.kernels", "matplotlibrc": "matplotlib"}


def ignore_settings() -> list[str]:
    """Import what would read settings from the current folder while another folder is the current one.

    Only for a process of our own without threads: all of them have the same current folder.

    Returns:
        The files that were there.

    Raises:
        ImportError: Numba cannot be imported.
    """
    found = [name for name in _READERS if os.path.lexists(name)]
    for name in found:
        with _elsewhere():
            if name != "matplotlibrc":
                importlib.import_module(_READERS[name])
                continue
            with contextlib.suppress(ImportError):  # the command that needs it says so
                importlib.import_module(_READERS[name])
    return found


def start_ray_elsewhere() -> None:
    """Keep Ray's workers from importing modules that lie in the current folder."""
    from fastinit.checkpoint import _on_ray

    _on_ray.starting = _elsewhere


@contextlib.contextmanager
def _elsewhere() -> Iterator[None]:
    """Make the root folder the current one inside the with-block."""
    here = os.open(".", getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC)  # its name may be gone
    try:
        os.chdir("/")
        try:
            yield
        finally:
            os.fchdir(here)
    finally:
        os.close(here)
