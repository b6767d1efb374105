"""Parts: several processes, one folder, no word between them."""

import itertools
import json
import subprocess
import sys
import threading

import pytest

import fastinit as fi
from fastinit import checkpoint
from fastinit._core.structured import Structured
from fastinit.checkpoint import Part
from fastinit.checkpoint import _blocks as blocks
from fastinit.checkpoint import _write as writer
from fastinit.checkpoint._layout import layout, split_evenly

PLAN = fi.Plan(
    {
        **{f"h.{i}.weight": ((300, 100 + i), "bfloat16", "he_normal") for i in range(20)},
        "square": ((100, 100), "float32", "orthogonal"),
        "embed": ((5000, 50), "float32", "normal"),
        "head": fi.Tied("embed"),
    },
    seed=3,
)
MOST = "100KB"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write(folder, part=None, **how):
    return checkpoint.write(PLAN, folder, max_shard_bytes=MOST, part=part, **how)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    write(folder)
    return contents(folder)


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 22])
@pytest.mark.parametrize("order", ["first to last", "last to first"])
def test_parts_give_the_same_bytes(tmp_path, expected, parts, order):
    numbers = range(1, parts + 1)
    reports = []
    for i in numbers if order == "first to last" else reversed(numbers):
        reports.append(write(tmp_path, f"{i}/{parts}"))
        assert (tmp_path / "model.safetensors.index.json").exists() is (len(reports) == parts)
    assert contents(tmp_path) == expected
    assert [report.finished for report in reports] == [False] * (parts - 1) + [True]
    assert sum(report.files for report in reports) == len(expected) - 2
    assert sum(report.tensors for report in reports) == 22
    assert reports[-1].path == str(tmp_path / "model.safetensors.index.json")


def test_more_parts_than_files(tmp_path, expected):
    reports = [write(tmp_path, f"{i}/30") for i in range(1, 31)]
    assert [report.files for report in reports] == [1] * 22 + [0] * 8
    assert [report.finished for report in reports] == [False] * 21 + [True] * 9
    assert contents(tmp_path) == expected


@pytest.mark.slow
def test_parts_at_once_in_processes(tmp_path, expected):
    code = (
        f"import sys; sys.path.insert(0, {str(__file__.rpartition('/')[0])!r})\n"
        "from pathlib import Path; from test_parts import write\n"
        "print(write(Path(sys.argv[1]), sys.argv[2]).finished)"
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), f"{i}/4"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(1, 5)
    ]
    done = [run.communicate(timeout=300) for run in runs]
    assert [err for _, err in done] == [""] * 4
    assert [out for out, _ in done].count("True\n") == 1  # the last part, whichever that was
    assert contents(tmp_path) == expected


def test_parts_at_once_many_times(tmp_path, expected):
    """Threads have locks of their own (each opens the folder), and meet at every moment."""
    for attempt in range(10):
        folder, finished = tmp_path / str(attempt), []
        crew = [
            threading.Thread(
                target=lambda i=i, f=folder, d=finished: d.append(write(f, f"{i}/3", fsync=False).finished)
            )
            for i in (1, 2, 3)
        ]
        for one in crew:
            one.start()
        for one in crew:
            one.join()
        assert sorted(finished) == [False, False, True]
        assert contents(folder) == expected


def test_a_part_may_fail_and_come_again(tmp_path, expected, monkeypatch):
    write(tmp_path, "1/3")
    with monkeypatch.context() as patch:
        patch.setattr(blocks.Maker, "make", lambda *_: (_ for _ in ()).throw(OSError("gone")))
        with pytest.raises(OSError, match="gone"):
            write(tmp_path, "2/3")
    assert write(tmp_path, "1/3").written == 0  # what is there is kept
    write(tmp_path, "3/3")
    with pytest.raises(FileNotFoundError, match=r"\d of \d+ files are not written yet, the first of them model-000"):
        checkpoint.finalize(tmp_path)
    assert write(tmp_path, "2/3").finished
    assert contents(tmp_path) == expected


