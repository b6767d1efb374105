"""Elements per second: every work of the table, by library and size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bench.libraries import LIBRARIES, WORKS

EXPONENTS = range(6, 27, 2)


def _cells() -> Iterator[Any]:
    for work, row in WORKS.items():
        if work.startswith("orthogonal"):
            continue
        for exponent in EXPONENTS:
            for library in LIBRARIES:
                if getattr(row, library) and row.size(library, exponent) == exponent:
                    yield pytest.param(work, (1 << exponent,), library, id=f"{work}-{1 << exponent}-{library}")


@pytest.mark.parametrize(("work", "shape", "library"), list(_cells()))
def bench_fill(measure_cell: Callable[..., None], work: str, library: str, shape: tuple[int]) -> None:
    measure_cell(work, library, shape)
