"""The layers of a module as they run: their numbers, taken in hooks, so that no tensor is kept for them."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from fastinit._probe.records import Layer
from fastinit._probe.statistics import Signal
from fastinit._runtime.arrays import Array
from fastinit.torch._modules import clean
from fastinit.torch._tensors import DTYPES, host_array

POSITIONS = 4096  # of samples and places, at most, on which units are compared with each other


@dataclass(slots=True, eq=False)
class _Run:
    """One run of a layer."""

    module: nn.Module
    layer: Layer
    has_gradient: bool = False


class LayerRuns:
    """Record the runs of a module's layers inside a with-block. Call `start_backward` after the forward pass."""

    def __init__(self, module: nn.Module) -> None:
        self.runs: list[_Run] = []
        self._layers = dict(_layers(module))
        self._count: Counter[nn.Module] = Counter()
        self._axes: dict[tuple[int, ...], int] = {}  # an output's shape -> the axis of its units
        self._handles: list[Any] = []
        self._backward = False

    def __enter__(self) -> LayerRuns:
        for module in self._layers:
            self._handles.append(module.register_forward_hook(self._ran))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def start_backward(self) -> None:
        """Record gradients from here on. Layers that still run are those of checkpointed parts, once more."""
        self._backward = True

    def _ran(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        tensor = first_floats(output)
        if self._backward or tensor is None or not tensor.ndim or not tensor.numel():
            return
        if not tensor.requires_grad and torch.is_grad_enabled() and not own(module):
            return  # a constant, such as a table of angles
        axis = self._axis(module, args, tensor)
        self._axes[tensor.shape] = axis
        self._count[module] += 1
        name, count = self._layers[module], self._count[module]
        name = name if count == 1 else f"{name}#{count}"
        memory = _on_host(tensor)
        array = _array(memory)
        units = np.moveaxis(array, axis, -1).reshape(-1, tensor.shape[axis])
        run = _Run(module, Layer.of(name, type(module).__name__, array, units, POSITIONS))
        self.runs.append(run)
        for each in floats_in(output):
            if each.requires_grad:
                self._handles.append(each.register_hook(functools.partial(self._came_back, run, each is tensor)))

    def _came_back(self, run: _Run, first: bool, gradient: torch.Tensor) -> None:
        # Of a recurrent layer the output or the last state may be what is used: the first that has a gradient counts.
        wanted = first or not run.has_gradient
        if self._backward and wanted:  # not of a gradient that `forward` itself takes
            run.layer, run.has_gradient = replace(run.layer, gradients=signal_of(gradient)), True

    def _axis(self, module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> int:
        """The axis of an output's units: of what has channels theirs, else the last one.

        Modules without parameters, and PReLU, keep that of what they read. They know it by the shape, as the tensor may
        have gone through a sum or another function that is no module.
        """
        last = output.ndim - 1
        kinds = {base.__module__.removeprefix("torch.nn.modules.") for base in type(module).__mro__}
        if "conv" in kinds:
            return last - len(module.kernel_size)  # type: ignore[arg-type]
        if "batchnorm" in kinds or isinstance(module, nn.GroupNorm):
            return min(1, last)
        if own(module) and not isinstance(module, nn.PReLU):
            return last
        read = args[0] if args else None
        if isinstance(read, torch.Tensor) and read.ndim == output.ndim and read.shape in self._axes:
            return self._axes[read.shape]
        return min(1, last) if "pooling" in kinds else last

    def layers(
        self,
        weights: Mapping[str, torch.Tensor],
        gradients: Mapping[str, torch.Tensor | None],
        names: Mapping[int, str],
    ) -> list[Layer]:
        """The runs as layers of a probe, `ratio`s left out.

        Args:
            weights: that the module had, by name.
            gradients: of the loss with respect to them; None where it has none.
            names: of the module's own parameters, by their `id`.
        """

        @functools.cache
        def signals(name: str) -> tuple[Signal, Signal]:
            weight, gradient = weights[name], gradients.get(name)
            return signal_of(weight), Signal.zeros(weight.numel()) if gradient is None else signal_of(gradient)

        found = []
        for run in self.runs:
            weight = _weight(run.module)
            signal, slope = (None, None) if weight is None else signals(names[id(weight)])
            found.append(replace(run.layer, weights=signal, weight_gradients=slope))
        return found


def _layers(module: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """The modules that are layers, and what they are called."""
    held = {part for one in module.modules() for holder in _holders(one) for part in holder.modules()}
    for name, one in module.named_modules():
        parts = [child for child in one.children() if child not in held]
        if one not in held and (not parts or any(parameter.ndim >= 2 for parameter in own(one))):
            yield one, clean(f"{name}.").removesuffix(".") or type(one).__name__


def _holders(module: nn.Module) -> list[nn.Module]:
    """The children of a module that are no layers, but hold its parameters: also those which are computed."""
    holders = [child for child in module.children() if isinstance(child, nn.ParameterList | nn.ParameterDict)]
    computed = [module.get_submodule("parametrizations")] if is_parametrized(module) else []
    return [*holders, *computed]


def own(module: nn.Module) -> list[nn.Parameter]:
    """The parameters of a module itself, and of what holds parameters for it."""
    return [
        *module.parameters(recurse=False),
        *(parameter for holder in _holders(module) for parameter in holder.parameters()),
    ]


def _weight(module: nn.Module) -> nn.Parameter | None:
    """A layer's weight: of weight norm the direction, (out, in) and not (out, 1)."""
    weight = dict(module.named_parameters(recurse=False, remove_duplicate=False)).get("weight")
    others = [parameter for parameter in own(module) if parameter.ndim >= 2]
    if weight is not None or not others:
        return weight
    return max(others, key=lambda parameter: sum(size > 1 for size in parameter.shape))


def first_floats(output: Any) -> torch.Tensor | None:
    """The first tensor of floats in what a module returns."""
    return next(floats_in(output), None)


def floats_in(output: Any) -> Iterator[torch.Tensor]:
    """The tensors of floats in what a module returns."""
    if isinstance(output, torch.Tensor):
        if output.is_floating_point() and output.layout is torch.strided and not output.is_nested:
            yield output
        return
    parts: Iterable[Any] = ()
    if isinstance(output, Mapping):
        parts = output.values()
    elif isinstance(output, list | tuple):
        parts = output
    elif dataclasses.is_dataclass(output):
        parts = vars(output).values()
    for part in parts:
        yield from floats_in(part)


def signal_of(tensor: torch.Tensor) -> Signal:
    """The numbers of a tensor of floats."""
    memory = _on_host(tensor)
    return Signal.of(_array(memory))


def _on_host(tensor: torch.Tensor) -> torch.Tensor:
    """A plain tensor that NumPy can read: the same memory where it can."""
    plain = tensor.detach().cpu().resolve_neg()
    plain = plain if plain.layout is torch.strided else plain.to_dense()
    return plain if plain.dtype in DTYPES else plain.float()


def _array(memory: torch.Tensor) -> Array:
    """The memory as an array, as long as the tensor lives."""
    array = host_array(memory)
    if array is None:
        raise TypeError(f"layers must give plain tensors. Received: {type(memory).__name__}")
    return array
