"""Products of Householder reflections H_0 H_1 ..., whose vectors are made of Gaussian ones, by blocks of reflections.

The n reflections of a block are I + R^T N R: the rows of R (n x width) are their vectors, and N (n x n) is upper
triangular. So a block is applied by three matrix products. Columns do not depend on each other: any thread makes any of
them.

A complex reflection is two real ones that commute, of the vectors v and iv, each a row of real and imaginary parts in
turn: `parts` is 2 then, else 1.

References:
    Schreiber, Van Loan, "A storage-efficient WY representation for products of Householder transformations", SIAM
    Journal on Scientific and Statistical Computing 10 (1), 1989.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types

from fastinit._native.records import REFLECTION_BLOCK, REFLECTION_COLUMNS, REFLECTIONS
from fastinit.kernels.jit import Definition, carray, definition, fetch_add, fma, pointer, scalars
from fastinit.kernels.products.product import call_product
from fastinit.kernels.store import itself
from fastinit.kernels.sums.order import fixed_sum, square

f32, f64, i64 = np.float32, np.float64, np.int64

BLOCK, COLUMNS = i64(REFLECTION_BLOCK), i64(REFLECTION_COLUMNS)

REAL, SIZE = f32, i64(4)  # template arguments


def reflected(x, parts):
    """A Gaussian vector g becomes v, v_0 = 1. Returns tau of the reflection I - tau v v^T, and the real and the
    imaginary part of -g_0 / |g_0|.

    A real g is reflected to beta e_0, with beta = -g_0 / |g_0| |g|. A complex g would have to be turned first, until
    g_0 is positive; but the others have the same distribution as they are.
    """
    real, imaginary = f64(x[0]), f64(0)
    if parts == i64(2):
        imaginary = f64(x[1])
    if real == f64(0) and imaginary == f64(0):
        real = f64(1)
    squares = real * real + imaginary * imaginary
    head, norm = math.sqrt(squares), math.sqrt(squares + fixed_sum(x[parts:], itself, square, f64(0), f64(0)))
    divisor = math.copysign(head + norm, real) if parts == i64(1) else head + norm
    for j in range(parts, x.size):
        x[j] = f64(x[j]) / divisor
    x[:parts] = REAL(0)
    x[0] = REAL(1)
    return (head + norm) / norm, -(real / head), -(imaginary / head)


def rotated(x, y):
    """The parts of iv, of the parts of v."""
    for j in range(0, x.size, 2):
        y[j], y[j + 1] = -x[j + 1], x[j]


def vectors_of(run, start, width, first, count, inner):
    """The vectors of a block: its rows of Gaussian numbers become R, and N gets its diagonal, -tau."""
    parts = run.parts
    turns = carray(pointer(run.turns), run.height, REAL)
    for row in range(0, count, parts):
        x = carray(pointer(start + row * run.width * SIZE), width, REAL)
        x[:row] = REAL(0)
        tau, real, imaginary = reflected(x[row:], parts)
        turns[first + row], inner[row, row] = REAL(real), REAL(-tau)
        if parts == i64(2):
            rotated(x, carray(pointer(start + (row + 1) * run.width * SIZE), width, REAL))
            turns[first + row + 1], inner[row + 1, row + 1] = REAL(imaginary), REAL(-tau)


def factored(dots, inner, count):
    """The columns of N above its diagonal, each a row of `inner`; `dots` are the dot products of R's rows."""
    for j in range(count):
        column = inner[j]
        diagonal = column[j]
        for i in range(count):
            column[i] = REAL(0)
        for k in range(j):
            before, dot = inner[k], dots[k, j]
            for i in range(k + 1):
                column[i] = fma(before[i], dot, column[i])
        for i in range(j):
            column[i] *= diagonal
        column[j] = diagonal


