"""`probe` of any module: one pass forward and back, on tensors of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from fastinit._core.distributions import Normal
from fastinit._core.key import Key, Seed, as_key
from fastinit._probe.advice import Scheme, advised
from fastinit._probe.module.arguments import Arguments, Loss, arguments_of, check_module
from fastinit._probe.module.layer_runs import LayerRuns, first_floats, signal_of
from fastinit._probe.module.schemes import candidates_of, drawn_weights
from fastinit._probe.module.untouched import copied, followed_by_autograd, reproducible, untouched
from fastinit._probe.records import with_ratios
from fastinit._probe.results import Probe
from fastinit._probe.statistics import BOUNDS, Signal
from fastinit._probe.verdicts import judge
from fastinit.schemes._filling import fill
from fastinit.torch._compat import COMPILED
from fastinit.torch._record.draws import tensors_in
from fastinit.torch._tensors import DTYPES, tensor_of

_OF_OTHER_SIZE = ("Norm", "LSTM", "GRU")  # in the names of classes whose output has a size of its own


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
            is no scalar, a distribution that a parameter's shape or dtype does not allow.
    """
    module = getattr(module, COMPILED, module)
    check_module(module, loss)
    arguments, key = arguments_of(data), as_key(seed)

    def under(scheme: Scheme | None) -> Probe:
        with followed_by_autograd():
            try:
                return _probed(module, scheme, arguments, key, loss, entry=True)
            except RuntimeError:  # some modules take only inputs without gradients
                return _probed(module, scheme, arguments, key, loss, entry=False)

    return advised(under(scheme), candidates_of(module), under)


def _probed(
    module: nn.Module, scheme: Scheme | None, arguments: Arguments, key: Key, loss: Loss | None, *, entry: bool
) -> Probe:
    weights, called = drawn_weights(module, scheme, key)
    buffers = {name: buffer.detach().clone() for name, buffer in module.named_buffers()}
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    tensors = tensors_in(arguments)
    if any(one.is_floating_point() and not (one.isfinite().all() and one.any()) for one in tensors[:1]):
        raise ValueError("data must be finite, and not all 0")
    devices = {tensor.device for tensor in (*weights.values(), *buffers.values(), *tensors)}
    with untouched(module), reproducible(devices, key / "probe.torch"), LayerRuns(module) as runs:
        swapped = {f"module.{name}": tensor for name, tensor in (buffers | weights).items()}
        value, loss_name, gradients = functional_call(
            _Pass(module, runs, loss, key, entry), swapped, (arguments, weights)
        )
    layers = with_ratios(runs.layers(weights, gradients, names))
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
        loss_name=loss_name,
        layers=layers,
        verdict=judge(layers, _reference(inputs, {layer.kind for layer in layers})),
    )


class _Pass(nn.Module):
    """Forward and backward pass of a module as one call, so that both see the same tensors in it: checkpointed parts
    run again on the way back."""

    def __init__(self, module: nn.Module, runs: LayerRuns, loss: Loss | None, key: Key, entry: bool) -> None:
        super().__init__()
        self.module, self.runs, self.loss, self.key, self.entry = module, runs, loss, key, entry

    def forward(
        self, arguments: Arguments, weights: dict[str, torch.Tensor]
    ) -> tuple[float, str, dict[str, torch.Tensor | None]]:
        """The loss, what it is called, and its gradients by the weights' names."""
        (args, kwargs), entry = copied(arguments, self.entry)
        name, value = _loss_of(self.module(*args, **kwargs), self.loss, self.key)
        self.runs.start_backward()
        leaves = {name: weight for name, weight in weights.items() if weight.requires_grad}
        ends = [*leaves.values(), *entry]
        found: tuple[torch.Tensor | None, ...] = ()
        if value.requires_grad and ends:
            # Not `backward`: what else the loss depends on, such as weights of its own, gets no gradients.
            found = torch.autograd.grad(value, ends, allow_unused=True)
        return value.item(), name, dict(zip(leaves, found, strict=False))


def _loss_of(output: Any, loss: Loss | None, key: Key) -> tuple[str, torch.Tensor]:
    """What the loss is called, and the scalar whose gradients are taken."""
    name = "the given function"
    if loss is not None:
        found = loss(output)
    else:
        name = "the output's own"
        found = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
        if found is None:
            return "mean product of the output with a normal tensor", _projected(output, key)
    if not isinstance(found, torch.Tensor) or found.numel() != 1 or not found.is_floating_point():
        received = f"{found.dtype} of shape {tuple(found.shape)}" if isinstance(found, torch.Tensor) else repr(found)
        raise TypeError(f"loss must be a tensor of one float. Received: {received:.200}")
    return name, found.reshape(())


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


def _reference(inputs: Signal | None, kinds: set[str]) -> float | None:
    """What the first layer's size is compared with: not the data's where a layer normalises or is gated."""
    if inputs is None or any(word in kind for kind in kinds for word in _OF_OTHER_SIZE):
        return None
    return min(inputs.rms, 1.0) if {kind.lower() for kind in kinds} & BOUNDS.keys() else inputs.rms
