"""Words that several checks share. A message names the argument, what was received and what is allowed."""

from __future__ import annotations

import difflib
import math
import numbers
import operator
from collections.abc import Iterable

import numpy as np

_LONGEST_NAME = 100  # characters that are compared with the allowed names
# What others call things that have another name here, or another one in another table.
_SYNONYMS = {
    "swish": "silu",
    "linear": "identity",
    "identity": "linear",
    "logistic": "sigmoid",
    "gelu_new": "gelu_tanh",
    "gaussian": "normal",
}


def unknown(what: str, received: object, allowed: Iterable[str]) -> ValueError:
    """The error for a name that is not in a table: the allowed names in the table's order, and the nearest."""
    names = list(allowed)
    lower = {name.lower(): name for name in names}
    given = str(received)[:_LONGEST_NAME].lower()
    synonym = _SYNONYMS.get(given)
    near = [synonym] if synonym in lower else difflib.get_close_matches(given, lower, n=1)
    hint = f"; did you mean {lower[near[0]]!r}?" if near else "."
    return ValueError(f"unknown {what} {received!r:.200}{hint} Allowed: {', '.join(names) or 'none'}")


def real(name: str, value: object) -> float:
    """The value as a float, which may be infinite or NaN; a TypeError for what is no real number.

    A negative zero becomes zero: the two are equal, and equal laws must draw equal values.
    """
    if type(value) is float:
        return value + 0.0
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a real number. Received: {name}={value!r}")
    try:
        return float(value) + 0.0
    except OverflowError:  # an int beyond float64's range
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]


def finite(name: str, value: object) -> float:
    """The value as a float, or an error: TypeError for what is no real number, ValueError for NaN and infinity."""
    result = real(name, value)
    if not math.isfinite(result):
        raise ValueError(f"{name} must be finite. Received: {name}={value!r}")
    return result


def non_negative(name: str, value: object) -> float:
    """A finite number that is not below zero."""
    result = finite(name, value)
    if result < 0:
        raise ValueError(f"{name} must not be negative. Received: {name}={value!r}")
    return result


def squared(name: str, value: object) -> float:
    """The square of a finite number."""
    result = finite(name, value)
    if not math.isfinite(result * result):
        raise ValueError(f"{name} must have a finite square. Received: {name}={value!r}")
    return result * result


def whole(value: object) -> int:
    """An int, NumPy's too; a TypeError for all else, the caller to give it words. A bool is none."""
    if isinstance(value, (bool, np.bool_)):  # NumPy before 2.3 takes its own for an index, with a warning
        raise TypeError
    return operator.index(value)  # type: ignore[arg-type]


def positive_int(name: str, value: object) -> int:
    """An int, NumPy's too, of at least 1."""
    try:
        number = whole(value)
    except TypeError:
        raise TypeError(f"{name} must be an int. Received: {name}={value!r}") from None
    if number < 1:
        raise ValueError(f"{name} must be positive. Received: {name}={value!r}")
    return number
