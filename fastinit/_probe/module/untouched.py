"""Running a module and leaving it, its data and torch's generators as they were."""

from __future__ import annotations

import contextlib
import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from fastinit._core.key import Key
from fastinit.torch._compat import COMPILER, tree_map

_CONTAINERS = (dict, OrderedDict, list, set)


def as_leaf(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor over the same memory that gradients are taken with respect to, where its dtype has any. `grad`,
    `requires_grad` and hooks of the given one have no part in it."""
    plain = tensor.detach()
    plain = plain.clone() if plain.is_inference() else plain  # autograd takes none of those
    return plain.requires_grad_(plain.is_floating_point() or plain.is_complex())


def copied(tree: Any, entry: bool) -> tuple[Any, list[torch.Tensor]]:
    """A nest of arguments with copies of its tensors, and the leaf behind the first one, if that holds floats and
    `entry` is true.

    Gradients go down to it, so that layers before the first weight have theirs. A copy, unlike a leaf, may be written
    in place.
    """
    leaves: list[torch.Tensor] = []

    def copy(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        leaves.append(as_leaf(value) if entry and not leaves and value.is_floating_point() else value.detach())
        return leaves[-1].clone()

    copies = tree_map(copy, tree)
    return copies, [leaf for leaf in leaves[:1] if leaf.requires_grad]


@contextlib.contextmanager
def untouched(module: torch.nn.Module) -> Iterator[None]:
    """The attributes of a module and of its parts, and the lists and dicts among them, are afterwards what they were.

    So hooks are gone, and what `forward` keeps on `self`. Memory of tensors is not looked at.
    """
    before = [(vars(one), dict(vars(one)), _contents(vars(one))) for one in module.modules()]
    try:
        yield
    finally:
        for attributes, were, contents in before:
            _restore(attributes, were)
            for container, held in contents:
                _restore(container, held)


def _contents(attributes: dict[str, Any]) -> list[tuple[Any, Any]]:
    return [(value, value.copy()) for value in attributes.values() if type(value) in _CONTAINERS]


def _restore(container: Any, held: Any) -> None:
    """The contents of a container as they were; nothing is written where they are."""
    if _objects(container) == _objects(held):
        return
    if isinstance(held, list):
        container[:] = held
    else:
        container.clear()
        container.update(held)


def _objects(container: Any) -> list[Any]:
    if isinstance(container, dict):
        return [(key, id(value)) for key, value in container.items()]
    return [id(value) for value in container]


@contextlib.contextmanager
def reproducible(devices: Iterable[torch.device], key: Key) -> Iterator[None]:
    """Torch's generators of the CPU and of some devices begin where the key says, and are afterwards where they were;
    those of other devices are not even made."""
    seed = key.words()[0] >> 1
    cuda = sorted({device.index or 0 for device in devices if device.type == "cuda"})
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        for index in cuda:
            torch.cuda.default_generators[index].manual_seed(seed)
        yield


@contextlib.contextmanager
def followed_by_autograd() -> Iterator[None]:
    """Gradients are recorded whatever the caller has switched off, and compiled modules run uncompiled."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))  # under `no_grad` too gradients are recorded from here on
        if COMPILER in sys.modules:  # without it nothing is compiled, and it takes a second to import
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield
