"""What a network's last outputs (logits) mean: probabilities, predictions, scores.

Arrays of logits are (..., samples, outputs); a population has its members in front.
"""

from __future__ import annotations

import numpy as np

from fastinit._runtime.arrays import Array
from fastinit.nn._activations import as_activation
from fastinit.nn._losses import Targets

OUTPUTS = ("softmax", "sigmoid", "identity")


def probabilities(output: str, logits: Array) -> Array:
    """Return the probabilities of classes (softmax, or one sigmoid output) or of labels (several sigmoid outputs)."""
    if output == "softmax":
        exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
        result: Array = exponentials / exponentials.sum(axis=-1, keepdims=True)
        return result
    yes = as_activation("sigmoid")(logits)
    return np.concatenate([1 - yes, yes], axis=-1) if logits.shape[-1] == 1 else yes


def predictions(output: str, logits: Array) -> Array:
    """Return classes, yes-or-no labels or values; without the last axis where there is one for a sample."""
    if output == "softmax":
        classes: Array = logits.argmax(axis=-1)
        return classes
    found = (logits > 0).astype(np.int64) if output == "sigmoid" else logits
    return found[..., 0] if logits.shape[-1] == 1 else found


def scores(output: str, logits: Array, targets: Targets) -> Array:
    """Return the score of every member: accuracy, of whole rows for several labels; R^2 for "identity". Samples count
    by their weights.

    Args:
        output: one of `OUTPUTS`.
        logits: (members, samples, outputs).
        targets: of the samples.
    """
    if output == "identity":
        return _explained(logits, targets.array, targets.weights)
    found, wanted = predictions(output, logits), targets.array
    if output == "softmax":
        right = found == (wanted.argmax(axis=-1) if targets.kernel == "softmax_shares" else wanted)
    else:
        right = (found.reshape(logits.shape) == (wanted > 0.5)).all(axis=-1)
    share: Array = np.average(right, axis=-1, weights=targets.weights)
    return share


def _explained(values: Array, wanted: Array, weights: Array | None) -> Array:
    """R^2, averaged over the outputs. A constant target scores 1 if predicted exactly, else 0, as in scikit-learn."""
    wanted = wanted.astype(np.float64)
    total = np.average((wanted - np.average(wanted, axis=0, weights=weights)) ** 2, axis=0, weights=weights)
    rest = np.average((wanted - values) ** 2, axis=1, weights=weights)
    explained: Array = np.where(total > 0, 1 - rest / np.where(total > 0, total, 1), rest == 0).mean(axis=-1)
    return explained
