"""ONE table of activations, and an activation as frozen, checked data. Its values and slopes are the kernels'."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fastinit._core.gains import gain as gain_of
from fastinit._native.catalogue import KEEPS
from fastinit._native.library import kernel
from fastinit._native.records import ACTIVATION_PARAMETERS
from fastinit._runtime.arrays import FLOATS, address, check_form, check_source, check_target
from fastinit._runtime.checks import non_negative, squared, unknown

Floats = NDArray[np.float32] | NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    formula: str
    source: str
    parameters: dict[str, float] = field(default_factory=dict)  # the defaults


def _elu_gain(alpha: float) -> float:
    """By He's second moment: 1/2 + alpha^2 (e^2 Phi(-2) - 2 sqrt(e) Phi(-1) + 1/2)."""
    below = math.exp(2) * math.erfc(math.sqrt(2)) / 2 - math.sqrt(math.e) * math.erfc(math.sqrt(0.5)) + 0.5
    return 1 / math.sqrt(0.5 + squared("alpha", alpha) * below)


_GELU = "Hendrycks & Gimpel, arXiv:1606.08415, 2016"

# Name -> row. What a layer keeps is the kernels' matter: `catalogue.KEEPS`.
ACTIVATIONS: dict[str, Row] = {
    "identity": Row("z", "A baseline"),
    "relu": Row("max(z, 0)", "Nair & Hinton, ICML 2010"),
    "leaky_relu": Row("z, slope z below 0", "Maas, Hannun, Ng, ICML 2013", {"slope": 0.01}),
    "elu": Row("z, alpha (e^z - 1) below 0", "Clevert, Unterthiner, Hochreiter, ICLR 2016", {"alpha": 1.0}),
    "selu": Row("scale elu(z)", "Klambauer, Unterthiner, Mayr, Hochreiter, NeurIPS 2017"),
    "sigmoid": Row("1 / (1 + e^-z)", "Rumelhart, Hinton, Williams, Nature 323, 1986"),
    "tanh": Row("tanh z", "LeCun, Bottou, Orr, Mueller, Efficient BackProp, 1998"),
    "softplus": Row("log(1 + e^z)", "Dugas et al., NIPS 2000"),
    "gelu": Row("z Phi(z)", _GELU),
    "gelu_tanh": Row("gelu, Phi by a tanh", _GELU),
    "silu": Row("z sigmoid(z)", "Elfwing, Uchibe, Doya, Neural Networks 107, 2018"),
}


# Gains that `fastinit.gain` does not have, by He's second moment. The two numbers are integrals E[f(z)^2], z ~ N(0, 1),
# without closed form; the tests compute them again with SciPy.
_GAINS: dict[str, Callable[..., float]] = {
    "identity": lambda: 1.0,
    "elu": _elu_gain,
    "softplus": lambda: 1 / math.sqrt(0.9212459088593003),
    "gelu_tanh": lambda: 1 / math.sqrt(0.42519371103309945),
}


