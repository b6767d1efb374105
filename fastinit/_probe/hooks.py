"""`probe` of any module: one pass forward and back, on tensors of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.utils.rnn import PackedSequence

from fastinit._core.distributions import Normal
from fastinit._core.fans import item_shape
from fastinit._core.filling import fill
from fastinit._core.key import Key, Seed, as_key
from fastinit._probe.advice import AS_IT_IS, Scheme, advised, candidates, laws_of
from fastinit._probe.records import Probe, with_ratios
from fastinit._probe.rows import BOUNDED, Rows, first_floats, signal_of
from fastinit._probe.statistics import Signal
from fastinit._probe.untouched import as_leaf, copied, followed_by_autograd, reproducible, untouched
from fastinit._probe.verdicts import judge
from fastinit.nn._activations import Activation
from fastinit.torch._compat import COMPILED
from fastinit.torch._modules import axes_of, clean
from fastinit.torch._record.draws import tensors_in
from fastinit.torch._tensors import DTYPES, host_array, tensor_of

Loss = Callable[[Any], Any]
Arguments = tuple[tuple[Any, ...], dict[str, Any]]

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
_OF_OTHER_SIZE = ("Norm", "LSTM", "GRU")  # in the names of classes whose output has a size of its own
_UNSEEN = ("he_normal", "xavier_uniform")  # candidates where activations are no modules


def probe_module(module: nn.Module, scheme: Scheme | None, data: Any, seed: Seed, loss: Loss | None) -> Probe:
    """Probe a module: every layer that runs has a row, each further run of it ("relu#2") one of its own.

    Layers are modules without children, and those that own a parameter of two dimensions or more. What depends neither
    on the data nor on a weight (tables of angles) is no layer, nor is a scalar. A layer's output is the first tensor of
    floats in what it returns; its weight is its `weight`, or else the first of its parameters with the most axes, and
    the weight's gradient is the one of all runs and ties together. Training or evaluation mode is as it is; dropout is
    drawn from the seed.

    Nothing of the module is written: it runs on other tensors over the same memory, new ones where a scheme is given,
    and on copies of its buffers. Frozen parameters have gradients too.

    Args: as in `probe`.

    Raises:
        TypeError, ValueError: data that are missing or of another type, a module without memory or layers, a loss that
            is no scalar, a law that a parameter's shape or dtype does not allow.
    """
    module = getattr(module, COMPILED, module)
    _check(module, loss)
    arguments, key = _arguments(data), as_key(seed)

    def under(scheme: Scheme | None) -> Probe:
        with followed_by_autograd():
            try:
                return _probed(module, scheme, arguments, key, loss, entry=True)
            except RuntimeError:  # some modules take only inputs without gradients
                return _probed(module, scheme, arguments, key, loss, entry=False)

    return advised(under(scheme), _candidates(module), under)


def _probed(
    module: nn.Module, scheme: Scheme | None, arguments: Arguments, key: Key, loss: Loss | None, *, entry: bool
) -> Probe:
    weights, called = _weights(module, scheme, key)
    buffers = {name: buffer.detach().clone() for name, buffer in module.named_buffers()}
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    tensors = tensors_in(arguments)
    if any(one.is_floating_point() and not (one.isfinite().all() and one.any()) for one in tensors[:1]):
        raise ValueError("data must be finite, and not all 0: what comes of it is no fault of an initialisation")
    devices = {tensor.device for tensor in (*weights.values(), *buffers.values(), *tensors)}
    with untouched(module), reproducible(devices, key / "probe.torch"), Rows(module) as rows:
        swapped = {f"module.{name}": tensor for name, tensor in (buffers | weights).items()}
        value, gradients = functional_call(_Pass(module, rows, loss, key, entry), swapped, (arguments, weights))
    layers = with_ratios(rows.layers(weights, gradients, names))
    if not layers:
        raise ValueError(f"module must run a layer that gives floats. Received: {type(module).__name__}")
    floats = [tensor for tensor in tensors if tensor.is_floating_point()]
    inputs = signal_of(floats[0]) if len(floats) == 1 and floats[0] is tensors[0] else None
    return Probe(
        network=type(module).__name__,
        scheme=called,
        activation=None,
        samples=tensors[0].shape[0] if tensors and tensors[0].ndim else 1,
        seed=repr(key),
        inputs=inputs,
        loss=value,
        layers=layers,
        verdict=judge(layers, _reference(inputs, {layer.kind for layer in layers})),
    )


class _Pass(nn.Module):
    """Forward and backward pass of a module as one call, so that both see the same tensors in it: checkpointed parts
    run again on the way back."""

    def __init__(self, module: nn.Module, rows: Rows, loss: Loss | None, key: Key, entry: bool) -> None:
        super().__init__()
        self.module, self.rows, self.loss, self.key, self.entry = module, rows, loss, key, entry

    def forward(
        self, arguments: Arguments, weights: dict[str, torch.Tensor]
    ) -> tuple[float, dict[str, torch.Tensor | None]]:
        """The loss, and its gradients by the weights' names."""
        (args, kwargs), entry = copied(arguments, self.entry)
        value = _loss_of(self.module(*args, **kwargs), self.loss, self.key)
        self.rows.turn()
        leaves = {name: weight for name, weight in weights.items() if weight.requires_grad}
        ends = [*leaves.values(), *entry]
        found: tuple[torch.Tensor | None, ...] = ()
        if value.requires_grad and ends:
            # Not `backward`: what else the loss depends on, such as weights of its own, gets no gradients.
            found = torch.autograd.grad(value, ends, allow_unused=True)
        return value.item(), dict(zip(leaves, found, strict=False))


