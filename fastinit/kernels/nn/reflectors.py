"""Gaussian rows -> the Householder vectors that LAPACK's orgqr takes."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numba import types

from fastinit.kernels.jit import entry, full_width

f64 = np.float64


def _reflect(rows, factors, signs):
    """Row k from column k on is a Gaussian vector x; it becomes the vector v (v_k = 1, which orgqr does not read) and
    factor tau of the reflection (1 - tau v v^T) x = beta e_k, and `signs` gets beta's sign: the diagonal of R."""
    full_width()
    for k in range(rows.shape[0]):
        head = f64(rows[k, k])
        square = f64(0)
        for j in range(k + 1, rows.shape[1]):
            square += f64(rows[k, j]) * f64(rows[k, j])
        if square == f64(0):  # a last row of length one: nothing to reflect
            factors[k] = f64(0)
            signs[k] = math.copysign(f64(1), head)
            continue
        beta = -math.copysign(math.sqrt(head * head + square), head)
        factors[k] = (beta - head) / beta
        signs[k] = math.copysign(f64(1), beta)
        divisor = head - beta
        for j in range(k + 1, rows.shape[1]):
            rows[k, j] = f64(rows[k, j]) / divisor


@functools.cache
def reflect(dtype: str) -> Any:
    """The kernel for rows of float32 or float64: reflect(rows, factors, signs), in place."""
    real = types.float32 if dtype == "float32" else types.float64
    line = types.Array(real, 1, "C")
    return entry(_reflect, types.void(types.Array(real, 2, "C"), line, line), f"reflect_{dtype}")
