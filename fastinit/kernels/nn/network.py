"""Whole training steps of a dense network, of one model or of a population.

A step is a sequence of phases: the batch is gathered; forward, layer by layer; the loss; backward, layer by layer; the
norm of the gradient; the update. A phase has tasks, which are claimed from a counter, so that any number of threads may
take part, one that comes late too; a second counter says how many are done, and nobody begins the next phase before all
are.

The result depends on neither the tasks nor the threads: elements of products are independent of each other, and losses
and squares are summed up by a fixed number of rows or units, then in ascending order.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types

from fastinit._native.records import BLOCK, LAYER, RATES, TRAINING, UPDATE_CHUNK
from fastinit.kernels.jit import (
    Definition,
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
from fastinit.kernels.nn.dense import (
    UNITS,
    activation_gradient,
    block_of,
    bounds,
    ceiling,
    copy,
    forward,
    grid,
    input_gradient,
    unit_blocks,
    weight_gradient,
)
from fastinit.kernels.nn.losses import call_loss
from fastinit.kernels.nn.updates import call_update

f32, f64, i64, u64 = np.float32, np.float64, np.int64, np.uint64

CHUNK, ROWS = i64(UPDATE_CHUNK), i64(BLOCK)
RATES_BYTES = i64(8 * RATES)  # of the rates of one step
SPINS = 1000  # looks at a counter, some microseconds, before the core is offered to others

ELEMENT = f32  # a template argument of the entries, as in `kernels.fill`; the functions below get it as `kind`


@scalar
def _numbers(place, count):
    return carray(pointer(place), count, f64)


@scalar
def _sum(place, count):
    total = f64(0)
    terms = _numbers(place, count)
    for i in range(count):
        total += terms[i]
    return total


@scalar
def _gather(run, inputs, begin, first, last, shift):
    """Copy the batch's samples [first, last) and their targets together; the batch begins at `begin` in the order."""
    bytes_of_inputs, bytes_of_targets = inputs * run.size, run.target_bytes
    samples, targets = run.batch_samples + shift, run.batch_targets + shift
    order = carray(pointer(run.order + begin * i64(8)), last, i64)
    for row in range(first, last):
        sample = order[row]
        copy(samples + row * bytes_of_inputs, run.samples + sample * bytes_of_inputs, bytes_of_inputs)
        copy(targets + row * bytes_of_targets, run.targets + sample * bytes_of_targets, bytes_of_targets)


@scalar
def _inputs_of(run, layers, index, begin, shift):
    """Where the batch lies that a layer reads."""
    if index > 0:
        return layers[index - 1].out + shift
    if run.order != i64(0):
        return run.batch_samples + shift
    return run.samples + begin * layers[0].inputs * run.size


@scalar
def _weight(run, begin, row):
    """The weight of a row of the batch that begins at `begin`."""
    sample = begin + row
    if run.order != i64(0):
        sample = carray(pointer(run.order + sample * i64(8)), 1, i64)[0]
    return _numbers(run.sample_weights + sample * i64(8), 1)[0]


