"""Verification: what was changed is found, named to the element, and mended."""

import json
import os
import shutil
import struct

import ml_dtypes
import numpy as np
import pytest

import fastinit as fi
from fastinit import checkpoint
from fastinit._core.composite import Values
from fastinit.checkpoint import _blocks as blocks
from fastinit.checkpoint import _compare as compare
from fastinit.checkpoint._layout import layout

PLAN = fi.Plan(
    {
        "a.weight": ((300, 70), "float32", "he_normal"),
        "b.weight": ((30, 7), "float16", "xavier_uniform"),
        "c.weight": ((500, 11), "bfloat16", fi.TruncatedNormal(0, 0.02, -0.04, 0.04)),
        "d.weight": ((40, 30), "float64", "orthogonal"),
        "e": ((), "float32", fi.Constant(3)),
        "f": ((0, 5), "float32", fi.Normal()),
        "g": fi.Fill((4,), "int64", Values(np.arange(4))),
    },
    seed=11,
)
MOST = "20KB"


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    for module in (blocks, compare):
        monkeypatch.setattr(module, "BLOCK_BYTES", 1 << 10)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound") / "out"
    checkpoint.write(PLAN, folder, max_shard_bytes=MOST)
    return folder


@pytest.fixture
def folder(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "out")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def entry_of(name):
    return next((s, e) for s in layout(PLAN, MOST).shards for e in s.entries if e.name == name)


def change(folder, name, flat, mask):
    """Flip bits of the lowest byte of an element."""
    shard, entry = entry_of(name)
    place = entry.offset + flat * np.dtype(entry.fill.dtype).itemsize
    with (folder / shard.name).open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ mask]))
    return shard.name


def test_a_sound_checkpoint(sound):
    found = checkpoint.verify(sound)
    assert (found.problems, found.differing, found.repaired) == ((), (), False)
    assert found.nbytes == sum(path.stat().st_size for path in sound.glob("*.safetensors"))
    assert found.tensors == 7


@pytest.mark.parametrize(
    ("name", "flat"), [("a.weight", 0), ("a.weight", 20_999), ("b.weight", 100), ("c.weight", 5499)]
)
@pytest.mark.parametrize("mask", [1, 0x80])
def test_a_single_bit_is_found_and_named(folder, name, flat, mask):
    file = change(folder, name, flat, mask)
    found = checkpoint.verify(folder)
    assert found.differing == (name,)
    (problem,) = found.problems
    index = [int(i) for i in np.unravel_index(flat, PLAN[name].shape)]
    assert problem.startswith(f"{file}: {name}{index} must be ")
    dtype = {"bfloat16": ml_dtypes.bfloat16}.get(PLAN[name].dtype, PLAN[name].dtype)
    wanted = fi.fill(np.empty(PLAN[name].shape, dtype), PLAN[name].distribution, seed=fi.Key(11) / name)
    assert f"must be {float(wanted.reshape(-1)[flat])!r}. Received: " in problem


def test_a_scalar_and_the_order_of_problems(folder):
    change(folder, "e", 0, 4)
    change(folder, "c.weight", 7, 4)
    change(folder, "c.weight", 5000, 4)
    change(folder, "a.weight", 9, 4)
    found = checkpoint.verify(folder, threads=3)
    assert found.differing == tuple(
        sorted(("a.weight", "c.weight", "e"), key=lambda name: (entry_of(name)[0].name, entry_of(name)[1].offset))
    )
    assert any("e[] must be 3.0. Received: 3.0000" in problem for problem in found.problems)
    assert sum("c.weight[0, 7]" in problem for problem in found.problems) == 1
    assert len(found.problems) == 3


def test_lapack_may_round_otherwise_but_not_more(folder):
    change(folder, "d.weight", 33, 1)  # the last bit of a float64
    assert checkpoint.verify(folder).problems == ()
    before = contents(folder)
    assert checkpoint.verify(folder, repair=True).repaired is False
    assert contents(folder) == before
    shard, entry = entry_of("d.weight")
    with (folder / shard.name).open("r+b") as file:
        file.seek(entry.offset + 33 * 8)
        value = struct.unpack("<d", file.read(8))[0]
        file.seek(entry.offset + 33 * 8)
        file.write(struct.pack("<d", value + 1e-12))
    assert checkpoint.verify(folder).differing == ("d.weight",)


def test_the_header(folder):
    shard, _ = entry_of("a.weight")
    path = folder / shard.name
    path.write_bytes(path.read_bytes()[:20] + b"?" + path.read_bytes()[21:])
    found = checkpoint.verify(folder)
    assert found.problems == (f"{shard.name}: header, byte 20 must be {shard.header[20]}. Received: 63",)


