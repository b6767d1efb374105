"""Names of repositories of the Hugging Face Hub: nothing is downloaded, but the Hub's cache on this disk is known."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from pathlib import Path

from fastinit._io.folders import snapshot

_PART = r"\w[\w.-]{0,95}"  # the Hub's rule for names of owners and repositories
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})?", re.ASCII)
_FILES = (".toml", ".json", ".safetensors")


def missing(source: str) -> FileNotFoundError:
    """The error for a source that does not exist. If it may be a repository of the Hub, the error says how to get its
    config: from the Hub's cache, where it is there, or by a download."""
    if not _REPOSITORY.fullmatch(source) or source.endswith(_FILES):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)
    config = cached_config(source)
    how = f"its config is in the Hub's cache: give {config}"
    if config is None:
        how = f"get its config with `hf download {source} config.json --local-dir {source}`, then give {source} again"
    what = f"{source}: no such file or folder. For a model of the Hugging Face Hub nothing is downloaded: {how}"
    return FileNotFoundError(what)


def cached_config(repository: str) -> Path | None:
    """The config.json of a repository in the Hub's cache on this disk, or None."""
    with contextlib.suppress(OSError, ValueError, RuntimeError):  # no such folder, snapshot or home
        config = snapshot(_cache() / f"models--{repository.replace('/', '--')}") / "config.json"
        return config if config.is_file() else None
    return None


def _cache() -> Path:
    """The folder of the Hub's cache, by the environment variables of huggingface_hub."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if folder := os.environ.get(name):
            return Path(os.path.expandvars(folder)).expanduser()
    home = os.environ.get("HF_HOME") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    return Path(os.path.expandvars(home)).expanduser() / "hub"
