"""Runs of whole training steps in compiled code: the memory they need, and how many steps go into one call."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fastinit.activations import Activation
from fastinit.blas import one_blas_thread
from fastinit.buffers import Array, address
from fastinit.kernels import network
from fastinit.kernels.blas import gemm_address
from fastinit.kernels.losses import loss_kernel
from fastinit.kernels.norms import norm_kernel
from fastinit.kernels.updates import update_kernel
from fastinit.layers import PARALLEL_PRODUCTS, layer_row
from fastinit.losses import Targets
from fastinit.optimizers import Optimizer
from fastinit.pool import together
from fastinit.threads import count

# Multiply-adds per call into compiled code, where Ctrl-C has to wait: about 0.1 s on one thread.
SLAB_PRODUCTS = 3 << 30
PREDICT_ROWS = 256  # of a task of `predict`: enough for the products' speed, few enough for the cache
ALIGNMENT = 64


@dataclass
class Network:
    """Weights as the kernels see them. The parameters of all members are one buffer, (members, parameters of one)."""

    activations: list[Activation]  # one for each layer
    weights: list[list[tuple[Array, Array]]]  # [member][layer]: weight (out, in), bias
    gradients: list[list[tuple[Array, Array]]]
    parameters: Array
    slopes: Array  # the gradients, like the parameters

    @property
    def widths(self) -> list[int]:
        return [self.weights[0][0][0].shape[1], *(weight.shape[0] for weight, _ in self.weights[0])]

    def upto(self, layer: int) -> Network:
        """The same weights, up to a layer whose outputs are left without an activation."""

        def cut(members: list[list[tuple[Array, Array]]]) -> list[list[tuple[Array, Array]]]:
            return [member[: layer + 1] for member in members]

        activations = [*self.activations[:layer], Activation("identity")]
        return Network(activations, cut(self.weights), cut(self.gradients), self.parameters, self.slopes)


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


def predict(net: Network, samples: Array) -> Array:
    """The outputs of the last layer, (members, rows, outputs), for contiguous samples (rows, inputs)."""
    rows, members = len(samples), len(net.weights)
    result = np.empty((members, rows, net.widths[-1]), samples.dtype)
    if result.size == 0:
        return result
    products = net.parameters.size * rows
    workers = count() if products >= PARALLEL_PRODUCTS else 1
    block = min(PREDICT_ROWS, -(-rows * members // workers))
    memory = _memory(net, block, workers)
    tables, dtype = _tables(net, memory), samples.dtype.name
    slab = max(1, SLAB_PRODUCTS // (net.parameters.size * block)) * block
    for first in range(0, rows, slab):
        part = samples[first : first + slab]
        found = result if len(part) == rows else np.empty((members, len(part), net.widths[-1]), samples.dtype)
        counters = np.zeros(2, np.int64)
        numbers = (address(part), len(part), block, address(found), address(counters), memory.stride)
        work = functools.partial(network.network_entry("predict", dtype), tables, gemm_address(dtype), *numbers)
        with one_blas_thread():
            together(work, workers)
        if found is not result:
            result[:, first : first + slab] = found
    return result


class Trainer:
    """Steps of a network over samples and targets, in batches.

    Args:
        net: the network.
        samples: (samples, inputs), contiguous, of the network's dtype.
        targets: checked, one row per sample.
        batch: rows of a step; the last one may have fewer.
        optimizer: whose memory and step count go on; None computes gradients only.
        max_grad_norm: L2 norm, of a member's whole gradient, to clip at; None clips nothing.
    """

    def __init__(
        self,
        net: Network,
        samples: Array,
        targets: Targets,
        batch: int,
        optimizer: Optimizer | None = None,
        max_grad_norm: float | None = None,
    ) -> None:
        self._net, self._samples, self._targets = net, samples, targets
        self._batch = min(batch, len(samples))
        self._optimizer = optimizer
        self._largest = math.inf if max_grad_norm is None else max_grad_norm
        self._members, self._depth = len(net.weights), len(net.activations)
        threads = count()
        dtype = samples.dtype.name
        self._products = 3 * net.parameters.size * self._batch  # of a step
        # One network is cut into a slice for each thread, a population into its members.
        self._alone = self._members == 1
        self._slices = threads if self._alone else 1
        self._threads = threads if self._alone else min(threads, self._members)
        row_bytes = targets.array.itemsize * math.prod(targets.array.shape[1:])
        delta = self._batch * max(net.widths[1:]) * samples.itemsize
        self._work_memory = _memory(
            net,
            self._batch,
            1 if self._alone else self._threads,
            delta=-(-delta // ALIGNMENT) * ALIGNMENT * 2,
            samples=self._batch * samples[0].nbytes,
            targets=self._batch * row_bytes,
            partials=8 * network.partials(self._depth, self._slices),
        )
        self._tables = _tables(net, self._work_memory)
        self._run = run = np.zeros(network.RUN_FIELDS, np.int64)
        run[network.GEMM] = gemm_address(dtype)
        run[network.LOSS], _ = loss_kernel(targets.kernel, dtype)
        run[network.NORM], _ = norm_kernel("squares", dtype)
        run[network.SAMPLES], run[network.TARGETS] = address(samples), address(targets.array)
        run[network.TARGET_BYTES] = row_bytes
        run[network.BATCH_SAMPLES] = self._work_memory.place("samples")
        run[network.BATCH_TARGETS] = self._work_memory.place("targets")
        run[network.DELTA] = self._work_memory.place("delta")
        run[network.DELTA_BYTES] = -(-delta // ALIGNMENT) * ALIGNMENT
        run[network.PARTIALS] = self._work_memory.place("partials")
        run[network.BATCH], run[network.SLICES] = self._batch, self._slices
        run[network.WEIGHTS], run[network.GRADIENTS] = address(net.parameters), address(net.slopes)
        run[network.COUNT], run[network.BYTES] = net.parameters[0].size, samples.itemsize
        if optimizer is not None:
            run[network.UPDATE], _ = update_kernel(optimizer.kernel, dtype)
            [memory] = optimizer.memory([net.parameters])
            run[network.FIRST], run[network.SECOND] = address(memory[0]), address(memory[-1])

    def steps(self, order: Array | None = None) -> Iterator[Array]:
        """Whole steps over all samples, in this order (int64 indices) where there is one.

        Yields, after every call into compiled code, (steps, members, 2) float64: loss and norm of the gradient. What
        was yielded is done; an interrupt between leaves whole steps.
        """
        rows = len(self._samples)
        per_call = max(1, SLAB_PRODUCTS // self._products) * self._batch
        for first in range(0, rows, per_call):
            yield self._call(first, min(first + per_call, rows), order)

    def _call(self, first: int, last: int, order: Array | None) -> Array:
        run, optimizer = self._run, self._optimizer
        steps = -(-(last - first) // self._batch)
        records = np.full((steps, self._members, 2), -1.0)  # a norm is not negative: such a step is not done
        counters = np.zeros(2 * network.phases(self._depth, steps), np.int64)
        rates = np.zeros(1) if optimizer is None else optimizer.rates()
        run[network.BEGIN], run[network.END] = first, last
        run[network.ORDER] = 0 if order is None else address(order)
        run[network.COUNTERS], run[network.RECORDS] = address(counters), address(records)
        run[network.RATES], run[network.STEP] = address(rates), 0 if optimizer is None else optimizer.steps
        dtype = self._samples.dtype.name
        if self._alone:
            entry = network.network_entry("train", dtype)
            work = functools.partial(entry, self._tables[0], run, self._largest)
        else:
            entry = network.network_entry("train_members", dtype)
            stride = self._work_memory.stride
            work = functools.partial(entry, self._tables, run, self._largest, self._members, stride)
        try:
            with one_blas_thread():
                together(work, self._threads if steps * self._products >= PARALLEL_PRODUCTS else 1)
        finally:
            if optimizer is not None:
                optimizer.steps += int((records[:, :, 1].min(axis=1) != -1).sum())
        return records
