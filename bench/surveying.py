"""Looking into a checkpoint, against reading as many bytes and doing nothing with them.

    python -m bench.surveying [--megabytes 4000] [--processes 5] [--threads 2] [--folder DIR] [--json FILE]

A file of bfloat16 and float32 matrices, half of the bytes of each. Each contender alone in a fresh process, in turns:
`checkpoint.survey`, and as many threads that read the file by `pread` into a buffer of 1 MB each; first from the page
cache, then from the disk, as far as the machine lets a file be forgotten. A ratio is that of two neighbours in time.
The kernels are loaded before the clock starts.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

# The children measure the memory of their whole process: what only the parent needs is imported there.
import fastinit as fi
from fastinit import checkpoint
from fastinit.checkpoint._layout import FILE_NAME
from fastinit.checkpoint._write import peak_memory

COLUMNS = 4096
BUFFER = 1 << 20


def plan(megabytes: int) -> fi.Plan:
    """Matrices of 50 MB, of normal bfloat16 and uniform float32 in turns, a norm beside each."""
    tensors: dict[str, Any] = {}
    for i in range(-(-megabytes // 50)):
        dtype, size = (("bfloat16", 2), ("float32", 4))[i % 2]
        nbytes = min(50, megabytes - 50 * i) * 10**6
        law = (fi.Normal(0, 0.02), fi.Uniform(-0.03, 0.03))[i % 2]
        tensors[f"layers.{i}.weight"] = ((nbytes // (size * COLUMNS), COLUMNS), dtype, law)
        tensors[f"layers.{i}.norm"] = ((COLUMNS,), dtype, fi.Constant(1))
    return fi.Plan(tensors)


def surveyed(path: Path, threads: int, disk: bool) -> dict[str, float]:
    """Seconds, and megabytes of memory of the process."""
    checkpoint.survey(path, ["layers.{0,1}.*"], threads=threads)  # loads the kernels
    prepare(path, threads, disk)
    found = checkpoint.survey(path, threads=threads)
    assert all(one.verdict == "as planned" for one in found.tensors)
    return {"bytes": found.nbytes, "seconds": found.seconds, "peak": peak_memory() / 1e6}


def read(path: Path, threads: int, disk: bool) -> dict[str, float]:
    """The same of threads that only read."""
    prepare(path, threads, disk)
    start = time.perf_counter()
    pass_over(path, threads)
    return {"bytes": path.stat().st_size, "seconds": time.perf_counter() - start, "peak": peak_memory() / 1e6}


def prepare(path: Path, threads: int, disk: bool) -> None:
    """Let the file be in the page cache, which systems empty in the background, or not."""
    if not disk:
        pass_over(path, threads)
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def pass_over(path: Path, threads: int) -> None:
    """Read a file on some threads."""
    size = path.stat().st_size
    places, lock = itertools.count(0, BUFFER), threading.Lock()

    def work() -> None:
        buffer = bytearray(BUFFER)
        descriptor = os.open(path, os.O_RDONLY)
        while True:
            with lock:
                place = next(places)
            if place >= size:
                break
            os.preadv(descriptor, [buffer], place)
        os.close(descriptor)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def contest(path: Path, threads: int, turn: int) -> dict[str, Any]:
    """One turn of all. Each is the first of two every other time: a disk behind others may remember."""
    from bench.programs import fresh_processes, progress

    found: dict[str, Any] = {}
    for place in ("cache", "disk"):
        for what in ("read", "survey") if turn % 2 else ("survey", "read"):
            progress(f"{what}, {place}")
            child = ["-m", "bench.surveying", "--child", what, place, str(path), "--threads", str(threads)]
            (found[f"{what} {place}"],) = fresh_processes(child, 1, len)
    return found


def summary(results: list[dict[str, Any]], megabytes: int) -> list[dict[str, Any]]:
    """The table's rows."""
    from bench.programs import Target, row

    def ratios(place: str) -> list[float]:
        return [turn[f"read {place}"]["seconds"] / turn[f"survey {place}"]["seconds"] for turn in results]

    target, size = Target(">=", 0.7), f"{megabytes / 1000:g} GB"
    return [
        row(f"stats of {size}: rate, of reading from the page cache", target, ratios("cache")),
        row(f"stats of {size}: rate, of reading from the disk", target, ratios("disk")),
        row(
            f"stats of {size}: memory of the process",
            Target("<=", 400, "MB"),
            [turn["survey cache"]["peak"] for turn in results],
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.surveying", description="What a survey must hold.")
    parser.add_argument("--megabytes", type=int, default=4000, help="of the file; default 4000")
    parser.add_argument("--processes", type=int, default=5, help="turns of fresh processes; default 5")
    parser.add_argument("--threads", type=int, default=2, help="default 2")
    parser.add_argument("--folder", type=Path, help="where, on the disk that is measured; default: the temporary one")
    parser.add_argument("--json", type=Path, help="where all values go")
    parser.add_argument("--child", nargs=3, metavar=("WHAT", "PLACE", "FILE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        what, place, path = given.child
        print(json.dumps({"read": read, "survey": surveyed}[what](Path(path), given.threads, place == "disk")))
        return
    from bench.machine import machine
    from bench.programs import save, table

    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        checkpoint.write(plan(given.megabytes), name, max_shard_bytes="1TB")
        results = [contest(Path(name) / FILE_NAME, given.threads, turn) for turn in range(given.processes)]
    rows = summary(results, given.megabytes)
    print(table(rows))
    for what in results[0]:
        rate = statistics.median(turn[what]["bytes"] / turn[what]["seconds"] for turn in results)
        print(f"{what}: {rate / 1e9:.3g} GB/s")
    if given.json:
        save(given.json, rows, [turn | {"machine": machine()} for turn in results], threads=given.threads)


if __name__ == "__main__":
    main()
