"""The examples run as they are, and reach what they promise."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastinit

ROOT = Path(__file__).parents[1]


ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(fastinit.__file__).parents[1])}  # the package that is tested here


def test_digits_are_learned_under_he_and_guessed_under_zeros():
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / "digits.py")],
        capture_output=True,
        text=True,
        timeout=300,
        env=ENVIRONMENT,
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


@pytest.mark.slow
def test_a_sharded_model_has_the_same_weights_on_any_number_of_ranks():
    lines = []
    for ranks in (1, 3):
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
        done = subprocess.run(
            [*launch, str(ROOT / "examples" / "fsdp2.py")],
            capture_output=True,
            text=True,
            timeout=300,
            env=ENVIRONMENT | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )
        assert done.returncode == 0, done.stderr[-4000:]
        lines.append(done.stdout.splitlines())
    (one, *steps), (three, *other_steps) = lines
    digest, where = one.split(" on ")
    assert (re.fullmatch(r"weights [0-9a-f]{16}", digest) is not None, where) == (True, "1 ranks")
    assert three == f"{digest} on 3 ranks"
    losses, others = ([float(step.split()[-1]) for step in run] for run in (steps, other_steps))
    assert losses[0] == pytest.approx(others[0], abs=2e-3)
    assert losses == sorted(losses, reverse=True) != sorted(losses)
