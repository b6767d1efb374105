"""Class labels: strings, bools or numbers of the user's, and the numbers from 0 that the kernels take."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastinit._runtime.arrays import Array
from fastinit.nn._losses import Targets, as_targets
from fastinit.nn._samples import NUMERIC, as_array, as_finite, described, is_sparse, where

_SHOWN = 5  # classes in a message
_REGRESSION = 'use output="identity" for values'


def number_of_classes(output: str, columns: int) -> int:
    """Return how many classes a label can name: with one sigmoid output 2, with several, or for values, none."""
    if output == "softmax":
        return columns
    return 2 if output == "sigmoid" and columns == 1 else 0


def as_classes(values: Any, count: int) -> Array:
    """Return the classes that a user names.

    Raises:
        TypeError: no labels.
        ValueError: an output without classes, another number of them than `count`, or one of them twice.
    """
    if not count:
        raise ValueError('classes are for output="softmax", or "sigmoid" with one output')
    classes = as_array(values, "classes")
    if classes.dtype.kind not in NUMERIC + "U":
        raise TypeError(f"classes must be strings, bools or numbers. Received: {described(classes)}")
    if classes.shape != (count,) or len(np.unique(classes)) < count:
        raise ValueError(f"classes must be {count} different labels. Received: classes={values!r}")
    if classes.dtype.kind in NUMERIC:
        as_finite(classes, "classes", values, np.float64)
    return classes.astype(np.float64) if classes.dtype == np.longdouble else classes


class Labels:
    """Reads the targets of a network.

    Args:
        output: "softmax", "sigmoid" or "identity".
        columns: the number of outputs.
        dtype: float32 or float64, of targets that are numbers.
        classes: the label of each class, in the order of the outputs; None where they are not known.
    """

    def __init__(self, output: str, columns: int, dtype: Any, classes: Array | None) -> None:
        self.output, self.columns, self.dtype, self.classes = output, columns, dtype, classes
        self._count = number_of_classes(output, columns)

    def read(self, y: Any, rows: int, *, learn: bool = False) -> Targets:
        """Return y as a loss kernel takes it.

        Args:
            y: labels, or what `as_targets` takes.
            rows: the number of samples.
            learn: whether classes that are not known yet are those of y.

        Raises:
            TypeError: y is neither numbers nor labels.
            ValueError: another shape, a value that is missing or not finite, or labels that are no classes.
        """
        if self.output == "softmax" and self.columns == 1:
            hint = f'use output="sigmoid" for two classes, {_REGRESSION}'
            raise ValueError(f'output="softmax" needs two or more outputs. Received: 1 output; {hint}')
        array = as_array(y.toarray() if is_sparse(y) else y, "y")
        if array.dtype.kind not in NUMERIC + "U" or (array.dtype.kind == "U" and not self._count):
            allowed = "strings, bools or numbers" if self._count else f'numbers for output="{self.output}"'
            raise TypeError(f"y must be {allowed}. Received: {described(array)}")
        if array.dtype.kind == "f":
            as_finite(array, "y", y, self.dtype)
        if self._count and array.shape == (rows, 1):
            array = array[:, 0]
        if not self._count or array.ndim == 2:
            return as_targets(array, self.output, rows, self.columns, self.dtype, "y")
        if array.shape != (rows,):
            shapes = f"({rows},)" if self._count != self.columns else f"({rows}, {self.columns}) or ({rows},)"
            raise ValueError(f"y must have shape {shapes} for {rows} samples. Received: shape {array.shape}")
        if learn and self.classes is None:
            self.classes = self._learned(array, y)
        if self._is_probability(array):
            return as_targets(array, self.output, rows, 1, self.dtype, "y")
        numbers = self._encoded(array, y)
        if self.output == "softmax":
            return Targets("softmax_classes", numbers)
        return as_targets(numbers, self.output, rows, 1, self.dtype)

    def _is_probability(self, array: Array) -> bool:
        """True for one sigmoid output and numbers that need no classes: shares of the second one, or its two signs."""
        if self.output != "sigmoid" or array.dtype.kind not in NUMERIC:
            return False
        if self.classes is None:
            return True
        plain = self.classes.dtype.kind in NUMERIC and bool((self.classes == np.arange(2)).all())
        return plain and bool(((array >= 0) & (array <= 1)).all())

    def _learned(self, array: Array, y: Any) -> Array:
        """Return the classes that labels show: 0 to count - 1 if all of them are among these, else those there are."""
        if array.dtype.kind in NUMERIC:
            default, whole = np.arange(self._count), array == np.floor(array)
            if not whole.all():  # probabilities, or an error
                return default
            if ((array >= 0) & (array < self._count)).all():
                own = default.astype(array.dtype)
                return own if (own == default).all() else default
        classes = np.unique(array)
        if len(classes) != self._count:
            wanted, hint = f"{self._count} classes, one for each output", "the last of `sizes` counts them"
            if self.output == "sigmoid":
                wanted = f"{self._count} classes for one sigmoid output"
                hint = f'use output="softmax" with {len(classes)} outputs'
            if len(classes) < self._count:
                hint = "name them all by `classes`"
            if array.dtype.kind in NUMERIC:
                hint += f", or {_REGRESSION}"
            received = f"{len(classes)} class{'es' * (len(classes) > 1)}: {_listed(classes)}"
            raise ValueError(f"y must have {wanted}. Received: {received}; {hint}")
        return classes

    def _encoded(self, array: Array, y: Any) -> Array:
        """Return the number of each label's class."""
        if self.classes is None and array.dtype.kind in "iu" and array.min() >= 0 and array.max() < self._count:
            return array.astype(np.int64)  # the usual case of a step
        classes = np.arange(self._count) if self.classes is None else self.classes
        if (array.dtype.kind == "U") != (classes.dtype.kind == "U"):
            unknown = np.ones(len(array), bool)
        else:
            order = np.argsort(classes)
            ordered, labels = _signed(classes[order]), _signed(array)
            places = np.searchsorted(ordered, labels).clip(max=len(classes) - 1)
            unknown = ordered[places] != labels
        if unknown.any():
            row = int(unknown.argmax())
            value, hint = array[row].item(), ""
            if isinstance(value, float) and not value.is_integer():
                hint = f"; {_REGRESSION}"
            elif self.classes is None:
                hint = "; `fit` learns others, or name them by `classes`"
            raise ValueError(
                f"y must be of the classes {_listed(classes)}. Received: {value!r}{where((row,), y)}{hint}"
            )
        numbers: Array = order[places]
        return numbers


def _signed(numbers: Array) -> Array:
    """Return unsigned integers as signed ones where they fit: NumPy compares the two kinds by way of float64."""
    fits = numbers.dtype.kind == "u" and numbers.max(initial=0) <= np.iinfo(np.int64).max
    return numbers.astype(np.int64) if fits else numbers


def _listed(classes: Array) -> str:
    shown = ", ".join(map(repr, classes[:_SHOWN].tolist()))
    return shown if len(classes) <= _SHOWN else f"{shown}, ... {classes[-1].item()!r}"
