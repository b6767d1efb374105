"""Dense layers: matrix products with bias and activation between them, and their gradients.

Batches are matrices (rows, features), row-major; weights are (out, in). Every thread runs one product at a time on a
BLAS limited to one thread: two pools of threads, one inside the other, were 20 to 300 times slower than NumPy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from fastinit._native.tables import (
    BIAS,
    BIAS_GRADIENT,
    FORWARD,
    INPUTS,
    KEPT,
    LAYER_FIELDS,
    OUT,
    OUTPUTS,
    PARAMETERS,
    SIZE,
    WEIGHT,
    WEIGHT_GRADIENT,
)
from fastinit.kernels.jit import call_forward, carray, fetch_add, pointer, scalar
from fastinit.kernels.nn.blas import gemm

f32, i64, u8, u64 = np.float32, np.int64, np.uint8, np.uint64

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
    target, source = carray(pointer(target), size, u8), carray(pointer(source), size, u8)
    for i in range(size):
        target[i] = source[i]


def _predict(layers, members, depth, routine, samples, rows, block, results, counters, worker_bytes):
    """The last layer's outputs for all samples, `block` rows at a time, to (members, rows, outputs) at `results`."""
    layers = carray(pointer(layers), (members, depth, LAYER_FIELDS), i64)
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
    layers = carray(pointer(layers), (1, LAYER_FIELDS), i64)
    task = fetch_add(counters)
    while task < slices:
        first, last = rows * task // slices, rows * (task + 1) // slices
        if first < last:
            forward(routine, layers, samples, first, last, i64(0), ELEMENT)
        task = fetch_add(counters)


def _dense_backward(layers, routine, samples, delta, below, rows, slices, counters):
    """One layer's gradients: of its inputs by slices of the batch, of its weights by units."""
    layer = carray(pointer(layers), (1, LAYER_FIELDS), i64)[0]
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


ENTRIES: dict[str, tuple[Any, Any]] = {
    "predict": (_predict, types.void(*(types.int64,) * 10)),
    "dense_forward": (_dense_forward, types.void(*(types.int64,) * 6)),
    "dense_backward": (_dense_backward, types.void(*(types.int64,) * 8)),
}
