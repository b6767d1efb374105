"""Files of a checkpoint, written by threads of this process: the engine that others are built on."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastinit._core.key import Key
from fastinit._io import files
from fastinit._runtime import workers
from fastinit._runtime.arrays import Array
from fastinit.checkpoint._blocks import BLOCK_BYTES, Block, Maker, blocks, check_memory
from fastinit.checkpoint._job import Job
from fastinit.checkpoint._layout import Shard

COPIED_BYTES = 1 << 20  # at a time, while a file is copied


class How(NamedTuple):
    """How shards are written: worker threads, whether to wait for the disk, what to call with the bytes written.

    `place` is the folder where the files will be in the end: none gets wider rights than the file that it replaces
    there. Default: the folder that they are written into.
    """

    threads: int
    fsync: bool
    advance: Callable[[int], None]
    place: Path | None = None


Engine = Callable[[Job, Sequence[Shard], Path, How], None]  # writes the shards into a folder


def write_shards(job: Job, shards: Sequence[Shard], folder: Path, how: How) -> None:
    """Write shards into a folder on threads of this process: each appears under its name when it is complete.

    Raises:
        MemoryError: there is none for a worker's buffer, or for a tensor that must be made whole.
    """
    check_memory(shards)
    number = sum(-(-shard.nbytes // BLOCK_BYTES) for shard in shards)
    _write(job.key, ((shard, shard.nbytes, blocks(shard)) for shard in shards), number, folder, how)


def mend_shards(key: Key, wrong: Mapping[Shard, Sequence[Block]], folder: Path, how: How) -> None:
    """Replace files by copies that have the shards' sizes, and in which some blocks are made again.

    No existing file is written to: it may have other names, or be the target of a link.
    """
    wanted = ((shard, sum(block.nbytes for block in some), some) for shard, some in wrong.items())
    _write(key, wanted, sum(map(len, wrong.values())), folder, how, copied=True)


def _write(
    key: Key,
    wanted: Iterable[tuple[Shard, int, Iterable[Block]]],
    number: int,
    folder: Path,
    how: How,
    *,
    copied: bool = False,
) -> None:
    """Write blocks of files, `number` in all.

    Args:
        key: of the values.
        wanted: the files, each with the bytes of its blocks and the blocks.
        number: of all blocks.
        folder, how: as in `write_shards`.
        copied: whether the other bytes are taken from the file in place.
    """
    maker = Maker(key)
    open_files: set[_Unfinished] = set()

    def items() -> Iterator[tuple[_Unfinished, Block]]:
        for shard, left, wanted_blocks in wanted:
            file = _Unfinished(folder / shard.name, shard.nbytes, left, how)
            open_files.add(file)
            if copied:
                file.copy()
            if not left:  # the file had another size, and that was all
                file.finish()
                open_files.discard(file)
            for block in wanted_blocks:
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

    try:
        # A second thread for one block would only cost.
        workers.each(items(), worker, min(how.threads, number), BLOCK_BYTES)
    finally:
        for file in open_files:
            file.abandon()


_CLOSED = -1


class _Unfinished:
    """A file that several threads write, under another name until it is complete."""

    def __init__(self, path: Path, nbytes: int, left: int, how: How) -> None:
        self._path, self._temporary, self._fsync = path, files.unfinished(path), how.fsync
        self._nbytes, self._left, self._lock = nbytes, left, threading.Lock()
        self._descriptor = files.create(self._temporary, path if how.place is None else how.place / path.name)
        try:
            files.reserve(self._descriptor, nbytes, path)
        except BaseException:
            self.abandon()
            raise

    def copy(self) -> None:
        """Take over the bytes of the file that will be replaced, as many as there are and are needed."""
        buffer, offset = np.empty(min(COPIED_BYTES, self._nbytes), np.uint8), 0
        with files.opened(self._path, os.O_RDONLY) as source:
            while (data := files.read_at(source, buffer[: self._nbytes - offset], offset)).size:
                files.write_at(self._descriptor, data, offset)
                offset += data.size

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
