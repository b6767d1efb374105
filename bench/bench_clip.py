"""Elements per second of clipping by the global norm: one array and many, where it clips and where it need not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bench.clipping import DTYPE, WORKS
from bench.libraries import Memory


def _cells() -> Iterator[Any]:
    for work, row in WORKS.items():
        for exponent in row.exponents:
            for library in row.libraries:
                yield pytest.param(work, (1 << exponent,), library, id=f"{work}-{1 << exponent}-{library}")


@pytest.mark.parametrize(("work", "shape", "library"), list(_cells()))
def bench_clip(measure: Callable[..., None], memory: Memory, work: str, library: str, shape: tuple[int]) -> None:
    row = WORKS[work]
    arrays = row.arrays(memory, *shape)
    elements = sum(x.size for x in arrays)
    measure(
        row.libraries[library](arrays, row.limits(arrays)),
        group=f"{row.title} {elements}",
        work=work,
        title=row.title,
        library=library,
        dtype=DTYPE.__name__,
        elements=elements,
    )
