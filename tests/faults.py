"""System calls on files that fail on purpose, and file systems that lack some of them.

A `System` stands between this process and the files below one folder. It counts the calls, lets one of them (or all
from one on) fail, keeps a list of open descriptors, and obeys the rules of a file system such as NFS. Other files are
left alone. `fsync` does nothing, which makes hundreds of runs fast.
"""

import contextlib
import ctypes
import errno
import fcntl
import io
import os
import stat
import threading
import types
from dataclasses import dataclass
from pathlib import Path

import pytest

from fastinit._io import files

LOST = "lost reply"  # the call is done, but its answer is lost; NFS asks again and hears that it was done before
SHORT = "short"  # fewer bytes are written
NOTHING = "nothing"  # no byte is written, without an error
_LOST = {"mkdir": "EEXIST", "link": "EEXIST", "replace": "ENOENT", "unlink": "ENOENT", "rmdir": "ENOENT"}

_REAL = ("EIO", "ENOSPC", "EDQUOT")
_NO_CALL = ("EINVAL", "EBADF", "EOPNOTSUPP", "ENOSYS")
FAULTS = {
    "open": ("EACCES", "EMFILE", "ENFILE", "EROFS", "ENAMETOOLONG", "ESTALE", *_REAL),
    "io.open": ("EACCES", "EMFILE", "EIO", "ESTALE"),
    "read": ("EIO", "ESTALE"),
    "preadv": ("EIO", "ESTALE"),
    "pwrite": ("EFBIG", "EAGAIN", SHORT, NOTHING, *_REAL),
    "fsync": ("EACCES", "EROFS", "ESTALE", *_NO_CALL, *_REAL),
    "close": ("EINTR", *_REAL),
    "replace": ("EACCES", "EBUSY", "EXDEV", "EROFS", "ESTALE", LOST, *_REAL),
    "link": ("EPERM", "EMLINK", "EACCES", "EXDEV", "EOPNOTSUPP", "ENOSYS", "ESTALE", LOST, *_REAL),
    "unlink": ("EBUSY", "EACCES", "EIO", LOST),
    "rmdir": ("ENOTEMPTY", "EBUSY", "EACCES", "EIO", LOST),
    "mkdir": ("EACCES", "EROFS", "EMLINK", LOST, *_REAL),
    "flock": ("EAGAIN", "EACCES", "ENOLCK", "EIO", "ESTALE", *_NO_CALL),
    "ftruncate": ("EFBIG", "EPERM", "EINVAL", *_REAL),
    "fallocate": ("EINTR", "EFBIG", "EINVAL", "EOPNOTSUPP", "ENOSYS", *_REAL),
    "stat": ("EACCES", "EIO", "ESTALE"),
    "listdir": ("EACCES", "EIO", "ESTALE", "EMFILE"),
    "scandir": ("EIO", "ESTALE", "EMFILE"),
    "statvfs": ("EACCES", "ENOSYS", "EIO"),
}

# Faults that must not be seen: the file system lacks something that is not needed.
_HARMLESS = {
    "flock": ("ENOLCK", *_NO_CALL),
    "flock of a folder": ("ENOLCK", *_NO_CALL),
    "fsync of a folder": ("EACCES", *_NO_CALL),
    "link": ("EPERM", "EMLINK", "EACCES", "EXDEV", "EOPNOTSUPP", "ENOSYS"),
    "fallocate": ("EINTR", "EINVAL", "EOPNOTSUPP", "ENOSYS"),
    "ftruncate of a new file": ("EPERM", "EINVAL"),
    "pwrite": (SHORT,),
    "statvfs": FAULTS["statvfs"],
    "unlink": (LOST,),
}
# Faults that must never be taken for success.
_GRAVE = {"pwrite", "fsync of a file", "close of a written file", "replace"}


@dataclass(frozen=True)
class Fault:
    """The n-th call of a name fails, counted from 0; with `forever` all that follow too."""

    call: str
    number: int
    code: str
    forever: bool = False

    @property
    def text(self):
        """What an error says."""
        code = {LOST: _LOST.get(self.call), NOTHING: "EIO"}.get(self.code, self.code)
        return os.strerror(getattr(errno, code))


