"""Fills kept back. A `Recorder` sees every operator of its thread: it notes fills instead of doing them, forgets those
that a later one overwrites, and does them in order as soon as another operator reads or writes the memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from fastinit._core.distributions import Distribution
from fastinit.torch._record.draws import (
    Draw,
    History,
    Owner,
    Part,
    Stream,
    fits,
    parts_of,
    storage_id,
    taken_over,
    tensors_in,
)
from fastinit.torch._record.geometry import Geometry, geometry
from fastinit.torch._record.operators import (
    AFFINE,
    COPIES,
    EMPTY,
    FILLS,
    NEW,
    SHAPE_ONLY,
    Operator,
    affine_of,
    aten,
    empty_of,
    new_law,
)
from fastinit.torch._tensors import active, on_host

Method = TypeVar("Method", bound=Callable[..., Any])


def _own_work(method: Method) -> Method:
    """A method in which nothing is a reading by others."""

    @functools.wraps(method)
    def working(self: Recorder, *args: Any, **kwargs: Any) -> Any:
        self.busy += 1
        try:
            return method(self, *args, **kwargs)
        finally:
            self.busy -= 1

    return working  # type: ignore[return-value]


class Recorder(TorchDispatchMode):
    """Keeps fills back; subclasses say what happens to a fill that cannot wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: dict[int, History] = {}
        self.busy = 0
        self._draws = 0
        self._outer: Any = None
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

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # the wrapper that True puts around the operators imports the compiler: seconds

    # --- what a subclass does ---

    def do(self, tensor: torch.Tensor, where: Geometry, draw: Draw) -> None:
        """Draw into the memory that a tensor shares."""
        raise NotImplementedError

    def call(self, func: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], stream: Stream | None) -> Any:
        """Call an operator that is no fill; with a stream if it draws numbers of torch's own."""
        raise NotImplementedError

    def empty(self, func: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
        """Call an operator that makes a tensor without values."""
        made: torch.Tensor = func(*args, **kwargs)
        return made

    def keeps(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor's memory is torch's own. Others (NumPy, a file) may hold what is not, and see no fill."""
        return tensor.untyped_storage().resizable()

    def adopt(self, tensor: torch.Tensor, parts: Sequence[Part]) -> bool:
        """Take over what a block inside this one has kept back; False where that block is to fill it."""
        return False

    def read(self, method: Any, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Call a method that hands out memory."""
        self.flush(tensor)
        return method(tensor, *args, **kwargs)

    def number(self, tensor: torch.Tensor) -> float | None:
        """The value of a tensor with one element; None where it depends on the seed."""
        raise NotImplementedError

    # --- the operators ---

    @_own_work
    def __torch_dispatch__(
        self, func: Operator, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in FILLS and self._filled(func, args, kwargs):
            return args[0]
        if func in NEW and (made := self._made(func, args, kwargs)) is not None:
            return made
        if func in AFFINE and (mapped := self._mapped(func, args, kwargs)) is not None:
            return mapped
        if func in COPIES and (copied := self._copied(func, args, kwargs)) is not None:
            return copied
        if func is aten.copy_.default and (self._taken_over(*args, **kwargs) or self._set(*args, **kwargs)):
            return args[0]
        if func in EMPTY:
            return self.empty(func, args, kwargs)
        if func.is_view or func in SHAPE_ONLY:
            return func(*args, **kwargs)
        for tensor in tensors_in((args, kwargs)):
            self.flush(tensor)
        own = torch.Tag.nondeterministic_seeded in func.tags and not kwargs.get("generator")
        return self.call(func, args, kwargs, self.stream() if own else None)

    @_own_work
    def fill(self, tensor: torch.Tensor, distribution: Distribution) -> bool:
        """Note that all of a tensor is now drawn from a law; False for what is not kept back."""
        if not on_host(tensor) or not self.keeps(tensor):
            return False
        where = geometry(tensor)
        if (not tensor.is_contiguous() and where.overlaps) or not fits(distribution, where.shape, tensor.dtype):
            return False
        self._put(tensor, where, Draw(distribution, self.stream()))
        return True

    @_own_work
    def flush(self, tensor: torch.Tensor) -> None:
        """Do what waits for the memory of a tensor, in order, keyed by the order of the draws."""
        if self._outer is not None:
            self._outer.flush(tensor)
        history = self.waiting.pop(storage_id(tensor), None)
        for where, draw in history.pieces.items() if history else ():
            draw.stream.settle(draw.stream.unowned, storage_id(tensor), where.dtype)
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
            return self.fill(tensor, FILLS[func](*rest, **kwargs))
        except (TypeError, ValueError):  # torch's own operator says what is wrong
            return False

    def _made(self, func: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor | None:
        try:
            law = new_law(func, args, kwargs)
        except (TypeError, ValueError):
            return None
        if law is None:
            return None
        made = self.empty(*empty_of(func, args, kwargs))
        return made if self.fill(made, law) else None

    def _mapped(self, func: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor | None:
        """factor * x + shift of a tensor that waits is a law again."""
        tensor = args[0]
        numbers = affine_of(func, args, kwargs)
        pieces = self._whole(tensor) if numbers else None
        if numbers is None or pieces is None:
            return None
        try:
            mapped = {where: draw._replace(law=draw.law.affine(*numbers)) for where, draw in pieces.items()}
        except ValueError:
            return None
        target = tensor if func._schema.is_mutable else self.empty(aten.empty_like.default, (tensor,), {})
        return target if self._put_all(target, tensor, mapped) else None

    def _copied(self, func: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor | None:
        """A copy of a tensor that waits waits too, with the same draws."""
        pieces = self._whole(args[0])
        if pieces is None or kwargs.get("non_blocking"):
            return None
        copy = self.empty(aten.empty_like.default, args[:1], kwargs)
        return copy if on_host(copy) and self._put_all(copy, args[0], pieces) else None

    def _taken_over(self, target: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> bool:
        """`copy_` of a tensor that waits into all of another one."""
        if not on_host(target) or not on_host(source) or target.shape != source.shape:
            return False
        whole = geometry(target).covers(target.untyped_storage().nbytes())
        if whole and storage_id(target) != storage_id(source):
            self.waiting.pop(storage_id(target), None)  # all of it is overwritten
        pieces = self._whole(source)
        return whole and pieces is not None and self._put_all(target, source, pieces)

    def _set(self, target: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> bool:
        """`copy_` of one number, as `weight[0, 0] = 2.0` does it, is a fill."""
        if not on_host(target) or source.numel() != 1 or source.is_complex() or source.device.type != "cpu":
            return False
        value = self.number(source)
        return value is not None and self._filled(aten.fill_.Scalar, (target, value), {})

    # --- what waits ---

    def _whole(self, tensor: Any) -> dict[Geometry, Draw] | None:
        """What waits for a tensor that is all of its storage, if that makes every element of it."""
        if not on_host(tensor) or (history := self.waiting.get(storage_id(tensor))) is None:
            return None
        nbytes = tensor.untyped_storage().nbytes()
        first = next(iter(history.pieces))
        return history.pieces if first.covers(nbytes) and geometry(tensor).covers(nbytes) else None

    def _put(self, tensor: torch.Tensor, where: Geometry, draw: Draw) -> None:
        storage = tensor.untyped_storage()
        history = self.waiting.get(storage._cdata)
        if history is None:
            history = self.waiting[storage._cdata] = History(StorageWeakRef(storage))
        elif where.covers(storage.nbytes()):
            history.pieces.clear()
        history.pieces.pop(where, None)  # the same memory: the earlier draw would be overwritten
        history.pieces[where] = draw

    def _put_all(self, target: torch.Tensor, source: torch.Tensor, pieces: Mapping[Geometry, Draw]) -> bool:
        """Let a tensor wait for the pieces of another one of the same layout, in its own dtype."""
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

    def settle(self, owners: Sequence[Owner]) -> list[tuple[Owner, list[Part]]]:
        """Give the draws that wait to the tensors with names; what has none is done by the order of the draws."""
        named: dict[int, list[Owner]] = {}
        for owner in owners:
            if on_host(owner.tensor):
                named.setdefault(storage_id(owner.tensor), []).append(owner)
        settled = []
        for storage, history in list(self.waiting.items()):
            parts = parts_of(history, storage, named.get(storage, []))
            if parts is not None:
                settled += parts
            elif (tensor := history.revived()) is not None:
                self.flush(tensor)
        return settled


class _Reads(TorchFunctionMode):
    """Sees the methods that hand out memory and are no operators."""

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
