"""All compiled functions: their names, and the variants that there are of each."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

DTYPES = ("float16", "bfloat16", "float32", "float64")
FLOATS = ("float32", "float64")  # those that networks are trained in

DISTRIBUTIONS = ("constant", "uniform", "normal", "narrow_truncated", "truncated")
NORMS = ("squares", "absolute", "power", "largest")
LOSSES = ("softmax_classes", "softmax_shares", "sigmoid", "squared")
UPDATES = ("sgd", "momentum", "adam")
# Activation -> what a layer keeps for the way back: the output y = f(z), or the input z.
KEEPS = {
    **dict.fromkeys(("identity", "relu", "leaky_relu", "elu", "selu", "sigmoid", "tanh", "softplus"), "output"),
    **dict.fromkeys(("gelu", "gelu_tanh", "silu"), "input"),
}

# A module and a function of `fastinit.kernels` -> what each argument may be.
KERNELS: dict[str, tuple[tuple[str, ...], ...]] = {
    "drive.shared": (),
    "drive.listed": (),
    "headers.locate": (),
    "fill.range_kernel": (("fill", "add"), DISTRIBUTIONS, DTYPES),
    "fill.stream_kernel": (DTYPES,),
    "sums.moments.moments": (DTYPES,),
    "sums.moments.quick_moments": (DTYPES[:3],),
    "sums.norms.norm_kernel": (NORMS, DTYPES),
    "sums.norms.scale_kernel": (DTYPES,),
    "sums.norms.clamp_kernel": (DTYPES,),
    "products.product.product": (FLOATS,),
    "products.reflectors.reflect": (FLOATS,),
    "products.reflectors.apply": (FLOATS,),
    "nn.activations.forward_kernel": (tuple(KEEPS), FLOATS),
    "nn.activations.backward_kernel": (tuple(KEEPS), FLOATS),
    "nn.losses.loss_kernel": (LOSSES, FLOATS),
    "nn.updates.update_kernel": (UPDATES, FLOATS),
    "nn.updates.listed_updates": (),
    "nn.network.driver": (("train", "train_members", "predict", "dense_forward", "dense_backward"), FLOATS),
}
if hasattr(os, "pread"):
    KERNELS["sums.reading.read"] = ()


def everything() -> Iterator[tuple[str, ...]]:
    """The name and the variant of every compiled function."""
    for name, axes in KERNELS.items():
        for variant in itertools.product(*axes):
            yield name, *variant
