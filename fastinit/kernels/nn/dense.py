"""Dense layers: matrix products with bias and activation between them, and their gradients.

Batches are matrices (rows, features), row-major; weights are (out, in). Every thread runs one product at a time on a
BLAS limited to one thread: two pools of threads, one inside the other, were 20 to 300 times slower than NumPy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from fastinit.kernels.jit import call_forward, carray, fetch_add, full_width, pointer, scalar
from fastinit.kernels.nn.blas import gemm

f32, i64, u8, u64 = np.float32, np.int64, np.uint8, np.uint64

# The columns of a table of layers, int64. Addresses but the first three; KEPT and OUT are (rows, outputs), the same
# memory where the activation keeps its output.
(
    INPUTS,
    OUTPUTS,
    SIZE,  # bytes of an element
    WEIGHT,
    BIAS,
    WEIGHT_GRADIENT,
    BIAS_GRADIENT,
    KEPT,
    OUT,
    FORWARD,
    BACKWARD,
    PARAMETERS,  # of the activation
) = range(12)
LAYER_FIELDS = 12

ELEMENT = f32  # a template argument of the entries, as in `kernels.fill`; the functions below get it as `kind`


@scalar
def forward(routine, layers, samples, first, last, shift, kind):
    """Rows [first, last) through all layers; `shift` moves the memory of KEPT and OUT."""
    size = layers[0, SIZE]
    source = samples + first * layers[0, INPUTS] * size
    for index in range(layers.shape[0]):
        layer = layers[index]
        inputs, outputs = layer[INPUTS], layer[OUTPUTS]
        kept = layer[KEPT] + shift + first * outputs * size
        out = layer[OUT] + shift + first * outputs * size
        gemm(
            routine, True, False, outputs, last - first, inputs, kind(1), layer[WEIGHT], inputs, source, inputs, kept,
            outputs,
        )  # fmt: skip
        call_forward(layer[FORWARD], kept, out, layer[BIAS], u64(last - first), u64(outputs), layer[PARAMETERS])
        source = out


@scalar
def input_gradient(routine, layer, delta, below, first, last, kind):
    """Rows [first, last) of below = delta weight."""
    inputs, outputs, size = layer[INPUTS], layer[OUTPUTS], layer[SIZE]
    gemm(
        routine, False, False, inputs, last - first, outputs, kind(1), layer[WEIGHT], inputs,
        delta + first * outputs * size, outputs, below + first * inputs * size, inputs,
    )  # fmt: skip


@scalar
def weight_gradient(routine, layer, samples, delta, rows, first, last, kind):
    """Output units [first, last) of delta^T samples and of the column sums of delta."""
    full_width()
    inputs, outputs, size = layer[INPUTS], layer[OUTPUTS], layer[SIZE]
    gemm(
        routine, False, True, inputs, last - first, rows, kind(1), samples, inputs, delta + first * size, outputs,
        layer[WEIGHT_GRADIENT] + first * inputs * size, inputs,
    )  # fmt: skip
    sums = carray(pointer(layer[BIAS_GRADIENT] + first * size), last - first, kind)
    sums[:] = kind(0)
    for row in range(rows):
        terms = carray(pointer(delta + (row * outputs + first) * size), last - first, kind)
        for i in range(last - first):
            sums[i] += terms[i]


@scalar
def copy(target, source, size):
    full_width()
    target, source = carray(pointer(target), size, u8), carray(pointer(source), size, u8)
    for i in range(size):
        target[i] = source[i]


def _predict(layers, routine, samples, rows, block, results, counters, worker_bytes):
    """The last layer's outputs for all samples, `block` rows at a time, to (members, rows, outputs) at `results`."""
    members, depth = layers.shape[0], layers.shape[1]
    shift = fetch_add(counters + i64(8)) * worker_bytes
    blocks = (rows + block - 1) // block
    task = fetch_add(counters)
    while task < members * blocks:
        table = layers[task // blocks]
        begin = task % blocks * block
        count = min(block, rows - begin)
        forward(routine, table, samples + begin * table[0, INPUTS] * table[0, SIZE], i64(0), count, shift, ELEMENT)
        width = table[depth - 1, OUTPUTS] * table[0, SIZE]
        copy(results + (task // blocks * rows + begin) * width, table[depth - 1, OUT] + shift, count * width)
        task = fetch_add(counters)


def _dense_forward(layers, routine, samples, rows, slices, counters):
    """One layer, by slices of the batch."""
    task = fetch_add(counters)
    while task < slices:
        first, last = rows * task // slices, rows * (task + 1) // slices
        if first < last:
            forward(routine, layers, samples, first, last, i64(0), ELEMENT)
        task = fetch_add(counters)


def _dense_backward(layers, routine, samples, delta, below, rows, slices, counters):
    """One layer's gradients: of its inputs by slices of the batch, of its weights by units."""
    layer = layers[0]
    task = fetch_add(counters)
    while task < 2 * slices:
        part = task % slices
        first, last = rows * part // slices, rows * (part + 1) // slices
        if task < slices:
            if first < last:
                input_gradient(routine, layer, delta, below, first, last, ELEMENT)
        else:
            first, last = layer[OUTPUTS] * part // slices, layer[OUTPUTS] * (part + 1) // slices
            if first < last:
                weight_gradient(routine, layer, samples, delta, rows, first, last, ELEMENT)
        task = fetch_add(counters)


TABLE, TABLES = types.int64[:, ::1], types.int64[:, :, ::1]
ENTRIES: dict[str, tuple[Any, Any]] = {
    "predict": (_predict, types.void(TABLES, *(types.int64,) * 7)),
    "dense_forward": (_dense_forward, types.void(TABLE, *(types.int64,) * 5)),
    "dense_backward": (_dense_backward, types.void(TABLE, *(types.int64,) * 7)),
}
