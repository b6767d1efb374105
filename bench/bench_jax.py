"""The JAX face against `jax.nn.initializers`: JAX eager, JAX compiled, fastinit eager and inside `jit`."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

SIDES = (8, 128, 1024, 4096)
ORTHOGONAL_SIDES = (128, 1024)
DTYPES = {"he_normal": "float32", "uniform": "float32", "he_normal, bfloat16": "bfloat16", "orthogonal": "float32"}
CONTENDERS = ("fastinit", "fastinit in jit", "jax", "jax in jit")


def _cells() -> list[Any]:
    return [
        pytest.param(work, (side, side), contender, id=f"{work}-{side}x{side}-{contender}")
        for work in DTYPES
        for side in (ORTHOGONAL_SIDES if work == "orthogonal" else SIDES)
        for contender in CONTENDERS
    ]


def _prepared(work: str, shape: tuple[int, int], contender: str) -> Callable[[], object]:
    """A call that makes one array; every call gets another key, so that nothing is remembered."""
    import jax

    if contender.startswith("fastinit"):
        import fastinit.jax as library
    else:
        import jax.nn.initializers as library  # type: ignore[no-redef]
    init = getattr(library, work.partition(",")[0])(dtype=DTYPES[work])
    make = jax.jit(lambda key: init(key, shape)) if contender.endswith("in jit") else lambda key: init(key, shape)
    keys = itertools.cycle(list(jax.random.split(jax.random.key(0), 64)))
    return lambda: jax.block_until_ready(make(next(keys)))


@pytest.mark.parametrize(("work", "shape", "contender"), _cells())
def bench_jax(measure: Callable[..., None], work: str, shape: tuple[int, int], contender: str) -> None:
    measure(
        _prepared(work, shape, contender),
        group=f"jax: {work} {shape[0]}x{shape[1]}",
        face="JAX",
        title=f"`{work.partition(',')[0]}`, {DTYPES[work]}",
        size=f"{shape[0]}x{shape[1]}",
        library=contender,
    )
