"""Verification: what was changed is found, named to the element, and mended."""

import json
import os
import shutil

import ml_dtypes
import numpy as np
import pytest
import torch
import typer
from safetensors.torch import load_file, save_file

import fastinit as fi
from fastinit import checkpoint, cli
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
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 1234\n"


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


def test_the_last_bit_of_an_orthogonal_matrix(folder):
    before = contents(folder)
    assert checkpoint.verify(folder).problems == ()
    change(folder, "d.weight", 33, 1)  # of a float64
    assert checkpoint.verify(folder).differing == ("d.weight",)
    assert checkpoint.verify(folder, repair=True).repaired
    assert contents(folder) == before


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


# --- saved again by other programs ---

INDEX = "model.safetensors.index.json"


def loaded(folder):
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def saved(folder, files, *, index=True, **metadata):
    """Replace the files of a checkpoint: {file: {name: tensor}}."""
    for path in folder.glob("model*"):
        path.unlink()
    for file, tensors in files.items():
        save_file(tensors, folder / file, metadata=metadata or None)
    if index:
        weight_map = {name: file for file, tensors in files.items() for name in tensors}
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": dict(sorted(weight_map.items()))}))


def each_file_again(folder):
    for path in folder.glob("*.safetensors"):
        save_file(load_file(path), path, metadata={"format": "pt", "by": "another program"})


def into(*stems):
    def save(folder):
        names = sorted(tensors := loaded(folder))
        groups = {f"{stem}.safetensors": names[i :: len(stems)] for i, stem in enumerate(stems)}
        files = {file: {name: tensors[name] for name in group} for file, group in groups.items()}
        saved(folder, files, index=len(stems) > 1)

    return save


def misaligned(folder):
    """Into one file whose data begin at an odd byte, the smallest tensors first: another writer may do so."""
    tensors = {name: tensor.numpy() for name, tensor in loaded(folder).items() if tensor.dtype != torch.bfloat16}
    tensors["c.weight"] = loaded(folder)["c.weight"].view(torch.uint16).numpy()
    table, data = {}, b""
    codes = {"float32": "F32", "float16": "F16", "float64": "F64", "int64": "I64", "uint16": "BF16"}
    for name, array in sorted(tensors.items(), key=lambda item: item[1].nbytes):
        ends = [len(data), len(data) + array.nbytes]
        table[name] = {"dtype": codes[array.dtype.name], "shape": list(array.shape), "data_offsets": ends}
        data += array.tobytes()
    text = json.dumps(table).encode()
    text += b" " * (1 - len(text) % 2)  # an odd number, and so for all that follows
    for path in folder.glob("model*"):
        path.unlink()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)


RESAVED = {
    "each file again": each_file_again,
    "one file": into("model"),
    "one file beside the old index": lambda folder: (
        (index := (folder / INDEX).read_bytes()) and (into("model")(folder), (folder / INDEX).write_bytes(index))
    ),
    "two shards": into("model-00001-of-00002", "model-00002-of-00002"),
    "other names": into("a", "b", "c"),
    "misaligned": misaligned,
}


@pytest.mark.parametrize("how", RESAVED)
def test_a_checkpoint_that_was_saved_again_is_compared_by_tensor(folder, how):
    RESAVED[how](folder)
    found = checkpoint.verify(folder)
    assert (found.problems, found.layout) == ((), "other")
    assert found.nbytes >= sum(tensor.nbytes for tensor in PLAN.filled.values())
    before = contents(folder)
    assert checkpoint.verify(folder, repair=True).repaired is False
    assert contents(folder) == before
    assert 0 < checkpoint.verify(folder, sample="10%").nbytes < found.nbytes / 4


def place_of(folder, name, flat):
    """The file of a tensor, by its own header, and the place of an element."""
    for path in folder.glob("*.safetensors"):
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        row = json.loads(data[8 : 8 + length]).get(name)
        if row:
            size = (row["data_offsets"][1] - row["data_offsets"][0]) // max(1, np.prod(row["shape"], dtype=int))
            return path, 8 + length + row["data_offsets"][0] + int(flat) * int(size)
    raise AssertionError(name)


