"""The examples run as they are, and reach what they promise."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastinit

ROOT = Path(__file__).parents[1]


ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(fastinit.__file__).parents[1])}  # the package that is tested here
TOUR = ROOT / "examples" / "tour.py"
# What the tour claims, in order; figures that depend on the machine's rounding are left open.
CLAIMS = r"""
from the first three the network guesses: \d+\.\d% at best
from Xavier and He it reads: 9\d\.\d% at least
from equal weights all units of a layer compute the same
training leaves them equal, to rounding
random weights tell them apart from the start
before any training they are found vanishing, vanishing, healthy, exploding
the one that is healthy learns: [89]\d\.\d% are right
under Xavier's law it guesses: 1?\d\.\d%
without clipping 5 of 5 runs are lost
with it the worst reaches 9\d\.\d%
all of it is what plan and seed give
one bit is flipped, and found in h\.7\.mlp\.c_proj\.weight, nowhere else
it is mended
from_pretrained took 148 of 148 tensors, bit for bit
it begins with a guess, at a loss of 1[01]\.\d\d
the first eight are a population of eight
they are the same among the thousand around them
and one by one, the last first, on one thread
taken back, no weight is off by more than \de-\d\d
the slopes agree, to \d\.\d%
they are those of the whole
the parts of all 8 ranks are the whole
""".strip().splitlines()


@pytest.fixture
def tour():
    """The tour as a module."""
    spec = importlib.util.spec_from_file_location("tour", TOUR)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_tour_holds_what_it_claims():
    done = subprocess.run(
        [sys.executable, "-W", "error", str(TOUR)], capture_output=True, text=True, timeout=600, env=ENVIRONMENT
    )
    assert (done.returncode, done.stderr) == (0, "")
    claimed = re.findall(r"^-> (.*)$", done.stdout, re.MULTILINE)
    assert len(claimed) == len(CLAIMS)
    assert [(one, text) for one, text in zip(CLAIMS, claimed, strict=True) if not re.fullmatch(one, text)] == []
    assert re.findall(r"^(\d)\. ", done.stdout, re.MULTILINE) == list("12345678")
    rows = re.findall(r"^(\w[\w ,.]*?)  +[\d.]+ +\S+ +\S+ +([\d.]+)%$", done.stdout, re.MULTILINE)
    accuracy = {name: float(value) for name, value in rows}
    assert list(accuracy) == ["zeros", "too small, std 0.01", "too large, std 1", "Xavier", "He"]
    assert max(accuracy[name] for name in list(accuracy)[:3]) < 20
    assert min(accuracy["Xavier"], accuracy["He"]) > 95
    assert re.search(
        r"^all of 1,000,000 candidates: 9\.64 GB, never made; one: 9,640 bytes$", done.stdout, re.MULTILINE
    )
    assert re.fullmatch(r"All that was claimed holds, in \d+ s\.", done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_the_tour_ends_where_a_claim_does_not_hold(tour, monkeypatch, capsys):
    clipped = tour.fit
    monkeypatch.setattr(tour, "fit", lambda *data, max_grad_norm, **options: clipped(*data, **options))
    with pytest.raises(SystemExit, match=r"^This does not hold: with it the worst reaches 8\.1%$"):
        tour.clipping()
    assert "-> without clipping 5 of 5 runs are lost" in capsys.readouterr().out


MISSING = """
import runpy, sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing}:
            raise ModuleNotFoundError(f"No module named {{name!r}}")
sys.meta_path.insert(0, Missing())
tour = runpy.run_path({tour!r}, run_name="tour")
for section in "starts", "population", "shards":
    tour[section]()
"""


def test_the_tour_says_what_to_install_before():
    """It needs no more than the README's install and scikit-learn."""

    def run(*missing):
        code = MISSING.format(missing=missing, tour=str(TOUR))
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=ENVIRONMENT
        )

    done = run("sklearn")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"The tour learns .* Needed before: pip install scikit-learn \(.*sklearn.*\)\n", done.stderr)
    done = run("torch", "transformers", "jax", "keras", "matplotlib", "ray", "pandas")
    assert (done.returncode, done.stderr) == (0, "")
    assert "-> from Xavier and He it reads" in done.stdout


@pytest.mark.slow
def test_the_tour_says_what_it_leaves_out(tour, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "transformers", None)
    tour.gpt2()
    printed = capsys.readouterr().out
    assert "-> it is mended" in printed
    assert re.search(r"^Left out: .*pip install 'fastinit-weights\[hf\]'.*transformers", printed, re.MULTILINE)
    assert "from_pretrained" not in printed


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
