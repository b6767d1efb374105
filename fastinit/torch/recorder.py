"""Fills kept back. A `Recorder` sees every operator of its thread: it notes fills instead of doing them, forgets those
that a later one overwrites, and does them in order as soon as another operator reads or writes the memory.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastinit.buffers import Region
from fastinit.composite import Patched, SameAs
from fastinit.distributions import Distribution
from fastinit.filling import fill
from fastinit.key import Key
from fastinit.torch.geometry import Geometry, geometry, in_order, locate
from fastinit.torch.operators import (
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
from fastinit.torch.tensors import DTYPES, active, host_array, mark_written, on_host
from fastinit.torch.weak import StorageWeakRef, revived

UNOWNED = "unowned"  # stands in a key before the ordinal of a draw that no module's name belongs to
Path = tuple[str, ...]


@dataclass(slots=True, eq=False)
class Stream:
    """The key of a draw, and of its copies: by the names in it, once they are known."""

    ordinal: int
    path: Path | None = None
    home: int = 0  # the storage whose tensor gave the name
    dtype: torch.dtype = torch.float32  # of that tensor

    def settle(self, path: Path, home: int, dtype: torch.dtype) -> None:
        if self.path is None:
            self.path, self.home, self.dtype = path, home, dtype

    @property
    def unowned(self) -> Path:
        return UNOWNED, str(self.ordinal)


class Draw(NamedTuple):
    law: Distribution
    stream: Stream

    def law_in(self, storage: int) -> Distribution:
        """The law, with the name of the tensor that has the same draw, where that is in another storage. (Several
        tensors in one storage have each their own.)"""
        stream = self.stream
        if stream.path is None or stream.home == storage or not self.law.random:
            return self.law
        return SameAs(stream.path, self.law, DTYPES[stream.dtype])


@dataclass(slots=True)
class History:
    """What waits to be drawn into one storage, in order."""

    storage: StorageWeakRef
    pieces: dict[Geometry, Draw] = field(default_factory=dict)


class Owner(NamedTuple):
    """A tensor with a name."""

    path: Path
    tensor: torch.Tensor


class Part(NamedTuple):
    """A law over a region of an owner, () where it is the whole."""

    region: Region
    law: Distribution


class Recorder(TorchDispatchMode):
    """Keeps fills back; subclasses say what happens to a fill that cannot wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: dict[int, History] = {}
        self._draws = 0
        self._outer: Any = None
        self._reads = _Reads(self)

    def __enter__(self) -> Recorder:
        self._outer, active.recorder = active.recorder, self
        super().__enter__()
        self._reads.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._reads.__exit__(*exception)
        super().__exit__(*exception)
        active.recorder = self._outer

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

    def fill(self, tensor: torch.Tensor, distribution: Distribution) -> bool:
        """Note that all of a tensor is now drawn from a law; False for what is not kept back."""
        if not on_host(tensor) or geometry(tensor).overlaps:
            return False
        try:
            distribution.check(tuple(tensor.shape), DTYPES[tensor.dtype])
        except ValueError:
            return False
        self._put(tensor, geometry(tensor), Draw(distribution, self.stream()))
        return True

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
        if not on_host(tensor):
            return False
        if func is aten.fill_.Tensor and (rest := [self.number(rest[0])]) == [None]:
            return False
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
            mapped = [(where, Draw(draw.law.affine(*numbers), draw.stream)) for where, draw in pieces.items()]
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
        return copy if on_host(copy) and self._put_all(copy, args[0], list(pieces.items())) else None

    def _taken_over(self, target: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> bool:
        """`copy_` of a tensor that waits into all of another one."""
        if not on_host(target) or not on_host(source) or target.shape != source.shape:
            return False
        whole = geometry(target).covers(target.untyped_storage().nbytes())
        if whole and storage_id(target) != storage_id(source):
            self.waiting.pop(storage_id(target), None)  # all of it is overwritten
        pieces = self._whole(source)
        return whole and pieces is not None and self._put_all(target, source, list(pieces.items()))

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
        history = self.waiting.setdefault(storage._cdata, History(StorageWeakRef(storage)))
        if where.covers(storage.nbytes()):
            history.pieces.clear()
        history.pieces.pop(where, None)  # the same memory: the earlier draw would be overwritten
        history.pieces[where] = draw

    def _put_all(self, target: torch.Tensor, source: torch.Tensor, pieces: Sequence[tuple[Geometry, Draw]]) -> bool:
        """Let a tensor wait for the pieces of another one of the same layout."""
        if target.stride() != source.stride() or not geometry(target).covers(target.untyped_storage().nbytes()):
            return False
        try:
            for where, draw in pieces:
                draw.law.check(where.shape, DTYPES[target.dtype])
        except ValueError:
            return False
        for where, draw in pieces:
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
            parts = _parts(history, storage, named.get(storage, []))
            if parts is not None:
                settled += parts
            elif (tensor := revived(history.storage)) is not None:
                self.flush(tensor)
        return settled


def storage_id(tensor: torch.Tensor) -> int:
    """What tells storages apart, as long as they live."""
    found: int = tensor.untyped_storage()._cdata if tensor.layout is torch.strided else 0
    return found


def tensors_in(tree: Any) -> list[torch.Tensor]:
    """The tensors in any nest of arguments."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _parts(history: History, storage: int, owners: Sequence[Owner]) -> list[tuple[Owner, list[Part]]] | None:
    """The draws of one storage as laws over its tensors; None where one of them is no region of a tensor."""
    places = {geometry(owner.tensor): owner for owner in reversed(owners)}  # the first of those with one place
    widest = sorted(places.items(), key=lambda item: -item[1].tensor.numel())
    found: dict[Path, list[Part]] = {owner.path: [] for owner in places.values()}
    for where, draw in history.pieces.items():
        regions = _regions(where, draw.law, widest)
        if not regions:
            return None
        for owner, region in regions:
            draw.stream.settle(owner.path, storage, where.dtype)
            found[owner.path].append(Part(region, draw.law_in(storage)))
    return [(owner, found[owner.path]) for owner in places.values() if found[owner.path]]


def _regions(
    where: Geometry, law: Distribution, places: Sequence[tuple[Geometry, Owner]]
) -> list[tuple[Owner, Region]]:
    """The regions of tensors that a draw makes: of one that holds it, or the whole of all that lie in it."""
    for place, owner in places:
        region = locate(where, place)
        if region is not None and (not law.structured or in_order(where, place, region)):
            return [(owner, region)]
    if law.structured:
        return []
    return [(owner, ()) for place, owner in places if locate(place, where) is not None]


class Eager(Recorder):
    """Does what cannot wait at once, with the seed that all draws have."""

    def __init__(self, key: Key) -> None:
        super().__init__()
        self.key = key
        self._random: dict[int, StorageWeakRef] = {}  # storages whose values depend on the seed

    def is_random(self, tensor: torch.Tensor) -> bool:
        """Whether values of a tensor's storage, as far as they are there, depend on the seed."""
        return storage_id(tensor) in self._random

    def becomes_random(self, tensor: torch.Tensor, *, overwritten: bool) -> None:
        """Something random is about to be written; `overwritten` says that nothing else stays in the storage."""
        if tensor.layout is torch.strided:
            self._random.setdefault(storage_id(tensor), StorageWeakRef(tensor.untyped_storage()))

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

    def give(self, owner: Owner, parts: Sequence[Part]) -> None:
        """Fill a tensor with what waited for it, after the block."""
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
    law = SameAs(stream.path, draw.law, DTYPES[stream.dtype]) if draw.law.random else draw.law
    fill(array, law, seed=key / UNOWNED)


def under(key: Key, path: Path) -> Key:
    """The key with further names."""
    return Key(key.seed, (*key.path, *path))


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
    names = {argument.name for argument in func._schema.arguments} | {"generator"}
    packet = func.overloadpacket
    overloads: list[Operator] = [getattr(packet, name) for name in packet.overloads()]
    return next((one for one in (func, *overloads) if {a.name for a in one._schema.arguments} == names), None)


def _base(tensor: torch.Tensor, where: Geometry) -> torch.Tensor:
    """A tensor over the same storage with the dtype of a draw."""
    plain = tensor.detach()
    return plain if plain.dtype is where.dtype else torch.empty(0, dtype=where.dtype).set_(plain.untyped_storage())


def written_by(func: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """The tensors that an operator writes to."""
    if not func._schema.is_mutable:
        return []
    given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
    written = [a.name for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    return tensors_in([given.get(name) for name in written])


class _Reads(TorchFunctionMode):
    """Sees the methods that hand out memory and are no operators."""

    METHODS = {  # noqa: RUF012
        torch.Tensor.numpy,
        torch.Tensor.tolist,
        torch.Tensor.__array__,
        torch.Tensor.__dlpack__,
        torch.Tensor.__reduce_ex__,
        torch.Tensor.share_memory_,
    }

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in self.METHODS:
            return self.recorder.read(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))
