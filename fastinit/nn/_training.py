"""Runs of whole training steps in compiled code: the memory they need, and how many steps go into one call."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import numpy as np

from fastinit._native import tables
from fastinit._native.library import kernel
from fastinit._runtime.arrays import Array, address
from fastinit._runtime.blas import gemm_address, one_blas_thread
from fastinit._runtime.pool import together
from fastinit._runtime.threads import num_threads
from fastinit.nn._layers import PARALLEL_PRODUCTS, layer_row
from fastinit.nn._losses import Targets
from fastinit.nn._network import Network
from fastinit.nn._optimizers import Optimizer
from fastinit.nn._samples import Samples, blocks, slab_rows

# Multiply-adds per call into compiled code, where Ctrl-C has to wait: about 0.1 s on one thread.
SLAB_PRODUCTS = 3 << 30
PREDICT_ROWS = 256  # of a task of `predict`: enough for the products' speed, few enough for the cache
ALIGNMENT = 64


class Memory:
    """One block of memory, handed out in aligned pieces; `copies` blocks in all, a thread may have its own."""

    def __init__(self, sizes: dict[str, int], copies: int) -> None:
        self.offsets: dict[str, int] = {}
        self.stride = 0
        for name, size in sizes.items():
            self.offsets[name] = self.stride
            self.stride += -(-size // ALIGNMENT) * ALIGNMENT
        self._block = np.empty(self.stride * copies + ALIGNMENT, np.uint8)
        self._start = -(-address(self._block) // ALIGNMENT) * ALIGNMENT

    def place(self, name: str) -> int:
        """The address of a piece, in the first block."""
        return self._start + self.offsets[name]


def _memory(net: Network, rows: int, copies: int, **more: int) -> Memory:
    """What the outputs of all layers take for so many rows, and more."""
    size = net.parameters.itemsize
    sizes = dict(more)
    for layer, activation in enumerate(net.activations):
        matrix = rows * net.widths[layer + 1] * size
        sizes[f"out {layer}"] = matrix
        if activation.keeps == "input":
            sizes[f"kept {layer}"] = matrix
    return Memory(sizes, copies)


def _tables(net: Network, memory: Memory) -> Array:
    """The kernels' table of layers for every member: (members, layers, fields)."""

    def row(layer: int, weights: tuple[Array, Array], gradients: tuple[Array, Array]) -> list[int]:
        out = memory.place(f"out {layer}")
        kept = memory.place(f"kept {layer}") if net.activations[layer].keeps == "input" else out
        return layer_row(net.activations[layer], *weights, *gradients, kept, out)

    return np.array(
        [
            [row(i, *both) for i, both in enumerate(zip(weights, gradients, strict=True))]
            for weights, gradients in zip(net.weights, net.gradients, strict=True)
        ],
        np.int64,
    )


