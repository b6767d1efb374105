"""The training benchmarks' contenders do the same work: after the same steps they have the same weights."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_contenders_end_at_the_same_weights():
    """In a process of its own: the frameworks' threads would outlive the test, and a fork after them is refused."""
    command = [sys.executable, "-m", "bench.training", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    compared = {tuple(line.split(" ")[-2:-1]) for line in done.stdout.splitlines()}
    assert compared == {("fastinit",), ("fastinit_step",), ("numpy",), ("torch",), ("jax",), ("sklearn",)}
