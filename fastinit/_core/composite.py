"""Distributions made of others, and values that are given: what a tensor of a recorded model may hold.

Shapes here are those of the tensors: with layout "oi" the axes (out, in, *kernel) are in their order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from fastinit._core.distributions import Distribution
from fastinit._core.draw import draw
from fastinit._core.key import Key
from fastinit._core.structured import Indices, Structured
from fastinit._runtime.arrays import Array, Region, as_dtype, as_region, as_slice, c_strides, common


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

    def under(self, key: Key) -> Cast:
        return Cast(self.distribution.under(key), self.dtype)

    def check(self, shape: tuple[int, ...], dtype: str) -> None:
        _check(self, shape, frozenset([dtype]))

    def make(self, out: Array, key: Key, shape: tuple[int, ...], indices: Indices, offset: int) -> None:
        target = out if out.dtype == as_dtype(self.dtype) else np.empty(out.shape, as_dtype(self.dtype))
        _make(target, self.distribution, key, shape, indices, offset)
        if target is not out:
            out[...] = target


@dataclass(frozen=True, slots=True, init=False)
class SameAs(Structured):
    """The values of another tensor, or of a part of it: a copy.

    Args:
        path: the names in the other tensor's key, after those of the key that a plan is filled with.
        distribution: what the other tensor is drawn from.
        shape: the other tensor's.
        offset, strides: which of its elements these are, counted in C order: the first one, and from one index to the
            next along each axis of the copy. Default: all of them, in their order.

    The other tensor's values are made in the copy's dtype; `Cast` around this has them in their own.

    >>> import numpy as np
    >>> from fastinit import Key, Uniform, uniform, fill
    >>> seed = Key(0)
    >>> other = uniform((3, 4), seed=seed / "other")
    >>> transposed = SameAs(("other",), Uniform(0, 1), (3, 4), 0, (1, 4)).under(seed)
    >>> bool((fill(np.empty((4, 3), np.float32), transposed) == other.T).all())
    True
    """

    path: tuple[str, ...]
    distribution: Distribution
    shape: tuple[int, ...]
    offset: int
    strides: tuple[int, ...]
    above: Key | None = field(compare=False, repr=False)

    def __init__(
        self,
        path: tuple[str, ...],
        distribution: Distribution,
        shape: tuple[int, ...],
        offset: int = 0,
        strides: tuple[int, ...] | None = None,
        above: Key | None = None,
    ) -> None:
        whole = c_strides(shape)
        given = path, distribution, shape, offset, whole if strides is None else strides, above
        for name, value in zip(self.__slots__, given, strict=True):
            object.__setattr__(self, name, value)

    @property
    def inner(self) -> tuple[Distribution, ...]:
        return (self.distribution,)

    def under(self, key: Key) -> SameAs:
        return SameAs(self.path, self.distribution, self.shape, self.offset, self.strides, key)

    def check(self, shape: tuple[int, ...], dtype: str) -> None:
        self.check_in(shape, frozenset([dtype]))

    def check_in(self, shape: tuple[int, ...], dtypes: frozenset[str]) -> None:
        """As `check`, for several dtypes at once."""
        last = self.offset + sum(step * (n - 1) for step, n in zip(self.strides, shape, strict=False))
        fits = len(shape) == len(self.strides) and self.offset >= 0 and min(self.strides, default=0) >= 0
        if not fits or (0 not in shape and last >= math.prod(self.shape)):
            raise ValueError(
                f"offset and strides must be those of a part of shape {self.shape}. "
                f"Received: {self.offset} and {self.strides} for a copy of shape {shape}"
            )
        _check(self.distribution, self.shape, dtypes)
        if self.distribution.structured:
            self._axes(shape)

    def make(self, out: Array, key: Key, shape: tuple[int, ...], indices: Indices, offset: int) -> None:
        above = Key(key.seed, key.path[:-1]) if self.above is None else self.above
        other = Key(above.seed, (*above.path, *self.path))
        law = self.distribution
        if not isinstance(law, Structured):
            draw(out, law, other.words(), strides=self.strides, indices=indices, offset=self.offset)
            return
        taken = self._axes(shape)
        part = tuple(
            _through(start, step, indices[axis]) if axis is not None else range(start, start + 1)
            for axis, start, step in taken
        )
        order = [axis for axis, _, _ in taken if axis is not None]
        kept = sorted(order)
        picked: tuple[Any, ...] = tuple(slice(None) if axis in kept else 0 for axis in range(out.ndim))
        target = out[(*picked, ...)]  # a view, of no axes too
        target = target.transpose([kept.index(axis) for axis in order])
        target = target[tuple(slice(None) if axis is not None else None for axis, _, _ in taken)]
        law.make(target, other, self.shape, part, 0)

    def _axes(self, shape: tuple[int, ...]) -> list[tuple[int | None, int, int]]:
        """(axis of the copy, first index, step) along each axis of the other tensor.

        Raises:
            ValueError: the copy is no region of the other tensor with its axes in any order; only an elementwise
                distribution can do without.
        """
        rest, found = self.offset, []
        free = [axis for axis, n in enumerate(shape) if n > 1]
        for whole, n in zip(c_strides(self.shape), self.shape, strict=True):
            start, rest = divmod(rest, whole)
            axis = next((a for a in free if self.strides[a] >= whole and self.strides[a] % whole == 0), None)
            step = 1 if axis is None else self.strides[axis] // whole
            if axis is not None:
                if start + step * (shape[axis] - 1) >= n:
                    break
                free.remove(axis)
            found.append((axis, start, step))
        if free or len(found) != len(self.shape):
            raise ValueError(f"a copy of {self.distribution!r} must be a region of it. Received: {self!r}")
        return found


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

    def under(self, key: Key) -> Patched:
        return Patched(tuple((region, law.under(key)) for region, law in self.parts))

    def check(self, shape: tuple[int, ...], dtype: str) -> None:
        _check(self, shape, frozenset([dtype]))

    def make(self, out: Array, key: Key, shape: tuple[int, ...], indices: Indices, offset: int) -> None:
        if any(index.step < 0 for index in indices):
            forward: tuple[Any, ...] = tuple(slice(None, None, -1 if index.step < 0 else 1) for index in indices)
            out = out[(*forward, ...)]
            indices = tuple(index[::-1] if index.step < 0 else index for index in indices)
        for region, law in self.parts:
            part = as_region(region, shape)
            shared = tuple(map(common, part, indices))
            if not all(map(len, shared)):
                continue
            place: tuple[Any, ...] = tuple(map(_place, shared, indices))
            target = out[(*place, ...)]
            if not law.structured:
                draw(target, law, key.words(), strides=c_strides(shape), indices=shared, offset=offset)
                continue
            inside = tuple(_range(_place(c, p)) for c, p in zip(shared, part, strict=True))
            own = key if not region else key / f"[{', '.join(f'{p.start}:{p.stop}:{p.step}' for p in part)}]"
            _make(target, law, own, tuple(map(len, part)), inside, offset)


def _check(distribution: Distribution, shape: tuple[int, ...], dtypes: frozenset[str]) -> None:
    """Check a distribution in several dtypes: each one that it is made of once, however many casts lie around it."""
    match distribution:
        case Cast():
            _check(distribution.distribution, shape, dtypes | {distribution.dtype})
        case SameAs():
            distribution.check_in(shape, dtypes)
        case Patched():
            for region, part in distribution.parts:
                _check(part, tuple(map(len, as_region(region, shape))), dtypes)
        case _:
            for dtype in sorted(dtypes):
                distribution.check(shape, dtype)


def _make(out: Array, law: Distribution, key: Key, shape: tuple[int, ...], indices: Indices, offset: int) -> None:
    if isinstance(law, Structured):
        law.make(out, key, shape, indices, offset)
    else:
        draw(out, law, key.words(), strides=c_strides(shape), indices=indices, offset=offset)


def _through(start: int, step: int, indices: range) -> range:
    """The numbers start + step * i for the numbers i of a range."""
    first, step = start + step * indices.start, step * indices.step
    return range(first, first + step * len(indices), step)


def _place(part: range, whole: range) -> slice:
    """Where the numbers of a range stand in another that holds them all."""
    first = (part.start - whole.start) // whole.step
    step = part.step // whole.step or 1
    return slice(first, first + (len(part) - 1) * step + 1, step)


def _range(part: slice) -> range:
    return range(part.start, part.stop, part.step)
