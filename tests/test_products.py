"""Matrix products: every element is one chain of fma in ascending k, whatever the sizes, the tiles and the blocks."""

import itertools
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import processes
import pytest
from products import bits, kernel_of, laid_out, multiply, reference

from fastinit._native import processor
from fastinit._native.records import PRODUCT_COLUMNS, PRODUCT_DEPTH
from fastinit.kernels.products.product import SHAPES

FLOATS = "float32", "float64"
ORDERS = "NN", "NT", "TN", "TT"  # rows or columns of A and of B are contiguous
MOST = 40
PADDING = 3
# Rows of 12 or 6 and one more: few, whose tiles read B itself, and many, which read a copy.
ROWS = 13, 85
ABOUT = 255, 256, 257, 511, 512, 513  # the block of B that is copied at once, and two of them
OTHER_SHAPES = sorted({*SHAPES.values()} - {SHAPES[processor.vector_bits()]})


def matrices(rows, columns, depth, dtype):
    """A, B and C of normal numbers."""
    generator = np.random.default_rng((rows, columns, depth))
    return tuple(
        generator.standard_normal(shape).astype(dtype) for shape in ((rows, depth), (depth, columns), (rows, columns))
    )


def check(kernel, a, b, c, expected, order="NN", *, add=False):
    """Multiply matrices laid out in an order, and compare C and all of the memory around it."""
    a, _ = laid_out(a, order[0], PADDING)
    b, _ = laid_out(b, order[1], PADDING)
    c, memory = laid_out(c if add else np.full_like(c, np.nan), "N", PADDING, fill=7)
    multiply(kernel, a, b, c, add=add)
    wanted = laid_out(expected, "N", PADDING, fill=7)[1]
    assert np.array_equal(bits(memory), bits(wanted)), (a.shape, b.shape, order, add)


def check_sizes(kernel, dtype, sizes, orders=ORDERS, adding=(False, True)):
    """Multiply the first rows and columns of matrices of MOST of each: their elements are those of the whole product.

    Args:
        sizes: depth -> the numbers of rows and columns.
    """
    a, b, c = matrices(MOST, MOST, MOST, dtype)
    for depth, pairs in sizes.items():
        x, y = a[:, :depth], b[:depth]
        whole = {False: reference(x, y), True: reference(x, y, c)}
        for (rows, columns), order, add in itertools.product(pairs, orders, adding):
            expected = whole[add][:rows, :columns]
            check(kernel, x[:rows], y[:, :columns], c[:rows, :columns], expected, order, add=add)


def rounded(exact, dtype):
    """The nearest number of a dtype to a fraction, of two the even one."""
    near = np.dtype(dtype).type(float(exact))
    numbers = [np.nextafter(near, -np.inf), near, np.nextafter(near, np.inf)]
    return min(numbers, key=lambda number: (abs(Fraction(float(number)) - exact), int(bits(np.array(number))) & 1))


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_reference_rounds_once_in_each_step(dtype):
    """Against exact fractions."""
    a, b, c = matrices(3, 4, 9, dtype)
    found = reference(a, b, c)
    for i, j in np.ndindex(c.shape):
        total = c[i, j]
        for k in range(a.shape[1]):
            total = rounded(Fraction(float(a[i, k])) * Fraction(float(b[k, j])) + Fraction(float(total)), dtype)
        assert bits(found)[i, j] == bits(np.array(total))


def test_float32_is_not_rounded_through_float64():
    """1 + 2^-24 + 2^-57 is above the middle between two numbers. float64 loses 2^-57; then it is the middle."""
    a, b = np.full((13, 1), 2049 / 2**11, np.float32), np.full((1, 33), 4192257 / 2**46, np.float32)
    c, above = np.ones((13, 33), np.float32), np.full((13, 33), 1 + 2**-23, np.float32)
    assert (np.float32(a.astype(float) * b + c) == 1).all()
    assert (reference(a, b, c) == above).all()
    check(kernel_of("float32"), a, b, c, above, add=True)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_every_number_of_rows_and_columns(dtype, order):
    every = list(itertools.product(range(1, MOST + 1), repeat=2))
    check_sizes(kernel_of(dtype), dtype, {9: every}, [order], [False])
    check_sizes(kernel_of(dtype), dtype, {2: every[::3]}, [order], [True])


