"""fastinit: the weights of large neural networks at memory speed, the same bits whatever the threads, CPU or shards.

>>> import fastinit as fi
>>> weight = fi.he_normal((512, 784), seed=fi.Key(0) / "layers.0.weight")
>>> weight.shape, weight.dtype
((512, 784), dtype('float32'))
"""

import importlib

from fastinit.activations import activation
from fastinit.clipping import adaptive_clip, clip_by_global_norm, clip_by_norm, clip_by_value, global_norm
from fastinit.composite import Patched, SameAs, Values
from fastinit.distributions import Constant, Distribution, Normal, TruncatedNormal, Uniform
from fastinit.fans import fans, gain
from fastinit.filling import add, fill
from fastinit.initializers import (
    constant,
    deepnet,
    delta_orthogonal,
    depth_scaled,
    dirac,
    eye,
    fixup,
    glorot_normal,
    glorot_uniform,
    hadamard,
    he_normal,
    he_uniform,
    heuristic_normal,
    heuristic_uniform,
    kaiming_normal,
    kaiming_uniform,
    lecun_normal,
    lecun_uniform,
    mup,
    normal,
    ones,
    orthogonal,
    sparse,
    tfixup,
    truncated_normal,
    uniform,
    variance_scaling,
    xavier_normal,
    xavier_uniform,
    zeros,
)
from fastinit.key import Key
from fastinit.layers import dense_backward, dense_forward
from fastinit.losses import mean_squared_error, sigmoid_cross_entropy, softmax_cross_entropy
from fastinit.lsuv import lsuv
from fastinit.mlp import MLP, History
from fastinit.optimizers import SGD, Adam, AdamW
from fastinit.plan import Fill, Plan, Tied
from fastinit.schemes import law
from fastinit.structured import DeltaOrthogonal, Dirac, Eye, Hadamard, Orthogonal, Sparse
from fastinit.summary import Summary, summarize
from fastinit.threads import thread_limit

__all__ = [
    "MLP",
    "SGD",
    "Adam",
    "AdamW",
    "Constant",
    "DeltaOrthogonal",
    "Dirac",
    "Distribution",
    "Eye",
    "Fill",
    "Hadamard",
    "History",
    "Key",
    "Normal",
    "Orthogonal",
    "Patched",
    "Plan",
    "SameAs",
    "Sparse",
    "Summary",
    "Tied",
    "TruncatedNormal",
    "Uniform",
    "Values",
    "activation",
    "adaptive_clip",
    "add",
    "clip_by_global_norm",
    "clip_by_norm",
    "clip_by_value",
    "constant",
    "deepnet",
    "delta_orthogonal",
    "dense_backward",
    "dense_forward",
    "depth_scaled",
    "dirac",
    "eye",
    "fans",
    "fill",
    "fixup",
    "gain",
    "global_norm",
    "glorot_normal",
    "glorot_uniform",
    "hadamard",
    "he_normal",
    "he_uniform",
    "heuristic_normal",
    "heuristic_uniform",
    "kaiming_normal",
    "kaiming_uniform",
    "law",
    "lecun_normal",
    "lecun_uniform",
    "lsuv",
    "mean_squared_error",
    "mup",
    "normal",
    "ones",
    "orthogonal",
    "sigmoid_cross_entropy",
    "softmax_cross_entropy",
    "sparse",
    "summarize",
    "tfixup",
    "thread_limit",
    "truncated_normal",
    "uniform",
    "variance_scaling",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """`fastinit.checkpoint` is imported when it is first asked for: most users fill arrays, and need no threads, locks
    and file names."""
    if name == "checkpoint":
        return importlib.import_module("fastinit.checkpoint")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
