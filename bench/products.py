"""The matrix products of training steps and nothing else: what no step that makes them through BLAS can beat.

They go the way fastinit's do: each of two threads makes its half of every product (one makes all, of a small network),
with a BLAS that is limited to one thread, in compiled code that holds no interpreter lock. With `numpy.matmul` in place
of it two threads take turns for the lock, and the products of the small network take twice as long.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Iterable

import numba
import numpy as np
from numba.extending import get_cython_function_address
from threadpoolctl import ThreadpoolController

from bench.fills import two_threads
from bench.turns import Call
from fastinit.nn._training import slices_of

# BLAS takes 13 addresses, in 64-bit integers here; Numba, like fastinit, uses SciPy's.
_SGEMM = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 13)(
    get_cython_function_address("scipy.linalg.cython_blas", "sgemm")
)
_FLAGS = np.frombuffer(b"NT", np.uint8)  # as it lies in memory, or transposed
_FACTORS = np.array([1, 0], np.float32)

Product = tuple[np.ndarray, np.ndarray, np.ndarray]  # a, b, out: out = a @ b


@numba.njit(nogil=True)
def _multiply(table):
    for i in range(len(table)):
        row = table[i]
        _SGEMM(
            row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7], row[8], row[9], row[10], row[11], row[12]
        )


class Products:
    """A sequence of products of float32 matrices, each in C order, a part of its rows or columns, or transposed."""

    def __init__(self, products: Iterable[Product]) -> None:
        self._kept = list(products)  # their memory, which BLAS gets by its address
        rows = [self._numbers(*product) for product in self._kept]
        self._sizes = np.array([sizes for _, sizes in rows], np.int32)
        first, width = self._sizes.ctypes.data, self._sizes.strides[0]
        self._table = np.empty((len(rows), 13), np.int64)
        for i, ((transposed, _), (a, b, out)) in enumerate(zip(rows, self._kept, strict=True)):
            m, n, k, lda, ldb, ldc = (first + i * width + 4 * j for j in range(6))
            flags = [_FLAGS.ctypes.data + flag for flag in transposed]
            alpha, beta = (_FACTORS.ctypes.data + 4 * j for j in range(2))
            self._table[i] = (
                *flags,
                m,
                n,
                k,
                alpha,
                b.ctypes.data,
                lda,
                a.ctypes.data,
                ldb,
                beta,
                out.ctypes.data,
                ldc,
            )

    @staticmethod
    def _numbers(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> tuple[list[bool], list[int]]:
        """Which operands are transposed, and BLAS's sizes: in its order of columns this is out.T = b.T @ a.T."""
        transposed = [values.strides[1] != values.itemsize for values in (b, a)]
        leading = [max(values.strides) // values.itemsize for values in (b, a, out)]
        return transposed, [out.shape[1], out.shape[0], a.shape[1], *leading]

    def __call__(self) -> None:
        _multiply(self._table)


def of_steps(weights: list[np.ndarray], batches: list[np.ndarray], epochs: int) -> Call:
    """All the products of these steps: forward, the gradients by the weights and those by the layers' inputs.

    In as many slices as fastinit cuts such a step into.
    """
    slices = min(2, slices_of(3 * len(batches[0]) * sum(weight.size for weight in weights)))
    batch = len(batches[0])
    gradients = [np.empty_like(weight) for weight in weights]
    outputs = [np.empty((batch, len(weight)), np.float32) for weight in weights]
    deltas = [np.full_like(output, 1 / batch) for output in outputs]

    def step(x: np.ndarray, part: int) -> Iterable[Product]:
        rows = _slice(batch, part, slices)
        inputs = [x, *outputs[:-1]]
        for weight, values, output in zip(weights, inputs, outputs, strict=True):
            yield values[rows], weight.T, output[rows]
        for i in reversed(range(len(weights))):
            units = _slice(len(weights[i]), part, slices)
            yield deltas[i][:, units].T, inputs[i], gradients[i][units]
            if i:
                yield deltas[i][rows], weights[i], deltas[i - 1][rows]

    shares = [Products(itertools.chain.from_iterable(step(x, part) for x in batches)) for part in range(slices)]
    blas = ThreadpoolController()

    def train() -> None:
        # A thread takes all its products one after another: to wake it for every one would cost more than that.
        with blas.limit(limits=1, user_api="blas"):
            for _ in range(epochs):
                list(two_threads().map(Products.__call__, shares))

    for half in shares * 2:  # one after another, and twice: the first reads of the second's
        half()
    _expect(outputs[-1], [batches[-1], *outputs][-2] @ weights[-1].T)
    _expect(gradients[0], deltas[0].T @ batches[-1])
    return train


def _slice(number: int, part: int, parts: int) -> slice:
    return slice(number * part // parts, number * (part + 1) // parts)


def _expect(found: np.ndarray, expected: np.ndarray) -> None:
    assert np.allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max()), "BLAS got other matrices"
