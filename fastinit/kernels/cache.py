"""Where compiled kernels are kept between processes, and what of it may be loaded.

Kernels are stored as pickles, and a pickle can run any code when it is loaded. So a file counts only if nobody but this
user and root can have put it there: by its owner and mode, and those of all folders and links that lead to it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastinit.kernels import _numba

_MOST_LINKS = 40  # on the way to a file, as Linux allows


class UntrustedError(Exception):
    """Another user could have written what lies at a path. The message names the path and the reason."""


def of(source: Path, name: str) -> Any:
    """The cache of a kernel; None where there is no folder for it.

    Args:
        source: the file with the kernel.
        name: of the kernel, and of what it depends on beside its file.

    Raises:
        UntrustedError: others can write where the cache is.
    """
    name = f"{source.stem}.{name}.py{sys.version_info[0]}{sys.version_info[1]}{sys.abiflags}"
    for folder in _folders(source):
        if os.path.lexists(folder / f"{name}.nbi") or _is_writable(folder):
            _check(folder)  # again: it may have been made just now
            return _numba.kernel_cache(folder, name, _digest(source.read_bytes()), _check_file)
    return None


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=12).hexdigest()


_warned = False


def warn(error: UntrustedError) -> None:
    """Say, once in a process, that kernels are not cached."""
    global _warned
    if not _warned:
        _warned = True
        text = (
            f"{error}. Kernels are not loaded from there but compiled in memory, in every process anew. Remove it or "
            "take these rights away, or set NUMBA_CACHE_DIR to a folder that only you can write to"
        )
        warnings.warn(text, RuntimeWarning, stacklevel=2)


def _folders(source: Path) -> Iterator[Path]:
    """The folders where the kernels of a source file may be, in the order in which they are tried.

    The first is that of the environment, then the package's own, which belongs to the installation as the code does,
    then one below the user's folder for caches. None depends on the current folder.
    """
    inner = f"{source.parent.name}_{_digest(bytes(source.parent))}"
    if named := os.environ.get("NUMBA_CACHE_DIR"):
        if not Path(named).is_absolute():
            raise UntrustedError(f"NUMBA_CACHE_DIR must be an absolute path. Received: {named!r}")
        yield _check(Path(named, inner))
    with contextlib.suppress(UntrustedError):
        yield _check(source.parent / "__pycache__")
    users = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not users.is_absolute():  # to be ignored, says the XDG Base Directory Specification
        users = _home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    if users.is_absolute():
        yield _check(users / "fastinit" / inner)


def _home() -> Path:
    return Path(os.path.expanduser("~"))  # noqa: PTH111  Path's own raises where there is none


def _is_writable(folder: Path) -> bool:
    """Whether files can be put into a folder, which is made if it is missing. Others cannot write to it then."""
    with contextlib.suppress(OSError):
        for step in [*reversed(folder.parents), folder]:
            if not os.path.lexists(step):
                step.mkdir(0o755)
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _check(path: Path, links: int = _MOST_LINKS) -> Path:
    """Return the path of a folder in which, and on the way to which, nobody else can put anything.

    What is missing will be made by this user. A folder with the sticky bit may lie on the way, such as /tmp: nobody
    else can rename what is ours in there. The home folder itself is checked, but not where it lies.

    Raises:
        UntrustedError: somebody else can.
    """
    home = _home()
    above_home = home.parents if home in (path, *path.parents) else ()
    for step in [*reversed(path.parents), path]:
        try:
            status = os.lstat(step)
        except OSError:  # missing, or this user cannot see it
            return path
        if stat.S_ISLNK(status.st_mode):
            _refuse(step, _owner_fault(status))
            if not links:
                raise UntrustedError(f"{path} is reached through more than {_MOST_LINKS} links")
            _check(step.parent / step.readlink() / path.relative_to(step), links - 1)
            return path
        if step not in above_home:
            sticky = step != path and status.st_mode & stat.S_ISVTX
            _refuse(step, _owner_fault(status) or ("" if sticky else _mode_fault(status)))
    return path


def _check_file(path: Path) -> None:
    """Raise UntrustedError for a file that others can have written, and for what is no file; a missing one is right."""
    with contextlib.suppress(FileNotFoundError):
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode):
            raise UntrustedError(f"{path} is not a regular file")
        _refuse(path, _owner_fault(status) or _mode_fault(status))


def _refuse(path: Path, fault: str) -> None:
    if fault:
        raise UntrustedError(f"{path} {fault}")


def _user() -> int:
    return os.geteuid()


def _owner_fault(status: os.stat_result) -> str:
    return "" if status.st_uid in (0, _user()) else f"belongs to another user ({status.st_uid})"


def _mode_fault(status: os.stat_result) -> str:
    if status.st_mode & stat.S_IWOTH:
        return "can be written to by all users"
    if status.st_mode & stat.S_IWGRP and not _is_private_group(status.st_gid):
        return f"can be written to by its group ({status.st_gid})"
    return ""


def _is_private_group(group_id: int) -> bool:
    """Whether a group has this user's name and no other member: such systems have a umask that lets the group write.

    Root's group never counts: containers run the processes of many users in it.
    """
    import grp
    import pwd

    try:
        name, group = pwd.getpwuid(_user()).pw_name, grp.getgrgid(group_id)
    except KeyError:
        return False
    return _user() != 0 and group.gr_name == name and set(group.gr_mem) <= {name}
