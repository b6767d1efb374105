"""Writing a checkpoint and verifying it, beside `dd` on the same disk; bench/writing.py measures what must hold."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.writing import dd, plan
from fastinit import checkpoint
from fastinit.checkpoint.layout import FILE_NAME

MEGABYTES, QUICK_MEGABYTES = 1000, 16
MOST = 5  # rounds


@pytest.fixture
def megabytes(quick: bool) -> int:
    return QUICK_MEGABYTES if quick else MEGABYTES


@pytest.mark.parametrize("library", ["fastinit", "dd"])
def bench_write(measure: Callable[..., None], megabytes: int, tmp_path: Path, library: str) -> None:
    found, out = plan(megabytes), tmp_path / "out"
    blocks = f"count={-(-found.nbytes // (16 << 20))}"

    def write() -> None:
        shutil.rmtree(out, ignore_errors=True)
        if library == "fastinit":
            checkpoint.write(found, out, max_shard_bytes="1TB")
        else:
            out.mkdir()
            dd("if=/dev/zero", f"of={out / FILE_NAME}", blocks, "conv=fsync")

    measure(write, "writing a checkpoint", MOST, title="write, fsync", library=library, bytes=found.nbytes)


@pytest.mark.parametrize("library", ["fastinit", "dd"])
def bench_verify(measure: Callable[..., None], megabytes: int, tmp_path: Path, library: str) -> None:
    found = plan(megabytes)
    path = checkpoint.write(found, tmp_path, max_shard_bytes="1TB").path
    calls = {"fastinit": lambda: checkpoint.verify(tmp_path), "dd": lambda: dd(f"if={path}", "of=/dev/null")}
    measure(
        calls[library], "verifying a checkpoint", MOST, title="verify, in memory", library=library, bytes=found.nbytes
    )
