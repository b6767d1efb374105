"""Dense layers by blocks: matrix products with bias and activation between them, and their gradients.

Batches are matrices (rows, features), row-major; weights are (out, in). Blocks of a layer can be made by any threads in
any order: every element of a product is one chain of fma instructions, and sums over rows go in ascending order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from fastinit._native.records import BLOCK, LAYER
from fastinit.kernels.jit import call_backward, call_forward, carray, fetch_add, pointer, scalar
from fastinit.kernels.products.product import call_product

f32, i64, u8, u64 = np.float32, np.int64, np.uint8, np.uint64

ROWS, COLUMNS = i64(8), i64(32)  # blocks of a matrix have whole multiples of these, but the last ones
UNITS = i64(BLOCK)  # and blocks of weight gradients of these output units

ELEMENT = f32  # a template argument of the entries, as in `kernels.fill`; the functions below get it as `kind`


@scalar
def ceiling(number, divisor):
    return (number + divisor - i64(1)) // divisor


@scalar
def bounds(length, unit, blocks, block):
    """The first element of a block and the one behind its last: `length` elements by whole units."""
    units = ceiling(length, unit)
    return units * block // blocks * unit, min(length, units * (block + i64(1)) // blocks * unit)


@scalar
def grid(rows, columns, wanted):
    """Into how many blocks of rows and of columns a matrix is cut: about `wanted` in all.

    By columns first: a block of a product copies all the rows of its columns of B, which no other block then copies.
    """
    across = min(wanted, ceiling(columns, COLUMNS))
    return min(ceiling(wanted, across), ceiling(rows, ROWS)), across


@scalar
def block_of(rows, columns, wanted, number):
    """The bounds of a block of `grid`: of its rows, then of its columns."""
    down, across = grid(rows, columns, wanted)
    top, bottom = bounds(rows, ROWS, down, number // across)
    first, last = bounds(columns, COLUMNS, across, number % across)
    return top, bottom, first, last


@scalar
def unit_blocks(layer, wanted):
    """Into how many blocks of output units the gradients of a layer's weights are cut."""
    return min(wanted, ceiling(layer.outputs, UNITS))


@scalar
def forward(product, layer, source, shift, block, scratch):
    """A block of a layer's outputs: f(source weight^T + bias), in the memory that lies `shift` bytes further on."""
    top, bottom, first, last = block
    inputs, outputs, size = layer.inputs, layer.outputs, layer.size
    start = shift + (top * outputs + first) * size
    call_product(
        product,
        source + top * inputs * size,
        inputs,
        i64(1),
        layer.weight + first * inputs * size,
        i64(1),
        inputs,
        layer.saved + start,
        outputs,
        bottom - top,
        last - first,
        inputs,
        i64(0),
        scratch,
    )
    call_forward(
        layer.forward,
        layer.saved + start,
        layer.out + start,
        layer.bias + first * size,
        u64(bottom - top),
        u64(last - first),
        u64(outputs),
        layer.parameters,
    )


@scalar
def input_gradient(product, layer, delta, below, block, scratch):
    """A block of below = delta weight."""
    top, bottom, first, last = block
    inputs, outputs, size = layer.inputs, layer.outputs, layer.size
    call_product(
        product,
        delta + top * outputs * size,
        outputs,
        i64(1),
        layer.weight + first * size,
        inputs,
        i64(1),
        below + (top * inputs + first) * size,
        inputs,
        bottom - top,
        last - first,
        outputs,
        i64(0),
        scratch,
    )


@scalar
def activation_gradient(layer, gradient, shift, block):
    """Multiply a block of the gradient of a layer's outputs by the derivative of its activation."""
    top, bottom, first, last = block
    start = (top * layer.outputs + first) * layer.size
    call_backward(
        layer.backward,
        gradient + start,
        layer.saved + shift + start,
        u64(bottom - top),
        u64(last - first),
        u64(layer.outputs),
        layer.parameters,
    )


