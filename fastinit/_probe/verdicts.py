"""The numbers of a probe in plain words: what vanishes, what explodes, which scheme would fit.

The rules are few and coarse, and stand here alone. Layers are compared with layers of their kind and role (dense with
dense, ReLU with ReLU, the queries of a block with those of another), the first with the last, since an embedding, a
normalised output, and the gradients of queries and values have other sizes by design.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence

from fastinit._probe.records import Layer, Verdict

# From the first layer to the last: less than 1 % is left, or it is over a hundred times as large. Healthy networks of
# narrow layers stray by a factor of 3 to 10 at a depth of 50 (64 units; the log of the norm is a random walk).
LIMIT = 100.0
# A layer, on average: shallow networks do not reach the limit, but learn badly from here on. Of gradients this is asked
# between layers of one width only, as they change with the widths by design.
PER_LAYER = 3.0
SATURATED = 0.5  # share of a layer's outputs

HEALTHY, EXPLODING, VANISHING, SYMMETRIC, SATURATING = "healthy", "exploding", "vanishing", "symmetric", "saturated"
ORDER = (EXPLODING, VANISHING, SYMMETRIC, SATURATING)  # the worst first

Finding = tuple[str, str]  # its kind, and a sentence


def judge(layers: Sequence[Layer], reference: float | None) -> Verdict:
    """The verdict on the layers of a network, in the order in which they ran, the output last.

    Args:
        layers: at least one.
        reference: the root mean square of what the first layer read, at most 1 where activations are bounded; None
            where it cannot be compared.
    """
    hidden = list(layers[:-1]) or list(layers)
    groups = _groups(hidden)
    forward = _extreme([[layer.activations.rms for layer in group] for group in groups])
    opening = [layer.name for layer in layers if _opens(layer)]
    returning = [[layer.gradients.rms for layer in reversed(group)] for group in groups]
    if opening:  # what is behind them has no gradient yet
        returning = [[size for size in sizes if size] for sizes in returning]
    backward = _extreme(returning)
    steps = max(map(len, groups)) - 1
    even = steps if len({layer.units for group in groups for layer in group}) == 1 else None
    found = [
        *_forward(hidden, layers[-1], forward, reference, steps),
        *(() if opening and not hidden[0].gradients.rms else _backward(hidden, backward, even)),
        *_symmetric(hidden),
        *_saturated(hidden),
    ]
    found.sort(key=lambda finding: ORDER.index(finding[0]))
    kinds = tuple(dict(found)) or (HEALTHY,)
    text = " ".join(sentence for _, sentence in found) or (
        f"Through the hidden layers activations change by {forward:.2g}x, gradients on their way back by "
        f"{backward:.2g}x."
    )
    if opening:
        text += f" {_named(opening)} start at zero: what is behind learns from the second step on."
    return Verdict(kinds, text, forward, backward, None)


def _opens(layer: Layer) -> bool:
    """Whether a layer starts at zero by design: its first step makes weights of it, and lets gradients through."""
    weights, gradients = layer.weights, layer.weight_gradients
    return weights is not None and gradients is not None and weights.rms == 0 < gradients.rms


def _groups(layers: Sequence[Layer]) -> list[list[Layer]]:
    """The layers that are compared, those groups with several: of one kind and role, or of one kind; else the first
    alone. One layer of each kind (an embedding, a recurrent layer) is no trend."""
    for key in (lambda layer: (layer.kind, _role(layer.name)), lambda layer: layer.kind):
        groups = [group for group in _by(key, layers) if len(group) > 1]
        if groups:
            return groups
    return [[layers[0]]]


def _role(name: str) -> str:
    """A name without its first number: "layers.0.query" is what "layers.1.query" is."""
    return re.sub(r"\d+", "", name.partition("#")[0], count=1)


def _by(key: Callable[[Layer], object], layers: Sequence[Layer]) -> list[list[Layer]]:
    groups: dict[object, list[Layer]] = {}
    for layer in layers:
        groups.setdefault(key(layer), []).append(layer)
    return list(groups.values())


def _extreme(groups: Sequence[Sequence[float]]) -> float:
    """Of the factors of some groups the one that is the furthest from 1. Groups that are all 0 count where there are no
    others: residual branches begin so by design."""
    factors = [_growth(sizes) for sizes in groups if any(sizes)] or [0.0]
    return max(factors, key=lambda factor: abs(math.log(factor)) if 0 < factor < math.inf else math.inf)


def _growth(sizes: Sequence[float]) -> float:
    """The last over the first. From nothing to nothing is 0, what is infinite on the way is infinite."""
    if any(not math.isfinite(size) for size in sizes):
        return math.inf
    return sizes[-1] / sizes[0] if sizes[0] > 0 else 0.0


def _forward(
    hidden: Sequence[Layer], output: Layer, growth: float, reference: float | None, steps: int
) -> Iterator[Finding]:
    overflown = [layer.name for layer in hidden if not math.isfinite(layer.activations.rms)]
    if overflown:
        yield EXPLODING, f"Activations leave the range of the dtype in {overflown[0]}."
        return
    alive = [i for i, layer in enumerate([*hidden, output]) if layer.activations.rms > 0]
    first = alive[-1] + 1 if alive else 0
    if first < len(hidden):
        yield VANISHING, f"Activations are all 0 from {hidden[first].name} on."
        return
    spans = [(growth, steps, "from the first hidden layer to the last")]
    if reference:
        entry = hidden[0].activations.rms / reference
        spans.append((entry * growth, steps + 1, "from the data to the last hidden layer"))
    for factor, layers, span in spans:
        if change := _change(factor, layers):
            kind, word = change
            each = f"{factor ** (1 / layers):.2g}x a layer, " if layers > 1 else ""
            yield kind, f"Activations {word}: {each}{factor:.2g}x {span}."
            return


def _backward(hidden: Sequence[Layer], growth: float, steps: int | None) -> Iterator[Finding]:
    if any(not math.isfinite(layer.gradients.rms) for layer in hidden):
        yield EXPLODING, "Gradients leave the range of the dtype."
    elif hidden[0].gradients.rms == 0:
        reached = [layer.name for layer in hidden if layer.gradients.rms > 0]
        where = f"the layers before {reached[0]}" if reached else "any hidden layer"
        yield VANISHING, f"No gradient reaches {where}."
    elif change := _change(growth, steps):
        kind, word = change
        each = f"{growth ** (1 / steps):.2g}x a layer, " if steps and steps > 1 else ""
        yield kind, f"Gradients {word}: {each}{growth:.2g}x from the last hidden layer to the first."


def _change(factor: float, steps: int | None) -> Finding | None:
    """Whether a factor over so many steps is out of bounds; None steps where a layer's share tells nothing."""
    each = factor ** (1 / steps) if steps else 1.0
    if factor > LIMIT or each > PER_LAYER:
        return EXPLODING, "grow"
    if factor < 1 / LIMIT or each < 1 / PER_LAYER:
        return VANISHING, "shrink"
    return None


def _symmetric(hidden: Sequence[Layer]) -> Iterator[Finding]:
    # Where a signal dies or overflows on its way, units are alike too, but only for that reason.
    same = [
        layer.name
        for i, layer in enumerate(hidden)
        if layer.alike == 1 and math.isfinite(layer.activations.rms) and (layer.activations.rms > 0 or i == 0)
    ]
    if same:
        yield SYMMETRIC, f"In {_named(same)} all units compute the same, and will go on so: they learn as one."


def _saturated(hidden: Sequence[Layer]) -> Iterator[Finding]:
    worst = max(hidden, key=lambda layer: layer.saturated or 0.0)
    if (worst.saturated or 0.0) > SATURATED:
        yield SATURATING, f"{worst.saturated:.0%} of the outputs of {worst.name} lie at an end of their range."


def _named(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
