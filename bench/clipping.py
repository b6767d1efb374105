"""The contenders of clipping by the global norm, work by library: one array, six, and a model's many mixed ones.

Every entry takes prepared arrays and returns a call that clips them once, in the way the library's own documentation
shows. "Not clipping" only reads; where it clips, each call's limit is a little below the norm that the last one left.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

import fastinit as fi
from bench import limits
from bench.fills import Memory, memory, tensor_of
from bench.turns import Call

Limits = Iterator[float]
Prepare = Callable[[list[np.ndarray], Limits], Call]

COUNT = 1000  # arrays of "many"
FEW = 6  # of "few": the weights and biases of a small network
SPREAD = 1 << 14  # the largest of them by the smallest
DTYPE = np.float32
VALUE = 0.5  # of every element


def one(memory: Memory, elements: int) -> list[np.ndarray]:
    x = memory.view(DTYPE, (elements,))
    x[...] = VALUE
    return [x]


def many(memory: Memory, elements: int) -> list[np.ndarray]:
    """Return COUNT arrays whose sizes are spread evenly on a logarithmic scale, largest first."""
    sizes = sizes_of_many(elements)
    (x,) = one(memory, int(sizes.sum()))
    return np.split(x, np.cumsum(sizes)[:-1])


def small(memory: Memory, elements: int) -> list[np.ndarray]:
    """Return COUNT arrays of the same size, or nearly."""
    return np.array_split(one(memory, elements)[0], COUNT)


def few(memory: Memory, elements: int) -> list[np.ndarray]:
    """Return FEW arrays of the same size, or nearly."""
    return np.array_split(one(memory, elements)[0], FEW)


def sizes_of_many(elements: int) -> np.ndarray:
    """Return COUNT sizes, of `elements` in all (a little more where these are few)."""
    sizes = np.geomspace(1, SPREAD, COUNT)
    return np.maximum(1, sizes * (elements / sizes.sum())).astype(int)[::-1]


def never(arrays: list[np.ndarray]) -> Limits:
    """Limits that no norm exceeds."""
    return itertools.repeat(1e30)


def always(arrays: list[np.ndarray]) -> Limits:
    """Limits that the norm exceeds at every call, and no element becomes subnormal in ten thousand calls."""
    return falling(VALUE * math.sqrt(sum(x.size for x in arrays)))


def falling(norm: float) -> Limits:
    """Return limits of which each is a little below the norm that clipping by the last one leaves."""
    return (norm * (1 - 2**-10) ** power for power in itertools.count(1))


def _fastinit(arrays: list[np.ndarray], bounds: Limits) -> Call:
    return lambda: fi.clip_by_global_norm(arrays, next(bounds))


def _numpy(arrays: list[np.ndarray], bounds: Limits) -> Call:
    def call() -> None:
        limit = next(bounds)
        norm = math.sqrt(sum(float(np.dot(x, x)) for x in arrays))
        if norm > limit:
            for x in arrays:
                x *= DTYPE(limit / norm)

    return call


def _torch(arrays: list[np.ndarray], bounds: Limits) -> Call:
    import torch

    parameters = [torch.nn.Parameter(tensor_of(x)) for x in arrays]
    for parameter in parameters:
        parameter.grad = parameter.data  # the gradient alone is read and written
    return lambda: torch.nn.utils.clip_grad_norm_(parameters, next(bounds))


def _dot(arrays: list[np.ndarray], bounds: Limits) -> Call:
    """One read of the memory, by BLAS on its own threads: what a norm can take at best."""
    return lambda: [np.dot(x, x) for x in arrays]


LIBRARIES: dict[str, Prepare] = {"fastinit": _fastinit, "numpy": _numpy, "torch": _torch}


@dataclass(frozen=True)
class ClipWork:
    """Which arrays are clipped by which limits, at which sizes, by which libraries."""

    title: str
    arrays: Callable[[Memory, int], list[np.ndarray]]
    limits: Callable[[list[np.ndarray]], Limits]
    exponents: tuple[int, ...]  # log2 of the elements, about
    libraries: dict[str, Prepare] = field(default_factory=lambda: LIBRARIES)


WORKS = {
    "clip_none_one": ClipWork("global norm, not clipping, float32", one, never, (14, 20, 24, 26)),
    "clip_one": ClipWork("global norm, clipping, float32", one, always, (14, 20, 24, 26)),
    "clip_none_few": ClipWork("global norm of 6 arrays, not clipping, float32", few, never, (8, 14)),
    "clip_few": ClipWork("global norm of 6 arrays, clipping, float32", few, always, (8, 14)),
    "clip_none_many": ClipWork("global norm of 1,000 arrays, not clipping, float32", many, never, (14, 18, 20, 22, 24)),
    "clip_many": ClipWork("global norm of 1,000 arrays, clipping, float32", many, always, (14, 18, 20, 22, 24)),
    "clip_none_small": ClipWork("global norm of 1,000 equal arrays, not clipping, float32", small, never, (14, 20)),
    "clip_small": ClipWork("global norm of 1,000 equal arrays, clipping, float32", small, always, (14, 20)),
    "dot": ClipWork("one read (np.dot), float32", one, never, (14, 20, 24, 26), {"numpy": _dot}),
}


def elements(work: str, exponent: int) -> int:
    """Return the number of elements of a work's arrays."""
    return int(sizes_of_many(1 << exponent).sum()) if WORKS[work].arrays is many else 1 << exponent


def passed(work: str, exponent: int) -> Call:
    """Return the call that passes over as much memory as a work, as often, and does nothing else."""
    about = WORKS[work]
    (x,) = about.arrays(memory(), 1 << exponent)
    return limits.passes(x, write=about.limits is always)


def prepared(work: str, library: str, exponent: int) -> Call:
    """Return the call of a work by a library, on arrays of its own."""
    about = WORKS[work]
    arrays = about.arrays(memory(), 1 << exponent)
    return about.libraries[library](arrays, about.limits(arrays))
