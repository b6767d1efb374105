"""Whole constructors under `fast_init`, plain, and recorded."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.construction import CONTENDERS, LARGE, MODELS, under


@pytest.mark.large
@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("name", MODELS)
def bench_construct(measure: Callable[..., None], name: str, contender: str) -> None:
    model = MODELS[name]
    measure(
        under(contender, model.builder()),
        group=f"from_config of {model.title}",
        most=3,
        face="torch",
        title="`fast_init`",
        size=model.title,
        library=contender,
    )


def bench_construct_small(measure: Callable[..., None]) -> None:
    """A small module, where the block itself counts."""
    import torch

    build = lambda: torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.LayerNorm(64))  # noqa: E731
    measure(under("fastinit", build), group="construction of a small module", library="fastinit")


def bench_record(measure: Callable[..., None]) -> None:
    call = under("record", LARGE.builder())
    about = {"face": "torch", "title": "`record`", "size": LARGE.title, "library": "fastinit"}
    measure(call, group=f"record of {LARGE.title}", most=5, **about)
