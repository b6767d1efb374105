"""Files of a checkpoint, written by threads of this process: the engine that others are built on."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastinit._io import files
from fastinit._runtime import workers
from fastinit._runtime.arrays import Array
from fastinit.checkpoint._blocks import BLOCK_BYTES, Block, Maker, blocks, check_memory
from fastinit.checkpoint._job import Job
from fastinit.checkpoint._layout import Shard


class How(NamedTuple):
    """How shards are written: worker threads, whether to wait for the disk, what to call with the bytes written."""

    threads: int
    fsync: bool
    advance: Callable[[int], None]


Engine = Callable[[Job, Sequence[Shard], Path, How], None]  # writes the shards into a folder


def write_shards(job: Job, shards: Sequence[Shard], folder: Path, how: How) -> None:
    """Write shards into a folder on threads of this process: each appears under its name when it is complete.

    Raises:
        MemoryError: there is none for a worker's buffer, or for a tensor that must be made whole.
    """
    check_memory(shards)
    maker = Maker(job.key)
    open_files: set[_Unfinished] = set()

    def items() -> Iterator[tuple[_Unfinished, Block]]:
        for shard in shards:
            file = _Unfinished(folder / shard.name, shard.nbytes, fsync=how.fsync)
            open_files.add(file)
            for block in blocks(shard):
                yield file, block

    def worker() -> Callable[[tuple[_Unfinished, Block]], None]:
        buffer = np.empty(BLOCK_BYTES, np.uint8)

        def work(item: tuple[_Unfinished, Block]) -> None:
            file, block = item
            if file.write(maker.make(block, buffer), block.start):
                file.finish()
                open_files.discard(file)
            how.advance(block.nbytes)

        return work

    number = sum(-(-shard.nbytes // BLOCK_BYTES) for shard in shards)
    try:
        # A second thread for one block would only cost.
        workers.each(items(), worker, min(how.threads, number), BLOCK_BYTES)
    finally:
        for file in open_files:
            file.abandon()


_CLOSED = -1


class _Unfinished:
    """A file that several threads write, under another name until it is complete."""

    def __init__(self, path: Path, nbytes: int, *, fsync: bool) -> None:
        self._path, self._temporary, self._fsync = path, files.unfinished(path), fsync
        self._left, self._lock = nbytes, threading.Lock()
        self._descriptor = files.create(self._temporary)
        try:
            files.reserve(self._descriptor, nbytes, path)
        except BaseException:
            self.abandon()
            raise

    def write(self, data: Array, offset: int) -> bool:
        """Write some bytes; whether they were the last that were missing."""
        with files.naming(self._path):
            files.write_at(self._descriptor, data, offset)
        if self._fsync:
            files.start_writeback(self._descriptor, offset, data.size)
        with self._lock:
            self._left -= data.size
            return self._left == 0

    def finish(self) -> None:
        with files.naming(self._path):
            if self._fsync:
                os.fsync(self._descriptor)
            os.close(self._release())  # before the name: over a network a full disk may show only here
        self._temporary.replace(self._path)
        if self._fsync:
            files.sync_folder(self._path.parent)

    def abandon(self) -> None:
        if self._descriptor != _CLOSED:
            files.close_quietly(self._release())
        files.remove_quietly(self._temporary)

    def _release(self) -> int:
        """Give the descriptor away, to be closed once: the number may be another file's afterwards."""
        descriptor, self._descriptor = self._descriptor, _CLOSED
        return descriptor