@pytest.mark.parametrize("kept", [0, 10, 1023, 1024, 5001, -1])
def test_a_truncated_file(folder, kept):
    shard, _ = entry_of("a.weight")
    path = folder / shard.name
    path.write_bytes(path.read_bytes()[:kept])
    size = path.stat().st_size
    found = checkpoint.verify(folder)
    assert found.problems[0] == f"{shard.name} must have {shard.nbytes:,} bytes. Received: {size:,}"
    assert "The file ends before" in found.problems[-1]
    assert len(found.problems) == 2


DAMAGES = {
    "flipped": lambda folder: change(folder, "a.weight", 12_345, 8),
    "truncated": lambda folder: os.truncate(folder / entry_of("a.weight")[0].name, 2000),
    "emptied": lambda folder: os.truncate(folder / entry_of("a.weight")[0].name, 0),
    "extended": lambda folder: os.truncate(folder / entry_of("b.weight")[0].name, 1 << 20),
    "missing": lambda folder: (folder / entry_of("c.weight")[0].name).unlink(),
    "no index": lambda folder: (folder / "model.safetensors.index.json").unlink(),
    "wrong index": lambda folder: (folder / "model.safetensors.index.json").write_text("{}"),
    "zeros": lambda folder: (folder / entry_of("a.weight")[0].name).write_bytes(
        bytes((folder / entry_of("a.weight")[0].name).stat().st_size)
    ),
}


@pytest.mark.parametrize("name", [*DAMAGES, "all"])
def test_what_is_damaged_is_repaired(sound, folder, name):
    for damage in DAMAGES if name == "all" else [name]:
        if not (name == "all" and damage == "wrong index"):
            DAMAGES[damage](folder)
    assert checkpoint.verify(folder).problems
    found = checkpoint.verify(folder, repair=True)
    assert found.repaired
    assert found.problems
    assert contents(folder) == contents(sound)
    again = checkpoint.verify(folder, repair=True)
    assert (again.problems, again.repaired) == ((), False)


def test_a_repair_keeps_what_waits_and_removes_what_a_killed_one_left(sound, folder):
    checkpoint.write(PLAN, folder, seed=5, max_shard_bytes=MOST, part="1/3", overwrite=True)
    waiting = contents(folder / ".fastinit")
    name = entry_of("a.weight")[0].name
    (folder / name).unlink()
    (folder / f".{name}.0123456789abcdef.tmp").write_bytes(b"half")
    assert checkpoint.verify(folder, repair=True).repaired
    assert contents(folder / ".fastinit") == waiting
    shutil.rmtree(folder / ".fastinit")
    assert contents(folder) == contents(sound)


def test_a_sample_compares_a_share(sound, folder):
    shard, _ = entry_of("a.weight")
    whole = checkpoint.verify(sound).nbytes
    part = checkpoint.verify(sound, sample=0.1).nbytes
    assert 0.08 * whole <= part <= 0.2 * whole
    assert checkpoint.verify(sound, sample="10%").nbytes <= 0.2 * whole
    assert checkpoint.verify(sound, sample="100%").nbytes == whole
    assert 0 < checkpoint.verify(sound, sample=1e-9).nbytes <= blocks.BLOCK_BYTES  # at least one block
    path = folder / shard.name
    path.write_bytes(path.read_bytes()[: len(shard.header)] + bytes(shard.nbytes - len(shard.header)))
    found = [len(checkpoint.verify(folder, sample=0.05).problems) for _ in range(20)]
    assert any(found)


@pytest.mark.parametrize("sample", [0, -0.1, 1.1, "0%", "101%", "x", "", "nan", float("nan")])
def test_samples_that_are_none(sound, sample):
    with pytest.raises(ValueError, match="sample must be"):
        checkpoint.verify(sound, sample=sample)


def test_a_repair_compares_all(sound):
    with pytest.raises(ValueError, match="repair needs all"):
        checkpoint.verify(sound, sample=0.5, repair=True)


def test_folders_that_cannot_be_verified(tmp_path, sound, folder):
    with pytest.raises(FileNotFoundError, match="is no folder"):
        checkpoint.verify(tmp_path / "missing")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="is no folder"):
        checkpoint.verify(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"fastinit.json is missing"):
        checkpoint.verify(tmp_path / "empty")
    checkpoint.write(PLAN, tmp_path / "part", max_shard_bytes=MOST, part="1/2")
    with pytest.raises(FileNotFoundError, match="is not finished"):
        checkpoint.verify(tmp_path / "part")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"format": "fastinit checkpoint 9"}', None, "seed", "tensors"],
)
def test_a_damaged_description_is_one_error(folder, text):
    path = folder / "fastinit.json"
    if text in ("seed", "tensors"):
        table = json.loads(path.read_text())
        table[text] = -5
        text = json.dumps(table)
    path.write_bytes(b"\xff\xfe" if text is None else text.encode())
    with pytest.raises(ValueError, match=r"fastinit.json is no description of a checkpoint"):
        checkpoint.verify(folder)


def test_the_sound_one_was_not_touched(sound):
    assert checkpoint.verify(sound).problems == ()
