"""Fill arrays and add to them: all checks of arguments, before the first byte is written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from fastinit._core.distributions import Distribution, rounded
from fastinit._core.draw import draw
from fastinit._core.fans import as_axes, canonical_axes
from fastinit._core.key import Seed, as_key, words_of
from fastinit._core.structured import Structured
from fastinit._runtime.arrays import Array, as_region, as_shape, c_strides, check_target, dtype_name
from fastinit._runtime.checks import finite
from fastinit.schemes._text import as_distribution

AnyArray = TypeVar("AnyArray", bound=Array)


def fill(
    out: AnyArray,
    distribution: Distribution | str,
    *,
    seed: Seed = None,
    shape: int | Sequence[int] | None = None,
    region: tuple[slice, ...] | None = None,
    layout: str = "oi",
    batch_axes: int | Sequence[int] = (),
) -> AnyArray:
    """Fill an array with a distribution and return it.

    Args:
        out: a writeable NumPy array of float16, bfloat16 (`ml_dtypes`), float32 or float64; any strides.
        distribution: what is drawn, e.g. `Normal(0, 0.02)`; or a scheme's name, with parameters where it needs some,
            for the one that the scheme gives the global shape: "he_normal", "he_normal(mode='fan_out')".
        seed: an int or a `Key`; None draws fresh entropy (`Key.fresh()`, to be able to repeat it). The same seed gives
            every array the same values: use `Key(seed) / name`, one name per tensor.
        shape: the global shape, where `out` is only a part of a larger tensor. Default: that of `out`.
        region: a tuple of slices of the global shape; `out` gets the values that this part of the whole has.
        layout, batch_axes: which axes are out, in and kernel, and which hold independent copies, as in the schemes'
            functions. Only schemes and structured distributions (orthogonal, dirac, ...) depend on them.

    Raises:
        TypeError: `out` is no such array, `distribution` is none, or the seed is no int.
        ValueError: an unknown scheme, read-only or self-overlapping memory, a region of another shape than `out`, a
            negative seed, or a distribution that the dtype cannot hold. Nothing was written.

    >>> import numpy as np
    >>> from fastinit import Key, Normal, Uniform
    >>> fill(np.empty(3, np.float32), Normal(0, 0.02), seed=Key(0) / "layers.0.bias")
    array([ 0.00474901, -0.00262451,  0.0110583 ], dtype=float32)

    A quarter of a matrix, made alone:

    >>> whole = fill(np.empty((4, 6)), Uniform(-1, 1), seed=7)
    >>> part = fill(np.empty((2, 3)), Uniform(-1, 1), seed=7, shape=(4, 6), region=(slice(2, 4), slice(0, 3)))
    >>> bool((part == whole[2:4, 0:3]).all())
    True
    """
    _write(out, distribution, seed, shape, region, layout, batch_axes)
    return out


def add(
    out: AnyArray,
    distribution: Distribution | str,
    *,
    seed: Seed = None,
    scale: float = 1.0,
    shape: int | Sequence[int] | None = None,
    region: tuple[slice, ...] | None = None,
    layout: str = "oi",
    batch_axes: int | Sequence[int] = (),
) -> AnyArray:
    """Add `scale` times a draw to an array, in one pass, and return it: `out += scale * z`.

    `z` is what `fill` would draw with the same seed, so a perturbation can be taken back, to rounding, without
    being kept: evolution strategies and zeroth-order optimisers store the seed alone. The sum is one fused
    multiply-add; for 16-bit arrays it is made in float32 and rounded once.

    Args:
        out: is added to; an array as `fill` takes it.
        distribution, seed, shape, region, layout, batch_axes: as in `fill`.
        scale: a finite factor, which the dtype can hold.

    Raises:
        TypeError: as in `fill`, or the scale is no number.
        ValueError: as in `fill`, or the scale is out of range. Nothing was written.

    >>> import numpy as np
    >>> from fastinit import Normal
    >>> weights = np.zeros(3, np.float32)
    >>> add(weights, Normal(), seed=1, scale=0.5) is weights
    True
    >>> bool((add(weights, Normal(), seed=1, scale=-0.5) == 0).all())
    True
    """
    _write(out, distribution, seed, shape, region, layout, batch_axes, "add", finite("scale", scale))
    return out


def _write(
    out: Array,
    distribution: Distribution | str,
    seed: Seed,
    shape: int | Sequence[int] | None,
    region: tuple[slice, ...] | None,
    layout: str,
    batch_axes: int | Sequence[int],
    mode: str = "fill",
    scale: float = 1.0,
) -> None:
    dtype = check_target(out)
    if mode == "add":  # 16-bit sums are made in float32
        rounded("scale", scale, "float64" if dtype == "float64" else "float32")
    whole = None if shape is None else as_shape(shape)
    whole_tensor = region is None and (whole is None or whole == out.shape)
    if whole_tensor and isinstance(distribution, Distribution) and not distribution.structured:
        draw(out, distribution, words_of(seed), mode=mode, scale=scale)  # the shortest way, for small calls
        return
    whole = out.shape if whole is None else whole
    distribution = as_distribution(distribution, whole, layout=layout, batch_axes=batch_axes)
    axes = canonical_axes(len(whole), layout, batch_axes)
    indices = as_region(region, whole, out)
    key = as_key(seed)
    if not isinstance(distribution, Structured):
        draw(out, distribution, key.words(), mode=mode, scale=scale, strides=c_strides(whole), indices=indices)
        return
    # Axes in the order (*batch, out, in, *kernel). Each item of the batch is drawn anew, further on in the stream.
    out, batch = out.transpose(axes), len(as_axes(batch_axes))
    whole, indices = tuple(whole[axis] for axis in axes), tuple(indices[axis] for axis in axes)
    item = whole[batch:]
    distribution.check(item, dtype_name(out.dtype))
    if out.size == 0:
        return
    for position in np.ndindex(out.shape[:batch]):
        number = 0
        for index, size, i in zip(indices, whole, position, strict=False):
            number = number * size + index[i]
        target = out[(*position, ...)]
        # A distribution is made apart where it is to be added; float32 or wider, so that the sum is rounded once.
        fresh = target if mode == "fill" else np.zeros(target.shape, np.result_type(target.dtype, np.float32))
        distribution.make(fresh, key, item, indices[batch:], number * math.prod(item))
        if mode == "add":
            np.add(target, fresh.dtype.type(scale) * fresh, out=target, casting="unsafe")
