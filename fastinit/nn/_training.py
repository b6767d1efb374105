"""Runs of whole training steps in compiled code: the memory they need, and how many steps go into one call."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import numpy as np

from fastinit._native.library import kernel
from fastinit._native.records import BLOCK, LAYER, PRODUCT_SCRATCH, TRAINING, phases
from fastinit._runtime.arrays import Array, address
from fastinit._runtime.pool import together
from fastinit._runtime.threads import num_threads
from fastinit.nn._layers import layer_record, workers_of
from fastinit.nn._losses import Targets
from fastinit.nn._network import Network
from fastinit.nn._optimizers import Optimizer
from fastinit.nn._samples import Samples, blocks, slab_rows

# Multiply-adds per call into compiled code, where Ctrl-C has to wait: about 0.1 s on one thread.
SLAB_PRODUCTS = 3 << 30
# Multiply-adds of a step that is cut for all threads: 20 us on one, of which their waiting for each other takes 2.
SHARED_PRODUCTS = 1 << 20
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


def _layers(net: Network, memory: Memory) -> Array:
    """The kernels' records of layers, (members, layers)."""
    records = []
    for index, activation in enumerate(net.activations):
        out = memory.place(f"out {index}")
        saved = memory.place(f"kept {index}") if activation.keeps == "input" else out
        records.append(layer_record(activation, *net.weights[0][index], *net.gradients[0][index], saved, out))
    members = len(net.weights)
    layers = np.array([records] * members, LAYER)
    if members > 1:
        for name in ("weight", "bias", "weight_gradient", "bias_gradient"):
            layers[name] += np.arange(members)[:, None] * net.parameters.strides[0]
    blocks = -(-layers["outputs"] // BLOCK)
    layers["first_block"] = blocks.cumsum(axis=1) - blocks
    return layers


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
    workers = workers_of(products)
    block = min(PREDICT_ROWS, -(-rows * members // workers))
    dtype, scratch_bytes = samples.dtype.name, PRODUCT_SCRATCH * samples.itemsize
    memory = _memory(net, block, workers, scratch=scratch_bytes)
    layers, multiply = _layers(net, memory), kernel("products.product.product", dtype).address
    slab = max(1, SLAB_PRODUCTS // (net.parameters.size * block)) * block
    for first in range(0, rows, slab):
        part = samples[first : first + slab]
        found = result if len(part) == rows else np.empty((members, len(part), net.widths[-1]), samples.dtype)
        counters = np.zeros(2, np.int64)
        numbers = (address(part), len(part), block, address(found), address(counters), memory.stride)
        run = kernel("nn.network.driver", "predict", dtype).call
        arguments = address(layers), *layers.shape, multiply, *numbers, memory.place("scratch"), memory.stride
        together(functools.partial(run, *arguments), workers)
        if found is not result:
            result[:, first : first + slab] = found
    return result


class Trainer:
    """Memory and records for steps of a network in batches of one size; kept, so that a small step is a short call.

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
        # The tasks of a phase of one network are for all threads, a population's are its members.
        self._alone = self._members == 1
        tasks = self.threads if self._alone and self._products >= SHARED_PRODUCTS else 1
        self._workers = tasks if self._alone else min(self.threads, self._members)
        row_bytes = targets.array[:1].nbytes
        delta = -(-batch * max(net.widths[1:]) * size // ALIGNMENT) * ALIGNMENT
        losses, blocks = -(-batch // BLOCK), sum(-(-width // BLOCK) for width in net.widths[1:])
        scratch = PRODUCT_SCRATCH * size
        self._memory = memory = _memory(
            net,
            batch,
            1 if self._alone else self._workers,
            delta=2 * delta,
            batch_samples=batch * net.widths[0] * size,
            batch_targets=batch * row_bytes,
            losses=8 * losses,
            result=8 * losses,
            squares=16 * blocks,
            scratch=scratch * (self._workers if self._alone else 1),
        )
        self._layers = _layers(net, memory)
        self._run = run = np.zeros((), TRAINING)
        run["product"] = kernel("products.product.product", self._dtype).address
        run["loss"] = kernel("nn.losses.loss_kernel", targets.kernel, self._dtype).address
        run["norm"] = kernel("sums.norms.norm_kernel", "squares", self._dtype).address
        for name in ("delta", "batch_samples", "batch_targets", "losses", "result", "squares", "scratch"):
            run[name] = memory.place(name)
        run["target_bytes"], run["delta_bytes"], run["blocks"] = row_bytes, delta, blocks
        run["tasks"], run["members"] = tasks, self._members
        run["worker_bytes"], run["scratch_bytes"] = memory.stride, scratch if self._alone else memory.stride
        run["weights"], run["gradients"] = address(net.parameters), address(net.slopes)
        run["count"], run["size"] = net.parameters[0].size, size

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
        run["batch"] = min(self.batch, count)
        run["samples"], run["targets"] = address(samples), address(targets.array)
        run["order"] = 0 if order is None else address(order)
        run["sample_weights"] = 0 if targets.weights is None else address(targets.weights)
        run["update"], run["largest"] = 0, math.inf if largest is None else largest
        if optimizer is not None:
            run["update"] = kernel("nn.updates.update_kernel", optimizer.kernel, self._dtype).address
            [memory] = optimizer.memory([self.net.parameters])
            run["first"], run["second"] = address(memory[0]), address(memory[-1])
        per_call = max(1, SLAB_PRODUCTS // self._products) * self.batch
        for first in range(0, count, per_call):
            yield self._call(first, min(first + per_call, count), optimizer)

    def _call(self, first: int, last: int, optimizer: Optimizer | None) -> Array:
        run = self._run
        steps = -(-(last - first) // self.batch)
        records = np.full((steps, self._members, 2), -1.0)  # a norm is not negative: such a step is not done
        counters = np.zeros(2 + 2 * steps * phases(self._depth), np.int64)
        rates = np.zeros(1) if optimizer is None else optimizer.rates(steps)
        run["begin"], run["end"], run["records"] = first, last, address(records)
        run["rates"], run["step"] = address(rates), 0 if optimizer is None else optimizer.steps
        entry = kernel("nn.network.driver", "train" if self._alone else "train_members", self._dtype).call
        work = functools.partial(entry, address(self._layers), self._depth, address(run), address(counters))
        try:
            together(work, min(self._workers, workers_of(steps * self._products)))
        finally:
            if optimizer is not None:
                optimizer.steps += int((records[:, :, 1].min(axis=1) != -1).sum())
        return records
