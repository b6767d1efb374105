"""Patterns of names: `{0..11}` counts and `{q,k,v}` lists, as in a shell; `*`, `?` and `[..]` match.

`[{]` and `[}]` are the braces themselves.
"""

from __future__ import annotations

import fnmatch
import functools
import itertools
import math
import re
from collections.abc import Iterable

_MOST_NAMES = 1_000_000  # no model has as many; a slip of the keyboard has
_PIECES = re.compile(r"(\[[{}]\])|\{((?:\[[{}]\]|[^{}])*)\}")  # a brace itself, or what stands between two


def expand(pattern: str) -> Iterable[str]:
    """The names that a pattern stands for; only braces have a meaning.

    Raises:
        ValueError: empty or unbalanced braces, or a range that runs backwards.

    >>> list(expand("h.{0..1}.{q,k}.weight"))
    ['h.0.q.weight', 'h.0.k.weight', 'h.1.q.weight', 'h.1.k.weight']
    """
    if "{" not in pattern and "}" not in pattern:
        return [pattern]
    choices = [[_bare(choice) for choice in piece] for piece in _pieces(pattern)]
    if math.prod(map(len, choices)) > _MOST_NAMES:
        raise ValueError(f"{pattern!r} stands for more than {_MOST_NAMES:,} names")
    return map("".join, itertools.product(*choices))


def escape(name: str) -> str:
    """The pattern that stands for one name, whatever is in it.

    >>> escape("a{0..1}"), list(expand(escape("a{0..1}")))
    ('a[{]0..1[}]', ['a{0..1}'])
    """
    return re.sub(r"[{}]", r"[\g<0>]", name)


def matches(pattern: str, name: str) -> bool:
    """Whether a whole name is one of those that a pattern means: `*` is any text, `?` any character, `[a-c]` one of
    some, `[!a-c]` one of the others; and braces as in `expand`. Case counts.

    Raises:
        ValueError: a pattern that is none.

    >>> [matches("*.{o,down}_proj.weight", name) for name in ("h.0.o_proj.weight", "h.0.q_proj.weight")]
    [True, False]
    """
    return _compiled(pattern).fullmatch(name) is not None


@functools.lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    pieces = ("|".join(map(_expression, piece)) for piece in _pieces(pattern))
    return re.compile("".join(f"(?:{piece})" for piece in pieces))


def _pieces(pattern: str) -> list[list[str]]:
    """A pattern as pieces in their order, each a list of the choices for it."""
    pieces, end = [], 0
    for found in _PIECES.finditer(pattern):
        pieces += [[pattern[end : found.start()]], [found[0]] if found[1] else _choices(found[2])]
        end = found.end()
    pieces.append([pattern[end:]])
    if any(brace in _PIECES.sub("", text) for piece in pieces for text in piece for brace in "{}"):
        raise ValueError(f"unbalanced braces in {pattern!r}")
    return pieces


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
        raise ValueError(f"{{{text}}} must be a range like {{0..11}} or a list like {{q,k}}")
    return names


def _bare(text: str) -> str:
    return re.sub(r"\[([{}])\]", r"\1", text)


def _expression(glob: str) -> str:
    """Return a pattern without braces as a regular expression, without the end of the text that fnmatch puts behind."""
    translated = fnmatch.translate(glob)
    return translated[: translated.rindex(")") + 1]
