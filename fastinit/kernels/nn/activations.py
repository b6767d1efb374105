"""Activations and their derivatives: one pass over a matrix, the bias added on the way.

A layer saves one matrix for the way back: the output y where f' is a simple function of it, the input z elsewhere
(`KEEPS`). As in `kernels.exponential`, a body serves both float types: `name_value(z, p)` is f and
`name_derivative(saved, p)` f', p being the activation's parameter. NaN comes through: where both sides of a comparison
would drop it, a second select has it.
"""

from __future__ import annotations

import functools
import math
from typing import Any

from fastinit._native.catalogue import KEEPS
from fastinit._native.records import ACTIVATION_PARAMETERS
from fastinit.kernels.exponential import FLOAT, NAMES, exp, expm1, normal_tail, sigmoid, softplus, tanh
from fastinit.kernels.jit import (
    BACKWARD_SIGNATURE,
    FORWARD_SIGNATURE,
    Definition,
    carray,
    definition,
    fma,
    scalars,
)

SELU_ALPHA, SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
TANH_LINEAR, TANH_CUBIC = math.sqrt(8 / math.pi), math.sqrt(8 / math.pi) * 0.044715
BELL = 1 / math.sqrt(2 * math.pi)
GELU_FAR, SILU_FAR = 40, 1000  # from here on the two are z or a zero; an infinity times that zero would be NaN


def sides(y, below, above):
    """`below` up to 0, `above` over 0; and NaN."""
    return below if y <= FLOAT(0) else (above if y > FLOAT(0) else y)


def within(z, far):
    z = -far if z < -far else z
    return far if z > far else z


def identity_value(z, p):
    return z


def identity_derivative(y, p):
    return y if y != y else FLOAT(1)


def relu_value(z, p):
    return sides(z, FLOAT(0), z)


def relu_derivative(y, p):
    return sides(y, FLOAT(0), FLOAT(1))


def leaky_relu_value(z, p):
    return sides(z, p * z, z)


def leaky_relu_derivative(y, p):
    return sides(y, p, FLOAT(1))


def elu_value(z, p):
    return z if z > FLOAT(0) else p * expm1(z)


def elu_derivative(y, p):
    return FLOAT(1) if y > FLOAT(0) else y + p


def selu_value(z, p):
    return FLOAT(SELU_SCALE) * z if z > FLOAT(0) else FLOAT(SELU_SCALE * SELU_ALPHA) * expm1(z)


def selu_derivative(y, p):
    return FLOAT(SELU_SCALE) if y > FLOAT(0) else y + FLOAT(SELU_SCALE * SELU_ALPHA)


def sigmoid_value(z, p):
    return sigmoid(z)


def sigmoid_derivative(y, p):
    return fma(-y, y, y)


def tanh_value(z, p):
    return tanh(z)


def tanh_derivative(y, p):
    return fma(-y, y, FLOAT(1))


def softplus_value(z, p):
    return softplus(z)


def softplus_derivative(y, p):
    """sigmoid(z) = 1 - e^-y."""
    return -expm1(-y)


def gelu_value(z, p):
    """z Phi(z) = z (1 + erf(z / sqrt 2)) / 2, without the cancellation of the second form on the left."""
    near = within(z, FLOAT(GELU_FAR))
    tail, _ = normal_tail(near)
    return (z if z > FLOAT(0) else near) * (FLOAT(1) - tail if z > FLOAT(0) else tail)


def gelu_derivative(z, p):
    """Phi(z) + z phi(z)."""
    z = within(z, FLOAT(GELU_FAR))
    tail, bell = normal_tail(z)
    return fma(z, FLOAT(BELL) * bell, FLOAT(1) - tail if z > FLOAT(0) else tail)


def gelu_tanh_value(z, p):
    """z (1 + tanh u) / 2 = z sigmoid(2 u), 2 u = sqrt(8 / pi) (z + 0.044715 z^3)."""
    near = within(z, FLOAT(GELU_FAR))
    inner = near * fma(near * near, FLOAT(TANH_CUBIC), FLOAT(TANH_LINEAR))
    return (z if z > FLOAT(0) else near) * sigmoid(inner)


def sigmoid_pair(z):
    """(sigmoid(z), sigmoid(-z))."""
    small = exp(-abs(z))
    large = FLOAT(1) / (FLOAT(1) + small)
    small = small * large
    right = z >= FLOAT(0)
    return (large if right else small), (small if right else large)


