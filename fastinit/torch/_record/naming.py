"""Names for draws: a stream gets the key of the first named tensor that holds its elements; what others hold of them
are copies."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch

from fastinit._core.distributions import Distribution
from fastinit._runtime.arrays import Region, overlaps
from fastinit.torch._record.draws import Contents, Draw, Home, Origin, Part, Path, Stream, law_of, parts_of, same
from fastinit.torch._record.geometry import Geometry, apart, carried, covered, geometry, in_c_order, locate, meet

Drawn = tuple[torch.UntypedStorage, Geometry, Draw]
CANDIDATES = 4  # how many holders are tried as the first home of a stream
Later = tuple[Sequence[Geometry], int]  # the places that were written, and from which on they came later


class Owner(NamedTuple):
    """A tensor with a name, or the part of one that is in this process."""

    path: Path
    tensor: torch.Tensor
    shape: tuple[int, ...]  # of the whole
    where: Geometry  # in its storage
    place: Geometry  # where the elements are in the whole
    region: Region  # of the whole; () is all of it, and the tensor no shard


def owner(path: Path, tensor: torch.Tensor, shape: tuple[int, ...] | None = None, region: Region = ()) -> Owner:
    """A named tensor; with a shape and a region, that part of one of this shape."""
    whole = in_c_order(tuple(tensor.shape) if shape is None else shape)
    return Owner(path, tensor, whole.shape, geometry(tensor), _cut(whole, region), region)


class RegionFill(NamedTuple):
    """A distribution over a region of a tensor; () is all of it."""

    region: Region
    law: Distribution


class Holder(NamedTuple):
    """A named tensor that holds elements of a stream."""

    owner: Owner
    region: Region  # of the owner
    where: Geometry  # in the owner's storage
    view: Geometry  # which elements of the stream, in the shape of the region
    place: Geometry  # which elements of the whole tensor they are

    def home(self, draw: Draw) -> Home | None:
        """The region as a home of the stream, where it can be one."""
        path, shape, whole = self.owner.path, self.owner.shape, in_c_order(draw.stream.shape)
        if not draw.law.structured:
            injective = not overlaps(self.view.shape, self.view.strides)
            return Home(path, shape, self.view, self.place) if injective else None
        if shape == draw.stream.shape and same(self.view, self.place):
            return Home(path, shape, whole, whole)
        alone = self.view.shape == whole.shape and same(self.view, whole) and self.owner.place == in_c_order(shape)
        return Home((*path, name_of(self.region)), whole.shape, whole, whole) if alone else None


def name_of(region: Region) -> str:
    """The name in a key of a structured distribution over a region, as `Patched` gives it."""
    return f"[{', '.join(f'{s.start}:{s.stop}:{s.step}' for s in region)}]"


def hold(where: Geometry, draw: Draw, owner: Owner) -> Holder | None:
    """How a named tensor holds the draw at a place of its storage; None where it is no region of it."""
    own = owner.where
    if where == own:
        return Holder(owner, (), own, draw.view, owner.place)
    region = locate(where, own)
    if region is None:
        part = own if carried(own, where, draw.view) is not None else meet(where, own)
        region = None if part is None or 0 in part.shape else locate(part, own)
    inner = None if region is None else _cut(own, region)
    view = None if inner is None else carried(inner, where, draw.view)
    if inner is None or view is None:
        return None
    return Holder(owner, region or (), inner, view, _cut(owner.place, region or ()))


def _cut(whole: Geometry, region: Region) -> Geometry:
    if not region:
        return whole
    starts = sum(s.start * step for s, step in zip(region, whole.strides, strict=True))
    shape = tuple(len(range(s.start, s.stop, s.step)) for s in region)
    strides = tuple(s.step * step for s, step in zip(region, whole.strides, strict=True))
    return Geometry(whole.offset + starts, shape, strides, whole.dtype)


def region_fills(contents: Contents, owner: Owner) -> list[RegionFill] | None:
    """What a named tensor holds, as distributions over its regions; None where the pieces do not say it."""
    found = []
    for where, piece in contents.items():
        if apart(where, owner.where):
            continue
        holder = None if piece.draw is None else hold(where, piece.draw, owner)
        if piece.draw is None or holder is None:
            return None
        if not piece.draw.law.random:
            found.append(RegionFill(holder.region, piece.draw.law))
            continue
        for part in parts_of(holder.view, piece.draw.stream.homes):
            inside = _in_region(holder.view, part)
            assert inside is not None  # `settle` sees to it
            region, place = inside
            own = _own_key(holder, piece.draw, _within(holder.region, region))
            law = law_of(piece.draw, part._replace(place=place), own.key)
            if law.structured and not piece.draw.law.structured and own.region:  # a Cast is drawn as part of the whole
                law = law_of(piece.draw, part._replace(place=place))
            found.append(RegionFill(own.region, law))
    return found


def cover(shape: tuple[int, ...], parts: Sequence[RegionFill]) -> bool:
    """Whether regions surely make up a whole tensor."""
    whole = in_c_order(shape)
    return covered(whole, [_cut(whole, region) for region, _ in parts])


class _Own(NamedTuple):
    region: Region  # of the owner
    key: tuple[Path, Geometry]  # what a plain distribution over it is drawn with


def _own_key(holder: Holder, draw: Draw, region: Region) -> _Own:
    owner = holder.owner
    if draw.law.structured and region:
        return _Own(region, ((*owner.path, name_of(region)), in_c_order(draw.stream.shape)))
    return _Own(region, (owner.path, _cut(owner.place, region)))


def _within(outer: Region, inner: Region) -> Region:
    """A region of a region."""
    if not outer or not inner:
        return outer or inner
    return tuple(
        slice(a.start + b.start * a.step, a.start + (b.stop - 1) * a.step + 1, a.step * b.step)
        for a, b in zip(outer, inner, strict=True)
    )


def settle(
    known: Mapping[torch.UntypedStorage, Contents],
    owners: Sequence[Owner],
    drawn: Iterable[Drawn],
    origins: Mapping[torch.UntypedStorage, Origin],
) -> None:
    """Give every stream without a key its homes.

    Args:
        known: what storages hold.
        owners: the named tensors; the first that holds an element gives the name.
        drawn: the draws that were done before they had a name.
        origins: what storages were copied from. Instead of a shard its original counts: on all ranks the same.
    """
    drawn = list(drawn)
    if not drawn:
        known, owners = _settle_plain(known, owners)
    _Naming(known, owners, drawn, origins).settle()


def _settle_plain(
    known: Mapping[torch.UntypedStorage, Contents], owners: Sequence[Owner]
) -> tuple[Mapping[torch.UntypedStorage, Contents], Sequence[Owner]]:
    """Give their homes to the streams that are all of one named tensor, in memory of its own; return the rest.

    Most tensors of a model are such. No other stream can claim their names, so the order makes no difference.
    """
    if any(one.region for one in owners) or any(
        piece.draw is not None and piece.draw.stream.homes for contents in known.values() for piece in contents.values()
    ):
        return known, owners
    others, rest = dict(known), list[Owner]()
    first: dict[torch.UntypedStorage, Owner] = {}
    several = set[torch.UntypedStorage]()  # these hold tensors at several places
    for one in owners:
        if first.setdefault(one.tensor.untyped_storage(), one).where != one.where:
            several.add(one.tensor.untyped_storage())
    for one in owners:
        storage = one.tensor.untyped_storage()
        contents = known.get(storage, {})
        piece = contents.get(one.where) if len(contents) == 1 and storage not in several else None
        draw = None if piece is None else piece.draw
        if (
            draw is None
            or not draw.law.random
            or draw.stream.shape != one.shape
            or draw.view != one.place
            or not draw.stream.is_only_in(storage)
        ):
            rest.append(one)
        elif first[storage] is one:
            draw.stream.homes = (Home(one.path, one.shape, draw.view, one.place),)
            del others[storage]
    return others, rest


def _original(one: Owner, origin: Origin | None) -> tuple[Owner, Origin] | None:
    """A shard's original, as if it were all here under the shard's name."""
    part = one.where
    while one.region and origin is not None:
        found = origin.where
        if origin.local is not None and found.shape != one.shape:  # of this rank's part; the others lie around it
            place = carried(part, origin.local, found)
            if place is None or len(place.strides) != len(one.shape):
                return None
            part = place
            first = sum(s.start * step for s, step in zip(one.region, part.strides, strict=True))
            found = part._replace(offset=part.offset - first)
        if len(found.strides) != len(one.shape):
            return None
        whole = found._replace(shape=one.shape)
        if whole.offset >= 0 and whole.bytes[1] <= origin.nbytes:
            return Owner(one.path, one.tensor, one.shape, whole, in_c_order(one.shape), ()), origin
        origin = origin.before  # the original was a shard itself
    return None


class _Held(NamedTuple):
    """What one storage, or the original of a shard, holds."""

    owner: Owner
    contents: Contents


class _Naming:
    """The work of `settle`."""

    def __init__(
        self,
        known: Mapping[torch.UntypedStorage, Contents],
        owners: Sequence[Owner],
        drawn: Sequence[Drawn],
        origins: Mapping[torch.UntypedStorage, Origin],
    ) -> None:
        self.draws: dict[Stream, list[Draw]] = {}  # all that is held of each stream, whoever holds it
        self.holders: dict[Stream, list[tuple[Holder, Draw, Later]]] = {}  # by the order of the names
        self.order: dict[Stream, None] = {}  # in which the streams get their names
        # Places that have a stream's values: by name, and by when they may have been seen (None: always).
        self.claims: dict[Path, dict[int | None, list[Geometry]]] = {}
        self.named: dict[torch.UntypedStorage, list[Owner]] = {}
        held, everything = self._with_originals(known, list(_first_of_each(owners)), origins)
        for contents in everything:
            for piece in contents.values():
                if piece.draw is not None and piece.draw.law.random:
                    self.draws.setdefault(piece.draw.stream, []).append(piece.draw)
        for draws in self.draws.values():
            draws[0].stream.shared |= len(draws) > 1
        # What is seen at the end comes before what was written over, and has the better claim to the name.
        for one, contents in held:
            self.order.update(dict.fromkeys(p.draw.stream for p in reversed(contents.values()) if p.draw))
            places = list(contents)
            for number, (where, piece) in enumerate(contents.items(), 1):
                if piece.draw is not None:
                    self._note(where, piece.draw, one, (places, number))
        for storage, where, draw in drawn:
            self.draws.setdefault(draw.stream, []).append(draw)
            for one in self.named.get(storage, ()):
                over = known.get(storage, {}).get(one.where)
                if over is None or over.done:  # else nothing of the draw is left
                    self._note(where, draw, one, ([], 0))

    def _with_originals(
        self,
        known: Mapping[torch.UntypedStorage, Contents],
        owners: Sequence[Owner],
        origins: Mapping[torch.UntypedStorage, Origin],
    ) -> tuple[list[_Held], list[Contents]]:
        """What the named tensors hold, and the contents of all storages. Originals take the place of shards."""
        held, shards = list[_Held](), dict[Path, Contents]()
        originals: dict[torch.UntypedStorage, list[Owner]] = {}
        for one in owners:
            storage = one.tensor.untyped_storage()
            self.named.setdefault(storage, []).append(one)
            found = _original(one, origins.get(storage))
            if found is None:
                held.append(_Held(one, known.get(storage, {})))
            elif one.path not in shards:  # parts of one tensor have one original
                original, origin = found
                shards[one.path] = origin.contents
                held.append(_Held(original, origin.contents))
                if origin.storage is not None and (of := origin.storage()) is not None:
                    originals.setdefault(of, []).append(original)
        # Originals count once: as shards, unless they have names of their own.
        replaced = {one.tensor.untyped_storage() for one in owners if one.path in shards} | (
            originals.keys() - self.named
        )
        for storage, ones in originals.items():
            self.named.setdefault(storage, []).extend(ones)
        return held, [*(contents for storage, contents in known.items() if storage not in replaced), *shards.values()]

    def _note(self, where: Geometry, draw: Draw, one: Owner, later: Later) -> None:
        """Note what a named tensor holds of a stream, and what came to lie over it later."""
        holder = hold(where, draw, one) if draw.law.random else None
        if holder is not None:
            self.holders.setdefault(draw.stream, []).append((holder, draw, later))

    def settle(self) -> None:
        streams = [stream for stream in dict.fromkeys((*self.order, *self.draws)) if stream in self.draws]
        for stream in sorted(streams, key=lambda stream: not stream.homes):  # those that have their key keep it
            stream.homes = stream.homes or self._named(stream) or stream.homes_now
            for home in stream.homes:
                self.claims.setdefault(home.path, {}).setdefault(stream.told, []).append(home.place)

    def _named(self, stream: Stream) -> tuple[Home, ...]:
        """The homes of a stream; none where no name can be given to all that is held of it."""
        return next((homes for homes in self._candidates(stream) if self._possible(stream, homes)), ())

    def _candidates(self, stream: Stream) -> Iterator[tuple[Home, ...]]:
        """Every holder for the elements that no earlier one has, whichever is the first; or one for all elements."""
        holders = self.holders.get(stream, [])
        if len(holders) > 1:  # those that are seen in the end
            holders = [one for one in holders if not _hidden(one[0].where, *one[2])]
        for first in range(min(len(holders), CANDIDATES)):
            homes: tuple[Home, ...] = ()
            for holder, draw, _ in (*holders[first:], *holders[:first]):
                home = None if parts_of(holder.view, homes) else holder.home(draw)
                if home is not None and all(_compatible(home, other) for other in homes):
                    homes = (*homes, home)
            if homes:
                yield homes
        for holder, draw, _ in holders[:CANDIDATES]:
            shift = holder.place.offset - holder.view.offset
            axes = zip(holder.place.strides, holder.view.strides, holder.view.shape, strict=True)
            if not draw.law.structured and shift >= 0 and all(a == b for a, b, n in axes if n > 1):
                whole = in_c_order(stream.shape)
                end = whole.bytes[1] + shift
                yield (Home(holder.owner.path, (end,), whole, whole._replace(offset=shift)),)

    def _possible(self, stream: Stream, homes: tuple[Home, ...]) -> bool:
        """Whether all that is held has a home, and no other stream the same elements of the same name. (Those that were
        drawn together, and not copied, nobody can have told from each other.)"""
        if not all(parts_of(draw.view, homes) for draw in self.draws[stream]):
            return False
        if not all(_has_regions(holder.view, homes) for holder, _, _ in self.holders.get(stream, ())):
            return False
        return all(
            apart(home.place, place)
            for home in homes
            for told, places in self.claims.get(home.path, {}).items()
            for place in (places if None in (told, stream.told) or told != stream.told else ())
        )


def _has_regions(view: Geometry, homes: tuple[Home, ...]) -> bool:
    """Whether homes have all elements of a view, each those of a region of it."""
    parts = parts_of(view, homes)
    return bool(parts) and all(_in_region(view, part) is not None for part in parts)


def _in_region(view: Geometry, part: Part) -> tuple[Region, Geometry] | None:
    """Which region of a view a part of it is, and where that region's elements are in the part's home."""
    region = locate(part.view, view)
    place = None if region is None else carried(_cut(view, region), part.home.view, part.home.place)
    return None if region is None or place is None else (region, place)


def _hidden(where: Geometry, places: Sequence[Geometry], first: int) -> bool:
    """Whether one of the places from the first on lies over all of a tensor."""
    return any(carried(where, over, over) for over in itertools.islice(places, first, None))


def _compatible(a: Home, b: Home) -> bool:
    """Whether two homes of a stream have neither elements nor places in common."""
    return apart(a.view, b.view) and (a.path != b.path or apart(a.place, b.place))


def _first_of_each(owners: Sequence[Owner]) -> Iterator[Owner]:
    """The first of the tensors that are the same memory."""
    seen = set()
    for one in owners:
        place = (one.tensor.untyped_storage(), one.where)
        if (one.tensor.numel() or one.region) and place not in seen:
            seen.add(place)
            yield one
