"""Data as users have them, made arrays: lists, arrays, data frames, tensors, SciPy's sparse matrices."""

from __future__ import annotations

import math
import numbers
import sys
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

from fastinit._runtime.arrays import DTYPES, Array

Samples: TypeAlias = Any  # (samples, features): a contiguous array, or SciPy's compressed sparse rows

NUMERIC = "biuf"  # kinds of NumPy's dtypes
SLAB_BYTES = 1 << 24  # of sparse rows that are dense at a time: few enough to count as no memory
_MISSING = "<NA>", "NaT"  # what pandas calls a missing value, beside None and NaN


def is_sparse(values: Any) -> bool:
    """Return True for SciPy's sparse matrices and arrays. SciPy is imported if there is one."""
    sparse = None if isinstance(values, np.ndarray) else sys.modules.get("scipy.sparse")
    return sparse is not None and bool(sparse.issparse(values))


def as_array(values: Any, name: str) -> Array:
    """Return what `numpy.asarray` makes of the values; objects become numbers or strings where all of them are.

    Raises:
        TypeError: no array can be made of them.
        ValueError: a value is missing: None, pandas' NA, or masked; or NaN beside strings.
    """
    if type(values) is np.ndarray and values.dtype.kind in NUMERIC:  # the usual case
        return values
    if np.ma.is_masked(values):
        raise ValueError(f"{name} must not have missing values. Received: a masked array")
    try:
        array = np.asarray(values)
        if array.dtype.kind == "U" and isinstance(values, list | tuple):  # numbers beside strings became strings
            array = np.asarray(values, dtype=object)
    except Exception as error:  # a framework's own: a tensor that requires a gradient, or is on another device
        reason = " ".join(str(error).split()).rstrip(".")
        received = type(values).__name__
        raise TypeError(f"{name} must be what NumPy can make an array of: {reason}. Received: {received}") from error
    if array.dtype.kind in "OT":
        return _of_objects(array.astype(object), name, values)
    return array.astype(np.float32) if array.dtype == DTYPES["bfloat16"] else array


def _of_objects(array: Array, name: str, values: Any) -> Array:
    objects = array.ravel().tolist()
    if _all(objects, numbers.Real | np.bool_):
        found = np.array(objects).reshape(array.shape)
        if found.dtype.kind in NUMERIC:
            return found
        try:
            return array.astype(np.float64)  # large ints, fractions
        except OverflowError:
            raise ValueError(f"{name} must be in the range of float64. Received: an int beyond it") from None
    if _all(objects, str):
        return np.array(objects).reshape(array.shape)
    missing = [number for number, value in enumerate(objects) if _is_missing(value)]
    others = [value for value in objects if not _is_missing(value)]
    if missing and (_all(others, str) or _all(others, numbers.Real | np.bool_)):
        place = where(np.unravel_index(missing[0], array.shape), values)
        raise ValueError(f"{name} must not have missing values. Received: {objects[missing[0]]}{place}")
    return array


def _all(objects: list[Any], kind: Any) -> bool:
    return all(issubclass(own, kind) for own in set(map(type, objects)))


def _is_missing(value: Any) -> bool:
    return value is None or str(value) in _MISSING or (isinstance(value, float) and value != value)


def described(array: Array) -> str:
    """Return the dtype in words; of objects, the types too."""
    if array.dtype.kind != "O" or not isinstance(array, np.ndarray):
        return f"dtype {array.dtype}"
    return f"dtype object, with {', '.join(sorted({type(value).__name__ for value in array.flat}))}"


def _columns(values: Any) -> Any:
    """Return the names of a data frame's columns (pandas, polars; PyArrow), or None."""
    names = getattr(values, "column_names", None)
    return getattr(values, "columns", None) if names is None else names


def where(index: Any, values: Any) -> str:
    """Return the place of an element in words; a data frame's column by its name."""
    names = _columns(values)
    places = [f"row {row}" for row in index[:1]]
    for column in index[1:2]:
        named = column if names is None else names[column]
        places.append(f"column {named.item() if isinstance(named, np.integer) else named!r}")
    return f" in {', '.join(places)}" if places else ""


