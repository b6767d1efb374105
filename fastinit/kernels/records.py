"""What Python hands to compiled code: the fields of each record, for both sides. Addresses are int64."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


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
