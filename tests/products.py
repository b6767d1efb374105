"""Matrix products for the tests: a plain reference, and kernels called with NumPy's arrays."""

import ctypes
import functools
import mmap

import numpy as np
from compiled import compiled
from numba import types

from fastinit._native import library
from fastinit._native.records import PRODUCT_SCRATCH
from fastinit.kernels import jit, objects
from fastinit.kernels.products import product

ELEMENT, SIZE = np.float32, np.int64(4)


def _chains(a, b, c, rows, columns, depth):
    """C += A B for contiguous rows: each element is a chain of fma in ascending k."""
    for i in range(rows):
        x = jit.carray(jit.pointer(a + i * depth * SIZE), depth, ELEMENT)
        z = jit.carray(jit.pointer(c + i * columns * SIZE), columns, ELEMENT)
        for k in range(depth):
            y = jit.carray(jit.pointer(b + k * columns * SIZE), columns, ELEMENT)
            for j in range(columns):
                z[j] = jit.fma(x[k], y[j], z[j])


@functools.cache
def _reference(dtype):
    names = {"ELEMENT": np.dtype(dtype).type, "SIZE": np.int64(np.dtype(dtype).itemsize)}
    return compiled(_chains, types.void(*(types.int64,) * 6), **names)


def reference(a, b, c=None):
    """A B, or C + A B, with the bits that a kernel must make."""
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    out = np.zeros((len(a), b.shape[1]), a.dtype) if c is None else np.array(c, order="C")
    _reference(a.dtype.name).call(a.ctypes.data, b.ctypes.data, out.ctypes.data, *out.shape, a.shape[1])
    return out


@functools.cache
def kernel_of(dtype, shape=None, **blocks):
    """The processor's kernel; or one for another shape of tiles, or with other values of DEPTH and COLUMNS."""
    if shape is None and not blocks:
        return library.kernel("products.product.product", dtype)
    before = {name: getattr(product, name) for name in blocks}
    try:
        for name, value in blocks.items():
            setattr(product, name, np.int64(value))
        defined = product.product(dtype, shape)
    finally:
        for name, value in before.items():
            setattr(product, name, value)
    symbol = f"product-{dtype}-{shape}-{blocks}"
    return library.load(objects.object_file(defined, symbol), symbol)


def multiply(kernel, a, b, c, *, add=False, scratch=None):
    """C = A B or C += A B by a kernel."""
    size = c.itemsize
    assert c.strides[1] == size
    scratch = np.empty(PRODUCT_SCRATCH, c.dtype) if scratch is None else scratch
    kernel.call(
        a.ctypes.data, *(step // size for step in a.strides), b.ctypes.data, *(step // size for step in b.strides),
        c.ctypes.data, c.strides[0] // size, *c.shape, a.shape[1], int(add), scratch.ctypes.data,
    )  # fmt: skip


def laid_out(matrix, order, padding=0, fill=np.nan):
    """A copy of a matrix in rows ("N") or columns ("T") that lie `padding` elements apart, and all of its memory."""
    rows = matrix if order == "N" else matrix.T
    memory = np.full((rows.shape[0], rows.shape[1] + padding), fill, matrix.dtype)
    view = memory[:, : rows.shape[1]]
    view[...] = rows
    return (view if order == "N" else view.T), memory


def bits(array):
    """The bits of an array; all NaN are one: which of two a processor hands on is up to the compiler."""
    array = np.where(np.isnan(array), np.array(np.nan, array.dtype), array)
    return array.view(f"u{array.itemsize}")


class Guarded:
    """Memory between pages that may not be touched; a process that touches them dies by a signal."""

    def __init__(self, nbytes):
        page = mmap.PAGESIZE
        self.nbytes = -(-nbytes // page) * page
        self._map = mmap.mmap(-1, self.nbytes + 2 * page)
        self.start = ctypes.addressof(ctypes.c_char.from_buffer(self._map)) + page
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        protect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
        for place in (self.start - page, self.start + self.nbytes):
            if protect(place, page, 0):  # PROT_NONE
                raise OSError(ctypes.get_errno(), "mprotect")

    def array(self, shape, dtype, *, at_end):
        """An array at one of the two ends."""
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        assert nbytes <= self.nbytes
        start = self.start + (self.nbytes - nbytes if at_end else 0)
        return np.frombuffer((ctypes.c_char * nbytes).from_address(start), dtype).reshape(shape)
