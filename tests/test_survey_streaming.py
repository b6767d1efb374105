"""Checkpoints of very many tensors: `stats` writes each row when it is known, in order, and forgets it."""

import json
import threading
import time

import numpy as np
import processes
import pytest
from processes import command
from test_survey import saved

import fastinit as fi
from fastinit import checkpoint
from fastinit._io.safetensors import Stored
from fastinit.checkpoint._survey import records, scan
from fastinit.checkpoint._survey.survey import Contents

# The peak of a process is read as Linux has it: getrusage's is inherited from the process that started this one.
PEAK = """
import os, re, sys
from pathlib import Path
from fastinit import cli
errors, sys.stderr = sys.stderr, None  # no progress
with open(os.devnull, "w") as sys.stdout:
    try:
        cli._app.app(["stats", *{arguments}])
    except SystemExit as done:
        assert not done.code
sys.stdout, sys.stderr = sys.__stdout__, errors
Path({report!r}).write_text(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def many(path, number):
    """A file of small tensors, some of them empty, after one that several threads read."""
    tensors = {"first.weight": fi.normal(3 << 20, seed=1)}
    for i in range(number):
        shape = [(2, 2), (), (0,), (3, 5)][i % 4]
        kind = ["float32", "float16", "int8"][i % 3]
        tensors[f"layers.{i}.weight"] = (np.arange(int(np.prod(shape))) + i % 7).astype(kind).reshape(shape)
    return saved(path, tensors)


def tiny(path, number):
    """A file of 2x2 zeros, without making arrays."""
    rows = {
        f"model.layers.{i}.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [16 * i, 16 * i + 16]}
        for i in range(number)
    }
    header = json.dumps(rows, separators=(",", ":")).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16 * number))
    return path


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_what_is_streamed_is_what_python_gives(tmp_path, threads):
    path = many(tmp_path / "a.safetensors", 2500)
    survey = checkpoint.survey(path)
    assert json.loads(survey.to_json()) == survey.to_table()
    assert [one.name for one in survey.tensors[:3]] == ["first.weight", "layers.0.weight", "layers.1.weight"]
    done = command("stats", path, "--json", "--threads", threads)
    assert (done.returncode, done.stderr) == (0, "")
    text, _, seconds = done.stdout.rpartition('"seconds": ')
    assert text == survey.to_json().rpartition('"seconds": ')[0]
    assert seconds.endswith("}\n")
    done = command("stats", path, "--threads", threads)
    assert done.stdout == f"{survey}\n"


def test_nothing_that_comes_early_waits_without_limit(monkeypatch):
    monkeypatch.setattr(scan, "MOST_WAITING", 3)
    passed, put = [], []
    ordered = scan._InOrder(passed.append)

    def ahead():
        for place in (1, 2, 3, 4):
            ordered.put(place, place)
            put.append(place)

    thread = threading.Thread(target=ahead, daemon=True)
    thread.start()
    end = time.monotonic() + 60
    while len(put) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.2)
    assert (put, passed) == ([1, 2], [])
    ordered.put(0, 0)
    thread.join(60)
    assert passed == [0, 1, 2, 3, 4]


STOPPED = """
import sys
from fastinit.checkpoint._survey import scan
from fastinit.checkpoint._survey.survey import Contents
scan.MOST_WAITING, scan.MOST_TOGETHER = 8, 4
passed = []
def sink(tensor):
    passed.append(tensor)
    if len(passed) == 50:
        raise BrokenPipeError("the reader has gone")
try:
    Contents(sys.argv[1] if len(sys.argv) > 1 else PATH, threads=6).scan(sink)
except BrokenPipeError:
    print(len(passed))
