"""Whole training steps of a dense network, of one model or of a population.

A step is a row of phases: forward and loss by slices of the batch; per layer, from the last, the gradient of its inputs
by slices of the batch and that of its weights by blocks of output units; the update by chunks of the parameters. The
tasks of a phase are claimed from a counter, so that any number of threads may take part, one that comes late too; a
second counter says how many are done, and nobody begins the next phase before all are. Slicing the weight gradients by
units, not by samples, needs no buffer per thread and no sum over threads, and the norm is taken while a block is still
in cache.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types

from fastinit._native.records import RATES as RATE_COUNT
from fastinit._native.records import UPDATE_CHUNK
from fastinit._native.tables import (
    BACKWARD,
    BATCH,
    BATCH_SAMPLES,
    BATCH_TARGETS,
    BEGIN,
    BIAS_GRADIENT,
    BYTES,
    COUNT,
    COUNTERS,
    DELTA,
    DELTA_BYTES,
    END,
    FIRST,
    GEMM,
    GRADIENTS,
    INPUTS,
    KEPT,
    LAYER_FIELDS,
    LOSS,
    NORM,
    ORDER,
    OUT,
    OUTPUTS,
    PARAMETERS,
    PARTIALS,
    RATES,
    RECORDS,
    RUN_FIELDS,
    SAMPLE_WEIGHTS,
    SAMPLES,
    SECOND,
    SIZE,
    SLICES,
    STEP,
    TARGET_BYTES,
    TARGETS,
    UPDATE,
    WEIGHT_GRADIENT,
    WEIGHTS,
)
from fastinit.kernels.jit import (
    Definition,
    call_backward,
    call_range,
    carray,
    definition,
    fetch_add,
    give_way,
    load_shared,
    pointer,
    scalar,
)
from fastinit.kernels.nn import dense
from fastinit.kernels.nn.dense import copy, forward, input_gradient, weight_gradient
from fastinit.kernels.nn.losses import call_loss
from fastinit.kernels.nn.updates import call_update

f32, f64, i64, u64 = np.float32, np.float64, np.int64, np.uint64

CHUNK = i64(UPDATE_CHUNK)
RATES_BYTES = i64(8 * RATE_COUNT)  # of the rates of one step
SPINS = 1000  # looks at a counter, some microseconds, before the core is offered to others

ELEMENT = f32  # a template argument of the entries, as in `kernels.fill`; the functions below get it as `kind`


@scalar
def _finish(phase):
    fetch_add(phase + i64(8))


@scalar
def _wait(phase, tasks):
    """Until all tasks of a phase are done; yields the core where that takes long."""
    spins = i64(0)
    while load_shared(phase + i64(8)) < tasks:
        spins += 1
        if spins > SPINS:
            give_way()


@scalar
def _gathered(run, layer, begin, first, last, shift):
    """Samples [first, last) of the batch that begins at `begin`, copied together where they have an order.

    Returns the addresses of the whole batch's samples and targets.
    """
    bytes_of_inputs, bytes_of_targets = layer[INPUTS] * layer[SIZE], run[TARGET_BYTES]
    if run[ORDER] == i64(0):
        return run[SAMPLES] + begin * bytes_of_inputs, run[TARGETS] + begin * bytes_of_targets
    samples, targets = run[BATCH_SAMPLES] + shift, run[BATCH_TARGETS] + shift
    order = carray(pointer(run[ORDER] + begin * i64(8)), last, i64)
    for row in range(first, last):
        sample = order[row]
        copy(samples + row * bytes_of_inputs, run[SAMPLES] + sample * bytes_of_inputs, bytes_of_inputs)
        copy(targets + row * bytes_of_targets, run[TARGETS] + sample * bytes_of_targets, bytes_of_targets)
    return samples, targets


@scalar
def _weight(run, begin, row):
    """The weight of a row of the batch that begins at `begin`."""
    sample = begin + row
    if run[ORDER] != i64(0):
        sample = carray(pointer(run[ORDER] + sample * i64(8)), 1, i64)[0]
    return carray(pointer(run[SAMPLE_WEIGHTS] + sample * i64(8)), 1, f64)[0]


@scalar
def _weighted_loss(run, top, targets, begin, rows, first, last, shift, loss):
    """The loss of rows [first, last), each with its share of the weights of the batch.

    Row by row: every loss kernel has a weight for all its rows. So they need no second form.
    """
    total, sum_of_losses = f64(0), f64(0)
    for row in range(rows):
        total += _weight(run, begin, row)
    for row in range(first, last):
        place = shift + row * top[OUTPUTS] * top[SIZE]
        call_loss(
            run[LOSS],
            top[OUT] + place,
            run[DELTA] + place,
            targets + row * run[TARGET_BYTES],
            u64(1),
            u64(top[OUTPUTS]),
            _weight(run, begin, row) / total,
            loss,
        )
        sum_of_losses += carray(pointer(loss), 1, f64)[0]
    carray(pointer(loss), 1, f64)[0] = sum_of_losses


@scalar
def _loss(run, layers, begin, rows, first, last, shift, loss, kind):
    """Forward and loss of rows [first, last) of a batch; the loss, its share of the mean, to the address `loss`."""
    samples, targets = _gathered(run, layers[0], begin, first, last, shift)
    forward(run[GEMM], layers, samples, first, last, shift, kind)
    top = layers[layers.shape[0] - 1]
    if run[SAMPLE_WEIGHTS] != i64(0):
        _weighted_loss(run, top, targets, begin, rows, first, last, shift, loss)
        return
    place = shift + first * top[OUTPUTS] * top[SIZE]
    call_loss(
        run[LOSS],
        top[OUT] + place,
        run[DELTA] + place,
        targets + first * run[TARGET_BYTES],
        u64(last - first),
        u64(top[OUTPUTS]),
        f64(1) / f64(rows),
        loss,
    )


@scalar
def _deltas(run, depth, index, shift):
    """Where the gradients of the outputs of layer `index` and of the layer below lie: two places in turn."""
    odd = (depth - 1 - index) % 2
    return run[DELTA] + shift + odd * run[DELTA_BYTES], run[DELTA] + shift + (1 - odd) * run[DELTA_BYTES]


@scalar
def _propagated(run, layers, index, delta, below, first, last, shift, kind):
    """The gradient of what the layer below computes before its activation, rows [first, last)."""
    input_gradient(run[GEMM], layers[index], delta, below, first, last, kind)
    lower = layers[index - 1]
    start = first * lower[OUTPUTS] * lower[SIZE]
    call_backward(
        lower[BACKWARD],
        below + start,
        lower[KEPT] + shift + start,
        u64((last - first) * lower[OUTPUTS]),
        lower[PARAMETERS],
    )


@scalar
def _squares(run, data, count, result):
    """The sum of squares of `count` elements, to the address `result`."""
    call_range(run[NORM], data, u64(0), u64(count), u64(count), u64(0), result)


@scalar
def _accumulated(run, layers, index, begin, rows, delta, first, last, shift, squares, kind):
    """The gradients of units [first, last) of a layer; the sums of squares of weights and biases to `squares`."""
    layer = layers[index]
    if index == 0:
        ordered = run[ORDER] != i64(0)
        samples = run[BATCH_SAMPLES] + shift if ordered else run[SAMPLES] + begin * layer[INPUTS] * layer[SIZE]
    else:
        samples = layers[index - 1, OUT] + shift
    weight_gradient(run[GEMM], layer, samples, delta, rows, first, last, kind)
    inputs, size = layer[INPUTS], layer[SIZE]
    _squares(run, layer[WEIGHT_GRADIENT] + first * inputs * size, (last - first) * inputs, squares)
    _squares(run, layer[BIAS_GRADIENT] + first * size, last - first, squares + i64(8))


@scalar
def _sum(place, count):
    total = f64(0)
    terms = carray(pointer(place), count, f64)
    for i in range(count):
        total += terms[i]
    return total


@scalar
def _updated(run, shift, first, last, factor, step):
    """Parameters [first, last), `shift` bytes further on: another member of a population. `step` counts from 1."""
    place = shift + first * run[BYTES]
    call_update(
        run[UPDATE],
        run[WEIGHTS] + place,
        run[GRADIENTS] + place,
        run[FIRST] + place,
        run[SECOND] + place,
        u64(last - first),
        factor,
        f64(step),
        run[RATES] + (step - i64(1) - run[STEP]) * RATES_BYTES,
    )


@scalar
def _factor(norm, largest):
    """What clips a gradient of this norm; a norm that is NaN clips nothing, and is seen."""
    return largest / norm if norm > largest else f64(1)


def _train(layers, depth, run, largest):
    """Whole steps over samples [BEGIN, END), on every thread that calls this with the same counters."""
    layers = carray(pointer(layers), (depth, LAYER_FIELDS), i64)
    run = carray(pointer(run), RUN_FIELDS, i64)
    slices, batch = run[SLICES], run[BATCH]
    phase, losses = run[COUNTERS], run[PARTIALS]
    squares = losses + i64(8) * slices
    step = run[STEP]
    for begin in range(run[BEGIN], run[END], batch):
        rows = min(batch, run[END] - begin)
        task = fetch_add(phase)
        while task < slices:
            first, last = rows * task // slices, rows * (task + 1) // slices
            if first < last:
                _loss(run, layers, begin, rows, first, last, i64(0), losses + i64(8) * task, ELEMENT)
            else:
                carray(pointer(losses + i64(8) * task), 1, f64)[0] = f64(0)
            _finish(phase)
            task = fetch_add(phase)
        _wait(phase, slices)
        phase += i64(16)
        for index in range(depth - 1, -1, -1):
            delta, below = _deltas(run, depth, index, i64(0))
            propagating = slices if index > 0 else i64(0)  # tasks; first, for the next phase's activations
            units = layers[index, OUTPUTS]
            task = fetch_add(phase)
            while task < propagating + slices:
                if task < propagating:
                    first, last = rows * task // slices, rows * (task + 1) // slices
                    if first < last:
                        _propagated(run, layers, index, delta, below, first, last, i64(0), ELEMENT)
                else:
                    block = task - propagating
                    first, last = units * block // slices, units * (block + 1) // slices
                    found = squares + i64(16) * (index * slices + block)
                    if first < last:
                        _accumulated(run, layers, index, begin, rows, delta, first, last, i64(0), found, ELEMENT)
                    else:
                        carray(pointer(found), 2, f64)[:] = f64(0)
                _finish(phase)
                task = fetch_add(phase)
            _wait(phase, propagating + slices)
            phase += i64(16)
        step += 1
        chunks = (run[COUNT] + CHUNK - 1) // CHUNK if run[UPDATE] != i64(0) else i64(1)
        task = fetch_add(phase)
        if task < chunks:
            norm = math.sqrt(_sum(squares, 2 * depth * slices))
            factor = _factor(norm, largest)
            while task < chunks:
                if task == 0:
                    record = carray(pointer(run[RECORDS] + i64(16) * (step - 1 - run[STEP])), 2, f64)
                    record[0], record[1] = _sum(losses, slices), norm
                if run[UPDATE] != i64(0):
                    first = task * CHUNK
                    _updated(run, i64(0), first, min(first + CHUNK, run[COUNT]), factor, step)
                _finish(phase)
                task = fetch_add(phase)
        _wait(phase, chunks)
        phase += i64(16)


def _train_members(layers, members, depth, run, largest, worker_bytes):
    """The same for a population: a task is a member with all its steps, on the memory of the thread that took it.

    `layers` has a table for each member. A thread's memory lies `worker_bytes` further on than that of the one before.
    """
    layers = carray(pointer(layers), (members, depth, LAYER_FIELDS), i64)
    run = carray(pointer(run), RUN_FIELDS, i64)
    batch, claims = run[BATCH], run[COUNTERS]
    shift = fetch_add(claims + i64(8)) * worker_bytes
    losses = run[PARTIALS] + shift
    squares = losses + i64(8)
    steps = (run[END] - run[BEGIN] + batch - 1) // batch
    member = fetch_add(claims)
    while member < members:
        table = layers[member]
        parameters = member * run[COUNT] * run[BYTES]
        for step in range(steps):
            begin = run[BEGIN] + step * batch
            rows = min(batch, run[END] - begin)
            _loss(run, table, begin, rows, i64(0), rows, shift, losses, ELEMENT)
            for index in range(depth - 1, -1, -1):
                delta, below = _deltas(run, depth, index, shift)
                if index > 0:
                    _propagated(run, table, index, delta, below, i64(0), rows, shift, ELEMENT)
                units = table[index, OUTPUTS]
                _accumulated(
                    run, table, index, begin, rows, delta, i64(0), units, shift, squares + i64(16) * index, ELEMENT
                )
            norm = math.sqrt(_sum(squares, 2 * depth))
            record = carray(pointer(run[RECORDS] + i64(16) * (step * members + member)), 2, f64)
            record[0], record[1] = _sum(losses, i64(1)), norm
            if run[UPDATE] != i64(0):
                _updated(run, parameters, i64(0), run[COUNT], _factor(norm, largest), run[STEP] + step + 1)
        member = fetch_add(claims)


_ENTRIES: dict[str, tuple[Any, Any]] = dense.ENTRIES | {
    "train": (_train, types.void(*(types.int64,) * 3, types.float64)),
    "train_members": (_train_members, types.void(*(types.int64,) * 4, types.float64, types.int64)),
}


def driver(name: str, dtype: str) -> Definition:
    """A function over tables of layers for a dtype; it takes the address of the tables, and how many there are."""
    function, signature = _ENTRIES[name]
    return definition(function, signature, ELEMENT=f64 if dtype == "float64" else f32)
