"""The distributions that a probe's scheme means, and the search for one that fits better."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from fastinit import schemes
from fastinit._core.distributions import Distribution
from fastinit._core.gains import NONLINEARITIES
from fastinit._probe.results import Probe
from fastinit._probe.verdicts import HEALTHY
from fastinit.nn._activations import Activation
from fastinit.nn._network import FITTING
from fastinit.plan._serialization import label

Scheme = str | Distribution | Sequence[str | Distribution]
AS_IT_IS = "as it is"  # of a model that brought its own weights
HELP = "No usual scheme mends it: fewer layers, residual connections, normalisation or another activation may."


def candidates(activation: Activation) -> tuple[str, ...]:
    """Schemes that may fit an activation: the usual one, then one with the activation's own gain.

    >>> candidates(Activation("gelu")), candidates(Activation("elu"))
    (('he_normal', 'he_normal(nonlinearity="gelu")'), ('he_normal', 'variance_scaling(scale=1.551)'))
    """
    name = activation.name
    own = f'he_normal(nonlinearity="{name}")' if name in NONLINEARITIES else ""
    return FITTING.get(name, "xavier_uniform"), own or f"variance_scaling(scale={activation.gain**2:.4g})"


def advised(found: Probe, schemes: Sequence[str], under: Callable[[str], Probe]) -> Probe:
    """A probe whose verdict names the first of some schemes under which the same network is healthy.

    Args:
        found: left as it is, where it is healthy.
        schemes: to try.
        under: probes the same network and data under a scheme.
    """
    if found.verdict.kind == HEALTHY:
        return found
    fitting = next((scheme for scheme in schemes if under(scheme).verdict.kind == HEALTHY), None)
    text = f"{found.verdict.text} {f'{fitting} fits.' if fitting else HELP}"
    return replace(found, verdict=replace(found.verdict, text=text, fitting=fitting))


def distributions_of(scheme: Scheme, shapes: Sequence[tuple[int, ...]]) -> tuple[list[Distribution], str]:
    """The distribution of every weight, and what they are called together.

    Raises:
        TypeError, ValueError: no such scheme, or not as many as weights.
    """
    each = schemes.per_layer("scheme", scheme, len(shapes))
    distributions = [schemes.as_distribution(one, shape) for one, shape in zip(each, shapes, strict=True)]
    names = dict.fromkeys(
        one.strip() if isinstance(one, str) else label(one, shape) for one, shape in zip(each, shapes, strict=True)
    )
    return distributions, next(iter(names)) if len(names) == 1 else f"{len(names)} schemes"
