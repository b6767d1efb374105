"""A name of the Hugging Face Hub is no source: the error says how to get one."""

import pytest
from processes import command

from fastinit._io.hub import cached_config


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, where huggingface_hub would look for it too."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hf" / "hub"


def downloaded(cache, repository, commits=("abc",)):
    """What the Hub's library puts into its cache: blobs, and snapshots of links to them."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "blobs").mkdir(parents=True)
    (folder / "blobs" / "1").write_text(
        '{"model_type": "gpt2", "n_layer": 1, "n_embd": 8, "n_head": 2, "vocab_size": 9}'
    )
    for commit in commits:
        (folder / "snapshots" / commit).mkdir(parents=True)
        (folder / "snapshots" / commit / "config.json").symlink_to("../../blobs/1")
    return folder / "snapshots" / commits[0] / "config.json"


@pytest.mark.parametrize("name", ["gpt2", "openai-community/gpt2", "meta-llama/Llama-3.1-8B"])
@pytest.mark.parametrize("what", ["plan", "write"])
def test_how_to_get_a_config_is_said(name, what, tmp_path):
    done = command(what, name, *(["--out", "out"] if what == "write" else []))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"fastinit: {name}: no such file or folder. For a model of the Hugging Face Hub nothing is downloaded: get its "
        f"config with `hf download {name} config.json --local-dir {name}`, then give {name} again\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_cache_is_named_and_what_is_named_is_a_source(cache):
    config = downloaded(cache, "openai-community/gpt2")
    done = command("plan", "openai-community/gpt2")
    assert done.returncode == 1
    assert done.stderr.endswith(f"nothing is downloaded: its config is in the Hub's cache: give {config}\n")
    assert "transformer.wte.weight" in command("plan", config).stdout
    assert "hf download" in command("plan", "gpt2").stderr


def test_a_cache_of_others(cache, monkeypatch, tmp_path):
    """Where the variables of huggingface_hub lead, as it says itself; a cache without such a snapshot is none."""
    downloaded(cache, "a/b", commits=("1", "2"))
    assert cached_config("a/b") is None
    assert cached_config("c/d") is None
    config = downloaded(tmp_path / "x", "c/d")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "x"))
    assert cached_config("c/d") == config
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "y"))
    config = downloaded(tmp_path / "y" / "huggingface" / "hub", "e")
    assert cached_config("e") == config


@pytest.mark.parametrize("name", ["job.toml", "config.json", "a/b/c", "./gpt2", "../gpt2", "a b", "model.safetensors"])
def test_other_names_are_files(name):
    done = command("plan", name)
    assert done.returncode == 1
    assert done.stderr == f"fastinit: [Errno 2] No such file or directory: '{name}'\n"