@pytest.mark.parametrize("how", RESAVED)
def test_a_changed_element_is_named_and_mended_where_it_is(folder, how):
    RESAVED[how](folder)
    before = contents(folder)
    for name, flat in (("a.weight", 12_345), ("b.weight", 209), ("c.weight", 5499), ("e", 0), ("g", 3)):
        path, place = place_of(folder, name, flat)
        data = bytearray(path.read_bytes())
        data[place] ^= 0x41
        path.write_bytes(data)
        found = checkpoint.verify(folder, threads=2)
        index = [int(i) for i in np.unravel_index(flat, PLAN[name].shape)] if PLAN[name].shape else []
        array = np.empty(PLAN[name].shape, PLAN[name].dtype)
        PLAN.of(name).fill(array, PLAN.key())
        expected = array.reshape(-1)[flat].item()
        (problem,) = found.problems
        assert found.differing == (name,)
        assert problem.startswith(f"{path.name}: {name}{index} must be {expected!r}. Received: ")
        assert checkpoint.verify(folder, repair=True).repaired
        assert contents(folder) == before


def changed(folder, name, tensor=None, *, into="model.safetensors"):
    tensors = load_file(folder / into) if (folder / into).exists() else {}
    if tensor is None:
        del tensors[name]
    else:
        tensors[name] = tensor
    save_file(tensors, folder / into)


def cut(folder, nbytes):
    path = folder / "model.safetensors"
    os.truncate(path, nbytes if nbytes >= 0 else path.stat().st_size + nbytes)


WRONG = {
    "a dtype": (
        lambda f: changed(f, "b.weight", torch.zeros(30, 7)),
        ["model.safetensors: b.weight must be float16 of shape [30, 7]. Received: float32 of shape [30, 7]"],
    ),
    "a shape": (
        lambda f: changed(f, "b.weight", torch.zeros(7, 30).half()),
        ["model.safetensors: b.weight must be float16 of shape [30, 7]. Received: float16 of shape [7, 30]"],
    ),
    "a tensor less": (lambda f: changed(f, "e"), ["e is in no file"]),
    "an empty tensor less": (lambda f: changed(f, "f"), ["f is in no file"]),
    "a tensor more": (lambda f: changed(f, "more", torch.ones(3)), ["model.safetensors: more is not in the plan"]),
    "cut off in the header": (
        lambda f: cut(f, 100),
        ["model.safetensors: no safetensors file, or cut off: a header of", "a.weight is in no file"],
    ),
    "cut off": (lambda f: cut(f, -100), ["model.safetensors must have ", ". The file ends before"]),
    "no file": (lambda f: (f / "model.safetensors").unlink(), ["model-00001-of-0", "index.json is missing"]),
    "two files": (
        lambda f: (
            into("model-00001-of-00002", "model-00002-of-00002")(f),
            changed(f, "e", torch.tensor(3.0), into="model-00001-of-00002.safetensors"),
            changed(f, "e", torch.tensor(3.0), into="model-00002-of-00002.safetensors"),
        ),
        ["model-00002-of-00002.safetensors: e is in model-00001-of-00002.safetensors too", "index.json is not what"],
    ),
    "no index": (
        lambda f: (into("model-00001-of-00002", "model-00002-of-00002")(f), (f / INDEX).unlink()),
        ["model.safetensors.index.json is missing"],
    ),
    "an index of names that are not there": (
        lambda f: (
            into("model-00001-of-00002", "model-00002-of-00002")(f),
            index_names(f, {"x": "model-00001-of-0000"}),
        ),
        ["model.safetensors.index.json is not what it should be"],
    ),
    "a broken index": (
        lambda f: (into("model-00001-of-00002", "model-00002-of-00002")(f), (f / INDEX).write_text("{")),
        ["model.safetensors.index.json is not what it should be"],
    ),
    "a shard less": (
        lambda f: (
            into("model-00001-of-00002", "model-00002-of-00002")(f),
            (f / "model-00002-of-00002.safetensors").unlink(),
        ),
        ["model-00002-of-00002.safetensors is missing"],
    ),
}


