"""Blocks: any bytes of a file, made alone, are those of the whole file."""

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastinit as fi
from fastinit._core.composite import Cast, Patched, SameAs, Values
from fastinit._core.structured import needs_all
from fastinit._runtime.arrays import boxes
from fastinit.checkpoint import _blocks as blocks
from fastinit.checkpoint._layout import layout

SHAPE = (10, 6, 7)
LAWS = {
    "normal": fi.Normal(0, 0.02),
    "uniform": fi.Uniform(-1, 1),
    "truncated": fi.TruncatedNormal(0, 1, -2, 2),
    "constant": fi.Constant(0.5),
    "orthogonal": fi.Orthogonal(),
    "delta": fi.DeltaOrthogonal(2.0),
    "dirac": fi.Dirac(),
    "cast": Cast(fi.Normal(), "float16"),
    "same": Cast(SameAs(("other", "name"), fi.Uniform(), (20, 70), 0, (60, 12, 1)), "float64"),
    "values": Values(np.arange(420.0).reshape(SHAPE)),
    "patched": Patched((((), fi.Normal()), ((slice(2, 5), slice(1, 9, 2)), fi.Constant(3)))),
    "patched orthogonal": Patched((((), fi.Normal()), ((slice(0, 3),), fi.Orthogonal()))),
}


@given(st.lists(st.integers(1, 5), max_size=4), st.data())
@settings(max_examples=150, deadline=None)
def test_boxes_are_the_elements_in_order(shape, data):
    size = math.prod(shape)
    start = data.draw(st.integers(0, size))
    stop = data.draw(st.integers(start, size))
    whole = np.arange(size).reshape(shape)
    parts = [whole[box].reshape(-1) for box in boxes(tuple(shape), start, stop)]
    assert np.concatenate([np.empty(0, int), *parts]).tolist() == list(range(start, stop))
    assert len(parts) <= max(1, 2 * len(shape) - 1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", LAWS)
def test_elements_of_every_law_made_alone(name, dtype):
    law, layout = LAWS[name], "io" if name == "orthogonal" else "oi"
    plan = fi.Plan({"w": fi.Fill(SHAPE, "float64" if name == "values" else dtype, law, layout=layout)})
    tensor, key = plan.of("w"), fi.Key(5) / "a"
    whole = np.empty(SHAPE, tensor.dtype)
    tensor.fill(whole, key)
    for start, stop in [(0, 420), (0, 1), (419, 420), (3, 5), (68, 73), (70, 140), (65, 357)]:
        part = np.empty(stop - start, tensor.dtype)
        tensor.fill_flat(part, key, start)
        assert part.tobytes() == whole.reshape(-1)[start:stop].tobytes()


def test_which_laws_need_all():
    assert {name for name, law in LAWS.items() if needs_all(law)} == {"orthogonal", "delta", "patched orthogonal"}
    assert needs_all(fi.Sparse(0.5))


@pytest.fixture
def shard():
    tensors = {name: fi.Fill(SHAPE, "float64" if name == "values" else "float32", law) for name, law in LAWS.items()}
    tensors["empty"] = fi.Fill((0, 3), "float32", fi.Normal())
    tensors["scalar"] = fi.Fill((), "bfloat16", fi.Normal())
    (found,) = layout(fi.Plan(tensors)).shards
    return found


def file_of(shard, key):
    """The whole file, tensor by tensor."""
    data = shard.header
    for entry in shard.entries:
        values = np.empty(entry.fill.shape, entry.fill.dtype)
        entry.fill.fill(values, key)
        data += values.tobytes()
    return data


@pytest.mark.parametrize("size", [64, 1 << 10, 1 << 14, 1 << 24])
def test_blocks_are_the_file(shard, size, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", size)
    maker, buffer = blocks.Maker(fi.Key(1) / "b"), np.empty(size, np.uint8)
    every = list(blocks.blocks(shard))
    assert [block.start for block in every] == list(range(0, shard.nbytes, size))
    expected = file_of(shard, fi.Key(1) / "b")
    made = b"".join(maker.make(block, buffer).tobytes() for block in every)
    assert made == expected
    for block in every[::-1]:  # alone, and in another order
        made = blocks.Maker(fi.Key(1) / "b").make(block, buffer)
        assert made.tobytes() == expected[block.start : block.stop]


def test_what_needs_all_is_made_once_for_all_of_its_blocks(shard, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 256)
    made = []
    fill = fi.Fill.fill

    def counting(self, out, key, region=None):
        made.append((self.name, region is None))
        fill(self, out, key, region)

    monkeypatch.setattr(fi.Fill, "fill", counting)
    maker, buffer = blocks.Maker(fi.Key(0)), np.empty(256, np.uint8)
    for block in blocks.blocks(shard):
        maker.make(block, buffer)
    for name in ("orthogonal", "delta", "patched orthogonal"):
        assert made.count((name, True)) == 1
        assert made.count((name, False)) == 0
    assert not [name for name, whole in made if whole and name not in ("orthogonal", "delta", "patched orthogonal")]


def test_elements_beyond_2_to_the_32():
    (shard,) = layout(fi.Plan({"w": ((1 << 20, 1 << 13), "bfloat16", "normal")}), 1 << 40).shards
    start = (17 << 30) - (17 << 30) % blocks.BLOCK_BYTES - blocks.BLOCK_BYTES
    block = blocks.Block(shard, start, start + blocks.BLOCK_BYTES)
    made = blocks.Maker(fi.Key(0)).make(block, np.empty(blocks.BLOCK_BYTES, np.uint8)).view(ml_dtypes.bfloat16)
    first = (start - len(shard.header)) // 2
    assert first > 1 << 32
    row, column = divmod(first, 1 << 13)
    region = (slice(row, row + 1), slice(column, column + 100))
    wanted = fi.normal((1 << 20, 1 << 13), dtype="bfloat16", seed=fi.Key(0) / "w", region=region)
    assert made[: wanted.size].tobytes() == wanted.tobytes()
