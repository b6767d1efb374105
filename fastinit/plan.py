"""A plan: parameter name -> shape, dtype and distribution. The noun that everything large speaks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from fastinit import documents, spec
from fastinit.buffers import Array, as_dtype, as_region, as_shape, boxes, check_target, dtype_name
from fastinit.composite import Values
from fastinit.distributions import Distribution
from fastinit.engine import draw
from fastinit.fans import as_axes, item_shape
from fastinit.filling import fill
from fastinit.key import Key, Seed, as_key
from fastinit.patterns import escape, expand
from fastinit.schemes import law
from fastinit.structured import Structured, made_of


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
        found = (
            law(distribution, sizes, layout=layout, batch_axes=batch) if isinstance(distribution, str) else distribution
        )
        if not isinstance(found, Distribution):
            raise TypeError(f"distribution must be a scheme's name or a distribution. Received: {distribution!r}")
        name, item = _dtype_of(found, dtype), item_shape(sizes, layout, batch)
        found.check(item, name)  # what cannot be drawn is refused here
        object.__setattr__(self, "shape", sizes)
        object.__setattr__(self, "dtype", name)
        object.__setattr__(self, "distribution", found)
        label = scheme or (distribution if isinstance(distribution, str) else spec.label(found, item))
        object.__setattr__(self, "scheme", label)
        object.__setattr__(self, "layout", layout)
        object.__setattr__(self, "batch_axes", batch)
        object.__setattr__(self, "persistent", persistent)

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
        """Fill an array of this shape, or of a region of it. The key's last name is the tensor's."""
        if self.drawn:
            law, batch = self.distribution, self.batch_axes
            fill(out, law, seed=key, shape=self.shape, region=region, layout=self.layout, batch_axes=batch)
        elif out.size:
            assert isinstance(self.distribution, Structured)
            self.distribution.make(out, key, self.shape, as_region(region, self.shape), 0)

    def fill_flat(self, out: Array, key: Key, first: int) -> None:
        """Fill a 1-d array of the tensor's dtype with its elements from `first` on, in C order."""
        if self.drawn and not self.distribution.structured:
            draw(out, self.distribution, key.words(), offset=first)
            return
        done = 0
        for region in boxes(self.shape, first, first + out.size):
            shape = tuple(map(len, as_region(region, self.shape)))
            size = math.prod(shape)
            self.fill(out[done : done + size].reshape(shape), key, region)
            done += size


@dataclass(frozen=True, slots=True)
class Tied:
    """A second name of a tensor of the plan: the same memory, not filled twice and not written into checkpoints.

    Args:
        name: the tensor's first name.

    >>> plan = Plan({"embed.weight": ((10, 4), "float32", "normal"), "head.weight": Tied("embed.weight")})
    >>> plan.parameters, plan.nbytes
    (40, 160)
    """

    name: str


Given: TypeAlias = "Fill | Tied | tuple[Any, Any, Distribution | str]"