@pytest.mark.parametrize("dtype", FLOATS)
def test_every_depth(dtype):
    pairs = [(1, 1), (1, 40), (2, 7), (12, 32), (13, 33), (31, 17), (40, 5)]
    check_sizes(kernel_of(dtype), dtype, dict.fromkeys(range(1, MOST + 1), pairs))


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_every_size(dtype, order):
    every = list(itertools.product(range(1, MOST + 1), repeat=2))
    check_sizes(kernel_of(dtype), dtype, dict.fromkeys(range(1, MOST + 1), every), [order])


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_sizes_about_the_blocks(dtype, rows):
    assert PRODUCT_DEPTH == PRODUCT_COLUMNS == ABOUT[1]
    a, b, c = matrices(rows, ABOUT[-1], ABOUT[-1], dtype)
    for depth in ABOUT:
        x, y = a[:, :depth], b[:depth]
        whole = {False: reference(x, y), True: reference(x, y, c)}
        for columns, order, add in itertools.product(ABOUT, ORDERS, whole):
            check(kernel_of(dtype), x, y[:, :columns], c[:, :columns], whole[add][:, :columns], order, add=add)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", OTHER_SHAPES)
def test_other_tiles_give_the_same_bits(shape, dtype):
    kernel = kernel_of(dtype, shape)
    every = list(itertools.product(range(1, MOST + 1), repeat=2))
    check_sizes(kernel, dtype, {1: every[::13], 9: every[::7], 40: every[::17]})
    for rows, order, add in itertools.product(ROWS, ORDERS, (False, True)):
        a, b, c = matrices(rows, 300, 600, dtype)
        check(kernel, a, b, c, reference(a, b, c if add else None), order, add=add)


@pytest.mark.parametrize("blocks", [{"DEPTH": 7, "COLUMNS": 32}, {"DEPTH": 64, "COLUMNS": 96}])
def test_other_blocks_give_the_same_bits(blocks):
    for rows, order, add in itertools.product(ROWS, ORDERS, (False, True)):
        a, b, c = matrices(rows, 300, 200, "float32")
        expected = reference(a, b, c if add else None)
        check(kernel_of("float32", **blocks), a, b, c, expected, order, add=add)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_special_numbers(dtype, order):
    """Zeros of both signs, subnormal numbers, infinities and NaN: what is added up in memory has them too."""
    limits = np.finfo(dtype)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, limits.smallest_subnormal, -3 * limits.smallest_subnormal,
               limits.tiny, limits.max, -limits.max, limits.eps, 1.5]  # fmt: skip
    generator = np.random.default_rng(5)
    for depth, share in itertools.product((1, 3, 300), (0.01, 0.3)):
        a, b, c = matrices(13, 37, depth, dtype)
        for matrix in (a, b, c):
            chosen = generator.random(matrix.shape) < share
            matrix[chosen] = generator.choice(special, chosen.sum()).astype(dtype)
        small = generator.random(13) < 0.3  # rows whose products are subnormal
        a[small] = np.where(np.isfinite(a[small]), a[small] * limits.tiny, a[small])
        for add in (False, True):
            with np.errstate(all="ignore"):
                check(kernel_of(dtype), a, b, c, reference(a, b, c if add else None), order, add=add)


def test_zeros_have_the_signs_of_a_sum_from_zero():
    minus, one = np.full((1, 1), -0.0, np.float32), np.ones((1, 1), np.float32)
    out = np.full((1, 1), np.nan, np.float32)
    multiply(kernel_of("float32"), minus, one, out)
    assert not np.signbit(out[0, 0])
    multiply(kernel_of("float32"), minus, one, minus, add=True)
    assert np.signbit(minus[0, 0])


@pytest.mark.parametrize("order", ORDERS)
def test_subnormal_numbers_are_not_lost(order):
    """The smallest number, as a product of normal ones."""
    a, b = np.full((5, 1), 2.0**-100, np.float32), np.full((1, 5), 2.0**-49, np.float32)
    check(kernel_of("float32"), a, b, np.empty((5, 5), np.float32), np.full((5, 5), 2.0**-149, np.float32), order)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_large_products_are_near_those_of_numpy(dtype, order):
    a, b, c = matrices(523, 701, 1031, dtype)
    (x, _), (y, _) = laid_out(a, order[0], PADDING), laid_out(b, order[1], PADDING)
    multiply(kernel_of(dtype), x, y, c)
    wide = [matrix.astype(np.float64) for matrix in (a, b)]
    bound = 1031 * np.finfo(dtype).eps * (abs(wide[0]) @ abs(wide[1]))
    assert (abs(c - wide[0] @ wide[1]) <= bound).all()


