"""The writer: constant memory whatever the model, and never a file that is complete in name only."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastinit.buffers import Array
from fastinit.checkpoint.layout import FILE_NAME, Entry, layout
from fastinit.engine import draw
from fastinit.key import Key, Seed
from fastinit.plan import Plan

BUFFER_BYTES = 16 << 20  # filled, then written with pwrite; a memory map would turn a full disk into SIGBUS
_TEMPORARY = f".{FILE_NAME}."


@dataclass(frozen=True, slots=True)
class Report:
    """What was written. `peak_memory_bytes` is that of the whole process."""

    path: str
    tensors: int
    parameters: int
    nbytes: int
    seconds: float
    peak_memory_bytes: int

    @property
    def gigabytes_per_second(self) -> float:
        return self.nbytes / self.seconds / 1e9


def write(
    plan: Plan,
    folder: str | Path,
    *,
    seed: Seed = None,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Write a plan as one safetensors file, `model.safetensors`, into a folder.

    The tensors pass through one buffer of 16 MB, filled by all threads; structured laws (orthogonal, sparse) are made
    whole, one at a time. The data goes to a temporary sibling that is synced and renamed at the end: an interrupted
    run leaves what was there before.

    Args:
        plan: the tensors.
        folder: made where it is missing.
        seed: an int or a `Key`. Default: the plan's.
        overwrite: replace an existing file.
        progress: called with the number of bytes after each write.

    Raises:
        FileExistsError: the file exists and `overwrite` is false.
        BlockingIOError: another run writes into the folder.
        OSError: the disk is full, the folder cannot be written...
    """
    start = time.perf_counter()
    key = plan.key(seed)
    found = layout(plan)
    if found.nbytes >= 1 << 63:
        raise ValueError(f"the file must be smaller than 2^63 bytes. Needed: {found.nbytes:,}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / FILE_NAME
    with _exclusive(folder) as folder_descriptor:
        if target.is_dir():
            raise IsADirectoryError(f"{target} is a folder")
        if os.path.lexists(target) and not overwrite:
            raise FileExistsError(f"{target} exists; --overwrite (overwrite=True) replaces it")
        _remove_leftovers(folder)
        temporary = folder / f"{_TEMPORARY}{secrets.token_hex(8)}.tmp"
        # The mode is 0666 less the umask, as for any new file.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            _reserve(descriptor, found.nbytes, temporary)
            _write_at(descriptor, memoryview(found.header), 0)
            buffer = np.empty(BUFFER_BYTES, np.uint8)
            for entry in found.entries:
                _write_tensor(descriptor, entry, key, buffer, progress)
            os.fsync(descriptor)
            temporary.replace(target)
            os.fsync(folder_descriptor)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
    seconds = time.perf_counter() - start
    return Report(str(target), len(found.entries), plan.parameters, found.nbytes, seconds, peak_memory())


def peak_memory() -> int:
    """The largest resident size that this program had, in bytes.

    Linux's own high-water mark where there is one: getrusage's also counts the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextlib.contextmanager
def _exclusive(folder: Path) -> Iterator[int]:
    """Lock the folder itself, so that no lock file is left behind; a second run is refused."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f"another run is writing into {folder}") from None
        yield descriptor
    finally:
        os.close(descriptor)


def _remove_leftovers(folder: Path) -> None:
    """Temporary files of runs that were killed: the lock says that nobody is writing them."""
    for path in folder.glob(f"{_TEMPORARY}*.tmp"):
        path.unlink(missing_ok=True)


def _reserve(descriptor: int, nbytes: int, path: Path) -> None:
    """Take the space now, where the file system can, so that a full disk shows before the work."""
    try:
        os.posix_fallocate(descriptor, 0, nbytes)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise OSError(error.errno, f"{error.strerror}: {nbytes:,} bytes are needed", str(path)) from None
        os.ftruncate(descriptor, nbytes)


def _write_at(descriptor: int, data: memoryview, offset: int) -> None:
    """All of the bytes: pwrite may take fewer than it was given."""
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def _write_tensor(
    descriptor: int, entry: Entry, key: Key, buffer: Array, progress: Callable[[int], None] | None
) -> None:
    position = entry.offset
    for block in _blocks(entry, key / entry.name, buffer):
        data = memoryview(block.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        _write_at(descriptor, data, position)
        position += block.nbytes
        if progress is not None:
            progress(block.nbytes)


def _blocks(entry: Entry, key: Key, buffer: Array) -> Iterator[Array]:
    """The tensor's elements in order, a buffer at a time."""
    tensor, dtype = entry.fill, np.dtype(entry.fill.dtype)
    if tensor.distribution.structured:
        whole = np.empty(tensor.shape, dtype)
        tensor.fill(whole, key)
        yield whole
        return
    elements = buffer.view(dtype)
    for first in range(0, tensor.size, elements.size):
        block = elements[: min(elements.size, tensor.size - first)]
        draw(block, tensor.distribution, key.words(), offset=first)
        yield block
