"""Losses of a network's outputs: the value and its gradient in one pass, the output's activation inside."""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import numpy as np

from fastinit._native.library import kernel
from fastinit._runtime.arrays import Array, address, as_matrix, dtype_name


class Targets(NamedTuple):
    """Checked targets: the loss kernel that they take, an array of one row per sample, and the samples' weights."""

    kernel: str
    array: Array
    weights: Array | None = None  # float64, contiguous

    def take(self, rows: Any) -> Targets:
        """Return the targets of some samples."""
        weights = None if self.weights is None else self.weights[rows]
        return Targets(self.kernel, self.array[rows], weights)


def softmax_cross_entropy(logits: Array, labels: Any) -> tuple[float, Array]:
    """The mean over the samples of -log softmax(logits)[label], and its gradient with respect to the logits.

    Stable for logits of any size: the largest of a row is taken off first. NaN in a row makes the loss NaN.

    Args:
        logits: (samples, classes), float32 or float64.
        labels: (samples,) int classes from 0, or (samples, classes) shares of classes, one-hot for instance.

    Returns:
        The loss, and the gradient (softmax(logits) - share) / samples: shape and dtype of the logits.

    Raises:
        TypeError: no such arrays, or labels that are no integers.
        ValueError: shapes that do not fit, no samples, or a label that is no class.

    >>> import numpy as np
    >>> loss, gradient = softmax_cross_entropy(np.array([[1e4, -1e4], [0.0, 0.0]]), [0, 1])
    >>> round(loss, 6), gradient.tolist()
    (0.346574, [[0.0, 0.0], [0.25, -0.25]])
    """
    return _loss(logits, labels, "softmax")


def sigmoid_cross_entropy(logits: Array, targets: Any) -> tuple[float, Array]:
    """The mean over all elements of -t log s(z) - (1 - t) log(1 - s(z)), s the logistic sigmoid, and its gradient.

    Computed as softplus(-|z|) + z ([z > 0] - t), which is stable for logits of any size.

    Args:
        logits: (samples, outputs), float32 or float64.
        targets: the same shape, or (samples,) for one output: 0 to 1, or -1 and 1.

    Returns:
        The loss, and the gradient (s(z) - t) / elements: shape and dtype of the logits.

    Raises:
        TypeError: no such arrays.
        ValueError: shapes that do not fit, no samples, or a target out of range.

    >>> import numpy as np
    >>> loss, gradient = sigmoid_cross_entropy(np.array([[0.0], [-1e4]]), [1, 0])
    >>> round(loss, 6), gradient.tolist()
    (0.346574, [[-0.25], [0.0]])
    """
    return _loss(logits, targets, "sigmoid")


def mean_squared_error(predictions: Array, targets: Any) -> tuple[float, Array]:
    """The mean over all elements of (prediction - target)^2, and its gradient 2 (prediction - target) / elements.

    Args:
        predictions: (samples, outputs), float32 or float64.
        targets: the same shape, or (samples,) for one output.

    Raises:
        TypeError: no such arrays.
        ValueError: shapes that do not fit, or no samples.

    >>> import numpy as np
    >>> loss, gradient = mean_squared_error(np.array([[1.0], [2.0]]), [1, 4])
    >>> loss, gradient.tolist()
    (2.0, [[0.0], [-2.0]])
    """
    return _loss(predictions, targets, "identity")


def _loss(logits: Any, targets: Any, output: str) -> tuple[float, Array]:
    name = "predictions" if output == "identity" else "logits"
    matrix = as_matrix(logits, name)
    if matrix.size == 0:
        raise ValueError(f"{name} must have samples and outputs. Received: shape {matrix.shape}")
    rows, columns = matrix.shape
    wanted, array, _ = as_targets(targets, output, rows, columns, matrix.dtype)
    work, gradient, loss = matrix.copy(), np.empty_like(matrix), ctypes.c_double()
    run = kernel("nn.losses.loss_kernel", wanted, dtype_name(matrix.dtype))
    run.call(address(work), address(gradient), address(array), rows, columns, 1 / rows, ctypes.addressof(loss))
    return loss.value, gradient


def as_targets(y: Any, output: str, rows: int, columns: int, dtype: Any, name: str = "targets") -> Targets:
    """What a loss kernel takes for an output of "softmax", "sigmoid" or "identity", from what users have.

    `name` is what messages call it.
    """
    array = np.asarray(y)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be numbers. Received: dtype {array.dtype}")
    if output == "softmax" and array.ndim == 1:
        return Targets("softmax_classes", _classes(array, rows, columns))
    if array.shape != (rows, columns) and not (columns == 1 and array.shape == (rows,)):
        allowed = f"({rows}, {columns})" + (f" or ({rows},)" if columns == 1 or output == "softmax" else "")
        raise ValueError(f"{name} must have shape {allowed} for {rows} samples. Received: shape {array.shape}")
    values = np.ascontiguousarray(array, dtype).reshape(rows, columns)
    if output == "identity":
        return Targets("squared", values)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if output == "sigmoid":
        if low == -1 and (np.abs(values) == 1).all():
            values = (values + 1) / 2
        elif not (low >= 0 and high <= 1):
            raise ValueError(f"{name} must be from 0 to 1, or -1 and 1. Received: from {low:g} to {high:g}")
        return Targets("sigmoid", np.ascontiguousarray(values, dtype))
    if not (low >= 0 and high < np.inf):
        raise ValueError(f"shares of classes must not be negative, nor infinite. Received: from {low:g} to {high:g}")
    return Targets("softmax_shares", values)


def _classes(labels: Array, rows: int, columns: int) -> Array:
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels must be integer classes, or shares of classes. Received: dtype {labels.dtype}")
    if labels.shape != (rows,):
        raise ValueError(f"labels must have shape ({rows},) for {rows} samples. Received: shape {labels.shape}")
    if rows and not (labels.min() >= 0 and labels.max() < columns):
        raise ValueError(
            f"labels must be classes from 0 to {columns - 1}. Received: from {labels.min()} to {labels.max()}"
        )
    return np.ascontiguousarray(labels, np.int64)