def index_names(folder, more):
    table = json.loads((folder / INDEX).read_text())
    table["weight_map"] |= {
        name: next(f for f in table["weight_map"].values() if f[:19] == file) for name, file in more.items()
    }
    (folder / INDEX).write_text(json.dumps(table))


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_in_another_layout_is_said_and_repaired(sound, folder, what):
    into("model")(folder)
    damage, messages = WRONG[what]
    damage(folder)
    found = checkpoint.verify(folder)
    assert all(any(message in problem for problem in found.problems) for message in messages)
    assert len(found.problems) == len(messages) or what in ("cut off in the header", "no file")
    assert found.differing == (("b.weight",) if what in ("a dtype", "a shape", "cut off") else ())
    assert checkpoint.verify(folder, repair=True).repaired
    again = checkpoint.verify(folder)
    assert again.problems == ()
    whole = what not in ("cut off", "no index", "a broken index", "an index of names that are not there")
    assert again.layout == ("planned" if whole else "other")
    if whole:
        assert contents(folder) == contents(sound)


def test_one_file_in_another_layout_and_one_missing(sound, folder):
    name = entry_of("c.weight")[0].name
    each_file_again(folder)
    (folder / name).unlink()
    before = contents(folder)
    assert checkpoint.verify(folder).problems == (f"{name} is missing",)
    assert checkpoint.verify(folder, repair=True).repaired
    assert contents(folder) == before | {name: (sound / name).read_bytes()}


def test_a_header_that_cannot_be_read_says_so_and_gives_no_values(sound, folder):
    shard, _ = entry_of("a.weight")
    each_file_again(folder)
    os.truncate(folder / shard.name, 60)
    (problem,) = checkpoint.verify(folder).problems
    assert problem.startswith(f"{shard.name}: no safetensors file, or cut off: a header of ")
    assert checkpoint.verify(folder, repair=True).repaired
    assert (folder / shard.name).read_bytes() == (sound / shard.name).read_bytes()


@pytest.mark.parametrize("which", ["one for all", "a planned shard", "one of another layout"])
def test_a_git_lfs_pointer_is_named_and_replaced(sound, folder, which):
    if which == "one for all":
        for path in folder.glob("model*"):
            path.unlink()
        name = "model.safetensors"
    elif which == "a planned shard":
        name = entry_of("c.weight")[0].name
    else:
        tensors, name = loaded(folder), "y.safetensors"
        saved(folder, {"x.safetensors": {"b.weight": tensors.pop("b.weight")}, name: tensors})
    (folder / name).write_bytes(POINTER)
    assert f"{name} is a Git LFS pointer: run `git lfs pull`" in checkpoint.verify(folder).problems
    assert checkpoint.verify(folder, repair=True).repaired
    again = checkpoint.verify(folder)
    assert again.problems == ()
    assert POINTER not in contents(folder).values()


def test_a_shard_is_added_to_another_layout_where_that_lacks_its_tensors(folder):
    shard, _ = entry_of("a.weight")
    lacking = {entry.name for entry in shard.entries}
    rest = {name: tensor for name, tensor in loaded(folder).items() if name not in lacking}
    saved(folder, {"x.safetensors": {"b.weight": rest.pop("b.weight")}, "y.safetensors": rest})
    before = contents(folder)
    assert checkpoint.verify(folder).problems == tuple(f"{name} is in no file" for name in sorted(lacking))
    assert checkpoint.verify(folder, repair=True).repaired
    again = checkpoint.verify(folder)
    assert (again.problems, again.layout) == ((), "other")
    assert {name: data for name, data in contents(folder).items() if name in before and name != INDEX} == {
        name: data for name, data in before.items() if name != INDEX
    }


