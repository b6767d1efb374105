"""How the benchmarks run: only when they are asked for, on memory that was touched before, with the machine noted.

`pytest` leaves them out, `pytest --benchmark-only` runs them alone, `pytest bench --quick` runs each once, small.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from bench.libraries import Memory  # at run time only where it is used: plain `pytest` loads this file too

HERE = Path(__file__).parent
QUICK_ELEMENTS = 1 << 14
SECONDS = 0.3  # that one benchmark should take
ROUND_SECONDS = 1e-3  # at least, so that the clock's own time does not count
MANY = 1 << 26  # elements from which five rounds are enough

Measure = Callable[..., None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="run every benchmark once, at small sizes")


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Leave this folder out unless benchmarks are asked for.

    `--benchmark-skip` in the project's addopts would do that too, but it cannot be taken back by `--benchmark-only`.
    """
    asked = any(config.getoption(name, False) for name in ("benchmark_only", "benchmark_enable", "quick"))
    return None if asked else True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("quick"):
        large = [item for item in items if item.get_closest_marker("large") or _elements(item) > QUICK_ELEMENTS]
        config.hook.pytest_deselected(items=large)
        items[:] = [item for item in items if item not in large]


def _elements(item: pytest.Item) -> int:
    if not item.path.is_relative_to(HERE) or not hasattr(item, "callspec"):
        return 0
    return math.prod(item.callspec.params.get("shape", ()))


@pytest.hookimpl(optionalhook=True)  # the ordinary tests do not need the plugin
def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    from bench.libraries import machine

    machine_info.update(machine())


@pytest.fixture(scope="session")
def memory() -> Memory:
    from bench.libraries import Memory

    return Memory()


@pytest.fixture
def quick(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("quick"))


@pytest.fixture
def measure(benchmark: Any, quick: bool) -> Measure:
    """Time a call; `group` is what it is compared within, the other names go into the JSON."""

    def run(call: Callable[[], object], group: str, most: int = 100, **extra: Any) -> None:
        benchmark.group = group
        benchmark.extra_info.update(extra)
        rounds, iterations = (1, 1) if quick else _rounds(call, most)
        benchmark.pedantic(call, rounds=rounds, iterations=iterations)

    return run


@pytest.fixture
def measure_cell(measure: Measure, memory: Memory) -> Measure:
    """Time one cell of the table at one shape."""
    from bench.libraries import WORKS, prepared

    def run(work: str, library: str, shape: tuple[int, ...]) -> None:
        elements = math.prod(shape)
        row = WORKS[work]
        measure(
            prepared(work, library, memory, shape),
            group=f"{row.title} {'x'.join(map(str, shape))}",
            most=5 if elements >= MANY else 100,
            work=work,
            title=row.title,
            library=library,
            dtype=row.dtype.__name__,
            elements=elements,
        )

    return run


def _rounds(call: Callable[[], object], most: int) -> tuple[int, int]:
    """Rounds and iterations that take about SECONDS; the calls made here are the warm-up."""
    call()
    start = time.perf_counter()
    call()
    seconds = time.perf_counter() - start
    iterations = math.ceil(ROUND_SECONDS / seconds)
    return max(3, min(most, int(SECONDS / (seconds * iterations)))), iterations
