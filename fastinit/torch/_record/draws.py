"""Pending draws, resolved to named tensors."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from fastinit._core.composite import Cast, SameAs
from fastinit._core.distributions import Constant, Distribution, rounded
from fastinit._core.key import Key
from fastinit._runtime.arrays import Region
from fastinit.torch._compat import tree_map
from fastinit.torch._record.geometry import Geometry, geometry, in_order, locate
from fastinit.torch._tensors import DTYPES

UNOWNED = "unowned"  # stands in a key before the ordinal of a draw that no module's name belongs to
Path = tuple[str, ...]


@dataclass(slots=True, eq=False)
class Stream:
    """The key of a draw, and of its copies: by the names in it, once they are known."""

    ordinal: int
    path: Path | None = None
    home: weakref.ref[torch.UntypedStorage] | None = None  # the storage whose tensor gave the name
    dtype: torch.dtype = torch.float32  # of that tensor

    def settle(self, path: Path, home: torch.UntypedStorage, dtype: torch.dtype) -> None:
        if self.path is None:
            self.path, self.home, self.dtype = path, weakref.ref(home), dtype

    @property
    def unowned(self) -> Path:
        return UNOWNED, str(self.ordinal)


class Draw(NamedTuple):
    law: Distribution
    stream: Stream

    def law_in(self, storage: torch.UntypedStorage) -> Distribution:
        """The law, with the name of the tensor that has the same draw, where that is in another storage. (Several
        tensors in one storage have each their own.)"""
        stream = self.stream
        if stream.home is None or stream.home() is storage or not self.law.random:
            return self.law
        assert stream.path is not None
        return SameAs(stream.path, self.law, DTYPES[stream.dtype])


PendingDraws = dict[Geometry, Draw]  # into one storage, in order


class Owner(NamedTuple):
    """A tensor with a name."""

    path: Path
    tensor: torch.Tensor


class RegionFill(NamedTuple):
    """A distribution over a region of an owner; () is the whole owner."""

    region: Region
    law: Distribution


@functools.lru_cache(maxsize=4096)
def fits(law: Distribution, shape: tuple[int, ...], dtype: torch.dtype) -> bool:
    """Whether a distribution exists for a shape, and a dtype can hold it. Cached: a model has few shapes."""
    try:
        law.check(shape, DTYPES[dtype])
    except ValueError:
        return False
    return True


def taken_over(law: Distribution, source: torch.dtype, target: torch.dtype) -> Distribution:
    """The distribution of values that are copied into a tensor of another dtype.

    16-bit dtypes have float32's stream, rounded. All other values are made in their first dtype.
    """
    if source is target:
        return law
    if isinstance(law, Constant):
        return Constant(rounded("value", law.value, DTYPES[source]))
    rounds = source is torch.float32 and target in (torch.float16, torch.bfloat16)
    return law if rounds else Cast(law, DTYPES[source])


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


def region_fills(
    draws: PendingDraws, storage: torch.UntypedStorage, owners: Sequence[Owner]
) -> list[tuple[Owner, list[RegionFill]]] | None:
    """The draws of one storage as fills of its tensors; None if one of them is no region of a tensor."""
    places = {geometry(owner.tensor): owner for owner in reversed(owners)}  # the first of those with one place
    widest = sorted(places.items(), key=lambda item: -item[1].tensor.numel())
    found: dict[Path, list[RegionFill]] = {owner.path: [] for owner in places.values()}
    regions = {where: _regions(where, draw.law, widest) for where, draw in draws.items()}
    if not all(regions.values()):
        return None
    for where, draw in draws.items():
        for owner, region in regions[where]:
            draw.stream.settle(owner.path, storage, where.dtype)
            found[owner.path].append(RegionFill(region, draw.law_in(storage)))
    return [(owner, found[owner.path]) for owner in places.values() if found[owner.path]]


def _regions(
    where: Geometry, law: Distribution, places: Sequence[tuple[Geometry, Owner]]
) -> list[tuple[Owner, Region]]:
    """The regions of tensors that a draw makes: of one that holds it, or the whole of all that lie in it."""
    for place, owner in places:
        region = locate(where, place)
        if region is not None and (not law.structured or in_order(where, place, region)):
            return [(owner, region)]
    inside = sorted((place.bytes, i) for i, (place, _) in enumerate(places) if place.dense and _within(place, where))
    if law.structured or not where.dense or not inside:
        return []
    # They must lie side by side and leave nothing out: what has no name would never be drawn.
    ends = [where.bytes[0], *(last for (_, last), _ in inside)]
    if [first for (first, _), _ in inside] != ends[:-1] or ends[-1] != where.bytes[1]:
        return []
    return [(places[i][1], ()) for _, i in inside]


def _within(place: Geometry, where: Geometry) -> bool:
    (first, last), (start, end) = place.bytes, where.bytes
    return place.dtype is where.dtype and start <= first < last <= end


def under(key: Key, path: Path) -> Key:
    """The key with further names."""
    return Key(key.seed, (*key.path, *path))