def test_shards_and_their_index_give_way_to_one_file(tmp_path):
    checkpoint.write(TIED, tmp_path)
    before, tensors = contents(tmp_path), load_file(tmp_path / "model.safetensors")
    saved(
        tmp_path,
        {"model-00001-of-00002.safetensors": tensors, "model-00002-of-00002.safetensors": {"x": torch.ones(2)}},
    )
    assert checkpoint.verify(tmp_path).problems == ("model-00002-of-00002.safetensors: x is not in the plan",)
    assert checkpoint.verify(tmp_path, repair=True).repaired
    assert contents(tmp_path).keys() >= before.keys()
    assert INDEX not in contents(tmp_path)
    assert checkpoint.verify(tmp_path).layout == "planned"


def test_files_beside_a_checkpoint_are_not_touched(folder):
    save_file({"lora": torch.ones(2)}, folder / "adapter_model.safetensors")
    with pytest.warns(UserWarning, match=r"are read, not adapter_model\.safetensors"):
        assert checkpoint.verify(folder).layout == "planned"
    for path in folder.glob("model*"):
        path.unlink()
    found = checkpoint.verify(folder, repair=True)
    assert all("is missing" in problem for problem in found.problems)
    assert (folder / "adapter_model.safetensors").exists()


def test_what_from_pretrained_loads_is_compared(folder):
    """transformers takes model.safetensors where there are shards too."""
    changed(folder, "e", torch.tensor(5.0))
    with pytest.warns(UserWarning, match=r": model\.safetensors is read, not model-00001-of-"):
        assert "a.weight is in no file" in checkpoint.verify(folder).problems


def test_the_command_says_which_layout_it_found(folder, capsys):
    into("model")(folder)
    cli._checkpoints.verify(folder, sample="100%", repair=False, threads=1, as_json=False)
    assert capsys.readouterr().out.startswith(f"{folder}: same tensors, other layout; 7 tensors, ")
    cli._checkpoints.verify(folder, sample="100%", repair=False, threads=1, as_json=True)
    assert json.loads(capsys.readouterr().out)["layout"] == "other"
    changed(folder, "e", torch.tensor(5.0))
    with pytest.raises(typer.Exit) as caught:
        cli._checkpoints.verify(folder, sample="100%", repair=False, threads=1, as_json=False)
    assert caught.value.exit_code == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "model.safetensors: e[] must be 3.0. Received: 5.0"
    assert lines[1].startswith(f"{folder}: 1 problems; ")


def test_a_row_of_threads_and_blocks_gives_one_answer(folder):
    """The first element of a tensor over several blocks, whichever thread finds it."""
    into("model")(folder)
    for flat in (20_000, 300, 9_000):
        path, place = place_of(folder, "a.weight", flat)
        with path.open("r+b") as file:
            file.seek(place)
            file.write(b"\1\2\3\4")
    for threads in (1, 2, 5):
        (problem,) = checkpoint.verify(folder, threads=threads).problems
        assert "a.weight[4, 20] must be " in problem


TIED = fi.Plan(
    {
        "embed": ((8, 4), "float32", "normal"),
        "head": fi.Tied("embed"),
        "mask": fi.Fill((4,), "int64", Values(np.arange(4))),
    }
)


@pytest.mark.parametrize("names", [("embed", "head"), ("head",)])
def test_tied_tensors_may_be_saved_under_either_name_or_both(tmp_path, names):
    checkpoint.write(TIED, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    embed = tensors.pop("embed")
    save_file(tensors | {name: embed.clone() for name in names}, tmp_path / "model.safetensors")
    assert checkpoint.verify(tmp_path).problems == ()
    embed[3, 2] = 9
    changed(tmp_path, "head", embed.clone())
    (problem,) = checkpoint.verify(tmp_path).problems
    assert "head[3, 2] must be " in problem
    assert problem.endswith("Received: 9.0")
    assert checkpoint.verify(tmp_path, repair=True).repaired
    assert checkpoint.verify(tmp_path).problems == ()


def test_the_sound_one_was_not_touched(sound):
    assert checkpoint.verify(sound).problems == ()
