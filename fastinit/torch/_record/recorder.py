"""Deferred fills. A `Recorder` sees every operator of its thread. It keeps fills pending, drops those that a later fill
overwrites, and applies the rest in order when another operator reads or writes the memory.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch.overrides import TorchFunctionMode

from fastinit._core.composite import Patched
from fastinit._core.distributions import Distribution
from fastinit._core.filling import fill
from fastinit._core.key import Key
from fastinit.torch._compat import TO_COPY, DispatchMode, optional
from fastinit.torch._record import operators
from fastinit.torch._record.draws import (
    Draw,
    Owner,
    PendingDraws,
    RegionFill,
    Stream,
    bytes_of,
    fits,
    region_fills,
    storage_of,
    taken_over,
    tensors_in,
    under,
)
from fastinit.torch._record.execute import draw_into, run, written_by
from fastinit.torch._record.geometry import Geometry, geometry
from fastinit.torch._record.operators import Operator, aten
from fastinit.torch._tensors import host_array, mark_written, on_host

Method = TypeVar("Method", bound=Callable[..., Any])


def _own_work(method: Method) -> Method:
    """Reads inside this method do not flush pending fills."""

    @functools.wraps(method)
    def working(self: Recorder, *args: Any, **kwargs: Any) -> Any:
        self.busy += 1
        try:
            return method(self, *args, **kwargs)
        finally:
            self.busy -= 1

    return working  # type: ignore[return-value]


class Recorder(DispatchMode):
    """Keeps fills pending. A fill that cannot be deferred is drawn at once, with the same key."""

    def __init__(self, key: Key) -> None:
        super().__init__()
        self.key = key
        self._random: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()  # their values depend on the key
        self.pending: weakref.WeakKeyDictionary[torch.UntypedStorage, PendingDraws] = weakref.WeakKeyDictionary()
        self.busy = 0
        self._draws = 0
        self._outer: Recorder | None = None
        self._reads = _Reads(self)

    def __enter__(self) -> Recorder:
        self._outer = active.recorder
        active.recorders.append(self)
        super().__enter__()
        self._reads.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._reads.__exit__(*exception)
        super().__exit__(*exception)
        active.recorders.remove(self)

    # --- what cannot be deferred ---

    def is_random(self, tensor: torch.Tensor) -> bool:
        """Whether values of a tensor's storage, as far as they are there, depend on the key."""
        return storage_of(tensor) in self._random

    def becomes_random(self, tensor: torch.Tensor, *, overwritten: bool) -> None:
        """Something random is about to be written; `overwritten` says that nothing else stays in the storage."""
        if (storage := storage_of(tensor)) is not None:
            self._random.add(storage)

    def do(self, tensor: torch.Tensor, where: Geometry, draw: Draw) -> None:
        """Draw into the memory that a tensor shares."""
        storage = tensor.untyped_storage()
        if draw.law.random:
            self.becomes_random(tensor, overwritten=where.covers(storage.nbytes()))
        draw_into(storage, where, draw, self.key)

    def call(self, func: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], stream: Stream | None) -> Any:
        """Call an operator that is no fill; with a stream if it draws numbers with PyTorch's generator."""
        random = stream is not None or any(map(self.is_random, tensors_in((args, kwargs))))
        if random:
            for tensor in written_by(func, args, kwargs):
                self.becomes_random(tensor, overwritten=False)
        out = run(func, args, kwargs, self.key, stream)
        for tensor in tensors_in(out) if random else ():
            self.becomes_random(tensor, overwritten=True)
        return out

    def empty(self, func: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
        """Call an operator that makes a tensor without values."""
        made: torch.Tensor = func(*args, **kwargs)
        return made

    def keeps(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor's memory is torch's own. Others (NumPy, a file) may hold what is not, and see no fill."""
        return tensor.untyped_storage().resizable()

    def adopt(self, tensor: torch.Tensor, parts: Sequence[RegionFill]) -> bool:
        """Take over the pending fills of a block inside this one; False if that block is to apply them."""
        return False

    def read(self, method: Any, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Call a method that hands out memory."""
        self.flush(tensor)
        return method(tensor, *args, **kwargs)

    def number(self, tensor: torch.Tensor) -> float | None:
        """The value of a tensor with one element; None if it depends on the key."""
        self.flush(tensor)
        return None if self.is_random(tensor) else tensor.item()

    # --- the operators ---

    @_own_work
    def __torch_dispatch__(
        self, func: Operator, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in operators.FILLS and self._filled(func, args, kwargs):
            return args[0]
        if func in operators.NEW and (made := self._made(func, args, kwargs)) is not None:
            return made
        if func in operators.AFFINE and (mapped := self._mapped(func, args, kwargs)) is not None:
            return mapped
        if (func is aten.clone.default or func is optional(TO_COPY)) and (
            copied := self._copied(func, args, kwargs)
        ) is not None:
            return copied
        if func is aten.copy_.default and (self._taken_over(*args, **kwargs) or self._set(*args, **kwargs)):
            return args[0]
        if func in operators.EMPTY:
            return self.empty(func, args, kwargs)
        if func.is_view or func in operators.SHAPE_ONLY:
            return func(*args, **kwargs)
        for tensor in tensors_in((args, kwargs)):
            self.flush(tensor)
        own = torch.Tag.nondeterministic_seeded in func.tags and not kwargs.get("generator")
        return self.call(func, args, kwargs, self.stream() if own else None)

    @_own_work
    def fill(self, tensor: torch.Tensor, distribution: Distribution) -> bool:
        """Defer the fill of a whole tensor; False if it cannot be deferred."""
        if not on_host(tensor) or not self.keeps(tensor):
            return False
        where = geometry(tensor)
        if (not tensor.is_contiguous() and where.overlaps) or not fits(distribution, where.shape, tensor.dtype):
            return False
        self._put(tensor, where, Draw(distribution, self.stream()))
        return True

    @_own_work
    def flush(self, tensor: torch.Tensor) -> None:
        """Apply the pending fills of a tensor's memory, in order, keyed by the order of the draws."""
        if self._outer is not None:
            self._outer.flush(tensor)
        storage = storage_of(tensor)
        if storage is None:
            return
        for where, draw in self.pending.pop(storage, {}).items():
            draw.stream.settle(draw.stream.unowned, storage, where.dtype)
            self.do(tensor, where, draw)

    def stream(self) -> Stream:
        self._draws += 1
        return Stream(self._draws - 1)

    def _filled(self, func: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        tensor, *rest = args
        if func is aten.fill_.Tensor:
            if not on_host(tensor) or (number := self.number(rest[0])) is None:
                return False
            rest = [number]
        try:
            return self.fill(tensor, operators.FILLS[func](*rest, **kwargs))
        except (TypeError, ValueError):  # torch's own operator says what is wrong
            return False

    def _made(self, func: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor | None:
        try:
            law = operators.new_law(func, args, kwargs)
        except (TypeError, ValueError):
            return None
        if law is None:
            return None
        made = self.empty(*operators.empty_of(func, args, kwargs))
        return made if self.fill(made, law) else None

    def _mapped(self, func: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor | None:
        """factor * x + shift of a tensor with pending fills is a distribution again."""
        tensor = args[0]
        numbers = operators.affine_of(func, args, kwargs)
        pieces = self._whole(tensor) if numbers else None
        if numbers is None or pieces is None:
            return None
        try:
            mapped = {where: draw._replace(law=draw.law.affine(*numbers)) for where, draw in pieces.items()}
        except ValueError:
            return None
        target = tensor if operators.in_place(func) else self.empty(aten.empty_like.default, (tensor,), {})
        return target if self._put_all(target, tensor, mapped) else None

    def _copied(self, func: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor | None:
        """A copy of a tensor with pending fills has the same draws."""
        pieces = self._whole(args[0])
        if pieces is None or kwargs.get("non_blocking"):
            return None
        copy = self.empty(aten.empty_like.default, args[:1], kwargs)
        return copy if on_host(copy) and self._put_all(copy, args[0], pieces) else None

    def _taken_over(self, target: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> bool:
        """`copy_` of a tensor with pending fills into all of another one."""
        if not on_host(target) or not on_host(source) or target.shape != source.shape:
            return False
        storage = target.untyped_storage()
        whole = geometry(target).covers(storage.nbytes())
        if whole and storage is not source.untyped_storage():
            self.pending.pop(storage, None)  # all of it is overwritten
        pieces = self._whole(source)
        return whole and pieces is not None and self._put_all(target, source, pieces)

    def _set(self, target: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> bool:
        """`copy_` of one number, as `weight[0, 0] = 2.0` does it, is a fill."""
        if not on_host(target) or source.numel() != 1 or source.is_complex() or source.device.type != "cpu":
            return False
        value = self.number(source)
        return value is not None and self._filled(aten.fill_.Scalar, (target, value), {})

    # --- pending fills ---

    def _whole(self, tensor: Any) -> PendingDraws | None:
        """The pending draws of a tensor that is all of its storage, if they make every element of it."""
        if not on_host(tensor):
            return None
        storage = tensor.untyped_storage()
        draws, nbytes = self.pending.get(storage), storage.nbytes()
        if draws is None or not next(iter(draws)).covers(nbytes) or not geometry(tensor).covers(nbytes):
            return None
        return draws

    def _put(self, tensor: torch.Tensor, where: Geometry, draw: Draw) -> None:
        storage = tensor.untyped_storage()
        draws = self.pending.setdefault(storage, {})
        if where.covers(storage.nbytes()):
            draws.clear()
        draws.pop(where, None)  # the same memory: the earlier draw would be overwritten
        draws[where] = draw

    def _put_all(self, target: torch.Tensor, source: torch.Tensor, pieces: Mapping[Geometry, Draw]) -> bool:
        """Defer the draws of another tensor of the same layout, in this one's dtype."""
        if target.stride() != source.stride() or not geometry(target).covers(target.untyped_storage().nbytes()):
            return False
        if not self.keeps(target):
            return False
        taken = {
            where: draw._replace(law=taken_over(draw.law, source.dtype, target.dtype)) for where, draw in pieces.items()
        }
        if not all(fits(draw.law, where.shape, target.dtype) for where, draw in taken.items()):
            return False
        for where, draw in taken.items():
            self._put(target, where._replace(dtype=target.dtype), draw)
        return True

    # --- the end ---

    def settle(self, owners: Sequence[Owner]) -> list[tuple[Owner, list[RegionFill]]]:
        """Give the pending draws to the tensors with names; other draws are applied, keyed by their order."""
        named: dict[torch.UntypedStorage | None, list[Owner]] = {}
        for owner in owners:
            if on_host(owner.tensor):
                named.setdefault(storage_of(owner.tensor), []).append(owner)
        settled = []
        for storage, draws in list(self.pending.items()):
            fills = region_fills(draws, storage, named.get(storage, []))
            if fills is None:
                self.flush(bytes_of(storage))
            else:
                settled += fills
        return settled

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


class _Reads(TorchFunctionMode):
    """Sees methods that hand out memory and are no operators."""

    METHODS = {  # noqa: RUF012
        torch.Tensor.numpy,
        torch.Tensor.tolist,
        torch.Tensor.__array__,
        torch.Tensor.__dlpack__,
        torch.Tensor.__deepcopy__,
        torch.Tensor.__reduce_ex__,
        torch.Tensor.share_memory_,
        torch.Tensor.untyped_storage,  # pickle takes it without a method that is seen
        torch.Tensor.storage,
        torch.Tensor.data_ptr,
    }

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in self.METHODS and not self.recorder.busy:
            return self.recorder.read(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


class _Active(threading.local):
    """The recorders of this thread; PyTorch's modes are per thread too."""

    def __init__(self) -> None:
        self.recorders: list[Recorder] = []

    @property
    def recorder(self) -> Recorder | None:
        """The innermost one."""
        return self.recorders[-1] if self.recorders else None


active = _Active()
