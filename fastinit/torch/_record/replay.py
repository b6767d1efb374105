"""Record a construction without a seed: what it computes from draws is logged, and repeated with a seed."""

from __future__ import annotations

import mmap
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Never

import torch

from fastinit._core.composite import SameAs, as_slice
from fastinit._core.key import Key
from fastinit._core.structured import Indices, Structured
from fastinit._runtime.arrays import Array
from fastinit.torch._compat import is_traced
from fastinit.torch._record.draws import Draw, RegionFill, Stream, bytes_of, map_tensors, storage_of, tensors_in
from fastinit.torch._record.execute import draw_into, run, written_by
from fastinit.torch._record.geometry import Geometry, geometry, tensor_at
from fastinit.torch._record.operators import Operator, aten
from fastinit.torch._record.recorder import Recorder
from fastinit.torch._tensors import values_of

# Tensors from this size on get address space that no memory stands behind before it is written to; the system refuses
# an ordinary request for more than it has.
UNRESERVED_FROM = 64 << 20
_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # Linux; Python names it from 3.13 on

Memory = dict[torch.UntypedStorage, torch.UntypedStorage]  # the storages of a replay, by the recorded ones


class Event(NamedTuple):
    """A draw into the memory of a tensor, or a call of an operator."""

    tensors: list[torch.Tensor]  # of random values, that it reads or writes
    draw: tuple[Geometry, Draw] | None = None
    call: tuple[Operator, Any, Any, Any, Stream | None] | None = None  # operator, arguments, result


@dataclass(slots=True)
class Log:
    """The events that random values are made by, in order. The tensors in it stand for others, storage by storage."""

    events: list[Event] = field(default_factory=list)

    def needed(self, tensor: torch.Tensor) -> list[Event]:
        """The events that a tensor's values may depend on."""
        wanted, found = {storage_of(tensor)}, []
        for event in reversed(self.events):
            storages = set(map(storage_of, event.tensors))
            if storages & wanted:
                wanted |= storages
                found.append(event)
        return found[::-1]

    def replay(self, tensor: torch.Tensor, key: Key) -> torch.Tensor:
        """The values that a tensor has with a key."""
        if not is_traced():
            return self._replay(tensor, key)
        with ThreadPoolExecutor(1) as thread:  # without the modes of this one
            return thread.submit(self._replay, tensor, key).result()

    @torch.no_grad()
    def _replay(self, tensor: torch.Tensor, key: Key) -> torch.Tensor:
        memory: Memory = {}
        for event in self.needed(tensor):
            _do(event, memory, key)
        return _over(memory, tensor)


def _do(event: Event, memory: Memory, key: Key) -> None:
    if event.draw is not None:
        where, draw = event.draw
        draw_into(_stand_in(memory, event.tensors[0]), where, draw, key)
    elif event.call is not None:
        func, args, kwargs, out, stream = event.call
        random = set(map(storage_of, event.tensors))

        def real(tensor: torch.Tensor) -> torch.Tensor:
            return _over(memory, tensor) if storage_of(tensor) in random else tensor

        before = {*memory, *map(storage_of, tensors_in((args, kwargs)))}
        args, kwargs = map_tensors(real, (args, kwargs))
        made = run(func, args, kwargs, key, stream)
        for recorded, result in zip(tensors_in(out), tensors_in(made), strict=True):
            if storage_of(recorded) not in before:
                _over(memory, recorded).copy_(result)


def _stand_in(memory: Memory, tensor: torch.Tensor) -> torch.UntypedStorage:
    """The storage that stands for that of a recorded tensor."""
    recorded = tensor.untyped_storage()
    if recorded not in memory:
        memory[recorded] = torch.zeros(recorded.nbytes(), dtype=torch.uint8, device="cpu").untyped_storage()
    return memory[recorded]


def _over(memory: Memory, tensor: torch.Tensor) -> torch.Tensor:
    """A recorded tensor, in the storage that stands for its own."""
    return tensor_at(_stand_in(memory, tensor), geometry(tensor))