def _loss_of(output: Any, loss: Loss | None, key: Key) -> torch.Tensor:
    """The scalar whose gradients are taken."""
    if loss is not None:
        found = loss(output)
    else:
        found = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
        if found is None:
            return _projected(output, key)
    if not isinstance(found, torch.Tensor) or found.numel() != 1 or not found.is_floating_point():
        received = f"{found.dtype} of shape {tuple(found.shape)}" if isinstance(found, torch.Tensor) else repr(found)
        raise TypeError(f"loss must be a tensor of one float. Received: {received:.200}")
    return found.reshape(())


def _projected(output: Any, key: Key) -> torch.Tensor:
    """The mean product of an output with a standard normal tensor."""
    floats = first_floats(output)
    if floats is None:
        raise TypeError(
            "loss must be given where the module's output has no tensor of floats. "
            f"Received: loss=None for {type(output).__name__}"
        )
    wide = floats if floats.dtype is torch.float64 else floats.float()
    direction = np.empty(tuple(wide.shape), DTYPES[wide.dtype])
    fill(direction, Normal(), seed=key / "probe.direction")
    return (wide * tensor_of(direction).to(wide.device)).mean()


def _weights(module: nn.Module, scheme: Scheme | None, key: Key) -> tuple[dict[str, torch.Tensor], str]:
    """What stands in for the module's parameters, by name, and what their law is called."""
    weights = {name: as_leaf(parameter) for name, parameter in module.named_parameters()}
    if scheme is None:
        return weights, AS_IT_IS
    axes = {name: axes_of(owner, parameter) for name, owner, parameter in _matrices(module)}
    if not axes:
        raise ValueError(f"scheme needs parameters of two dimensions or more. Received: {type(module).__name__}")
    laws, called = laws_of(scheme, [item_shape(weights[name].shape, *axes[name]) for name in axes])
    for (name, (layout, batch_axes)), law in zip(axes.items(), laws, strict=True):
        old = weights[name].detach()
        new = torch.empty_like(old, device="cpu")
        array = host_array(new)
        assert array is not None
        try:
            fill(array, law, seed=key / clean(name), layout=layout, batch_axes=batch_axes)
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


def _candidates(module: nn.Module) -> tuple[str, ...]:
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


def _reference(inputs: Signal | None, kinds: set[str]) -> float | None:
    """What the first layer's size is compared with: not the data's where a layer normalises or is gated."""
    if inputs is None or any(word in kind for kind in kinds for word in _OF_OTHER_SIZE):
        return None
    return min(inputs.rms, 1.0) if kinds & BOUNDED.keys() else inputs.rms


def _arguments(data: Any) -> Arguments:
    """What a module is called with."""
    if isinstance(data, torch.Tensor | PackedSequence):
        return (data,), {}
    if isinstance(data, tuple):
        return data, {}
    if isinstance(data, Mapping) and all(isinstance(name, str) for name in data):
        return (), dict(data)
    received = "none" if data is None else type(data).__name__
    raise TypeError(
        "data must be what the module is called with: a tensor, a tuple of arguments, or a dict of named ones. "
        f"Received: {received}"
    )


def _check(module: nn.Module, loss: Loss | None) -> None:
    if loss is not None and not callable(loss):
        raise TypeError(f"loss must be a function of the module's output. Received: {loss!r:.200}")
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if nn.parameter.is_lazy(tensor):
            raise ValueError(f"module must be initialised. Received: {clean(name)} has no shape before the first call")
        if tensor.is_meta:
            raise ValueError(f"module must have memory. Received: {clean(name)} on the meta device")
