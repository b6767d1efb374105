"""What a fresh process waits for: imports, and the first matrix."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.turns import Call

ROOT = Path(__file__).parents[1]
FIRST = "import fastinit; fastinit.he_normal((1000, 1000), seed=0)"
NUMPY = "import numpy as np; np.float32(0.045) * np.random.default_rng().standard_normal((1000, 1000), dtype='f4')"
TORCH = "import torch; torch.nn.init.kaiming_normal_(torch.empty(1000, 1000))"
WRITE = f"""
import sys, tempfile
from fastinit.cli import main
with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
    sys.argv[1:] = "write", {str(ROOT / "examples" / "gpt2.toml")!r}, "--out", folder + "/out", "--no-fsync", "--json"
    sys.stdout = open(folder + "/report", "w")
    main()
"""
TRIVIAL = """
import numba

@numba.njit(cache=True)
def twice(x):
    return 2 * x
"""
# Work -> contender -> the script, and whether it starts with an empty compile cache.
WORKS: dict[str, dict[str, tuple[str, bool]]] = {
    "process: import": {"fastinit": ("import fastinit", False), "numba": ("import numba, numpy", False)},
    "process: first `he_normal`": {
        "fastinit": (FIRST, False),
        "numpy": (NUMPY, False),
        "torch": (TORCH, False),
        "numba": ("import trivial; trivial.twice(1.0)", False),
    },
    "process: first `he_normal`, empty cache": {"fastinit": (FIRST, True)},
    "process: write GPT-2 to memory": {"fastinit": (WRITE, False)},
}


def prepared(library: str, script: str, empty: bool) -> Call:
    """Return a call that runs a script in a fresh process, with a compile cache that nothing else uses."""
    held = tempfile.TemporaryDirectory(prefix="fastinit-starts-")  # removed with the call, which holds it
    folder = Path(held.name)
    (folder / "trivial.py").write_text(TRIVIAL, encoding="utf-8")
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    caches = dict.fromkeys(("FASTINIT_CACHE_DIR", "NUMBA_CACHE_DIR"), str(folder / "cache"))
    environment = os.environ | caches | {"PYTHONPATH": os.pathsep.join(paths)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed has its bytecode; the sources would not

    def call() -> None:
        if empty:
            shutil.rmtree(Path(held.name) / "cache", ignore_errors=True)
        subprocess.run([sys.executable, "-c", script], cwd=folder, env=environment, check=True)

    return call
