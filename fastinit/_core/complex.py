"""The complex counterparts of the schemes' distributions: the same mean and variance, the same in all directions.

The distributions are those of `jax.nn.initializers`. A tensor of complex numbers takes the stream of the real tensor of
shape (*shape, 2): element e has the parts 2e and 2e + 1. Where the modulus has a bound, an element beyond it takes its
value from the child key "redraw.1", at its own place there, then from "redraw.2" and so on until it lies inside. So the
distributions are exact, an element depends on the key and its index alone, and no function is needed whose last bit
depends on the CPU.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastinit._core.distributions import Distribution, Normal, TruncatedNormal, Uniform
from fastinit._core.draw import draw
from fastinit._core.fans import canonical_axes
from fastinit._core.key import Key, Seed, as_key
from fastinit._core.structured import DeltaOrthogonal, Orthogonal, Structured
from fastinit._runtime.arrays import Array, as_region, blocks, c_strides, check_target

# Elements that are drawn and redrawn at once: few enough for the cache.
BLOCK = 1 << 16
_REAL = {np.dtype("complex64"): "float32", np.dtype("complex128"): "float64"}


@dataclass(frozen=True, slots=True)
class Circular:
    """A distribution of complex numbers with mean 0 that looks the same in all directions.

    `parts` is the distribution of the real and the imaginary part, each drawn alone; values whose modulus is above
    `radius` are drawn again.
    """

    parts: Distribution
    radius: float = math.inf


def circular(distribution: Distribution) -> Circular:
    """The complex distribution with the variance E|z|^2 of a real one with mean 0.

    A normal distribution becomes the circularly symmetric normal one; a uniform one the uniform one on a disc; one cut
    at k sigma on both sides a normal one whose modulus is cut at k sigma and whose std after the cut is the wanted one.

    Raises:
        ValueError: another distribution, or one that is not symmetric about 0.

    >>> circular(Normal(0, 1))
    Circular(parts=Normal(mean=0.0, std=0.7071067811865475), radius=inf)
    """
    match distribution:
        case Normal(mean=0.0, std=std):
            return Circular(Normal(0.0, std / math.sqrt(2)))
        case Uniform(low=low, high=high) if low == -high:
            radius = math.sqrt(2) * distribution.std
            return Circular(Uniform(-radius, radius), radius)
        case TruncatedNormal(normal=Normal(mean=0.0, std=std), low=low, high=high) if low == -high:
            if std == 0:
                return Circular(Normal(0.0, 0.0))
            # |z|^2 over its mean is exponential; cut at k^2, its mean is 1 - k^2 / (e^(k^2) - 1).
            cut = high / std
            before = distribution.std / math.sqrt(1 - cut**2 / math.expm1(cut**2))
            return Circular(Normal(0.0, before / math.sqrt(2)), cut * before)
    raise ValueError(f"a complex counterpart needs a symmetric distribution with mean 0. Received: {distribution!r}")


def fill_complex(
    out: Array,
    distribution: Distribution,
    *,
    seed: Seed = None,
    shape: tuple[int, ...] | None = None,
    region: Sequence[slice] | None = None,
    layout: str = "oi",
) -> Array:
    """Fill an array with the complex counterpart of a real distribution, and return it.

    Args:
        out: a writeable NumPy array of complex64 or complex128; any strides.
        distribution: of the schemes: a symmetric elementwise one, or Orthogonal or DeltaOrthogonal, which become
            unitary.
        seed, shape, region, layout: as in `fill`.

    Raises:
        TypeError: `out` is no such array.
        ValueError: a distribution without counterpart, or a region of another shape than `out`. Nothing was written.

    >>> z = fill_complex(np.empty(1000, np.complex64), Uniform(-1, 1), seed=0)
    >>> bool((abs(z) <= circular(Uniform(-1, 1)).radius).all())
    True
    """
    if not isinstance(out, np.ndarray) or out.dtype not in _REAL:
        received = repr(out.dtype) if isinstance(out, np.ndarray) else type(out).__name__
        raise TypeError(f"out must be a NumPy array of complex64 or complex128. Received: {received}")
    real = _REAL[out.dtype]
    parts = out[..., None].view(real)
    check_target(parts)
    whole = out.shape if shape is None else shape
    indices = as_region(None if region is None else tuple(region), whole, out)
    key = as_key(seed)
    if isinstance(distribution, Structured):
        if not isinstance(distribution, (Orthogonal, DeltaOrthogonal)):
            allowed = "Orthogonal or DeltaOrthogonal"
            raise ValueError(f"distribution must be {allowed} to be complex. Received: {distribution!r}")
        axes = canonical_axes(len(whole), layout)
        item = tuple(whole[axis] for axis in axes)
        distribution.check(item, real)
        if out.size:
            distribution.make(out.transpose(axes), key, item, tuple(indices[axis] for axis in axes), 0)
        return out
    found = circular(distribution)
    found.parts.pack(real)
    if found.radius == math.inf:  # nothing to redraw
        draw(parts, found.parts, key.words(), strides=c_strides((*whole, 2)), indices=(*indices, range(2)))
        return out
    for block, part in blocks(out, indices, BLOCK):
        block[...] = _drawn(found, key, out.dtype, whole, part)
    return out


def _drawn(
    distribution: Circular, key: Key, dtype: np.dtype[Any], shape: tuple[int, ...], indices: tuple[range, ...]
) -> Array:
    """The region `indices` of a tensor of `shape`."""
    size = tuple(map(len, indices))

    def fresh(source: Key) -> Array:
        parts = np.empty((*size, 2), _REAL[dtype])
        draw(parts, distribution.parts, source.words(), strides=c_strides((*shape, 2)), indices=(*indices, range(2)))
        return parts.reshape(-1).view(dtype)

    values = fresh(key)
    left = np.flatnonzero(_beyond(values, distribution.radius))
    for attempt in itertools.count(1):
        if not left.size:
            break
        again = fresh(key / f"redraw.{attempt}").take(left)
        values[left] = again
        left = left[_beyond(again, distribution.radius)]
    return values.reshape(size)


def _beyond(values: Array, radius: float) -> Array:
    # Squares of float32 are exact in float64, so that float32 values keep the bound to the last bit.
    real, imaginary = (part.astype(np.float64) for part in (values.real, values.imag))
    real *= real
    imaginary *= imaginary
    real += imaginary
    outside: Array = real > radius * radius
    return outside
