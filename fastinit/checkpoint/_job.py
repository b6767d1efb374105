"""What a folder is to hold: a plan under a key, cut into files; and the text that says so, kept beside the files."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastinit._core.key import Key
from fastinit._core.structured import is_portable
from fastinit._io.documents import parse_json
from fastinit._runtime.checks import positive_int
from fastinit.checkpoint._layout import Layout, layout
from fastinit.plan._patterns import escape
from fastinit.plan._plan import Plan

FORMAT = "fastinit checkpoint 1, stream 1"


@dataclass(frozen=True, eq=False)
class Job:
    """A plan under a key, cut into files.

    Args:
        plan: the tensors.
        key: the key above their names.
        max_shard_bytes: as in `layout`.
        files: further files of the folder, name -> bytes, e.g. a config.json. They do not count where jobs are
            compared.
        computed: the names of tensors whose values a constructor computed. They stand in the text; but their last bits
            may be others on another CPU, so they do not count either, and who finds a job in a folder takes its.
    """

    plan: Plan
    key: Key
    max_shard_bytes: int
    files: Mapping[str, bytes] = field(default_factory=dict)
    computed: frozenset[str] = frozenset()

    @classmethod
    def of(cls, plan: Plan, key: Key, max_shard_bytes: int, files: Mapping[str, bytes]) -> Job:
        """The job of any plan."""
        computed = frozenset(name for name, fill in plan.filled.items() if not is_portable(fill.distribution))
        return cls(plan.portable(key), key, max_shard_bytes, files, computed)

    @functools.cached_property
    def layout(self) -> Layout:
        return layout(self.plan, self.max_shard_bytes)

    @functools.cached_property
    def table(self) -> dict[str, Any]:
        """All that the bytes of the files depend on, as plain data."""
        return {
            "format": FORMAT,
            "seed": self.key.seed,
            "path": list(self.key.path),
            "max_shard_bytes": self.max_shard_bytes,
            "computed": sorted(self.computed),
            "tensors": self.plan.to_table()["tensors"],
        }

    @functools.cached_property
    def _identity(self) -> dict[str, Any]:
        """The part of the table that counts where jobs are compared."""
        tensors = dict(self.table["tensors"])
        for name in map(escape, self.computed):
            tensors[name] = {key: value for key, value in tensors[name].items() if key != "values"}
        return self.table | {"tensors": tensors}

    def text(self) -> bytes:
        return (json.dumps(self.table, indent=1, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_text(cls, text: bytes, source: object) -> Job:
        """The job that a text describes; `source` is what messages call it.

        Raises:
            ValueError: it describes none.
        """
        try:
            return cls._from_table(parse_json(text))
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"{source} is no description of a checkpoint: {error}") from None

    @classmethod
    def _from_table(cls, table: Any) -> Job:
        """The job of a table, in which anything may be wrong: people edit it."""
        if not isinstance(table, dict):
            raise ValueError(f"it must be an object. Received: {type(table).__name__}")
        if table.get("format") != FORMAT:
            raise ValueError(f"its format must be {FORMAT!r}. Received: {table.get('format')!r:.100}")
        missing = [name for name in ("seed", "path", "max_shard_bytes", "computed", "tensors") if name not in table]
        if missing:
            raise ValueError(f"{', '.join(missing)} must be in it")
        key = Key(table["seed"], tuple(_names("path", table["path"])))
        plan = Plan({}, key.seed)
        if table["tensors"] != {}:  # a job file without tensors is a mistake, a model without is not
            plan = Plan.from_table({"seed": key.seed, "tensors": table["tensors"]})
        computed = _names("computed", table["computed"])
        unknown = [name for name in computed if name not in plan.filled]
        if unknown:
            raise ValueError(f"computed must be names of its tensors. Received: {unknown[0]!r}")
        return cls(plan, key, positive_int("max_shard_bytes", table["max_shard_bytes"]), computed=frozenset(computed))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and self._identity == other._identity

    __hash__ = None  # type: ignore[assignment]


def _names(key: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{key} must be a list of names. Received: {key}={value!r:.100}")
    return value
