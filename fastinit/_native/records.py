"""What Python hands to compiled code: the fields of each record, for both sides. Addresses are int64."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

PARAMETERS = 11  # float64 numbers that every fill gets: the scale of `add`, then the distribution's
# What a kernel of moments tells of a chunk, float64: finite, zeros, smallest, largest, mean, standard deviation; not
# the sum of squares, which may leave float64's range.
FIELDS = 6
RATES = 6  # float64 numbers that every update gets
QUANTILE_32_EDGE = 0.4782  # |Phi(x) - 1/2| up to which float32's narrow quantile is good: past 2 sigma (0.47725)
UPDATE_CHUNK = 1 << 13  # parameters: 32 KB each of weights, gradients and optimizer state
BLOCK = 16  # samples whose losses, and output units whose squared gradients, are summed up before the others: bits
# depend on it
# Of B, which a product copies at once: rows and columns, 256 KB of float32, in L2; and the numbers of memory that it
# needs for that, for a tile and for a tile's rows of A.
PRODUCT_DEPTH = PRODUCT_COLUMNS = 256
PRODUCT_SCRATCH = PRODUCT_DEPTH * PRODUCT_COLUMNS + 16 * 64 + 16 * (PRODUCT_DEPTH + 16)
# Householder reflections that are applied at once: bits depend on it. And the most columns that a thread applies them
# to: a block of B in a product. A thread needs this many numbers of memory.
REFLECTION_BLOCK, REFLECTION_COLUMNS = 64, PRODUCT_COLUMNS
REFLECTION_SCRATCH = 2 * REFLECTION_BLOCK * REFLECTION_COLUMNS + PRODUCT_SCRATCH
ACTIVATION_PARAMETERS = 1  # float64 numbers that every activation reads


class Rows(NamedTuple):
    """`rows` runs of `columns` elements of a target and of a stream, with steps from one run to the next."""

    place: int  # where the first run begins in memory
    rows: int
    columns: int
    out_step: int  # bytes
    start: int  # the first run's first element in the stream
    stream_step: int  # elements


class FileRange(NamedTuple):
    """A part of a file for a kernel of `kernels.sums.moments`, and the sample that is taken from it."""

    descriptor: int
    offset: int  # of the first byte
    elements: int
    size: int  # bytes of an element
    buffer: int
    block: int  # elements that are read at once, a multiple of `chunk`
    kernel: int
    chunk: int
    results: int
    first: int  # the number of the first element where the sample is counted
    sample: int
    step: int  # from one element of the sample to the next; 0: no sample
    done: int  # where the number of elements that were read goes, an int64 that is 0


# A run of memory for a range kernel. `stream` and `parameters` are the kernel's last arguments.
RUN = np.dtype(
    [
        ("kernel", np.int64),
        ("place", np.int64),
        ("count", np.int64),
        ("size", np.int64),  # bytes of an element
        ("key", np.uint64),
        ("stream", np.uint64),
        ("parameters", np.int64),
    ]
)

# What follows Python's head of an object in an array: NumPy's C structure `PyArrayObject`.
HEADER = np.dtype(
    [
        ("place", np.int64),  # of the first element
        ("axes", np.int32),
        ("shape", np.int64),
        ("strides", np.int64),
        ("base", np.int64),
        ("dtype", np.int64),
        ("flags", np.int32),
    ],
    align=True,
)

# An array of parameters for an update.
UPDATE = np.dtype(
    [
        ("kernel", np.int64),
        ("weights", np.int64),
        ("gradients", np.int64),
        ("first", np.int64),  # the optimizer's state
        ("second", np.int64),
        ("count", np.int64),
        ("size", np.int64),  # bytes of an element
        ("factor", np.float64),  # of the gradients
        ("step", np.float64),
        ("rates", np.int64),
    ]
)

# A layer of a dense network, for `kernels.nn`. What is not said to be something else is an address.
LAYER = np.dtype(
    [
        ("inputs", np.int64),  # features
        ("outputs", np.int64),  # units
        ("size", np.int64),  # bytes of an element
        ("weight", np.int64),  # (outputs, inputs)
        ("bias", np.int64),
        ("weight_gradient", np.int64),
        ("bias_gradient", np.int64),
        ("saved", np.int64),  # (rows, outputs): what the activation needs for the way back; may be `out`
        ("out", np.int64),  # (rows, outputs)
        ("forward", np.int64),  # the activation's kernels, and their numbers
        ("backward", np.int64),
        ("parameters", np.int64),
        ("first_block", np.int64),  # number of the layer's first block of units
    ]
)

# Training steps of a network or a population, likewise.
TRAINING = np.dtype(
    [
        ("product", np.int64),  # kernels
        ("loss", np.int64),
        ("update", np.int64),  # 0: gradients only
        ("norm", np.int64),  # the sum of squares, a range kernel
        ("samples", np.int64),  # (samples, inputs)
        ("targets", np.int64),
        ("target_bytes", np.int64),  # bytes of one sample's target
        ("sample_weights", np.int64),  # float64, one for each sample; 0: all are 1
        ("order", np.int64),  # int64 numbers of samples; 0: as they lie
        ("batch_samples", np.int64),  # where a batch is gathered that has an order
        ("batch_targets", np.int64),
        ("delta", np.int64),  # two matrices (batch, widest layer) for the gradients of outputs
        ("delta_bytes", np.int64),  # bytes of one of them
        ("losses", np.int64),  # float64, by blocks of samples
        ("result", np.int64),  # likewise, of a call of `loss`
        ("squares", np.int64),  # float64 (blocks of units of all layers, 2): of weights and biases
        ("blocks", np.int64),  # how many those are
        ("begin", np.int64),  # samples [begin, end) in whole steps of `batch` samples
        ("end", np.int64),
        ("batch", np.int64),
        ("tasks", np.int64),  # into how many a matrix is cut
        ("members", np.int64),  # of a population
        ("worker_bytes", np.int64),  # from one thread's memory to the next one's
        ("scratch", np.int64),  # for products, and bytes from one thread's to the next one's
        ("scratch_bytes", np.int64),
        ("weights", np.int64),  # all parameters, flat; then their gradients and the optimizer's state
        ("gradients", np.int64),
        ("first", np.int64),
        ("second", np.int64),
        ("count", np.int64),  # parameters of a member
        ("size", np.int64),  # bytes of one
        ("rates", np.int64),  # float64 (steps, RATES)
        ("step", np.int64),  # steps done before
        ("records", np.int64),  # float64 (steps, members, 2): loss, norm of the gradient
        ("largest", np.float64),  # norm to clip at
    ]
)

# A product of reflections that is applied to the first columns of a diagonal matrix, for `kernels.products.reflectors`.
REFLECTIONS = np.dtype(
    [
        ("product", np.int64),  # the kernel
        ("vectors", np.int64),  # (height, width): Gaussian numbers, then the reflections' vectors
        ("height", np.int64),
        ("width", np.int64),
        ("parts", np.int64),  # of a number: 1 if real, 2 if complex
        ("factors", np.int64),  # a square matrix of REFLECTION_BLOCK rows for each block of reflections
        ("turns", np.int64),  # (height,): the diagonal, part by part
        ("matrix", np.int64),  # (width, columns)
        ("transposed", np.int64),  # 1: (columns, width)
        ("step", np.int64),  # elements from one of its rows to the next
        ("first_block", np.int64),  # blocks [first, last) of reflections
        ("last_block", np.int64),
        ("begin", np.int64),  # columns [begin, end), of which a thread takes `share` at once
        ("end", np.int64),
        ("share", np.int64),
        ("counters", np.int64),  # two of int64, zero: what is taken, and the threads that have come
        ("memory", np.int64),  # REFLECTION_SCRATCH numbers for each thread, and their bytes
        ("memory_bytes", np.int64),
    ]
)


def phases(depth: int) -> int:
    """How many phases a training step has: the batch, forward and backward layer by layer, loss, norm, update."""
    return 2 * depth + 4
