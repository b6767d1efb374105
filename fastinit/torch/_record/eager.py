"""Apply deferred fills: at the end of a block, or as soon as their values are read."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from typing import Any

import torch

from fastinit._core.composite import Cast, Patched
from fastinit._core.filling import fill
from fastinit._core.key import Key
from fastinit.torch._compat import schema_arguments
from fastinit.torch._record.draws import Draw, Owner, RegionFill, Stream, storage_of, tensors_in, under
from fastinit.torch._record.geometry import Geometry
from fastinit.torch._record.operators import Operator, in_place
from fastinit.torch._record.recorder import Recorder
from fastinit.torch._tensors import DTYPES, host_array, mark_written


class Eager(Recorder):
    """Does what cannot wait at once, with the seed that all draws have."""

    def __init__(self, key: Key) -> None:
        super().__init__()
        self.key = key
        self._random: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()  # their values depend on the seed

    def is_random(self, tensor: torch.Tensor) -> bool:
        """Whether values of a tensor's storage, as far as they are there, depend on the seed."""
        return storage_of(tensor) in self._random

    def becomes_random(self, tensor: torch.Tensor, *, overwritten: bool) -> None:
        """Something random is about to be written; `overwritten` says that nothing else stays in the storage."""
        if (storage := storage_of(tensor)) is not None:
            self._random.add(storage)

    def do(self, tensor: torch.Tensor, where: Geometry, draw: Draw) -> None:
        if draw.law.random:
            self.becomes_random(tensor, overwritten=where.covers(tensor.untyped_storage().nbytes()))
        draw_into(torch.as_strided(_base(tensor, where), where.shape, where.strides, where.offset), draw, self.key)

    def call(self, func: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], stream: Stream | None) -> Any:
        random = stream is not None or any(map(self.is_random, tensors_in((args, kwargs))))
        if random:
            for tensor in written_by(func, args, kwargs):
                self.becomes_random(tensor, overwritten=False)
        out = run(func, args, kwargs, self.key, stream)
        for tensor in tensors_in(out) if random else ():
            self.becomes_random(tensor, overwritten=True)
        return out

    def number(self, tensor: torch.Tensor) -> float | None:
        self.flush(tensor)
        return None if self.is_random(tensor) else tensor.item()

    def give(self, owner: Owner, parts: Sequence[RegionFill]) -> None:
        """Apply the pending fills of a tensor, after the block."""
        tensor = owner.tensor
        if self._outer is not None:
            if self._outer.adopt(tensor, parts):
                return
            self._outer.flush(tensor)
        array = host_array(tensor)
        assert array is not None
        only = parts[0] if len(parts) == 1 and not parts[0].region else None
        fill(array, only.law if only else Patched(tuple(parts)), seed=under(self.key, owner.path))
        mark_written(tensor)


def draw_into(tensor: torch.Tensor, draw: Draw, key: Key) -> None:
    """Fill a tensor with a draw whose names are known."""
    array, stream = host_array(tensor), draw.stream
    assert array is not None
    assert stream.path is not None
    law = Cast(draw.law, DTYPES[stream.dtype]) if draw.law.random else draw.law
    fill(array, law, seed=under(key, stream.path))


def run(func: Operator, args: Any, kwargs: dict[str, Any], key: Key, stream: Stream | None) -> Any:
    """Call an operator; one that draws random numbers with a generator of its own, which the stream seeds."""
    if stream is None:
        return func(*args, **kwargs)
    seed = under(key, stream.unowned).words()[0] >> 1
    if (takes := _with_generator(func)) is not None:
        return takes(*args, **kwargs, generator=torch.Generator().manual_seed(seed))
    with _torch_seed, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return func(*args, **kwargs)


_torch_seed = threading.Lock()  # torch's own generator, which belongs to all threads


def _with_generator(func: Operator) -> Operator | None:
    """The overload of an operator that takes a generator too."""
    packet = func.overloadpacket
    names = {*_names(func), "generator"}
    return next(
        (one for one in (func, *(getattr(packet, name) for name in packet.overloads())) if _names(one) == names), None
    )


def _names(func: Operator) -> set[str]:
    return {argument.name for argument in schema_arguments(func) or ()}


def _base(tensor: torch.Tensor, where: Geometry) -> torch.Tensor:
    """A tensor over the same storage with the dtype of a draw."""
    plain = tensor.detach()
    return plain if plain.dtype is where.dtype else torch.empty(0, dtype=where.dtype).set_(plain.untyped_storage())


def written_by(func: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """The tensors that an operator writes to."""
    arguments = schema_arguments(func)
    if arguments is None:
        return tensors_in([args[:1] if in_place(func) else kwargs.get("out")])
    given = dict(zip((argument.name for argument in arguments), args, strict=False)) | kwargs
    return tensors_in([given.get(a.name) for a in arguments if a.alias_info is not None and a.alias_info.is_write])
