"""Where many arrays lie, by their headers in memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastinit._native.library import kernel
from fastinit._native.records import RUN
from fastinit._runtime.arrays import DTYPES, HEAD, Array, address

_DTYPES = np.array([(id(dtype), dtype.itemsize) for dtype in DTYPES.values()], np.int64)
_CONTIGUOUS, _ALIGNED, _WRITEABLE = 0x1, 0x100, 0x400  # NumPy's flags, as its C interface numbers them


def simple_runs(arrays: list[Any], *, write: bool) -> tuple[Array, Array] | None:
    """Return a run of memory for each array, with zeros for the kernel and what it reads, and the number of its dtype.

    None where an array is not simple: it has another class or another dtype than `DTYPES`, or gaps, or is not aligned,
    or is read-only and to be written. Compiled code reads the headers: from Python, the checks of 1,000 arrays took
    0.3 ms instead of 0.06 (Zen 4).
    """
    if set(map(type, arrays)) != {np.ndarray}:
        return None
    number = len(arrays)
    objects = np.fromiter(map(id, arrays), np.int64, number)
    runs, codes = np.zeros(number, RUN), np.empty(number + 1, np.int64)
    flags = _CONTIGUOUS | _ALIGNED | (_WRITEABLE if write else 0)
    places = address(objects), number, HEAD, address(_DTYPES), len(_DTYPES), flags, address(runs), address(codes)
    kernel("headers.locate").call(*places)
    return None if codes[-1] else (runs, codes[:-1])
