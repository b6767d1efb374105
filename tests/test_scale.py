"""The page on scale: its figures that are not timed, and a run of 1,000 parts without the data."""

from pathlib import Path

import pytest

import fastinit as fi
from bench import report, scale
from fastinit import checkpoint
from fastinit.checkpoint._layout import Layout, layout, split_evenly

PAGE = (Path(__file__).parents[1] / "docs" / "scale.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def plan():
    return scale.plan()


def test_the_plan_is_the_published_model(plan):
    assert (len(plan), plan.parameters, plan.nbytes) == (1137, 405_853_388_800, 811_706_777_600)


@pytest.mark.parametrize("size", [*scale.SIZES, "1MB"])
def test_a_run_of_1000_parts(plan, size):
    made = layout(plan, size)
    shares = split_evenly(made.shards, 1000)
    assert len(shares) == 1000
    scale.check(made, shares)
    sizes = scale.share_sizes(made, 1000)
    assert sum(sizes) == made.nbytes
    largest = max(shard.nbytes for shard in made.shards)
    assert max(sizes) <= max(largest, 4 / 3 * made.nbytes / 1000)  # Graham's bound
    if len(made.shards) <= 1000:
        assert max(sizes) == largest
        assert sizes.count(0) == 1000 - len(made.shards)


def test_more_parts_than_the_largest_tensor_fits_into_the_whole_do_not_help(plan):
    made = layout(plan, "1GB")
    largest = max(fill.nbytes for fill in plan.filled.values())
    bound = plan.nbytes // largest
    few, many = (max(scale.share_sizes(made, parts)) for parts in (bound // 2, 2 * bound))
    assert few > 1.5 * largest
    assert many == pytest.approx(largest, rel=1e-6)


def test_what_is_wrong_is_seen(plan):
    made = layout(plan, "20GB")
    shares = split_evenly(made.shards, 7)
    scale.check(made, shares)
    first, *others = made.shards
    shifted = _with_header(first, first.header.replace(b'"data_offsets":[0,', b'"data_offsets":[2,'))
    for wrong in (
        Layout((first, first, *others), made.index),
        Layout(tuple(others), made.index),
        Layout(made.shards, made.index.replace(b"layers.77.", b"layers.78.")),
        Layout((shifted, *others), made.index),
    ):
        with pytest.raises(AssertionError):
            scale.check(wrong, [wrong.shards])
    for lost in (shares[1:], [*shares, shares[0]]):
        with pytest.raises(AssertionError):
            scale.check(made, lost)


def _with_header(shard, header):
    assert header != shard.header
    return type(shard)(shard.name, header, shard.entries, shard.nbytes)


def test_the_page_has_what_the_script_computes(plan):
    for name, table in scale.fixed_tables(plan).items():
        begin, end = report.markers(name)
        assert f"{begin}\n{table}{end}\n" in PAGE


def test_the_page_has_all_tables():
    for name in ("scale-job", "scale-parts", "scale-measured", "scale-nodes"):
        begin, end = report.markers(name)
        assert PAGE.split(begin)[1].split(end)[0].startswith("\n| ")


def test_calls_are_counted(tmp_path):
    calls = scale.calls_per_file(tmp_path)
    assert (calls["pwrite"], calls["fallocate"], calls["ftruncate"], calls["fsync"]) == (
        1,
        1,
        1,
        2,
    )  # the file and its folder
    assert calls["replace"] + calls["rename"] == 2  # under its name, into its place
    assert sum(calls.values()) < 25


def test_a_part_touches_no_file_of_the_others(tmp_path):
    totals = []
    for number in (8, 80):
        plan = fi.Plan({f"w{i:02}": ((1000,), "float32", "normal") for i in range(number)})
        folder = tmp_path / str(number)
        for part in (f"1/{number}", f"2/{number}"):
            with scale.counting() as counts:
                checkpoint.write(plan, folder, max_shard_bytes=4000, threads=1, part=part)
        totals.append(sum(counts.values()))
    assert totals[1] == totals[0]


def test_the_tables_of_what_is_timed(plan):
    found = {"threads": 2, "make": 1e9, "make_all": 2e9, "write": 5e8, "verify": 1e9, "memory": 5e7}
    found |= {"load": 0.02, "layout": 0.03, "check": 0.01, "calls": {"open": 3, "pwrite": 2}}
    head, line, one, *_, last = scale.nodes_table(plan, found).splitlines()
    assert head.count("|") == line.count("|") == one.count("|")
    made = layout(plan, scale.CHOSEN[1000])
    blocks = sum(-(-shard.nbytes // (16 << 20)) for shard in made.shards)
    cells = [cell.strip() for cell in last.split("|")[1:-1]]
    assert cells[0] == "1,000"
    assert cells[2] == f"{len(made.shards):,}"
    assert cells[4:6] == ["2.1 s", "8.4 s"]
    assert cells[-1] == f"{2 * blocks + 3 * len(made.shards):,}"
    assert [scale.duration(seconds) for seconds in (5, 119, 120, 7199, 7200)] == [
        "5.0 s", "119.0 s", "2.0 min", "120.0 min", "2.0 h"
    ]  # fmt: skip
