"""Range kernels: elements [start, start + count) of a stream into a flat buffer."""

from __future__ import annotations

import numpy as np
from numba import types

from fastinit._native.records import PARAMETERS
from fastinit.kernels import distributions, store
from fastinit.kernels.jit import RANGE_SIGNATURE, Definition, carray, definition, scalar, stack_memory
from fastinit.kernels.philox import COUNTERS, words32, words64
from fastinit.kernels.store import address_of, fence, store_line

u64 = np.uint64
u_counters = u64(COUNTERS)


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
        skip, number = first - block, last - first
        place = part
        if number < SIZE:
            place = scratch
            for i in range(number):
                scratch[skip + i] = part[i]
        BLOCK(words, place, p, PUT)
        if number < SIZE:
            for i in range(number):
                part[i] = scratch[skip + i]
        block += SIZE


# More template arguments, of `_stream_range`: a float type, into the format, elements of a cache line.
FLOAT, TO, PER_LINE = np.float32, store.itself, np.int64(16)
LINE = np.int64(store.LINE)


def _stream_range(out, start, count, key, stream, parameters):
    """A constant past the caches, in whole cache lines; what lies before the first and after the last as usual."""
    target = carray(out, count, ELEMENT)
    value, place, size = TO(FLOAT(carray(parameters, PARAMETERS)[1])), address_of(out), np.int64(count)
    before = min(size, (-place % LINE) // (LINE // PER_LINE))
    lines = (size - before) // PER_LINE
    for i in range(before):
        target[i] = value
    for i in range(lines):
        store_line(place + (before * (LINE // PER_LINE) + i * LINE), value)
    for i in range(before + lines * PER_LINE, size):
        target[i] = value
    fence()


def range_kernel(mode: str, distribution: str, dtype: str) -> Definition:
    """The kernel of a distribution for a dtype and a mode, "fill" or "add"."""
    form = store.FORMATS[dtype]
    wide = dtype == "float64"
    size, word = (distributions.BLOCK64, types.uint64) if wide else (distributions.BLOCK32, types.uint32)
    return definition(
        _fill_range,
        RANGE_SIGNATURE,
        WORDS=_nothing if distribution == "constant" else words64 if wide else words32,
        BLOCK=distributions.BLOCKS["float64" if wide else "float32"][distribution],
        PUT=form.fill if mode == "fill" else form.add,
        ELEMENT=form.element,
        WORD=word,
        SIZE=u64(size),
        WORDS_PLACE=stack_memory(word, size),
        SCRATCH_PLACE=stack_memory(form.element, size),
    )


def stream_kernel(dtype: str) -> Definition:
    """The kernel of constants that go past the caches."""
    form = store.FORMATS[dtype]
    return definition(
        _stream_range,
        RANGE_SIGNATURE,
        FLOAT=np.float64 if dtype == "float64" else np.float32,
        TO=form.to,
        PER_LINE=np.int64(8 * store.LINE // form.element.bitwidth),
        ELEMENT=form.element,
    )
