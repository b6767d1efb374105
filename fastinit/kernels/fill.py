"""Range kernels: elements [start, start + count) of a stream into a flat buffer."""

from __future__ import annotations

import functools

import numpy as np
from numba import types

from fastinit.kernels import distributions, store
from fastinit.kernels.jit import RANGE_SIGNATURE, Kernel, c_kernel, carray, scalar, stack_memory
from fastinit.kernels.philox import COUNTERS, words32, words64

u64 = np.uint64
u_counters = u64(COUNTERS)

# What `range_kernel` knows: the names of the block functions.
BLOCKS = ("constant", "uniform", "normal", "narrow_truncated", "truncated")
PARAMETERS = 11  # float64 numbers that every kernel gets: the scale of `add`, then the distribution's


@scalar
def _nothing(counter, key, stream, words):
    """The words of a distribution that needs none."""


# The template arguments of `_fill_range`; `range_kernel` gives each kernel its own.
WORDS, BLOCK, PUT, ELEMENT, WORD, SIZE = words32, distributions.normal, store.fill, np.float32, np.uint32, u64(256)
WORDS_PLACE, SCRATCH_PLACE = stack_memory(types.uint32, 256), stack_memory(types.float32, 256)


def _fill_range(out, start, count, key, stream, parameters):
    """Blocks are aligned in the stream, so a range may begin and end inside one: such a block is made in a scratch
    and the part that belongs to the range is copied. Whole blocks go straight to their place."""
    target = carray(out, count, ELEMENT)
    p = carray(parameters, PARAMETERS)
    words = carray(WORDS_PLACE(), SIZE, WORD)
    scratch = carray(SCRATCH_PLACE(), SIZE, ELEMENT)
    stop = start + count
    block = start - start % SIZE
    while block < stop:
        first, last = max(start, block), min(stop, block + SIZE)
        part = target[first - start : last - start]
        WORDS(block // SIZE * u_counters, key, stream, words)
        if last - first == SIZE:
            BLOCK(words, part, p, PUT)
        else:
            skip = first - block
            for i in range(last - first):
                scratch[skip + i] = part[i]
            BLOCK(words, scratch, p, PUT)
            for i in range(last - first):
                part[i] = scratch[skip + i]
        block += SIZE


@functools.cache
def range_kernel(mode: str, distribution: str, dtype: str) -> Kernel:
    """Compile the kernel of a distribution for a dtype and a mode, "fill" or "add"."""
    form = store.FORMATS[dtype]
    wide = dtype == "float64"
    size, word = (distributions.BLOCK64, types.uint64) if wide else (distributions.BLOCK32, types.uint32)
    return c_kernel(
        _fill_range,
        RANGE_SIGNATURE,
        f"{mode}_{distribution}_{dtype}",
        WORDS=_nothing if distribution == "constant" else words64 if wide else words32,
        BLOCK=distributions.BLOCKS["float64" if wide else "float32"][distribution],
        PUT=form.fill if mode == "fill" else form.add,
        ELEMENT=form.element,
        WORD=word,
        SIZE=u64(size),
        WORDS_PLACE=stack_memory(word, size),
        SCRATCH_PLACE=stack_memory(form.element, size),
    )