class Plan(Mapping[str, "Fill | Tied"]):
    """An ordered mapping from a tensor's name to its `Fill`, or to the name that it is `Tied` to, and the seed that
    goes with it.

    Every tensor is drawn with the key `Key(seed) / name`, so no tensor depends on the others, on their order or on
    who fills it.

    Args:
        tensors: name -> `Fill`, or -> (shape, dtype, scheme or distribution), or -> `Tied`.
        seed: what `fill` uses where it is given none.

    Attributes:
        filled: the tensors without their second names.

    >>> plan = Plan({"embed.weight": ((1000, 64), "bfloat16", "normal"), "norm.weight": ((64,), "float32", "ones")})
    >>> len(plan), plan.parameters, plan.nbytes
    (2, 64064, 128256)
    """

    def __init__(self, tensors: Mapping[str, Given], seed: int = 0) -> None:
        self.seed = Key(seed).seed
        self._tensors = {name: _as_tensor(name, value) for name, value in tensors.items()}
        self.filled = {name: tensor for name, tensor in self.items() if isinstance(tensor, Fill)}
        for name, tensor in self._tensors.items():
            if isinstance(tensor, Tied) and tensor.name not in self.filled:
                raise ValueError(f"{name!r} must be tied to a filled tensor of the plan. Received: {tensor.name!r}")

    def __getitem__(self, name: str) -> Fill | Tied:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        return f"Plan({len(self)} tensors, {self.parameters:,} parameters, {self.nbytes:,} bytes, seed={self.seed})"

    def first_name(self, name: str) -> str:
        """The name that a tensor is drawn with: its own, or the one that it is tied to."""
        tensor = self._tensors[name]
        return tensor.name if isinstance(tensor, Tied) else name

    def of(self, name: str) -> Fill:
        """How a tensor is filled, under whichever of its names."""
        return self.filled[self.first_name(name)]

    def key(self, seed: Seed = None) -> Key:
        """The key above the tensors' names: of a seed, or by default of the plan's own."""
        return Key(self.seed) if seed is None else as_key(seed)

    @property
    def parameters(self) -> int:
        """The number of elements in all tensors; tied ones count once."""
        return sum(tensor.size for tensor in self.filled.values())

    @property
    def nbytes(self) -> int:
        """The bytes of all tensors; tied ones count once."""
        return sum(tensor.nbytes for tensor in self.filled.values())

    def with_dtype(self, dtype: Any) -> Plan:
        """The same plan with one dtype for all tensors."""
        changed = {name: t if isinstance(t, Tied) else t.with_dtype(dtype) for name, t in self.items()}
        return Plan(changed, self.seed)

    def portable(self, key: Key) -> Plan:
        """The same plan under one key, for other processes: what only this one can compute is given as values."""
        changed = dict(self)
        for name, tensor in self.filled.items():
            if not all(not isinstance(law, Structured) or law.portable for law in made_of(tensor.distribution)):
                values = np.empty(tensor.shape, tensor.dtype)
                tensor.fill(values, key / name)
                changed[name] = Fill(tensor.shape, tensor.dtype, Values(values), persistent=tensor.persistent)
        return Plan(changed, self.seed)

    def fill(
        self,
        arrays: Mapping[str, Array],
        seed: Seed = None,
        progress: Callable[[str, Fill], None] | None = None,
    ) -> None:
        """Fill arrays by name; the arrays' dtypes rule, not the plan's.

        Args:
            arrays: some or all of the plan's tensors.
            seed: an int or a `Key`. Default: the plan's own seed.
            progress: called with the name and the `Fill` after each tensor.

        Raises:
            KeyError: a name that the plan does not have.
            TypeError, ValueError: an array that cannot be filled or has another shape. Nothing was written.

        >>> import numpy as np
        >>> arrays = {"a": np.empty((2, 3)), "b": np.empty((2, 3))}
        >>> Plan({name: ((2, 3), "float64", "normal") for name in arrays}).fill(arrays, seed=1)
        >>> bool((arrays["a"] == arrays["b"]).any())
        False
        """
        for name, array in arrays.items():
            if name not in self:
                raise KeyError(f"the plan has no tensor {name!r}")
            tensor = self.of(name)
            tensor.check(array, name)
            if array.shape != tensor.shape:
                raise ValueError(f"{name} must have the shape {tensor.shape}. Received: {array.shape}")
        key = self.key(seed)
        for name, array in arrays.items():
            first, tensor = self.first_name(name), self.of(name)
            if first == name or first not in arrays or not np.shares_memory(array, arrays[first]):
                tensor.fill(array, key / first)
            if progress is not None:
                progress(name, tensor)

    def to_table(self) -> dict[str, Any]:
        """The plan as plain values: what `from_table` makes the same plan of, law for law and bit for bit.

        Raises:
            ValueError: a tensor whose values a model's code computes; it is named.

        >>> Plan({"norm.weight": ((64,), "float32", "ones")}).to_table()["tensors"]
        {'norm.weight': {'shape': [64], 'dtype': 'float32', 'scheme': 'constant', 'value': 1.0}}
        """
        return {"seed": self.seed, "tensors": {escape(name): _table_of(name, tensor) for name, tensor in self.items()}}

    def to_toml(self) -> str:
        """The plan as the text of a job file."""
        return documents.as_toml(self.to_table())

    def to_json(self) -> str:
        """The plan as JSON, one line for each tensor."""
        table = self.to_table()
        lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in table["tensors"].items())
        return f'{{\n "seed": {table["seed"]},\n "tensors": {{\n{lines}\n }}\n}}\n'

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Plan:
        """A plan from plain values, as a job file holds them (`from_toml`) and `to_table` gives them.

        Raises:
            ValueError: what is wrong in it, with the tensor's table and the key named.
        """
        documents.only(dict(table), ("seed", "dtype", "tensors"))
        tables = table.get("tensors")
        if not isinstance(tables, dict) or not tables:
            raise ValueError('no tensors. Needed: tables of the form [tensors."NAME"]')
        tensors: dict[str, Fill | Tied] = {}
        for pattern, row in tables.items():
            try:
                tensor = _tensor_of(row, table.get("dtype", "float32"))
                for name in expand(pattern):
                    if name in tensors:
                        raise ValueError(f"{name!r} is named twice")
                    tensors[name] = tensor
            except (TypeError, ValueError) as error:
                raise ValueError(f'[tensors."{pattern}"]: {error}') from None
        try:
            return cls(tensors, table.get("seed", 0))
        except TypeError as error:
            raise ValueError(str(error)) from None

    @classmethod
    def from_file(cls, path: str | Path) -> Plan:
        """Read a job file, or a plan that was saved by `to_toml` or `to_json`.

        `seed` and `dtype` at the top are the defaults; every table `[tensors."PATTERN"]` holds `shape`, `scheme` and
        the scheme's parameters, and may hold `dtype`, `layout` and `batch_axes`. In a pattern `{0..11}` counts and
        `{q,k,v}` lists, as in a shell. (`docs/checkpoints.md` lists the other keys, which saved plans have.)

        Args:
            path: of a .toml or .json file.

        Raises:
            OSError: the file cannot be read.
            ValueError: what is wrong in it, with the file and the table named.
        """
        path = Path(path)
        if path.suffix not in (".toml", ".json"):
            raise ValueError(f"{path}: must be a .toml or a .json file")
        return cls._from_document(path, documents.read(path))

    @classmethod
    def from_toml(cls, path: str | Path) -> Plan:
        """Read a job file, as `from_file` does, whatever its suffix."""
        path = Path(path)
        return cls._from_document(path, documents.read(path, toml=True))

    @classmethod
    def _from_document(cls, path: Path, table: dict[str, Any]) -> Plan:
        try:
            return cls.from_table(table)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def _dtype_of(law: Distribution, dtype: Any) -> str:
    """The dtype's name; only values that were given may have another than the four that can be drawn."""
    if isinstance(law, Structured) and law.any_dtype:
        return str(np.dtype(dtype).name)
    return dtype_name(as_dtype(dtype))


