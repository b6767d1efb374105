"""Fans, and the axes that they are read from."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from fastinit._runtime.arrays import MOST_DIMENSIONS, as_shape
from fastinit._runtime.checks import unknown, whole

LAYOUTS = ("oi", "io")
MODES = ("fan_in", "fan_out", "fan_avg", "fan_geo_avg")


class Fans(NamedTuple):
    """How many inputs a unit reads (n in the formulas) and how many outputs read it (m)."""

    fan_in: float  # an int, but for some of `axis_fans`
    fan_out: float

    def by_mode(self, mode: str) -> float:
        """The number that a mode names; for an empty tensor at least 1, so that nothing is divided by zero."""
        match mode:
            case "fan_in":
                fan = self.fan_in
            case "fan_out":
                fan = self.fan_out
            case "fan_avg":
                fan = (self.fan_in + self.fan_out) / 2
            case "fan_geo_avg":
                fan = math.sqrt(self.fan_in * self.fan_out)
            case _:
                raise unknown("mode", mode, MODES)
        return fan if self.fan_in and self.fan_out else max(1.0, fan)


def as_axes(batch_axes: int | Sequence[int]) -> tuple[int, ...]:
    """Batch axes from an int or a sequence of ints."""
    if isinstance(batch_axes, tuple) and not batch_axes:  # the usual case
        return ()
    try:
        several = (batch_axes,) if hasattr(batch_axes, "__index__") else batch_axes
        axes = tuple(map(whole, itertools.islice(several, MOST_DIMENSIONS + 1)))
    except TypeError:
        raise TypeError(f"batch_axes must be ints. Received: batch_axes={batch_axes!r:.200}") from None
    if len(axes) > MOST_DIMENSIONS:
        raise ValueError(f"batch_axes must be at most {MOST_DIMENSIONS}. Received: more")
    return axes


def canonical_axes(ndim: int, layout: str = "oi", batch_axes: int | Sequence[int] = ()) -> list[int]:
    """The axes in the order (*batch, out, in, *kernel)."""
    if layout not in LAYOUTS:
        raise unknown("layout", layout, LAYOUTS)
    axes = as_axes(batch_axes)
    if any(not -ndim <= axis < ndim for axis in axes):
        raise ValueError(f"batch_axes must be axes of {ndim} dimensions. Received: batch_axes={batch_axes!r:.200}")
    batch = sorted({axis % ndim for axis in axes})
    if len(batch) != len(axes):
        raise ValueError(f"batch_axes must not repeat. Received: batch_axes={batch_axes!r}")
    rest = [axis for axis in range(ndim) if axis not in batch]
    if layout == "io" and len(rest) >= 2:
        rest = [rest[-1], rest[-2], *rest[:-2]]
    return batch + rest


def item_shape(shape: Sequence[int], layout: str = "oi", batch_axes: int | Sequence[int] = ()) -> tuple[int, ...]:
    """The sizes (out, in, *kernel) of one item of the batch: what the laws know as the shape.

    >>> item_shape((8, 3, 5, 64, 32), "io", 0)
    (32, 64, 3, 5)
    """
    if layout == "oi" and batch_axes == ():  # the usual case; a plan asks three times for each tensor
        return tuple(shape)
    axes = canonical_axes(len(shape), layout, batch_axes)
    return tuple(shape[axis] for axis in axes[len(as_axes(batch_axes)) :])


def fans(shape: Sequence[int], layout: str = "oi", batch_axes: int | Sequence[int] = ()) -> Fans:
    """The fans of a weight.

    Args:
        shape: (out, in, *kernel) with layout "oi" (torch), (*kernel, in, out) with "io" (JAX, Keras); and batch axes.
        layout: "oi" or "io".
        batch_axes: axes that hold independent copies (a population of candidates, a stack of experts).

    Raises:
        ValueError: fewer than two dimensions are left, or an unknown layout.

    >>> fans((64, 3, 7, 7))
    Fans(fan_in=147, fan_out=3136)
    >>> fans((7, 7, 3, 64), layout="io") == fans((100, 64, 3, 7, 7), batch_axes=0) == fans((64, 3, 7, 7))
    True
    """
    sizes = item_shape(as_shape(shape), layout, batch_axes)
    if len(sizes) < 2:
        raise ValueError(
            "Fan in and fan out can not be computed for tensor with fewer than 2 dimensions. "
            f"Received: shape {tuple(shape)}, batch_axes={batch_axes!r}"
        )
    receptive = math.prod(sizes[2:])
    return Fans(sizes[1] * receptive, sizes[0] * receptive)


def axis_fans(
    shape: Sequence[int],
    in_axis: int | Sequence[int] = -2,
    out_axis: int | Sequence[int] = -1,
    batch_axis: int | Sequence[int] = (),
) -> Fans:
    """The fans of a weight whose axes are named one by one, as in `jax.nn.initializers`; all others are the kernel's.

    Axes may be named twice, and a fan need not be whole then: with `in_axis=0, out_axis=0` an embedding of
    (tokens, features) has the features as its fan_in, as in Flax.

    Raises:
        ValueError: an empty shape: what is left for the kernel would be zero over zero.

    >>> axis_fans((3, 3, 16, 32)) == fans((3, 3, 16, 32), layout="io")
    True
    >>> axis_fans((8, 64, 16), in_axis=(0, 2), out_axis=1)
    Fans(fan_in=128.0, fan_out=64.0)
    """
    if 0 in shape:
        raise ValueError(f"shape must not be empty. Received: shape={tuple(shape)}")
    inputs, outputs, batch = (
        math.prod(shape[i] for i in ((axis,) if isinstance(axis, int) else axis))
        for axis in (in_axis, out_axis, batch_axis)
    )
    kernel = math.prod(shape) / inputs / outputs / batch
    return Fans(inputs * kernel, outputs * kernel)
