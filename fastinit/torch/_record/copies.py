"""Copies of draws: which draws a copy holds, and what other operators that only move data copy where."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from fastinit.torch._record.draws import Contents, Draw
from fastinit.torch._record.geometry import Geometry, apart, carried, covered, extent, meet
from fastinit.torch._record.operators import Operator, aten

Copies = list[tuple[Geometry, Draw]]


def copied(contents: Contents, source: Geometry, target: Geometry) -> Copies | None:
    """The draws that a tensor holds, at their places in a tensor of the same shape; None where not all of its elements
    are known."""
    repeated = [axis for axis, (n, step) in enumerate(zip(source.shape, source.strides, strict=True)) if n > 1 > step]
    if repeated:  # an expanded tensor: every element stands in several places
        once = copied(contents, _without(source, repeated), _without(target, repeated))
        sizes, steps = [source.shape[axis] for axis in repeated], [target.strides[axis] for axis in repeated]
        nothing = [0] * len(repeated)
        return once and [
            (_with(place, sizes, steps), draw._replace(view=_with(draw.view, sizes, nothing))) for place, draw in once
        ]
    found: list[tuple[Geometry, Draw | None]] = []
    first, last = source.bytes
    for where, piece in contents.items():
        start, end = extent(where)
        if end <= first or last <= start:
            continue
        view = carried(source, where, piece.draw.view if piece.draw is not None else where)
        if view is not None:  # all of the tensor lies in this piece
            found = [(target, piece.draw._replace(view=view) if piece.draw is not None else None)]
        elif not apart(where, source):
            part = where if carried(where, source, target) is not None else meet(where, source)
            place = None if part is None else carried(part, source, target)
            view = carried(part, where, piece.draw.view if piece.draw is not None else where) if part else None
            if place is None or view is None:
                return None
            found.append((place, piece.draw._replace(view=view) if piece.draw is not None else None))
    draws = [(place, draw) for place, draw in found if draw is not None]
    return draws if len(draws) == len(found) and covered(target, [place for place, _ in draws]) else None


def _without(view: Geometry, axes: Sequence[int]) -> Geometry:
    kept = [axis for axis in range(len(view.shape)) if axis not in axes]
    return view._replace(shape=tuple(view.shape[a] for a in kept), strides=tuple(view.strides[a] for a in kept))


def _with(view: Geometry, sizes: Sequence[int], strides: Sequence[int]) -> Geometry:
    return view._replace(shape=(*sizes, *view.shape), strides=(*strides, *view.strides))


def pairs(
    func: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], out: torch.Tensor
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(target, source) of the copies that an operator of `ASSEMBLED` makes, in the memory of its result."""
    if func is aten.repeat.default:
        source, repeats = args[0], args[1]
        shape = (1,) * (len(repeats) - source.dim()) + tuple(source.shape)
        # Axes (repeat, size, repeat, size, ...): the source stands in every repeat.
        target = out.view([n for pair in zip(repeats, shape, strict=True) for n in pair])
        return [(target, source.view([n for size in shape for n in (1, size)]).expand(target.shape))]
    tensors, axis = args[0], args[1] if len(args) > 1 else kwargs.get("dim", 0)
    if func is aten.stack.default:
        return list(zip(out.unbind(axis), tensors, strict=True))
    return list(zip(out.split([tensor.shape[axis] for tensor in tensors], axis), tensors, strict=True))


ASSEMBLED = {aten.cat.default, aten.stack.default, aten.repeat.default}


def sources(func: Operator, args: tuple[Any, ...]) -> Sequence[torch.Tensor]:
    """The tensors that an operator of `ASSEMBLED` reads."""
    tensors: Sequence[torch.Tensor] = args[:1] if func is aten.repeat.default else args[0]
    return tensors


def size_of(func: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Size:
    """The shape of the result of an operator of `ASSEMBLED`."""
    tensors = [tensor.detach().to("meta") for tensor in sources(func, args)]
    first = tensors[0] if func is aten.repeat.default else tensors
    made: torch.Tensor = func(first, *args[1:], **kwargs)
    return made.shape if math.prod(made.shape) else torch.Size()