def _as_tensor(name: str, value: Given) -> Fill | Tied:
    if not isinstance(name, str):
        raise TypeError(f"a tensor's name must be a string. Received: {name!r}")
    if name in ("", "__metadata__") or "\0" in name:
        raise ValueError(f"a tensor's name must not be empty, __metadata__ or hold NUL. Received: {name!r}")
    Key(0) / name  # raises what no key can hold
    if isinstance(value, (Fill, Tied)):
        return value
    if not isinstance(value, tuple) or len(value) != 3:
        raise TypeError(f"{name} must be a Fill or (shape, dtype, scheme or distribution). Received: {value!r}")
    return Fill(*value)


def _table_of(name: str, tensor: Fill | Tied) -> dict[str, Any]:
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


def _tensor_of(table: Any, dtype: Any) -> Fill | Tied:
    """A table of a job file as a tensor."""
    if not isinstance(table, dict):
        raise ValueError(f"must be a table. Received: {table!r}")
    if "tied" in table:
        documents.only(table, ["tied"])
        if not isinstance(table["tied"], str):
            raise ValueError(f"tied must be a tensor's name. Received: tied={table['tied']!r}")
        return Tied(table["tied"])
    if "shape" not in table:
        raise ValueError("shape is missing")
    own = ("shape", "dtype", "layout", "batch_axes", "persistent")
    values = {key: value for key, value in table.items() if key not in own}
    shape, dtype, persistent = as_shape(table["shape"]), table.get("dtype", dtype), table.get("persistent", True)
    axes = {key: table[key] for key in ("layout", "batch_axes") if key in table}
    if not isinstance(persistent, bool):
        raise ValueError(f"persistent must be true or false. Received: persistent={persistent!r}")
    dtype = spec.any_dtype(dtype) if "values" in values else dtype_name(as_dtype(dtype))
    item = item_shape(shape, **axes)
    found = spec.from_table(values, item, dtype)
    plain = "scheme" in values and not values.keys() & set(spec.AROUND)
    label = spec.shown(values.pop("scheme"), {**values, **axes}) if plain else None
    return Fill(shape, dtype, found, label, **axes, persistent=persistent)
