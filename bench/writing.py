"""Writing and verifying files, against what `dd` does with as many bytes on the same disk.

    python -m bench.writing [--megabytes 4000] [--processes 5] [--threads 2] [--folder DIR] [--parts] [--json FILE]

Each contender alone in a fresh process, in turns: fastinit writes, dd writes zeros with the same `fsync`; fastinit
verifies, dd reads the file, both from the disk. A ratio is that of two neighbours in time. With `--parts` a plan ten
times as large is written part by part, each part's files removed after it, for the memory that it takes.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

# The children measure the memory over their imports: what only the parent needs is imported there.
import fastinit as fi
from bench.turns import Call
from fastinit import checkpoint
from fastinit.checkpoint._layout import FILE_NAME
from fastinit.checkpoint._write import peak_memory

PARTS = 10
COLUMNS = 4096
BLOCK = "bs=16M"


def plan(megabytes: int) -> fi.Plan:
    """Matrices of bfloat16 normals, 100 MB each, and a norm beside each of them."""
    tensors: dict[str, Any] = {}
    for i in range(-(-megabytes // 100)):
        rows = min(100, megabytes - 100 * i) * 10**6 // (2 * COLUMNS)
        tensors[f"layers.{i}.weight"] = ((rows, COLUMNS), "bfloat16", fi.Normal(0, 0.02))
        tensors[f"layers.{i}.norm"] = ((COLUMNS,), "bfloat16", fi.Constant(1))
    return fi.Plan(tensors)


def written(megabytes: int, threads: int, folder: Path) -> dict[str, float]:
    """One file in this process: seconds, megabytes of memory over the imports."""
    before = peak_memory()
    report = checkpoint.write(plan(megabytes), folder, threads=threads, max_shard_bytes="1TB")
    return {"bytes": report.nbytes, "seconds": report.seconds, "peak": (report.peak_memory_bytes - before) / 1e6}


def verified(threads: int, folder: Path) -> dict[str, float]:
    """The same file verified: seconds, megabytes of memory over the imports."""
    before = peak_memory()
    found = checkpoint.verify(folder, threads=threads)
    assert not found.problems
    return {"bytes": found.nbytes, "seconds": found.seconds, "peak": (peak_memory() - before) / 1e6}


def written_in_parts(megabytes: int, threads: int, folder: Path) -> dict[str, float]:
    """A plan of ten times the size, each part removed after it; so the last one finds the others missing."""
    before, seconds, nbytes = peak_memory(), 0.0, 0
    large = plan(PARTS * megabytes)
    for part in range(1, PARTS + 1):
        size = large.nbytes // (4 * PARTS)
        report = checkpoint.write(large, folder, threads=threads, part=f"{part}/{PARTS}", max_shard_bytes=size)
        seconds, nbytes = seconds + report.seconds, nbytes + report.nbytes
        for path in Path(report.path).rglob("model*.safetensors"):
            path.unlink()
    return {"bytes": nbytes, "seconds": seconds, "peak": (peak_memory() - before) / 1e6}


def prepared(library: str, megabytes: int) -> Call:
    """Return a call that writes the plan's tensors to one file, down to the disk, in place of the last one.

    NumPy's way is what one writes by hand: draw, scale, round, and `save_file` of all tensors.
    """
    held = tempfile.TemporaryDirectory(prefix="fastinit-writing-")  # removed with the call, which holds it
    wanted = plan(megabytes)
    return functools.partial({"fastinit": _write, "numpy": _write_by_hand, "dd": _write_zeros}[library], wanted, held)


def _write(wanted: fi.Plan, folder: tempfile.TemporaryDirectory[str]) -> None:
    shutil.rmtree(Path(folder.name) / "out", ignore_errors=True)
    checkpoint.write(wanted, Path(folder.name) / "out", max_shard_bytes="1TB")


def _write_by_hand(wanted: fi.Plan, folder: tempfile.TemporaryDirectory[str]) -> None:
    import ml_dtypes
    import numpy as np
    from safetensors.numpy import save_file

    rng, path = np.random.default_rng(), Path(folder.name) / FILE_NAME
    path.unlink(missing_ok=True)
    tensors = {}
    for name, tensor in wanted.items():
        values = rng.standard_normal(tensor.shape, dtype=np.float32) * np.float32(0.02)
        tensors[name] = (values if values.ndim > 1 else np.ones_like(values)).astype(ml_dtypes.bfloat16)
    save_file(tensors, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _write_zeros(wanted: fi.Plan, folder: tempfile.TemporaryDirectory[str]) -> None:
    path = Path(folder.name) / FILE_NAME
    path.unlink(missing_ok=True)
    dd("if=/dev/zero", f"of={path}", f"count={-(-wanted.nbytes // (16 << 20))}", "conv=fsync")


def dd(*arguments: str) -> float:
    """The seconds of a `dd`."""
    start = time.perf_counter()
    subprocess.run(["dd", BLOCK, *arguments], stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def forget(path: Path) -> None:
    """Let the next one read a file from the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def contest(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One turn of all."""
    from bench.programs import fresh_processes, progress

    def child(what: str) -> dict[str, Any]:
        progress(what)
        sizes = ["--megabytes", str(given.megabytes), "--threads", str(given.threads)]
        (found,) = fresh_processes(["-m", "bench.writing", "--child", what, str(folder / "fastinit"), *sizes], 1, len)
        return found

    found = {"write": child("write")}
    blocks = f"count={-(-found['write']['bytes'] // (16 << 20))}"
    progress("dd")
    found["dd write"] = {"seconds": dd("if=/dev/zero", f"of={folder / 'dd'}", blocks, "conv=fsync")}
    (folder / "dd").unlink()
    path = folder / "fastinit" / FILE_NAME
    forget(path)
    found["verify"] = child("verify")
    forget(path)
    progress("dd")
    found["dd read"] = {"seconds": dd(f"if={path}", "of=/dev/null")}
    shutil.rmtree(folder / "fastinit")
    return found


def summary(results: list[dict[str, Any]], megabytes: int) -> list[dict[str, Any]]:
    """The table's rows."""
    from bench.programs import Target, row

    def ratios(ours: str, theirs: str) -> list[float]:
        return [turn[theirs]["seconds"] / turn[ours]["seconds"] for turn in results]

    memory = Target("<=", 350, "MB")
    size = f"{megabytes / 1000:g} GB"
    rows = [
        row(f"writing {size}: rate, of dd", Target(">=", 0.9), ratios("write", "dd write")),
        row(f"writing {size}: memory over the imports", memory, [turn["write"]["peak"] for turn in results]),
        row(f"verifying {size}: rate, of reading by dd", Target(">=", 0.8), ratios("verify", "dd read")),
        row(f"verifying {size}: memory over the imports", memory, [turn["verify"]["peak"] for turn in results]),
    ]
    parts = [turn["parts"]["peak"] for turn in results if "parts" in turn]
    if parts:
        rows.append(row(f"writing {PARTS * megabytes / 1000:g} GB in parts: memory over the imports", memory, parts))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.writing", description="What files must hold.")
    parser.add_argument("--megabytes", type=int, default=4000, help="of the file; default 4000")
    parser.add_argument("--processes", type=int, default=5, help="turns of fresh processes; default 5")
    parser.add_argument("--threads", type=int, default=2, help="default 2")
    parser.add_argument("--folder", type=Path, help="where, on the disk that is measured; default: the temporary one")
    parser.add_argument("--parts", action="store_true", help="also ten times as much, in parts, once")
    parser.add_argument("--json", type=Path, help="where all values go")
    parser.add_argument("--child", nargs=2, metavar=("WHAT", "DIR"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        what, folder = given.child[0], Path(given.child[1])
        if what == "verify":
            found = verified(given.threads, folder)
        else:
            found = {"write": written, "parts": written_in_parts}[what](given.megabytes, given.threads, folder)
        print(json.dumps(found))
        return
    from bench.machine import machine
    from bench.programs import fresh_processes, progress, save, table

    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        results += [contest(given, Path(name)) for _ in range(given.processes)]
        if given.parts:
            sizes = ["--megabytes", str(given.megabytes), "--threads", str(given.threads)]
            child = ["-m", "bench.writing", "--child", "parts", str(Path(name) / "parts"), *sizes]
            (results[0]["parts"],) = fresh_processes(child, 1, progress)
    rows = summary(results, given.megabytes)
    print(table(rows))
    for what in ("write", "dd write", "verify", "dd read"):
        rate = statistics.median(turn["write"]["bytes"] / turn[what]["seconds"] for turn in results)
        print(f"{what}: {rate / 1e9:.3g} GB/s")
    if given.json:
        save(given.json, rows, [turn | {"machine": machine()} for turn in results], threads=given.threads)


if __name__ == "__main__":
    main()
