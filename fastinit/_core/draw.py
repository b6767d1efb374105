"""Elementwise distributions into any array: the step between checked arguments and the drivers."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from fastinit._core.distributions import Distribution
from fastinit._runtime.arrays import Array, address, blocks, dtype_name, runs
from fastinit._runtime.threads import spread, spread_rows
from fastinit.kernels.fill import PARAMETERS, range_kernel

# Elements of the contiguous block through which a strided target is filled.
COPY_BLOCK = 1 << 18


@functools.lru_cache(maxsize=4096)
def _ready(distribution: Distribution, dtype: np.dtype[Any], mode: str, scale: float) -> tuple[int, int, Array]:
    """The address of the kernel, that of the distribution's numbers, and the array that holds them."""
    name = dtype_name(dtype)
    kind, numbers = distribution.pack(name)
    array = np.zeros(PARAMETERS)
    array[0] = scale
    array[1 : 1 + len(numbers)] = numbers
    return range_kernel(mode, kind, name).address, array.ctypes.data, array


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
    """Fill or add to `out`, the part `indices` of a tensor of `shape`, by an elementwise distribution.

    `words` are a key's words; the tensor's first element is element `offset` of their stream.
    """
    kernel, numbers, _ = _ready(distribution, out.dtype, mode, scale)
    size = out.size
    if size == 0:
        return
    if indices is None and out.flags.carray:  # contiguous, aligned and writeable
        spread(kernel, out.itemsize, address(out), size, words, numbers, offset)
        return
    if shape is None or indices is None:
        shape, indices = out.shape, tuple(range(n) for n in out.shape)

    def work(target: Array, part: tuple[range, ...]) -> None:
        for rows in runs(target, shape, part, offset):
            spread_rows(kernel, target.itemsize, rows, words, numbers)

    inner = next((step for step, n in zip(out.strides[::-1], out.shape[::-1], strict=True) if n > 1), out.itemsize)
    if out.flags.aligned and inner == out.itemsize and all(step % out.itemsize == 0 for step in out.strides):
        work(out, indices)
        return
    for block, part in blocks(out, indices, COPY_BLOCK):
        copy = block.copy(order="C") if mode == "add" else np.empty(block.shape, out.dtype)
        work(copy, part)
        block[...] = copy
        del copy  # before the next one is made
