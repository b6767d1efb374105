"""A plan: parameter name -> shape, dtype and distribution. The noun that everything large speaks."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from fastinit._core.composite import Values
from fastinit._core.distributions import Distribution
from fastinit._core.key import Key, Seed, as_key
from fastinit._core.structured import is_portable, made_of
from fastinit._io import documents
from fastinit._io.documents import MOST_NAMES
from fastinit._io.files import MOST_TEXT
from fastinit._io.progress import Progress, progress_bar
from fastinit._runtime.arrays import Array
from fastinit.plan import _rules as rules
from fastinit.plan._fills import Fill, Tied, table_of, tensor_of
from fastinit.plan._patterns import escape, expand, nearest, number
from fastinit.plan._serialization import MOST_VALUES, Budget
from fastinit.plan._table import html

__all__ = ["Fill", "Given", "Plan", "Tied"]

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

    def _repr_html_(self) -> str:
        """The table that notebooks show."""
        return html(self.filled.items(), self.totals)

    @property
    def totals(self) -> str:
        """The numbers of tensors, parameters and bytes, and the seed, in one line."""
        return f"{len(self):,} tensors, {self.parameters:,} parameters, {self.nbytes:,} bytes, seed {self.seed}"

    def first_name(self, name: str) -> str:
        """The name that a tensor is drawn with: its own, or the one that it is tied to."""
        tensor = self._tensors[name]
        return tensor.name if isinstance(tensor, Tied) else name

    def of(self, name: str) -> Fill:
        """How a tensor is filled, under whichever of its names: always with its first name in the key."""
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

    def with_seed(self, seed: int) -> Plan:
        """The same plan with another seed."""
        return Plan(self, seed)

    def with_rules(
        self, texts: Iterable[str | rules.Rule], *, scheme: str | None = None, without_rule: Collection[str] = ()
    ) -> Plan:
        """The same plan with new laws where rules say so.

        A rule, `PATTERN=SCHEME`, gives every tensor whose name matches the law that the scheme gives its shape. Later
        rules win. Second names and given values stay as they are. `layers`, where a scheme has it and a rule does not
        give it, is counted from the names that match: by their first component that is an integer.

        Args:
            texts: e.g. "*.{o_proj,down_proj}.weight=normal(std=0.01)"; `layout="io"` and `batch_axes=0` may be among
                the parameters, for weights that are no (out, in, *kernel).
            scheme: stands for the rule `*=SCHEME` before all others. Where it needs matrices, tensors with fewer
                dimensions keep their law.
            without_rule: the names of tensors whose distribution here does not count. Of these, where `scheme` needs
                matrices, those with fewer dimensions get ones where their names end in weight, gamma, scale or g, zeros
                otherwise.

        Raises:
            ValueError: text that is no rule, a rule that no drawn tensor matches, a scheme that a shape or a dtype
                refuses, or a without_rule tensor without a rule.

        >>> plan = Plan({"a.weight": ((3, 4), "float32", "normal"), "a.bias": ((3,), "float32", "zeros")})
        >>> [fill.scheme for fill in plan.with_rules(["*.weight=normal(std=0.02)"]).filled.values()]
        ['normal(std=0.02)', 'zeros']
        """
        return Plan(rules.applied(self, texts, scheme, without_rule), self.seed)

    def portable(self, key: Key) -> Plan:
        """The same plan under one key, for other processes: what only this one can compute is given as values."""
        changed: dict[str, Fill | Tied] = dict(self)
        for name, tensor in self.filled.items():
            if not is_portable(tensor.distribution):
                values = np.empty(tensor.shape, tensor.dtype)
                tensor.fill(values, key)
                changed[name] = Fill(tensor.shape, tensor.dtype, Values(values), persistent=tensor.persistent)
        return Plan(changed, self.seed)

    def fill(
        self,
        arrays: Mapping[str, Array],
        seed: Seed = None,
        progress: Progress = False,
    ) -> None:
        """Fill arrays by name; the arrays' dtypes rule, not the plan's.

        Args:
            arrays: some or all of the plan's tensors.
            seed: an int or a `Key`. Default: the plan's own seed.
            progress: True shows a bar (lines, without a terminal) on stderr; a function is called with the bytes that
                are done, and all of them.

        Raises:
            KeyError: a name that the plan does not have; the nearest one is named.
            TypeError, ValueError: arrays that are no dict, an array that cannot be filled or has another shape. Nothing
                was written.

        >>> import numpy as np
        >>> arrays = {"a": np.empty((2, 3)), "b": np.empty((2, 3))}
        >>> Plan({name: ((2, 3), "float64", "normal") for name in arrays}).fill(arrays, seed=1)
        >>> bool((arrays["a"] == arrays["b"]).any())
        False
        """
        if not isinstance(arrays, Mapping):
            raise TypeError(f"arrays must be a dict, name -> array. Received: {type(arrays).__name__}")
        for name, array in arrays.items():
            if name not in self:
                raise KeyError(f"the plan has no tensor {name!r}{nearest(str(name), self)}")
            tensor = self.of(name)
            tensor.check(array, name)
            if array.shape != tensor.shape:
                raise ValueError(f"{name} must have the shape {tensor.shape}. Received: {array.shape}")
        key = self.key(seed)
        with progress_bar(progress, sum(array.nbytes for array in arrays.values())) as advance:
            for name, array in arrays.items():
                first = self.first_name(name)
                if first == name or first not in arrays or not np.shares_memory(array, arrays[first]):
                    self.of(name).fill(array, key)
                advance(array.nbytes)

    def to_table(self) -> dict[str, Any]:
        """The plan as plain values: what `from_table` makes the same plan of, law for law and bit for bit.

        Raises:
            ValueError: a tensor whose values a model's code computes; it is named. Or given values of more than 200 MB.

        >>> Plan({"norm.weight": ((64,), "float32", "ones")}).to_table()["tensors"]
        {'norm.weight': {'shape': [64], 'dtype': 'float32', 'scheme': 'ones'}}
        """
        laws = (law for tensor in self.filled.values() for law in made_of(tensor.distribution))
        nbytes = sum(law.array.nbytes for law in laws if isinstance(law, Values))
        if nbytes > MOST_VALUES:
            raise ValueError(
                f"a plan with given values of more than {MOST_VALUES:,} bytes cannot be saved. It has {nbytes:,}"
            )
        return {"seed": self.seed, "tensors": {escape(name): table_of(name, tensor) for name, tensor in self.items()}}

    def to_toml(self, config: str | None = None) -> str:
        """The plan as the text of a job file; `config` is the name of the config.json that goes with it."""
        return documents.as_toml(({} if config is None else {"config": config}) | self.to_table())

    def to_json(self, config: str | None = None) -> str:
        """The plan as JSON, one line for each tensor; `config` as in `to_toml`."""
        table = self.to_table()
        lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in table["tensors"].items())
        top = "" if config is None else f' "config": {json.dumps(config)},\n'
        return f'{{\n{top} "seed": {table["seed"]},\n "tensors": {{\n{lines}\n }}\n}}\n'

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Plan:
        """A plan from plain values, as a job file holds them (`from_toml`) and `to_table` gives them.

        Raises:
            ValueError: what is wrong in it, with the tensor's table and the key named.
        """
        documents.only(dict(table), ("seed", "dtype", "config", "tensors", "rules"))
        if not isinstance(table.get("config", ""), str):
            raise ValueError(f"config must be the name of a file. Received: config={table['config']!r:.200}")
        tables = table.get("tensors")
        if not isinstance(tables, dict) or not tables:
            raise ValueError('no tensors. Needed: tables of the form [tensors."NAME"]')
        tensors: dict[str, Fill | Tied] = {}
        budget, names, characters = Budget(), 0, 0
        for pattern in tables:  # counted before the first of them is made
            try:
                count = number(pattern)
            except ValueError as error:
                raise ValueError(f'[tensors."{pattern:.200}"]: {error}') from None
            names, characters = names + count, characters + count * len(pattern)
        if names > MOST_NAMES:
            raise ValueError(f"[tensors] must stand for at most {MOST_NAMES:,} names. Received: patterns of {names:,}")
        if characters > MOST_TEXT:  # more than the header of a file may have
            raise ValueError(f"[tensors] must stand for names of at most {MOST_TEXT:,} characters in all")
        for pattern, row in tables.items():
            try:
                tensor = tensor_of(row, table.get("dtype", "float32"), budget)
                for name in expand(pattern):
                    if name in tensors:
                        raise ValueError(f"{name!r} is named twice")
                    tensors[name] = tensor
            except (TypeError, ValueError) as error:
                raise ValueError(f'[tensors."{pattern:.200}"]: {error}') from None
        given = table.get("rules", {})
        if not isinstance(given, dict) or not all(isinstance(scheme, str) for scheme in given.values()):
            raise ValueError(f'[rules] must hold "PATTERN" = "SCHEME". Received: rules={given!r:.200}')
        try:
            plan = cls(tensors, table.get("seed", 0))
        except TypeError as error:
            raise ValueError(str(error)) from None
        return plan.with_rules(rules.of(pattern, scheme) for pattern, scheme in given.items()) if given else plan

    @classmethod
    def from_file(cls, path: str | Path) -> Plan:
        """Read a job file, or a plan that was saved by `to_toml` or `to_json`.

        `seed` and `dtype` at the top are the defaults; `config` names a file for `sources.read`, and is not used here;
        every table `[tensors."PATTERN"]` holds `shape`, `scheme` and
        the scheme's parameters, and may hold `dtype`, `layout` and `batch_axes`. In a pattern `{0..11}` counts and
        `{q,k,v}` lists, as in a shell. The table `[rules]` holds `"PATTERN" = "SCHEME"`, applied last, as by
        `with_rules`. (`docs/checkpoints.md` lists the other keys, which saved plans have.)

        Args:
            path: of a .toml or .json file.

        Raises:
            OSError: the file cannot be read.
            ValueError: what is wrong in it, with the file and the table named.
        """
        path = Path(path)
        if path.suffix not in (".toml", ".json"):
            raise ValueError(f"{path}: must be a .toml or a .json file")
        return cls._from_document(path, toml=path.suffix == ".toml")

    @classmethod
    def from_toml(cls, path: str | Path) -> Plan:
        """Read a job file, as `from_file` does, whatever its suffix."""
        return cls._from_document(Path(path), toml=True)

    @classmethod
    def _from_document(cls, path: Path, *, toml: bool) -> Plan:
        table = documents.read(path, toml=toml)
        try:
            return cls.from_table(table)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def _as_tensor(name: str, value: Given) -> Fill | Tied:
    if not isinstance(name, str):
        raise TypeError(f"a tensor's name must be a string. Received: {name!r}")
    if name in ("", "__metadata__") or "\0" in name:
        raise ValueError(f"a tensor's name must not be empty, __metadata__ or hold NUL. Received: {name!r}")
    if not documents.is_unicode(name):
        Key(0) / name  # raises that no key can hold it
    if isinstance(value, Tied):
        return value
    if isinstance(value, Fill):
        return value.named(name)
    if not isinstance(value, tuple) or len(value) != 3:
        raise TypeError(f"{name} must be a Fill or (shape, dtype, scheme or distribution). Received: {value!r}")
    return Fill(*value).named(name)
