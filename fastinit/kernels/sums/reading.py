"""A range kernel over the bytes of a file, which pass through a small buffer that stays in the processor's cache.

From Python every block would cost a call into the system and one into the kernel, with the lock of the interpreter in
between: as much as a block of 256 KB takes to be read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from fastinit._native.records import FIELDS, FileRange
from fastinit.kernels.jit import Definition, call_range, carray, definition, pointer, scalar

i64, u64 = np.int64, np.uint64
u16, u32 = np.uint16, np.uint32

_pread: Any = types.ExternalFunction("pread", types.int64(types.int32, types.int64, types.int64, types.int64))


@scalar
def _pick(buffer, count, size, first, sample, step):
    """Copy every element whose number is a multiple of `step`, of those from number `first` on that are in a buffer, to
    its place in a sample; an element has 2, 4 or 8 bytes."""
    place = (first + step - 1) // step
    number = (first + count + step - 1) // step - place
    start = place * step - first
    if size == 2:
        source, target = carray(pointer(buffer), count, u16), carray(pointer(sample), place + number, u16)
        for i in range(number):
            target[place + i] = source[start + i * step]
    elif size == 4:
        source, target = carray(pointer(buffer), count, u32), carray(pointer(sample), place + number, u32)
        for i in range(number):
            target[place + i] = source[start + i * step]
    else:
        source, target = carray(pointer(buffer), count, u64), carray(pointer(sample), place + number, u64)
        for i in range(number):
            target[place + i] = source[start + i * step]


def _read(part):
    """Run a kernel over a `records.FileRange`, block by block.

    The number of elements that were read goes to the address `done`: fewer where the file ends or cannot be read.
    """
    report = carray(pointer(part.done), 1, i64)
    done = i64(0)
    while done < part.elements:
        number = min(part.block, part.elements - done)
        received = i64(0)
        while received < number * part.size:
            place = part.offset + done * part.size + received
            now = _pread(np.int32(part.descriptor), part.buffer + received, number * part.size - received, place)
            if now <= 0:
                return
            received += now
        rows = part.results + done // part.chunk * i64(FIELDS * 8)
        call_range(part.kernel, part.buffer, u64(0), u64(number), u64(part.chunk), u64(0), rows)
        if part.step > 0:
            _pick(part.buffer, number, part.size, part.first + done, part.sample, part.step)
        done += number
        report[0] = done


def read() -> Definition:
    """The driver: it takes a `records.FileRange`."""
    part = types.NamedUniTuple(types.int64, len(FileRange._fields), FileRange)
    return definition(_read, types.void(part))
