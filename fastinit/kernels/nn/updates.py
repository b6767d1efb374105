"""One step of an optimiser over a range of parameters, the clip factor inside.

An update in C's terms: void (*)(void *weights, const void *gradient, void *first, void *second, uint64 count,
double factor, double step, const double *rates). The gradient counts as factor * gradient; `first` and `second` are the
optimiser's memory (unused ones are not touched); `step` counts from 1.
"""

from __future__ import annotations

import math

import numpy as np
from numba import types

from fastinit._native.records import UPDATE
from fastinit.kernels.drive import list_driver
from fastinit.kernels.jit import Definition, c_caller, carray, definition, scalar

f32, f64, u64 = np.float32, np.float64, np.uint64

UPDATE_SIGNATURE = types.void(
    types.voidptr,
    types.voidptr,
    types.voidptr,
    types.voidptr,
    types.uint64,
    types.float64,
    types.float64,
    types.CPointer(types.float64),
)
call_update = c_caller(UPDATE_SIGNATURE)
ELEMENT = f32  # a template argument, as in `kernels.fill`


@scalar
def _power(base, exponent):
    """base^exponent for a whole exponent, by squaring: libm's `pow` has other bits on other machines."""
    result, left = f64(1), u64(exponent)
    while left > u64(0):
        if left & u64(1):
            result *= base
        base *= base
        left >>= u64(1)
    return result


def _sgd(weights, gradient, first, second, count, factor, step, rates):
    """w -= rate (factor g + decay w). rates: learning rate, weight decay."""
    w, g = carray(weights, count, ELEMENT), carray(gradient, count, ELEMENT)
    scale, rate, decay = ELEMENT(factor), ELEMENT(rates[0]), ELEMENT(rates[1])
    for i in range(count):
        w[i] -= rate * (scale * g[i] + decay * w[i])


def _momentum(weights, gradient, first, second, count, factor, step, rates):
    """v = momentum v + g, w -= rate v; Nesterov: w -= rate (g + momentum v).

    Sutskever et al., ICML 2013, in the form that torch.optim.SGD has. rates: learning rate, weight decay, momentum,
    1 for Nesterov.
    """
    w, g, v = carray(weights, count, ELEMENT), carray(gradient, count, ELEMENT), carray(first, count, ELEMENT)
    scale, rate, decay = ELEMENT(factor), ELEMENT(rates[0]), ELEMENT(rates[1])
    momentum = ELEMENT(rates[2])
    of_gradient = ELEMENT(rates[3])
    of_velocity = ELEMENT(1) + of_gradient * (momentum - ELEMENT(1))  # 1, or the momentum
    for i in range(count):
        slope = scale * g[i] + decay * w[i]
        v[i] = momentum * v[i] + slope
        w[i] -= rate * (of_gradient * slope + of_velocity * v[i])


def _adam(weights, gradient, first, second, count, factor, step, rates):
    """Adam (Kingma & Ba, ICLR 2015, algorithm 1), and AdamW (Loshchilov & Hutter, ICLR 2019, algorithm 2).

    rates: learning rate, decay added to the gradient, beta 1, beta 2, epsilon, decay of the weights themselves.
    """
    w, g = carray(weights, count, ELEMENT), carray(gradient, count, ELEMENT)
    m, v = carray(first, count, ELEMENT), carray(second, count, ELEMENT)
    scale, decay = ELEMENT(factor), ELEMENT(rates[1])
    beta1, beta2, epsilon = ELEMENT(rates[2]), ELEMENT(rates[3]), ELEMENT(rates[4])
    left1, left2 = ELEMENT(f64(1) - rates[2]), ELEMENT(f64(1) - rates[3])
    rate = ELEMENT(rates[0] / (f64(1) - _power(rates[2], step)))
    root = ELEMENT(f64(1) / math.sqrt(f64(1) - _power(rates[3], step)))
    lost = ELEMENT(rates[0] * rates[5])  # of the weights; 1 - lost would lose half of its digits
    for i in range(count):
        slope = scale * g[i] + decay * w[i]
        m[i] = beta1 * m[i] + left1 * slope
        v[i] = beta2 * v[i] + left2 * slope * slope
        w[i] -= lost * w[i] + rate * m[i] / (math.sqrt(v[i]) * root + epsilon)


UPDATES = {"sgd": _sgd, "momentum": _momentum, "adam": _adam}


def update_kernel(name: str, dtype: str) -> Definition:
    """The update for a dtype."""
    names = {"ELEMENT": f64} if dtype == "float64" else {}
    return definition(UPDATES[name], UPDATE_SIGNATURE, **names)


@scalar
def _update_range(array, first, count):
    place = first * array.size
    call_update(
        array.kernel,
        array.weights + place,
        array.gradients + place,
        array.first + place,
        array.second + place,
        u64(count),
        array.factor,
        array.step,
        array.rates,
    )


def listed_updates() -> Definition:
    """The driver of a list of arrays, `records.UPDATE`."""
    return list_driver(UPDATE, _update_range)
