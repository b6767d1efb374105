"""Where a tensor lies in its storage, or in a stream, and which part of another tensor it is."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch

from fastinit._runtime.arrays import Region, c_strides, overlaps

MANY = 1000  # views that are not compared with each other


class Geometry(NamedTuple):
    """A tensor's place in its storage; offset and strides in elements of the dtype. Without a dtype: the places of its
    elements in a stream of numbers, or in a tensor whose elements are counted in C order."""

    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype | None = None

    @property
    def axes(self) -> list[tuple[int, int, int]]:
        """(stride, size, axis) of the axes with more than one index, the widest stride first."""
        found = [(s, n, axis) for axis, (s, n) in enumerate(zip(self.strides, self.shape, strict=True)) if n > 1]
        return sorted(found, reverse=True)

    @property
    def dense(self) -> bool:
        """Whether the elements fill their memory without gaps or overlaps, whatever their order."""
        reach = 1
        for stride, size, _ in reversed(self.axes):
            if stride != reach:
                return False
            reach *= size
        return True

    @property
    def overlaps(self) -> bool:
        """Whether two elements may share memory."""
        return overlaps(self.shape, self.strides)

    @property
    def bytes(self) -> tuple[int, int]:
        """The first byte in the storage, and the one after the last."""
        last = self.offset + sum(stride * (size - 1) for stride, size, _ in self.axes)
        size = 1 if self.dtype is None else self.dtype.itemsize
        return self.offset * size, (last + 1) * size if 0 not in self.shape else self.offset * size

    def covers(self, nbytes: int) -> bool:
        """Whether the tensor is all of a storage of this size."""
        return self.offset == 0 and _dense_bytes(self) == nbytes


def geometry(tensor: torch.Tensor) -> Geometry:
    """Where a tensor lies in its storage."""
    return Geometry(int(tensor.storage_offset()), tuple(tensor.shape), tensor.stride(), tensor.dtype)


@functools.lru_cache(maxsize=4096)
def _dense_bytes(where: Geometry) -> int:
    """The bytes of a dense tensor; -1 where it has gaps or overlaps. Cached: a model has few shapes."""
    first, last = where.bytes
    return last - first if where.dense else -1


@functools.lru_cache(maxsize=1 << 16)
def extent(where: Geometry) -> tuple[int, int]:
    """The first byte, and the one after the last: `where.bytes`, kept for those that are asked for often."""
    return where.bytes


@functools.lru_cache(maxsize=4096)
def in_c_order(shape: tuple[int, ...], offset: int = 0) -> Geometry:
    """The places 0, 1, 2, ... for the elements of a tensor."""
    return Geometry(offset, shape, c_strides(shape))


def tensor_at(storage: torch.UntypedStorage, where: Geometry) -> torch.Tensor:
    """The tensor at a place of a storage on the CPU."""
    empty = torch.empty(0, dtype=where.dtype, device="cpu")
    return empty.set_(storage, where.offset, where.shape, where.strides)


def locate(part: Geometry, whole: Geometry) -> Region | None:
    """The region of a tensor whose elements are those of another view of the same storage, in any order.

    () is the whole tensor. None where the view is no region: other memory, another dtype, a diagonal...

    >>> rows = Geometry(8, (2, 4), (4, 1), torch.float32)
    >>> locate(rows, Geometry(0, (5, 4), (4, 1), torch.float32))
    (slice(2, 4, 1), slice(0, 4, 1))
    """
    if part.dtype is not whole.dtype or 0 in part.shape or 0 in whole.shape:
        return None
    if part[:3] == whole[:3] or (part.offset == whole.offset and _same_elements(part, whole)):
        return ()
    starts = _index_of(part.offset - whole.offset, whole)
    if starts is None:
        return None
    slices = [slice(start, start + 1, 1) for start in starts]
    free = whole.axes
    for stride, size, _ in _split(part, whole, starts):
        axis = next(
            (a for a in free if stride % a[0] == 0 and starts[a[2]] + (size - 1) * (stride // a[0]) < a[1]), None
        )
        if axis is None:
            return None
        free.remove(axis)
        step, start = stride // axis[0], starts[axis[2]]
        slices[axis[2]] = slice(start, start + (size - 1) * step + 1, step)
    return tuple(slices)


def carried(part: Geometry, whole: Geometry, place: Geometry) -> Geometry | None:
    """Where the elements of a view lie in a second memory, in which all elements of `whole` have the places `place`.

    None where the view is no part of `whole`, or where its places have no strides.

    >>> column = Geometry(1, (3,), (4,))
    >>> carried(column, in_c_order((3, 4)), Geometry(0, (3, 4), (1, 3)))
    Geometry(offset=3, shape=(3,), strides=(1,), dtype=None)
    """
    if part.dtype is not whole.dtype:
        return None
    if part[:3] == whole[:3]:
        return place
    axes = _joined(whole, place)
    rest, starts, offset = part.offset - whole.offset, [], place.offset
    if rest < 0 or 0 in whole.shape:
        return None
    for stride, size, step in axes:
        start, rest = divmod(rest, stride) if stride else (0, rest)
        if start >= size:
            return None
        starts.append(start)
        offset += start * step
    if rest:
        return None
    strides = [_step(stride, axes) if n == 1 else 0 for stride, n in zip(part.strides, part.shape, strict=True)]
    reached = starts  # the last index of each axis
    for stride, size, axis in part.axes:
        if stride == 0:
            continue
        found = next((i for i, (own, n, _) in enumerate(axes) if own and stride % own == 0 and n > 1), None)
        if found is None:
            return None
        own, n, step = axes[found]
        reached[found] += stride // own * (size - 1)
        if reached[found] >= n:
            return None
        strides[axis] = stride // own * step
    return Geometry(offset, part.shape, tuple(strides), place.dtype)


def _step(stride: int, axes: list[tuple[int, int, int]]) -> int:
    """How far one step of a view's axis goes in the place."""
    return next((stride // own * step for own, n, step in axes if own and n > 1 and stride and stride % own == 0), 0)


def _joined(whole: Geometry, place: Geometry) -> list[tuple[int, int, int]]:
    """(stride, size, step in the place) of a tensor's axes, the widest first; those that are one run in both are one
    axis."""
    joined: list[tuple[int, int, int]] = []
    for stride, size, axis in whole.axes:
        step = place.strides[axis]
        if joined and joined[-1][0] == stride * size and joined[-1][2] == step * size:
            joined[-1] = (stride, size * joined[-1][1], step)
        else:
            joined.append((stride, size, step))
    return joined


def apart(a: Geometry, b: Geometry) -> bool:
    """Whether two views of one memory have surely no element in common."""
    (first, last), (start, end) = a.bytes, b.bytes
    if last <= start or end <= first:
        return True
    shared = meet(a, b)
    return shared is not None and 0 in shared.shape


def meet(a: Geometry, b: Geometry) -> Geometry | None:
    """The elements that two views of one memory have in common, in some order of axes; None where they make no view, or
    it is not known which they are.

    >>> rows, columns = Geometry(12, (2, 6), (6, 1)), Geometry(4, (5, 2), (6, 1))
    >>> meet(rows, columns)
    Geometry(offset=16, shape=(2, 2), strides=(6, 1), dtype=None)
    """
    strides = sorted({s for s, _, _ in (*a.axes, *b.axes) if s} | {1}, reverse=True)
    if a.dtype is not b.dtype or any(wide % narrow for wide, narrow in itertools.pairwise(strides)):
        return None
    ours, theirs = _digits(a, strides), _digits(b, strides)
    if ours is None or theirs is None:
        return None
    both = [range(max(x.start, y.start), min(x.stop, y.stop)) for x, y in zip(ours, theirs, strict=True)]
    offset = sum(index.start * stride for index, stride in zip(both, strides, strict=True))
    return Geometry(offset, tuple(map(len, both)), tuple(strides), a.dtype)


def covered(whole: Geometry, parts: Sequence[Geometry]) -> bool:
    """Whether views that lie in another one surely make up all of it."""
    if any(part[:3] == whole[:3] for part in parts):
        return True
    if len(parts) > MANY or sum(_size(part.shape) for part in parts) < _size(whole.shape):
        return False
    found: list[Geometry] = []
    for part in parts:
        if all(apart(part, other) for other in found):
            found.append(part)
    return sum(_size(part.shape) for part in found) == _size(whole.shape) and bool(found)


def _digits(view: Geometry, strides: Sequence[int]) -> list[range] | None:
    """The indices that a view takes along each of the axes that have these strides."""
    sizes = {stride: size for stride, size, _ in view.axes}
    if len(sizes) < len(view.axes) or 0 in sizes:
        return None
    for narrow, wide in itertools.pairwise(reversed(strides)):  # what runs over several axes is cut at their ends
        size, length = sizes.get(narrow, 1), wide // narrow
        if size > length and size % length == 0 and wide not in sizes:
            sizes[narrow], sizes[wide] = length, size // length
    rest, found = view.offset, []
    for wide, stride in zip((0, *strides), strides, strict=False):
        start, rest = divmod(rest, stride)
        found.append(range(start, start + sizes.get(stride, 1)))
        if wide and found[-1].stop > wide // stride:
            return None
    return found


def _size(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()


def _same_elements(a: Geometry, b: Geometry) -> bool:
    """Whether two tensors with one first element are the same memory: a transposed or a reshaped view."""
    if [axis[:2] for axis in a.axes] == [axis[:2] for axis in b.axes]:
        return True
    return a.dense and b.dense and _size(a.shape) == _size(b.shape)


def _index_of(offset: int, whole: Geometry) -> list[int] | None:
    """The index of the element that lies `offset` elements after a tensor's first."""
    starts = [0] * len(whole.shape)
    if offset < 0:
        return None
    for stride, size, axis in whole.axes:
        if stride == 0:
            return None
        starts[axis], offset = divmod(offset, stride)
        if starts[axis] >= size:
            return None
    return None if offset else starts


def _split(part: Geometry, whole: Geometry, starts: list[int]) -> list[tuple[int, int, int]]:
    """The axes of a view, those that run over several axes of the tensor (`weight.view(-1)[:8]`) cut at their ends."""
    inner = {stride: (size, axis) for stride, size, axis in whole.axes}
    todo, done = part.axes, []
    while todo:
        stride, size, axis = todo.pop()
        if stride in inner:
            length, own = inner[stride]
            if size > length and starts[own] == 0 and size % length == 0:
                todo.append((stride * length, size // length, axis))
                size = length
        done.append((stride, size, axis))
    return done
