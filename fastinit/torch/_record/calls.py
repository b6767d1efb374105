"""Operators that read draws: they get provisional values, and are called again when all draws have their keys."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch

from fastinit._core.key import Key
from fastinit._runtime.arrays import prefer_huge_pages
from fastinit.torch._record.draws import (
    Contents,
    Draw,
    Origin,
    Piece,
    Stream,
    bytes_of,
    map_tensors,
    storage_of,
    tensors_in,
)
from fastinit.torch._record.execute import Batch, draw_into, run, written_by
from fastinit.torch._record.geometry import Geometry, geometry
from fastinit.torch._record.naming import Owner, settle
from fastinit.torch._record.operators import Operator, aten
from fastinit.torch._record.replay import Event, Log, Memory, answer_of, replayed

# Bytes of tensors that a block keeps in order to call operators again. Beyond that, draws get their final keys at once.
LIMIT = 1 << 30
LEAST = 1 << 16  # the bytes that an operator counts for, if its tensors have fewer
# The namespaces of operators that send values to other ranks.
_COMMUNICATION = ("c10d", "_c10d_functional", "c10d_functional", "_dtensor")


class Calls:
    """What storages hold, and the log of what was computed from draws."""

    limit: float = LIMIT

    def __init__(self, key: Key, owners: Callable[[], list[Owner]]) -> None:
        self.key = key
        self.owners = owners
        self.log = Log()
        self.known: weakref.WeakKeyDictionary[torch.UntypedStorage, Contents] = weakref.WeakKeyDictionary()
        self.origins: weakref.WeakKeyDictionary[torch.UntypedStorage, Origin] = weakref.WeakKeyDictionary()
        self.pending: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()
        self._random: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()  # their values depend on the key
        self._fresh: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()  # nothing was written to them
        self._kept_bytes = 0
        self._applied = 0  # how often pending draws were applied

    # --- what storages hold ---

    def is_random(self, tensor: torch.Tensor) -> bool:
        """Whether values of a tensor's storage, as far as they are there, depend on the key."""
        return storage_of(tensor) in self._random

    def is_undefined(self, tensor: torch.Tensor) -> bool:
        """Whether nothing was written into a tensor's memory since it was taken."""
        return storage_of(tensor) in self._fresh

    def becomes_random(self, storage: torch.UntypedStorage | None, *, overwritten: bool) -> None:
        """Something random is about to be written; `overwritten` says that nothing else stays in the storage. What was
        in it is the first thing to put back."""
        if storage is None:
            return
        if not (overwritten or storage in self._random or storage in self._fresh):
            memory = bytes_of(storage)
            contents = memory.clone()
            self._append(Event([storage], call=(aten.copy_.default, (memory, contents), {}, [memory], None)))
        self._random.add(storage)
        self._fresh.discard(storage)

    def drawn_storages(self) -> dict[torch.UntypedStorage, int]:
        """The storages that random draws were made into, each with the ordinal of the first."""
        found: dict[torch.UntypedStorage, int] = {}
        for storage, contents in self.known.items():
            ordinals = [p.draw.stream.ordinal for p in contents.values() if p.draw is not None and p.draw.law.random]
            if ordinals:
                found[storage] = min(ordinals)
        for storage, _, draw in self.log.drawn():
            found[storage] = min(found.get(storage, draw.stream.ordinal), draw.stream.ordinal)
        return found

    def put(self, storage: torch.UntypedStorage, where: Geometry, draw: Draw | None, *, done: bool) -> None:
        """Note what a part of a storage holds from now on."""
        if self.origins:
            self.origins.pop(storage, None)
        contents = self.known.setdefault(storage, {})
        if contents:
            if where.covers(storage.nbytes()):
                contents.clear()
            contents.pop(where, None)  # the same memory: the earlier draw would be overwritten
        contents[where] = Piece(draw, done)
        if draw is not None:
            draw.stream.note(storage)
        if not done:
            self.pending.add(storage)

    def overwritten(self, tensor: torch.Tensor) -> None:
        """Forget what was known of a tensor's memory: an operator has written to it."""
        storage = storage_of(tensor)
        if storage is None:
            return
        self._fresh.discard(storage)
        self.origins.pop(storage, None)
        if storage in self.known:
            self.put(storage, geometry(tensor), None, done=True)

    def forget(self, tensor: torch.Tensor) -> None:
        """Know no more of a tensor's storage than of any other: others may write to it."""
        if (storage := storage_of(tensor)) is not None:
            self.known.pop(storage, None)
            self.origins.pop(storage, None)
            self._random.discard(storage)
            self._fresh.discard(storage)

    def announce(self, storage: torch.UntypedStorage) -> None:
        """Called before memory is written in a way that no operator tells of."""

    def do(self, storage: torch.UntypedStorage, where: Geometry, draw: Draw) -> None:
        """Draw into a place of a storage."""
        if draw.law.random:
            draw.stream.done = self._applied, draw.stream.shared
            self.becomes_random(storage, overwritten=where.covers(storage.nbytes()))
        self._fresh.discard(storage)
        self.announce(storage)
        draw_into(storage, where, draw, self.key)
        if storage in self._random:
            self._append(Event([storage], draw=(where, draw)))

    def apply(self, storage: torch.UntypedStorage) -> None:
        """Apply the pending draws of a storage, in order."""
        if storage not in self.pending:
            return
        self._limit()
        self.pending.discard(storage)
        self._applied += 1
        for where, piece in self.known[storage].items():
            if not piece.done and piece.draw is not None:
                self.do(storage, where, piece.draw)
                piece.done = True

    # --- operators ---

    def call(self, func: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], stream: Stream | None) -> Any:
        """Call an operator that is no fill; with a stream if it draws numbers with PyTorch's generator."""
        self._limit()
        given, written = tensors_in((args, kwargs)), written_by(func, args, kwargs)
        random = stream is not None or any(map(self.is_random, given))
        if not random or not _repeatable(func, given):
            if any(map(self.is_random, given)):
                self.seen(func, *given)
            out = run(func, args, kwargs, self.key, stream)
            for tensor in written:
                self.overwritten(tensor)
            return out
        kept = self._kept((args, kwargs), written)
        for tensor in written:
            whole = func is aten.copy_.default and geometry(tensor).covers(tensor.untyped_storage().nbytes())
            self.becomes_random(storage_of(tensor), overwritten=whole)
        out = run(func, args, kwargs, self.key, stream)
        made = tensors_in(out)
        if not all(map(_on_cpu, made)):
            self.seen(func, *given)
            return out
        for tensor in made:
            self.becomes_random(storage_of(tensor), overwritten=True)
        for tensor in written:
            self.overwritten(tensor)
        storages = [storage for storage in map(storage_of, (*given, *made)) if storage in self._random]
        call = func, *kept, [tensor.detach() for tensor in made], stream
        self._append(Event(list(filter(None, storages)), call=call, answer=answer_of(func, out)))
        return out

    def listed(self, tensor: torch.Tensor) -> Any:
        """`tolist`, which is no operator, but as one."""
        values = tensor.tolist()
        if self.is_random(tensor):
            method = torch.Tensor.tolist
            answer = answer_of(method, values)
            self._append(
                Event([tensor.untyped_storage()], call=(method, (tensor.detach(),), {}, [], None), answer=answer)
            )
        return values

    def seen(self, what: object, *tensors: torch.Tensor) -> None:
        """Values that depend on the key have left: the draws behind them keep the keys that they have now."""
        self.log.pin(*map(storage_of, tensors))
        if all(draw.stream.homes for _, _, draw in self.log.drawn()):
            self._close_log()  # nothing in it will change

    def _kept(self, tree: Any, written: Sequence[torch.Tensor]) -> Any:
        """Arguments for the log: what is not random is copied, for its memory may change later."""
        live = set(map(storage_of, written))

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            alive = self.is_random(tensor) or storage_of(tensor) in live
            return tensor.detach() if alive else tensor.detach().clone()

        return map_tensors(keep, tree)

    def _append(self, event: Event) -> None:
        self.log.events.append(event)
        self._kept_bytes += max(LEAST, sum(storage.nbytes() for storage in event.storages))
        if event.answer is not None:
            self.answered(event)

    def answered(self, event: Event) -> None:
        """Called when code has got a number that depends on the key."""

    def _limit(self) -> None:
        if self._kept_bytes > self.limit:
            self.settle(self.owners())

    # --- the end ---

    def settle(self, owners: Sequence[Owner]) -> None:
        """Give all draws their final keys; what was computed from those that had none is computed again."""
        settle(self.known, owners, self.log.drawn(), self.origins)
        for storage, stand_in in self._decided().items():
            if storage is not None and storage in self._random:
                bytes_of(storage).copy_(bytes_of(stand_in))
        self._close_log()

    def _close_log(self) -> None:
        self.log.events = []
        self._random.clear()
        self._kept_bytes = 0

    def finish(self, owners: Sequence[Owner], advance: Callable[[int], None]) -> None:
        """Apply all that is pending."""
        self.settle(owners)
        batch = Batch(self.key, advance)
        for storage in list(self.pending):
            self.announce(storage)
            if storage in self._fresh:
                prefer_huge_pages(storage.data_ptr(), storage.nbytes())
            contents = self.known[storage]
            if len(contents) == 1 and batch.take(storage, *next(iter(contents.items()))):
                continue
            for where, piece in contents.items():
                if not piece.done and piece.draw is not None:
                    draw_into(storage, where, piece.draw, self.key)
            advance(storage.nbytes())
        batch.run()
        self.known.clear()
        self.pending.clear()

    def _decided(self) -> Memory:
        """The memory after all events, with answers as they were given: where a final key would change one, the draws
        that it depends on keep the first. Empty where nothing changes."""
        streams = [draw.stream for _, _, draw in self.log.drawn()]
        while any(not one.is_pinned or one.done[1] != one.shared for one in streams):
            memory, differing = replayed(self.log.events, self.key)
            pinned = [self.log.pin(*event.storages) for event in differing]
            if not any(pinned):
                return memory
        return {}


def _on_cpu(tensor: torch.Tensor) -> bool:
    return tensor.layout is torch.strided and tensor.device.type == "cpu"


def _repeatable(func: Operator, tensors: Sequence[torch.Tensor]) -> bool:
    """Whether an operator can be called again: not if it communicates, or works on other devices."""
    return func.namespace not in _COMMUNICATION and all(map(_on_cpu, tensors))
