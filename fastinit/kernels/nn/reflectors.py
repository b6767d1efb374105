"""Gaussian rows -> the Householder vectors that LAPACK's orgqr takes."""

from __future__ import annotations

import math

import numpy as np
from numba import types

from fastinit.kernels.jit import Definition, carray, definition, pointer

f32, f64, i64 = np.float32, np.float64, np.int64

REAL = f32  # a template argument


def _reflect(rows, factors, signs, height, width):
    """Row k from column k on is a Gaussian vector x; it becomes the vector v (v_k = 1, which orgqr does not read) and
    factor tau of the reflection (1 - tau v v^T) x = beta e_k, and `signs` gets beta's sign: the diagonal of R."""
    rows = carray(pointer(rows), (height, width), REAL)
    factors, signs = carray(pointer(factors), height, REAL), carray(pointer(signs), height, REAL)
    for k in range(height):
        head = f64(rows[k, k])
        square = f64(0)
        for j in range(k + 1, width):
            square += f64(rows[k, j]) * f64(rows[k, j])
        if square == f64(0):  # a last row of length one: nothing to reflect
            factors[k] = f64(0)
            signs[k] = math.copysign(f64(1), head)
            continue
        beta = -math.copysign(math.sqrt(head * head + square), head)
        factors[k] = (beta - head) / beta
        signs[k] = math.copysign(f64(1), beta)
        divisor = head - beta
        for j in range(k + 1, width):
            rows[k, j] = f64(rows[k, j]) / divisor


def reflect(dtype: str) -> Definition:
    """The kernel for rows of float32 or float64, in place: the addresses of rows, factors and signs, and the shape."""
    return definition(_reflect, types.void(*(types.int64,) * 5), REAL=f64 if dtype == "float64" else f32)
