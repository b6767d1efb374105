"""The twin of torch.nn.init against torch.nn.init: large tensors, and one small one, where the call itself counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import fastinit.torch

LIBRARIES = {"fastinit": fastinit.torch, "torch": torch.nn.init}
SMALL = (64, 64)
# Where torch takes seconds, the smallest shape is enough.
SHAPES: dict[str, tuple[tuple[int, int], ...]] = {
    "normal_": (SMALL, (2048, 2048), (4096, 4096)),
    "uniform_": (SMALL, (2048, 2048), (4096, 4096)),
    "kaiming_uniform_": (SMALL, (2048, 2048), (4096, 4096)),
    "trunc_normal_": (SMALL, (2048, 2048)),
    "orthogonal_": (SMALL, (2048, 2048)),
}
DTYPES = (torch.float32, torch.bfloat16)


def _cells() -> Iterator[Any]:
    for name, shapes in SHAPES.items():
        for shape in shapes:
            for dtype in DTYPES:
                for library in LIBRARIES:
                    if name == "orthogonal_" and dtype is torch.bfloat16 and library == "torch":
                        continue  # it has none
                    word = str(dtype).removeprefix("torch.")
                    yield pytest.param(name, shape, dtype, library, id=f"{name}-{shape[0]}-{word}-{library}")


@pytest.mark.parametrize(("name", "shape", "dtype", "library"), list(_cells()))
def bench_torch_init(
    measure: Callable[..., None], name: str, shape: tuple[int, int], dtype: torch.dtype, library: str
) -> None:
    weight = torch.nn.Parameter(torch.zeros(shape, dtype=dtype))
    function = getattr(LIBRARIES[library], name)
    word = str(dtype).removeprefix("torch.")
    size = "x".join(map(str, shape))
    measure(
        lambda: function(weight),
        group=f"torch.nn.init.{name} {word} {size}",
        most=20,
        face="torch",
        title=f"`{name}`, {word}",
        size=size,
        library=library,
    )