@dataclass
class _Descriptor:
    path: str
    flags: int
    folder: bool
    written: bool = False


class System:
    """The calls on files below a folder.

    Args:
        root: the folder.
        fault: which call fails.
        lacks: what a file system does not have, call -> code; "fsync of a folder" and its like are calls too.
        nfs: obey its rules of locks, and of files that are removed while they are open.

    Attributes:
        counts: how many calls there were of each name.
        injected: which calls failed.
        wrong: what was done to descriptors that were closed, and files that were renamed too early.
        unsynced: files that were written and not synced; `early` are those that were renamed then.
    """

    def __init__(self, root, fault=None, *, lacks=None, nfs=False):
        self.root, self.fault, self.lacks, self.nfs = str(root), fault, lacks or {}, nfs
        self.counts = dict.fromkeys(FAULTS, 0)
        self.injected, self.wrong = [], []
        self.unsynced, self.early, self._failed = set(), set(), set()
        self._files, self._closed, self._lock = {}, set(), threading.RLock()

    @property
    def harmless(self):
        """True if nobody may notice the fault."""
        return all(self.fault.code in _HARMLESS.get(what, ()) for what in self.injected)

    @property
    def grave(self):
        """True if an error must be raised."""
        return self.fault is not None and self.fault.code not in (SHORT, LOST) and not _GRAVE.isdisjoint(self.injected)

    @contextlib.contextmanager
    def running(self):
        """Stand between the process and its files."""
        with pytest.MonkeyPatch.context() as patch:
            for name in ("mkdir", "rmdir", "link", "stat", "listdir", "scandir", "statvfs"):
                patch.setattr(os, name, self._on_path(name, getattr(os, name)))
            patch.setattr(os, "replace", self._on_path("replace", self._rename(os.replace)))
            patch.setattr(os, "unlink", self._on_path("unlink", self._remove(os.unlink)))
            patch.setattr(os, "open", self._on_path("open", self._open(os.open)))
            patch.setattr(io, "open", self._on_path("io.open", self._readable(io.open)))
            patch.setattr(os, "fsync", self._on_file("fsync", lambda number: None))
            for name in ("preadv", "ftruncate"):
                patch.setattr(os, name, self._on_file(name, getattr(os, name)))
            patch.setattr(os, "pwrite", self._pwrite(os.pwrite))
            patch.setattr(os, "close", self._close(os.close))
            patch.setattr(fcntl, "flock", self._flock(fcntl.flock))
            libc = types.SimpleNamespace(fallocate=self._fallocate(files._libc()), sync_file_range=lambda *_: 0)
            patch.setattr(files, "_libc", lambda: libc)
            yield self

    def _answer(self, call, kind=None):
        """The code with which a call is to fail, or None."""
        kind = kind or call
        with self._lock:
            number, self.counts[call] = self.counts[call], self.counts[call] + 1
            fault = self.fault
            if fault and fault.call == call and (number == fault.number or (fault.forever and number > fault.number)):
                self.injected.append(kind)
                return fault.code
        return self.lacks.get(kind)

    # --- calls with paths ---

    def _inside(self, path):
        return isinstance(path, str | os.PathLike) and f"{path}/".startswith(f"{self.root}/")

    def _on_path(self, name, real):
        def call(path=".", *arguments, **options):
            if not any(map(self._inside, (path, *arguments[:1]))):
                return real(path, *arguments, **options)
            code = self._answer(name)
            if code is None:
                return real(path, *arguments, **options)
            if code == LOST:
                real(path, *arguments, **options)
            raise _error(name, code, path)

        return call

    def _rename(self, real):
        def rename(source, target):
            if str(source) in self._failed:
                self.wrong.append(f"{source} was renamed after an error")
            if any(one.written and one.path == str(source) for one in self._files.values()):
                self.wrong.append(f"{source} was renamed before it was closed")
            real(source, target)
            if str(source) in self.unsynced:
                self.early.add(str(target))
            self.unsynced.discard(str(source))
            for one in self._files.values():
                if one.path == str(source):
                    one.path = str(target)

        return rename

    def _remove(self, real):
        def remove(path):
            with self._lock:  # no user closes it in between
                users = [one for one in self._files.values() if one.path == str(path)]
                if self.nfs and users:
                    hidden = str(Path(path).with_name(f".nfs{id(users[0]):016x}"))  # until it is closed
                    Path(path).rename(hidden)
                    users[0].path = hidden
                    return
            real(path)

        return remove

    def _open(self, real):
        def opening(path, flags, *arguments, **options):
            number = real(path, flags, *arguments, **options)
            with self._lock:
                self._files[number] = _Descriptor(str(path), flags, stat.S_ISDIR(os.fstat(number).st_mode))
                self._closed.discard(number)
            return number

        return opening

    def _readable(self, real):
        class Unreadable(io.BufferedReader):
            def read(self, *_):
                raise _error("read", self.code)

        def opening(path, *arguments, **options):
            file = real(path, *arguments, **options)
            code = self._answer("read") if self._inside(path) else None
            if code is not None:
                file = Unreadable(file.detach())
                file.code = code
            return file

        return opening

    # --- calls with descriptors ---

    def _file(self, number, call):
        """An open file of ours, or None."""
        with self._lock:
            if number in self._closed:
                self.wrong.append(f"{call} of the closed descriptor {number}")
            return self._files.get(number)

    def _on_file(self, name, real):
        def call(number, *arguments):
            file = self._file(number, name)
            if file is None:
                return real(number, *arguments)
            kind = {
                "fsync": f"fsync of a {'folder' if file.folder else 'file'}",
                "ftruncate": "ftruncate of a new file" if file.flags & os.O_EXCL else "ftruncate",
            }
            code = self._answer(name, kind.get(name))
            if code is not None:
                if kind.get(name) == "fsync of a file":
                    self._failed.add(file.path)
                raise _error(name, code)
            if name == "fsync":
                self.unsynced.discard(file.path)
            return real(number, *arguments)

        return call

    def _pwrite(self, real):
        def pwrite(number, data, offset):
            file = self._file(number, "pwrite")
            code = self._answer("pwrite") if file else None
            if code == NOTHING:
                return 0
            if code not in (None, SHORT):
                self._failed.add(file.path)
                raise _error("pwrite", code)
            if file:
                file.written = True
                self.unsynced.add(file.path)
            return real(number, data[: len(data) // 2 or 1] if code == SHORT else data, offset)

        return pwrite

    def _close(self, real):
        def close(number):
            file = self._file(number, "close")
            if file is None:
                real(number)
                return
            with self._lock:
                del self._files[number]
                self._closed.add(number)
                real(number)  # whatever the answer
            if Path(file.path).name.startswith(".nfs"):
                Path(file.path).unlink()
            code = self._answer("close", "close of a written file" if file.written else None)
            if code is not None:
                self._failed.add(file.path)
                raise _error("close", code)

        return close

    def _flock(self, real):
        def flock(number, how):
            file = self._file(number, "flock")
            if file is not None:
                code = self._answer("flock", "flock of a folder" if file.folder else None)
                mode = file.flags & os.O_ACCMODE
                lacks_mode = os.O_RDONLY if how & fcntl.LOCK_EX else os.O_WRONLY
                if code is None and self.nfs and mode == lacks_mode:
                    code = "EBADF"
                if code is not None:
                    raise _error("flock", code)
            real(number, how)

        return flock

    def _fallocate(self, libc):
        def fallocate(number, *arguments):
            code = self._answer("fallocate") if self._file(number, "fallocate") else None
            if code is None:
                return libc.fallocate(number, *arguments)
            ctypes.set_errno(getattr(errno, code))
            return -1

        return fallocate


def _error(call, code, *paths):
    if code == LOST:
        code = _LOST[call]
    number = getattr(errno, code)
    return OSError(number, os.strerror(number), *map(str, paths))
