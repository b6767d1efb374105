"""C = A B, or C += A B, for matrices whose rows or columns are contiguous.

A block of B that fits into a core's second cache is copied into panels, as wide as a tile and contiguous; of A what a
row of tiles reads. Rows of a large matrix lie a power of two apart, and would push each other out of the caches; and
where B's columns are contiguous, vectors cannot read its rows. What only a few tiles read is read where it is.

References:
    Goto, van de Geijn, "Anatomy of high-performance matrix multiplication", ACM TOMS 34 (3), 2008.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
from numba import types

from fastinit._native import processor
from fastinit._native.records import PRODUCT_COLUMNS, PRODUCT_DEPTH
from fastinit.kernels.jit import Definition, c_caller, carray, definition, pointer, scalars
from fastinit.kernels.products.tiles import BLOCK, copy, lanes, tile, transpose

f32, f64, i64 = np.float32, np.float64, np.int64

PRODUCT_SIGNATURE = types.void(*(types.int64,) * 13)
call_product = c_caller(PRODUCT_SIGNATURE)


class Shape(NamedTuple):
    """A tile: its rows, and the vectors of 64 bytes in a row."""

    rows: int
    vectors: int


# By the bits of a processor's vectors. A tile's sums, a row of B and an element of A fill the registers: 32 of 512 bits
# each, 16 of 256, and 32 of 128 on ARM. x86-64 without AVX has no fma: each lane is a call, and no shape is fast.
SHAPES = {512: Shape(12, 2), 256: Shape(6, 1), 128: Shape(6, 1)}

DEPTH, COLUMNS = i64(PRODUCT_DEPTH), i64(PRODUCT_COLUMNS)
STEP = i64(PRODUCT_DEPTH + 16)  # of the copy of A: its rows begin in different sets of the cache
# So many tiles of rows read B itself, so many of columns A: on Zen 4, 36 to 72 rows were 5 to 18 percent faster than by
# copies. With 12 tiles of rows, two of six products were 8 and 14 percent slower. A's contiguous rows, where they lie
# 4 KB apart, lose 10 percent with 3 to 6 tiles of columns.
FEW, FEW_BY_ROW = i64(6), i64(2)

# Template arguments: what `_names` gives for a dtype and a shape. The functions below see each other under their names.
ELEMENT, SIZE, ROWS, PART, WIDTH, WIDE, LANES = f32, i64(4), i64(12), i64(8), i64(32), i64(128), i64(16)
BY_ROW: Any = None
BY_COLUMN: Any = None
COPY: Any = None
TRANSPOSE: Any = None
SIDE = i64(BLOCK)


def copied(source, source_step, target, target_step, rows, columns):
    """Copy rows of contiguous elements."""
    for row in range(rows):
        x = carray(pointer(source + row * source_step * SIZE), columns, ELEMENT)
        y = carray(pointer(target + row * target_step * SIZE), columns, ELEMENT)
        for i in range(columns):
            y[i] = x[i]


def narrow(source, source_step, target, target_step, rows, columns):
    """Copy rows of at most WIDTH elements: a power of two of the first ones, and as many of the last."""
    power = i64(1)
    while i64(2) * power <= columns:
        power *= i64(2)
    left = (columns - power) * SIZE
    COPY(source, source_step, target, target_step, rows, power)
    if left > 0:
        COPY(source + left, source_step, target + left, target_step, rows, power)


def transposed(source, source_step, target, target_step, rows, columns):
    """Write contiguous rows of a matrix as columns of another; the last blocks overlap those before them."""
    if rows >= SIDE and columns >= SIDE:
        for i in range(0, rows, SIDE):
            row = min(i, rows - SIDE)
            for j in range(0, columns, SIDE):
                column = min(j, columns - SIDE)
                TRANSPOSE(
                    source + (row * source_step + column) * SIZE,
                    source_step,
                    target + (column * target_step + row) * SIZE,
                    target_step,
                )
    else:
        for row in range(rows):
            x = carray(pointer(source + row * source_step * SIZE), columns, ELEMENT)
            y = carray(pointer(target + row * SIZE), columns * target_step, ELEMENT)
            for column in range(columns):
                y[column * target_step] = x[column]


def packed(b, b_k, b_column, panels, depth, columns):
    """Copy `depth` rows of B's columns into panels of WIDTH columns; what is missing in the last vector is zero."""
    for first in range(0, columns, WIDTH):
        panel = panels + first * depth * SIZE
        count = min(WIDTH, columns - first)
        if count % LANES != i64(0):
            for k in range(depth):
                zeros = carray(pointer(panel + (k * WIDTH + count // LANES * LANES) * SIZE), LANES, ELEMENT)
                for i in range(LANES):
                    zeros[i] = ELEMENT(0)
        place = b + first * b_column * SIZE
        if b_column != i64(1):
            transposed(place, b_column, panel, WIDTH, count, depth)
        elif count == WIDTH:
            COPY(place, b_k, panel, WIDTH, depth, WIDTH)
        else:
            narrow(place, b_k, panel, WIDTH, depth, count)


def computed(a, a_step, by_column, b, b_step, depth, c, c_row, add, rows, columns, edge):
    """One tile; what fills no vector is made at `edge`, and what it has of C is copied."""
    vectors = (columns + LANES - i64(1)) // LANES
    whole = columns == vectors * LANES
    place, step = (c, c_row) if whole else (edge, WIDTH)
    if not whole and add != i64(0):
        narrow(c, c_row, edge, WIDTH, rows, columns)
    if by_column:
        BY_COLUMN(a, a_step, b, b_step, depth, place, step, add, rows, vectors)
    else:
        BY_ROW(a, a_step, b, b_step, depth, place, step, add, rows, vectors)
    if not whole:
        narrow(edge, WIDTH, c, c_row, rows, columns)


def height(left):
    """The rows of the next tile, of `left` that are left: all that it can have, or a power of two."""
    if left >= ROWS and left != i64(2) * PART:
        return ROWS
    power = PART
    while power > left:
        power //= i64(2)
    return power


def _product(a, a_row, a_k, b, b_k, b_column, c, c_row, rows, columns, depth, add, scratch):
    """See `product`."""
    panels = scratch
    edge = panels + COLUMNS * DEPTH * SIZE
    own = edge + ROWS * WIDTH * SIZE
    by_column = a_row == i64(1)
    for first in range(0, columns, COLUMNS):
        wide = min(COLUMNS, columns - first)
        # Where few rows use B, its own rows are read, but those that fill no vector.
        direct = wide // LANES * LANES if b_column == i64(1) and rows <= FEW * ROWS else i64(0)
        for k in range(0, depth, DEPTH):
            deep = min(DEPTH, depth - k)
            block = b + (k * b_k + first * b_column) * SIZE
            if direct < wide:
                begin = direct // WIDTH * WIDTH
                packed(block + begin * b_column * SIZE, b_k, b_column, panels + begin * deep * SIZE, deep, wide - begin)
            adding = i64(1) if k > 0 else add
            top = i64(0)
            while top < rows:
                count = height(rows - top)
                place, step = a + (top * a_row + k * a_k) * SIZE, a_k if by_column else a_row
                if wide > (FEW if by_column else FEW_BY_ROW) * WIDTH:
                    if by_column:
                        COPY(place, step, own, ROWS, deep, count)
                    else:
                        copied(place, step, own, STEP, count, deep)
                    place, step = own, ROWS if by_column else STEP
                column = i64(0)
                while column < wide:
                    most = WIDE if count == i64(1) and column + WIDE <= direct else min(WIDTH, wide - column)
                    here = column + most <= direct
                    computed(
                        place,
                        step,
                        by_column,
                        block + column * SIZE if here else panels + column * deep * SIZE,
                        b_k if here else WIDTH,
                        deep,
                        c + (top * c_row + first + column) * SIZE,
                        c_row,
                        adding,
                        count,
                        most,
                        edge,
                    )
                    column += most
                top += count


def _names(dtype: str, shape: Shape) -> dict[str, Any]:
    """What the global names mean for a dtype and a tile's shape."""
    kind, element = (types.float64, f64) if dtype == "float64" else (types.float32, f32)
    width = shape.vectors * lanes(kind)
    powers = [power for power in (8, 4, 2, 1) if power < shape.rows]
    heights = [shape.rows, *powers]
    shapes = [*itertools.product(heights, range(1, shape.vectors + 1)), (1, 4 * shape.vectors)]
    names: dict[str, Any] = {
        "ELEMENT": element,
        "SIZE": i64(np.dtype(element).itemsize),
        "ROWS": i64(shape.rows),
        "PART": i64(powers[0]),
        "WIDTH": i64(width),
        "WIDE": i64(4 * width),  # for one row: 8 sums in registers, since an fma takes 4 cycles and two begin in each
        "LANES": i64(lanes(kind)),
        "BY_ROW": tile(kind, shapes, False),
        "BY_COLUMN": tile(kind, shapes, True),
        "COPY": copy(kind, sorted({*heights, *(1 << i for i in range(width.bit_length()))})),
        "TRANSPOSE": transpose(kind),
    }
    return scalars((copied, narrow, transposed, packed, computed, height), **names)


def product(dtype: str, shape: Shape | None = None) -> Definition:
    """The kernel that multiplies matrices of a dtype.

    Its arguments are `(a, a_row, a_k, b, b_k, b_column, c, c_row, rows, columns, depth, add, scratch)`, int64:

    - A (rows x depth): its address, and the elements from one row, and from one k, to the next; one of the two is 1.
    - B (depth x columns): likewise, from one k and from one column to the next.
    - C (rows x columns): its address, and the elements from one row to the next.
    - The sizes, each at least 1; and 1 where C is added to, else 0.
    - The address of `records.PRODUCT_SCRATCH` numbers of memory that no other thread uses.

    Args:
        dtype: float32 or float64.
        shape: of a tile; None is the processor's.
    """
    return definition(_product, PRODUCT_SIGNATURE, **_names(dtype, shape or SHAPES[processor.vector_bits()]))
