"""The parameters of a dense network, or of a population of them: one flat buffer, and views of it by name."""

from __future__ import annotations

import copy
import itertools
import math
import types
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastinit import schemes
from fastinit._core.distributions import Distribution
from fastinit._core.key import Key
from fastinit._runtime.arrays import Array
from fastinit.nn._activations import Activation
from fastinit.schemes._filling import fill

# The scheme that fits an activation: He's for those that are linear on one side, LeCun's for the self-normalising one,
# Xavier's for the rest.
FITTING = dict.fromkeys(("relu", "leaky_relu", "elu", "gelu", "gelu_tanh", "silu", "softplus"), "he_normal") | {
    "selu": "lecun_normal"
}

Init = str | Distribution | Sequence[str | Distribution]
Layers = list[list[tuple[Array, Array]]]  # [member][layer]: weight (out, in), bias (out,)


class Network:
    """Weights and their gradients as the kernels see them, all zeros at first.

    Args:
        sizes: inputs, then the units of every layer.
        activation: of all layers but the last, which has none.
        dtype: float32 or float64.
        population: the number of members; None is one, without an axis for it in the views.
    """

    def __init__(self, sizes: Sequence[int], activation: Activation, dtype: Any, population: int | None) -> None:
        self.widths = list(sizes)
        self.activations = [activation] * (len(sizes) - 2) + [Activation("identity")]
        self._shapes = [shape for n, m in itertools.pairwise(sizes) for shape in ((m, n), (m,))]
        self.population = population
        total = sum(map(math.prod, self._shapes))
        self.parameters, self.slopes = (np.zeros((population or 1, total), dtype) for _ in range(2))
        self.weights, self.gradients = self._layers(self.parameters), self._layers(self.slopes)

    def _parts(self, flat: Array) -> list[Array]:
        """A buffer (..., parameters) as views of the shapes of all weights and biases."""
        ends = itertools.accumulate(map(math.prod, self._shapes))
        return [
            flat[..., end - math.prod(shape) : end].reshape(*flat.shape[:-1], *shape)
            for end, shape in zip(ends, self._shapes, strict=True)
        ]

    def _layers(self, flat: Array) -> Layers:
        members = [self._parts(member) for member in flat]
        return [list(zip(parts[::2], parts[1::2], strict=True)) for parts in members]

    def views(self, flat: Array) -> Mapping[str, Array]:
        """`parameters` or `slopes` by name. To be written into: another array in a view's place would be read by
        nobody, so none can be put there."""
        names = [f"layers.{i // 2}.{'bias' if i % 2 else 'weight'}" for i in range(len(self._shapes))]
        parts = self._parts(flat[0] if self.population is None else flat)
        return types.MappingProxyType(dict(zip(names, parts, strict=True)))

    def initialise(self, init: Init | None, key: Key) -> None:
        """Draw the weights: layer i's are the stream of `key / "layers.i.weight"`. None is the distribution that
        fits the activation.

        Raises:
            TypeError, ValueError: no such distribution, or not as many as layers. Nothing was written.
        """
        layers = len(self.activations)
        if init is None:
            init = FITTING.get(self.activations[0].name, "xavier_uniform")
        each = schemes.per_layer("init", init, layers)
        drawn = [schemes.as_distribution(one, shape) for one, shape in zip(each, self._shapes[::2], strict=True)]
        weights = list(self.views(self.parameters).items())[::2]
        for (name, target), distribution in zip(weights, drawn, strict=True):
            fill(target, distribution, seed=key / name, batch_axes=() if self.population is None else 0)

    def upto(self, layer: int) -> Network:
        """The same weights, up to a layer whose outputs are left without an activation."""
        part = copy.copy(self)
        part.widths = self.widths[: layer + 2]
        part.activations = [*self.activations[:layer], Activation("identity")]
        part.weights, part.gradients = (
            [member[: layer + 1] for member in members] for members in (self.weights, self.gradients)
        )
        return part
