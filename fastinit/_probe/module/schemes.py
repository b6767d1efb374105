"""The weights of a module under a scheme, and schemes that may fit its activations."""

from __future__ import annotations

from collections import Counter

import torch
from torch import nn

from fastinit._core.fans import item_shape
from fastinit._core.key import Key
from fastinit._probe.advice import AS_IT_IS, Scheme, candidates, distributions_of
from fastinit._probe.module.untouched import as_leaf
from fastinit.nn._activations import Activation
from fastinit.schemes._filling import fill
from fastinit.torch._modules import axes_of, clean
from fastinit.torch._tensors import DTYPES, host_array

# Classes that compute an activation, by their names: torch's, and those of transformers.
ACTIVATIONS = {
    "ReLU": "relu",
    "ReLU6": "relu",
    "LeakyReLU": "leaky_relu",
    "ELU": "elu",
    "SELU": "selu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Softplus": "softplus",
    "GELU": "gelu",
    "GELUActivation": "gelu",
    "QuickGELUActivation": "gelu",
    "NewGELUActivation": "gelu_tanh",
    "FastGELUActivation": "gelu_tanh",
    "GELUTanh": "gelu_tanh",
    "SiLU": "silu",
    "SiLUActivation": "silu",
}
_UNSEEN = ("he_normal", "xavier_uniform")  # candidates where activations are no modules


def drawn_weights(module: nn.Module, scheme: Scheme | None, key: Key) -> tuple[dict[str, torch.Tensor], str]:
    """The parameters that the module runs with, by name, and the name of their scheme."""
    weights = {name: as_leaf(parameter) for name, parameter in module.named_parameters()}
    if scheme is None:
        return weights, AS_IT_IS
    axes = {name: axes_of(owner, parameter) for name, owner, parameter in _matrices(module)}
    if not axes:
        raise ValueError(f"scheme needs parameters of two dimensions or more. Received: {type(module).__name__}")
    distributions, called = distributions_of(scheme, [item_shape(weights[name].shape, *axes[name]) for name in axes])
    for (name, (layout, batch_axes)), distribution in zip(axes.items(), distributions, strict=True):
        old = weights[name].detach()
        new = torch.empty_like(old, device="cpu")
        array = host_array(new)
        assert array is not None
        try:
            fill(array, distribution, seed=key / clean(name), layout=layout, batch_axes=batch_axes)
        except ValueError as error:
            raise ValueError(f"scheme has no law for {clean(name)}: {error}") from None
        weights[name] = as_leaf(new.to(old.device))
    return weights, called


def _matrices(module: nn.Module) -> list[tuple[str, nn.Module, nn.Parameter]]:
    """The parameters that a scheme is for, each once: their names and modules."""
    seen: dict[int, tuple[str, nn.Module, nn.Parameter]] = {}
    for prefix, owner in module.named_modules():
        for name, parameter in owner.named_parameters(prefix, recurse=False):
            if parameter.ndim >= 2 and parameter.dtype in DTYPES:
                seen.setdefault(id(parameter), (name, owner, parameter))
    return list(seen.values())


def candidates_of(module: nn.Module) -> tuple[str, ...]:
    """Schemes that may fit the activation which a module has most of."""
    if not _matrices(module):
        return ()
    found = Counter(filter(None, map(_activation, module.modules())))
    return candidates(found.most_common(1)[0][0]) if found else _UNSEEN


def _activation(module: nn.Module) -> Activation | None:
    name = ACTIVATIONS.get(type(module).__name__)
    if isinstance(module, nn.LeakyReLU) and module.negative_slope >= 0:
        return Activation("leaky_relu", (("slope", module.negative_slope),))
    if isinstance(module, nn.ELU) and module.alpha >= 0:
        return Activation("elu", (("alpha", module.alpha),))
    return Activation(name) if name else None
