"""How `pytest` runs: the whole suite on all processors, `--benchmark-only` without collecting the tests.

Keras takes its backend from the environment, once, when it is imported: the one for the doctests and tests.
"""

import os
from pathlib import Path

import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")
ROOT = Path(__file__).parent
MOST_WORKERS = 4  # each imports every framework, and several tests use several threads themselves


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Give a run of the whole suite a worker for each processor, a file of tests to a worker at a time.

    `-n` in addopts would do that for every run: it would make `--benchmark-only` a usage error, and a single test would
    wait for the start of the workers. A number given by `-n` counts, `-n 0` is one process.
    """
    option = config.option
    if (
        config.pluginmanager.hasplugin("xdist")
        and config.args_source == pytest.Config.ArgsSource.TESTPATHS
        and option.numprocesses is None
        and not (option.usepdb or option.collectonly or _asked(config, "benchmark_only", "benchmark_enable"))
        and "PYTEST_XDIST_WORKER" not in os.environ
    ):
        option.numprocesses = min(MOST_WORKERS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)
        option.dist = "loadfile"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave everything but the benchmarks out where these alone are asked for: the tests import every framework."""
    tests = any(collection_path.is_relative_to(ROOT / name) for name in ("tests", "fastinit"))
    return True if tests and _asked(config, "benchmark_only") else None


def _asked(config: pytest.Config, *options: str) -> bool:
    """True if one of these options of pytest-benchmark is given; False where the plugin is missing."""
    return any(config.getoption(name, False) for name in options)
