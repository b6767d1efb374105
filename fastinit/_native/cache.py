"""Where compiled functions are kept between processes, and what of it may be loaded.

What is loaded runs. So a file counts only if nobody but this user and root can have put it there: by its owner and
mode, and those of all folders and links that lead to it. And it counts only if it is whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import sys
import warnings
from pathlib import Path

FIRST_LINE = b"fastinit machine code "  # then the digest of what follows the line
_MOST_LINKS = 40  # on the way to a file, as Linux allows


class UntrustedError(Exception):
    """Another user could have written what lies at a path. The message names the path and the reason."""


def folder() -> Path | None:
    """The folder of the cache, be it there or not; None where there is none, or others can write to it.

    It is that of the environment, else one below the user's folder for caches. It does not depend on the current one.
    """
    try:
        return _folder()
    except UntrustedError as error:
        _warn(error)
        return None


def read(name: str) -> bytes | None:
    """What was saved under a name. None if nothing was, and if it is damaged or may be somebody else's."""
    found = folder()
    if found is None:
        return None
    path = found / name
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:  # none, or a link
        return None
    try:
        _check_file(path, os.fstat(descriptor))
        with open(descriptor, "rb", closefd=False) as file:
            first, _, data = file.read().partition(b"\n")
    except UntrustedError as error:
        _warn(error)
        return None
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return data if first == _first_line(data) else None


def names() -> set[str]:
    """The names of the files in the folder, whole or not."""
    found = folder()
    try:
        return set(os.listdir(found)) if found is not None else set()  # noqa: PTH208  the names alone
    except OSError:
        return set()


def is_writable() -> bool:
    """Whether something can be kept. The folder is made if it is missing."""
    found = folder()
    return found is not None and _is_writable(found)


def save(name: str, data: bytes) -> bool:
    """Keep something under a name, in a file that appears whole or not at all.

    Returns:
        whether it is kept: not in a read-only folder, or on a full disk.
    """
    found = folder()
    if found is None or not _is_writable(found):
        return False
    temporary = found / f"{name}.{os.urandom(8).hex()}"
    try:
        _check(found)  # again: it may have been made just now
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            with open(descriptor, "wb") as file:  # noqa: PTH123  a descriptor
                file.write(_first_line(data) + b"\n" + data)
            temporary.replace(found / name)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except UntrustedError as error:
        _warn(error)
        return False
    except OSError:
        return False
    return True


def _first_line(data: bytes) -> bytes:
    return FIRST_LINE + hashlib.blake2b(data, digest_size=16).hexdigest().encode()


_warned = False


def _warn(error: UntrustedError) -> None:
    """Say, once in a process, that functions are not cached."""
    global _warned
    if not _warned:
        _warned = True
        text = (
            f"{error}. Compiled functions are not loaded from there, but compiled anew. Remove it or take these rights "
            "away, or set FASTINIT_CACHE_DIR to a folder that only you can write to"
        )
        warnings.warn(text, RuntimeWarning, stacklevel=2)


def _folder() -> Path | None:
    if named := os.environ.get("FASTINIT_CACHE_DIR"):
        if not Path(named).is_absolute():
            raise UntrustedError(f"FASTINIT_CACHE_DIR must be an absolute path. Received: {named!r}")
        return _check(Path(named))
    users = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not users.is_absolute():  # to be ignored, says the XDG Base Directory Specification
        users = _home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return _check(users / "fastinit") if users.is_absolute() else None


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


def _check_file(path: Path, status: os.stat_result) -> None:
    """Raise UntrustedError for a file that others can have written, and for what is no file."""
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