"""


def test_a_reader_that_goes_away_stops_all_threads(tmp_path):
    path = many(tmp_path / "a.safetensors", 2000)
    assert processes.run(STOPPED.replace("PATH", repr(str(path)))) == "50"


def test_a_file_that_is_cut_off_while_it_is_read(tmp_path):
    path = many(tmp_path / "a.safetensors", 2000)
    contents, passed = Contents(path, threads=3), []
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 4000)
    with pytest.raises(ValueError, match=r"a\.safetensors was cut off while it was read"):
        contents.scan(passed.append)
    assert [one.name for one in passed[:2]] == ["first.weight", "layers.0.weight"]
    assert len(passed) < 2001


def peak(folder, *arguments):
    """The most memory of a process that runs `stats`."""
    report = folder / "peak"
    processes.run(PEAK.format(arguments=list(map(str, arguments)), report=str(report)), timeout=600)
    return int(report.read_text()) * 1024


def test_memory_grows_by_little_for_each_tensor(tmp_path):
    checkpoint.survey(tiny(tmp_path / "a.safetensors", 1))  # compiles, where that was not done
    few, more = (peak(tmp_path, tiny(tmp_path / f"{n}.safetensors", n), "--json") for n in (10, 10_000))
    assert more - few < 15e6  # it was 44 MB


@pytest.mark.slow
def test_a_hundred_thousand_tensors_in_200_mb(tmp_path):
    path = tiny(tmp_path / "a.safetensors", 100_000)
    assert peak(tmp_path, path, "--json") < 200e6
    assert peak(tmp_path, path) < 260e6  # a line of each waits for the widths of the columns


def test_a_page_of_too_many_tensors_is_refused_before_they_are_read(tmp_path, monkeypatch):
    path = tiny(tmp_path / "a.safetensors", records.MOST_ON_A_PAGE + 1)
    done = command("stats", path, "--json", "--html", tmp_path / "x.html")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "at most 20,000 tensors. Received: 20,001" in done.stderr
    assert not (tmp_path / "x.html").exists()
    monkeypatch.setattr(records, "MOST_ON_A_PAGE", 1)
    survey = checkpoint.survey(saved(tmp_path / "b.safetensors", {"x": np.zeros(3), "y": np.zeros(3)}))
    with pytest.raises(ValueError, match="at most 1 tensors"):
        survey.to_html()


@pytest.mark.parametrize("threads", [4097, 10**9, 10**30])
def test_threads_have_a_limit(tmp_path, threads):
    path = saved(tmp_path / "a.safetensors", {"x": np.zeros(3)})
    done = command("stats", path, "--threads", threads)
    assert (done.returncode, done.stdout) == (1, "")
    assert "threads must be at most 4,096" in done.stderr
    with pytest.raises(ValueError, match="number must be at most 4,096"), fi.thread_limit(threads):
        pass


def test_names_and_places_survive_the_columns(tmp_path):
    """Tensors that another file has too are left out, which leaves holes."""
    a = {"é\u2603": np.full(3, 1.0), "a": np.full(5, 2.0), "z": np.full(2, 3.0)}
    b = {"é\u2603": np.full(3, 4.0), "b": np.full(5, 5.0), "z": np.full(2, 6.0)}
    saved(tmp_path / "one.safetensors", a)
    saved(tmp_path / "two.safetensors", b)
    index = {"weight_map": {"é\u2603": "two.safetensors", "a": "one.safetensors", "b": "two.safetensors"}}
    index["weight_map"]["z"] = "one.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    contents = Contents(tmp_path)
    rows = [(name, file.path.name, stored) for name, file, stored in contents._chosen()]
    assert rows == [
        ("é\u2603", "two.safetensors", Stored("float64", (3,), 0, 24)),
        ("b", "two.safetensors", Stored("float64", (5,), 24, 64)),
        ("a", "one.safetensors", Stored("float64", (5,), 24, 64)),
        ("z", "one.safetensors", Stored("float64", (2,), 64, 80)),
    ]
    assert [one.min for one in checkpoint.survey(tmp_path).tensors] == [4.0, 5.0, 2.0, 3.0]
