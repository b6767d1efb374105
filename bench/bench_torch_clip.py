"""Clipping of a model's gradients: `fastinit.torch` and `torch.nn.utils`, all of GPT-2 small and of a very small model.

"Clipping" has at each call a limit a little below the norm that the last one left.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
import torch

import fastinit.torch as ft

LIBRARIES = {
    "fastinit": (ft.clip_grad_norm_, None),
    "torch": (torch.nn.utils.clip_grad_norm_, None),
    "torch, foreach": (torch.nn.utils.clip_grad_norm_, True),
    "torch, no foreach": (torch.nn.utils.clip_grad_norm_, False),
}


def gpt2(width: int, words: int, places: int, blocks: int = 12) -> list[tuple[int, ...]]:
    """The shapes of GPT-2's parameters: 148 with 12 blocks."""
    inner = [(width, 3 * width), (3 * width,), (width, width), (width,)]
    outer = [(width, 4 * width), (4 * width,), (4 * width, width), (width,)]
    norm = [(width,), (width,)]
    return [(words, width), (places, width), *(norm + inner + norm + outer) * blocks, *norm]


MODELS = {
    "6 arrays of 64x64": [(64, 64)] * 6,
    "148 arrays of a narrow GPT-2": gpt2(8, 64, 16),
    "GPT-2 small": gpt2(768, 50257, 1024),
}


def limits(clipping: bool, norm: float) -> Iterator[float]:
    return (norm * (1 - 2**-10) ** power for power in itertools.count(1)) if clipping else itertools.repeat(1e30)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("clipping", [False, True], ids=["not clipping", "clipping"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "model", [pytest.param(name, marks=pytest.mark.large if "small" in name else ()) for name in MODELS]
)
def bench_clip_grad_norm(
    measure: Callable[..., None], model: str, dtype: torch.dtype, clipping: bool, library: str
) -> None:
    parameters = [torch.nn.Parameter(torch.zeros(shape, dtype=dtype)) for shape in MODELS[model]]
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 0.5)
    call, foreach = LIBRARIES[library]
    word = str(dtype).removeprefix("torch.")
    elements = sum(parameter.numel() for parameter in parameters)
    limit = limits(clipping, 0.5 * elements**0.5)
    measure(
        lambda: call(parameters, next(limit), foreach=foreach),
        group=f"clip_grad_norm_ of {model}, {dtype}, {'clipping' if clipping else 'not clipping'}",
        face="torch",
        title=f"`clip_grad_norm_`, {'clipping' if clipping else 'not clipping'}, {word}",
        size=model,
        library=library,
    )