@dataclass(frozen=True)
class Activation:
    """A function of every unit of a layer: a name of the table and its parameters. Made by `activation`.

    Args:
        name: identity, relu, leaky_relu, elu, selu, sigmoid, tanh, softplus, gelu (z Phi(z), the erf form), gelu_tanh
            or silu.
        parameters: (name, value) pairs; those left out take their defaults. leaky_relu's slope and elu's alpha may be
            0 but not negative: f' is read off the sign of the output.

    Raises:
        ValueError: an unknown name, a parameter that is negative or not finite.
        TypeError: a parameter that the activation does not take, or that is no real number.

    >>> relu = Activation("relu")
    >>> relu(np.array([-1.0, 2.0]))
    array([0., 2.])
    >>> relu.derivative(relu(np.array([-1.0, 2.0])))
    array([0., 1.])
    """

    name: str
    parameters: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if self.name not in ACTIVATIONS:
            raise unknown("activation", self.name, ACTIVATIONS)
        defaults = ACTIVATIONS[self.name].parameters
        given = dict(self.parameters)
        for parameter in given:
            if parameter not in defaults:
                raise TypeError(str(unknown(f"parameter of {self.name}", parameter, defaults)))
        checked = tuple((parameter, non_negative(parameter, value)) for parameter, value in (defaults | given).items())
        object.__setattr__(self, "parameters", checked)

    @property
    def keeps(self) -> str:
        """What a layer keeps for the way back: "output", y = f(z), or "input", z."""
        return KEEPS[self.name]

    @property
    def gain(self) -> float:
        """The factor by which a layer's weights make up for it: `gain`'s, or by He's second moment."""
        return _GAINS.get(self.name, functools.partial(gain_of, self.name))(**dict(self.parameters))

    @property
    def source(self) -> str:
        """The paper."""
        return ACTIVATIONS[self.name].source

    @property
    def packed(self) -> NDArray[np.float64]:
        """The parameters as the kernels read them."""
        values = np.zeros(ACTIVATION_PARAMETERS)
        values[: len(self.parameters)] = [value for _, value in self.parameters]
        return values

    def __call__(self, z: Floats, out: Floats | None = None) -> Floats:
        """f(z), element by element.

        Args:
            z: float32 or float64, any shape and strides; not changed, unless it is `out`.
            out: where to write, of z's shape and dtype; a new array if None.

        Raises:
            TypeError, ValueError: a `z` or `out` that is not as said.
        """
        check_source(z, "z", FLOATS)
        if out is None:
            out = np.empty_like(z, order="C", subok=False)
        else:
            check_form(out, "out", z.shape, z.dtype)
            check_target(out)
        result = out if out.flags.carray else np.empty_like(z, order="C", subok=False)
        if self.keeps == "output":
            kept = result
            kept[...] = z
        else:
            kept = z.copy(order="C")
        columns = z.shape[-1] if z.ndim else 1
        bias = np.zeros(columns, z.dtype)
        if z.size:
            packed = self.packed
            run = kernel("nn.activations.forward_kernel", self.name, z.dtype.name)
            run.call(*map(address, (kept, result, bias)), z.size // columns, columns, columns, address(packed))
        if result is not out:
            out[...] = result
        return out

    def derivative(self, kept: Floats) -> Floats:
        """f' from what a layer keeps: y = f(z) where `keeps` is "output", z where it is "input".

        `kept` is float32 or float64 of any shape; the result is a new array like it.
        """
        check_source(kept, "kept", FLOATS)
        slopes: Floats = np.ones(kept.shape, kept.dtype)
        self.pull_back(slopes, kept)
        return slopes

    def pull_back(self, gradient: Floats, kept: Floats) -> None:
        """gradient *= f'(kept), in place: a contiguous array of the shape and dtype of `kept`."""
        if not (kept.flags.c_contiguous and kept.flags.aligned):
            kept = kept.copy(order="C")
        packed = self.packed
        run = kernel("nn.activations.backward_kernel", self.name, kept.dtype.name)
        run.call(address(gradient), address(kept), 1, kept.size, kept.size, address(packed))


def activation(name: str, **parameters: float) -> Activation:
    """An activation by its name.

    Args:
        name: identity, relu, leaky_relu, elu, selu, sigmoid, tanh, softplus, gelu, gelu_tanh or silu.
        parameters: leaky_relu's `slope` (0.01) or elu's `alpha` (1); finite, not negative.

    Raises:
        ValueError: an unknown name (the names and the nearest are listed), a parameter that is negative or not finite.
        TypeError: a parameter that the activation does not take, or that is no real number.

    >>> activation("leaky_relu", slope=0.1)
    Activation(name='leaky_relu', parameters=(('slope', 0.1),))
    >>> activation("tanh").gain, activation("tanh").keeps
    (1.6666666666666667, 'output')
    """
    return Activation(name, tuple(parameters.items()))


def as_activation(x: str | Activation) -> Activation:
    """An activation from itself or from its name, with the default parameters.

    >>> as_activation("relu") == as_activation(activation("relu"))
    True
    """
    if isinstance(x, Activation):
        return x
    if not isinstance(x, str):
        raise TypeError(f"activation must be a name or an Activation. Received: {x!r}")
    return activation(x)
