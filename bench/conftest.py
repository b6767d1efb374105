"""How the benchmarks run: only when they are asked for, each contender in a process of its own, rounds in turns.

`pytest` leaves them out, `pytest --benchmark-only` runs the short selection, with `--sweep` all of it, and with
`--quick` each row that is small once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from bench.turns import Contenders  # at run time only where they are used: plain `pytest` loads this file, too


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--sweep", action="store_true", help="benchmarks: all works at all sizes, about half an hour")
    parser.addoption("--quick", action="store_true", help="benchmarks: one round of each that is small")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the benchmarks out unless they are asked for, and then the doctests of this folder.

    `--benchmark-skip` in the project's addopts would leave them out too, but `--benchmark-only` cannot take it back.
    """
    asked = any(config.getoption(name, False) for name in ("benchmark_only", "benchmark_enable"))
    is_benchmark = collection_path.name.startswith("bench_")
    return True if collection_path.suffix == ".py" and is_benchmark != asked else None


@pytest.hookimpl(optionalhook=True)  # the ordinary tests do not need the plugin
def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    from bench.machine import machine

    machine_info.update(machine())


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_group_stats(benchmarks: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Group by work and size, in the order of the table: the plugin sorts sizes as texts."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for benchmark in benchmarks:
        benchmark["name"] = benchmark["extra_info"].get("library", benchmark["name"])
        groups.setdefault(benchmark["group"], []).append(benchmark)
    return list(groups.items())


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Trim the plugin's tables to the median and its ratio, unless columns are asked for."""
    if hasattr(config.option, "benchmark_columns") and not config.option.benchmark_columns:
        config.option.benchmark_columns = ["median"]


@pytest.hookimpl(hookwrapper=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> Iterator[None]:
    """Print the one table after everything that the plugin prints."""
    yield
    session = getattr(config, "_benchmarksession", None)  # the plugin has no public name for what was measured
    measured = (
        [benchmark.as_dict(include_data=False) for benchmark in session.benchmarks if benchmark] if session else []
    )
    if measured and not config.getoption("quick"):
        from bench.lines import ReportError
        from bench.machine import machine
        from bench.report import console

        terminalreporter.write_line("")
        try:
            terminalreporter.write_line(console({"benchmarks": measured, "machine_info": machine()}))
        except ReportError as error:  # a selection without fastinit
            terminalreporter.write_line(f"No table: {error}")


@pytest.fixture(scope="session")
def contenders() -> Iterator[Contenders]:
    from bench.turns import Contenders

    with Contenders() as found:
        yield found
