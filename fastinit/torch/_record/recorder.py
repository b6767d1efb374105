"""Deferred fills. A `Recorder` sees every operator of its thread. It keeps fills pending, follows them through copies,
drops those that a later fill overwrites, and applies the rest in order when another operator reads the memory.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable
from copy import deepcopy
from typing import Any, TypeVar

import torch

from fastinit._core.distributions import Distribution
from fastinit._core.key import Key
from fastinit.torch._compat import FOREACH_COPY, TO_COPY, DispatchMode, optional
from fastinit.torch._record import copies, operators
from fastinit.torch._record.calls import Calls
from fastinit.torch._record.draws import Draw, Origin, Piece, Stream, bytes_of, fits, storage_of, tensors_in
from fastinit.torch._record.geometry import apart, geometry, in_c_order, tensor_at
from fastinit.torch._record.naming import Owner, owner
from fastinit.torch._record.operators import Operator, aten
from fastinit.torch._record.reads import Reads
from fastinit.torch._shards import is_sharded, local_parts, placements_of
from fastinit.torch._tensors import PLAIN, on_host

SHARDINGS = 3  # how often a tensor may be cut, axis of the mesh by axis, for its name to be found

Method = TypeVar("Method", bound=Callable[..., Any])


def _own_work(method: Method) -> Method:
    """Reads inside this method do not apply pending fills."""

    @functools.wraps(method)
    def working(self: Recorder, *args: Any, **kwargs: Any) -> Any:
        self.busy += 1
        try:
            return method(self, *args, **kwargs)
        finally:
            self.busy -= 1

    return working  # type: ignore[return-value]


class Recorder(DispatchMode, Calls):
    """Keeps fills pending. A fill that cannot be deferred is drawn at once, with the same key."""

    def __init__(self, key: Key, owners: Callable[[], list[Owner]] = list) -> None:
        DispatchMode.__init__(self)
        Calls.__init__(self, key, owners)
        self.busy = 0
        self._draws = 0
        self._outer: Recorder | None = None
        self.checked_groups: set[Any] = set()  # of processes that are known to have the same key
        self._reads = Reads(self)

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

    def announce(self, storage: torch.UntypedStorage) -> None:
        if self._outer is not None:  # what NumPy writes it does not see
            self._outer.release(bytes_of(storage))

    @_own_work
    def flush(self, tensor: torch.Tensor) -> None:
        """Apply the pending fills of a tensor's memory."""
        if (storage := storage_of(tensor)) is not None:
            self.apply(storage)

    @_own_work
    def release(self, tensor: torch.Tensor) -> None:
        """Leave a tensor's memory to others, who may read and write it unseen."""
        self.flush(tensor)
        if self.is_random(tensor):
            self.seen("memory that is handed out", tensor)
        self.forget(tensor)

    @_own_work
    def replaced(self, tensor: torch.Tensor) -> None:
        """Others are about to fill a tensor unseen: what it holds does not count any more."""
        if (storage := storage_of(tensor)) is not None:
            self.put(storage, geometry(tensor), None, done=True)
            self.release(tensor)

    def empty(self, func: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
        """Call an operator that makes a tensor without values."""
        made: torch.Tensor = func(*args, **kwargs)
        if not is_sharded(made) and (storage := storage_of(made)) is not None:
            self._fresh.add(storage)
        return made

    def keeps(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor's memory is torch's own. Others (NumPy, a file) may hold what is not, and see no fill."""
        return tensor.untyped_storage().resizable()

    @_own_work
    def read(self, method: Any, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Call a method that hands out memory or values."""
        if method is torch.Tensor.__deepcopy__ and self._can_deep_copy(tensor):
            return args[0][id(tensor)] if id(tensor) in args[0] else self._deep_copy(tensor, args[0])
        if method in self._reads.LOOKS:
            self.flush(tensor)
        elif method is torch.Tensor.tolist:
            self.flush(tensor)
            return self.listed(tensor)
        elif method is torch.Tensor.__deepcopy__:
            self.flush(tensor)
            if self.is_random(tensor):
                self.seen(method.__name__, tensor)
        elif not is_sharded(tensor):
            self.release(tensor)
        return method(tensor, *args, **kwargs)

    def number(self, tensor: torch.Tensor) -> float | None:
        """The value of a tensor with one element; None if it depends on the key."""
        self.flush(tensor)
        return None if self.is_random(tensor) else tensor.item()

    # --- the operators ---

    def __torch_dispatch__(
        self, func: Operator, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.busy += 1  # not by `_own_work`: of a small model the calls in here are most of the time
        try:
            kwargs = kwargs or {}
            if func in operators.FILLS and self._filled(func, args, kwargs):
                return args[0]
            if func in operators.EMPTY and not types:
                return self._empty(func, args, kwargs)
            return self._other(func, types, args, kwargs)
        finally:
            self.busy -= 1

    def _empty(self, func: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
        empty = self.empty(func, args, kwargs)
        self._comes_from(empty, args[0] if args else None, copied=False)
        return empty

    def _other(self, func: Operator, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call an operator that is no fill."""
        if func in operators.NEW and (made := self._made(func, args, kwargs)) is not None:
            return made
        if types and any(map(is_sharded, tensors_in((args, kwargs)))):
            return self._sharded(func, args)
        if func in operators.AFFINE and (mapped := self._mapped(func, args, kwargs)) is not None:
            return mapped
        if (func is aten.clone.default or func is optional(TO_COPY)) and (
            copied := self._copied(func, args, kwargs)
        ) is not None:
            return copied
        if func is aten.copy_.default and (self._taken_over(*args, **kwargs) or self._set(*args, **kwargs)):
            return args[0]
        if func is optional(FOREACH_COPY):
            for target, source in zip(args[0], args[1], strict=True):
                self.__torch_dispatch__(aten.copy_.default, (), (target, source, *args[2:]), kwargs)
            return None
        if func in copies.ASSEMBLED and (made := self._assembled(func, args, kwargs)) is not None:
            return made
        if func in operators.EMPTY:
            return self._empty(func, args, kwargs)
        if func.is_view or func in operators.SHAPE_ONLY:
            return func(*args, **kwargs)
        for tensor in tensors_in((args, kwargs)):
            self.flush(tensor)
        own = torch.Tag.nondeterministic_seeded in func.tags and not kwargs.get("generator")
        out = self.call(func, args, kwargs, self.stream(()) if own else None)
        if func is aten.copy_.default or func is aten.clone.default or func is optional(TO_COPY):
            self._comes_from(out, args[1] if func is aten.copy_.default else args[0], copied=True)
        return out

    @_own_work
    def fill(self, tensor: torch.Tensor, distribution: Distribution) -> bool:
        """Defer the fill of a whole tensor; False if it cannot be deferred."""
        if type(tensor) in PLAIN:
            return self._fill_plain(tensor, distribution)
        if any(placement.is_partial() for placement in placements_of(tensor)):
            return False
        shape, parts = tuple(tensor.shape), local_parts(tensor)
        if not fits(distribution, shape, tensor.dtype):
            return False
        for part, _ in parts:
            if not on_host(part) or not self.keeps(part) or (not part.is_contiguous() and geometry(part).overlaps):
                return False
        stream = self.stream(shape) if distribution.random else Stream(-1, shape)
        draw = Draw(distribution, stream, in_c_order(shape), (tensor.dtype,))
        for part, region in parts:
            storage, elements = part.untyped_storage(), owner((), part, shape, region).place
            if part.numel():
                self.put(storage, geometry(part), draw._replace(view=elements), done=False)
            if region:
                whole = in_c_order(shape)._replace(dtype=tensor.dtype)
                self.origins[storage] = Origin(None, whole.bytes[1], {whole: Piece(draw, False)}, whole, None)
        return True

    def _fill_plain(self, tensor: torch.Tensor, distribution: Distribution) -> bool:
        """The same in a shorter way, for what is no shard."""
        where = geometry(tensor)
        if not fits(distribution, where.shape, tensor.dtype) or not on_host(tensor) or not self.keeps(tensor):
            return False
        if not tensor.is_contiguous() and where.overlaps:
            return False
        stream = self.stream(where.shape) if distribution.random else Stream(-1, where.shape)
        if tensor.numel():
            draw = Draw(distribution, stream, in_c_order(where.shape), (tensor.dtype,))
            self.put(tensor.untyped_storage(), where, draw, done=False)
        return True

    def stream(self, shape: tuple[int, ...]) -> Stream:
        """The stream of the next random draw."""
        self._draws += 1
        return Stream(self._draws - 1, shape)

    def _filled(self, func: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        tensor, *rest = args
        if func is aten.fill_.Tensor:
            if (not is_sharded(tensor) and not on_host(tensor)) or (number := self.number(rest[0])) is None:
                return False
            rest = [number]
        try:
            distribution = operators.FILLS[func](*rest, **kwargs)
            return self._fill_plain(tensor, distribution) if type(tensor) in PLAIN else self.fill(tensor, distribution)
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
        if not self.fill(made, law):
            return None
        self._comes_from(made, args[0] if args else None, copied=False)
        return made

    def _sharded(self, func: Operator, args: tuple[Any, ...]) -> Any:
        """Let a DTensor's operator be seen as operators on its shards. What draws numbers is none of these: all ranks
        would draw the same."""
        here = [tensor for tensor in tensors_in(args) if is_sharded(tensor) and tensor.is_cpu]
        if here and torch.Tag.nondeterministic_seeded in func.tags:
            raise ValueError(
                f"{func} cannot draw into a sharded tensor inside fast_init. Received: placements "
                f"{placements_of(here[0])}. Draw before the tensor is sharded, or by normal_ or uniform_"
            )
        return NotImplemented

    # --- copies ---

    def _mapped(self, func: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor | None:
        """factor * x + shift of a tensor with pending fills is a distribution again."""
        tensor, numbers = args[0], operators.affine_of(func, args, kwargs)
        if numbers is None or not on_host(tensor) or tensor.untyped_storage() not in self.pending:
            return None
        target = tensor if operators.in_place(func) else self.empty(aten.empty_like.default, (tensor,), {})
        pieces = self._known(tensor, target)
        if pieces is None or not all(self._is_alone(draw, tensor, target) for _, draw in pieces):
            return None
        try:
            mapped = [(where, draw._replace(law=draw.law.affine(*numbers))) for where, draw in pieces]
        except ValueError:
            return None
        if any(len(draw.dtypes) > 1 for _, draw in mapped):  # a rounded value is no draw
            return None
        return target if self._put_all(target, mapped, tensor) else None

    def _is_alone(self, draw: Draw, tensor: torch.Tensor, target: torch.Tensor) -> bool:
        """Whether nothing else is going to hold a draw that is scaled: a distribution rounds once, an operator twice,
        so that what is equal would differ in the last bits."""
        passes = target is tensor or type(tensor) is torch.Tensor  # a parameter stays
        return not draw.law.random or (passes and draw.stream.is_alone)

    def _copied(self, func: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor | None:
        """A copy of a tensor whose draws are known has the same draws."""
        source = args[0]
        if not on_host(source) or source.untyped_storage() not in self.known or kwargs.get("non_blocking"):
            return None
        copy = self.empty(aten.empty_like.default, args[:1], kwargs)
        if not on_host(copy):
            return None
        pieces = self._known(source, copy)
        return copy if pieces is not None and self._put_all(copy, pieces, source) else None

    def _taken_over(self, target: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> bool:
        """`copy_` of a tensor whose draws are known."""
        if not on_host(target) or not on_host(source):
            return False
        try:
            source = source.expand(target.shape)
        except RuntimeError:  # torch's own operator says what is wrong
            return False
        storage, whole = target.untyped_storage(), geometry(target)
        if storage is source.untyped_storage():
            if not apart(whole, geometry(source)):
                return False
        elif whole.covers(storage.nbytes()):
            self.pending.discard(storage)  # all of it is overwritten
            self.known.pop(storage, None)
        pieces = self._known(source, target)
        return pieces is not None and self._put_all(target, pieces, source)

    def _set(self, target: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> bool:
        """`copy_` of one number, as `weight[0, 0] = 2.0` does it, is a fill."""
        if not on_host(target) or source.numel() != 1 or source.is_complex() or source.device.type != "cpu":
            return False
        value = self.number(source)
        return value is not None and self._filled(aten.fill_.Scalar, (target, value), {})

    def _assembled(self, func: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor | None:
        """A tensor that is put together of tensors whose draws are known."""
        found = copies.sources(func, args)
        dtypes = {tensor.dtype for tensor in found}
        if len(dtypes) != 1 or not all(on_host(t) and t.numel() and t.untyped_storage() in self.known for t in found):
            return None
        shape = copies.size_of(func, args, kwargs)
        if not shape:
            return None
        out = self.empty(aten.empty.memory_format, (shape,), {"dtype": dtypes.pop(), "device": torch.device("cpu")})
        for target, source in copies.pairs(func, args, kwargs, out):
            pieces = self._known(source.expand(target.shape), target)
            if pieces is None or not self._put_all(target, pieces, source):
                self.known.pop(out.untyped_storage(), None)
                return None
        return out

    def _known(self, source: torch.Tensor, target: torch.Tensor) -> copies.Copies | None:
        """The draws of a tensor, at the places that they get in another one of its shape."""
        contents = self.known.get(source.untyped_storage())
        if not contents or not source.numel():
            return None
        return copies.copied(contents, geometry(source), geometry(target))

    def _put_all(self, target: torch.Tensor, pieces: copies.Copies, source: torch.Tensor) -> bool:
        """Defer the draws of a copy."""
        if not self.keeps(target) or geometry(target).overlaps:
            return False
        draws = [(where, draw.into(target.dtype)) for where, draw in pieces]
        if not all(fits(draw.cast(draw.law), draw.stream.shape, target.dtype) and draw.is_region for _, draw in draws):
            return False
        storage = target.untyped_storage()
        for where, draw in draws:
            self.put(storage, where, draw, done=False)
        self._comes_from(target, source, copied=True)
        return True

    def _comes_from(self, target: torch.Tensor, source: Any, *, copied: bool) -> None:
        """Note that a tensor is a copy of another one, or else was made with its strides and dtype for one."""
        if not isinstance(source, torch.Tensor) or not on_host(target) or not on_host(source):
            return
        own, storage = target.untyped_storage(), source.untyped_storage()
        before = self.origins.get(storage)
        if not source.numel() and before is not None:
            self.origins[own] = before
        elif own is not storage and (storage in self.known or storage in self._random):
            contents, local = dict(self.known.get(storage, {})), geometry(target) if copied else None
            before = before and before.cut(SHARDINGS)
            self.origins[own] = Origin(
                weakref.ref(storage), storage.nbytes(), contents, geometry(source), local, before
            )

    def _can_deep_copy(self, tensor: torch.Tensor) -> bool:
        if type(tensor) not in PLAIN or not tensor.is_cpu or not tensor.is_leaf or tensor.grad is not None:
            return False
        storage = storage_of(tensor)
        return storage in self.known or storage in self._random

    def _deep_copy(self, tensor: torch.Tensor, memo: dict[Any, Any]) -> torch.Tensor:
        """`copy.deepcopy` of a tensor whose draws are known: tensors that share memory do so in the copies."""
        storage = tensor.untyped_storage()
        copies_of = memo.setdefault("fastinit", {})
        if storage not in copies_of:
            copies_of[storage] = self._copy_storage(storage)
        copy: torch.Tensor = tensor_at(copies_of[storage], geometry(tensor)).requires_grad_(tensor.requires_grad)
        memo[id(tensor)] = copy
        copy.__dict__ = deepcopy(tensor.__dict__, memo)
        return copy

    def _copy_storage(self, storage: torch.UntypedStorage) -> torch.UntypedStorage:
        contents, size = self.known.get(storage, {}), storage.nbytes()
        pending = all(not p.done for p in contents.values()) and any(where.covers(size) for where in contents)
        memory = bytes_of(storage)  # its clone is seen, and logged if need be
        copy = (torch.empty_like(memory) if pending else memory.clone()).untyped_storage()
        for where, piece in contents.items():
            self.put(copy, where, piece.draw, done=not pending)
        if storage in self.origins:
            self.origins[copy] = self.origins[storage]
        return copy

    @_own_work
    def knows(self, tensor: torch.Tensor) -> bool:
        """Whether all values of a tensor are draws that are known."""
        return on_host(tensor) and self._known(tensor, tensor) is not None

    @_own_work
    def shares_memory(self, one: torch.Tensor, other: torch.Tensor) -> bool:
        """Whether two tensors have one storage; asked so, it is not handed out."""
        return storage_of(one) is storage_of(other)


class _Active(threading.local):
    """The recorders of this thread; PyTorch's modes are per thread too."""

    def __init__(self) -> None:
        self.recorders: list[Recorder] = []

    @property
    def recorder(self) -> Recorder | None:
        """The innermost one."""
        return self.recorders[-1] if self.recorders else None


active = _Active()
