"""Clipping in place: W <- W t / |W| where |W| > t, for one norm of all arrays, one of each, or one of each row."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, overload

import numpy as np

from fastinit._runtime.arrays import (
    DTYPES,
    NUMBERS,
    Array,
    Arrays,
    check_source,
    check_target,
    named_arrays,
    paired_arrays,
)
from fastinit._runtime.checks import non_negative, real
from fastinit.clip._vectors import Vectors, norms_of, vectors

# A larger p gives the largest magnitude to the last digit: n^(1/p) is 1 for any n below 2^64.
_LARGEST_P = 2.0**60
# optax.adaptive_grad_clip's guard of the division, apart from its `eps`.
_DIVISION_EPS = 1e-6


def global_norm(arrays: Arrays, norm_type: float = 2.0) -> float:
    """The p-norm of all elements of all arrays, as if they were one vector: (sum |x|^p)^(1/p).

    Summed in float64 in a fixed order: it depends neither on the thread count nor on the processor, and squares that
    float32 or float16 cannot hold do not overflow. Where even the float64 sum over- or underflows, a second pass sums
    what was divided by the largest magnitude.

    Args:
        arrays: NumPy arrays of float16, bfloat16 (`ml_dtypes`), float32, float64, complex64 or complex128, which may be
            mixed, of any shape and strides: one, or a list, tuple, dict or generator of them. An array given twice
            counts twice. Of a complex number x, |x| is the modulus; for another p than 2, the moduli of an array take
            memory of their own, in float64.
        norm_type: p, above 0; infinity is the largest magnitude.

    Returns:
        The norm: 0 without elements, NaN where there is a NaN.

    Raises:
        TypeError: not such arrays, or `norm_type` is no real number.
        ValueError: `norm_type` is not above 0.

    >>> import numpy as np
    >>> global_norm([np.array([3.0, 0.0]), np.float32([[4.0]])])
    5.0
    >>> global_norm({"weight": np.array([3.0, -4.0])}, norm_type=np.inf)
    4.0
    >>> global_norm(np.array([3 + 4j, 12j]), norm_type=1)
    17.0
    """
    p = _norm_type(norm_type)
    return float(norms_of(vectors(named_arrays(arrays, "arrays"), write=False), p, whole=True)[0])


def clip_by_global_norm(
    arrays: Arrays,
    max_norm: float,
    *,
    norm_type: float = 2.0,
    eps: float = 0.0,
    error_if_nonfinite: bool = False,
) -> float:
    """Scale all arrays by max_norm / (norm + eps), in place, where the norm of all of them exceeds `max_norm`.

    Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", ICML 2013, algorithm 1. The
    norm is that of `global_norm`. 16-bit elements are scaled in float32, others in float64, and rounded once; complex
    numbers keep their direction.

    An array given twice, or another view of exactly the same elements, counts twice in the norm and is scaled once, so
    that the norm of what was given is `max_norm` afterwards. Arrays with gaps that no order of the axes closes are
    copied for the work and copied back.

    Args:
        arrays: writeable arrays as in `global_norm`.
        max_norm: the largest norm, at least 0; infinity clips nothing.
        norm_type: p, above 0; may be infinity.
        eps: added to the norm in the divisor; `torch.nn.utils.clip_grad_norm_` adds 1e-6.
        error_if_nonfinite: whether an infinite or NaN norm is an error. Otherwise the arrays are scaled all the same:
            a NaN norm makes everything NaN, an infinite one makes zeros, and NaN where the element is infinite.

    Returns:
        The norm before.

    Raises:
        TypeError: not such arrays, or an argument is no real number.
        ValueError: read-only or self-overlapping memory, arrays that share part of their memory, `max_norm` or `eps`
            that is negative or NaN, or a norm that is not finite where that is an error. Nothing was written.

    >>> import numpy as np
    >>> gradients = {"weight": np.array([[3.0]]), "bias": np.array([4.0])}
    >>> clip_by_global_norm(gradients, 1.0)
    5.0
    >>> gradients["weight"].round(3), gradients["bias"].round(3)
    (array([[0.6]]), array([0.8]))
    """
    limit, p, eps = _limit(max_norm), _norm_type(norm_type), non_negative("eps", eps)
    memory = vectors(named_arrays(arrays, "arrays"), write=True)
    norm = total_norm(memory, p)
    if error_if_nonfinite:
        _all_finite(np.array([norm]), lambda _: "arrays")
    if not norm <= limit:
        memory.change("sums.norms.scale_kernel", _factors(np.array([[norm]]), limit, eps))
    return norm


@overload
def clip_by_norm(  # type: ignore[overload-overlap]  # an array is iterable too
    x: Array, max_norm: float, *, norm_type: float = ..., eps: float = ..., error_if_nonfinite: bool = ...
) -> float: ...
@overload
def clip_by_norm(
    x: Mapping[Any, Array], max_norm: float, *, norm_type: float = ..., eps: float = ..., error_if_nonfinite: bool = ...
) -> dict[Any, float]: ...
@overload
def clip_by_norm(
    x: Iterable[Array], max_norm: float, *, norm_type: float = ..., eps: float = ..., error_if_nonfinite: bool = ...
) -> list[float]: ...
def clip_by_norm(
    x: Arrays,
    max_norm: float,
    *,
    norm_type: float = 2.0,
    eps: float = 0.0,
    error_if_nonfinite: bool = False,
) -> float | dict[Any, float] | list[float]:
    """Scale each array by max_norm / (norm + eps), in place, where its own norm exceeds `max_norm`.

    Args:
        x, max_norm, norm_type, eps, error_if_nonfinite: as in `clip_by_global_norm`, but each array by itself.

    Raises:
        TypeError, ValueError: as there.

    Returns:
        The norm before: a float for one array, a dict for a dict, else a list.

    >>> import numpy as np
    >>> long, short = np.array([3.0, 4.0]), np.array([0.1, 0.0])
    >>> clip_by_norm([long, short], 1.0)
    [5.0, 0.1]
    >>> long.round(3), short
    (array([0.6, 0.8]), array([0.1, 0. ]))
    """
    limit, p, eps = _limit(max_norm), _norm_type(norm_type), non_negative("eps", eps)
    named = named_arrays(x, "x")
    memory = vectors(named, write=True)
    norms = norms_of(memory, p, whole=False)
    if error_if_nonfinite:
        _all_finite(norms, named.name)
    memory.change("sums.norms.scale_kernel", _factors(norms, limit, eps)[:, None], ~(norms <= limit))
    if isinstance(x, np.ndarray):
        return float(norms[0])
    found: list[float] = norms.tolist()
    return dict(zip(named.keys or (), found, strict=True)) if isinstance(x, Mapping) else found


def clip_by_value(arrays: Arrays, low: float, high: float) -> None:
    """Move every element below `low` to `low` and above `high` to `high`, in place. NaN stays NaN.

    Args:
        arrays: writeable real arrays as in `global_norm`, each by itself. Complex numbers have no order: clip them by
            their norm, or by their parts, `x.view(np.float32)`.
        low, high: the bounds, rounded to each array's dtype; infinity is no bound.

    Raises:
        TypeError: not such arrays, or a bound is no real number.
        ValueError: read-only or self-overlapping memory, arrays that share part of their memory, a bound that is NaN,
            or `low` above `high`. Nothing was written.

    >>> import numpy as np
    >>> x = np.array([-3.0, 0.5, np.nan, np.inf])
    >>> clip_by_value(x, -1, 1)
    >>> x
    array([-1. ,  0.5,  nan,  1. ])
    """
    bounds = real("low", low), real("high", high)
    if not bounds[0] <= bounds[1]:
        raise ValueError(f"low must not be above high, nor one of them NaN. Received: low={low!r}, high={high!r}")
    named = named_arrays(arrays, "arrays")
    for number, x in enumerate(named.arrays):
        if isinstance(x, np.ndarray) and x.dtype.kind == "c":
            hint = "clip it by its norm, or its parts by `view`"
            name = named.name(number)
            raise TypeError(f"{name} must be real: complex numbers have no order. Received: {x.dtype}; {hint}")
        check_source(x, named.name(number))
    clamp(vectors(named, write=True), *bounds)


def adaptive_clip(parameters: Arrays, gradients: Arrays, clipping: float, eps: float = 1e-3) -> None:
    """Scale every unit of the gradients whose norm reaches clipping * max(norm of the parameters' unit, eps) to that.

    In place on `gradients`. Brock, De, Smith and Simonyan, "High-Performance Large-Scale Image Recognition Without
    Normalization", ICML 2021, equation 3, as `optax.adaptive_grad_clip` has it: unit i of G becomes
    G_i * clipping * max(|W_i|, eps) / max(|G_i|, 1e-6).

    A unit is a row x[i] of a weight in the order (out, in, ...), all that leads to one output; optax's weights have
    the order (in, out), so its units are columns. As there, an array with at most one axis longer than 1 (a bias, a
    scale) is one unit as a whole. Weights in optax's order are passed as their transposes.

    Args:
        parameters: arrays as in `global_norm`; read only.
        gradients: writeable arrays, as many and of the same shapes. Dicts are matched by their keys, else by order.
        clipping: the largest quotient of the norms of gradient and parameters, at least 0; 0.01 to 0.16 in the paper.
        eps: the least norm that a unit of parameters is taken to have, so that zeros can be trained; at least 0.

    Raises:
        TypeError: not such arrays, or `clipping` or `eps` is no real number.
        ValueError: read-only or self-overlapping memory, gradients that share part of their memory or do not match the
            parameters, or a negative or infinite `clipping` or `eps`. Nothing was written.

    >>> import numpy as np
    >>> weight, gradient = np.array([[3.0, 4.0], [0.0, 0.0]]), np.array([[0.3, 0.4], [0.3, 0.4]])
    >>> adaptive_clip(weight, gradient, clipping=0.01)
    >>> gradient
    array([[3.e-02, 4.e-02],
           [6.e-06, 8.e-06]])
    """
    clipping, eps = non_negative("clipping", clipping), non_negative("eps", eps)
    weights, named = paired_arrays(parameters, gradients)
    for number, (weight, gradient) in enumerate(zip(weights.arrays, named.arrays, strict=True)):
        name, gradient_name = weights.name(number), named.name(number)
        check_source(weight, name, NUMBERS)
        check_target(gradient, gradient_name, NUMBERS)
        if weight.shape != gradient.shape:
            raise ValueError(
                f"{gradient_name} must have the shape of {name}, {weight.shape}. Received: {gradient.shape}"
            )
    memory = vectors(named, write=True, by_row=True)
    largest = clipping * np.maximum(norms_of(vectors(weights, write=False, by_row=True), 2.0, whole=False), eps)
    norms = norms_of(memory, 2.0, whole=False)
    with np.errstate(invalid="ignore"):
        factors = largest / np.maximum(norms, _DIVISION_EPS)
    memory.change("sums.norms.scale_kernel", factors[:, None], ~(norms < largest))


# --- for the faces: step by step, on memory that they located ---


def total_norm(memory: Vectors, norm_type: float) -> float:
    """`global_norm` of all of the memory."""
    return float(norms_of(memory, _norm_type(norm_type), whole=True)[0])


def scale_by_norm(memory: Vectors, norm: float, max_norm: float, eps: float) -> None:
    """Multiply all of the memory by min(1, max_norm / (norm + eps)), in place, whatever norm that is.

    The rule of `torch.nn.utils.clip_grads_with_norm_`. Unlike in `clip_by_global_norm`, eps takes part in the
    comparison, and an infinite norm exceeds an infinite `max_norm`.
    """
    factor = _factors(np.float64(norm), _limit(max_norm), non_negative("eps", eps))
    if not factor >= 1:  # NaN too
        memory.change("sums.norms.scale_kernel", np.array([[factor]]))


def clamp(memory: Vectors, low: float, high: float) -> None:
    """`clip_by_value` of all of the memory, by bounds that are in order."""
    bounds, present = np.zeros((len(DTYPES), 2)), set(memory.codes.tolist())
    with np.errstate(over="ignore"):  # beyond the dtype's range is no bound
        for code, dtype in enumerate(DTYPES.values()):
            if code in present:
                bounds[code] = np.array([low, high]).astype(dtype)
    memory.change("sums.norms.clamp_kernel", bounds[memory.codes])


# --- arguments ---


def _norm_type(value: float) -> float:
    p = real("norm_type", value)
    if not p > 0:
        raise ValueError(f"norm_type must be above 0; infinity is allowed. Received: norm_type={value!r}")
    return p if p < _LARGEST_P else math.inf


def _limit(value: float) -> float:
    limit = real("max_norm", value)
    if not limit >= 0:
        raise ValueError(f"max_norm must be at least 0. Received: max_norm={value!r}")
    return limit


def _all_finite(norms: Array, name: Callable[[int], str]) -> None:
    for number in np.flatnonzero(~np.isfinite(norms)).tolist():
        raise ValueError(f"the norm of {name(number)} must be finite. Received: {norms[number]}")


def _factors(norms: Any, limit: float, eps: float) -> Any:
    with np.errstate(all="ignore"):
        return limit / (norms + eps)
