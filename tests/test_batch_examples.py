"""The files for batch systems, run as they are: the variables that the system would set are set here."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import fastinit
import fastinit as fi
from fastinit import checkpoint

EXAMPLES = Path(__file__).parents[1] / "examples"
SLURM, TORCHRUN, KUBERNETES = (EXAMPLES / name for name in ("slurm_array.sbatch", "torchrun.sh", "kubernetes.yaml"))
JOB = """seed = 3
[tensors."h.{0..19}.weight"]
shape = [100, 100]
scheme = "normal"
"""
SHARD = "40000"  # a file for each tensor
NONE_OF_OURS = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "SLURM_", "JOB_COMPLETION_INDEX")


@pytest.fixture
def job(tmp_path):
    """A job, and what it gives in one go."""
    path = tmp_path / "job.toml"
    path.write_text(JOB)
    checkpoint.write(fi.Plan.from_toml(path), tmp_path / "whole", max_shard_bytes=SHARD)
    return path


@pytest.fixture
def environment(tmp_path):
    """Commands of this Python and of the package that is tested here."""
    commands = {"fastinit": "fastinit.cli", "torchrun": "torch.distributed.run"}
    for name, module in commands.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m {module} "$@"\n')
        path.chmod(0o755)
    ours = {name: value for name, value in os.environ.items() if not name.startswith(NONE_OF_OURS)}
    return ours | {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(fastinit.__file__).parents[1]),
        "SHARD": SHARD,
    }


def run_all(command, environments):
    """All at the same time; what they printed."""
    pipe = subprocess.PIPE
    running = [subprocess.Popen(command, env=one, stdout=pipe, stderr=pipe, text=True) for one in environments]
    printed = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0] * len(running), printed
    return [out for out, _ in printed]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def written(reports):
    """How many files each has written."""
    return [int(re.search(r"\((\d+) written now\)", report)[1]) for report in reports]


@pytest.mark.parametrize("path", [SLURM, TORCHRUN], ids=lambda path: path.name)
def test_bash_can_read_them(path):
    done = subprocess.run(["bash", "-n", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_a_slurm_array(job, environment, tmp_path):
    first, last = map(int, re.search(r"^#SBATCH --array=(\d+)-(\d+)$", SLURM.read_text(), re.MULTILINE).groups())
    cpus = re.search(r"^#SBATCH --cpus-per-task=(\d+)$", SLURM.read_text(), re.MULTILINE)[1]
    tasks = range(first, last + 1)
    of_all = {"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_CPUS_PER_TASK": cpus, "SLURM_ARRAY_TASK_STEP": "1"}
    of_all |= {"SLURM_ARRAY_TASK_COUNT": str(len(tasks)), "SLURM_ARRAY_TASK_MIN": str(first)}
    of_all |= environment | {"JOB": str(job), "OUT": str(tmp_path / "out")}
    variables = [of_all | {"SLURM_ARRAY_TASK_ID": str(task)} for task in tasks]
    reports = run_all(["bash", SLURM], variables[1:])  # the first one failed
    assert not list((tmp_path / "out").glob("model*"))
    alone = of_all | {"SLURM_ARRAY_TASK_ID": str(first), "SLURM_ARRAY_TASK_COUNT": "1"}
    reports += run_all(["bash", SLURM], [alone])  # --array=1
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert sum(written(reports)) == 20
    assert set(written(reports)) == {2, 3}


@pytest.mark.slow
def test_torchrun(job, environment, tmp_path):
    variables = {"JOB": str(job), "OUT": str(tmp_path / "out"), "PROCESSES": "2", "MASTER": "localhost:0"}
    (out,) = run_all(["bash", TORCHRUN], [environment | variables | {"OMP_NUM_THREADS": "1"}])
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert written(out.splitlines()) == [10, 10]


@pytest.mark.slow
def test_a_kubernetes_job(job, environment, tmp_path):
    documents = {one["kind"]: one for one in yaml.safe_load_all(KUBERNETES.read_text())}
    claim, batch = documents["PersistentVolumeClaim"], documents["Job"]["spec"]
    pod = batch["template"]["spec"]
    (container,) = pod["containers"]
    given = {one["name"]: one.get("value", container["resources"]["limits"]["cpu"]) for one in container["env"]}
    assert batch["completionMode"] == "Indexed"
    assert given["PARTS"] == str(batch["completions"])
    mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    volumes = {one["name"]: one for one in pod["volumes"]}
    assert mounts.keys() == volumes.keys()
    assert volumes["checkpoints"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert Path(given["JOB"]).parent == Path(mounts["job"])
    assert Path(given["OUT"]).parent == Path(mounts["checkpoints"])
    assert f"--from-file={Path(given['JOB']).name}=" in KUBERNETES.read_text()
    of_all = environment | given | {"SHARD": SHARD, "JOB": str(job), "OUT": str(tmp_path / "out")}
    of_all["FASTINIT_CACHE_DIR"] = environment.get("FASTINIT_CACHE_DIR", "")  # not the image's
    indices = range(batch["completions"])
    reports = run_all(
        container["command"] + container["args"],
        [of_all | {"JOB_COMPLETION_INDEX": str(index)} for index in indices],
    )
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert sum(written(reports)) == 20
    assert set(written(reports)) == {2, 3}
