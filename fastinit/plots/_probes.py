"""What pictures of several probes share: which they are, and what they are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from fastinit._probe.results import Comparison, Probe
from fastinit.plots._style import shortened

Probes: TypeAlias = Probe | Comparison | Iterable[Probe]


def as_probes(given: Any) -> tuple[Probe, ...]:
    """One probe, those of a comparison, or a list of them.

    Raises:
        TypeError: something else.
        ValueError: none.
    """
    found = (given,) if isinstance(given, Probe) or not isinstance(given, Iterable) else tuple(given)
    if not all(isinstance(one, Probe) for one in found):
        raise TypeError(f"probes must be a Probe, a Comparison, or several probes. Received: {given!r:.200}")
    if not found:
        raise ValueError("probes must not be empty")
    return found


def labels(probes: Sequence[Probe], *, verdicts: bool = False) -> list[str]:
    """What tells probes apart, and what was found of each."""
    differ = [len({_parts(probe)[i] for probe in probes}) > 1 for i in range(2)]
    found: list[str] = []
    seen: Counter[str] = Counter()
    for probe in probes:
        parts = [part for part, shown in zip(_parts(probe), differ, strict=True) if part and shown]
        name = ", ".join([*map(shortened, parts), shortened(probe.scheme)])
        seen[name] += 1
        name = f"{name} ({seen[name]})" if seen[name] > 1 else name
        found.append(f"{name}: {', '.join(probe.verdict.kinds)}" if verdicts else name)
    return found


def common_title(probes: Sequence[Probe]) -> str:
    """What all probes are of."""
    common = [parts[0] for i in range(2) if len(parts := list({_parts(probe)[i] for probe in probes})) == 1]
    samples = {probe.samples for probe in probes}
    told = [f"{samples.pop():,} samples"] if len(samples) == 1 else []
    return ", ".join([*(shortened(part, 60) for part in common if part), *told])


def _parts(probe: Probe) -> tuple[str, str]:
    return probe.network, probe.activation or ""
