"""Files against what they should be: every block is made again and compared."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastinit._core.key import Key
from fastinit._io import files
from fastinit._runtime import workers
from fastinit._runtime.arrays import Array
from fastinit.checkpoint._blocks import BLOCK_BYTES, Block, Maker, check_memory, pieces


@dataclass(frozen=True, slots=True)
class Difference:
    """The first element of a tensor, or byte of a header, that is not what it should be.

    Attributes:
        tensor: its name; None for the header.
        index: of the element in the tensor; of the byte in the file.
        expected, received: values; None where the file ends before.
    """

    file: str
    tensor: str | None
    index: tuple[int, ...]
    expected: Any
    received: Any

    def __str__(self) -> str:
        where = f"header, byte {self.index[0]}" if self.tensor is None else f"{self.tensor}{list(self.index)}"
        received = "The file ends before" if self.received is None else f"Received: {self.received!r}"
        return f"{self.file}: {where} must be {self.expected!r}. {received}"


class Comparison(NamedTuple):
    """What differs: the first difference of every tensor, and of what a file lacks at its end; and the blocks."""

    differences: list[Difference]
    blocks: list[Block]


def compare(items: Iterable[tuple[Block, Path]], key: Key, threads: int, progress: Callable[[int], None]) -> Comparison:
    """Compare blocks of files with what they should be. What differs is given in the order of the files.

    Args:
        items: blocks, in their order, and the files that they should be in.
        key: of the values.
        threads: how many.
        progress: called with the bytes that are compared.
    """
    maker, lock = Maker(key), threading.Lock()
    found: list[tuple[str, int, Difference]] = []
    differing_blocks: list[Block] = []

    def worker() -> Callable[[tuple[Block, Path]], None]:
        made, read = np.empty(BLOCK_BYTES, np.uint8), np.empty(BLOCK_BYTES, np.uint8)

        def work(item: tuple[Block, Path]) -> None:
            block, path = item
            expected = maker.make(block, made)
            with files.opened_regular(path) as (descriptor, _):
                received = files.read_at(descriptor, read[: block.nbytes], block.start)
            differing = list(_differences(block, expected, received))
            with lock:
                found.extend((block.shard.name, block.start, one) for one in differing)
                differing_blocks.extend([block] * bool(differing))
            progress(block.nbytes)

        return work

    source = iter(items)
    begin = list(itertools.islice(source, threads))  # no more threads than blocks; there may be billions
    workers.each(_checked(itertools.chain(begin, source)), worker, max(1, len(begin)), 2 * BLOCK_BYTES)
    first: dict[tuple[str, str | None, bool], Difference] = {}
    for *_, one in sorted(found, key=lambda item: item[:2]):
        ended = one.received is None
        first.setdefault((one.file, None if ended else one.tensor, ended), one)
    return Comparison(list(first.values()), sorted(differing_blocks, key=lambda block: (block.shard.name, block.start)))


def _checked(items: Iterable[tuple[Block, Path]]) -> Iterator[tuple[Block, Path]]:
    """The same; before the first block of a file `check_memory` looks at it."""
    shard = None
    for block, path in items:
        if block.shard is not shard:
            shard = block.shard
            check_memory([shard])
        yield block, path


def _differences(block: Block, expected: Array, received: Array) -> Iterator[Difference]:
    if _equal(expected, received):
        return
    name, header = block.shard.name, max(0, len(block.shard.header) - block.start)
    place = _first(_wrong(expected[:header], received[:header], 1), header)
    if place is not None:
        yield Difference(name, None, (block.start + place,), *_values(expected, received, place))
    for entry, start, stop in pieces(block):
        dtype = np.dtype(entry.fill.dtype)
        part = slice(start - block.start, stop - block.start)
        whole = received[part][: received[part].size // dtype.itemsize * dtype.itemsize]  # a file may end in an element
        a, b = expected[part].view(dtype), whole.view(dtype)
        place = _first(_wrong(expected[part], whole, dtype.itemsize), a.size)
        if place is not None:
            flat = (start - entry.offset) // dtype.itemsize + place
            index = tuple(map(int, np.unravel_index(flat, entry.fill.shape))) if entry.fill.shape else ()
            yield Difference(name, entry.name, index, *_values(a, b, place))


def _equal(a: Array, b: Array) -> bool:
    """Whether bytes are the same; compared by eight, in half the time."""
    if a.size != b.size:
        return False
    most = a.size & ~7
    return np.array_equal(a[:most].view(np.uint64), b[:most].view(np.uint64)) and np.array_equal(a[most:], b[most:])


def _wrong(expected: Array, received: Array, itemsize: int) -> Array:
    """Which elements differ in a bit, as far as there are some."""
    wrong: Array = np.bitwise_xor(expected[: received.size], received).reshape(-1, itemsize).any(axis=1)  # type: ignore[assignment]
    return wrong


def _first(wrong: Array, size: int) -> int | None:
    """The first place that is wrong, or where something is missing of `size` places."""
    if wrong.any():
        return int(wrong.argmax())
    return wrong.size if wrong.size < size else None


def _values(expected: Array, received: Array, place: int) -> tuple[Any, Any]:
    return _plain(expected[place]), _plain(received[place]) if place < received.size else None


def _plain(value: Any) -> Any:
    """A NumPy scalar as Python's own, also of the dtypes that NumPy does not have."""
    return value.item() if value.dtype.kind in "biuc" else float(value)
