"""Orthogonal matrices, square and tall, by library."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.libraries import LIBRARIES, WORKS

SQUARES = [("orthogonal", (side, side)) for side in (128, 256, 1024, 2048)]
TALL = [("orthogonal_tall", (4096, 512))]


@pytest.mark.parametrize("library", [name for name in LIBRARIES if getattr(WORKS["orthogonal"], name)])
@pytest.mark.parametrize(
    ("work", "shape"), SQUARES + TALL, ids=lambda value: value if isinstance(value, str) else "{}x{}".format(*value)
)
def bench_orthogonal(measure_cell: Callable[..., None], work: str, library: str, shape: tuple[int, int]) -> None:
    measure_cell(work, library, shape)
