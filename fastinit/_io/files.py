"""Files that are complete or not there, and locks."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import operator
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

import numpy as np

from fastinit._runtime.arrays import Array

_UNFINISHED = re.compile(r"\.(.+)\.[0-9a-f]{16}\.tmp", re.DOTALL)  # the names that `unfinished` gives
MOST_TEXT = 100_000_000  # bytes of a document that is read whole: as many as a safetensors header may have
_SMALL = 1 << 12  # bytes to ask for of a file that says nothing of its size, as those of /proc
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL
# What a file system answers that does not have a call, or not for folders.
_UNSUPPORTED = (errno.EBADF, errno.EINVAL, errno.EISDIR, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
_NO_LOCKS = (*_UNSUPPORTED, errno.ENOLCK)
_NO_FOLDER_SYNC = (*_UNSUPPORTED, errno.EACCES)  # SMB servers flush only folders that are open for writing
_NO_LINKS = (*_UNSUPPORTED, errno.EACCES, errno.EMLINK, errno.EPERM, errno.EXDEV)
_NO_EXTENSION = (*_UNSUPPORTED, errno.EPERM)  # ftruncate(2)
_INTERRUPTIONS = 10  # of one fallocate: where a timer sends signals, it might never end


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give a path to the errors of calls that know only a descriptor."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def opened(path: Path, flags: int) -> contextlib.AbstractContextManager[int]:
    """Open a file for a with-block, as `closing`."""
    return closing(os.open(path, flags | os.O_CLOEXEC, 0o666), path)


@contextlib.contextmanager
def closing(descriptor: int, path: Path) -> Iterator[int]:
    """Close a file at the end of a with-block, and give its path to the errors inside.

    An error of `close` is raised too, unless there was one before: over a network a full disk may show only then.
    """
    try:
        with naming(path):
            yield descriptor
    except BaseException:
        close_quietly(descriptor)
        raise
    with naming(path):
        os.close(descriptor)


def close_quietly(descriptor: int) -> None:
    """Close a file whose bytes do not count. Whatever the answer, the descriptor is closed."""
    with contextlib.suppress(OSError):
        os.close(descriptor)


def remove_quietly(path: Path) -> None:
    """Remove a file that is of no use, if it is there and can be removed."""
    with contextlib.suppress(OSError):
        path.unlink()


def check_regular(path: Path, status: os.stat_result) -> None:
    """Raise IsADirectoryError for a folder, and ValueError for a pipe, a socket or a device.

    To open one of these may wait for another process, or have an effect on the device.
    """
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} must be a file. Received: {_kind(status.st_mode)}")


def _kind(mode: int) -> str:
    kinds = {stat.S_IFLNK: "a link", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


@contextlib.contextmanager
def opened_regular(path: Path, flags: int = os.O_RDONLY) -> Iterator[tuple[int, int]]:
    """Open a file that is there for a with-block; give the descriptor and the file's size in bytes.

    A link to a file is followed unless `flags` has O_NOFOLLOW. Errors inside the block get the path, as in `opened`.

    Raises:
        IsADirectoryError, ValueError: as `check_regular`, before anything is opened.
    """
    with naming(path):
        check_regular(path, path.stat(follow_symlinks=not flags & os.O_NOFOLLOW))
    # O_NONBLOCK: it may have become a pipe in between. Files do not know it.
    with opened(path, flags | os.O_NONBLOCK | os.O_NOCTTY) as descriptor:
        status = os.fstat(descriptor)
        check_regular(path, status)
        yield descriptor, status.st_size


def read(path: Path, most: int = MOST_TEXT) -> bytes:
    """All of a file that is small enough to be read whole.

    Raises:
        IsADirectoryError, ValueError: it is no file, or has more than `most` bytes.
    """
    with opened_regular(path) as (descriptor, size):
        parts, left = [], most + 1 if size <= most else 0
        with open(descriptor, "rb", closefd=False) as file:
            # No more is asked for than seems to be there: a buffer is made of what is asked for.
            while left and (part := file.read(min(left, max(size, _SMALL) + 1))):
                parts.append(part)
                left -= len(part)
        if not left:
            raise ValueError(f"{path} must have at most {most:,} bytes. Received: {size:,}")
    return b"".join(parts)


class Copy(bytes):
    """Bytes that were read from a file. What is written from them gets no wider rights than that file has.

    `source` is the file's status.
    """

    source: os.stat_result | None

    def __new__(cls, data: bytes, source: os.stat_result | None) -> Self:
        copy = super().__new__(cls, data)
        copy.source = source
        return copy


def check_folder(path: Path) -> None:
    """Raise NotADirectoryError for what is there and is no folder, also for a link to one."""
    if os.path.lexists(path) and not stat.S_ISDIR(path.lstat().st_mode):
        raise NotADirectoryError(f"{path} must be a folder, and no link to one")


def is_protected(path: Path) -> bool:
    """Return True if another user owns a path in a sticky folder such as /tmp, where only owners rename and remove."""
    folder = path.parent.stat()
    return bool(folder.st_mode & stat.S_ISVTX) and path.lstat().st_uid not in (os.geteuid(), folder.st_uid)


def check_replaceable(paths: Iterable[Path]) -> None:
    """Check that all of some files can be replaced or removed, before the first of them is.

    Raises:
        PermissionError: the folder cannot be written; a file is another user's, in a sticky folder; or nobody may
            change one of them (`chattr +i`, `+a`).
        IsADirectoryError: one is a folder.
        OSError: a file system is mounted on one, as containers do with a single file.
    """
    there = [path for path in paths if os.path.lexists(path)]
    for folder in dict.fromkeys(path.parent for path in there):
        if not os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        if _is_immutable(folder):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(folder))
    mounted = _mount_points() if there else frozenset()
    for path in there:
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if (is_protected(path) and os.geteuid()) or (stat.S_ISREG(mode) and _is_immutable(path)):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(path))
        if os.fsencode(path.parent.resolve() / path.name) in mounted:
            raise OSError(errno.EBUSY, f"{os.strerror(errno.EBUSY)}: it is a mount point", str(path))


def _is_immutable(path: Path) -> bool:
    """Whether a file, or the names in a folder, may be changed by nobody, or only added to; ioctl_iflags(2)."""
    if sys.platform != "linux":
        return False
    get_flags, immutable, append_only = 0x80086601 if sys.maxsize >> 32 else 0x80046601, 0x10, 0x20
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:  # it cannot be read, or is a link
        return False
    flags = bytearray(8)
    with contextlib.suppress(OSError):  # the file system has no flags
        fcntl.ioctl(descriptor, get_flags, flags)
    close_quietly(descriptor)
    return bool(int.from_bytes(flags[:4], sys.byteorder) & (immutable | append_only))


def _mount_points() -> frozenset[bytes]:
    """The paths on which file systems are mounted, as Linux lists them; none elsewhere."""
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:
        return frozenset()
    escaped = re.compile(rb"\\([0-7]{3})")  # a space, a tab, a line break, a backslash
    return frozenset(escaped.sub(lambda found: bytes([int(found[1], 8)]), line.split(b" ")[4]) for line in lines)


@contextlib.contextmanager
def locked(path: Path, message: str, *, shared: bool = False) -> Iterator[int]:
    """Lock a file or a folder, made where a file is missing, and give its descriptor.

    The lock ends with the process, however that ends. Where the file system has no locks nothing is locked: runs that
    write one job write the same bytes. A file is opened for writing, which NFS asks of a lock that excludes others.

    Raises:
        BlockingIOError: with the message; another process has locked it.
        OSError, ValueError: in the place of a file there is a link, a pipe or a device.
    """
    is_folder = path.is_dir()
    flags = os.O_RDONLY if is_folder else os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o666)
    try:
        if not is_folder:
            check_regular(path, os.fstat(descriptor))
        with naming(path):
            taken = try_lock(descriptor, shared=shared)
        if not taken:
            raise BlockingIOError(message)
        yield descriptor
    finally:
        close_quietly(descriptor)


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Take a lock, or exchange the one that is held; False where another process has one that excludes it."""
    return _flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


