"""fastinit's adapters against the functions of the frameworks: initializers of PyTorch, JAX and Keras, and clipping."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.clipping import falling
from bench.turns import Call

Shape = tuple[int, int]

CONTENDERS = {
    "torch": ("fastinit", "torch"),
    "JAX": ("fastinit", "fastinit_jit", "jax", "jax_jit"),
    "Keras": ("fastinit", "keras"),
}


@dataclass(frozen=True)
class Work:
    """A function of a framework that fills a tensor of a dtype."""

    framework: str
    name: str
    dtype: str = "float32"

    @property
    def libraries(self) -> tuple[str, ...]:
        """The contenders. PyTorch has no orthogonal matrices of bfloat16."""
        names = CONTENDERS[self.framework]
        return names[:1] if (self.name, self.dtype) == ("orthogonal_", "bfloat16") else names


SIDES: dict[Work, tuple[int, ...]] = {
    **{
        Work("torch", name, dtype): sides
        for name, sides in {
            "normal_": (64, 2048, 4096),
            "uniform_": (64, 2048, 4096),
            "kaiming_uniform_": (64, 2048, 4096),
            "trunc_normal_": (64, 2048),
            "orthogonal_": (64, 2048),
        }.items()
        for dtype in ("float32", "bfloat16")
    },
    Work("JAX", "he_normal"): (8, 128, 1024, 4096),
    Work("JAX", "he_normal", "bfloat16"): (8, 128, 1024, 4096),
    Work("JAX", "uniform"): (8, 128, 1024, 4096),
    Work("JAX", "orthogonal"): (128, 1024),
    Work("Keras", "HeNormal"): (128, 1024, 4096),
    Work("Keras", "TruncatedNormal"): (128, 1024, 4096),
    Work("Keras", "RandomUniform"): (128, 1024, 4096),
    Work("Keras", "Orthogonal"): (128, 1024),
}
WORKS: dict[Work, list[Shape]] = {work: [(side, side) for side in sides] for work, sides in SIDES.items()}
SHOWN = {  # in the short run
    ("torch", "normal_", (64, 64)),
    ("torch", "normal_", (4096, 4096)),
    ("torch", "trunc_normal_", (2048, 2048)),
    ("JAX", "he_normal", (4096, 4096)),
    ("Keras", "HeNormal", (1024, 1024)),
}


def prepared(work: Work, library: str, shape: Shape) -> Call:
    """Return a call that fills, or makes, one tensor."""
    return {"torch": _torch, "JAX": _jax, "Keras": _keras}[work.framework](work, library, shape)


def _torch(work: Work, library: str, shape: Shape) -> Call:
    import torch

    import fastinit.torch

    weight = torch.nn.Parameter(torch.zeros(shape, dtype=getattr(torch, work.dtype)))
    function = getattr(fastinit.torch if library == "fastinit" else torch.nn.init, work.name)
    return lambda: function(weight)


def _jax(work: Work, library: str, shape: Shape) -> Call:
    """Every call gets another key, so that nothing is remembered."""
    import jax

    import fastinit.jax

    functions = fastinit.jax if library.startswith("fastinit") else jax.nn.initializers
    init = getattr(functions, work.name)(dtype=work.dtype)
    make = jax.jit(lambda key: init(key, shape)) if library.endswith("jit") else lambda key: init(key, shape)
    keys = itertools.cycle(list(jax.random.split(jax.random.key(0), 64)))
    return lambda: jax.block_until_ready(make(next(keys)))


def _keras(work: Work, library: str, shape: Shape) -> Call:
    """Keras takes its backend from the environment when it is imported."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    import fastinit.keras

    functions = fastinit.keras if library == "fastinit" else keras.initializers
    initializer = getattr(functions, work.name)(seed=0)
    return lambda: initializer(shape)


# --- clipping of a model's gradients ---


def gpt2(width: int, words: int, places: int, blocks: int = 12) -> list[tuple[int, ...]]:
    """Return the shapes of GPT-2's parameters: 148 with 12 blocks."""
    inner = [(width, 3 * width), (3 * width,), (width, width), (width,)]
    outer = [(width, 4 * width), (4 * width,), (4 * width, width), (width,)]
    norm = [(width,), (width,)]
    return [(words, width), (places, width), *(norm + inner + norm + outer) * blocks, *norm]


GRADIENTS: dict[str, list[tuple[int, ...]]] = {
    "6 arrays of 64x64": [(64, 64)] * 6,
    "148 arrays of a narrow GPT-2": gpt2(8, 64, 16),
    "GPT-2 small": gpt2(768, 50257, 1024),
}
CLIPPERS = ("fastinit", "torch", "torch_loop")


def clipped(library: str, model: str, dtype: str, clips: bool) -> Call:
    """Return a call of `clip_grad_norm_`; where it clips, the limit is a little below the norm the last one left."""
    import torch

    import fastinit.torch

    parameters = [torch.nn.Parameter(torch.zeros(shape, dtype=getattr(torch, dtype))) for shape in GRADIENTS[model]]
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 0.5)
    functions: Any = fastinit.torch if library == "fastinit" else torch.nn.utils
    foreach = False if library == "torch_loop" else None
    norm = 0.5 * math.sqrt(sum(parameter.numel() for parameter in parameters))
    limit = falling(norm) if clips else itertools.repeat(1e30)
    call: Callable[..., object] = functions.clip_grad_norm_
    return lambda: call(parameters, next(limit), foreach=foreach)
