"""Files that are complete or not there, on file systems that lack this or that."""

import contextlib
import ctypes
import errno
import fcntl
import os
import pickle
import shutil
import types
from pathlib import Path

import numpy as np
import pytest

from fastinit._io import files


def refuse(code):
    def call(*_, **__):
        raise OSError(code, os.strerror(code))

    return call


@pytest.mark.parametrize("links", [True, False])
def test_a_small_file_is_put_once(tmp_path, monkeypatch, links):
    if not links:  # FAT, some mounts of buckets
        monkeypatch.setattr(Path, "hardlink_to", refuse(errno.EPERM))
    path = tmp_path / "file"
    files.put(path, b"first", replace=False)
    with pytest.raises(FileExistsError):
        files.put(path, b"second", replace=False)
    assert path.read_bytes() == b"first"
    files.put(path, b"third")
    assert path.read_bytes() == b"third"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_other_errors_of_links_are_raised(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "hardlink_to", refuse(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        files.put(tmp_path / "file", b"x", replace=False)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"old")
    monkeypatch.setattr(os, "pwrite", refuse(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        files.put(tmp_path / "file", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"old"}


def test_locks_exclude_and_share(tmp_path):
    with files.locked(tmp_path, "busy", shared=True) as first:
        with files.locked(tmp_path, "busy", shared=True):
            assert not files.try_lock(first)  # which gives the shared one back
            assert files.try_lock(first, shared=True)
        with pytest.raises(BlockingIOError, match="busy"), files.locked(tmp_path, "busy"):
            pass
        assert files.try_lock(first)
        with pytest.raises(BlockingIOError, match="busy"), files.locked(tmp_path, "busy", shared=True):
            pass
    with files.locked(tmp_path, "busy"):
        pass


def test_a_lock_file_is_made(tmp_path):
    with (
        files.locked(tmp_path / "lock", "busy"),
        pytest.raises(BlockingIOError),
        files.locked(tmp_path / "lock", "busy"),
    ):
        pass


def test_a_lock_file_is_open_for_reading_and_writing(tmp_path):
    with files.locked(tmp_path / "lock", "busy") as descriptor:  # NFS asks for both
        assert fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR


LACKING = [errno.EBADF, errno.EINVAL, errno.EISDIR, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP]


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.EACCES])
def test_a_lock_that_is_held(tmp_path, monkeypatch, code):
    monkeypatch.setattr(fcntl, "flock", refuse(code))
    with pytest.raises(BlockingIOError, match="busy"), files.locked(tmp_path, "busy"):
        pass


@pytest.mark.parametrize("code", [*LACKING, errno.ENOLCK])
def test_a_file_system_without_locks(tmp_path, monkeypatch, code):
    monkeypatch.setattr(fcntl, "flock", refuse(code))
    with files.locked(tmp_path, "busy"), files.locked(tmp_path, "busy"):
        pass


def test_other_errors_of_locks_are_raised(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", refuse(errno.EIO))
    with pytest.raises(OSError, match=f"Input/output error: '{tmp_path}'"), files.locked(tmp_path, "busy"):
        pass


def test_reading_stops_where_the_file_does(tmp_path, monkeypatch):
    data = np.arange(256, dtype=np.uint8)
    (tmp_path / "file").write_bytes(data.tobytes())
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, offset: preadv(fd, [buffers[0][:100]], offset))
    descriptor = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        assert files.read_at(descriptor, np.empty(256, np.uint8), 0).tolist() == data.tolist()
        assert files.read_at(descriptor, np.empty(50, np.uint8), 230).tolist() == data[230:].tolist()
        assert files.read_at(descriptor, np.empty(50, np.uint8), 256).size == 0
    finally:
        os.close(descriptor)


def test_leftovers_of_named_files_only(tmp_path):
    kept = [".a.0123.tmp.txt", ".b.0123456789abcdef.tmp", "a.tmp", ".a.b.0123456789abcdef.tmp"]
    for name in [*kept, ".a.0123456789abcdef.tmp", ".c.d.0123456789abcdef.tmp"]:
        (tmp_path / name).touch()
    files.remove_unfinished(tmp_path, ["a", "c.d"])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_the_real_system_calls(tmp_path):
    """Without a substitute: the space is taken, and the hint to the disk is no error."""
    descriptor = files.create(tmp_path / "file")
    try:
        files.reserve(descriptor, 1 << 20, tmp_path / "file")
        status = os.fstat(descriptor)
        assert (status.st_size, status.st_blocks * 512 >= 1 << 20) == (1 << 20, True)
        files.start_writeback(descriptor, 0, 1 << 20)
        with pytest.raises(OSError, match=r"No space left on device|File too large"):
            files.reserve(descriptor, 1 << 60, tmp_path / "file")
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("code", [*LACKING, errno.EACCES])
def test_a_file_system_that_cannot_sync_folders(tmp_path, monkeypatch, code):
    monkeypatch.setattr(os, "fsync", refuse(code))
    files.sync_folder(tmp_path)
    with pytest.raises(OSError, match=f"'{tmp_path}/"):  # of a file every error counts
        files.put(tmp_path / "file", b"x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_folder_that_is_not_on_the_disk_is_an_error(tmp_path, monkeypatch, code):
    monkeypatch.setattr(os, "fsync", refuse(code))
    with pytest.raises(OSError, match=f"{os.strerror(code)}: '{tmp_path}'"):
        files.sync_folder(tmp_path)


@pytest.mark.parametrize("sync", [True, False])
def test_an_error_of_close_counts_and_nothing_is_closed_twice(tmp_path, monkeypatch, sync):
    closed, close = [], os.close

    def failing(descriptor):
        closed.append(descriptor)
        close(descriptor)
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    (tmp_path / "file").write_bytes(b"old")
    monkeypatch.setattr(os, "close", failing)
    with pytest.raises(OSError, match=f"quota exceeded: '{tmp_path}/"):
        files.put(tmp_path / "file", b"new", sync=sync)
    assert len(closed) == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"old"}
    monkeypatch.setattr(os, "fsync", refuse(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):  # the first error
        files.put(tmp_path / "file", b"new")


def test_an_error_keeps_its_path_on_its_way_to_another_process(tmp_path):
    with pytest.raises(OSError, match="space") as raised, files.naming(tmp_path / "file"):
        refuse(errno.ENOSPC)()
    assert str(pickle.loads(pickle.dumps(raised.value))) == f"[Errno 28] No space left on device: '{tmp_path}/file'"


def test_a_system_that_takes_no_bytes_is_an_error(monkeypatch):
    monkeypatch.setattr(os, "pwrite", lambda *_: 0)
    with pytest.raises(OSError, match="Input/output error: none of 5 bytes were written"):
        files.write_at(0, b"12345", 0)


@pytest.mark.parametrize(("answer", "refused"), [((1000, 990, 10), True), ((1000, 1000, 0), True), ((0, 0, 0), False)])
def test_space_is_asked_for_where_the_file_system_tells(tmp_path, monkeypatch, answer, refused):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: answer)
    with pytest.raises(OSError, match="11 bytes are needed") if refused else contextlib.nullcontext():
        files.check_space(tmp_path, 11)
    monkeypatch.setattr(shutil, "disk_usage", refuse(errno.ENOSYS))
    files.check_space(tmp_path, 1 << 60)


@pytest.mark.parametrize("times", [3, 1000])
def test_a_reservation_that_signals_interrupt(tmp_path, monkeypatch, times):
    """It is tried again; where signals never end, the file is written without."""
    libc, calls = files._libc(), []

    def fallocate(*arguments):
        calls.append(arguments)
        if len(calls) <= times:
            ctypes.set_errno(errno.EINTR)
            return -1
        return libc.fallocate(*arguments)

    monkeypatch.setattr(files, "_libc", lambda: types.SimpleNamespace(fallocate=fallocate))
    with files.opened(tmp_path / "file", os.O_RDWR | os.O_CREAT) as descriptor:
        files.reserve(descriptor, 1 << 20, tmp_path / "file")
        assert os.fstat(descriptor).st_size == 1 << 20
        assert (os.fstat(descriptor).st_blocks > 0) is (times == 3)


@pytest.mark.parametrize("code", [errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP])
def test_a_file_system_that_cannot_extend_files(tmp_path, monkeypatch, code):
    monkeypatch.setattr(os, "ftruncate", refuse(code))
    with files.opened(tmp_path / "file", os.O_RDWR | os.O_CREAT) as descriptor:
        files.reserve(descriptor, 1 << 20, tmp_path / "file")
        monkeypatch.setattr(os, "ftruncate", refuse(errno.EFBIG))
        with pytest.raises(OSError, match=r"File too large: 9 bytes are needed: '.*/file'"):
            files.reserve(descriptor, 9, tmp_path / "file")
