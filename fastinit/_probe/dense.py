"""One pass through a dense network, forward and back, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fastinit._core.distributions import Normal, Uniform
from fastinit._probe.records import Layer, with_ratios
from fastinit._probe.results import Probe
from fastinit._probe.statistics import BOUNDS, Signal
from fastinit._probe.verdicts import judge
from fastinit._runtime.arrays import Array
from fastinit.nn._activations import Activation
from fastinit.nn._labels import Labels
from fastinit.nn._layers import dense_backward, dense_forward
from fastinit.nn._losses import mean_squared_error, sigmoid_cross_entropy, softmax_cross_entropy
from fastinit.nn._mlp import MLP
from fastinit.nn._samples import dense
from fastinit.schemes._filling import fill

_LOSSES = {  # by the output: what it is called, and the function
    "softmax": ("softmax cross-entropy", softmax_cross_entropy),
    "sigmoid": ("sigmoid cross-entropy", sigmoid_cross_entropy),
    "identity": ("mean squared error", mean_squared_error),
}


def probe_network(model: MLP, scheme: str, data: Any, samples: int) -> Probe:
    """Probe a single model as it is; its weights and gradients are not changed.

    Args:
        model: no population.
        scheme: what its weights are called.
        data: X, (X, y), or None for standard normal samples; missing targets are drawn too, from the model's key.
        samples: how many are drawn.

    Raises:
        TypeError, ValueError: data that do not fit.
    """
    x, y = _data(model, data, samples)
    steps = _forward(model, x)
    loss_name, measure = _LOSSES[model.output]
    loss, gradient = measure(steps[-1][1], y)
    rows = []
    for i, (activation, out, kept) in reversed(list(enumerate(steps))):
        weight = model.parameters[f"layers.{i}.weight"]
        below = steps[i - 1][1] if i else x
        back, dweight, _ = dense_backward(gradient, below, kept, weight, activation)
        layer = Layer.of(f"layers.{i}", activation.name, out, out)
        layer = replace(layer, gradients=Signal.of(gradient), weights=Signal.of(weight))
        rows.append(replace(layer, weight_gradients=Signal.of(dweight)))
        gradient = back
    layers, inputs = with_ratios(rows[::-1]), Signal.of(x)
    reference = min(inputs.rms, 1.0) if model.activation.name in BOUNDS else inputs.rms
    return Probe(
        network=name_of(model.sizes),
        scheme=scheme,
        activation=_shown(model.activation),
        samples=len(x),
        seed=repr(model.key),
        inputs=inputs,
        loss=loss,
        loss_name=loss_name,
        layers=layers,
        verdict=judge(layers, reference),
    )


def _forward(model: MLP, x: Array) -> list[tuple[Activation, Array, Array]]:
    """Every layer's activation, its outputs, and what it keeps for the way back."""
    steps = []
    for i, activation in enumerate(model.network.activations):
        weight, bias = (model.parameters[f"layers.{i}.{name}"] for name in ("weight", "bias"))
        kept = np.empty((len(x), len(weight)), x.dtype)
        x = dense_forward(x, weight, bias, activation, kept=kept)
        steps.append((activation, x, x if activation.keeps == "output" else kept))
    return steps


def _data(model: MLP, data: Any, samples: int) -> tuple[Array, Any]:
    x, y = data if isinstance(data, tuple) and len(data) == 2 else (data, None)
    if x is None:
        x = np.empty((samples, model.sizes[0]), model.dtype)
        fill(x, Normal(), seed=model.key / "probe.data")
    x = dense(model.as_samples(x, at_least=1))
    if not x.any():
        raise ValueError("data must not be all 0")
    if y is None:
        return x, _targets(model, len(x))
    return x, Labels(model.output, model.sizes[-1], model.dtype, model.classes_).read(y, len(x), learn=True).array


def _targets(model: MLP, samples: int) -> Array:
    """Classes, labels or values as likely as any."""
    drawn = np.empty((samples, model.sizes[-1]))
    law = Normal() if model.output == "identity" else Uniform()
    fill(drawn, law, seed=model.key / "probe.targets")
    if model.output == "softmax":
        classes: Array = drawn.argmax(axis=1)
        return classes
    return drawn if model.output == "identity" else (drawn < 0.5).astype(np.float64)


def name_of(sizes: Sequence[int]) -> str:
    """Sizes in short.

    >>> name_of([784, 256, 256, 10])
    '784-256x2-10'
    """
    runs: list[list[int]] = []
    for size in sizes:
        if runs and runs[-1][0] == size:
            runs[-1][1] += 1
        else:
            runs.append([size, 1])
    return "-".join(f"{size}x{times}" if times > 1 else str(size) for size, times in runs)


def _shown(activation: Activation) -> str:
    parameters = ", ".join(f"{name}={value:g}" for name, value in activation.parameters)
    return f"{activation.name}({parameters})" if parameters else activation.name