@scalar
def _loss(run, top, begin, rows, first, last, shift):
    """The losses of rows [first, last), each block's sum by its share of the mean; and the gradient of the outputs.

    With weights row by row: every loss kernel has a weight for all its rows, and so needs no second form.
    """
    targets = run.batch_targets + shift if run.order != i64(0) else run.targets + begin * run.target_bytes
    total = f64(rows)
    if run.sample_weights != i64(0):
        total = f64(0)
        for row in range(rows):
            total += _weight(run, begin, row)
    losses = _numbers(run.losses + shift, ceiling(rows, ROWS))
    for block in range(first // ROWS, ceiling(last, ROWS)):
        losses[block] = f64(0)
        start, stop = block * ROWS, min(last, block * ROWS + ROWS)
        step = i64(1) if run.sample_weights != i64(0) else stop - start
        for row in range(start, stop, step):
            share = _weight(run, begin, row) if run.sample_weights != i64(0) else f64(1)
            place = shift + row * top.outputs * top.size
            result = run.result + shift + block * i64(8)
            call_loss(
                run.loss,
                top.out + place,
                run.delta + place,
                targets + row * run.target_bytes,
                u64(step),
                u64(top.outputs),
                share / total,
                result,
            )
            losses[block] += _numbers(result, 1)[0]


@scalar
def _deltas(run, depth, index, shift):
    """Where the gradients of the outputs of layer `index` and of the layer below lie: two places in turn."""
    odd = (depth - 1 - index) % 2
    return run.delta + shift + odd * run.delta_bytes, run.delta + shift + (1 - odd) * run.delta_bytes


@scalar
def _squares(run, data, count, result):
    """The sum of squares of `count` elements, to the address `result`."""
    call_range(run.norm, data, u64(0), u64(count), u64(count), u64(0), result)


@scalar
def _weight_gradient(run, layer, samples, delta, rows, first, last, squares, scratch, kind):
    """The gradients of units [first, last) of a layer; the sums of squares of weights and biases to `squares`."""
    weight_gradient(run.product, layer, samples, delta, rows, first, last, scratch, kind)
    row = layer.inputs * layer.size
    for block in range(first // UNITS, ceiling(last, UNITS)):
        start, stop = block * UNITS, min(last, block * UNITS + UNITS)
        found = squares + i64(16) * block
        _squares(run, layer.weight_gradient + start * row, (stop - start) * layer.inputs, found)
        _squares(run, layer.bias_gradient + start * layer.size, stop - start, found + i64(8))


@scalar
def _update(run, parameters, factor, step, first, last):
    """Parameters [first, last), `parameters` bytes further on: another member of a population. `step` counts from 0."""
    place = parameters + first * run.size
    call_update(
        run.update,
        run.weights + place,
        run.gradients + place,
        run.first + place,
        run.second + place,
        u64(last - first),
        factor,
        f64(run.step + step + i64(1)),
        run.rates + step * RATES_BYTES,
    )


@scalar
def _task_count(run, layers, phase, rows):
    """How many tasks a phase has."""
    depth = layers.shape[0]
    if phase == 0:
        return min(run.tasks, rows) if run.order != i64(0) else i64(0)
    if phase <= depth:
        down, across = grid(rows, layers[phase - 1].outputs, run.tasks)
        return down * across
    if phase == depth + 1:
        return min(run.tasks, ceiling(rows, ROWS))
    if phase <= 2 * depth + 1:
        layer = layers[2 * depth + 1 - phase]
        blocks = unit_blocks(layer, run.tasks)
        if phase == 2 * depth + 1:
            return blocks
        down, across = grid(rows, layer.inputs, run.tasks)
        return down * across + blocks
    if phase == 2 * depth + 2:
        return i64(1)
    return ceiling(run.count, CHUNK) if run.update != i64(0) else i64(0)


@scalar
def _run_task(run, layers, phase, task, begin, rows, shift, step, member, scratch, kind):
    """Run a task of a phase, of the batch that begins at `begin`."""
    depth = layers.shape[0]
    if phase == 0:
        first, last = bounds(rows, i64(1), min(run.tasks, rows), task)
        _gather(run, layers[0].inputs, begin, first, last, shift)
    elif phase <= depth:
        layer = layers[phase - 1]
        source = _inputs_of(run, layers, phase - 1, begin, shift)
        forward(run.product, layer, source, shift, block_of(rows, layer.outputs, run.tasks, task), scratch)
    elif phase == depth + 1:
        first, last = bounds(rows, ROWS, min(run.tasks, ceiling(rows, ROWS)), task)
        _loss(run, layers[depth - 1], begin, rows, first, last, shift)
    elif phase <= 2 * depth + 1:
        index = 2 * depth + 1 - phase
        layer = layers[index]
        delta, below = _deltas(run, depth, index, shift)
        blocks = unit_blocks(layer, run.tasks)
        if task < blocks:
            first, last = bounds(layer.outputs, UNITS, blocks, task)
            samples = _inputs_of(run, layers, index, begin, shift)
            squares = run.squares + shift + i64(16) * layer.first_block
            _weight_gradient(run, layer, samples, delta, rows, first, last, squares, scratch, kind)
        else:
            block = block_of(rows, layer.inputs, run.tasks, task - blocks)
            input_gradient(run.product, layer, delta, below, block, scratch)
            activation_gradient(layers[index - 1], below, shift, block)
    elif phase == 2 * depth + 2:
        record = _numbers(run.records + i64(16) * (step * run.members + member), 2)
        record[0] = _sum(run.losses + shift, ceiling(rows, ROWS))
        record[1] = math.sqrt(_sum(run.squares + shift, 2 * run.blocks))
    else:
        norm = _numbers(run.records + i64(16) * (step * run.members + member), 2)[1]
        factor = run.largest / norm if norm > run.largest else f64(1)  # a norm that is NaN clips nothing, and is seen
        first = task * CHUNK
        _update(run, member * run.count * run.size, factor, step, first, min(first + CHUNK, run.count))


@scalar
def _wait(phase, tasks):
    """Until all tasks of a phase are done; yields the core where that takes long."""
    spins = i64(0)
    while load_shared(phase + i64(8)) < tasks:
        spins += 1
        if spins > SPINS:
            give_way()


def _train(layers, depth, run, claims):
    """Whole steps over samples [begin, end), on every thread that calls this with the same counters."""
    layers = carray(pointer(layers), depth, LAYER)
    run = carray(pointer(run), 1, TRAINING)[0]
    scratch = run.scratch + fetch_add(claims) * run.scratch_bytes
    counter = claims + i64(16)
    for step in range(ceiling(run.end - run.begin, run.batch)):
        begin = run.begin + step * run.batch
        rows = min(run.batch, run.end - begin)
        for phase in range(2 * depth + 4):
            tasks = _task_count(run, layers, phase, rows)
            if tasks > 0:
                task = fetch_add(counter)
                while task < tasks:
                    _run_task(run, layers, phase, task, begin, rows, i64(0), step, i64(0), scratch, ELEMENT)
                    fetch_add(counter + i64(8))
                    task = fetch_add(counter)
                _wait(counter, tasks)
            counter += i64(16)


def _train_members(layers, depth, run, claims):
    """The same for a population: a thread takes a member with all its steps, and has memory of its own for it.

    `layers` has a row for each member. A thread's memory lies `worker_bytes` further on than that of the one before.
    """
    run = carray(pointer(run), 1, TRAINING)[0]
    layers = carray(pointer(layers), (run.members, depth), LAYER)
    thread = fetch_add(claims)
    shift, scratch = thread * run.worker_bytes, run.scratch + thread * run.scratch_bytes
    member = fetch_add(claims + i64(8))
    while member < run.members:
        for step in range(ceiling(run.end - run.begin, run.batch)):
            begin = run.begin + step * run.batch
            rows = min(run.batch, run.end - begin)
            for phase in range(2 * depth + 4):
                for task in range(_task_count(run, layers[member], phase, rows)):
                    _run_task(run, layers[member], phase, task, begin, rows, shift, step, member, scratch, ELEMENT)
        member = fetch_add(claims + i64(8))


_ENTRIES: dict[str, tuple[Any, Any]] = dense.ENTRIES | {
    "train": (_train, types.void(*(types.int64,) * 4)),
    "train_members": (_train_members, types.void(*(types.int64,) * 4)),
}


def driver(name: str, dtype: str) -> Definition:
    """A function over records of layers for a dtype; its arguments are those of the entry, addresses as int64."""
    function, signature = _ENTRIES[name]
    return definition(function, signature, ELEMENT=f64 if dtype == "float64" else f32)
