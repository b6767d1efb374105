"""Folders as the Hub has them: which files are read, what is said of the others."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from fastinit import checkpoint, sources
from fastinit._io.safetensors import INDEX_NAME

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 1234\n"


def make(folder, files):
    """A folder of files: the names of the tensors of a safetensors file, the weight map of an index, bytes, a link."""
    for name, holds in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(holds, bytes):
            path.write_bytes(holds)
        elif isinstance(holds, dict):
            path.write_text(json.dumps({"weight_map": holds}))
        elif isinstance(holds, os.PathLike):
            path.symlink_to(holds)
        else:  # its values say which file it is
            place = np.float32(list(files).index(name))
            save_file({tensor: np.full((2, 2), place + i / 9, "f4") for i, tensor in enumerate(holds)}, path)
    return folder


def look(path):
    """({tensor: file}, the warnings) of a survey, which those of a plan must agree with."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = checkpoint.survey(path)
    said = [str(warning.message).replace(str(path), "DIR") for warning in caught]
    assert all(warning.filename == __file__ for warning in caught)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plan = sources.read(str(path), scheme="he_normal").plan
    assert list(plan) == [tensor.name for tensor in found.tensors]
    assert len(caught) == len(said)
    return {tensor.name: tensor.file for tensor in found.tensors}, said


D = "diffusion_pytorch_model"
ONE, TWO, THREE = (
    "model-00001-of-00003.safetensors",
    "model-00002-of-00003.safetensors",
    "model-00003-of-00003.safetensors",
)
SHARDS = {ONE: "a", TWO: "b", THREE: "c"}
MAP = {"a": ONE, "b": TWO, "c": THREE}

