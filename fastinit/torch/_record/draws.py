"""Draws into memory, and the keys that they are made with."""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from fastinit._core.composite import Cast, SameAs
from fastinit._core.distributions import Constant, Distribution, rounded
from fastinit._core.key import Key
from fastinit.torch._compat import tree_map
from fastinit.torch._record.geometry import Geometry, carried, in_c_order, meet
from fastinit.torch._tensors import DTYPES

UNOWNED = "unowned"  # stands in a key before the ordinal of a draw that no module's name belongs to
Path = tuple[str, ...]


class Home(NamedTuple):
    """Elements of a stream that have the key of a named tensor."""

    path: Path  # the names in the key
    shape: tuple[int, ...]  # of the named tensor
    view: Geometry  # which elements of the stream
    place: Geometry  # which elements of the named tensor they are


@dataclass(slots=True, eq=False)
class Stream:
    """The elements of one fill, in C order; those of its copies are the same."""

    ordinal: int
    shape: tuple[int, ...]  # of the tensor that was filled
    homes: tuple[Home, ...] = ()  # empty as long as it has no key
    shared: bool = False  # whether its elements are in several tensors
    # The first storage that held elements, and the others: for most streams there are none.
    first: weakref.ref[torch.UntypedStorage] | None = None
    others: weakref.WeakSet[torch.UntypedStorage] | None = None
    done: tuple[int, bool] = (0, False)  # when it was drawn before it had a name, and whether it was shared then

    @property
    def unowned(self) -> Path:
        return UNOWNED, str(self.ordinal)

    @property
    def homes_now(self) -> tuple[Home, ...]:
        """The homes; as long as there are none, the key is the ordinal's."""
        whole = in_c_order(self.shape)
        return self.homes or (Home(self.unowned, self.shape, whole, whole),)

    def note(self, storage: torch.UntypedStorage) -> None:
        """Note that a storage holds elements."""
        if self.first is None:
            self.first = weakref.ref(storage)
        elif self.first() is not storage:
            self.others = weakref.WeakSet() if self.others is None else self.others
            self.others.add(storage)

    def is_only_in(self, storage: torch.UntypedStorage) -> bool:
        """Whether no other storage ever held elements."""
        return self.others is None and self.first is not None and self.first() is storage

    @property
    def is_alone(self) -> bool:
        """Whether one living storage at most has held elements."""
        living = self.first is not None and self.first() is not None
        return not self.others or (len(self.others) == 1 and not living)

    @property
    def told(self) -> int | None:
        """When somebody may have seen its elements: 0 for never before the end, None for at any time."""
        return None if self.shared else self.done[0]

    @property
    def is_pinned(self) -> bool:
        """Whether it has the key of the ordinal for good."""
        return bool(self.homes) and self.homes[0].path == self.unowned

    def pin(self) -> None:
        """Keep the key of the ordinal: values that it has made were seen."""
        self.homes = ()
        self.homes = self.homes_now


class Draw(NamedTuple):
    """Elements of a stream, in the shape that some memory has them."""

    law: Distribution
    stream: Stream
    view: Geometry  # which elements
    dtypes: tuple[torch.dtype, ...]  # the first that they were made in, and those that they were copied to since

    @property
    def is_region(self) -> bool:
        """Whether the elements can be drawn: of a structured distribution those of a region can."""
        if self.law.structured:
            copy = SameAs((UNOWNED,), self.law, self.stream.shape, self.view.offset, self.view.strides)
            return fits(copy, self.view.shape, self.dtypes[-1])
        return True

    def into(self, dtype: torch.dtype) -> Draw:
        """What a copy of another dtype holds."""
        source = self.dtypes[-1]
        if source is dtype:
            return self
        if isinstance(self.law, Constant):
            return self._replace(law=Constant(rounded("value", self.law.value, DTYPES[source])), dtypes=(dtype,))
        return self._replace(dtypes=(*self.dtypes, dtype))

    def cast(self, law: Distribution) -> Distribution:
        """A distribution for the first dtype as one for the last."""
        through = self.dtypes[:-1]
        # 16-bit dtypes have float32's stream, rounded: but for bounds, which a copy may reach.
        if through[:1] == (torch.float32,) and self.dtypes[1].itemsize == 2 and not self.stream.shared:
            through = through[1:]
        for dtype in through:
            law = Cast(law, DTYPES[dtype])
        return law


