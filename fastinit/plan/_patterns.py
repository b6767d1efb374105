"""Patterns of names: `{0..11}` counts and `{q,k,v}` lists, as in a shell; `*`, `?` and `[..]` match.

`[{]` and `[}]` are the braces themselves.
"""

from __future__ import annotations

import fnmatch
import functools
import itertools
import math
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TypeAlias

from fastinit._io.documents import MOST_NAMES

LONGEST_PATTERN = 100_000  # characters; a list of a thousand names takes 50,000
_PIECES = re.compile(r"(\[[{}]\])|\{((?:\[[{}]\]|[^{}])*+)\}")  # a brace itself, or what stands between two
_RANGE = re.compile(r"(\d{1,100})\.\.(\d{1,100})")
_GLOB = re.compile(r"\*+|\?|\[!?+\]?+[^\]]*+\]|[^*?\[]++|\[")


def expand(pattern: str) -> Iterable[str]:
    """The names that a pattern stands for; only braces have a meaning.

    Raises:
        ValueError: empty or unbalanced braces, a range that runs backwards, or more than a million names.

    >>> list(expand("h.{0..1}.{q,k}.weight"))
    ['h.0.q.weight', 'h.0.k.weight', 'h.1.q.weight', 'h.1.k.weight']
    """
    if "{" not in pattern and "}" not in pattern:
        return [pattern]
    pieces = _counted(pattern)
    choices = (map(str, piece) if isinstance(piece, range) else map(_bare, piece) for piece in pieces)
    return map("".join, itertools.product(*choices))


def number(pattern: str) -> int:
    """How many names a pattern stands for; none of them is made.

    Raises:
        ValueError: as `expand`.

    >>> number("h.{0..999}.{q,k}.weight")
    2000
    """
    return math.prod(map(len, _counted(pattern))) if "{" in pattern or "}" in pattern else 1


def escape(name: str) -> str:
    """The pattern that stands for one name, whatever is in it.

    >>> escape("a{0..1}"), list(expand(escape("a{0..1}")))
    ('a[{]0..1[}]', ['a{0..1}'])
    """
    return re.sub(r"[{}]", r"[\g<0>]", name)


def matches(pattern: str, name: str) -> bool:
    """Whether a whole name is one of those that a pattern means: `*` is any text, `?` any character, `[a-c]` one of
    some, `[!a-c]` one of the others; and braces as in `expand`. Case counts.

    The time grows with the product of the two lengths at most: where the parts of a pattern may end in a name is
    followed for all ways at once.

    Raises:
        ValueError: a pattern that is none.

    >>> [matches("*.{o,down}_proj.weight", name) for name in ("h.0.o_proj.weight", "h.0.q_proj.weight")]
    [True, False]
    """
    ends: Collection[int] = (0,)
    for choices in _compiled(pattern):
        if isinstance(choices, range):
            ends = _ends_of_numbers(choices, name, ends)
        else:
            found = [_ends(choice, name, ends) for choice in choices]
            ends = found[0] if len(found) == 1 else set().union(*found)
    return len(name) in ends


# --- matching ---

_Glob: TypeAlias = "Sequence[str | re.Pattern[str]]"  # "*", "?", a literal text after a "=", or a class of characters


@functools.lru_cache(maxsize=1024)
def _compiled(pattern: str) -> list[range | list[_Glob]]:
    return [piece if isinstance(piece, range) else list(map(_parts, piece)) for piece in _pieces(pattern)]


def _parts(glob: str) -> _Glob:
    """A pattern without braces as its parts."""
    return [_part(found[0]) for found in _GLOB.finditer(glob)]


def _part(text: str) -> str | re.Pattern[str]:
    if text[0] in "*?":
        return text[0]
    if text[0] == "[" and len(text) > 1:
        return re.compile(fnmatch.translate(text))
    return f"={text}"


def _ends(glob: _Glob, name: str, starts: Collection[int]) -> Collection[int]:
    """Where a pattern may end in a name that begins at one of some places."""
    for part in glob:
        if not starts:
            break
        if part == "*":
            starts = range(min(starts), len(name) + 1)
        elif part == "?":
            starts = {i + 1 for i in starts if i < len(name)}
        elif isinstance(part, str):
            starts = _ends_of_text(part[1:], name, starts)
        else:
            starts = {i + 1 for i in starts if i < len(name) and part.match(name[i])}
    return starts


def _ends_of_text(text: str, name: str, starts: Collection[int]) -> Collection[int]:
    if not isinstance(starts, range):
        return {i + len(text) for i in starts if name.startswith(text, i)}
    ends, found = [], name.find(text, starts.start)
    while found >= 0:
        ends.append(found + len(text))
        found = name.find(text, found + 1)
    return ends


def _ends_of_numbers(numbers: range, name: str, starts: Collection[int]) -> Collection[int]:
    lengths = range(len(str(numbers[0])), len(str(numbers[-1])) + 1)
    return {i + n for i in starts for n in lengths if i + n <= len(name) and _is_one(name[i : i + n], numbers)}


def _is_one(text: str, numbers: range) -> bool:
    """Whether a text is one of some numbers, spelled as `str` does."""
    return text.isascii() and text.isdigit() and (text[0] != "0" or len(text) == 1) and int(text) in numbers


# --- braces ---


def _counted(pattern: str) -> list[range | list[str]]:
    """The pieces of a pattern that stands for no more than a million names."""
    pieces = _pieces(pattern)
    if math.prod(map(len, pieces)) > MOST_NAMES:
        raise ValueError(f"{_shown(pattern)} stands for more than {MOST_NAMES:,} names")
    return pieces


def _pieces(pattern: str) -> list[range | list[str]]:
    """A pattern as pieces in their order, each the choices for it."""
    if len(pattern) > LONGEST_PATTERN:
        raise ValueError(f"a pattern must have at most {LONGEST_PATTERN:,} characters. Received: {len(pattern):,}")
    return list(_found_pieces(pattern))


def _found_pieces(pattern: str) -> Iterator[range | list[str]]:
    end = 0
    for found in _PIECES.finditer(pattern):
        yield from _balanced(pattern[end : found.start()], pattern)
        yield [found[0]] if found[1] else _choices(found[2])
        end = found.end()
    yield from _balanced(pattern[end:], pattern)


def _balanced(text: str, pattern: str) -> Iterator[list[str]]:
    """The text between braces, if there is some."""
    if "{" in text or "}" in text:
        raise ValueError(f"unbalanced braces in {_shown(pattern)}")
    if text:
        yield [text]


def _choices(text: str) -> range | list[str]:
    counted = _RANGE.fullmatch(text)
    if counted:
        first, last = map(int, counted.groups())
        if last < first:
            raise ValueError(f"the range {{{text}}} runs backwards")
        if last - first >= MOST_NAMES:
            raise ValueError(f"the range {{{text}}} counts more than {MOST_NAMES:,} names")
        return range(first, last + 1)
    names = text.split(",")
    if len(names) < 2 or not all(names):
        raise ValueError(f"{{{text:.200}}} must be a range like {{0..11}} or a list like {{q,k}}")
    return names


def _shown(pattern: str) -> str:
    return f"{pattern!r:.200}"


def _bare(text: str) -> str:
    return re.sub(r"\[([{}])\]", r"\1", text)