CASES = {
    "variants of diffusers": (
        {f"{D}.{v}safetensors": "ab" for v in ("", "bf16.", "fp16.", "non_ema.")},
        {"a": f"{D}.safetensors", "b": f"{D}.safetensors"},
        [f"DIR: {D}.safetensors is read, not {D}.bf16.safetensors, {D}.fp16.safetensors, {D}.non_ema.safetensors"],
    ),
    "variants of a single-file model": (
        {"sd_xl_1.0.safetensors": "a", "sd_xl_1.0.fp16.safetensors": "a"},
        {"a": "sd_xl_1.0.safetensors"},
        ["DIR: sd_xl_1.0.safetensors is read, not sd_xl_1.0.fp16.safetensors"],
    ),
    "only variants": (
        {"model.fp16.safetensors": "a", "model.fp32.safetensors": "a", "model.bf16.safetensors": "a"},
        {"a": "model.fp32.safetensors"},
        ["DIR: model.fp32.safetensors is read, not model.bf16.safetensors, model.fp16.safetensors"],
    ),
    "other names with dots": (
        {"model.encoder.safetensors": "a", "model.decoder.safetensors": "b", "layer.1.safetensors": "c"},
        {"c": "layer.1.safetensors", "b": "model.decoder.safetensors", "a": "model.encoder.safetensors"},
        [],
    ),
    "one variant": ({f"{D}.fp16.safetensors": "ab"}, dict.fromkeys("ab", f"{D}.fp16.safetensors"), []),
    "shards of a variant beside the default's": (
        SHARDS
        | {INDEX_NAME: MAP, "model.fp16-00001-of-00002.safetensors": "ab", "model.fp16-00002-of-00002.safetensors": "c"}
        | {"model.safetensors.index.fp16.json": dict.fromkeys("ab", "model.fp16-00001-of-00002.safetensors")},
        MAP,
        [
            f"DIR: {ONE}, {TWO}, {THREE} are read, "
            "not model.fp16-00001-of-00002.safetensors, model.fp16-00002-of-00002.safetensors"
        ],
    ),
    "shards of a variant, by both namings": (
        {"model-00001-of-00002.fp16.safetensors": "a", "model-00002-of-00002.fp16.safetensors": "b"},
        {"a": "model-00001-of-00002.fp16.safetensors", "b": "model-00002-of-00002.fp16.safetensors"},
        [],
    ),
    "a number of shards that says nothing": (
        {"model-00001-of-00000.safetensors": "a"},
        {"a": "model-00001-of-00000.safetensors"},
        [],
    ),
    "an index of diffusers": (
        {f"{D}-00001-of-00002.safetensors": "a", f"{D}-00002-of-00002.safetensors": "b"}
        | {
            f"{D}.safetensors.index.json": {
                "a": f"{D}-00001-of-00002.safetensors",
                "b": f"{D}-00002-of-00002.safetensors",
            }
        },
        {"a": f"{D}-00001-of-00002.safetensors", "b": f"{D}-00002-of-00002.safetensors"},
        [],
    ),
    "an index of another name": (
        {
            "w.safetensors": "ab",
            "x.safetensors": "a",
            "y.safetensors": "b",
            "z.safetensors.index.json": {"a": "x.safetensors", "b": "y.safetensors"},
        },
        {"a": "x.safetensors", "b": "y.safetensors"},
        ["DIR: x.safetensors, y.safetensors are read, not w.safetensors"],
    ),
    "consolidated beside shards": (
        SHARDS | {INDEX_NAME: MAP, "consolidated.safetensors": "xyz"},
        MAP,
        [f"DIR: {ONE}, {TWO}, {THREE} are read, not consolidated.safetensors"],
    ),
    "consolidated beside one file, an adapter, what trainers and exporters leave, and a folder": (
        {"model.safetensors": "a", "consolidated.00.safetensors": "x", "adapter_model.safetensors": "l"}
        | {
            "optimizer.pt": b"PK",
            "training_args.bin": b"PK",
            "onnx/model.onnx": b"",
            "original/consolidated.safetensors": "x",
        },
        {"a": "model.safetensors"},
        ["DIR: model.safetensors is read, not adapter_model.safetensors, consolidated.00.safetensors"],
    ),
    "shards without an index": (SHARDS, MAP, []),
    "a shard less, without an index": (
        {ONE: "a", THREE: "c"},
        {"a": ONE, "c": THREE},
        [f"DIR: {TWO} is missing or a Git LFS pointer: its tensors are left out"],
    ),
    "shards that are counted from 0": (
        {"model-00000-of-00003.safetensors": "a", "model-00002-of-00003.safetensors": "b"},
        {"a": "model-00000-of-00003.safetensors", "b": "model-00002-of-00003.safetensors"},
        ["DIR: model-00001-of-00003.safetensors is missing or a Git LFS pointer: its tensors are left out"],
    ),
    "a shard less": (
        {ONE: "a", TWO: "b", INDEX_NAME: MAP},
        {"a": ONE, "b": TWO},
        [f"DIR: {THREE} is missing or a Git LFS pointer: its tensors are left out"],
    ),
    "a pointer and a dead link": (
        {ONE: "a", TWO: POINTER, THREE: Path("gone"), INDEX_NAME: MAP},
        {"a": ONE},
        [f"DIR: {TWO}, {THREE} are missing or a Git LFS pointer: its tensors are left out"],
    ),
    "shards of two numbers, one complete": (
        SHARDS | {"model-00001-of-00002.safetensors": "ab"},
        MAP,
        [f"DIR: {ONE}, {TWO}, {THREE} are read, not model-00001-of-00002.safetensors"],
    ),
    "an index of shards that are gone": (
        {"model.safetensors": "abc", INDEX_NAME: MAP},
        dict.fromkeys("abc", "model.safetensors"),
        [],
    ),
    "an index of files that are gone, beside other shards": (
        SHARDS | {INDEX_NAME: {"a": "model-00001-of-00001.safetensors"}},
        MAP,
        [f"DIR/{INDEX_NAME}: none of its files is there: the shards beside it are read"],
    ),
    "one file and its index": (
        {"model.safetensors": "a", INDEX_NAME: {"a": "model.safetensors"}},
        {"a": "model.safetensors"},
        [],
    ),
    "an index of absent tensors": (
        {"model.safetensors": "ab", INDEX_NAME: {"a": "model.safetensors", "x": "model.safetensors"}},
        dict.fromkeys("ab", "model.safetensors"),
        [f"DIR/{INDEX_NAME}: 'x' is in no file of the index", f"DIR/{INDEX_NAME}: 'b' is not in the index, but read"],
    ),
    "a tensor in two files of an index": (
        {
            "x.safetensors": "ab",
            "y.safetensors": "bc",
            INDEX_NAME: {"a": "x.safetensors", "b": "y.safetensors", "c": "y.safetensors"},
        },
        {"a": "x.safetensors", "b": "y.safetensors", "c": "y.safetensors"},
        [],
    ),
    "a pipeline": (
        {
            "model_index.json": b"{}",
            "unet/config.json": b"{}",
            "scheduler/scheduler_config.json": b"{}",
            "v1-5.safetensors": "q",
        }
        | {f"unet/{D}.safetensors": "a", f"unet/{D}.fp16.safetensors": "a", f"vae/{D}.safetensors": "a"}
        | {"te/model.safetensors": "a", ".cache/model.safetensors": "h"},
        {
            "te/a": "te/model.safetensors",
            "unet/a": f"unet/{D}.safetensors",
            "vae/a": f"vae/{D}.safetensors",
        },
        [
            "DIR: 3 models are read, each under its folder's name: te, unet, vae, not v1-5.safetensors beside",
            f"DIR/unet: {D}.safetensors is read, not {D}.fp16.safetensors",
        ],
    ),
    "a pipeline of which a model is a pointer": (
        {
            "model_index.json": b"{}",
            f"unet/{D}.safetensors": "a",
            f"vae/{D}.safetensors": POINTER,
            "te/model.safetensors": "b",
        },
        {"te/b": "te/model.safetensors", "unet/a": f"unet/{D}.safetensors"},
        [
            "DIR: 3 models are read, each under its folder's name: te, unet, vae",
            f"DIR/vae: {D}.safetensors is missing or a Git LFS pointer: "
            "download the model again, or run `git lfs pull`",
        ],
    ),
    "models two folders down": (
        {"split/vae/ae.safetensors": "a", "split/unet/x.safetensors": "b", "README.md": b""},
        {"split/unet/b": "split/unet/x.safetensors", "split/vae/a": "split/vae/ae.safetensors"},
        ["DIR: 2 models are read, each under its folder's name: split/unet, split/vae"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_files_of_a_folder(tmp_path, case):
    files, expected, said = CASES[case]
    found, warned = look(make(tmp_path, files))
    assert found == expected
    assert warned == said


def test_a_folder_in_a_folder(tmp_path):
    make(tmp_path, {"README.md": b"", "original/consolidated.00.safetensors": "ab", "original/config.json": b"{}"})
    with pytest.warns(UserWarning, match=f"{tmp_path}: the model in original is read"):
        found = checkpoint.survey(tmp_path)
    assert [tensor.name for tensor in found.tensors] == ["a", "b"]
    with pytest.warns(UserWarning, match=f"{tmp_path}: .*original is taken"):
        source = sources.read(str(tmp_path), scheme="he_normal")
    assert (list(source.plan), source.config) == (["a", "b"], tmp_path / "original" / "config.json")


def test_the_cache_of_the_hub(tmp_path):
    folder = make(tmp_path / "models--org--name", {f"blobs/{name}": text for name, text in (("e1", "ab"), ("e2", "c"))})
    (folder / "refs").mkdir()
    for commit, blob in (("c0ffee", "e1"), ("5eed", "e2")):
        (folder / "snapshots" / commit).mkdir(parents=True)
        (folder / "snapshots" / commit / "model.safetensors").symlink_to(f"../../blobs/{blob}")
    with pytest.raises(ValueError, match=r"refs/main names none of the snapshots: give one of 5eed, c0ffee"):
        checkpoint.survey(folder)
    (folder / "refs" / "main").write_text("c0ffee")
    file = "model.safetensors"
    assert look(folder) == look(folder / "snapshots" / "c0ffee") == ({"a": file, "b": file}, [])
    (folder / "blobs" / "e1").unlink()
    with pytest.raises(FileNotFoundError, match=r"c0ffee: model\.safetensors is missing"):
        checkpoint.survey(folder)
    for blob in (folder / "snapshots" / "c0ffee").iterdir():
        blob.unlink()
    (folder / "snapshots" / "c0ffee").rmdir()
    assert look(folder) == ({"c": file}, [])  # the only one


ERRORS = {
    "pickles": (
        {"pytorch_model.bin": b"PK\3\4", "config.json": b"{}"},
        "but pytorch_model.bin: save the model as safetensors",
    ),
    "GGUF": ({"model-Q4_K_M.gguf": b"GGUF"}, "but model-Q4_K_M.gguf: save"),
    "a pointer": ({"model.safetensors": POINTER}, "model.safetensors is missing or a Git LFS pointer: download"),
    "an index alone": ({INDEX_NAME: MAP}, f"{ONE}, {TWO}, {THREE} are missing or a Git LFS pointer: download"),
    "a name in two models": (
        {"v1-5-pruned.safetensors": "ab", "v1-5-pruned-emaonly.safetensors": "ab"},
        "v1-5-pruned.safetensors: 'a' is in another file too, v1-5-pruned-emaonly.safetensors: give one of the files",
    ),
    "an index of nothing": (
        {INDEX_NAME: {}, "foo.safetensors": "a"},
        f"{INDEX_NAME}: the index names no tensors",
    ),
    "an empty file": ({"model.safetensors": b""}, "model.safetensors: no safetensors file: it is empty"),
    "hidden files": ({".model.safetensors": "a", ".git/model.safetensors": "a"}, "and no .safetensors file"),
}


@pytest.mark.parametrize("what", ERRORS)
def test_folders_without_a_model(tmp_path, what):
    files, message = ERRORS[what]
    make(tmp_path, files)
    for look_at in (checkpoint.survey, lambda path: sources.read(str(path), scheme="zeros")):
        with pytest.raises((ValueError, FileNotFoundError)) as caught:
            look_at(tmp_path)
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("begin", "what"),
    [
        (POINTER, "a Git LFS pointer"),
        (b"PK\x03\x04\0\0\x08\x08", "a pickle of torch.save"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9", "a pickle"),
        (b"GGUF\x03\0\0\0", "a GGUF file"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    ],
)
def test_files_of_other_formats_are_named(tmp_path, begin, what):
    path = tmp_path / "a.safetensors"
    path.write_bytes(begin + bytes(100))
    with pytest.raises(ValueError, match=f"no safetensors file, but {what}"):
        checkpoint.survey(path)


def command(*arguments, code=0):
    done = subprocess.run(
        [sys.executable, "-m", "fastinit.cli", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done


def test_the_commands_say_what_was_chosen_in_a_line_on_stderr(tmp_path):
    make(tmp_path / "a", {"model.safetensors": "ab", "model.fp16.safetensors": "ab"})
    said = f"fastinit: warning: {tmp_path}/a: model.safetensors is read, not model.fp16.safetensors"
    for arguments in (("stats", "--json"), ("plan", "--json", "--scheme", "he_normal")):
        done = command(arguments[0], tmp_path / "a", *arguments[1:])
        assert done.stderr.splitlines() == [said]
        assert json.loads(done.stdout)["tensors"]
    make(tmp_path / "b", {"model_index.json": b"{}", "unet/model.safetensors": "a", "vae/model.safetensors": "a"})
    assert "unet/a" in command("plan", tmp_path / "b", "--scheme", "he_normal").stdout
    done = command("write", tmp_path / "b", "--scheme", "he_normal", "--out", tmp_path / "out", code=1)
    assert done.stderr.endswith("b holds 2 models: give the folder of one: unet, vae\n")
    assert not (tmp_path / "out").exists()