def _reflect(record):
    """See `reflect`."""
    run = carray(pointer(record), 1, REFLECTIONS)[0]
    dots = run.memory + fetch_add(run.counters + i64(8)) * run.memory_bytes
    scratch = dots + BLOCK * BLOCK * SIZE
    block = run.first_block + fetch_add(run.counters)
    while block < run.last_block:
        top = block * BLOCK
        count, width = min(BLOCK, run.height - top), run.width - top
        r, step = run.vectors + (top * run.width + top) * SIZE, run.width
        inner = carray(pointer(run.factors + block * BLOCK * BLOCK * SIZE), (BLOCK, BLOCK), REAL)
        vectors_of(run, r, width, top, count, inner)
        call_product(
            run.product, r, step, i64(1), r, i64(1), step, dots, BLOCK, count, count, width, i64(0), scratch
        )  # fmt: skip
        factored(carray(pointer(dots), (BLOCK, BLOCK), REAL), inner, count)
        block = run.first_block + fetch_add(run.counters)


def reflect(dtype: str) -> Definition:
    """The kernel that makes R and N of Gaussian rows, for the blocks [first, last) of a `records.REFLECTIONS`."""
    return _defined(_reflect, (reflected, rotated, vectors_of, factored), dtype)


def applied(run, block, left, right, own):
    """One block of reflections applied to columns [left, right)."""
    top, step, one = block * BLOCK, run.step, i64(1)
    n, columns, width = min(BLOCK, run.height - top), right - left, run.width - top
    r, r_step = run.vectors + (top * run.width + top) * SIZE, run.width
    inner = run.factors + block * BLOCK * BLOCK * SIZE  # N^T
    w, y, scratch = own, own + BLOCK * COLUMNS * SIZE, own + i64(2) * BLOCK * COLUMNS * SIZE
    if run.transposed == i64(0):  # W = R Q, Y = N W, Q += R^T Y
        q = run.matrix + (top * step + left) * SIZE
        call_product(run.product, r, r_step, one, q, step, one, w, COLUMNS, n, columns, width, i64(0), scratch)
        call_product(run.product, inner, one, BLOCK, w, COLUMNS, one, y, COLUMNS, n, columns, n, i64(0), scratch)
        call_product(run.product, r, one, r_step, y, COLUMNS, one, q, step, width, columns, n, one, scratch)
    else:  # W = Q^T R^T, Y = W N^T, Q^T += Y R
        q = run.matrix + (left * step + top) * SIZE
        call_product(run.product, q, step, one, r, one, r_step, w, BLOCK, columns, n, width, i64(0), scratch)
        call_product(run.product, w, BLOCK, one, inner, BLOCK, one, y, BLOCK, columns, n, n, i64(0), scratch)
        call_product(run.product, y, BLOCK, one, r, r_step, one, q, step, columns, width, n, one, scratch)


def _apply(record):
    """See `apply`."""
    run = carray(pointer(record), 1, REFLECTIONS)[0]
    own = run.memory + fetch_add(run.counters + i64(8)) * run.memory_bytes
    end = run.end - fetch_add(run.counters) * run.share
    while end > run.begin:  # the last columns first: they take longest
        begin = max(run.begin, end - run.share)
        block = run.last_block - i64(1)
        while block >= run.first_block:
            left = max(begin, block * BLOCK // run.parts)  # those before are zero where the vectors are not
            if left < end:
                applied(run, block, left, end, own)
            block -= i64(1)
        end = run.end - fetch_add(run.counters) * run.share


def apply(dtype: str) -> Definition:
    """The kernel that applies the blocks [first, last) of a `records.REFLECTIONS` to its columns [begin, end)."""
    return _defined(_apply, (applied,), dtype)


def _defined(function: Any, parts: tuple[Any, ...], dtype: str) -> Definition:
    real = f64 if dtype == "float64" else f32
    names = scalars(parts, REAL=real, SIZE=i64(np.dtype(real).itemsize))
    return definition(function, types.void(types.int64), **names)
