"""Dense layers for those who bring their own model: forward and backward, the activation inside."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from fastinit._native.library import kernel
from fastinit._native.records import LAYER, PRODUCT_SCRATCH
from fastinit._runtime.arrays import Array, address, as_matrix, as_result, check_apart, check_form
from fastinit._runtime.pool import together
from fastinit._runtime.threads import num_threads
from fastinit.nn._activations import Activation, as_activation

# Multiply-adds from which two threads win: about 0.3 ms of products on one.
PARALLEL_PRODUCTS = 1 << 23


def dense_forward(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    activation: str | Activation = "identity",
    *,
    out: Array | None = None,
    kept: Array | None = None,
) -> Array:
    """f(x weight^T + bias): a dense layer and its activation.

    Args:
        x: (batch, in), float32 or float64.
        weight: (out, in), as torch has it; all arrays of one dtype.
        bias: (out,), or None.
        activation: a name, or an `activation` with parameters.
        out: (batch, out), C-contiguous: where the result goes. Default: a new array.
        kept: (batch, out), C-contiguous: gets the activation's input z where `dense_backward` needs it (gelu,
            gelu_tanh, silu); the others need their output alone, and leave `kept` alone.

    Returns:
        The result, `out` where it was given.

    Raises:
        TypeError: no such arrays.
        ValueError: shapes or dtypes that do not fit, results that share memory with something else, or an unknown
            activation. Nothing was written.

    >>> import numpy as np
    >>> x, weight = np.ones((1, 2)), np.array([[1.0, 2.0], [-1.0, -2.0], [0.5, 0.0]])
    >>> dense_forward(x, weight, np.zeros(3), "relu")
    array([[3. , 0. , 0.5]])
    """
    made = as_activation(activation)
    x, weight = as_matrix(x, "x"), as_matrix(weight, "weight", x.dtype)
    (rows, inputs), outputs = x.shape, weight.shape[0]
    if weight.shape[1] != inputs:
        raise ValueError(f"weight must be (out, in) for x of (batch, in). Received: {weight.shape} for {x.shape}")
    if bias is None:
        bias = np.zeros(outputs, x.dtype)
    check_form(bias, "bias", (outputs,), x.dtype)
    bias = np.ascontiguousarray(bias)
    out = as_result(out, "out", (rows, outputs), x.dtype)
    if made.keeps == "output":
        kept, results = out, {"out": out}
    else:
        kept = as_result(kept, "kept", out.shape, out.dtype)
        results = {"out": out, "kept": kept}
    check_apart(results, {"x": x, "weight": weight, "bias": bias})
    if not inputs:  # products have at least one term; one that is 0 gives the same
        x, weight, inputs = np.zeros((rows, 1), x.dtype), np.zeros((outputs, 1), x.dtype), 1
    if rows and outputs:
        layer = layer_record(made, weight, bias, None, None, kept, out)
        _run("dense_forward", x.dtype, layer, rows * inputs * outputs, address(x), rows)
    return out


def dense_backward(
    dy: Array,
    x: Array,
    kept: Array,
    weight: Array,
    activation: str | Activation = "identity",
    *,
    dx: Array | None = None,
    dweight: Array | None = None,
    dbias: Array | None = None,
) -> tuple[Array, Array, Array]:
    """The gradients of a dense layer, from the gradient `dy` of its result.

    Args:
        dy: (batch, out), float32 or float64; not changed.
        x: (batch, in): what the layer read.
        kept: (batch, out): what the activation keeps: the layer's result y, or its `kept` (gelu, gelu_tanh, silu).
        weight: (out, in).
        activation: as in `dense_forward`.
        dx, dweight, dbias: C-contiguous arrays of the shapes of x, weight and bias: where the gradients go. Default:
            new ones. dx may be dy.

    Returns:
        (dx, dweight, dbias).

    Raises:
        TypeError: no such arrays.
        ValueError: shapes or dtypes that do not fit, results that share memory with x, weight or one another, or an
            unknown activation. Nothing was written.

    >>> import numpy as np
    >>> x, weight = np.ones((1, 2)), np.array([[1.0, 2.0], [-1.0, -2.0]])
    >>> y = dense_forward(x, weight, activation="relu")
    >>> dx, dweight, dbias = dense_backward(np.ones((1, 2)), x, y, weight, "relu")
    >>> dx.tolist(), dweight.tolist(), dbias.tolist()
    ([[1.0, 2.0]], [[1.0, 1.0], [0.0, 0.0]], [1.0, 0.0])
    """
    made = as_activation(activation)
    dy = as_matrix(dy, "dy")
    x, kept, weight = (
        as_matrix(array, name, dy.dtype) for array, name in ((x, "x"), (kept, "kept"), (weight, "weight"))
    )
    (rows, outputs), inputs = dy.shape, weight.shape[1]
    if x.shape != (rows, inputs) or kept.shape != dy.shape or weight.shape[0] != outputs:
        raise ValueError(
            "dy and kept must be (batch, out), x (batch, in) and weight (out, in). "
            f"Received: dy {dy.shape}, kept {kept.shape}, x {x.shape}, weight {weight.shape}"
        )
    dx = as_result(dx, "dx", x.shape, dy.dtype)
    dweight = as_result(dweight, "dweight", weight.shape, dy.dtype)
    dbias = as_result(dbias, "dbias", (outputs,), dy.dtype)
    check_apart({"dx": dx, "dweight": dweight, "dbias": dbias}, {"x": x, "weight": weight})
    delta = dy.copy()
    made.pull_back(delta, kept)
    if rows and outputs and inputs:
        layer = layer_record(made, weight, None, dweight, dbias, kept, kept)
        _run("dense_backward", x.dtype, layer, 2 * weight.size * rows, address(x), address(delta), address(dx), rows)
    else:
        dx[...] = 0
        dweight[...] = 0
        dbias[...] = delta.sum(axis=0)
    return dx, dweight, dbias


def layer_record(
    activation: Activation,
    weight: Array,
    bias: Array | None,
    weight_gradient: Array | None,
    bias_gradient: Array | None,
    saved: Array | int,
    out: Array | int,
) -> tuple[int, ...]:
    """The fields of a `records.LAYER`; memory that is not used is None."""

    def place(memory: Array | int | None) -> int:
        return 0 if memory is None else memory if isinstance(memory, int) else address(memory)

    arrays = weight, bias, weight_gradient, bias_gradient, saved, out
    kernels = (
        kernel(f"nn.activations.{way}_kernel", activation.name, weight.dtype.name) for way in ("forward", "backward")
    )
    return (
        *reversed(weight.shape),
        weight.itemsize,
        *map(place, arrays),
        *(one.address for one in kernels),
        address(activation_numbers(activation)),
        0,
    )


@functools.cache  # for ever: the kernels read them
def activation_numbers(activation: Activation) -> Array:
    """The activation's parameters as its kernels take them."""
    return activation.packed


def workers_of(products: int) -> int:
    """How many threads so many multiply-adds are worth."""
    return num_threads() if products >= PARALLEL_PRODUCTS else 1


def _run(name: str, dtype: np.dtype[Any], fields: tuple[int, ...], products: int, *numbers: int) -> None:
    workers, layer, counters = workers_of(products), np.array(fields, LAYER), np.zeros(2, np.int64)
    scratch = np.empty((workers, PRODUCT_SCRATCH), dtype)
    multiply = kernel("products.product.product", dtype.name).address
    memory = address(counters), address(scratch), scratch.strides[0]
    run = kernel("nn.network.driver", name, dtype.name).call
    together(functools.partial(run, address(layer), multiply, *numbers, workers, *memory), workers)
