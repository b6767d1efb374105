"""A tensor of a plan: a `Fill`, or the second name of another; as a table of a job file, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastinit import schemes
from fastinit._core.distributions import Distribution
from fastinit._core.draw import draw
from fastinit._core.fans import as_axes, item_shape
from fastinit._core.key import Key
from fastinit._core.structured import Structured
from fastinit._io import documents
from fastinit._runtime.arrays import (
    DTYPES,
    Array,
    as_dtype,
    as_region,
    as_shape,
    boxes,
    check_target,
    dtype_name,
    long_name,
    nbytes_of,
)
from fastinit.plan import _serialization as spec
from fastinit.schemes._filling import fill


@dataclass(frozen=True, slots=True)
class Fill:
    """One tensor of a plan.

    Args:
        shape: the global shape.
        dtype: float16, bfloat16, float32 or float64.
        distribution: a distribution, or a scheme's name, which the shape turns into one.
        scheme: what people read: the scheme and its parameters. Default: those of the distribution.
        layout, batch_axes: as in the schemes' functions.
        persistent: False for a buffer that checkpoints leave out.

    Attributes:
        name: the tensor's first name in the plan that this is taken out of; part of its key. None before.

    >>> Fill((3, 4), "float32", "he_normal").distribution
    Normal(mean=0.0, std=0.7071067811865476)
    """

    shape: tuple[int, ...]
    dtype: str
    distribution: Distribution
    scheme: str
    layout: str
    batch_axes: tuple[int, ...]
    persistent: bool
    name: str | None = field(compare=False, repr=False)

    def __init__(
        self,
        shape: Any,
        dtype: Any,
        distribution: Distribution | str,
        scheme: str | None = None,
        layout: str = "oi",
        batch_axes: int | Sequence[int] = (),
        *,
        persistent: bool = True,
    ) -> None:
        sizes, batch = as_shape(shape), as_axes(batch_axes)
        found = schemes.as_distribution(distribution, sizes, layout=layout, batch_axes=batch)
        name, item = _dtype_of(found, dtype), item_shape(sizes, layout, batch)
        nbytes_of(sizes, name)  # raises what NumPy could not hold
        found.check(item, name)  # what cannot be drawn is refused here
        object.__setattr__(self, "shape", sizes)
        object.__setattr__(self, "dtype", name)
        object.__setattr__(self, "distribution", found)
        label = scheme or (distribution if isinstance(distribution, str) else spec.label(found, item))
        object.__setattr__(self, "scheme", label)
        object.__setattr__(self, "layout", layout)
        object.__setattr__(self, "batch_axes", batch)
        object.__setattr__(self, "persistent", persistent)
        object.__setattr__(self, "name", None)

    def named(self, name: str) -> Fill:
        """The same under a name in a plan."""
        if self.name == name:
            return self
        copy = object.__new__(Fill)
        for field_name in Fill.__slots__:
            object.__setattr__(copy, field_name, getattr(self, field_name))
        object.__setattr__(copy, "name", name)
        return copy

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * np.dtype(self.dtype).itemsize

    @property
    def drawn(self) -> bool:
        """Whether a distribution of floats is drawn; False for values that were given, of any dtype."""
        return not (isinstance(self.distribution, Structured) and self.distribution.any_dtype)

    @property
    def replaceable(self) -> bool:
        """Whether a rule may give it another law; not where its values were given."""
        return self.drawn or (self.distribution.random and self.dtype in DTYPES)

    def with_dtype(self, dtype: Any) -> Fill:
        """The same with another dtype; values that were given stay as they are.

        Raises:
            ValueError: it cannot hold the law.
        """
        if not self.drawn:
            return self
        return Fill(
            self.shape, dtype, self.distribution, self.scheme, self.layout, self.batch_axes, persistent=self.persistent
        )

    def check(self, out: Array, name: str) -> None:
        """Raise TypeError or ValueError if an array cannot be filled; `name` is what messages call it."""
        if not self.drawn:
            if out.dtype != np.dtype(self.dtype) or not out.flags.writeable:
                raise TypeError(f"{name} must be a writeable array of {self.dtype}. Received: {out.dtype!r}")
        else:
            self.with_dtype(check_target(out, name))  # raises what the array's dtype cannot hold

    def fill(self, out: Array, key: Key, region: tuple[slice, ...] | None = None) -> None:
        """Fill an array of this shape, or of a region of it.

        Args:
            out: the array.
            key: of the plan, `Plan.key(seed)`. The tensor's own key is `key / name`.
            region: a tuple of slices. Default: all of the tensor.

        Raises:
            ValueError: this is not out of a plan, so that its name is not known.
        """
        found, own = self._under(key)
        if self.drawn:
            fill(out, found, seed=own, shape=self.shape, region=region, layout=self.layout, batch_axes=self.batch_axes)
        elif out.size:
            assert isinstance(found, Structured)
            found.make(out, own, self.shape, as_region(region, self.shape), 0)

    def fill_flat(self, out: Array, key: Key, first: int) -> None:
        """Fill a 1-d array of the tensor's dtype with its elements from `first` on, in C order; as `fill`."""
        if not self.distribution.structured:
            draw(out, self.distribution, self._under(key)[1].words(), offset=first)
            return
        done = 0
        for region in boxes(self.shape, first, first + out.size):
            shape = tuple(map(len, as_region(region, self.shape)))
            size = math.prod(shape)
            self.fill(out[done : done + size].reshape(shape), key, region)
            done += size

    def _under(self, key: Key) -> tuple[Distribution, Key]:
        """What is drawn, and the tensor's key."""
        if self.name is None:
            raise ValueError("name is not known: take the Fill out of a Plan, which gives it one")
        if key.path[-1:] == (self.name,):
            raise ValueError(f"key must be the plan's, without the tensor's name, which is added. Received: {key!r}")
        return self.distribution.under(key), key / self.name


