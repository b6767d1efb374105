"""Where a tensor lies in its storage, and which part of another tensor it is."""

from __future__ import annotations

from typing import NamedTuple

import torch

from fastinit._runtime.arrays import Region, overlaps


class Geometry(NamedTuple):
    """A tensor's place in its storage; offset and strides in elements of the dtype."""

    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype

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
        size = self.dtype.itemsize
        return self.offset * size, (last + 1) * size if 0 not in self.shape else self.offset * size

    def covers(self, nbytes: int) -> bool:
        """Whether the tensor is all of a storage of this size."""
        return self.offset == 0 and self.dense and _size(self.shape) * self.dtype.itemsize == nbytes


def geometry(tensor: torch.Tensor) -> Geometry:
    """Where a tensor lies in its storage."""
    return Geometry(int(tensor.storage_offset()), tuple(tensor.shape), tensor.stride(), tensor.dtype)


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


def in_order(part: Geometry, whole: Geometry, region: Region) -> bool:
    """Whether a view is exactly `whole[region]`, axis by axis: a structured distribution is then the same."""
    if not region:
        return part[:3] == whole[:3]
    shape = tuple(len(range(s.start, s.stop, s.step)) for s in region)
    strides = tuple(step * s.step for step, s in zip(whole.strides, region, strict=True))
    kept = [axis for axis, n in enumerate(shape) if n > 1]
    return part.shape == shape and all(part.strides[axis] == strides[axis] for axis in kept)


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
