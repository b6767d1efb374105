"""What is computed out of draws is computed again, as soon as the draws have their keys."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple, Never

import torch

from fastinit._core.key import Key
from fastinit._core.structured import Indices, Structured
from fastinit._runtime.arrays import Array, as_slice
from fastinit.torch._compat import is_traced, tree_map
from fastinit.torch._record.draws import Draw, Stream, map_tensors, storage_of, tensors_in
from fastinit.torch._record.execute import draw_into, run
from fastinit.torch._record.geometry import Geometry, geometry, tensor_at
from fastinit.torch._record.naming import Drawn
from fastinit.torch._record.operators import Operator
from fastinit.torch._tensors import values_of

Memory = dict[torch.UntypedStorage | None, torch.UntypedStorage]  # the storages of a replay, by the recorded ones


class Event(NamedTuple):
    """A draw into the memory of a tensor, or a call of an operator."""

    storages: list[torch.UntypedStorage]  # of random values, that it reads or writes
    draw: tuple[Geometry, Draw] | None = None
    call: tuple[Operator, Any, Any, Any, Stream | None] | None = None  # operator, arguments, result
    answer: str | None = None  # what of the result the code may have branched on

    @property
    def asked(self) -> str:
        """The name of what was called."""
        assert self.call is not None
        func = self.call[0]
        return str(func) if hasattr(func, "overloadpacket") else func.__name__


class DecisionError(ValueError):
    """With a key, code branches in another way than it did."""

    def __init__(self, event: Event) -> None:
        super().__init__(f"with this seed the constructor branches in another way (in {event.asked}); use fast_init")


def answer_of(func: Operator, out: Any) -> str | None:
    """All of a result that is not the values of tensors: numbers, and shapes where values decide on them.

    >>> answer_of(torch.ops.aten.equal.default, False), answer_of(torch.ops.aten.neg.default, torch.ones(2))
    ('[False]', None)
    """
    facts: list[object] = []

    def note(leaf: object) -> None:
        if not isinstance(leaf, torch.Tensor):
            facts.extend([] if leaf is None else [leaf])
        elif torch.Tag.dynamic_output_shape in getattr(func, "tags", ()):
            facts.append(tuple(leaf.shape))

    tree_map(note, out)
    return repr(facts) if facts else None  # exact, and so that NaN equals NaN


@dataclass(slots=True)
class Log:
    """The events that random values are made by, in order. The tensors in it stand for others, storage by storage."""

    events: list[Event] = field(default_factory=list)

    def needed(self, *storages: torch.UntypedStorage | None, answers: bool = True) -> list[Event]:
        """The events that the values in storages may depend on; answers count, since what follows them depends on
        them all."""
        wanted, found = set(storages), []
        for event in reversed(self.events):
            if not wanted.isdisjoint(event.storages) or (answers and event.answer is not None):
                wanted.update(event.storages)
                found.append(event)
        return found[::-1]

    def drawn(self) -> Iterator[Drawn]:
        """The draws, and where they went."""
        for event in self.events:
            if event.draw is not None:
                yield event.storages[0], *event.draw

    def pin(self, *storages: torch.UntypedStorage | None) -> bool:
        """Keep the keys of all draws that the values in storages depend on; whether some had others."""
        streams = {event.draw[1].stream for event in self.needed(*storages, answers=False) if event.draw is not None}
        others = [stream for stream in streams if not stream.is_pinned]
        for stream in others:
            stream.pin()
        return bool(others)

    def replay(self, tensor: torch.Tensor, key: Key) -> torch.Tensor:
        """The values that a tensor has with a key.

        Raises:
            DecisionError: a decision differs.
        """
        memory, differing = replayed(self.needed(storage_of(tensor)), key)
        if differing:
            raise DecisionError(differing[0])
        return over(memory, tensor)

    def stands(self, event: Event, key: Key) -> bool:
        """Whether an event has the same answer with another key."""
        try:
            _, differing = replayed(self.needed(*event.storages, answers=False), key)
        except RuntimeError:  # of an operator: no answer
            return False
        return not differing


def replayed(events: list[Event], key: Key) -> tuple[Memory, list[Event]]:
    """The memory that events leave behind with a key, and the events whose answers differ from what they were."""
    if not is_traced():
        return _replayed(events, key)
    with ThreadPoolExecutor(1) as thread:  # without the modes of this one
        return thread.submit(_replayed, events, key).result()


@torch.no_grad()
def _replayed(events: list[Event], key: Key) -> tuple[Memory, list[Event]]:
    memory: Memory = {}
    differing: list[Event] = []
    for event in events:
        try:
            if not _repeat(event, memory, key):
                differing.append(event)
        except Exception:
            if not differing:
                raise
            break  # the code would not have come here
    return memory, differing


def _repeat(event: Event, memory: Memory, key: Key) -> bool:
    """Do again what an event says; whether its answer is the same."""
    if event.draw is not None:
        where, draw = event.draw
        draw_into(_stand_in(memory, event.storages[0]), where, draw, key)
    elif event.call is not None:
        func, args, kwargs, out, stream = event.call
        random = set(event.storages)

        def real(tensor: torch.Tensor) -> torch.Tensor:
            return over(memory, tensor) if storage_of(tensor) in random else tensor

        before = {*memory, *map(storage_of, tensors_in((args, kwargs)))}
        args, kwargs = map_tensors(real, (args, kwargs))
        made = run(func, args, kwargs, key, stream)
        if event.answer is not None and answer_of(func, made) != event.answer:
            return False
        for recorded, result in zip(tensors_in(out), tensors_in(made), strict=True):
            if storage_of(recorded) not in before:
                over(memory, recorded).copy_(result)
    return True


def _stand_in(memory: Memory, recorded: torch.UntypedStorage) -> torch.UntypedStorage:
    """The storage that stands for a recorded one."""
    if recorded not in memory:
        memory[recorded] = torch.zeros(recorded.nbytes(), dtype=torch.uint8, device="cpu").untyped_storage()
    return memory[recorded]


def over(memory: Memory, tensor: torch.Tensor) -> torch.Tensor:
    """A recorded tensor, in the storage that stands for its own."""
    real = tensor_at(_stand_in(memory, tensor.untyped_storage()), geometry(tensor))
    return real.conj() if tensor.is_conj() else real


@dataclass(frozen=True, slots=True, eq=False)
class Computed(Structured):
    """What a constructor computes out of draws: the computation is done again, for the whole tensor."""

    log: Log
    tensor: torch.Tensor
    above: Key | None = None
    any_dtype: ClassVar[bool] = True
    needs_all: ClassVar[bool] = True
    portable: ClassVar[bool] = False

    def __repr__(self) -> str:
        return f"Computed({len(self.log.needed(storage_of(self.tensor)))} operations)"

    def __deepcopy__(self, memo: object) -> Computed:
        return self

    def __reduce__(self) -> Never:
        raise TypeError("a plan with computed tensors cannot be pickled: record it in every process")

    def under(self, key: Key) -> Computed:
        return replace(self, above=key)

    def check(self, shape: tuple[int, ...], dtype: str) -> None:
        if shape != tuple(self.tensor.shape):
            raise ValueError(f"shape must be that of the tensor, {tuple(self.tensor.shape)}. Received: {shape}")

    def make(self, out: Array, key: Key, shape: tuple[int, ...], indices: Indices, offset: int) -> None:
        above = Key(key.seed, key.path[:-1]) if self.above is None else self.above
        out[...] = values_of(self.log.replay(self.tensor, above))[tuple(map(as_slice, indices))]
