"""The layout: pure, so every promise is checked on it without a file."""

import itertools
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastinit as fi
from fastinit._io import safetensors as headers
from fastinit.checkpoint._layout import as_bytes, layout, split_evenly

SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}

plans = st.lists(
    st.tuples(st.lists(st.integers(0, 7), max_size=3), st.sampled_from(["float16", "bfloat16", "float32", "float64"])),
    max_size=12,
).map(lambda tensors: fi.Plan({f"t{i}": (shape, dtype, "zeros") for i, (shape, dtype) in enumerate(tensors)}))


@given(plans, st.integers(1, 1000))
@settings(max_examples=150, deadline=None)
def test_every_tensor_is_in_one_file_without_holes(plan, most):
    found = layout(plan, most)
    names = [entry.name for shard in found.shards for entry in shard.entries]
    assert sorted(names) == sorted(plan)
    for shard in found.shards:
        header = json.loads(shard.header[8:])
        assert int.from_bytes(shard.header[:8], "little") == len(shard.header) - 8
        assert len(shard.header) % 64 == 0
        assert header.pop("__metadata__") == {"format": "pt"}
        assert list(header) == [entry.name for entry in shard.entries]
        position = len(shard.header)
        for entry in shard.entries:
            row = header[entry.name]
            assert row["shape"] == list(plan[entry.name].shape)
            assert [len(shard.header) + offset for offset in row["data_offsets"]] == [entry.offset, entry.end]
            assert entry.offset == position
            assert entry.nbytes == math.prod(row["shape"]) * SIZES[row["dtype"]]
            position = entry.end
        assert shard.nbytes == position
        assert position - len(shard.header) <= most or len(shard.entries) == 1
        sizes = [SIZES[row["dtype"]] for row in header.values()]
        assert sizes == sorted(sizes, reverse=True)


@given(plans, st.integers(1, 200))
@settings(max_examples=100, deadline=None)
def test_files_follow_the_plan_and_are_as_full_as_they_can_be(plan, most):
    shards = layout(plan, most).shards
    groups = [[name for name in plan if name in {entry.name for entry in shard.entries}] for shard in shards]
    assert [name for group in groups for name in group] == list(plan)
    for before, after in itertools.pairwise(groups):
        assert sum(plan[name].nbytes for name in before) + plan[after[0]].nbytes > most


def test_names_and_index_are_those_of_hugging_face():
    plan = fi.Plan({"a": ((4,), "float32", "ones"), "b": ((2, 3), "float16", "ones"), "ä": ((1,), "float64", "ones")})
    found = layout(plan, 20)
    assert [shard.name for shard in found.shards] == [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    assert json.loads(found.index) == {
        "metadata": {"total_parameters": 11, "total_size": 36},
        "weight_map": {"a": found.shards[0].name, "b": found.shards[1].name, "ä": found.shards[1].name},
    }
    whole = layout(plan, 36)
    assert ([shard.name for shard in whole.shards], whole.index) == (["model.safetensors"], None)
    assert layout(fi.Plan({})).shards[0].entries == ()


def test_what_checkpoints_leave_out():
    plan = fi.Plan(
        {
            "a": ((4,), "float32", "ones"),
            "b": fi.Tied("a"),
            "c": fi.Fill((3,), "float32", "ones", persistent=False),
        }
    )
    assert [entry.name for entry in layout(plan).shards[0].entries] == ["a"]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *[("60MB", 60_000_000), ("5GB", 5 * 10**9), ("2GiB", 2 << 30), ("1.5 kib", 1536), ("7", 7), ("7b", 7)],
        *[("5G", 5 * 10**9), ("2Gi", 2 << 30), ("1.5k", 1500), ("3 M", 3_000_000), ("1t", 10**12), ("1Ti", 1 << 40)],
        (12, 12),
    ],
)
def test_sizes(text, number):
    assert as_bytes(text) == number


@pytest.mark.parametrize("text", ["", "GB", "5XB", "5i", "5Bi", "-5GB", "0", "0.1B", "1e3", "5 G B", 0, -1])
def test_sizes_that_are_none(text):
    with pytest.raises(ValueError, match=r"size|positive"):
        as_bytes(text)


def test_a_header_that_the_library_would_not_read(monkeypatch):
    assert headers.LONGEST == 100_000_000
    plan = fi.Plan({"x" * 1000: ((1,), "float32", "zeros")})
    length = len(layout(plan).shards[0].header) - 8
    monkeypatch.setattr(headers, "LONGEST", length)
    layout(plan)
    monkeypatch.setattr(headers, "LONGEST", length - 1)
    message = rf"the header of model.safetensors must have at most {length - 1:,} bytes. Needed: {length:,}"
    with pytest.raises(ValueError, match=message):
        layout(plan)


def test_a_dtype_that_safetensors_does_not_have():
    import numpy as np

    from fastinit._core.composite import Values

    plan = fi.Plan({"z": fi.Fill((2,), "complex128", Values(np.zeros(2, np.complex128)))})
    with pytest.raises(ValueError, match="safetensors has no dtype complex128: 'z'"):
        layout(plan)


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=60), st.integers(1, 20))
@settings(max_examples=200, deadline=None)
def test_shares_are_even(sizes, parts):
    plan = fi.Plan({f"{i}": ((n,), "float64", "zeros") for i, n in enumerate(sizes)})
    shards = layout(plan, 1).shards
    shares = split_evenly(shards, parts)
    assert len(shares) == parts
    assert sorted(shard.name for one in shares for shard in one) == [shard.name for shard in shards]
    loads = [sum(shard.nbytes for shard in one) for one in shares]
    largest = max(shard.nbytes for shard in shards)
    assert max(loads) - min(loads) <= largest  # what handing out the largest first guarantees


def test_shares_go_by_bytes_and_not_by_files():
    plan = fi.Plan({f"{i}": ((n,), "float64", "zeros") for i, n in enumerate([5000, 10_000, 5000])})
    shares = split_evenly(layout(plan, 1).shards, 2)
    assert [[entry.name for shard in one for entry in shard.entries] for one in shares] == [["1"], ["0", "2"]]
