"""Training steps: every network of the table by library, and scikit-learn's digits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bench.training import NETWORKS, QUICK_NETWORKS, SLOW_TO_BEGIN, trainer


def _cells() -> Iterator[Any]:
    for name, network in NETWORKS.items():
        for library in network.libraries:
            large = name not in QUICK_NETWORKS or library in SLOW_TO_BEGIN
            marks = [pytest.mark.large] * large
            if library in SLOW_TO_BEGIN:  # what other people's compilers warn of
                marks.append(pytest.mark.filterwarnings("ignore"))
            yield pytest.param(name, library, id=f"{name}-{library}", marks=marks)


@pytest.mark.parametrize(("name", "library"), list(_cells()))
def bench_train(measure: Callable[..., None], quick: bool, name: str, library: str) -> None:
    network = NETWORKS[name]
    if quick:
        network = dataclasses.replace(network, epochs=1)
    contender = trainer(library, network)
    if contender is None:
        pytest.skip(f"{library} cannot run here")
    measure(
        contender.train,
        group=f"training: {network.title}",
        title=network.title,
        library=library,
        steps=network.all_steps,
        epochs=network.epochs,
    )
