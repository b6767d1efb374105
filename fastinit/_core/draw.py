"""Elementwise distributions into any array: the step between checked arguments and the drivers."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fastinit._core.distributions import Constant, Distribution
from fastinit._native.library import Kernel, kernel
from fastinit._native.records import PARAMETERS, RUN
from fastinit._runtime.arrays import Array, address, blocks, c_strides, dtype_name, runs
from fastinit._runtime.threads import spread, spread_rows, spread_runs

# Bytes from which a constant is written past the caches: several times what most processors have of them. Where a line
# is read before it is written, half of the traffic goes.
STREAM_FROM = 1 << 27
# Elements of the contiguous block through which a strided target is filled.
COPY_BLOCK = 1 << 18


@functools.lru_cache(maxsize=4096)
def _ready(distribution: Distribution, dtype: np.dtype[Any], mode: str, scale: float) -> tuple[Kernel, int, Array]:
    """The kernel, the address of the distribution's numbers, and the array that holds them."""
    name = dtype_name(dtype)
    kind, numbers = distribution.pack(name)
    array = np.zeros(PARAMETERS)
    array[0] = scale
    array[1 : 1 + len(numbers)] = numbers
    names = ("fill.stream_kernel",) if mode == "stream" else ("fill.range_kernel", mode, kind)
    return kernel(*names, name), array.ctypes.data, array


def draw_flat(
    place: int,
    count: int,
    dtype: np.dtype[Any],
    distribution: Distribution,
    words: tuple[int, int],
    mode: str = "fill",
    scale: float = 1.0,
    offset: int = 0,
) -> None:
    """Fill or add to contiguous and aligned memory: `count` elements at the address `place`. The rest as in `draw`."""
    if count * dtype.itemsize >= STREAM_FROM and mode == "fill" and isinstance(distribution, Constant):
        mode = "stream"
    run, numbers, _ = _ready(distribution, dtype, mode, scale)
    spread(run, dtype.itemsize, place, count, words, numbers, offset)


class Run(NamedTuple):
    """Contiguous memory that is to be filled by an elementwise distribution."""

    distribution: Distribution
    dtype: np.dtype[Any]
    place: int  # the address of the first element
    size: int  # elements
    words: tuple[int, int]  # of the key


def draw_runs(runs: Sequence[Run]) -> None:
    """Fill several runs of memory, each from its key's first element on, by all threads together."""
    ready = [_ready(run.distribution, run.dtype, "fill", 1.0) for run in runs]  # also keeps the numbers alive
    records = np.array(
        [
            (found.address, run.place, run.size, run.dtype.itemsize, *run.words, numbers)
            for run, (found, numbers, _) in zip(runs, ready, strict=True)
        ],
        RUN,
    )
    spread_runs(records)


def draw(
    out: Array,
    distribution: Distribution,
    words: tuple[int, int],
    *,
    mode: str = "fill",
    scale: float = 1.0,
    strides: tuple[int, ...] | None = None,
    indices: tuple[range, ...] | None = None,
    offset: int = 0,
) -> None:
    """Fill or add to `out`, the part `indices` of a tensor, by an elementwise distribution.

    Args:
        out: the target.
        distribution: what is drawn.
        words: of the key.
        mode, scale: "fill", or "add" with its factor.
        strides: of the tensor's elements in the key's stream. Default: those of `out`'s shape in C order.
        indices: the part. Default: all of the tensor.
        offset: where the tensor's first element lies in the stream.
    """
    if strides is None and out.flags.carray:  # contiguous, aligned and writeable
        draw_flat(address(out), out.size, out.dtype, distribution, words, mode, scale, offset)
        return
    steps = c_strides(out.shape) if strides is None else strides
    indices = tuple(range(n) for n in out.shape) if indices is None else indices
    _draw_runs(out, distribution, words, mode, scale, steps, indices, offset)


def _draw_runs(
    out: Array,
    distribution: Distribution,
    words: tuple[int, int],
    mode: str,
    scale: float,
    steps: tuple[int, ...],
    indices: tuple[range, ...],
    offset: int,
) -> None:
    """`draw` run by run of the memory, or through copies that have runs."""
    run, numbers, _ = _ready(distribution, out.dtype, mode, scale)
    if out.size == 0:
        return
    # In the order of the stream, so that runs of the target are runs of the stream; axes that repeat it outside.
    order = sorted(range(out.ndim), key=lambda axis: -steps[axis] if steps[axis] else -math.inf)
    if order != list(range(out.ndim)):
        out, steps = out.transpose(order), tuple(steps[axis] for axis in order)
        indices = tuple(indices[axis] for axis in order)

    def work(target: Array, part: tuple[range, ...]) -> None:
        for rows in runs(target, steps, part, offset):
            spread_rows(run, target.itemsize, rows, words, numbers)

    inner = next((step for step, n in zip(out.strides[::-1], out.shape[::-1], strict=True) if n > 1), out.itemsize)
    if out.flags.aligned and inner == out.itemsize and all(step % out.itemsize == 0 for step in out.strides):
        work(out, indices)
        return
    for block, part in blocks(out, indices, COPY_BLOCK):
        copy = block.copy(order="C") if mode == "add" else np.empty(block.shape, out.dtype)
        work(copy, part)
        block[...] = copy
        del copy  # before the next one is made
