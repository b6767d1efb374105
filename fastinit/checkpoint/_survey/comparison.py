"""A tensor compared with the distribution that was planned for it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from fastinit._core.composite import Cast, SameAs, Values
from fastinit._core.distributions import Distribution, TruncatedNormal
from fastinit._io.safetensors import Stored
from fastinit.plan._plan import Plan
from fastinit.plan._serialization import label
from fastinit.stats._fitting import ALPHA, FEWEST, Sample, distance, inside, reaches, rounding, same_moments
from fastinit.stats._summary import Summary

AS_PLANNED, DIFFERS = "as planned", "differs from the plan"


class PlanComparison(NamedTuple):
    """A verdict in words; the planned distribution where it is elementwise, and a sample's distance from it."""

    verdict: str = ""
    planned: Distribution | None = None
    ks: float = math.nan
    p: float = math.nan


def in_words(distribution: Distribution | None) -> str:
    """Return a distribution as a scheme's text, with 4 digits of its parameters; nothing for None.

    >>> from fastinit import Normal
    >>> in_words(Normal(0, 0.02))
    'normal(std=0.02)'
    """
    return "" if distribution is None else label(distribution, (1,), digits=4)


def compare(plan: Plan, name: str, stored: Stored, found: Summary, sample: Sample | None) -> PlanComparison:
    """Compare a tensor of a file with a plan. The caller's verdict says how many numbers are not finite.

    Args:
        plan: the plan.
        name: the tensor's.
        stored: its dtype and shape in the file.
        found: of all its elements.
        sample: of its elements; None of a dtype that nothing is drawn in.
    """
    if name not in plan:
        return PlanComparison("missing in the plan")
    tensor = plan.of(name)
    if stored.shape != tensor.shape:
        return PlanComparison(f"differs from the plan: shape {list(stored.shape)} instead of {list(tensor.shape)}")
    if stored.dtype != tensor.dtype:
        return PlanComparison(f"differs from the plan: {stored.dtype} instead of {tensor.dtype}")
    planned, dtype = _elementwise(tensor.distribution, tensor.dtype)
    if planned is None or sample is None:
        if isinstance(tensor.distribution, Values):
            return PlanComparison("given values: not compared")
        return PlanComparison(
            _differs([]) if found.nonfinite else f"planned {tensor.scheme}: not told by its numbers alone"
        )
    ks, p = distance(sample, planned, dtype)
    words = _words(planned, dtype, found, ks, p)
    if found.nonfinite and not words.startswith(_differs([])):  # no distribution draws such numbers
        words = _differs([])
    return PlanComparison(words, planned, ks, p)


def _elementwise(drawn: Distribution, dtype: str) -> tuple[Distribution | None, str]:
    """The distribution whose draws the elements are, one by one, and the dtype that rounded them most."""
    while isinstance(drawn, Cast | SameAs):
        if isinstance(drawn, Cast):
            dtype = min(dtype, drawn.dtype, key=lambda name: np.dtype(name).itemsize)
        drawn = drawn.distribution
    if isinstance(drawn, TruncatedNormal):
        drawn = drawn.simplest
    return (None if drawn.structured else drawn), dtype


def _words(planned: Distribution, dtype: str, found: Summary, ks: float, p: float) -> str:
    number = found.count - found.nonfinite
    if not number:
        return AS_PLANNED
    ends, packed = f"from {found.min:.4g} to {found.max:.4g}", planned.pack(dtype)
    if packed.law == "constant":
        (value,) = packed.numbers
        if found.min == found.max == value:
            return AS_PLANNED
        return _differs([f"{ends} instead of {value:.4g} everywhere"])
    if not inside(found, planned, dtype):
        low, high = planned.low, planned.high  # type: ignore[attr-defined]
        return _differs([f"{ends}, beyond {low:.4g} to {high:.4g}"])
    if number < FEWEST:
        return "too few elements to tell"
    problems = [
        f"{what} {is_:.4g} instead of {should:.4g}"
        for what, is_, should, same in zip(
            ("mean", "std"),
            (found.mean, found.std),
            (planned.mean, planned.std),  # type: ignore[attr-defined]
            same_moments(found, planned, rounding(planned, dtype)),
            strict=True,
        )
        if not same
    ]
    if not problems and p < ALPHA:
        problems = [f"another law than {in_words(planned)}, KS {ks:.4f}"]
    if not problems and not reaches(found, planned, dtype):
        problems = [f"{ends}, where {number:,} numbers of {in_words(planned)} do not end"]
    return _differs(problems) if problems else AS_PLANNED


def _differs(problems: list[str]) -> str:
    return f"{DIFFERS}{': ' if problems else ''}{', '.join(problems)}"
