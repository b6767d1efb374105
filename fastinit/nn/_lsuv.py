"""Layer-sequential unit variance: a start that looks at the data (Mishkin & Matas, ICLR 2016)."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastinit._runtime.checks import finite, positive_int
from fastinit.nn._mlp import MLP
from fastinit.nn._samples import dense
from fastinit.nn._training import predict
from fastinit.schemes._initializers import orthogonal
from fastinit.stats._summary import summarize

SAMPLES = 1024  # of the data that are looked at


def lsuv(model: MLP, X: Any, *, tolerance: float = 0.1, max_tries: int = 10) -> list[float]:
    """Give every layer orthonormal weights, scaled so that its outputs on the data have variance 1.

    Layer by layer from the first: the weights become an orthogonal matrix, then they are divided by the standard
    deviation of the layer's outputs before the activation until their variance is within `tolerance` of 1 (algorithm 1
    of the paper). Biases become zero. The draws are those of the model's key.

    Args:
        model: a single model, not a population; its weights are overwritten.
        X: (samples, features); up to 1,024 samples of it, evenly spread, are looked at. As in the paper, the variance
            is that of all outputs of a layer together, of units and samples.
        tolerance: of the variance, above 0.
        max_tries: scalings of a layer at most.

    Returns:
        The variance of each layer's outputs, as it was left.

    Raises:
        TypeError: the model is none.
        ValueError: a population, X of another shape or of equal samples, a number out of range, or a layer whose
            outputs are all the same or not finite.

    >>> model = MLP([20, 64, 64, 5], activation="relu", seed=0)
    >>> data = np.random.default_rng(0).standard_normal((500, 20)) * 100
    >>> [round(variance, 1) for variance in lsuv(model, data)]
    [1.0, 1.0, 1.0]
    """
    if not isinstance(model, MLP):
        raise TypeError(f"model must be an MLP. Received: {model!r}")
    if model.population is not None:
        raise ValueError(f"model must not be a population. Received: population={model.population}")
    if finite("tolerance", tolerance) <= 0:
        raise ValueError(f"tolerance must be positive. Received: tolerance={tolerance!r}")
    max_tries = positive_int("max_tries", max_tries)
    samples = model.as_samples(X, at_least=1)
    samples = np.ascontiguousarray(dense(samples[:: -(-samples.shape[0] // SAMPLES)]))
    if (samples == samples[0]).all():
        raise ValueError(f"X must vary from sample to sample. Received: {len(samples)} equal samples")
    before = {name: array.copy() for name, array in model.parameters.items()}
    variances = []
    try:
        for i in range(len(model.sizes) - 1):
            weight, bias = model.parameters[f"layers.{i}.weight"], model.parameters[f"layers.{i}.bias"]
            orthogonal(out=weight, seed=model.key / f"layers.{i}.weight")
            bias[...] = 0
            variance = _variance(model, samples, i)
            for _ in range(max_tries):
                if abs(variance - 1) < tolerance:
                    break
                if not (np.isfinite(variance) and variance > 0):
                    raise ValueError(f"the outputs of layer {i} must vary on X. Received: variance {variance:g}")
                weight /= np.sqrt(variance)
                variance = _variance(model, samples, i)
            variances.append(variance)
    except ValueError:
        for name, array in model.parameters.items():
            array[...] = before[name]
        raise
    return variances


def _variance(model: MLP, samples: Any, layer: int) -> float:
    """Of the outputs of a layer before its activation."""
    std = summarize(predict(model.network.upto(layer), samples)[0]).std
    return std * std
