"""Sharded models on real process groups (gloo): the same model whatever the number of ranks and the placements."""

import subprocess
import sys
from pathlib import Path

import pytest
from processes import environment

SCRIPT = Path(__file__).with_name("sharded.py")


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "cases"), [(2, 362), (3, 100), (4, 362)])
def test_shards_make_the_model_that_one_process_makes(ranks, cases):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}", str(SCRIPT)]
    done = subprocess.run(
        launch, env=environment(OMP_NUM_THREADS=1), capture_output=True, text=True, check=False, timeout=400
    )
    assert done.returncode == 0, done.stderr[-4000:]
    line = done.stdout.splitlines()[-1]
    assert line.startswith(f"{ranks} ranks, ")
    assert line.endswith("placements: the same bits")
    assert int(line.split(", ")[2].split()[0]) == cases
