"""Gains: the factor by which a layer's weights make up for its activation."""

from __future__ import annotations

import math

from fastinit._runtime.checks import squared, unknown

# E[f(z)^2], z ~ N(0, 1): He et al. (2015), section 2.2, with f in the place of relu, so that a layer keeps the second
# moment. For gelu (Hendrycks & Gimpel 2016) there is a closed form; for silu (Elfwing, Uchibe, Doya 2018) it is an
# integral. The tests compute both again with SciPy.
_SQUARED = {
    "linear": 1.0,
    "sigmoid": 1.0,
    "tanh": 25 / 9,
    "relu": 2.0,
    "leaky_relu": math.nan,  # depends on its slope
    "selu": 9 / 16,
    "gelu": 1 / (1 / 3 + 1 / (2 * math.pi * math.sqrt(3))),
    "silu": 1 / 0.3557755198173522,
}
NONLINEARITIES = tuple(_SQUARED)


def gain_squared(nonlinearity: str, slope: float = 0.01) -> float:
    """Return `gain` squared, which is what the variances take: 2 for relu, exactly."""
    leaky = 2 / (1 + squared("slope", slope))
    if nonlinearity not in _SQUARED:
        raise unknown("nonlinearity", nonlinearity, NONLINEARITIES)
    return leaky if nonlinearity == "leaky_relu" else _SQUARED[nonlinearity]


def gain(nonlinearity: str, slope: float = 0.01) -> float:
    """The factor by which a layer's weights make up for its activation.

    Args:
        nonlinearity: linear, sigmoid (1), tanh (5/3), relu (sqrt 2), leaky_relu (sqrt(2 / (1 + slope^2))), selu
            (3/4), as `torch.nn.init.calculate_gain`; gelu and silu by He's second moment, 1 / sqrt(E[f(z)^2]).
        slope: of leaky_relu's negative side; the others ignore it.

    Raises:
        ValueError: an unknown name.

    >>> gain("relu"), gain("tanh")
    (1.4142135623730951, 1.6666666666666667)
    """
    return math.sqrt(gain_squared(nonlinearity, slope))
