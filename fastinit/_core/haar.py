"""Matrices with orthonormal rows or columns, uniform (Haar) among them."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np

from fastinit._core.distributions import Constant, Normal
from fastinit._core.draw import draw
from fastinit._core.key import Key
from fastinit._native.library import kernel
from fastinit._native.records import REFLECTION_BLOCK, REFLECTION_COLUMNS, REFLECTION_SCRATCH, REFLECTIONS
from fastinit._runtime.arrays import Array, address
from fastinit._runtime.pool import together
from fastinit._runtime.threads import num_threads

# Multiply-adds from which two threads win (0.1 ms), and those for each thread per call into compiled code, where Ctrl-C
# has to wait: 0.05 s of float32, 0.1 s of float64.
PARALLEL_FROM = 1 << 22
SLAB = 1 << 31
TILE = 32  # columns in a product's tile, or in several


def haar(matrix: Array, key: Key, offset: int) -> None:
    """Fill a matrix, contiguous in C order, of float32 or float64; or of complex numbers, and then it is unitary.

    The Householder vectors of a Gaussian matrix's QR are independent Gaussians themselves, so they are drawn, and the
    reflections multiplied. Columns take the signs, or phases, of R's diagonal.

    References:
        Stewart, "The efficient generation of random orthogonal matrices", SIAM Journal on Numerical Analysis 17, 1980.
        Mezzadri, "How to generate random matrices from the classical compact groups", Notices of the AMS 54, 2007.
    """
    tall, short = max(matrix.shape), min(matrix.shape)
    dtype, parts = matrix.real.dtype, 1 + np.iscomplexobj(matrix)
    name = dtype.name
    height, width = parts * short, parts * tall
    vectors = np.empty((height, width), dtype)
    draw(vectors[::parts], Normal(), key.words(), offset=parts * offset)

    transposed = parts == 2 or matrix.shape[0] < tall
    target = matrix if matrix.shape[0] < tall or not transposed else np.empty((short, tall), matrix.dtype)
    blocks = -(-height // REFLECTION_BLOCK)
    factors, turns = np.empty((blocks, REFLECTION_BLOCK, REFLECTION_BLOCK), dtype), np.empty(short, matrix.dtype)
    workers = min(num_threads(), -(-short // TILE)) if height * width * short >= PARALLEL_FROM else 1
    memory, counters = np.empty((workers, REFLECTION_SCRATCH), dtype), np.zeros(2, np.int64)
    run = np.zeros((), REFLECTIONS)
    run["product"] = kernel("products.product.product", name).address
    run["vectors"], run["height"], run["width"], run["parts"] = address(vectors), height, width, parts
    run["factors"], run["turns"], run["counters"] = address(factors), address(turns), address(counters)
    run["matrix"], run["transposed"], run["step"] = address(target), transposed, width if transposed else short
    run["memory"], run["memory_bytes"] = address(memory), memory.strides[0]
    run["share"] = min(REFLECTION_COLUMNS, -(-short // (4 * workers * TILE)) * TILE)  # four for each thread

    def call(driver: str, first: int, last: int, begin: int = 0, end: int = 0) -> None:
        counters[:] = 0
        run["first_block"], run["last_block"], run["begin"], run["end"] = first, last, begin, end
        work = functools.partial(kernel(f"products.reflectors.{driver}", name).call, address(run))
        # Anew: a signal handler may have forked, and this be the child.
        together(work, min(workers, num_threads()) if workers > 1 else 1)

    for first, last in _parts(blocks, SLAB * workers // (REFLECTION_BLOCK * REFLECTION_BLOCK * width)):
        call("reflect", first, last)
    draw(target.view(dtype), Constant(0.0), key.words())  # by all threads, in short calls
    np.fill_diagonal(target, turns)
    columns = SLAB * workers // (2 * REFLECTION_BLOCK * width)  # that one block may be applied to in a call
    for first, last in reversed(list(_parts(blocks, columns // short))):
        for begin, end in _parts(short, columns):
            call("apply", first, last, begin, end)
    if target is not matrix:
        matrix[...] = target.T


def _parts(number: int, most: int) -> Iterator[tuple[int, int]]:
    """Ranges of at most so many numbers, but of one at least."""
    step = max(1, most)
    return ((first, min(first + step, number)) for first in range(0, number, step))