def gelu_tanh_derivative(z, p):
    z = within(z, FLOAT(GELU_FAR))
    square = z * z
    left, right = sigmoid_pair(z * fma(square, FLOAT(TANH_CUBIC), FLOAT(TANH_LINEAR)))
    return fma(left * right, z * fma(square, FLOAT(3 * TANH_CUBIC), FLOAT(TANH_LINEAR)), left)


def silu_value(z, p):
    return (z if z > FLOAT(0) else within(z, FLOAT(SILU_FAR))) * sigmoid(z)


def silu_derivative(z, p):
    """s + z s (1 - s), s = sigmoid(z)."""
    z = within(z, FLOAT(SILU_FAR))
    left, right = sigmoid_pair(z)
    return fma(z, left * right, left)


# Activation -> f and f'.
_TABLE: dict[str, tuple[Any, Any]] = {
    "identity": (identity_value, identity_derivative),
    "relu": (relu_value, relu_derivative),
    "leaky_relu": (leaky_relu_value, leaky_relu_derivative),
    "elu": (elu_value, elu_derivative),
    "selu": (selu_value, selu_derivative),
    "sigmoid": (sigmoid_value, sigmoid_derivative),
    "tanh": (tanh_value, tanh_derivative),
    "softplus": (softplus_value, softplus_derivative),
    "gelu": (gelu_value, gelu_derivative),
    "gelu_tanh": (gelu_tanh_value, gelu_tanh_derivative),
    "silu": (silu_value, silu_derivative),
}
_BODIES: list[Any] = [sides, within, sigmoid_pair, *(body for bodies in _TABLE.values() for body in bodies)]

# Template arguments of the loops; the kernels have their own.
VALUE, DERIVATIVE = identity_value, identity_derivative


def _forward_in_place(saved, out, bias, rows, columns, step, parameters):
    """saved = f(saved + bias). `out` is not read: two pointers to one matrix would fail the check for overlap that the
    vectorised loop begins with."""
    y = carray(saved, (rows, step), FLOAT)
    b = carray(bias, columns, FLOAT)
    p = FLOAT(carray(parameters, ACTIVATION_PARAMETERS)[0])
    for r in range(rows):
        for c in range(columns):
            y[r, c] = VALUE(y[r, c] + b[c], p)


def _forward_apart(saved, out, bias, rows, columns, step, parameters):
    """saved += bias; out = f(saved)."""
    z = carray(saved, (rows, step), FLOAT)
    y = carray(out, (rows, step), FLOAT)
    b = carray(bias, columns, FLOAT)
    p = FLOAT(carray(parameters, ACTIVATION_PARAMETERS)[0])
    for r in range(rows):
        for c in range(columns):
            value = z[r, c] + b[c]
            z[r, c] = value
            y[r, c] = VALUE(value, p)


def _backward(gradient, saved, rows, columns, step, parameters):
    """gradient *= f'(saved)."""
    g = carray(gradient, (rows, step), FLOAT)
    x = carray(saved, (rows, step), FLOAT)
    p = FLOAT(carray(parameters, ACTIVATION_PARAMETERS)[0])
    for r in range(rows):
        for c in range(columns):
            g[r, c] *= DERIVATIVE(x[r, c], p)


@functools.cache
def _compiled(dtype: str) -> dict[str, Any]:
    """The bodies for a float type, by name. Not at import: it takes 15 ms."""
    return scalars(_BODIES, **NAMES[dtype])


def forward_kernel(name: str, dtype: str) -> Definition:
    """An activation's forward kernel.

    C signature: void(void *saved, void *out, void *bias, uint64 rows, uint64 columns, uint64 step,
    double *parameters), the matrices row-major, of shape (rows, columns), with `step` elements from one row to the
    next; the bias of length columns. Where the output is saved, saved = f(saved + bias) and `out` is not touched; where
    the input is, saved += bias and out = f(saved), `out` being other memory.
    """
    loop = _forward_in_place if KEEPS[name] == "output" else _forward_apart
    return _kernel(loop, FORWARD_SIGNATURE, name, dtype)


def backward_kernel(name: str, dtype: str) -> Definition:
    """An activation's backward kernel.

    C signature: void(void *gradient, void *saved, uint64 rows, uint64 columns, uint64 step, double *parameters):
    gradient *= f'(saved), matrices as above.
    """
    return _kernel(_backward, BACKWARD_SIGNATURE, name, dtype)


def _kernel(loop: Any, signature: Any, name: str, dtype: str) -> Definition:
    compiled = _compiled(dtype)
    return definition(
        loop,
        signature,
        FLOAT=compiled["FLOAT"],
        VALUE=compiled[f"{name}_value"],
        DERIVATIVE=compiled[f"{name}_derivative"],
    )