@pytest.mark.parametrize("order", ORDERS)
def test_threads_make_the_same_bits(order):
    """Each of eight makes blocks of C, which begin at any row and column."""
    a, b, c = matrices(101, 203, 300, "float32")
    (x, _), (y, _) = laid_out(a, order[0], PADDING), laid_out(b, order[1], PADDING)
    expected, rows, columns = reference(a, b, c), (0, 12, 37, 64, 101), (0, 33, 203)
    with ThreadPoolExecutor(8) as pool:
        running = [
            pool.submit(
                multiply, kernel_of("float32"), x[slice(*i)], y[:, slice(*j)], c[slice(*i), slice(*j)], add=True
            )
            for i, j in itertools.product(itertools.pairwise(rows), itertools.pairwise(columns))
        ]
    assert [future.result() for future in running] == [None] * 8
    assert np.array_equal(bits(c), bits(expected))


GUARDS = """
import itertools
import numpy as np
from products import Guarded, bits, kernel_of, laid_out, multiply, reference
from test_products import ORDERS, matrices
from fastinit._native.records import PRODUCT_SCRATCH

kernel = kernel_of(DTYPE)
memory = [Guarded(1 << 21) for _ in range(4)]
number = 0
for (rows, columns, depth), order, at_end, padding in itertools.product(SIZES, ORDERS, (False, True), (0, 3)):
    given = []
    for matrix, layout, area in zip(matrices(rows, columns, depth, DTYPE), (*order, "N"), memory):
        view, whole = laid_out(matrix, layout, padding)
        lines = whole.size - padding  # what comes after the last line belongs to nobody
        flat = area.array(lines, DTYPE, at_end=at_end)
        flat[:] = whole.reshape(-1)[:lines]
        given.append(np.lib.stride_tricks.as_strided(flat, view.shape, view.strides))
    a, b, c = given
    scratch = memory[3].array(PRODUCT_SCRATCH, DTYPE, at_end=at_end)
    scratch[:] = np.nan
    for add in (False, True):
        expected = reference(a, b, c if add else None)
        multiply(kernel, a, b, c, add=add, scratch=scratch)
        assert np.array_equal(bits(c), bits(expected)), (rows, columns, depth, order, at_end, add)
        number += 1
print(number)
"""
EDGES = [(1, 1, 1), (1, 1, 9), (1, 33, 8), (2, 7, 5), (3, 8, 16), (5, 31, 7), (7, 9, 17), (8, 16, 8), (9, 15, 33),
         (11, 17, 13), (12, 32, 8), (13, 33, 9), (17, 65, 1), (23, 47, 31), (16, 40, 24), (13, 257, 259), (1, 150, 9),
         (85, 47, 300), (85, 300, 31),
         (30, 300, 513), (6, 512, 256)]  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="protects pages by mprotect")
@pytest.mark.parametrize("dtype", FLOATS)
def test_no_other_memory_is_touched(dtype):
    """Of the matrices and of exactly PRODUCT_SCRATCH numbers, each between pages that end the process."""
    kernel_of(dtype)  # in the cache
    found = processes.run(f"DTYPE, SIZES = {dtype!r}, {EDGES!r}\n{GUARDS}")
    assert int(found) == len(EDGES) * len(ORDERS) * 8


@pytest.mark.skipif(sys.platform == "win32", reason="protects pages by mprotect")
@pytest.mark.parametrize(("at_end", "place"), [(True, 5), (False, -1)])
def test_guards_end_a_process_that_reads_beyond(at_end, place):
    """The check above sees a fault."""
    code = f"""
import ctypes
from products import Guarded
memory = Guarded(20)
array = memory.array(5, "float32", at_end={at_end})
print(array.sum(), flush=True)
ctypes.c_float.from_address(array.ctypes.data + 4 * {place}).value
"""
    process = processes.start(code)
    out, _ = process.communicate(timeout=60)
    assert out.strip() == "0.0"
    assert process.returncode < 0