def unlock(descriptor: int) -> None:
    """Give a lock back."""
    _flock(descriptor, fcntl.LOCK_UN)


def _flock(descriptor: int, operation: int) -> bool:
    """As fcntl.flock; False where another process excludes it, True where the file system has no locks."""
    try:
        fcntl.flock(descriptor, operation)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):  # EACCES: fcntl(2), by which networks lock; CIFS
            return False
        if error.errno not in _NO_LOCKS:
            raise
    return True


def sync_folder(path: Path) -> None:
    """Make the names in a folder last through a loss of power, where the file system can do that."""
    with opened(path, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in _NO_FOLDER_SYNC:
                raise


def put(path: Path, data: bytes, *, replace: bool = True, sync: bool = True, replaces: Path | None = None) -> None:
    """Write a small file, which is there as a whole or not at all. A link in its place is replaced, not followed.

    Args:
        path: of the file.
        data: its bytes. The file gets no wider rights than the one that it replaces, nor than the source of a `Copy`.
        replace: whether it may be there.
        sync: wait for the disk.
        replaces: the file that it will replace later. Default: the one that is there.

    Raises:
        FileExistsError: it is there and `replace` is false.
    """
    temporary = unfinished(path)
    try:
        created = create(temporary, replaces or path, data.source if isinstance(data, Copy) else None)
        with closing(created, temporary) as descriptor:
            write_at(descriptor, data, 0)
            if sync:
                os.fsync(descriptor)
        if replace:
            temporary.replace(path)
        else:
            _link(temporary, path)
    finally:
        remove_quietly(temporary)
    if sync:
        sync_folder(path.parent)


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        source.replace(target)


def unfinished(path: Path) -> Path:
    """A name for a file until it is complete, a new one each time: who still writes to an older one does no harm."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def remove_unfinished(folder: Path, names: Iterable[str]) -> None:
    """Remove what runs that were killed have left of files; nobody may be writing them."""
    wanted = set(names)
    for path in folder.glob(".*.tmp"):
        found = _UNFINISHED.fullmatch(path.name)
        if found is not None and found[1] in wanted and (path.is_symlink() or path.is_file()):
            path.unlink(missing_ok=True)


def create(path: Path, replaces: Path | None = None, source: os.stat_result | None = None) -> int:
    """Make a file, open for writing. Its mode is 0666 less the umask, as for any new file, and no wider than that of
    the file that it will replace, or of the one with the status `source` that it is a copy of."""
    limits = [
        status for status in (replaces and status_of(replaces), source) if status and stat.S_ISREG(status.st_mode)
    ]
    mode = functools.reduce(operator.and_, (status.st_mode for status in limits), 0o666)
    descriptor = os.open(path, _CREATE | os.O_CLOEXEC, mode)
    new = os.fstat(descriptor)
    for status in limits:
        if status.st_gid != new.st_gid:  # of another group the file gave these rights to none but all others
            mode &= ~0o070 | (status.st_mode & 0o007) << 3
            mode &= ~0o007 | (status.st_mode & 0o070) >> 3  # that group's members are others now
    if new.st_mode & 0o077 & ~mode:
        with contextlib.suppress(OSError):  # on file systems without modes
            os.fchmod(descriptor, new.st_mode & mode)
    return descriptor


def status_of(path: Path) -> os.stat_result | None:
    """The status of the file that a path leads to; None where there is none."""
    try:
        return path.stat()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        return None


def write_at(descriptor: int, data: Array | bytes, offset: int) -> None:
    """All of the bytes: pwrite may take fewer than it was given."""
    left = memoryview(data)  # type: ignore[arg-type]
    while left:
        written = os.pwrite(descriptor, left, offset)
        if not written:
            raise OSError(errno.EIO, f"{os.strerror(errno.EIO)}: none of {len(left):,} bytes were written")
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


def front(descriptor: int, nbytes: int) -> bytes:
    """The first bytes of a file: so many, or as many as there are."""
    return read_at(descriptor, np.empty(nbytes, np.uint8), 0).tobytes()


def check_space(folder: Path, nbytes: int) -> None:
    """Raise OSError where a file system has not as much space left; not where it does not tell (its size is 0)."""
    try:
        total, _, free = shutil.disk_usage(folder)
    except OSError:
        return
    if total and free < nbytes:
        text = f"{os.strerror(errno.ENOSPC)}: {nbytes:,} bytes are needed, {free:,} are free"
        raise OSError(errno.ENOSPC, text, str(folder))


def reserve(descriptor: int, nbytes: int, path: Path) -> None:
    """Give a file its size and take the space now, where the file system can, so that a full disk shows before the
    work.

    Linux's own call: `os.posix_fallocate` writes into every page where the file system cannot, and over a network
    that takes minutes.
    """
    error = _allocate(descriptor, nbytes) if sys.platform == "linux" and nbytes else 0
    if error and error not in (*_UNSUPPORTED, errno.EINTR):
        raise OSError(error, f"{os.strerror(error)}: {nbytes:,} bytes are needed", str(path))
    try:
        os.ftruncate(descriptor, nbytes)
    except OSError as refusal:  # the last byte that is written gives the file its size too
        if refusal.errno not in _NO_EXTENSION:
            raise OSError(refusal.errno, f"{refusal.strerror}: {nbytes:,} bytes are needed", str(path)) from None


def _allocate(descriptor: int, nbytes: int) -> int:
    """Take the space for a file; return the error's number, 0 for none. A signal's handler runs between two tries."""
    for _ in range(_INTERRUPTIONS):
        if not _libc().fallocate(descriptor, 0, ctypes.c_int64(0), ctypes.c_int64(nbytes)):
            return 0
        if ctypes.get_errno() != errno.EINTR:
            break
    return ctypes.get_errno()


def start_writeback(descriptor: int, offset: int, nbytes: int) -> None:
    """Let the disk begin with bytes that were written. By itself Linux waits until a tenth of the memory is to be
    written, and the disk has nothing to do until then. Only a hint: errors are left to `fsync`."""
    if sys.platform == "linux":
        write = 2  # SYNC_FILE_RANGE_WRITE
        _libc().sync_file_range(descriptor, ctypes.c_int64(offset), ctypes.c_int64(nbytes), write)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
