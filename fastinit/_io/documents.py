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
from fastinit._io.files import MOST_TEXT
from fastinit._runtime.checks import unknown

MOST_NAMES = 1_000_000  # of tensors in a header, an index or a job: no model has as many, a slip of the keyboard has
MOST_CONFIG = 10_000_000  # bytes of a config.json or model_index.json; the largest in use list 20,000 classes in 1 MB
MOST_TOML = 5_000_000  # bytes, some 40,000 tensors; they take 2 s to parse, and as JSON 0.1
_MOST_PARTS_OF_A_KEY = 16  # in TOML, as the 3 of tensors."a.b".shape
MOST_LEVELS = 64  # of arrays and tables inside each other; plans and configs have below 20

# A value takes up to 70 bytes of memory, whether it is spelled in two bytes or in twenty. Plans, configs and indices
# have 8 bytes of text and more for each; what has fewer is no such document.
_MOST_DENSE_VALUES, _BYTES_OF_A_VALUE = 500_000, 8
_MOST_DIGITS = 4000  # of an integer; Python reads and prints 4,300
_TOO_DEEP = f"nested too deeply: at most {MOST_LEVELS} levels are allowed"
_PART_AND_DOT = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+"""
_LONG_KEY = re.compile(  # where a key begins: at a line's beginning, or in a table in braces
    rf"(?:^[ \t]*+\[{{0,2}}+|[{{,])\s*+(?:{_PART_AND_DOT}){{{_MOST_PARTS_OF_A_KEY}}}", re.ASCII | re.MULTILINE
)
_LONG_NUMBER = re.compile(rf"\b0[xob][0-9a-fA-F_]{{{_MOST_DIGITS}}}")


def parse_json(text: str, *, infinite: bool = False) -> Any:
    """The values of a JSON text.

    Args:
        text: JSON.
        infinite: also take Infinity and NaN, which Python writes into configs though JSON has neither.

    Raises:
        ValueError: it is none, a name stands twice in one object, or it is larger or deeper than any real one.

    >>> parse_json('{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    """
    _check_number_of_values(text)
    try:
        found = json.loads(text, object_pairs_hook=as_object, parse_constant=float if infinite else no_number)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _check_depth(found)
    return found


def parse_toml(text: str) -> dict[str, Any]:
    """The table of a TOML text.

    Raises:
        ValueError: it is none, or larger or deeper than any real one.

    >>> parse_toml("a.b = 1")
    {'a': {'b': 1}}
    """
    _check_number_of_values(text)
    if _LONG_KEY.search(text):  # tomllib's time grows with the square of the parts
        raise ValueError(f"a key must have at most {_MOST_PARTS_OF_A_KEY} parts")
    if _LONG_NUMBER.search(text):  # tomllib reads them, and no message could print them
        raise ValueError(f"an integer must have fewer than {_MOST_DIGITS:,} digits")
    try:
        found = tomllib.loads(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _check_depth(found)
    return found


def read(path: Path, *, toml: bool = False, infinite: bool = False, most: int = MOST_TEXT) -> dict[str, Any]:
    """The table that a TOML or JSON file holds.

    Args:
        path: of the file.
        toml: which of the two.
        infinite: as in `parse_json`.
        most: bytes of the file; of TOML at most `MOST_TOML` anyway.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no such, or is too large; the file is named.
    """
    if toml and path.stat().st_size > MOST_TOML and path.is_file():
        raise ValueError(f"{path}: TOML must have at most {MOST_TOML:,} bytes: save a larger plan as JSON")
    data = files.read(path, most)
    try:
        text = data.decode("utf-8-sig")
        del data
        found = parse_toml(text) if toml else parse_json(text, infinite=infinite)
    except ValueError as error:
        raise ValueError(f"{path}: no {'TOML' if toml else 'JSON'}: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: must hold an object. Received: {type(found).__name__}")
    return found


def is_unicode(text: str) -> bool:
    r"""Return False if a text has lone surrogates, which JSON can spell and no file name, key or terminal can have.

    >>> is_unicode("é"), is_unicode("\ud800")
    (True, False)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_number_of_values(text: str) -> None:
    """Raise ValueError for so many values in so little text that their memory would be many times the text's."""
    number = sum(map(text.count, "[{,"))
    if number > max(_MOST_DENSE_VALUES, len(text) // _BYTES_OF_A_VALUE):
        raise ValueError(f"a document of {len(text):,} characters must have fewer values. Received: {number:,}")


def _check_depth(found: Any) -> None:
    level = [found] if isinstance(found, (dict, list)) else []
    for _ in range(MOST_LEVELS + 1):
        inner = (value.values() if isinstance(value, dict) else value for value in level)
        level = [value for values in inner for value in values if isinstance(value, (dict, list))]
        if not level:
            return
    raise ValueError(_TOO_DEEP)


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


def as_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{twice!r} is named twice")
    return found


def no_number(text: str) -> Never:
    raise ValueError(f"{text} is no JSON number")
