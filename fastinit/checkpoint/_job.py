"""What a folder is to hold: a plan under a key, cut into files; and the text that says so, kept beside the files."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastinit._core.key import Key
from fastinit._core.structured import is_portable
from fastinit._io import documents
from fastinit._io.files import MOST_TEXT
from fastinit._runtime.checks import positive_int
from fastinit.checkpoint._layout import Layout, as_bytes, layout
from fastinit.plan._patterns import escape, number
from fastinit.plan._plan import Plan

FORMAT = "fastinit checkpoint 1, stream 2"
_KEYS = {"seed", "path", "max_shard_bytes", "computed", "tensors"}


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
        source: the file that it was read from, for errors.
    """

    plan: Plan
    key: Key
    max_shard_bytes: int
    files: Mapping[str, bytes] = field(default_factory=dict)
    computed: frozenset[str] = frozenset()
    source: object = None

    @classmethod
    def of(cls, plan: Plan, key: Key, max_shard_bytes: int, files: Mapping[str, bytes]) -> Job:
        """The job of any plan."""
        computed = frozenset(name for name, fill in plan.filled.items() if not is_portable(fill.distribution))
        job = cls(plan.portable(key), key, max_shard_bytes, files, computed)
        job.text()  # raises what could not be read again
        return job

    @functools.cached_property
    def layout(self) -> Layout:
        try:
            return layout(self.plan, self.max_shard_bytes)
        except ValueError as error:
            raise ValueError(f"{self.source}: {error}" if self.source is not None else str(error)) from None

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

    @functools.cached_property
    def _text(self) -> bytes:
        text = (json.dumps(self.table, indent=1, ensure_ascii=False) + "\n").encode()
        if len(text) > MOST_TEXT:
            raise ValueError(
                f"the description of a checkpoint must have at most {MOST_TEXT:,} bytes. Needed: {len(text):,} for "
                f"{len(self.plan):,} tensors and their given values"
            )
        return text

    def text(self) -> bytes:
        """The description of the job, which lies beside its files.

        Raises:
            ValueError: it is too long to be read again.
        """
        return self._text

    @classmethod
    def from_text(cls, text: bytes, source: object) -> Job:
        """The job that a text describes; `source` is what messages call it.

        Raises:
            ValueError: it describes none.
        """
        try:
            table = documents.parse_json(text.decode())
            if not isinstance(table, dict) or table.get("format") != FORMAT:
                received = table.get("format") if isinstance(table, dict) else type(table).__name__
                raise ValueError(f"its format must be {FORMAT!r}. Received: {received!r:.200}")
            if missing := _KEYS - table.keys():
                raise ValueError(f"{min(missing)} is missing")
            for name in "path", "computed":
                if not isinstance(table[name], list) or not all(isinstance(one, str) for one in table[name]):
                    raise ValueError(f"{name} must be a list of names. Received: {table[name]!r:.200}")
            key = Key(table["seed"], tuple(table["path"]))
            plan = Plan({}, key.seed)
            if table["tensors"] != {}:  # a job file without tensors is a mistake, a model without is not
                plan = _plan(key.seed, table["tensors"])
            most = as_bytes(positive_int("max_shard_bytes", table["max_shard_bytes"]))
            job = cls(plan, key, most, computed=frozenset(table["computed"]), source=source)
            if unknown := job.computed - plan.keys():
                raise ValueError(f"computed must be names of tensors. Received: {min(unknown)!r:.200}")
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"{source} is no description of a checkpoint: {error}") from None
        return job

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and self._identity == other._identity

    __hash__ = None  # type: ignore[assignment]


def _plan(seed: int, tensors: Any) -> Plan:
    """The plan of a description: each of its names stands for itself, so that a short text has no million tensors."""
    if isinstance(tensors, dict):
        for name in tensors:
            if number(name) > 1:
                raise ValueError(f"[tensors] must hold names. Received the pattern {name!r:.200}")
    return Plan.from_table({"seed": seed, "tensors": tensors})
