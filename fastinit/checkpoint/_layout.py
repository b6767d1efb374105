"""Pure: a plan -> files, their headers, and the byte range of every tensor. No file is touched here.

The format (https://huggingface.co/docs/safetensors): the header's length as a little-endian u64, the header as JSON,
the data without holes. The names of files are those of Hugging Face's libraries.
"""

from __future__ import annotations

import heapq
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fastinit._io import safetensors as headers
from fastinit._io.safetensors import MOST_FILES
from fastinit._runtime.checks import positive_int
from fastinit.plan._fills import Fill
from fastinit.plan._plan import Plan

FILE_NAME = "model.safetensors"
INDEX_NAME = headers.INDEX_NAME
SHARD_NAME = re.compile(r"model(-\d{5,}-of-\d{5,})?\.safetensors")
MAX_SHARD_BYTES = 5_000_000_000  # what Hugging Face's libraries took for years, and every tool expects
_MOST_BYTES = 1 << 63
_UNITS = {"": 1, "b": 1} | {
    f"{prefix}{kind}": base ** (i + 1)
    for kind, base in (("", 1000), ("b", 1000), ("i", 1024), ("ib", 1024))
    for i, prefix in enumerate("kmgt")
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor's place: `offset` and `nbytes` in bytes, from the start of the file."""

    name: str
    fill: Fill
    offset: int

    @property
    def nbytes(self) -> int:
        return self.fill.nbytes

    @property
    def end(self) -> int:
        return self.offset + self.fill.nbytes


@dataclass(frozen=True, slots=True, eq=False)
class Shard:
    """A file: its first bytes, its tensors in the order of their bytes, and its size in bytes.

    The header of a file that another program wrote is empty: nothing is said about these bytes.
    """

    name: str
    header: bytes
    entries: tuple[Entry, ...]
    nbytes: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of a checkpoint, and the text of the index that names them; None where one file is all."""

    shards: tuple[Shard, ...]
    index: bytes | None

    @property
    def nbytes(self) -> int:
        """Of all shards."""
        return sum(shard.nbytes for shard in self.shards)

    @property
    def main_file(self) -> str:
        """The name of the file that stands for the checkpoint: the index, or the only shard."""
        return FILE_NAME if self.index is None else INDEX_NAME


def as_bytes(size: int | str) -> int:
    """A number of bytes: an int, or a text such as "60MB", "60M" (powers of 1000) or "2GiB", "2Gi" (of 1024).

    >>> as_bytes("5GB"), as_bytes("5G"), as_bytes("1.5 MiB"), as_bytes(77)
    (5000000000, 5000000000, 1572864, 77)
    """
    if isinstance(size, str):
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", size.strip())
        if found is None or found[2].lower() not in _UNITS:
            raise ValueError(f"max_shard_bytes must be a size such as 5GB, 60M or 2GiB. Received: {size!r:.200}")
        number = float(found[1]) * _UNITS[found[2].lower()]
        size = int(min(number, _MOST_BYTES))  # a text of 400 digits is infinite
    size = positive_int("max_shard_bytes", size)
    if size >= _MOST_BYTES:
        raise ValueError(f"max_shard_bytes must be smaller than 2^63. Received: {size.bit_length():,} bits or more")
    return size


def layout(plan: Plan, max_shard_bytes: int | str = MAX_SHARD_BYTES) -> Layout:
    """The files of a plan: tensors in the plan's order, as many to a file as its size allows; without the second names
    of tied ones, and without buffers that are not persistent. In a file they stand by descending alignment of their
    dtype, then by name.

    Args:
        plan: the tensors.
        max_shard_bytes: how many bytes of tensors a file may have; a larger tensor has a file of its own.

    Raises:
        ValueError: a dtype that safetensors does not have, more names than its header can hold, or more than 100,000
            files.

    >>> from fastinit.plan._fills import Tied
    >>> plan = Plan({"b": ((3,), "float16", "zeros"), "a": ((2,), "float64", "ones"), "c": Tied("a")})
    >>> (shard,) = layout(plan).shards
    >>> shard.name, [entry.name for entry in shard.entries], shard.nbytes - len(shard.header)
    ('model.safetensors', ['a', 'b'], 22)
    >>> [shard.name for shard in layout(plan, 16).shards]
    ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors']
    """
    most = as_bytes(max_shard_bytes)
    groups = list(itertools.islice(_groups(plan, most), MOST_FILES + 1)) or [[]]
    if len(groups) > MOST_FILES:
        raise ValueError(f"max_shard_bytes={most:,} gives more than {MOST_FILES:,} files: make it larger")
    names = [FILE_NAME]
    if len(groups) > 1:
        names = [f"model-{i:05}-of-{len(groups):05}.safetensors" for i in range(1, len(groups) + 1)]
    shards = tuple(_shard(name, group) for name, group in zip(names, groups, strict=True))
    return Layout(shards, index_text(shards) if len(groups) > 1 else None)


def split_evenly(shards: Sequence[Shard], parts: int) -> list[list[Shard]]:
    """The shards of every part, evenly by bytes: the largest first, each to the part that has the least."""
    heap: list[tuple[int, int]] = [(0, part) for part in range(parts)]
    groups: list[list[Shard]] = [[] for _ in range(parts)]
    for shard in sorted(shards, key=lambda shard: (-shard.nbytes, shard.name)):
        nbytes, part = heap[0]
        groups[part].append(shard)
        heapq.heapreplace(heap, (nbytes + shard.nbytes, part))
    return groups


def _groups(plan: Plan, most: int) -> Iterator[list[tuple[str, Fill]]]:
    """The tensors of each file."""
    group: list[tuple[str, Fill]] = []
    nbytes = 0
    for name, fill in plan.filled.items():
        if not fill.persistent:
            continue
        if group and nbytes + fill.nbytes > most:
            yield group
            group, nbytes = [], 0
        group.append((name, fill))
        nbytes += fill.nbytes
    if group:
        yield group


def _shard(name: str, tensors: Iterable[tuple[str, Fill]]) -> Shard:
    order = sorted(tensors, key=lambda item: (-np.dtype(item[1].dtype).itemsize, item[0]))
    rows = {tensor: (fill.dtype, fill.shape) for tensor, fill in order}
    header = headers.as_header(rows, {"format": "pt"}, file=name)
    entries = []
    position = len(header)
    for tensor, fill in order:
        entries.append(Entry(tensor, fill, position))
        position += fill.nbytes
    if position >= 1 << 63:
        raise ValueError(f"{name} must be smaller than 2^63 bytes. Needed: {position:,}")
    return Shard(name, header, tuple(entries), position)


def index_text(shards: Sequence[Shard]) -> bytes:
    """The index that names the files of shards."""
    where = {entry.name: shard.name for shard in shards for entry in shard.entries}
    tensors = [entry.fill for shard in shards for entry in shard.entries]
    totals = {"total_parameters": sum(t.size for t in tensors), "total_size": sum(t.nbytes for t in tensors)}
    return (json.dumps({"metadata": totals, "weight_map": where}, indent=2, ensure_ascii=False) + "\n").encode()
