"""JSON and TOML, read strictly: a name that stands twice, a NaN or a file that is no text is an error, not a guess."""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Never

from fastinit._io import files
from fastinit._runtime.checks import unknown


def parse_json(text: str | bytes, *, infinite: bool = False) -> Any:
    """The values of a JSON text.

    Args:
        text: JSON.
        infinite: also take Infinity and NaN, which Python writes into configs though JSON has neither.

    Raises:
        ValueError: it is none, or a name stands twice in one object.

    >>> parse_json('{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    """
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=float if infinite else _no_number)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read(path: Path, *, toml: bool = False, infinite: bool = False) -> dict[str, Any]:
    """The table that a TOML or JSON file holds.

    Args:
        path: of the file.
        toml: which of the two.
        infinite: as in `parse_json`.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no such; the file is named.
    """
    try:
        text = files.read(path).decode("utf-8-sig")
        found = tomllib.loads(text) if toml else parse_json(text, infinite=infinite)
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{path}: no {'TOML' if toml else 'JSON'}: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: must hold an object. Received: {type(found).__name__}")
    return found


_NOT_ASCII = re.compile(r"[^\n -~]")
_ARRAY_OF_INTS = re.compile(r"\[\n((?: +\d+,\n)+)\]")


def as_toml(table: dict[str, Any]) -> str:
    """A table as TOML text, in printable ASCII: TOML has escapes for all other characters, as JSON has.

    >>> print(as_toml({"tensors": {"a.b": {"shape": [3, 4]}}}), end="")
    [tensors."a.b"]
    shape = [3, 4]
    """
    import tomli_w

    # A shape on one line; no string holds a line break that is not escaped.
    text = _ARRAY_OF_INTS.sub(lambda found: f"[{' '.join(found[1].split())[:-1]}]", tomli_w.dumps(table))
    return _NOT_ASCII.sub(lambda found: _escaped(ord(found[0])), text)


def _escaped(code: int) -> str:
    return f"\\u{code:04x}" if code < 1 << 16 else f"\\U{code:08x}"


def only(table: dict[str, Any], allowed: Iterable[str]) -> None:
    """Raise ValueError for a key that is not allowed, with the nearest of those that are."""
    names = list(allowed)
    for key in table:
        if key not in names:
            raise unknown("key", key, names)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{twice!r} is named twice")
    return found


def _no_number(text: str) -> Never:
    raise ValueError(f"{text} is no JSON number")
