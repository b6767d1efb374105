"""Record a construction without a seed: what it computes from draws is logged, and repeated with a seed."""

from __future__ import annotations

import math
import mmap
import weakref
from typing import Any

import torch

from fastinit._core.key import Key
from fastinit._runtime.limits import memory_limits
from fastinit.torch._record.draws import storage_of
from fastinit.torch._record.geometry import Geometry, tensor_at
from fastinit.torch._record.operators import Operator
from fastinit.torch._record.recorder import Recorder
from fastinit.torch._record.replay import Event

# Tensors from this size on get address space that no memory stands behind before it is written to; the system refuses
# an ordinary request for more than it has.
UNRESERVED_FROM = 64 << 20
# What code learns from draws counts as a fact if so many further seeds say the same: chance does it once in 256 times
# where it is heads or tails.
OTHER_SEEDS = 8
_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # Linux; Python names it from 3.13 on


class Recording(Recorder):
    """Keeps fills pending without a seed. If an operator reads a draw, the draw is made with some seed, so that the
    operator has sound numbers, and its result is marked as random: it is computed again with the plan's seed."""

    limit = math.inf

    def __init__(self) -> None:
        super().__init__(Key(0))
        self._unreserved: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def keeps(self, tensor: torch.Tensor) -> bool:
        return storage_of(tensor) in self._unreserved or super().keeps(tensor)

    def empty(self, func: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
        made = _unreserved(func, args, kwargs)
        if made is None:
            return super().empty(func, args, kwargs)
        self._fresh.add(made.untyped_storage())
        self._unreserved.add(made.untyped_storage())
        return made

    def answered(self, event: Event) -> None:
        if not all(self.log.stands(event, Key(seed)) for seed in range(1, 1 + OTHER_SEEDS)):
            self.seen(f"{event.asked}, whose answer depends on the seed")

    def seen(self, what: object, *tensors: torch.Tensor) -> None:
        raise ValueError(
            f"cannot record this constructor: it branches on random values (in {what}). Use fast_init instead."
        )


def without_addresses(what: str) -> MemoryError:
    """The error for a recording that finds no address space."""
    found = [f"{limit.source}: {limit.nbytes:,} bytes" for limit in memory_limits() if limit.addresses]
    advice = "No limit is set for this process: check the sizes, or vm.overcommit_memory and vm.max_map_count"
    if found:
        advice = f"The limit is {', '.join(found)}. Raise it, for instance by `ulimit -v unlimited`"
    return MemoryError(
        f"cannot record: no address space is left for {what}. Recording takes as much of it as all tensors have bytes, "
        f"and no memory. {advice}"
    )


def _unreserved(func: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor | None:
    """A large new tensor without values, in address space that takes no memory; None where torch is to make it."""
    size = func(*args, **{**kwargs, "device": "meta", "pin_memory": False})
    nbytes = size.untyped_storage().nbytes() if size.layout is torch.strided else 0
    on_host = torch.device(kwargs.get("device") or getattr(args[0], "device", None) or "cpu").type == "cpu"
    if nbytes < UNRESERVED_FROM or not on_host or not hasattr(mmap, "MAP_ANONYMOUS"):
        return None
    try:
        memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE)
    except OSError as error:
        raise without_addresses(f"a tensor of {nbytes:,} bytes") from error
    storage = torch.frombuffer(memory, dtype=torch.uint8).untyped_storage()
    return tensor_at(storage, Geometry(0, size.shape, size.stride(), size.dtype))