def as_finite(array: Array, name: str, values: Any, dtype: Any) -> Array:
    """Return contiguous finite numbers of a dtype.

    Args:
        array: numbers.
        name, values: what they are for messages, and where they come from.
        dtype: float32 or float64.

    Raises:
        ValueError: a number is not finite, or not in the dtype's range.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        result = np.ascontiguousarray(array, dtype)
        if math.isfinite(result.sum()):  # as nearly always
            return result
    fine = np.isfinite(result)
    if not fine.all():
        index = np.unravel_index(int(fine.argmin()), fine.shape)
        raise _not_finite(array[index], name, dtype, where(index, values))
    return result


def _not_finite(value: Any, name: str, dtype: Any, place: str) -> ValueError:
    wanted = f"in the range of {np.dtype(dtype)}" if np.isfinite(value) else "finite"
    return ValueError(f"{name} must be {wanted}. Received: {float(value)}{place}")


def as_samples(values: Any, features: int, dtype: Any, at_least: int = 0) -> Samples:
    """Return X as the kernels take it, rows of finite numbers of a dtype; sparse where it is.

    Raises:
        TypeError: not real numbers.
        ValueError: another shape, or a number that is missing or not finite.
    """
    sparse = is_sparse(values)
    array: Any = values if sparse else as_array(values, "X")
    if array.dtype.kind not in NUMERIC:
        raise TypeError(f"X must be real numbers. Received: {_wrong(values, array)}")
    if array.ndim != 2 or array.shape[1] != features or array.shape[0] < at_least:
        some = " and at least one sample" if at_least else ""
        raise ValueError(f"X must have shape (samples, {features}){some}. Received: shape {array.shape}")
    if not sparse:
        return as_finite(array, "X", values, dtype)
    rows = array.tocsr()
    with np.errstate(over="ignore"):
        result = rows.astype(dtype)
    fine = np.isfinite(result.data)
    if not fine.all():
        number = int(fine.argmin())
        index = int(np.searchsorted(rows.indptr, number, side="right")) - 1, int(rows.indices[number])
        raise _not_finite(rows.data[number], "X", dtype, where(index, None))
    return result


def _wrong(values: Any, array: Array) -> str:
    """Return what is no number: the first such column of a data frame."""
    names = _columns(values)
    for name in () if names is None else names:
        column = as_array(values[name], f"column {name!r} of X")
        if column.dtype.kind not in NUMERIC:
            return f"{described(column)}, in column {name!r}"
    return described(array)


def dense(samples: Samples) -> Array:
    """Return samples as an array."""
    array: Array = samples if isinstance(samples, np.ndarray) else samples.toarray()
    return array


def slab_rows(samples: Samples) -> int:
    """Return how many rows of sparse samples may be dense at a time, at least one."""
    row_bytes = int(samples.shape[1] * samples.dtype.itemsize)
    return max(1, SLAB_BYTES // row_bytes)


def blocks(samples: Samples, batch: int, order: Array | None = None) -> Iterator[tuple[Array, Any]]:
    """Make sparse samples dense, some whole batches at a time. Yields rows, and the indices that they have."""
    count = samples.shape[0] if order is None else len(order)
    rows = max(1, slab_rows(samples) // batch) * batch
    for first in range(0, max(1, count), rows):
        part = slice(first, first + rows) if order is None else order[first : first + rows]
        yield samples[part].toarray(), part


def as_weights(values: Any, rows: int) -> Array | None:
    """Return sample weights in float64, the largest being 1, so that no sum of them overflows; None for None.

    Raises:
        TypeError: not real numbers.
        ValueError: another shape, a weight that is negative, missing or not finite, or no weight above 0.
    """
    if values is None:
        return None
    array = as_array(values, "sample_weight")
    if array.dtype.kind not in NUMERIC:
        raise TypeError(f"sample_weight must be real numbers. Received: dtype {array.dtype}")
    if array.shape != (rows,):
        raise ValueError(f"sample_weight must have shape ({rows},) for {rows} samples. Received: shape {array.shape}")
    weights = as_finite(array, "sample_weight", values, np.float64)
    if rows and not (weights.min() >= 0 and weights.max() > 0):
        received = f"from {weights.min():g} to {weights.max():g}"
        raise ValueError(f"sample_weight must not be negative, nor all zero. Received: {received}")
    scaled: Array = weights / weights.max(initial=0.0)  # a new array: the other may be the caller's
    return scaled
