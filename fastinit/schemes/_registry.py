"""The table of schemes itself: its rows, and how a name, a shape and parameters become a distribution."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fastinit._core.distributions import Distribution
from fastinit._core.fans import Fans, as_axes, canonical_axes, fans
from fastinit._runtime.arrays import as_shape
from fastinit._runtime.checks import unknown

Lazy = Callable[[], Fans]  # the fans are computed only by the schemes that use them
Row = TypeVar("Row", bound=Callable[..., Distribution])


@dataclass(frozen=True)
class Scheme:
    """A row of the table."""

    name: str
    distribution: Callable[..., Distribution]  # (fans: Lazy, **parameters) -> Distribution
    formula: str
    source: str
    aliases: tuple[str, ...]
    example: tuple[str, str]  # a shape, and the parameters that have no default: what a doctest needs

    @functools.cached_property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """The scheme's own parameters, with their defaults."""
        return dict(list(inspect.signature(self.distribution).parameters.items())[1:])

    def check_names(self, names: Iterable[str], others: Sequence[str] = ()) -> None:
        """Raise TypeError for a name that is neither a parameter of the scheme nor one of `others`."""
        allowed = [*self.parameters, *others]
        for name in names:
            if name not in allowed:
                raise TypeError(str(unknown(f"parameter of {self.name}", name, allowed)))

    @property
    def doc(self) -> tuple[str, str]:
        """The summary, and what the parameters mean."""
        summary, _, parameters = inspect.cleandoc(self.distribution.__doc__ or "").partition("\n\n")
        return summary, parameters


SCHEMES: dict[str, Scheme] = {}  # in the order in which the modules of this package define them
_BY_ANY_NAME: dict[str, Scheme] = {}  # by aliases too


def scheme(
    formula: str, source: str, *, aliases: tuple[str, ...] = (), shape: str = "(3, 4)", example: str = ""
) -> Callable[[Row], Row]:
    """Enter a law into the table."""

    def enter(row: Row) -> Row:
        name = row.__name__
        SCHEMES[name] = Scheme(name, row, formula, source, aliases, (shape, example))
        _BY_ANY_NAME.update(dict.fromkeys((name, *aliases), SCHEMES[name]))
        return row

    return enter


def distribution(
    scheme: str,
    shape: int | Sequence[int],
    *,
    layout: str = "oi",
    batch_axes: int | Sequence[int] = (),
    **parameters: Any,
) -> Distribution:
    """The distribution that a scheme gives a shape.

    Args:
        scheme: a name or an alias of the table, e.g. "he_uniform" or "kaiming_uniform".
        shape, layout, batch_axes: as in the functions of the table.
        parameters: the scheme's own.

    A structured law (orthogonal, dirac, ...) is one over (out, in, *kernel): give `fill` the layout and the batch
    axes too.

    Raises:
        ValueError: an unknown scheme (the names and the nearest are listed), or a shape without fans.

    >>> distribution("he_uniform", (1000, 10))
    Uniform(low=-0.7745966692414834, high=0.7745966692414834)
    """
    return distribution_of(find(scheme).name, as_shape(shape), layout, as_axes(batch_axes), parameters)


def find(name: str) -> Scheme:
    """Return the row of a scheme's name or alias.

    Raises:
        ValueError: an unknown name; the message lists all names, and the nearest.
    """
    if name not in _BY_ANY_NAME:
        raise unknown("scheme", name, _BY_ANY_NAME)
    return _BY_ANY_NAME[name]


def distribution_of(
    name: str, shape: tuple[int, ...], layout: str, batch_axes: tuple[int, ...], parameters: dict[str, Any]
) -> Distribution:
    """`distribution` for a name of the table and checked arguments."""
    try:
        return _remembered(name, shape, layout, batch_axes, **parameters)
    except TypeError:  # a parameter that cannot be hashed: the law's own check says what is wrong with it
        return _made(name, shape, layout, batch_axes, parameters)


@functools.lru_cache(maxsize=4096, typed=True)  # by types too: True is not the 1 that was asked for before
def _remembered(
    name: str, shape: tuple[int, ...], layout: str, batch_axes: tuple[int, ...], /, **parameters: Any
) -> Distribution:
    """A model asks for the law of the same few shapes again and again; making one takes 5 us."""
    return _made(name, shape, layout, batch_axes, parameters)


def _made(
    name: str, shape: tuple[int, ...], layout: str, batch_axes: tuple[int, ...], parameters: dict[str, Any]
) -> Distribution:
    row = SCHEMES[name]
    row.check_names(parameters)
    missing = [p.name for p in row.parameters.values() if p.default is p.empty and p.name not in parameters]
    if missing:
        raise TypeError(f"{name} needs the parameter {missing[0]!r}")
    canonical_axes(len(shape), layout, batch_axes)
    return row.distribution(lambda: fans(shape, layout, batch_axes), **parameters)


def table() -> str:
    """The table in Markdown, as `docs/schemes.md` shows it.

    >>> print(table().splitlines()[2])
    | `zeros` | 0 |  | A baseline |
    """
    lines = ["| scheme | distribution | parameters | source |", "| --- | --- | --- | --- |"]
    for scheme in SCHEMES.values():
        names = ", ".join(f"`{name}`" for name in (scheme.name, *scheme.aliases))
        shown = [p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in scheme.parameters.values()]
        parameters = f"`{', '.join(shown)}`" if shown else ""
        lines.append(f"| {names} | {scheme.formula} | {parameters} | {scheme.source} |")
    return "\n".join(lines)