class Recording(Recorder):
    """Keeps fills pending without a seed. If an operator reads a draw, the draw is made with some seed, so that the
    operator has sound numbers, and its result is marked as random: it is computed again with the plan's seed."""

    def __init__(self) -> None:
        super().__init__(Key(0))
        self.log = Log()
        self._fresh: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()  # nothing was written to them
        self._unreserved: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def keeps(self, tensor: torch.Tensor) -> bool:
        return storage_of(tensor) in self._unreserved or super().keeps(tensor)

    def is_undefined(self, tensor: torch.Tensor) -> bool:
        """Whether nothing was written into a tensor's memory since it was taken."""
        return storage_of(tensor) in self._fresh

    def becomes_random(self, tensor: torch.Tensor, *, overwritten: bool) -> None:
        """From now on a storage is computed again; what was in it is the first thing to put back."""
        if not (overwritten or self.is_random(tensor) or self.is_undefined(tensor)):
            memory = bytes_of(tensor.untyped_storage())
            contents = memory.clone()
            self.log.events.append(Event([memory], call=(aten.copy_.default, (memory, contents), {}, [memory], None)))
        super().becomes_random(tensor, overwritten=overwritten)

    def _mark_defined(self, tensor: torch.Tensor) -> None:
        if (storage := storage_of(tensor)) is not None:
            self._fresh.discard(storage)

    def do(self, tensor: torch.Tensor, where: Geometry, draw: Draw) -> None:
        super().do(tensor, where, draw)
        self._mark_defined(tensor)
        if self.is_random(tensor):
            self.log.events.append(Event([tensor.detach()], draw=(where, draw)))

    def call(self, func: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], stream: Stream | None) -> Any:
        given, written = tensors_in((args, kwargs)), written_by(func, args, kwargs)
        random = stream is not None or any(map(self.is_random, given))
        kept = self._kept((args, kwargs), written) if random else None
        out = super().call(func, args, kwargs, stream)
        for tensor in written:
            self._mark_defined(tensor)
        if kept is not None:
            made = tensors_in(out)
            if not made and not written:
                raise _seed_needed(func)
            seen = [tensor.detach() for tensor in (*given, *made) if self.is_random(tensor)]
            self.log.events.append(Event(seen, call=(func, *kept, [tensor.detach() for tensor in made], stream)))
        return out

    def empty(self, func: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
        made = _unreserved(func, args, kwargs)
        taken = made is not None
        if made is None:
            made = super().empty(func, args, kwargs)
        if (storage := storage_of(made)) is not None:
            self._fresh.add(storage)
            if taken:
                self._unreserved.add(storage)
        return made

    def read(self, method: Any, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        self.flush(tensor)
        if not self.is_random(tensor) or method in (torch.Tensor.data_ptr, torch.Tensor.share_memory_):
            return method(tensor, *args, **kwargs)
        if method is torch.Tensor.__deepcopy__:  # copies the storage, which no operator tells of
            copy = tensor.detach().clone().requires_grad_(tensor.requires_grad)
            return args[0].setdefault(id(tensor), copy)
        raise _seed_needed(method)

    def adopt(self, tensor: torch.Tensor, parts: Sequence[RegionFill]) -> bool:
        """Take over what an inner block would fill: a plan has names and seeds of its own."""
        return all(self.fill(tensor[r], law.distribution if isinstance(law, SameAs) else law) for r, law in parts)

    def _kept(self, tree: Any, written: Sequence[torch.Tensor]) -> Any:
        """Arguments for the log: what is not random is copied, for its memory may change later."""
        live = set(map(storage_of, written))

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            alive = self.is_random(tensor) or storage_of(tensor) in live
            return tensor.detach() if alive else tensor.detach().clone()

        return map_tensors(keep, tree)


@dataclass(frozen=True, slots=True, eq=False)
class Computed(Structured):
    """What a constructor computes out of draws: the computation is done again, for the whole tensor."""

    log: Log
    tensor: torch.Tensor
    any_dtype: ClassVar[bool] = True
    needs_all: ClassVar[bool] = True
    exact: ClassVar[bool] = False  # torch's functions round as they do on this machine
    portable: ClassVar[bool] = False

    def __repr__(self) -> str:
        return f"Computed({len(self.log.needed(self.tensor))} operations)"

    def __deepcopy__(self, memo: object) -> Computed:
        return self

    def __reduce__(self) -> Never:
        raise TypeError("a plan with computed tensors cannot be pickled: record it in every process")

    def check(self, shape: tuple[int, ...], dtype: str) -> None:
        if shape != tuple(self.tensor.shape):
            raise ValueError(f"shape must be that of the tensor, {tuple(self.tensor.shape)}. Received: {shape}")

    def make(self, out: Array, key: Key, shape: tuple[int, ...], indices: Indices, offset: int) -> None:
        above = Key(key.seed, key.path[:-1])  # the last name is the tensor's own
        out[...] = values_of(self.log.replay(self.tensor, above))[tuple(map(as_slice, indices))]


def _seed_needed(what: object) -> ValueError:
    return ValueError(
        f"cannot record this constructor: it branches on random values (in {what}). Use fast_init instead."
    )


def _unreserved(func: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor | None:
    """A large new tensor without values, in address space that takes no memory; None where torch is to make it."""
    size = func(*args, **{**kwargs, "device": "meta", "pin_memory": False})
    nbytes = size.untyped_storage().nbytes() if size.layout is torch.strided else 0
    on_host = torch.device(kwargs.get("device") or getattr(args[0], "device", None) or "cpu").type == "cpu"
    if nbytes < UNRESERVED_FROM or not on_host or not hasattr(mmap, "MAP_ANONYMOUS"):
        return None
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE)
    storage = torch.frombuffer(memory, dtype=torch.uint8).untyped_storage()
    return tensor_at(storage, Geometry(0, size.shape, size.stride(), size.dtype))
