"""Every row of the table: each contender is a test, and all contenders of a row are timed together, in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bench.table import Row, rows
from bench.turns import Contenders


class Clock:
    """Tells pytest-benchmark the seconds that a contender's own process has measured."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


CLOCK = Clock()
pytestmark = pytest.mark.benchmark(timer=CLOCK)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    sweep, quick = (metafunc.config.getoption(name) for name in ("sweep", "quick"))
    chosen = [
        pytest.param(row, name, id=f"{row.work}-{row.order or row.size}-{name}")
        for row in rows()
        if (sweep or not row.sweep) and (row.quick or not quick)
        for name in row.makers
        if name not in row.extras or (sweep and not quick)
    ]
    metafunc.parametrize(("row", "contender"), chosen)


@pytest.fixture(scope="session")
def measured(request: pytest.FixtureRequest, contenders: Contenders) -> Callable[[Row], dict[str, list[float]]]:
    """Return the rounds of a row by contender, measured when they are first asked for, of what is selected."""
    known: dict[str, dict[str, list[float]]] = {}
    chosen: dict[str, list[str]] = {}
    for item in request.session.items:
        if hasattr(item, "callspec") and "contender" in item.callspec.params:
            chosen.setdefault(item.callspec.params["row"].group, []).append(item.callspec.params["contender"])

    def measure(row: Row) -> dict[str, list[float]]:
        if row.group not in known:
            makers = {name: made for name, made in row.contenders().items() if name in chosen[row.group]}
            most = 1 if request.config.getoption("quick") else row.most
            known[row.group] = contenders.take_turns(makers, most=most)
        return known[row.group]

    return measure


def bench_table(benchmark: Any, measured: Callable[[Row], dict[str, list[float]]], row: Row, contender: str) -> None:
    rounds = measured(row)
    if contender not in rounds:
        pytest.skip(f"{contender} cannot run here")
    benchmark.group = row.group
    benchmark.extra_info.update(
        part=row.part, work=row.work, size=row.size, order=row.order, library=contender, steps=row.steps
    )
    seconds: Iterator[float] = iter(rounds[contender])

    def advance() -> None:
        CLOCK.now += next(seconds)

    benchmark.pedantic(advance, rounds=len(rounds[contender]))
