"""Patterns of names: `{0..11}` counts and `{q,k,v}` lists, as in a shell; `*`, `?` and `[..]` match.

`[{]` and `[}]` are the braces themselves.
"""

from __future__ import annotations

import difflib
import fnmatch
import functools
import itertools
import math
import operator
import re
from collections.abc import Iterable, Iterator
from typing import TypeAlias

from fastinit._io.documents import MOST_NAMES

LONGEST_PATTERN = 100_000  # characters; a list of a thousand names takes 50,000
_LONGEST_COMPARED, _MOST_COMPARED, _MOST_ENDS = 200, 10_000, 500  # characters, names: `near` takes 0.1 s at most
_PIECES = re.compile(r"(\[[{}]\])|\{((?:\[[{}]\]|[^{}])*+)\}")  # a brace itself, or what stands between two
_RANGE = re.compile(r"(\d{1,100})\.\.(\d{1,100})")
_GLOB = re.compile(r"\[!?+\]?+[^\]]*+\]|[^\[]++|\[")  # a class of characters, or what is none


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

    The time is at most proportional to the product of the two lengths. A pattern that stands for few others is a
    regular expression of these, which `fnmatch` makes without backtracking. Of others `_Name` follows all ways at once.

    Raises:
        ValueError: a pattern that is none.

    >>> [matches("*.{o,down}_proj.weight", name) for name in ("h.0.o_proj.weight", "h.0.q_proj.weight")]
    [True, False]
    """
    compiled = _compiled(pattern)
    if isinstance(compiled, re.Pattern):
        return compiled.match(name) is not None
    found, reached = _Name(name), 1  # bit i: the pieces so far match the first i characters
    for choices in compiled:
        if isinstance(choices, range):
            reached = found.after_number(choices, reached)
        else:
            reached = functools.reduce(operator.or_, [found.after(choice, reached) for choice in choices])
    return bool(reached >> len(name) & 1)


def near(pattern: str, names: Iterable[str]) -> str:
    """What an error adds where a pattern matches none of the names: one that does, with another prefix or nearly the
    same end; an empty text if there is none, or the pattern or the names are many.

    >>> near("q_proj.weight", ["model.layers.0.self_attn.q_proj.weight"])
    "; did you mean '*.q_proj.weight'?"
    """
    if len(pattern) > _LONGEST_COMPARED:
        return ""
    some = list(itertools.islice(names, _MOST_COMPARED))
    first, _, rest = pattern.partition(".")
    tried = [f"*.{pattern}", f"*{pattern}", *([rest] if rest and "{" not in first else [])]
    found = next((other for other in tried if any(matches(other, name) for name in some)), None)
    if found is None:
        ends = {_end(name): name for name in some if len(name) <= _LONGEST_COMPARED}
        close = difflib.get_close_matches(_end(pattern), itertools.islice(ends, _MOST_ENDS), n=1, cutoff=0.75)
        found = ("" if close[0] == ends[close[0]] else "*.") + escape(close[0]) if close else None
    return "" if found is None else f"; did you mean {found!r}?"


def nearest(name: str, names: Iterable[str]) -> str:
    """What an error adds for a name that is none of the names: one with another prefix, or one spelt nearly the same;
    an empty text if there is none, or the name or the names are many.

    >>> nearest("q_proj.weight", ["layers.0.q_proj.weight"]), nearest("embed.wieght", ["embed.weight"])
    ("; did you mean 'layers.0.q_proj.weight'?", "; did you mean 'embed.weight'?")
    """
    if not name or len(name) > _LONGEST_COMPARED:
        return ""
    some = [other for other in itertools.islice(names, _MOST_COMPARED) if len(other) <= _LONGEST_COMPARED]
    found = [other for other in some if other.endswith(f".{name}") or name.endswith(f".{other}")]
    found = found or difflib.get_close_matches(name, some[:_MOST_ENDS], n=1, cutoff=0.75)
    return f"; did you mean {found[0]!r}?" if found else ""


def _end(name: str) -> str:
    """The last two components of a name."""
    return ".".join(name.split(".")[-2:])


# --- matching ---

_Glob: TypeAlias = "list[str | re.Pattern[str]]"  # "*", "?", a literal character after a "=", a class of characters


_MOST_TEXT = 10_000  # characters of all patterns that one with braces stands for, to make a regular expression of them


@functools.lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str] | list[range | list[_Glob]]:
    pieces = _pieces(pattern)
    if math.prod(map(len, pieces)) * len(pattern) <= _MOST_TEXT:
        globs = map("".join, itertools.product(*(map(str, piece) for piece in pieces)))
        return re.compile("|".join(map(fnmatch.translate, globs)))
    return [piece if isinstance(piece, range) else list(map(_parts, piece)) for piece in pieces]


def _parts(glob: str) -> _Glob:
    """A pattern without braces as its parts."""
    parts: _Glob = []
    end = glob.rfind("]") + 1  # no class ends after it
    for found in _GLOB.finditer(glob, 0, end):
        text = found[0]
        if text[0] == "[" and len(text) > 1:
            parts.append(re.compile(fnmatch.translate(text)))
        else:
            parts += _plain(text)
    return parts + _plain(glob[end:])


def _plain(glob: str) -> _Glob:
    return [character if character in "*?" else f"={character}" for character in glob]


class _Name:
    """A name, and where in it what a pattern needs is found; places are bits of integers."""

    def __init__(self, text: str) -> None:
        self._text, self._all = text, (1 << len(text) + 1) - 1
        self._places: dict[object, int] = {}
        for i, character in enumerate(text):
            key = f"={character}"
            self._places[key] = self._places.get(key, 0) | 1 << i
        self._characters = tuple(self._places.items())

    def after(self, glob: _Glob, reached: int) -> int:
        """Where a pattern may end that begins at one of some places."""
        for part in glob:
            if part == "*":
                reached = self._all & -(reached & -reached)  # the lowest place and all above it
            elif part == "?":
                reached = reached << 1 & self._all
            else:
                reached = (reached & self._where(part)) << 1
        return reached

    def _where(self, part: str | re.Pattern[str]) -> int:
        """The places of a character, or of those in a class."""
        if isinstance(part, str):
            return self._places.get(part, 0)
        if part not in self._places:
            same = [places for key, places in self._characters if part.match(str(key)[1:])]
            self._places[part] = functools.reduce(operator.or_, same, 0)
        return self._places[part]

    def after_number(self, numbers: range, reached: int) -> int:
        """Where one of some numbers may end, spelled as `str` does."""
        found = 0
        for digits in range(len(str(numbers[0])), len(str(numbers[-1])) + 1):
            key = numbers, digits
            if key not in self._places:
                starts = range(len(self._text) - digits + 1)
                here = (1 << i for i in starts if _is_one(self._text[i : i + digits], numbers))
                self._places[key] = functools.reduce(operator.or_, here, 0)
            found |= (reached & self._places[key]) << digits
        return found


def _is_one(text: str, numbers: range) -> bool:
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
