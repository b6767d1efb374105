"""What a fresh process waits for: imports, and the first matrix with a warm and with an empty compile cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = {
    "python": "pass",
    "import numba and numpy": "import numba, numpy",
    "import fastinit": "import fastinit",
    "cached njit function": "import trivial; trivial.twice(1.0)",
    "first he_normal, warm cache": "import fastinit; fastinit.he_normal((1000, 1000), seed=0)",
    "first he_normal, empty cache": "import fastinit; fastinit.he_normal((1000, 1000), seed=0)",
}
TRIVIAL = """
import numba

@numba.njit(cache=True)
def twice(x):
    return 2 * x
"""


class Starts:
    """Runs the scripts in fresh processes, with compile caches of their own under `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cold = folder / "cold"
        (folder / "trivial.py").write_text(TRIVIAL, encoding="utf-8")

    def clear(self) -> None:
        """Empty what the runs with an empty cache have left."""
        shutil.rmtree(self.cold, ignore_errors=True)

    def run(self, name: str) -> None:
        """Run one script. All but the one with an empty cache find what an earlier run has cached."""
        cache = self.cold if "empty" in name else self.folder / "warm"
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": os.pathsep.join(paths)}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed has its bytecode; the sources would not
        subprocess.run([sys.executable, "-c", SCRIPTS[name]], cwd=self.folder, env=environment, check=True)


@pytest.fixture(scope="session")
def starts(tmp_path_factory: pytest.TempPathFactory) -> Starts:
    return Starts(tmp_path_factory.mktemp("starts"))


@pytest.mark.parametrize("name", SCRIPTS)
def bench_start(benchmark: Any, starts: Starts, quick: bool, name: str) -> None:
    benchmark.group = "start of a process"
    benchmark.extra_info["title"] = name
    if "empty" not in name:
        starts.run(name)
    benchmark.pedantic(starts.run, args=(name,), setup=starts.clear, rounds=1 if quick else 5)
