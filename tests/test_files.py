"""Files that are complete or not there, on file systems that lack this or that."""

import errno
import fcntl
import os
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


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(tmp_path, monkeypatch, code):
    monkeypatch.setattr(fcntl, "flock", refuse(code))
    with files.locked(tmp_path, "busy"), files.locked(tmp_path, "busy"):
        pass


def test_other_errors_of_locks_are_raised(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", refuse(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"), files.locked(tmp_path, "busy"):
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