@scalar
def weight_gradient(product, layer, samples, delta, rows, first, last, scratch, kind):
    """Output units [first, last) of delta^T samples, and of the column sums of delta."""
    inputs, outputs, size = layer.inputs, layer.outputs, layer.size
    call_product(
        product,
        delta + first * size,
        i64(1),
        outputs,
        samples,
        inputs,
        i64(1),
        layer.weight_gradient + first * inputs * size,
        inputs,
        last - first,
        inputs,
        rows,
        i64(0),
        scratch,
    )
    sums = carray(pointer(layer.bias_gradient + first * size), last - first, kind)
    for i in range(last - first):
        sums[i] = kind(0)
    for row in range(rows):
        terms = carray(pointer(delta + (row * outputs + first) * size), last - first, kind)
        for i in range(last - first):
            sums[i] += terms[i]


@scalar
def copy(target, source, size):
    target, source = carray(pointer(target), size, u8), carray(pointer(source), size, u8)
    for i in range(size):
        target[i] = source[i]


def _predict(
    layers, members, depth, product, samples, rows, height, results, counters, worker_bytes, scratch, scratch_bytes
):
    """The last layer's outputs for all samples, `height` rows at a time, to (members, rows, outputs) at `results`.

    A thread's memory lies `worker_bytes` further on than that of the one before, its scratch memory `scratch_bytes`.
    """
    layers = carray(pointer(layers), (members, depth), LAYER)
    thread = fetch_add(counters + i64(8))
    shift, scratch = thread * worker_bytes, scratch + thread * scratch_bytes
    blocks = ceiling(rows, height)
    task = fetch_add(counters)
    while task < members * blocks:
        member, begin = task // blocks, task % blocks * height
        count = min(height, rows - begin)
        source = samples + begin * layers[member, 0].inputs * layers[member, 0].size
        for index in range(depth):
            layer = layers[member, index]
            forward(product, layer, source, shift, (i64(0), count, i64(0), layer.outputs), scratch)
            source = layer.out + shift
        top = layers[member, depth - 1]
        width = top.outputs * top.size
        copy(results + (member * rows + begin) * width, top.out + shift, count * width)
        task = fetch_add(counters)


def _dense_forward(layer, product, samples, rows, wanted, counters, scratch, scratch_bytes):
    """One layer."""
    layer = carray(pointer(layer), 1, LAYER)[0]
    scratch += fetch_add(counters + i64(8)) * scratch_bytes
    down, across = grid(rows, layer.outputs, wanted)
    task = fetch_add(counters)
    while task < down * across:
        forward(product, layer, samples, i64(0), block_of(rows, layer.outputs, wanted, task), scratch)
        task = fetch_add(counters)


def _dense_backward(layer, product, samples, delta, below, rows, wanted, counters, scratch, scratch_bytes):
    """One layer's gradients: of its inputs, then of its weights."""
    layer = carray(pointer(layer), 1, LAYER)[0]
    scratch += fetch_add(counters + i64(8)) * scratch_bytes
    down, across = grid(rows, layer.inputs, wanted)
    blocks = unit_blocks(layer, wanted)
    task = fetch_add(counters)
    while task < down * across + blocks:
        if task < down * across:
            input_gradient(product, layer, delta, below, block_of(rows, layer.inputs, wanted, task), scratch)
        else:
            first, last = bounds(layer.outputs, UNITS, blocks, task - down * across)
            weight_gradient(product, layer, samples, delta, rows, first, last, scratch, ELEMENT)
        task = fetch_add(counters)


ENTRIES: dict[str, tuple[Any, Any]] = {
    "predict": (_predict, types.void(*(types.int64,) * 12)),
    "dense_forward": (_dense_forward, types.void(*(types.int64,) * 8)),
    "dense_backward": (_dense_backward, types.void(*(types.int64,) * 10)),
}
