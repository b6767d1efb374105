"""Which region of a tensor a view of it is: against the elements themselves, over random views."""

import random

import torch

from fastinit.torch._record.geometry import (
    Geometry,
    apart,
    carried,
    covered,
    geometry,
    in_c_order,
    locate,
    meet,
)


def elements(place):
    found = [place.offset]
    for size, stride in zip(place.shape, place.strides, strict=True):
        found = [offset + i * stride for offset in found for i in range(size)]
    return found


def some_view(chance, tensor):
    axis = chance.randrange(tensor.dim()) if tensor.dim() else None
    if axis is None:
        return tensor
    size = tensor.shape[axis]
    match chance.randrange(6):
        case 0:
            return tensor.select(axis, chance.randrange(size))
        case 1:
            return tensor[(slice(None),) * axis + (slice(chance.randrange(size), None, chance.randint(1, 3)),)]
        case 2:
            return tensor.transpose(axis, chance.randrange(tensor.dim()))
        case 3:
            return tensor.view(-1) if tensor.is_contiguous() else tensor
        case 4:
            return tensor.narrow(axis, 0, chance.randint(1, size))
        case _:
            return tensor.unsqueeze(axis)


def test_random_views():
    chance, found, ordered = random.Random(0), 0, 0
    for _ in range(4000):
        whole = torch.empty([chance.randint(1, 5) for _ in range(chance.randint(0, 4))])
        whole = whole.permute(chance.sample(range(whole.dim()), whole.dim()))
        part = whole
        for _ in range(chance.randint(0, 3)):
            part = some_view(chance, part)
        region = locate(geometry(part), geometry(whole))
        if region is None:
            continue
        found += 1
        taken = whole[region] if region else whole
        assert sorted(elements(geometry(taken))) == sorted(elements(geometry(part)))
        if (taken.shape, taken.stride()) == (part.shape, part.stride()):
            ordered += 1
            assert elements(geometry(taken)) == elements(geometry(part))
    assert found > 3900
    assert ordered > 1500


def test_what_is_no_region():
    square = torch.empty(6, 6)
    for view in (square.diagonal(), square.view(torch.int32), torch.empty(3), square[2:].view(-1)[3:9]):
        assert locate(geometry(view), geometry(square[1:, :4])) is None


def test_density_and_overlap():
    base = torch.empty(4, 6)
    cases = {
        base: (True, False),
        base.T: (True, False),
        base[:, ::2]: (False, False),
        base[0].expand(3, 6): (False, True),
    }
    for tensor, (dense, overlaps) in cases.items():
        assert (geometry(tensor).dense, geometry(tensor).overlaps) == (dense, overlaps)
    assert geometry(base).covers(96)
    assert not geometry(base[1:]).covers(96)
    assert geometry(base[1:]).bytes == (24, 96)
    assert Geometry(0, (), (), torch.float64).covers(8)


def random_part(chance, whole):
    for _ in range(chance.randint(0, 3)):
        whole = some_view(chance, whole)
    return whole


def random_whole(chance):
    whole = torch.empty([chance.randint(1, 5) for _ in range(chance.randint(0, 4))])
    return whole.permute(chance.sample(range(whole.dim()), whole.dim()))


def test_views_carried_to_a_second_memory():
    """Element by element: where the first memory has it, and where the second."""
    chance, found = random.Random(1), 0
    for _ in range(4000):
        whole = random_whole(chance)
        inner, part = random_part(chance, whole), random_part(chance, whole)
        place = in_c_order(tuple(inner.shape), chance.randrange(3))
        if chance.random() < 0.3:  # any other memory, with gaps and another order
            order = chance.sample(range(inner.dim()), inner.dim())
            strides = torch.empty([2 * inner.shape[axis] for axis in order]).stride()
            place = place._replace(strides=tuple(strides[order.index(axis)] for axis in range(inner.dim())))
        seen = carried(geometry(part), geometry(inner), place)
        there = dict(zip(elements(geometry(inner)), elements(place), strict=True))
        own = elements(geometry(part))
        if seen is not None:
            found += 1
            assert elements(seen) == [there[element] for element in own]
        elif set(own) <= set(there):  # what is missed has no strides in the second memory, or runs over its axes
            assert part.dim() < inner.dim() or not part.is_contiguous() or not inner.is_contiguous()
    assert found > 1500


def test_what_two_views_have_in_common():
    chance, found, empty = random.Random(2), 0, 0
    for _ in range(4000):
        whole = random_whole(chance)
        a, b = geometry(random_part(chance, whole)), geometry(random_part(chance, whole))
        shared = set(elements(a)) & set(elements(b))
        both = meet(a, b)
        if both is not None:
            found += 1
            assert sorted(elements(both)) == sorted(shared)
        if apart(a, b):
            empty += 1
            assert not shared
    assert found > 3000
    assert empty > 150


def test_parts_that_make_up_a_whole():
    base = torch.empty(4, 6)
    whole = geometry(base)
    for parts, expected in (
        ([base[:1], base[1:]], True),
        ([base[:, ::2], base[:, 1::2]], True),
        ([base.T], True),
        ([base[:3], base[1:]], False),  # it is not sure, though they do
        ([base[:1], base[2:]], False),
        ([base[:2, :3], base[:2, 3:], base[2:]], True),
    ):
        assert covered(whole, [geometry(part) for part in parts]) is expected
