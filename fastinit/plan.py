"""A plan: parameter name -> shape, dtype and distribution. The noun that everything large speaks."""

from __future__ import annotations

import itertools
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastinit.buffers import Array, as_dtype, as_shape, check_target, dtype_name
from fastinit.distributions import Distribution
from fastinit.fans import as_axes, canonical_axes
from fastinit.filling import fill
from fastinit.key import Key, Seed, as_key
from fastinit.schemes import law


@dataclass(frozen=True, slots=True)
class Fill:
    """One tensor of a plan.

    Args:
        shape: the global shape.
        dtype: float16, bfloat16, float32 or float64.
        distribution: a distribution, or a scheme's name, which the shape turns into one.
        scheme: the name that the distribution came from, for people to read.
        layout, batch_axes: as in the schemes' functions.

    >>> Fill((3, 4), "float32", "he_normal").distribution
    Normal(mean=0.0, std=0.7071067811865476)
    """

    shape: tuple[int, ...]
    dtype: str
    distribution: Distribution
    scheme: str
    layout: str
    batch_axes: tuple[int, ...]

    def __init__(
        self,
        shape: Any,
        dtype: Any,
        distribution: Distribution | str,
        scheme: str | None = None,
        layout: str = "oi",
        batch_axes: int | Sequence[int] = (),
    ) -> None:
        sizes, batch = as_shape(shape), as_axes(batch_axes)
        found = (
            law(distribution, sizes, layout=layout, batch_axes=batch) if isinstance(distribution, str) else distribution
        )
        if not isinstance(found, Distribution):
            raise TypeError(f"distribution must be a scheme's name or a distribution. Received: {distribution!r}")
        name = dtype_name(as_dtype(dtype))
        axes = canonical_axes(len(sizes), layout, batch)
        found.check(tuple(sizes[axis] for axis in axes[len(batch) :]), name)  # what cannot be drawn is refused here
        object.__setattr__(self, "shape", sizes)
        object.__setattr__(self, "dtype", name)
        object.__setattr__(self, "distribution", found)
        label = distribution if isinstance(distribution, str) else type(found).__name__
        object.__setattr__(self, "scheme", scheme or label)
        object.__setattr__(self, "layout", layout)
        object.__setattr__(self, "batch_axes", batch)

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * as_dtype(self.dtype).itemsize

    def with_dtype(self, dtype: Any) -> Fill:
        """The same with another dtype.

        Raises:
            ValueError: it cannot hold the law.
        """
        return Fill(self.shape, dtype, self.distribution, self.scheme, self.layout, self.batch_axes)

    def fill(self, out: Array, key: Key) -> None:
        """Fill an array of this shape."""
        fill(out, self.distribution, seed=key, layout=self.layout, batch_axes=self.batch_axes)


