"""What the headers of NumPy's arrays tell: where their elements lie, how many they are, of which dtype.

From Python each takes an attribute, or an object for the address: 0.3 us an array.
"""

from __future__ import annotations

import numpy as np
from numba import types

from fastinit._native.records import HEADER, RUN
from fastinit.kernels.jit import Definition, carray, definition, pointer

i64 = np.int64


def _locate(objects, number, head, dtypes, kinds, flags, runs, codes):
    """Fill in `place`, `count` and `size` of a run for each of `number` arrays, and the number of its dtype.

    One code more, the last, is how many of the arrays lack one of the flags or are of none of the dtypes.

    Args:
        objects: where the arrays' addresses are.
        number: of arrays.
        head: bytes of an object's head.
        dtypes: where the known dtypes are: the address of each, and the bytes of an element.
        kinds: how many those are.
        flags: the flags of an array that it must have.
        runs: where the records are, `records.RUN`.
        codes: where `number` + 1 int64 are.
    """
    objects, dtypes = carray(pointer(objects), number, i64), carray(pointer(dtypes), (kinds, 2), i64)
    runs, codes = carray(pointer(runs), number, RUN), carray(pointer(codes), number + 1, i64)
    others = i64(0)
    for i in range(number):
        header = carray(pointer(objects[i] + head), 1, HEADER)[0]
        shape = carray(pointer(header.shape), i64(header.axes), i64)
        run = runs[i]
        run.place, run.count, codes[i] = header.place, i64(1), i64(-1)
        for axis in range(i64(header.axes)):
            run.count *= shape[axis]
        for kind in range(kinds):
            if dtypes[kind, 0] == header.dtype:
                run.size, codes[i] = dtypes[kind, 1], kind
        if codes[i] < 0 or (i64(header.flags) & flags) != flags:
            others += i64(1)
    codes[number] = others


def locate() -> Definition:
    """The function; its arguments are those of `_locate`."""
    return definition(_locate, types.void(*(types.int64,) * 8))
