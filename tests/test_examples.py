"""The examples run as they are, and reach what they promise."""

import os
import re
import subprocess
import sys
from pathlib import Path

import fastinit

ROOT = Path(__file__).parents[1]


def test_digits_are_learned_under_he_and_guessed_under_zeros():
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / "digits.py")],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": str(Path(fastinit.__file__).parents[1])},  # the package that is tested here
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    rows = dict(re.findall(r"^(\w[\w ]*?)  +[\d. ]+ (\d\.\d+)$", done.stdout, re.MULTILINE))
    accuracy = {name: float(value) for name, value in rows.items()}
    assert list(accuracy) == ["zeros", "small random", "Xavier", "He"]
    assert accuracy["He"] >= 0.97
    assert accuracy["Xavier"] >= 0.95
    assert accuracy["zeros"] < 0.15
    assert accuracy["small random"] < 0.15
