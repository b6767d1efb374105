"""Summary statistics of what was drawn."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastinit._core.distributions import Distribution
from fastinit._native.library import Kernel, kernel
from fastinit._native.records import FIELDS
from fastinit._runtime.arrays import Array, address, check_source, dtype_name
from fastinit._runtime.threads import CHUNK, spread
from fastinit.schemes import as_distribution

_BLOCK = 1 << 20  # elements of the buffer through which strided memory is read
# Magnitudes between these have squares, and sums of any number of squares, inside float64's range.
_SMALLEST_SAFE, _LARGEST_SAFE = 2.0**-400, 2.0**450


@dataclass(frozen=True, slots=True)
class Summary:
    """What `summarize` returns. `low` and `high` are the bounds of the distribution, where one was given and has them;
    `min`, `max`, `mean` and `std` (of the population) are of the finite elements, NaN where there are none."""

    count: int
    low: float | None
    high: float | None
    min: float
    max: float
    mean: float
    std: float
    zeros: int
    nonfinite: int

    def _shown(self) -> dict[str, str]:
        """The numbers that there are, as text."""
        rows = {name: getattr(self, name) for name in self.__slots__}
        return {name: f"{v:,}" if isinstance(v, int) else f"{v:.6g}" for name, v in rows.items() if v is not None}

    def _repr_html_(self) -> str:
        """The table that notebooks show."""
        rows = "".join(
            f'<tr><td style="text-align:left">{name}</td><td style="text-align:right">{value}</td></tr>'
            for name, value in self._shown().items()
        )
        return f"<table>{rows}</table>"

    def __str__(self) -> str:
        shown = self._shown()
        width = max(map(len, shown.values()))
        return "\n".join(f"{name:<9}  {value:>{width}}" for name, value in shown.items())


def summarize(x: Any, distribution: Distribution | str | None = None) -> Summary:
    """Count, bounds, minimum, maximum, mean, standard deviation, zeros and non-finite elements of an array.

    One pass over memory, in parallel, with float64 sums in a fixed order: every thread count and processor gives the
    same bits.

    Args:
        x: a NumPy array of float16, bfloat16, float32 or float64, of any shape and strides.
        distribution: what it was drawn from, or the name of the scheme whose distribution for its shape it was drawn
            from; its bounds are put beside the minimum and maximum.

    Raises:
        TypeError: not such an array, or no distribution.
        ValueError: an unknown scheme, or a shape that it does not exist for.

    >>> import numpy as np
    >>> print(summarize(np.array([0.0, 1.0, 2.0, np.inf])))
    count             4
    min               0
    max               2
    mean              1
    std        0.816497
    zeros             1
    nonfinite         1
    """
    check_source(x, "x")
    found = None if distribution is None else as_distribution(distribution, x.shape)
    parts = [chunks(part) for part in _contiguous_parts(x)]
    return merged(np.concatenate(parts or [np.empty((0, FIELDS))]), x.size, found)


def merged(found: Array, count: int, distribution: Distribution | None = None) -> Summary:
    """The summary of all the chunks of an array of `count` elements, in their order; what `chunks` gave of its parts.

    (Chan, Golub & LeVeque, "Algorithms for computing the sample variance", The American Statistician 37, 1983.)
    """
    finite, zeros, smallest, largest, means, stds = found.T
    number = int(finite.sum())
    least = greatest = mean = std = math.nan
    if number:
        least, greatest = float(smallest[finite > 0].min()), float(largest[finite > 0].max())
        bottom, top, exponent = least, greatest, 0
        if not _SMALLEST_SAFE < max(abs(least), abs(greatest)) < _LARGEST_SAFE:
            # In units of a power of two near the largest magnitude, no sum and no square leaves float64's range.
            _, exponent = math.frexp(max(abs(least), abs(greatest)))
            with np.errstate(under="ignore"):
                means, stds = np.ldexp(means, -exponent), np.ldexp(stds, -exponent)
            bottom, top = math.ldexp(least, -exponent), math.ldexp(greatest, -exponent)
        # Both moments lie within the limits; rounding alone may cross them.
        mean = min(max(float((finite * means).sum()) / number, bottom), top)
        with np.errstate(under="ignore"):
            variance = float((finite * (stds**2 + (means - mean) ** 2)).sum()) / number
        std = math.ldexp(min(math.sqrt(variance), (top - bottom) / 2), exponent)
        mean = math.ldexp(mean, exponent)
    return Summary(
        count=count,
        low=None if distribution is None else getattr(distribution, "low", None),
        high=None if distribution is None else getattr(distribution, "high", None),
        min=least,
        max=greatest,
        mean=mean,
        std=std,
        zeros=int(zeros.sum()),
        nonfinite=count - number,
    )


def _contiguous_parts(x: Array) -> Iterator[Array]:
    """The array as flat contiguous pieces: itself, or buffers that strided memory is copied to."""
    if x.size == 0:
        return
    if x.flags.c_contiguous and x.flags.aligned:
        yield x
        return
    bits = x.view(np.uint16) if x.itemsize == 2 else x  # NumPy's iterator knows no bfloat16
    parts = np.nditer(bits, ["external_loop", "buffered"], [["readonly", "contig", "aligned"]], buffersize=_BLOCK)  # type: ignore[list-item]
    for part in parts:
        yield np.ascontiguousarray(part).view(x.dtype)


def chunks(x: Array, *, quick: bool = False) -> Array:
    """The moments of every chunk of contiguous memory, a row for each.

    A part of an array that is to be merged with others must begin at a multiple of CHUNK of its elements.

    Args:
        x: of one of the four dtypes.
        quick: float32 sums, several times as fast; the standard deviation is right to 5e-6 of itself, the mean to 2e-6
            of that, the other fields are exact. 16-bit floats must then begin at a multiple of 4 bytes. float64 has
            float64 sums.
    """
    found = np.empty((-(-x.size // CHUNK), FIELDS))
    name = dtype_name(x.dtype)
    run = quick_kernel(name) if quick else kernel("sums.moments.moments", name)
    spread(run, x.itemsize, address(x), x.size, (CHUNK, 0), found.ctypes.data)
    return found


def quick_kernel(dtype: str) -> Kernel:
    """The kernel of quick `chunks`."""
    return kernel("sums.moments.moments" if dtype == "float64" else "sums.moments.quick_moments", dtype)
