"""Losses and their gradients in one pass, with the output's activation inside: stable for logits of any size.

A loss kernel in C's terms: void (*)(void *logits, void *gradient, const void *targets, uint64 rows, uint64 columns,
double weight, double *loss). It writes weight times the sum of the rows' losses to loss[0], and the gradient of that
with respect to the logits; the logits are overwritten. A row's loss is the mean over its columns; the softmax has one
for the row. NaN goes through everything.
"""

from __future__ import annotations

import numpy as np
from numba import types

from fastinit.kernels.elementary import log32, log64
from fastinit.kernels.exponential import NAMES, exp, sigmoid, softplus
from fastinit.kernels.jit import Definition, c_caller, carray, definition, scalar
from fastinit.kernels.store import itself
from fastinit.kernels.sums.order import as_is, fixed_sum, square

f32, f64, i64, u64 = np.float32, np.float64, np.int64, np.uint64

LOSS_SIGNATURE = types.void(
    types.voidptr,
    types.voidptr,
    types.voidptr,
    types.uint64,
    types.uint64,
    types.float64,
    types.CPointer(types.float64),
)
call_loss = c_caller(LOSS_SIGNATURE)

# Template arguments, as in `kernels.fill`.
ELEMENT, EXP, LOG, SIGMOID, SOFTPLUS = f64, exp, log64, sigmoid, softplus


@scalar
def _shifted_exponentials(z, gradient, rows, columns, exp):
    """z -= the maximum of its row, gradient = exp(z): the rows first, so that the exponentials are one long loop."""
    for row in range(rows):
        first = row * columns
        largest = z[first]
        for i in range(first, first + columns):
            largest = max(largest, z[i])
        for i in range(first, first + columns):
            z[i] -= largest
    for i in range(rows * columns):
        gradient[i] = exp(z[i])


@scalar
def _sum(x, term):
    """The float64 sum of term(element)."""
    return fixed_sum(x, itself, term, f64(0), f64(0))


@scalar
def _log_of_sum(total, log):
    """The logarithm, and NaN where the sum is NaN, which `log` itself, all integer operations, would hide."""
    return f64(log(total)) if total == total else f64(total)


def _softmax_classes(logits, gradient, targets, rows, columns, weight, loss):
    """-log softmax(z)[class], classes as int64."""
    z, gradient = carray(logits, rows * columns, ELEMENT), carray(gradient, rows * columns, ELEMENT)
    classes = carray(targets, rows, i64)
    _shifted_exponentials(z, gradient, rows, columns, EXP)
    sum_of_losses = f64(0)
    for row in range(rows):
        first = row * columns
        total = ELEMENT(_sum(gradient[first : first + columns], as_is))
        scale = ELEMENT(weight) / total
        for i in range(first, first + columns):
            gradient[i] *= scale
        mine = first + u64(classes[row])
        gradient[mine] -= ELEMENT(weight)
        sum_of_losses += _log_of_sum(total, LOG) - f64(z[mine])
    loss[0] = sum_of_losses * weight


def _softmax_shares(logits, gradient, targets, rows, columns, weight, loss):
    """-sum of share log softmax(z), the targets being shares of classes."""
    z, gradient = carray(logits, rows * columns, ELEMENT), carray(gradient, rows * columns, ELEMENT)
    shares = carray(targets, rows * columns, ELEMENT)
    _shifted_exponentials(z, gradient, rows, columns, EXP)
    sum_of_losses = f64(0)
    for row in range(rows):
        first = row * columns
        total = ELEMENT(_sum(gradient[first : first + columns], as_is))
        of_all = ELEMENT(_sum(shares[first : first + columns], as_is))
        scale = of_all / total
        for i in range(first, first + columns):
            share = shares[i]
            z[i] = share * z[i] if share != ELEMENT(0) else ELEMENT(0)  # a logit of -inf may have no share
            gradient[i] = ELEMENT(weight) * (gradient[i] * scale - share)
        sum_of_losses += f64(of_all) * _log_of_sum(total, LOG) - _sum(z[first : first + columns], as_is)
    loss[0] = sum_of_losses * weight


def _sigmoid(logits, gradient, targets, rows, columns, weight, loss):
    """-t log s(z) - (1 - t) log(1 - s(z)) = softplus(-|z|) + z ((z > 0) - t), which cancels no digits where t = s(z).

    A loss takes its logit's place, and the sum is a loop of its own: float64 in the first one would halve its vectors.
    """
    z, gradient = carray(logits, rows * columns, ELEMENT), carray(gradient, rows * columns, ELEMENT)
    targets = carray(targets, rows * columns, ELEMENT)
    share = ELEMENT(weight / f64(columns))
    for i in range(rows * columns):
        value, target = z[i], targets[i]
        gradient[i] = share * (SIGMOID(value) - target)
        z[i] = SOFTPLUS(-abs(value)) + value * ((ELEMENT(1) if value > ELEMENT(0) else ELEMENT(0)) - target)
    loss[0] = _sum(z, as_is) * weight / f64(columns)


def _squared(logits, gradient, targets, rows, columns, weight, loss):
    """(z - t)^2. A difference takes its logit's place."""
    z, gradient = carray(logits, rows * columns, ELEMENT), carray(gradient, rows * columns, ELEMENT)
    targets = carray(targets, rows * columns, ELEMENT)
    share = ELEMENT(f64(2) * weight / f64(columns))
    for i in range(rows * columns):
        difference = z[i] - targets[i]
        z[i], gradient[i] = difference, share * difference
    loss[0] = _sum(z, square) * weight / f64(columns)


LOSSES = {
    "softmax_classes": _softmax_classes,
    "softmax_shares": _softmax_shares,
    "sigmoid": _sigmoid,
    "squared": _squared,
}


def loss_kernel(name: str, dtype: str) -> Definition:
    """The loss for a dtype."""
    known, wide = NAMES[dtype], dtype == "float64"
    names = {"ELEMENT": known["FLOAT"], "LOG": log64 if wide else log32}
    names |= {name.upper(): known[name] for name in ("exp", "sigmoid", "softplus")}
    return definition(LOSSES[name], LOSS_SIGNATURE, **names)
