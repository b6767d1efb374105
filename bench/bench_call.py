"""What a call costs before the first value is made: 64 elements, in microseconds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import fastinit as fi
from bench.libraries import SEEDS, Call, Memory, prepared

SHAPE = (8, 8)


def _fill(memory: Memory) -> Call:
    return prepared("normal", "fastinit", memory, SHAPE)


def _he_normal(memory: Memory) -> Call:
    return lambda: fi.he_normal(SHAPE, seed=next(SEEDS))


def _key(memory: Memory) -> Call:
    return lambda: (fi.Key(next(SEEDS)) / "layers.0.weight").words()


def _numpy_fill(memory: Memory) -> Call:
    return prepared("normal", "numpy", memory, SHAPE)


def _numpy_he_normal(memory: Memory) -> Call:
    rng, std = np.random.default_rng(), np.float32((2 / SHAPE[1]) ** 0.5)
    return lambda: std * rng.standard_normal(SHAPE, dtype=np.float32)


def _torch_fill(memory: Memory) -> Call:
    return prepared("normal", "torch", memory, SHAPE)


def _torch_he_normal(memory: Memory) -> Call:
    import torch

    return lambda: torch.nn.init.kaiming_normal_(torch.empty(SHAPE))


CALLS: dict[str, dict[str, Callable[[Memory], Call]]] = {
    "normal into a buffer": {"fastinit": _fill, "numpy": _numpy_fill, "torch": _torch_fill},
    "he_normal of a new array": {"fastinit": _he_normal, "numpy": _numpy_he_normal, "torch": _torch_he_normal},
    "key from a seed and a name": {"fastinit": _key},
}


@pytest.mark.parametrize(
    ("title", "library"), [(title, library) for title, libraries in CALLS.items() for library in libraries]
)
def bench_call(measure: Callable[..., None], memory: Memory, title: str, library: str) -> None:
    measure(CALLS[title][library](memory), group=f"call: {title}", title=title, library=library)
