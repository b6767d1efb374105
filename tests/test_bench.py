"""The benchmarks measure what they say: contenders in processes of their own, in turns, every row once."""

import functools
import os
from pathlib import Path

import pytest

from bench import compare, report
from bench.programs import Target
from bench.table import PARTS, rows
from bench.turns import Contenders


def append(path, name):
    """Make a call that appends the contender's name and process to a file."""

    def call():
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{name} {os.getpid()}\n")

    return call


def no_call():
    return None


def makers(path, names):
    return {name: (f"process of {name}", functools.partial(append, str(path), name)) for name in names}


def test_contenders_take_turns_in_processes_of_their_own(tmp_path):
    path = tmp_path / "calls"
    with Contenders() as contenders:
        times = contenders.take_turns(makers(path, "ab") | {"absent": ("another", no_call)}, most=4, seconds=1e-9)
    assert {name: len(rounds) for name, rounds in times.items()} == {"a": 3, "b": 3}
    assert all(seconds > 0 for rounds in times.values() for seconds in rounds)
    calls = [tuple(line.split()) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(set(calls)) == 2
    assert str(os.getpid()) not in dict(calls).values()
    turns = [name for i, (name, _) in enumerate(calls) if i == 0 or calls[i - 1] != calls[i]]
    assert turns == ["a", "b", "a", "b", "a", "b"]  # two to warm up, then a b, b a, a b


def test_two_contenders_in_one_process_are_refused(tmp_path):
    shared = {name: ("one", make) for name, (_, make) in makers(tmp_path / "calls", "ab").items()}
    with Contenders() as contenders, pytest.raises(ValueError, match="a process of its own"):
        contenders.take_turns(shared)


def test_rows_are_in_the_order_of_the_tables_and_appear_once():
    found = rows()
    groups = [row.group for row in found]
    assert len(set(groups)) == len(groups)
    assert [PARTS.index(row.part) for row in found] == sorted(PARTS.index(row.part) for row in found)
    for work in {row.work for row in found}:
        orders = [row.order for row in found if row.work == work]
        assert orders == sorted(orders)
    assert found[0].work == "normal, float32"


def test_every_contender_has_a_name_and_a_process():
    for row in rows():
        processes = [process for process, _ in row.contenders().values()]
        assert len(set(processes)) == len(processes)
        assert set(row.makers) <= set(report.NAMES)
        assert row.extras == row.extras - {"fastinit"}
    frameworks = {row.contenders()["fastinit"][0] for row in rows() if row.part == "frameworks"}
    assert frameworks == {"fastinit torch", "fastinit JAX", "fastinit Keras"}


def test_the_short_run_is_short():
    shown = [row for row in rows() if not row.sweep]
    assert len(shown) <= 36
    assert {row.part for row in shown} == set(PARTS)


@pytest.mark.parametrize(
    ("bound", "expected"),
    [
        (compare.Bound("w", ("s", "t"), Target(">=", 2), "numpy"), 1.5),
        (compare.Bound("w", ("s",), Target("<=", 2), "numpy"), 0.25),
        (compare.Bound("w", ("s", "t"), Target("<=", 5, "us")), 2e6),
        (compare.Bound("w", ("t",), Target("<=", 5, "s"), "numpy", beyond=True), -1.0),
        (compare.Bound("w", ("s",), Target(">=", 2), "absent"), None),
    ],
)
def test_a_bound_takes_the_worst_of_its_sizes(bound, expected):
    times = {("w", "s"): {"fastinit": 1.0, "numpy": 4.0}, ("w", "t"): {"fastinit": 2.0, "numpy": 3.0}}
    assert bound.value(times) == expected
    assert [row["values"] for row in compare.summary([bound], [times])] == ([] if expected is None else [[expected]])


def test_every_bound_finds_its_rows():
    chosen = compare.needed(compare.BOUNDS)
    assert all("fastinit" in row.makers for row in chosen)
    for bound in compare.BOUNDS:
        for size in bound.sizes:
            (row,) = [row for row in chosen if (row.work, row.size) == (bound.work, size)]
            assert not bound.rival or bound.rival in row.makers
