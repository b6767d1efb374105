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
UPDATE_CHUNK = 1 << 14  # parameters: 64 KB each of weights, gradients and memory, in L2
# Of B, which a product copies at once: rows and columns, 256 KB of float32, in L2; and the numbers of memory that it
# needs for that, for a tile and for a tile's rows of A.
PRODUCT_DEPTH = PRODUCT_COLUMNS = 256
PRODUCT_SCRATCH = PRODUCT_DEPTH * PRODUCT_COLUMNS + 16 * 64 + 16 * (PRODUCT_DEPTH + 16)
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