class Part(NamedTuple):
    """The elements of a view of a stream that have one home."""

    view: Geometry
    home: Home
    place: Geometry  # in the home's tensor


def parts_of(view: Geometry, homes: tuple[Home, ...]) -> list[Part]:
    """The homes of all elements of a view; empty where some have none."""
    for home in homes:
        place = carried(view, home.view, home.place)
        if place is not None:
            return [Part(view, home, place)]
    found = []
    for home in homes:
        part = home.view if carried(home.view, view, view) is not None else meet(view, home.view)
        place = None if part is None or 0 in part.shape else carried(part, home.view, home.place)
        if part is not None and place is not None:
            found.append(Part(part, home, place))
    return found if sum(math.prod(part.view.shape) for part in found) == math.prod(view.shape) else []


def law_of(draw: Draw, part: Part, own: tuple[Path, Geometry] | None = None) -> Distribution:
    """The distribution of a part: the plain one where the key is the own one of a named tensor, at the place there."""
    home, place = part.home, part.place
    if own is not None and own[0] == home.path and same(own[1], place):
        return draw.cast(draw.law)
    whole = place.shape == home.shape and same(place, in_c_order(home.shape))
    elements = () if whole else (place.offset, place.strides)
    return draw.cast(SameAs(home.path, draw.law, home.shape, *elements))


def same(a: Geometry, b: Geometry) -> bool:
    """Whether two views of one shape are the same elements, index by index."""
    return a.offset == b.offset and all(x == y for x, y, n in zip(a.strides, b.strides, a.shape, strict=True) if n > 1)


@dataclass(slots=True, eq=False)
class Piece:
    """What some memory of a storage holds: a draw, or for None something else."""

    draw: Draw | None
    done: bool  # whether it is there; a pending one is not


Contents = dict[Geometry, Piece]  # what is known of one storage; later pieces lie over earlier ones


class Origin(NamedTuple):
    """What a storage was copied from. A shard's original tells what the other ranks have."""

    storage: weakref.ref[torch.UntypedStorage] | None  # the original's; None where it is none but the shards
    nbytes: int  # of that storage
    contents: Contents  # what it held
    where: Geometry  # the original
    local: Geometry | None  # the copy; None: the storage was only made like the original
    before: Origin | None = None  # what the original was copied from

    def cut(self, number: int) -> Origin:
        """The same with this number of earlier ones at most."""
        return self._replace(before=self.before.cut(number - 1) if self.before is not None and number else None)


@functools.lru_cache(maxsize=4096)
def fits(law: Distribution, shape: tuple[int, ...], dtype: torch.dtype) -> bool:
    """Whether a distribution exists for a shape, and a dtype can hold it. Cached: a model has few shapes."""
    if dtype not in DTYPES:
        return False
    try:
        law.check(shape, DTYPES[dtype])
    except ValueError:
        return False
    return True


def storage_of(tensor: torch.Tensor) -> torch.UntypedStorage | None:
    """The storage of a strided tensor: one object as long as any tensor uses it."""
    return tensor.untyped_storage() if tensor.layout is torch.strided else None


def bytes_of(storage: torch.UntypedStorage) -> torch.Tensor:
    """A tensor over all bytes of a storage."""
    return torch.empty(0, dtype=torch.uint8, device="cpu").set_(storage)


def tensors_in(tree: Any) -> list[torch.Tensor]:
    """The tensors in nested arguments."""
    tensors: list[torch.Tensor] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        tensors.append(tensor)
        return tensor

    map_tensors(note, tree)
    return tensors


def map_tensors(function: Callable[[torch.Tensor], Any], tree: Any) -> Any:
    """Apply a function to the tensors in nested arguments."""
    return tree_map(lambda leaf: function(leaf) if isinstance(leaf, torch.Tensor) else leaf, tree)


def under(key: Key, path: Path) -> Key:
    """The key with further names."""
    for name in path:
        key = key / name
    return key
