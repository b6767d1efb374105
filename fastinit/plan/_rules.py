"""Rules: PATTERN=SCHEME gives the tensors of a plan whose names match a law by their shapes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fastinit import schemes
from fastinit._core.fans import item_shape
from fastinit.plan._fills import Fill, Tied
from fastinit.plan._patterns import LONGEST_PATTERN, matches, near

_AXES = ("layout", "batch_axes")
# What may begin a scheme; the last one counts, for a name may hold others. No part of the text is looked at twice.
_SCHEME = re.compile(r"=(?=\s*+[A-Za-z_]\w*+\s*+(?:(\()|\Z))")
_MOST_DIGITS = 18  # of the number of a layer in a name
LONGEST_RULE = LONGEST_PATTERN + schemes.LONGEST_TEXT  # characters


@dataclass(frozen=True, slots=True)
class Rule:
    """A pattern, as `patterns.matches` takes it, and a scheme with those of its parameters that are given.

    `axes` holds the layout and the batch axes, where they are not to be the tensor's own.
    """

    pattern: str
    scheme: str
    parameters: dict[str, Any]
    axes: dict[str, Any]

    @property
    def label(self) -> str:
        return schemes.describe(self.scheme, {**self.parameters, **self.axes})

    def __str__(self) -> str:
        return f"{self.pattern}={self.label}"

    @property
    def needs_matrices(self) -> bool:
        """Whether the scheme has no law for fewer than two dimensions, though it has one for more."""
        return not self._fits((2,)) and any(map(self._fits, ((2, 2), (2, 2, 2))))

    def _fits(self, shape: tuple[int, ...]) -> bool:
        try:
            schemes.distribution(self.scheme, shape, **self.parameters).check(shape, "float64")
        except (TypeError, ValueError):
            return False
        return True

    def matched(self, names: Iterable[str]) -> list[str]:
        """The names that match.

        Raises:
            ValueError: the pattern is none.
        """
        try:
            return [name for name in names if matches(self.pattern, name)]
        except ValueError as error:
            raise ValueError(f"rule {str(self)!r}: {error}") from None

    def counted(self, names: Collection[str]) -> Rule:
        """The rule with the number of layers, where its scheme wants one that is not given: the different block
        indices in the names, each a name's first component that is an integer, as the 7 of `model.layers.7.weight`.

        Raises:
            ValueError: the names have none, or lie in several stacks, as those of an encoder and a decoder.
        """
        if "layers" in self.parameters or "layers" not in schemes.find(self.scheme).parameters:
            return self
        stacks: dict[str, set[int]] = {}
        for stack, index in filter(None, map(_block, names)):
            stacks.setdefault(stack, set()).add(index)
        if len(stacks) != 1:
            found = ", ".join(f"{len(blocks)} in {stack}" for stack, blocks in stacks.items()) or "none"
            raise ValueError(
                f"rule {str(self)!r}: layers are counted in one stack of blocks; of the names that match there are "
                f"{found}: give layers, or a rule for each"
            )
        (blocks,) = stacks.values()
        return replace(self, parameters={**self.parameters, "layers": len(blocks)})


def parse(text: str) -> Rule:
    """A rule from text.

    Raises:
        ValueError: it is none, its scheme is unknown (the nearest is named), or a parameter is.

    >>> parse("*.{o,down}_proj.weight=normal(std=0.01)")
    Rule(pattern='*.{o,down}_proj.weight', scheme='normal', parameters={'std': 0.01}, axes={})
    """
    called = text[:LONGEST_RULE].rstrip().endswith(")")
    places = [found.start() for found in _SCHEME.finditer(text[:LONGEST_RULE]) if called or not found[1]]
    if len(text) > LONGEST_RULE or not places or not places[-1]:
        raise ValueError(f"a rule must be PATTERN=SCHEME, e.g. '*.bias=zeros'. Received: {text!r:.200}")
    return of(text[: places[-1]], text[places[-1] + 1 :])


def of(pattern: str, scheme: str) -> Rule:
    """The rule of a pattern and a scheme, e.g. "normal(std=0.01)"."""
    try:
        name, parameters = schemes.parse(scheme, _AXES)
    except ValueError as error:
        raise ValueError(f"rule {f'{pattern}={scheme}'!r:.200}: {error}") from None
    axes = {key: parameters.pop(key) for key in _AXES if key in parameters}
    return Rule(pattern, name, parameters, axes)


def _block(name: str) -> tuple[str, int] | None:
    """The stack and the index in it of the block that a name lies in: `model.layers` and 7."""
    parts = name.split(".")
    for i, part in enumerate(parts):
        if part.isascii() and part.isdigit() and len(part) <= _MOST_DIGITS:
            return ".".join(parts[:i]), int(part)
    return None


# --- a plan's tensors ---


def applied(
    tensors: Mapping[str, Fill | Tied], rules: Iterable[str | Rule], scheme: str | None, without_rule: Collection[str]
) -> dict[str, Fill | Tied]:
    """The tensors with the laws that rules give them; arguments and errors are those of `Plan.with_rules`."""
    if isinstance(rules, (str, Mapping)):
        raise TypeError(f"texts must be a list of 'PATTERN=SCHEME'. Received: {rules!r:.200}")
    chosen = {} if scheme is None else _by_scheme(tensors, of("*", scheme), set(without_rule))
    for rule in (text if isinstance(text, Rule) else parse(text) for text in rules):
        matched = rule.matched(tensors)
        targets = [name for name in matched if _replaceable(tensors[name])]
        if not targets:
            kept = f": {matched[0]!r} is tied or holds given values" if matched else near(rule.pattern, tensors)
            raise ValueError(f"rule {str(rule)!r} matches no tensor that is drawn{kept}")
        chosen.update(dict.fromkeys(targets, rule.counted(matched)))
    bare = [name for name in without_rule if name not in chosen]
    if bare:
        raise ValueError(f"{bare[0]!r} has no law ({len(bare):,} tensors have none): give a scheme or a rule")
    return {name: _with_law(name, tensor, chosen.get(name)) for name, tensor in tensors.items()}


def _replaceable(tensor: Fill | Tied) -> bool:
    return isinstance(tensor, Fill) and tensor.replaceable


def _by_scheme(tensors: Mapping[str, Fill | Tied], rule: Rule, without_rule: set[str]) -> dict[str, Rule]:
    """Which rule the tensors get from a scheme for all."""
    rule, matrices, chosen = rule.counted(tensors), rule.needs_matrices, {}
    for name, tensor in tensors.items():
        if isinstance(tensor, Tied) or not tensor.replaceable:
            continue
        if not matrices or len(item_shape(tensor.shape, tensor.layout, tensor.batch_axes)) >= 2:
            chosen[name] = rule
        elif name in without_rule:
            last = name.rpartition(".")[2]
            gain = last == "g" or last.endswith(("weight", "gamma", "scale"))
            chosen[name] = Rule(name, "ones" if gain else "zeros", {}, {})
    return chosen


def _with_law(name: str, tensor: Fill | Tied, rule: Rule | None) -> Fill | Tied:
    if rule is None or isinstance(tensor, Tied):
        return tensor
    axes: dict[str, Any] = {"layout": tensor.layout, "batch_axes": tensor.batch_axes, **rule.axes}
    try:
        found = schemes.distribution(rule.scheme, tensor.shape, **axes, **rule.parameters)
        return Fill(tensor.shape, tensor.dtype, found, rule.label, **axes, persistent=tensor.persistent)
    except (TypeError, ValueError) as error:
        raise ValueError(f"rule {str(rule)!r}: {name!r}: {error}") from None
