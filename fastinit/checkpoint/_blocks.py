"""Any bytes of a checkpoint's file, made from the plan and the seed alone: what the writer writes and what the verifier
compares with."""

from __future__ import annotations

import bisect
import itertools
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from operator import attrgetter

import numpy as np

from fastinit._core.fans import item_shape
from fastinit._core.key import Key
from fastinit._core.structured import needs_all
from fastinit._runtime import limits
from fastinit._runtime.arrays import Array
from fastinit.checkpoint._layout import Entry, Shard

BLOCK_BYTES = 16 << 20  # made in one buffer, written by one call: a memory map would turn a full disk into SIGBUS


@dataclass(frozen=True, slots=True)
class Block:
    """Bytes [start, stop) of a shard's file."""

    shard: Shard
    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        return self.stop - self.start


class Blocks:
    """All blocks of some files in their order, or those up to the files' ends. They begin at multiples of 16 MB, so no
    element lies in two. None is made before it is asked for: a few bytes of a header may stand for billions.

    Of a shard without a header, whose tensors may lie anywhere, each block is a part of one tensor.

    Args:
        shards: the files, each with the bytes that it has; None: all that it should have. The block in which a file
            ends is the last one. A tensor that must be made whole and is not there to its end is left out.
    """

    def __init__(self, shards: Iterable[tuple[Shard, int | None]]) -> None:
        found = [part for shard, size in shards for part in _ranges(shard, size)]
        self._ranges = [part for part in found if part[1] < part[2]]
        self._ends = list(itertools.accumulate(_number(start, stop) for _, start, stop in self._ranges))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[Block]:
        for shard, start, stop in self._ranges:
            for i in range(_number(start, stop)):
                yield _block(shard, start, stop, i)

    def at(self, i: int) -> Block:
        """The i-th block."""
        place = bisect.bisect_right(self._ends, i)
        return _block(*self._ranges[place], i - (self._ends[place - 1] if place else 0))

    @property
    def nbytes(self) -> int:
        return sum(stop - start for _, start, stop in self._ranges)


def _ranges(shard: Shard, size: int | None) -> Iterator[tuple[Shard, int, int]]:
    """The bytes of a file of some size that are looked at, with the shard that has the tensors in them."""
    stop = shard.nbytes
    if size is not None and size < stop:
        kept = tuple(e for e in shard.entries if e.end <= size or not needs_all(e.fill.distribution))
        if len(kept) < len(shard.entries):
            stop = next(e.offset for e in shard.entries if e.end > size and needs_all(e.fill.distribution))
            shard = replace(shard, entries=kept)
    whole = [(0, stop)] if shard.header else [(entry.offset, entry.end) for entry in shard.entries]
    for start, end in whole:
        if size is None or size >= end:
            yield shard, start, end
        elif start <= size:
            yield shard, start, min(end, start + ((size - start) // BLOCK_BYTES + 1) * BLOCK_BYTES)


def _number(start: int, stop: int) -> int:
    return -(-(stop - start) // BLOCK_BYTES)


def _block(shard: Shard, start: int, stop: int, i: int) -> Block:
    first = start + i * BLOCK_BYTES
    return Block(shard, first, min(first + BLOCK_BYTES, stop))


def blocks(shard: Shard) -> Iterator[Block]:
    """All blocks of a file, as `Blocks`."""
    return iter(Blocks([(shard, None)]))


def pieces(block: Block) -> Iterator[tuple[Entry, int, int]]:
    """The tensors in a block, and which of their bytes, from `start` to `stop` of the file."""
    entries = block.shard.entries
    for i in range(bisect.bisect_right(entries, block.start, key=attrgetter("end")), len(entries)):
        entry = entries[i]
        if entry.offset >= block.stop:
            return
        if entry.nbytes:
            yield entry, max(entry.offset, block.start), min(entry.end, block.stop)


def check_memory(shards: Iterable[Shard]) -> None:
    """Refuse tensors that have to be made whole and do not fit into the memory that this process may still take.

    Raises:
        MemoryError: a tensor does not.
    """
    hard = [limit for limit in limits.memory_limits() if limit.hard]
    for entry in (entry for shard in shards for entry in shard.entries) if hard else ():
        if needs_all(entry.fill.distribution) and _whole_bytes(entry) > hard[0].left:
            raise _too_large(entry)


def _whole_bytes(entry: Entry) -> int:
    """What it takes to make a tensor whole; of a distribution that is made of others, the tensor alone."""
    fill = entry.fill
    item = item_shape(fill.shape, fill.layout, fill.batch_axes)
    return fill.nbytes + fill.distribution.work_bytes(item, fill.dtype)


def _too_large(entry: Entry) -> MemoryError:
    return MemoryError(
        f"{entry.name} ({entry.fill.scheme}) must be made whole, which takes {_whole_bytes(entry):,} bytes of memory. "
        f"{limits.in_words()}"
    )


@dataclass(slots=True)
class Maker:
    """Makes blocks under one key; several threads may, each with a buffer of its own.

    A law whose elements need the whole tensor (an orthogonal matrix) is made whole, and kept until the next such one:
    blocks are asked for in order.
    """

    key: Key
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _kept: tuple[Entry, Array] | None = None

    def make(self, block: Block, buffer: Array) -> Array:
        """The bytes of a block, in the front of a buffer."""
        out = buffer[: block.nbytes]
        header = np.frombuffer(block.shard.header, np.uint8)[block.start : block.stop]
        out[: header.size] = header
        for entry, start, stop in pieces(block):
            dtype = np.dtype(entry.fill.dtype)
            target = out[start - block.start : stop - block.start].view(dtype)
            first = (start - entry.offset) // dtype.itemsize
            if needs_all(entry.fill.distribution):
                target[...] = self._whole(entry).reshape(-1)[first : first + target.size]
            else:
                entry.fill.fill_flat(target, self.key, first)
        return out

    def _whole(self, entry: Entry) -> Array:
        with self._lock:  # one at a time: they are large
            if self._kept is None or self._kept[0] is not entry:
                self._kept = None  # before the next one is made
                try:
                    whole = np.empty(entry.fill.shape, entry.fill.dtype)
                    entry.fill.fill(whole, self.key)
                except MemoryError as error:
                    raise _too_large(entry) from error
                self._kept = entry, whole
            return self._kept[1]