class Plan(Mapping[str, Fill]):
    """An ordered mapping from a tensor's name to its `Fill`, and the seed that goes with it.

    Every tensor is drawn with the key `Key(seed) / name`, so no tensor depends on the others, on their order or on
    who fills it.

    Args:
        tensors: name -> `Fill`, or -> (shape, dtype, scheme or distribution).
        seed: what `fill` uses where it is given none.

    >>> plan = Plan({"embed.weight": ((1000, 64), "bfloat16", "normal"), "norm.weight": ((64,), "float32", "ones")})
    >>> len(plan), plan.parameters, plan.nbytes
    (2, 64064, 128256)
    """

    def __init__(self, tensors: Mapping[str, Fill | tuple[Any, Any, Distribution | str]], seed: int = 0) -> None:
        self.seed = Key(seed).seed
        self._tensors = {name: _as_fill(name, value) for name, value in tensors.items()}

    def __getitem__(self, name: str) -> Fill:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        return f"Plan({len(self)} tensors, {self.parameters:,} parameters, {self.nbytes:,} bytes, seed={self.seed})"

    @property
    def parameters(self) -> int:
        """The number of elements in all tensors."""
        return sum(tensor.size for tensor in self.values())

    @property
    def nbytes(self) -> int:
        """The bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.values())

    def with_dtype(self, dtype: Any) -> Plan:
        """The same plan with one dtype for all tensors."""
        return Plan({name: tensor.with_dtype(dtype) for name, tensor in self.items()}, self.seed)

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
            dtype = check_target(array)
            if array.shape != self[name].shape:
                raise ValueError(f"{name} must have the shape {self[name].shape}. Received: {array.shape}")
            self[name].with_dtype(dtype)  # raises what the array's dtype cannot hold
        key = Key(self.seed) if seed is None else as_key(seed)
        for name, array in arrays.items():
            self[name].fill(array, key / name)
            if progress is not None:
                progress(name, self[name])

    @classmethod
    def from_toml(cls, path: str | Path) -> Plan:
        """Read a job file.

        `seed` and `dtype` at the top are the defaults; every table `[tensors."PATTERN"]` holds `shape`, `scheme` and
        the scheme's parameters, and may hold `dtype`, `layout` and `batch_axes`. In a pattern `{0..11}` counts and
        `{q,k,v}` lists, as in a shell.

        Raises:
            OSError: the file cannot be read.
            ValueError: what is wrong in it, with the file and the table named.
        """
        path = Path(path)
        try:
            job = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: {error}") from None
        for key in job:
            if key not in ("seed", "dtype", "tensors"):
                raise ValueError(f"{path}: unknown key {key!r}. Allowed: seed, dtype, tensors")
        tables = job.get("tensors")
        if not isinstance(tables, dict) or not tables:
            raise ValueError(f'{path}: no tensors. Needed: tables of the form [tensors."NAME"]')
        tensors: dict[str, Fill] = {}
        for pattern, table in tables.items():
            try:
                tensor = _fill_of_table(table, job.get("dtype", "float32"))
                for name in expand(pattern):
                    if name in tensors:
                        raise ValueError(f"{name!r} is named twice")
                    tensors[name] = tensor
            except (TypeError, ValueError) as error:
                raise ValueError(f'{path}: [tensors."{pattern}"]: {error}') from None
        try:
            return cls(tensors, job.get("seed", 0))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from None


def _as_fill(name: str, value: Fill | tuple[Any, Any, Distribution | str]) -> Fill:
    if not isinstance(name, str):
        raise TypeError(f"a tensor's name must be a string. Received: {name!r}")
    if name in ("", "__metadata__") or "\0" in name:
        raise ValueError(f"a tensor's name must not be empty, __metadata__ or hold NUL. Received: {name!r}")
    Key(0) / name  # raises what no key can hold
    if isinstance(value, Fill):
        return value
    if not isinstance(value, tuple) or len(value) != 3:
        raise TypeError(f"{name} must be a Fill or (shape, dtype, scheme or distribution). Received: {value!r}")
    return Fill(*value)


def _fill_of_table(table: Any, dtype: Any) -> Fill:
    """A tensor's table of a job file as a `Fill`."""
    if not isinstance(table, dict):
        raise ValueError(f"must be a table. Received: {table!r}")
    values = dict(table)
    for needed in ("shape", "scheme"):
        if needed not in values:
            raise ValueError(f"{needed} is missing")
    shape, scheme = as_shape(values.pop("shape")), values.pop("scheme")
    dtype = values.pop("dtype", dtype)
    layout, batch_axes = values.get("layout", "oi"), values.get("batch_axes", ())
    shown = ", ".join(
        f"{name}={value:.6g}" if isinstance(value, float) else f"{name}={value}" for name, value in values.items()
    )
    return Fill(
        shape, dtype, law(scheme, shape, **values), f"{scheme}({shown})" if shown else scheme, layout, batch_axes
    )


_MOST_NAMES = 1_000_000  # no model has as many; a slip of the keyboard has
_BRACES = re.compile(r"\{([^{}]*)\}")


def expand(pattern: str) -> Iterable[str]:
    """The names that a pattern stands for.

    Raises:
        ValueError: empty or unbalanced braces, or a range that runs backwards.

    >>> list(expand("h.{0..1}.{q,k}.weight"))
    ['h.0.q.weight', 'h.0.k.weight', 'h.1.q.weight', 'h.1.k.weight']
    """
    parts = _BRACES.split(pattern)
    if any(brace in text for text in parts[::2] for brace in "{}"):
        raise ValueError(f"unbalanced braces in {pattern!r}")
    choices = [[text] if i % 2 == 0 else _choices(text) for i, text in enumerate(parts)]
    if math.prod(map(len, choices)) > _MOST_NAMES:
        raise ValueError(f"{pattern!r} stands for more than {_MOST_NAMES:,} names")
    return map("".join, itertools.product(*choices))


def _choices(text: str) -> list[str]:
    counted = re.fullmatch(r"(\d+)\.\.(\d+)", text)
    if counted:
        first, last = map(int, counted.groups())
        if last < first:
            raise ValueError(f"the range {{{text}}} runs backwards")
        if last - first >= _MOST_NAMES:
            raise ValueError(f"the range {{{text}}} counts more than {_MOST_NAMES:,} names")
        return [str(i) for i in range(first, last + 1)]
    names = text.split(",")
    if len(names) < 2 or not all(names):
        raise ValueError(f"{{{text}}} must be a range like {{0..11}} or a list like {{q,k,v}}")
    return names