@dataclass(frozen=True, slots=True)
class Tied:
    """A second name of a tensor of the plan: the same memory, not filled twice and not written into checkpoints.

    Args:
        name: the tensor's first name.

    >>> from fastinit import Plan
    >>> plan = Plan({"embed.weight": ((10, 4), "float32", "normal"), "head.weight": Tied("embed.weight")})
    >>> plan.parameters, plan.nbytes
    (40, 160)
    """

    name: str


def table_of(name: str, tensor: Fill | Tied) -> dict[str, Any]:
    """A tensor as a table of a job file."""
    if isinstance(tensor, Tied):
        return {"tied": tensor.name}
    layout, batch = tensor.layout, tensor.batch_axes
    try:
        drawn = spec.to_table(tensor.distribution, item_shape(tensor.shape, layout, batch), tensor.dtype)
    except ValueError as error:
        raise ValueError(
            f"{name!r} cannot be saved: {error}; keep what the plan was recorded from (config.json, module:function)"
        ) from None
    table = {"shape": list(tensor.shape), "dtype": tensor.dtype, **drawn}
    if layout != "oi":
        table["layout"] = layout
    if batch:
        table["batch_axes"] = list(batch)
    if not tensor.persistent:
        table["persistent"] = False
    return table


def tensor_of(table: Any, dtype: Any, budget: spec.Budget | None = None) -> Fill | Tied:
    """A table of a job file as a tensor; `budget` is that of the plan."""
    if not isinstance(table, dict):
        raise ValueError(f"must be a table. Received: {table!r:.200}")
    if "tied" in table:
        documents.only(table, ["tied"])
        if not isinstance(table["tied"], str):
            raise ValueError(f"tied must be a tensor's name. Received: tied={table['tied']!r:.200}")
        return Tied(table["tied"])
    if "shape" not in table:
        raise ValueError("shape is missing")
    own = ("shape", "dtype", "layout", "batch_axes", "persistent")
    values = {key: value for key, value in table.items() if key not in own}
    shape, dtype, persistent = as_shape(table["shape"]), table.get("dtype", dtype), table.get("persistent", True)
    axes = {key: table[key] for key in ("layout", "batch_axes") if key in table}
    if not isinstance(persistent, bool):
        raise ValueError(f"persistent must be true or false. Received: persistent={persistent!r:.200}")
    dtype = spec.any_dtype(dtype) if "values" in values else dtype_name(as_dtype(dtype))
    item = item_shape(shape, **axes)
    found = spec.from_table(values, item, dtype, budget)
    spec.check_draws(found, item)
    plain = "scheme" in values and not values.keys() & set(spec.AROUND)
    label = schemes.describe(values.pop("scheme"), {**values, **axes}) if plain else None
    return Fill(shape, dtype, found, label, **axes, persistent=persistent)


def _dtype_of(law: Distribution, dtype: Any) -> str:
    """The dtype's name; only values that were given may have another than the four that can be drawn."""
    if isinstance(law, Structured) and law.any_dtype:
        return str(np.dtype(long_name(dtype)).name)
    return dtype_name(as_dtype(dtype))
