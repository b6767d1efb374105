"""Run draws and operators with a key."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import torch

from fastinit._core.distributions import Distribution
from fastinit._core.draw import Run, draw_runs
from fastinit._core.key import Key
from fastinit.schemes._filling import fill
from fastinit.torch._compat import schema_arguments
from fastinit.torch._record.draws import Draw, Piece, Stream, law_of, parts_of, tensors_in, under
from fastinit.torch._record.geometry import Geometry, carried, in_c_order
from fastinit.torch._record.operators import HIDDEN_WRITES, Operator, in_place
from fastinit.torch._tensors import NUMPY, array_at


def draw_into(storage: torch.UntypedStorage, where: Geometry, draw: Draw, key: Key) -> None:
    """Fill a place in a storage with a draw, whose stream has homes or else the key of its ordinal."""
    if not draw.law.random:
        _fill(storage, where, draw.law, key)
        return
    for part in parts_of(draw.view, draw.stream.homes_now):
        if part.place == in_c_order(where.shape) and where.shape == part.home.shape and len(draw.dtypes) == 1:
            _fill(storage, where, draw.law, under(key, part.home.path))  # as below, in a shorter way
            continue
        inside = carried(part.view, draw.view, where)
        assert inside is not None  # the parts of a view are regions of it
        _fill(storage, inside, law_of(draw, part).under(key), key)


BATCH_BYTES = 1 << 28  # of memory that is filled together; after it progress is shown


class Batch:
    """Fills of separate memory that all threads share: of a small tensor the call would cost more than the values."""

    def __init__(self, key: Key, advance: Callable[[int], None]) -> None:
        self._key, self._advance = key, advance
        self._runs: list[Run] = []
        self._bytes = 0

    def take(self, storage: torch.UntypedStorage, where: Geometry, piece: Piece) -> bool:
        """Fill a place in a storage, now or in `run`; False, with nothing done, if that takes `draw_into`."""
        draw, whole = piece.draw, in_c_order(where.shape)
        if piece.done or draw is None or draw.law.structured or where.strides != whole.strides or 0 in where.shape:
            return False
        words = 0, 0
        if draw.law.random:
            homes = draw.stream.homes_now
            own = homes[0].shape == where.shape and homes[0].view == draw.view == homes[0].place == whole
            if len(homes) > 1 or not own or len(draw.dtypes) > 1:
                return False
            words = under(self._key, homes[0].path).words()
        assert where.dtype is not None
        place = storage.data_ptr() + where.offset * where.dtype.itemsize
        self._runs.append(Run(draw.law, NUMPY[where.dtype], place, math.prod(where.shape), words))
        self._bytes += storage.nbytes()
        if self._bytes >= BATCH_BYTES:
            self.run()
        return True

    def run(self) -> None:
        """Apply what was taken."""
        draw_runs(self._runs)
        self._advance(self._bytes)
        self._runs, self._bytes = [], 0


def _fill(storage: torch.UntypedStorage, where: Geometry, law: Distribution, key: Key) -> None:
    assert where.dtype is not None
    # Without torch's operators: modes may be active, also such as make no real tensors.
    start = storage.data_ptr() + where.offset * where.dtype.itemsize
    fill(array_at(start, where.shape, where.strides, where.dtype), law, seed=key)


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
    overloads = (func, *(getattr(packet, name) for name in packet.overloads()))
    return next((overload for overload in overloads if _names(overload) == names), None)


def _names(func: Operator) -> set[str]:
    return {argument.name for argument in schema_arguments(func) or ()}


def written_by(func: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """The tensors that an operator writes to."""
    if func in HIDDEN_WRITES:
        return tensors_in([args[place] for place in HIDDEN_WRITES[func]])
    arguments = schema_arguments(func)
    if arguments is None:
        return tensors_in([args[:1] if in_place(func) else kwargs.get("out")])
    given = dict(zip((argument.name for argument in arguments), args, strict=False)) | kwargs
    return tensors_in([given.get(a.name) for a in arguments if a.alias_info is not None and a.alias_info.is_write])