def predict(net: Network, samples: Samples) -> Array:
    """The outputs of the last layer, (members, rows, outputs), for contiguous or sparse samples (rows, inputs)."""
    if not isinstance(samples, np.ndarray):
        batch = min(PREDICT_ROWS, slab_rows(samples))
        return np.concatenate([predict(net, block) for block, _ in blocks(samples, batch)], axis=1)
    rows, members = len(samples), len(net.weights)
    result = np.empty((members, rows, net.widths[-1]), samples.dtype)
    if result.size == 0:
        return result
    products = net.parameters.size * rows
    workers = num_threads() if products >= PARALLEL_PRODUCTS else 1
    block = min(PREDICT_ROWS, -(-rows * members // workers))
    memory = _memory(net, block, workers)
    layers, dtype = _tables(net, memory), samples.dtype.name
    slab = max(1, SLAB_PRODUCTS // (net.parameters.size * block)) * block
    for first in range(0, rows, slab):
        part = samples[first : first + slab]
        found = result if len(part) == rows else np.empty((members, len(part), net.widths[-1]), samples.dtype)
        counters = np.zeros(2, np.int64)
        numbers = (address(part), len(part), block, address(found), address(counters), memory.stride)
        run = kernel("nn.network.driver", "predict", dtype).call
        work = functools.partial(run, address(layers), *layers.shape[:2], gemm_address(dtype), *numbers)
        with one_blas_thread():
            together(work, workers)
        if found is not result:
            result[:, first : first + slab] = found
    return result


def slices_of(products: int) -> int:
    """Into how many slices a step of so many multiply-adds is cut: one for each thread, or one where it is small.

    A product in two halves costs more than the whole (BLAS packs one factor twice), and the halves of each layer move
    from one core's cache to the other's. The step of 64-128-128-10 on 64 samples (5 million) took 0.19 ms on one thread
    and from 0.15 to 0.26 on two, from moment to moment.
    """
    return num_threads() if products >= PARALLEL_PRODUCTS else 1


class Trainer:
    """Memory and tables for steps of a network in batches of one size; kept, so that a small step is a short call.

    Args:
        net: the network, whose arrays stay where they are.
        batch: rows of a step at most.
        targets: the kind and the dtype of targets that the steps will get.
    """

    def __init__(self, net: Network, batch: int, targets: Targets) -> None:
        self.net, self.batch, self.threads = net, batch, num_threads()
        self._members, self._depth = len(net.weights), len(net.activations)
        self._dtype, size = net.parameters.dtype.name, net.parameters.itemsize
        self._products = 3 * net.parameters.size * batch  # multiply-adds of a step
        # One network is cut into a slice for each thread, a population into its members.
        self._alone = self._members == 1
        slices = slices_of(self._products) if self._alone else 1
        self._workers = slices if self._alone else min(self.threads, self._members)
        row_bytes = targets.array[:1].nbytes
        delta = -(-batch * max(net.widths[1:]) * size // ALIGNMENT) * ALIGNMENT
        self._memory = memory = _memory(
            net,
            batch,
            1 if self._alone else self._workers,
            delta=2 * delta,
            samples=batch * net.widths[0] * size,
            targets=batch * row_bytes,
            partials=8 * tables.partials(self._depth, slices),
        )
        self._tables = _tables(net, memory)
        self._run = run = np.zeros(tables.RUN_FIELDS, np.int64)
        run[tables.GEMM] = gemm_address(self._dtype)
        run[tables.LOSS] = kernel("nn.losses.loss_kernel", targets.kernel, self._dtype).address
        run[tables.NORM] = kernel("sums.norms.norm_kernel", "squares", self._dtype).address
        run[tables.TARGET_BYTES] = row_bytes
        run[tables.BATCH_SAMPLES], run[tables.BATCH_TARGETS] = memory.place("samples"), memory.place("targets")
        run[tables.DELTA], run[tables.DELTA_BYTES] = memory.place("delta"), delta
        run[tables.PARTIALS] = memory.place("partials")
        run[tables.SLICES] = slices
        run[tables.WEIGHTS], run[tables.GRADIENTS] = address(net.parameters), address(net.slopes)
        run[tables.COUNT], run[tables.BYTES] = net.parameters[0].size, size

    def epoch(
        self,
        samples: Samples,
        targets: Targets,
        optimizer: Optimizer | None = None,
        largest: float | None = None,
        order: Array | None = None,
    ) -> Iterator[Array]:
        """`steps`, also of sparse samples, which are made dense some batches at a time."""
        if isinstance(samples, np.ndarray):
            yield from self.steps(samples, targets, optimizer, largest, order)
        else:
            for block, rows in blocks(samples, self.batch, order):
                yield from self.steps(block, targets.take(rows), optimizer, largest)

    def steps(
        self,
        samples: Array,
        targets: Targets,
        optimizer: Optimizer | None = None,
        largest: float | None = None,
        order: Array | None = None,
    ) -> Iterator[Array]:
        """Whole steps over all samples, batch by batch; the last one may have fewer rows.

        Args:
            samples: (samples, inputs), contiguous, of the network's dtype.
            targets: checked, one row per sample.
            optimizer: whose memory and step count go on; None computes gradients only.
            largest: L2 norm, of a member's whole gradient, to clip at; None clips nothing.
            order: int64 indices of samples, of all or some; None takes all as they lie.

        Yields, after every call into compiled code, (steps, members, 2) float64: loss and norm of the gradient. What
        was yielded is done; an interrupt between leaves whole steps.
        """
        run = self._run
        count = len(samples) if order is None else len(order)
        run[tables.BATCH] = min(self.batch, count)
        run[tables.SAMPLES], run[tables.TARGETS] = address(samples), address(targets.array)
        run[tables.ORDER] = 0 if order is None else address(order)
        run[tables.SAMPLE_WEIGHTS] = 0 if targets.weights is None else address(targets.weights)
        run[tables.UPDATE] = 0
        if optimizer is not None:
            run[tables.UPDATE] = kernel("nn.updates.update_kernel", optimizer.kernel, self._dtype).address
            [memory] = optimizer.memory([self.net.parameters])
            run[tables.FIRST], run[tables.SECOND] = address(memory[0]), address(memory[-1])
        per_call = max(1, SLAB_PRODUCTS // self._products) * self.batch
        for first in range(0, count, per_call):
            last = min(first + per_call, count)
            yield self._call(first, last, optimizer, math.inf if largest is None else largest)

    def _call(self, first: int, last: int, optimizer: Optimizer | None, largest: float) -> Array:
        run = self._run
        steps = -(-(last - first) // self.batch)
        records = np.full((steps, self._members, 2), -1.0)  # a norm is not negative: such a step is not done
        counters = np.zeros(2 * tables.phases(self._depth, steps), np.int64)
        rates = np.zeros(1) if optimizer is None else optimizer.rates(steps)
        run[tables.BEGIN], run[tables.END] = first, last
        run[tables.COUNTERS], run[tables.RECORDS] = address(counters), address(records)
        run[tables.RATES], run[tables.STEP] = address(rates), 0 if optimizer is None else optimizer.steps
        if self._alone:
            entry = kernel("nn.network.driver", "train", self._dtype).call
            work = functools.partial(entry, address(self._tables), self._depth, address(run), largest)
        else:
            entry = kernel("nn.network.driver", "train_members", self._dtype).call
            numbers = (self._members, self._depth, address(run), largest, self._memory.stride)
            work = functools.partial(entry, address(self._tables), *numbers)
        try:
            with one_blas_thread():
                together(work, self._workers if steps * self._products >= PARALLEL_PRODUCTS else 1)
        finally:
            if optimizer is not None:
                optimizer.steps += int((records[:, :, 1].min(axis=1) != -1).sum())
        return records