def test_another_number_of_parts_may_finish(tmp_path, expected):
    write(tmp_path, "1/3")
    report = write(tmp_path)
    assert report.finished
    assert report.written < report.files
    assert contents(tmp_path) == expected


def test_a_part_that_comes_after_the_end_changes_nothing(tmp_path, expected):
    write(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    report = write(tmp_path, "2/5")
    assert (report.written, report.finished) == (0, True)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_parts_of_another_job_are_refused(tmp_path):
    write(tmp_path, "1/3")
    with pytest.raises(FileExistsError, match="unfinished files of another plan"):
        write(tmp_path, "2/3", seed=4)


class OfThisCpu(Structured):
    """Values as a constructor computes them, whose last bits are those of the CPU."""

    any_dtype = needs_all = True
    portable = False
    bits = 0.0

    def check(self, shape, dtype):
        pass

    def make(self, out, key, shape, indices, offset):
        fi.fill(out, fi.Normal(), seed=key)
        out += self.bits


def test_computed_values_are_those_of_the_first_part(tmp_path, monkeypatch):
    computed = {f"dt.{i}": fi.Fill((50, 100), "float32", OfThisCpu()) for i in range(6)}
    plan = fi.Plan({**computed, "plain": ((300, 100), "float32", "normal")})
    checkpoint.write(plan, tmp_path / "a", max_shard_bytes=MOST, part="1/3")
    monkeypatch.setattr(OfThisCpu, "bits", 1e-6)  # the other parts run elsewhere
    for part in ("2/3", "3/3"):
        report = checkpoint.write(plan, tmp_path / "a", max_shard_bytes=MOST, part=part)
    assert report.finished
    assert checkpoint.verify(tmp_path / "a").problems == ()
    assert checkpoint.write(plan, tmp_path / "a", max_shard_bytes=MOST).written == 0
    monkeypatch.undo()
    checkpoint.write(plan, tmp_path / "b", max_shard_bytes=MOST)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    with pytest.raises(FileExistsError, match="holds another plan, seed or size of shards"):
        checkpoint.write(plan, tmp_path / "a", max_shard_bytes=MOST, seed=1)


def test_overwriting_in_parts(tmp_path, expected):
    write(tmp_path, seed=9)
    for i in (3, 1, 2):
        write(tmp_path, f"{i}/3", overwrite=True)
    assert contents(tmp_path) == expected


@pytest.mark.parametrize("overwrite", [False, True])
def test_parts_that_start_and_end_at_the_same_time(tmp_path, overwrite):
    """None is refused because of another one, and the checkpoint is finished, also over parts of another seed."""
    plan = fi.Plan({f"w{i}": ((2, 2), "float32", "normal") for i in range(8)})
    for attempt in range(20):
        folder = tmp_path / str(attempt)
        if overwrite:
            checkpoint.write(plan, folder, seed=1, max_shard_bytes=16, part="1/4", fsync=False)
        start, outcomes = threading.Barrier(4), []

        def run(part, folder=folder, start=start, outcomes=outcomes):
            how = {"part": part, "max_shard_bytes": 16, "overwrite": overwrite, "fsync": False}
            start.wait(60)
            try:
                outcomes.append(checkpoint.write(plan, folder, seed=2, **how).finished)
            except Exception as error:
                outcomes.append(error)

        threads = [threading.Thread(target=run, args=(f"{i}/4",)) for i in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(outcomes) <= {True, False}, outcomes
        assert True in outcomes
        assert checkpoint.verify(folder).problems == ()


def test_one_run_at_a_time_for_each_part(tmp_path, monkeypatch):
    entered, go_on = threading.Event(), threading.Event()
    run = writer.write_shards

    def waiting(*arguments):
        entered.set()
        assert go_on.wait(60)
        run(*arguments)

    monkeypatch.setattr(writer, "write_shards", waiting)
    monkeypatch.setattr(writer, "PATIENCE", 0.2)
    first = threading.Thread(target=write, args=(tmp_path, "1/2"))
    first.start()
    assert entered.wait(60)
    with pytest.raises(BlockingIOError, match="part 1/2 is being written into"):
        write(tmp_path, "1/2")
    for action in (lambda: write(tmp_path), lambda: checkpoint.finalize(tmp_path)):
        with pytest.raises(BlockingIOError, match="another run is writing into"):
            action()
    with pytest.raises(BlockingIOError, match="another run is writing into"):
        write(tmp_path, "2/2", seed=8, overwrite=True)  # would remove what is being written
    monkeypatch.setattr(writer, "write_shards", run)
    write(tmp_path, "2/2")
    go_on.set()
    first.join()
    assert json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]["embed"]


def test_finalize_writes_an_index_that_was_lost(tmp_path, expected):
    write(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    text = index.read_bytes()
    index.unlink()
    assert checkpoint.finalize(tmp_path) == index
    assert index.read_bytes() == text
    assert checkpoint.verify(tmp_path).problems == ()


def test_finalize_twice_and_of_nothing(tmp_path, expected):
    with pytest.raises(FileNotFoundError, match="nothing was written into"):
        checkpoint.finalize(tmp_path)
    write(tmp_path)
    assert checkpoint.finalize(tmp_path).name == "model.safetensors.index.json"
    assert contents(tmp_path) == expected


def test_balance():
    shards = layout(PLAN, MOST).shards
    for parts in (2, 3, 5):
        loads = [sum(shard.nbytes for shard in one) for one in split_evenly(shards, parts)]
        assert max(loads) <= max(1.1 * sum(loads) / parts, max(shard.nbytes for shard in shards))


@pytest.mark.parametrize(
    ("environment", "part"),
    [
        ({"RANK": "3", "WORLD_SIZE": "8"}, "4/8"),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, "1/2"),
        ({"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "9"}, "6/9"),
        ({"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "9", "SLURM_ARRAY_TASK_MIN": "1"}, "5/9"),
        (
            {
                "SLURM_ARRAY_TASK_ID": "14",
                "SLURM_ARRAY_TASK_COUNT": "3",
                "SLURM_ARRAY_TASK_MIN": "10",
                "SLURM_ARRAY_TASK_STEP": "2",
            },
            "3/3",
        ),
        (
            {
                "SLURM_ARRAY_TASK_ID": "1",
                "SLURM_ARRAY_TASK_COUNT": "3",
                "SLURM_PROCID": "1",
                "SLURM_NTASKS": "4",
            },
            "6/12",
        ),
        ({"RANK": "1", "WORLD_SIZE": "2", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, "2/2"),
    ],
)
def test_the_part_that_the_environment_says(environment, part, monkeypatch):
    assert str(Part.from_environment(environment)) == part
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert str(Part.of("auto")) == part


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "--part auto needs one of RANK/WORLD_SIZE, SLURM_PROCID/SLURM_NTASKS"),
        ({"RANK": "1"}, "--part auto needs one of"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK must be a number. Received: 'x'"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "a part must be from 1/2 to 2/2. Received: 3/2"),
    ],
)
def test_an_environment_without_a_part(environment, message):
    with pytest.raises(ValueError, match=message):
        Part.from_environment(environment)


def test_all_parts_of_an_array_are_different():
    found = {
        str(
            Part.from_environment(
                {
                    "SLURM_ARRAY_TASK_ID": str(item),
                    "SLURM_ARRAY_TASK_COUNT": "3",
                    "SLURM_ARRAY_TASK_MIN": "1",
                    "SLURM_PROCID": str(task),
                    "SLURM_NTASKS": "2",
                }
            )
        )
        for item, task in itertools.product((1, 2, 3), (0, 1))
    }
    assert found == {f"{i}/6" for i in range(1, 7)}
