"""Laws made of other laws, and values that are given: what a tensor of a recorded model may hold beside a plain draw.

Shapes here are those of the tensors: with layout "oi" the axes (out, in, *kernel) are in their order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fastinit._core.distributions import Distribution
from fastinit._core.draw import draw
from fastinit._core.key import Key
from fastinit._core.structured import Indices, Structured
from fastinit._runtime.arrays import Array, Region, as_dtype, as_region


@dataclass(frozen=True, slots=True, eq=False)
class Values(Structured):
    """Given values, of any dtype: a table of angles, a mask, a counter. Nothing is drawn.

    Args:
        array: the values, of the tensor's shape.

    >>> import numpy as np
    >>> from fastinit import fill
    >>> fill(np.empty(2), Values(np.array([1.0, 2.0, 4.0])), shape=3, region=(slice(1, 3),))
    array([2., 4.])
    """

    array: Array
    any_dtype: ClassVar[bool] = True
    random: ClassVar[bool] = False

    def __repr__(self) -> str:
        return f"Values({self.array.dtype.name} of shape {self.array.shape})"

    def check(self, shape: tuple[int, ...], dtype: str) -> None:
        if shape != self.array.shape:
            raise ValueError(f"shape must be that of the values, {self.array.shape}. Received: {shape}")

    def make(self, out: Array, key: Key, shape: tuple[int, ...], indices: Indices, offset: int) -> None:
        out[...] = self.array[tuple(map(as_slice, indices))]


@dataclass(frozen=True, slots=True)
class Cast(Structured):
    """A law drawn in another dtype, and the values taken over: what is left of float32 weights in a float64 model.

    Args:
        distribution: what is drawn.
        dtype: in which.

    >>> from fastinit import Normal, fill
    >>> values = fill(np.empty(3), Cast(Normal(), "float16"), seed=0)
    >>> bool((values == values.astype(np.float16)).all())
    True
    """

    distribution: Distribution
    dtype: str

    @property
    def inner(self) -> tuple[Distribution, ...]:
        return (self.distribution,)

    def check(self, shape: tuple[int, ...], dtype: str) -> None:
        self.distribution.check(shape, self.dtype)
        self.distribution.check(shape, dtype)

    def make(self, out: Array, key: Key, shape: tuple[int, ...], indices: Indices, offset: int) -> None:
        target = out if out.dtype == as_dtype(self.dtype) else np.empty(out.shape, as_dtype(self.dtype))
        _make(target, self.distribution, key, shape, indices, offset)
        if target is not out:
            out[...] = target


@dataclass(frozen=True, slots=True)
class SameAs(Structured):
    """The draw of another tensor: a copy of it.

    Args:
        path: the names in the other's key, after what the plan's own key has.
        distribution: what is drawn.
        dtype: the other's; the copy has its values, rounded.
    """

    path: tuple[str, ...]
    distribution: Distribution
    dtype: str

    @property
    def _values(self) -> Cast:
        return Cast(self.distribution, self.dtype)

    @property
    def inner(self) -> tuple[Distribution, ...]:
        return (self.distribution,)

    def check(self, shape: tuple[int, ...], dtype: str) -> None:
        self._values.check(shape, dtype)

    def make(self, out: Array, key: Key, shape: tuple[int, ...], indices: Indices, offset: int) -> None:
        other = Key(key.seed, (*key.path[:-1], *self.path))  # the last name is the tensor's own
        self._values.make(out, other, shape, indices, offset)


@dataclass(frozen=True, slots=True)
class Patched(Structured):
    """Parts of a tensor with laws of their own, e.g. an embedding whose row for padding is zero.

    Later parts lie over earlier ones. Every element is drawn at its own index in the tensor, whatever part it is in;
    a structured law over a part takes the part's place as a further name in its key. What no part covers is left as
    it is.

    Args:
        parts: pairs of a region, a tuple of slices where () is the whole tensor, and a law.

    >>> import numpy as np
    >>> from fastinit import Constant, Uniform, fill
    >>> law = Patched((((), Uniform(1, 2)), ((slice(1, 2),), Constant(0))))
    >>> fill(np.empty((3, 2)), law, seed=0).all(axis=1)
    array([ True, False,  True])
    """

    parts: tuple[tuple[Region, Distribution], ...]

    @property
    def inner(self) -> tuple[Distribution, ...]:
        return tuple(law for _, law in self.parts)

    def check(self, shape: tuple[int, ...], dtype: str) -> None:
        for region, law in self.parts:
            law.check(tuple(map(len, as_region(region, shape))), dtype)

    def make(self, out: Array, key: Key, shape: tuple[int, ...], indices: Indices, offset: int) -> None:
        if any(index.step < 0 for index in indices):
            forward: tuple[Any, ...] = tuple(slice(None, None, -1 if index.step < 0 else 1) for index in indices)
            out = out[(*forward, ...)]
            indices = tuple(index[::-1] if index.step < 0 else index for index in indices)
        for region, law in self.parts:
            part = as_region(region, shape)
            common = tuple(map(_common, part, indices))
            if not all(map(len, common)):
                continue
            place: tuple[Any, ...] = tuple(map(_place, common, indices))
            target = out[(*place, ...)]
            if not law.structured:
                draw(target, law, key.words(), shape=shape, indices=common, offset=offset)
                continue
            inside = tuple(_range(_place(c, p)) for c, p in zip(common, part, strict=True))
            own = key if not region else key / f"[{', '.join(f'{p.start}:{p.stop}:{p.step}' for p in part)}]"
            _make(target, law, own, tuple(map(len, part)), inside, offset)


def _make(out: Array, law: Distribution, key: Key, shape: tuple[int, ...], indices: Indices, offset: int) -> None:
    if isinstance(law, Structured):
        law.make(out, key, shape, indices, offset)
    else:
        draw(out, law, key.words(), shape=shape, indices=indices, offset=offset)


def _common(a: range, b: range) -> range:
    """The numbers in both of two ascending ranges."""
    step = math.lcm(a.step, b.step)
    shared = math.gcd(a.step, b.step)
    if (b.start - a.start) % shared:
        return range(0)
    turns = (b.start - a.start) // shared * pow(a.step // shared, -1, b.step // shared) % (b.step // shared)
    first = a.start + turns * a.step  # the least member of a's line, from a's start on, that is on b's line
    low = max(a.start, b.start)
    first += max(0, -(-(low - first) // step)) * step
    return range(first, min(a.stop, b.stop), step)


def _place(part: range, whole: range) -> slice:
    """Where the numbers of a range stand in another that holds them all."""
    first = (part.start - whole.start) // whole.step
    step = part.step // whole.step or 1
    return slice(first, first + (len(part) - 1) * step + 1, step)


def _range(part: slice) -> range:
    return range(part.start, part.stop, part.step)


def as_slice(part: range) -> slice:
    """The slice that takes these indices."""
    return slice(part.start, None if part.step < 0 and part.stop < 0 else part.stop, part.step)
