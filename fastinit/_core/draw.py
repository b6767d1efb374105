"""Elementwise laws into any array: the step between checked arguments and the drivers."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastinit._core.distributions import Distribution
from fastinit._runtime.arrays import Array, address, dtype_name, runs
from fastinit._runtime.threads import spread
from fastinit.kernels.fill import PARAMETERS, range_kernel

# Elements of the contiguous block through which a strided target is filled.
COPY_BLOCK = 1 << 18


@functools.lru_cache(maxsize=4096)
def _ready(distribution: Distribution, dtype: np.dtype[Any], mode: str, scale: float) -> tuple[int, int, Array]:
    """The address of the kernel, that of the distribution's numbers, and the array that holds them."""
    name = dtype_name(dtype)
    law, numbers = distribution.pack(name)
    array = np.zeros(PARAMETERS)
    array[0] = scale
    array[1 : 1 + len(numbers)] = numbers
    return range_kernel(law, name, mode).address, array.ctypes.data, array


def draw(
    out: Array,
    distribution: Distribution,
    words: tuple[int, int],
    *,
    mode: str = "fill",
    scale: float = 1.0,
    shape: tuple[int, ...] | None = None,
    indices: tuple[range, ...] | None = None,
    offset: int = 0,
) -> None:
    """Fill (or add to) `out`, which is the part `indices` of a tensor of `shape`, with an elementwise law.

    `words` are a key's words; the tensor's first element is element `offset` of their stream.
    """
    kernel, numbers, _ = _ready(distribution, out.dtype, mode, scale)
    size = out.size
    if size == 0:
        return
    if indices is None and out.flags.carray:  # contiguous, aligned and writeable
        spread(kernel, out.itemsize, (address(out), 1, size, 0, offset, 0), words, numbers)
        return
    if shape is None or indices is None:
        shape, indices = out.shape, tuple(range(n) for n in out.shape)

    def regions(target: Array, part: tuple[range, ...]) -> None:
        for piece in runs(target, shape, part):
            location, rows, columns, out_step, start, stream_step = piece
            moved = (location, rows, columns, out_step, start + offset, stream_step)
            spread(kernel, target.itemsize, moved, words, numbers)

    _by_blocks(out, indices, regions, copy_in=mode == "add")


def _by_blocks(
    out: Array, indices: tuple[range, ...], work: Callable[[Array, tuple[range, ...]], None], *, copy_in: bool
) -> None:
    """Call `work` on memory whose innermost axis is contiguous: the target, or copies of blocks of it."""
    inner = next((axis for axis in reversed(range(out.ndim)) if out.shape[axis] > 1), None)
    aligned = out.flags.aligned and all(step % out.itemsize == 0 for step in out.strides)
    if aligned and (inner is None or out.strides[inner] == out.itemsize):
        work(out, indices)
        return
    if out.size > COPY_BLOCK:
        axis = next(axis for axis, n in enumerate(out.shape) if n > 1)
        height = max(1, min(out.shape[axis] // 2, COPY_BLOCK // math.prod(out.shape[axis + 1 :]) or 1))
        for first in range(0, out.shape[axis], height):
            block = out[(slice(None),) * axis + (slice(first, first + height),)]
            part = (*indices[:axis], indices[axis][first : first + height], *indices[axis + 1 :])
            _by_blocks(block, part, work, copy_in=copy_in)
        return
    copy = out.copy(order="C") if copy_in else np.empty(out.shape, out.dtype)
    work(copy, indices)
    out[...] = copy
