"""Sharded models on real process groups (gloo): the same model whatever the number of ranks and the placements."""

import subprocess
import sys
from pathlib import Path

import pytest
from processes import environment

SCRIPT = Path(__file__).with_name("sharded.py")


def run(command):
    env = environment(OMP_NUM_THREADS=1)
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.splitlines()[-1]


def test_two_ranks_make_the_model_that_one_process_makes(tmp_path):
    line = run([sys.executable, str(SCRIPT), str(tmp_path / "meeting")])
    assert line == "2 ranks, 15 tensors: the same bits"


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "cases"), [(3, 100), (4, 362)])
def test_shards_make_the_model_that_one_process_makes(ranks, cases):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}", str(SCRIPT)]
    line = run(launch)
    assert line.startswith(f"{ranks} ranks, ")
    assert line.endswith("placements: the same bits")
    assert int(line.split(", ")[2].split()[0]) == cases
