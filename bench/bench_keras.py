"""A weight of a Keras layer, drawn by fastinit and by Keras itself, on the backend of this process."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

NAMES = ("HeNormal", "TruncatedNormal", "RandomUniform")
SIDES = (128, 1024, 4096)
CELLS = [(name, (side, side)) for name in NAMES for side in SIDES]
CELLS += [("Orthogonal", (side, side)) for side in (128, 1024)]


def initializers(library: str) -> Any:
    """The module of a library's initializers. Keras takes its backend from the environment when it is imported."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    if library == "fastinit":
        import fastinit.keras

        return fastinit.keras
    import keras

    return keras.initializers


def finished(tensor: Any) -> Any:
    """A tensor whose values are there: JAX returns before they are."""
    return tensor.block_until_ready() if hasattr(tensor, "block_until_ready") else tensor


@pytest.mark.parametrize("library", ["fastinit", "keras"])
@pytest.mark.parametrize(("name", "shape"), CELLS, ids=lambda x: x if isinstance(x, str) else "{}x{}".format(*x))
def bench_keras(measure: Callable[..., None], name: str, shape: tuple[int, int], library: str) -> None:
    initializer = getattr(initializers(library), name)(seed=0)
    size = "{}x{}".format(*shape)
    measure(
        lambda: finished(initializer(shape)),
        group=f"keras: {name} {size}",
        face="Keras on torch",
        title=f"`{name}`",
        size=size,
        library=library,
    )
