"""Schemes as text: "normal(std=0.01)", read and written, and one scheme or several for the layers of a network."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from fastinit._core.distributions import Distribution
from fastinit.schemes._registry import distribution, find

LONGEST_TEXT = 1_000  # characters; Python's parser and the walk over its tree go deeper with every one


def parse(text: str, others: Sequence[str] = ()) -> tuple[str, dict[str, Any]]:
    """Return the name and the parameters in a scheme's text: a name alone, or a call of literals.

    Args:
        text: as people write it.
        others: parameters that are allowed beside the scheme's own.

    Raises:
        ValueError: it is neither, or the scheme or a parameter is unknown (the nearest is named).

    >>> parse("normal(std=0.01)")
    ('normal', {'std': 0.01})
    """
    wrong = ValueError(f"a scheme must be NAME or NAME(parameter=value, ...). Received: {text!r:.200}")
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"{wrong}, of {len(text):,} characters: at most {LONGEST_TEXT:,} are allowed")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        call = ast.Call(tree, [], []) if isinstance(tree, ast.Name) else tree
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise wrong
        pairs = [(keyword.arg, ast.literal_eval(keyword.value)) for keyword in call.keywords]
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise wrong from None
    name, parameters = call.func.id, {key: value for key, value in pairs if key is not None}
    if len(parameters) < len(pairs):  # twice the same, or **
        raise wrong
    try:
        find(name).check_names(parameters, others)
    except TypeError as error:
        raise ValueError(str(error)) from None
    return name, parameters


def describe(scheme: str, parameters: dict[str, Any], digits: int = 6) -> str:
    """Return a scheme with those of its parameters that are not the defaults.

    >>> describe("normal", {"mean": 0.0, "std": 0.02})
    'normal(std=0.02)'
    """
    known = find(scheme).parameters
    given = {name: value for name, value in parameters.items() if name not in known or value != known[name].default}
    shown = {name: f"{value:.{digits}g}" if isinstance(value, float) else value for name, value in given.items()}
    return f"{scheme}({', '.join(f'{name}={value}' for name, value in shown.items())})" if shown else scheme


def as_distribution(given: str | Distribution, shape: Sequence[int], **axes: Any) -> Distribution:
    """Return a distribution as it is, or the one that a scheme's text gives a shape.

    Args:
        given: a distribution, or text as `parse` takes it.
        shape: of the tensor.
        axes: `layout` and `batch_axes`, as in `distribution`.

    Raises:
        TypeError, ValueError: neither, or a scheme that is unknown or not for this shape.

    >>> as_distribution("he_normal(mode='fan_out')", (8, 2))
    Normal(mean=0.0, std=0.5)
    """
    if isinstance(given, Distribution):
        return given
    if not isinstance(given, str):
        raise TypeError(f"distribution must be a scheme's name or a distribution. Received: {given!r:.200}")
    name, parameters = parse(given)
    return distribution(name, shape, **axes, **parameters)


def per_layer(name: str, given: Any, layers: int) -> Sequence[str | Distribution]:
    """Return the scheme or distribution of each layer, from one for all or a sequence with one for each.

    Args:
        name: what messages call the argument.
        given: a scheme's text, a distribution, or a sequence of those.
        layers: how many there are.

    Raises:
        TypeError, ValueError: something else, or not as many as layers.
    """
    each = [given] * layers if isinstance(given, str | Distribution) else given
    if not isinstance(each, Sequence) or not all(isinstance(one, str | Distribution) for one in each):
        raise TypeError(
            f"{name} must be a scheme's name, a distribution, or a sequence of them. Received: {given!r:.200}"
        )
    if len(each) != layers:
        raise ValueError(f"{name} must be one, or one for each of {layers} layers. Received: {len(each)}")
    return each
