"""Files that are complete or not there, and locks."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import os
import secrets
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from fastinit._runtime.arrays import Array

UNFINISHED = ".tmp"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def locked(path: Path, message: str, *, shared: bool = False) -> Iterator[int]:
    """Lock a file or a folder, made where a file is missing, and give its descriptor.

    The lock ends with the process, however that ends. Where the file system has no locks nothing is locked: runs that
    write one job write the same bytes.

    Raises:
        BlockingIOError: with the message; another process has locked it.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | (0 if path.is_dir() else os.O_CREAT)
    descriptor = os.open(path, flags, 0o666)
    try:
        if not try_lock(descriptor, shared=shared):
            raise BlockingIOError(message)
        yield descriptor
    finally:
        os.close(descriptor)


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Take a lock, or exchange the one that is held; False where another process has one that excludes it."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


def sync_folder(path: Path) -> None:
    """Make the names in a folder last through a loss of power."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put(path: Path, data: bytes, *, replace: bool = True, sync: bool = True) -> None:
    """Write a small file, which is there as a whole or not at all.

    Raises:
        FileExistsError: it is there and `replace` is false.
    """
    temporary = unfinished(path)
    try:
        descriptor = create(temporary)
        try:
            write_at(descriptor, data, 0)
            if sync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if replace:
            temporary.replace(path)
        else:
            _link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError as error:
        if error.errno not in (errno.EPERM, *_NO_LOCKS):  # a file system without links
            raise
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        source.replace(target)


def unfinished(path: Path) -> Path:
    """A name for a file until it is complete, a new one each time: who still writes to an older one does no harm."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}{UNFINISHED}")


def remove_unfinished(folder: Path, names: Iterable[str]) -> None:
    """Remove what runs that were killed have left of files; nobody may be writing them."""
    wanted = set(names)
    for path in folder.glob(f".*{UNFINISHED}"):
        if path.name[1:].rsplit(".", 2)[0] in wanted:
            path.unlink(missing_ok=True)


def create(path: Path) -> int:
    """A new file, open for writing. Its mode is 0666 less the umask, as for any new file."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)


def write_at(descriptor: int, data: Array | bytes, offset: int) -> None:
    """All of the bytes: pwrite may take fewer than it was given."""
    left = memoryview(data)  # type: ignore[arg-type]
    while left:
        written = os.pwrite(descriptor, left, offset)
        left, offset = left[written:], offset + written


def read_at(descriptor: int, buffer: Array, offset: int) -> Array:
    """The bytes of a file from an offset on, in the front of a buffer: as many as it takes and as there are."""
    done = 0
    while done < buffer.size:
        read = os.preadv(descriptor, [buffer[done:]], offset + done)  # type: ignore[list-item]
        if not read:
            break
        done += read
    return buffer[:done]


def check_space(folder: Path, nbytes: int) -> None:
    """Raise OSError where a file system has not as much space left."""
    free = shutil.disk_usage(folder).free
    if free < nbytes:
        text = f"{os.strerror(errno.ENOSPC)}: {nbytes:,} bytes are needed, {free:,} are free"
        raise OSError(errno.ENOSPC, text, str(folder))


def reserve(descriptor: int, nbytes: int, path: Path) -> None:
    """Give a file its size and take the space now, where the file system can, so that a full disk shows before the
    work.

    Linux's own call: `os.posix_fallocate` writes into every page where the file system cannot, and over a network
    that takes minutes.
    """
    start, size = ctypes.c_int64(0), ctypes.c_int64(nbytes)
    if sys.platform == "linux" and nbytes and _libc().fallocate(descriptor, 0, start, size):
        error = ctypes.get_errno()
        if error not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            raise OSError(error, f"{os.strerror(error)}: {nbytes:,} bytes are needed", str(path))
    os.ftruncate(descriptor, nbytes)


def start_writeback(descriptor: int, offset: int, nbytes: int) -> None:
    """Let the disk begin with bytes that were written. By itself Linux waits until a tenth of the memory is to be
    written, and the disk has nothing to do until then. Only a hint: errors are left to `fsync`."""
    if sys.platform == "linux":
        write = 2  # SYNC_FILE_RANGE_WRITE
        _libc().sync_file_range(descriptor, ctypes.c_int64(offset), ctypes.c_int64(nbytes), write)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
