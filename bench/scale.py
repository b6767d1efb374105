"""What a checkpoint of 405 billion parameters takes on 1, 64 and 1,000 nodes, from what is measured on this machine.

    python -m bench.scale                  # prints the tables
    python -m bench.scale docs/scale.md    # puts them between their markers

Two of the tables are the same everywhere: what the plan is made of, and how its files are shared. A run of 1,000 parts
is simulated with all but the data: every header and byte range, every share, the index. The others are timed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import fastinit as fi
from bench.lines import ReportError
from bench.report import insert
from fastinit import checkpoint
from fastinit._io import files
from fastinit._runtime import threads, workers
from fastinit.checkpoint import _blocks as blocks
from fastinit.checkpoint._job import Job
from fastinit.checkpoint._layout import MAX_SHARD_BYTES, Layout, Shard, layout, split_evenly
from fastinit.checkpoint._write import peak_memory

ROOT = Path(__file__).parents[1]
JOB = ROOT / "examples" / "llama-405b.toml"
NODES = (1, 64, 1000)
SIZES = ("20GB", "5GB", "2GB", "1GB")
CHOSEN = {1: "5GB", 64: "1GB", 1000: "1GB"}  # of a file, by nodes
MEASURED_MEGABYTES = 2000
BLOCKS = 48  # made on one thread
# The functions through which the package touches files, and those of the C library that it has for itself.
COUNTED = {
    os: "open close pread preadv pwrite fsync ftruncate stat lstat replace rename unlink remove link mkdir rmdir "
    "scandir listdir",
    io: "open",
    files.fcntl: "flock",
    files._libc(): "fallocate sync_file_range",
}
FOR_BLOCKS = ("pwrite", "sync_file_range")


def plan() -> fi.Plan:
    return fi.Plan.from_toml(JOB)


def check(made: Layout, shares: Sequence[Sequence[Shard]]) -> None:
    """Everything that holds of a run in parts, from the bytes of headers and index alone.

    Raises:
        AssertionError: something does not.
    """
    assert sorted(shard.name for part in shares for shard in part) == [shard.name for shard in made.shards]
    where, total = {}, 0
    for shard in made.shards:
        length = int.from_bytes(shard.header[:8], "little")
        table = json.loads(shard.header[8:])
        assert len(shard.header) == 8 + length
        assert table.pop("__metadata__") == {"format": "pt"}
        end = 0
        for name, row in table.items():  # no hole, no overlap
            start, stop = row["data_offsets"]
            assert start == end, name
            assert name not in where, name
            where[name], end = shard.name, stop
        assert shard.nbytes == len(shard.header) + end
        total += end
    index = json.loads(made.index or "{}")
    assert index["weight_map"] == where
    assert index["metadata"]["total_size"] == total


def share_sizes(made: Layout, parts: int) -> list[int]:
    """The bytes of every part's files."""
    return [sum(shard.nbytes for shard in part) for part in split_evenly(made.shards, parts)]


def job_table(found: fi.Plan) -> str:
    """What the plan is made of, in bytes."""
    made, name = layout(found), max(found.filled, key=lambda name: found.filled[name].nbytes)
    rows = [
        ("tensors", f"{len(found):,}"),
        ("parameters", f"{found.parameters:,}"),
        ("bytes of tensors", f"{found.nbytes:,}"),
        (f"the largest tensor, `{name}`", f"{found.filled[name].nbytes:,}"),
        ("as many times in all bytes: parts beyond that do not help", f"{found.nbytes // found.filled[name].nbytes:,}"),
        (f"files of at most {MAX_SHARD_BYTES / 1e9:g} GB", f"{len(made.shards):,}"),
        ("bytes of all their headers", f"{sum(len(shard.header) for shard in made.shards):,}"),
        ("bytes of the index", f"{len(made.index or b''):,}"),
        (
            "bytes of `fastinit.json`: plan, seed, shard size",
            f"{len(Job(found, found.key(), MAX_SHARD_BYTES).text()):,}",
        ),
    ]
    return markdown(("of Llama 3.1 405B in bfloat16", ""), rows)


def parts_table(found: fi.Plan) -> str:
    """How evenly the files can be shared."""
    rows = []
    for size in SIZES:
        made = layout(found, size)
        check(made, split_evenly(made.shards, NODES[-1]))
        row = [size, f"{len(made.shards):,}", f"{max(shard.nbytes for shard in made.shards) / 1e9:.2f}"]
        for parts in NODES[1:]:
            sizes = share_sizes(made, parts)
            row += [f"{max(sizes) * parts / sum(sizes):.2f}", f"{sizes.count(0):,}"]
        rows.append(row)
    columns = [(f"{parts:,} parts: largest over mean", "without a file") for parts in NODES[1:]]
    head = ("`--max-shard-bytes`", "files", "the largest, GB", *itertools.chain(*columns))
    return markdown(head, rows)


@contextlib.contextmanager
def counting() -> Iterator[Counter[str]]:
    """The calls of the functions that touch files, by name, inside the block."""
    counts: Counter[str] = Counter()
    wanted = [(module, name) for module, names in COUNTED.items() for name in names.split()]
    originals = {(module, name): getattr(module, name) for module, name in wanted}

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            counts[name] += 1
            return function(*arguments, **options)

        return call

    try:
        for module, name in wanted:
            setattr(module, name, counted(name, originals[module, name]))
        yield counts
    finally:
        for (module, name), function in originals.items():
            setattr(module, name, function)


def calls_per_file(folder: Path) -> Counter[str]:
    """What one file more costs, if it is one block: from jobs of 5 and of 15 files."""
    _calls(folder / "warm", 1)  # the compile cache has files of its own
    few, many = (_calls(folder / str(number), number) for number in (5, 15))
    return Counter({name: (many[name] - few[name]) // 10 for name in many if many[name] > few[name]})


def _calls(folder: Path, number: int) -> Counter[str]:
    small = fi.Plan({f"w{i:02}": ((1000,), "bfloat16", "normal") for i in range(number)})
    with counting() as counts:
        checkpoint.write(small, folder, max_shard_bytes=2000, threads=1)
    return counts


def measured(megabytes: int, folder: Path) -> dict[str, Any]:
    """Rates in bytes per second, seconds, bytes of memory; of this process, which has done nothing else yet."""
    found: dict[str, Any] = {"threads": threads.num_threads()}
    start = time.perf_counter()
    large = plan()
    found["load"] = time.perf_counter() - start
    start = time.perf_counter()
    made = layout(large, CHOSEN[1000])
    shares = split_evenly(made.shards, NODES[-1])
    found["layout"] = time.perf_counter() - start
    check(made, shares)
    found["check"] = time.perf_counter() - start - found["layout"]
    checkpoint.write(fi.Plan({"w": ((1000,), "bfloat16", "normal")}), folder / "warm")  # kernels, out of their cache
    before = peak_memory()
    rows = megabytes * 10**6 // (16384 * 2)
    small = fi.Plan({f"w{i}": ((rows // 8, 16384), "bfloat16", fi.Normal(0, 0.02)) for i in range(8)})
    report = checkpoint.write(small, folder / "out", max_shard_bytes=small.nbytes // 4)
    found["memory"] = report.peak_memory_bytes - before
    found["write"] = report.nbytes / report.seconds
    verification = checkpoint.verify(folder / "out")
    assert not verification.problems
    found["verify"] = verification.nbytes / verification.seconds
    found["make"], found["make_all"] = _making(made)
    found["calls"] = calls_per_file(folder / "calls")
    return found


def _making(made: Layout) -> tuple[float, float]:
    """Bytes per second of making blocks, without a disk: on one thread, and on all."""
    shard = max(made.shards, key=lambda shard: shard.nbytes)
    buffer, times = np.empty(blocks.BLOCK_BYTES, np.uint8), []
    maker, some = blocks.Maker(fi.Key(0)), list(itertools.islice(blocks.blocks(shard), BLOCKS))
    with threads.thread_limit(1):
        for block in some:
            start = time.perf_counter()
            maker.make(block, buffer)
            times.append(time.perf_counter() - start)

    def worker() -> Callable[[blocks.Block], None]:
        own = np.empty(blocks.BLOCK_BYTES, np.uint8)
        return lambda block: void(maker.make(block, own))

    number = threads.num_threads()
    start = time.perf_counter()
    workers.each(some * number, worker, number)
    return blocks.BLOCK_BYTES / statistics.median(times), number * BLOCKS * blocks.BLOCK_BYTES / (
        time.perf_counter() - start
    )


def void(value: object) -> None:
    """Nothing, whatever was made."""


def measured_table(found: dict[str, Any]) -> str:
    for_blocks, for_files = _calls_of(found)
    rows = [
        ("making blocks, one thread", f"{found['make'] / 1e9:.2f} GB/s"),
        (f"making blocks, {found['threads']} threads", f"{found['make_all'] / 1e9:.2f} GB/s"),
        (f"writing files to this disk with fsync, {found['threads']} threads", f"{found['write'] / 1e9:.2f} GB/s"),
        (f"verifying them, {found['threads']} threads", f"{found['verify'] / 1e9:.2f} GB/s"),
        ("memory beside the imports", f"{found['memory'] / 1e6:.0f} MB"),
        ("reading the plan of 405 billion parameters", f"{1e3 * found['load']:.0f} ms"),
        ("all headers, the index, the shares of 1,000 parts", f"{1e3 * found['layout']:.0f} ms"),
        ("checking them", f"{1e3 * found['check']:.0f} ms"),
        (f"calls of `os` functions for each {blocks.BLOCK_BYTES >> 20} MiB", f"{for_blocks:,}"),
        ("beside them for each file", f"{for_files:,}"),
    ]
    return markdown(("on this machine", ""), rows) + f"\n{setting()}\n"


def _calls_of(found: dict[str, Any]) -> tuple[int, int]:
    """Calls for each block, and beside them for each file."""
    for_blocks = sum(found["calls"].get(name, 0) for name in FOR_BLOCKS)
    return for_blocks, sum(found["calls"].values()) - for_blocks


def nodes_table(large: fi.Plan, found: dict[str, Any]) -> str:
    """What the nodes' shares take, if every node were this machine."""
    rows = []
    for_blocks, for_files = _calls_of(found)
    for nodes in NODES:
        made = layout(large, CHOSEN[nodes])
        largest = max(share_sizes(made, nodes))
        number = sum(-(-shard.nbytes // blocks.BLOCK_BYTES) for shard in made.shards)
        calls = for_blocks * number + for_files * len(made.shards)
        cells = [f"{nodes:,}", CHOSEN[nodes], f"{len(made.shards):,}", f"{largest / 1e9:.1f}"]
        cells += [duration(largest / found["make_all"]), duration(largest / found["write"])]
        cells += [f"{large.nbytes / (largest / found['make_all']) / 1e9:,.0f}", f"{calls:,}"]
        rows.append(cells)
    head = (
        "nodes",
        "`--max-shard-bytes`",
        "files",
        "largest share, GB",
        "making it",
        "writing it",
        "GB/s together, so made",
        "calls of `os` functions, all",
    )
    return markdown(head, rows)


def duration(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def setting() -> str:
    from bench.machine import machine

    about = machine()
    versions = ", ".join(
        f"{name} {about['versions'][key]}"
        for name, key in (("fastinit", "fastinit"), ("NumPy", "numpy"), ("Numba", "numba"), ("Python", "python"))
    )
    return (
        f"{about['cpu_name']} ({about['llvm_cpu']}), {about['cores']} cores; {versions}; {datetime.now(UTC):%Y-%m-%d}."
    )


def fixed_tables(large: fi.Plan) -> dict[str, str]:
    """The tables that are the same on every machine, by the names of their markers."""
    return {"scale-job": job_table(large), "scale-parts": parts_table(large)}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description="What a large checkpoint takes.")
    parser.add_argument("page", type=Path, nargs="?", help="the file to put the tables into, between their markers")
    parser.add_argument("--megabytes", type=int, default=MEASURED_MEGABYTES, help="that are written for it")
    parser.add_argument("--folder", type=Path, help="where, on the disk that is measured; default: the temporary one")
    given = parser.parse_args(arguments)
    large = plan()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        found = measured(given.megabytes, Path(folder))
    timed = {"scale-measured": measured_table(found), "scale-nodes": nodes_table(large, found)}
    tables = fixed_tables(large) | timed
    if given.page is None:
        print("\n".join(tables.values()), end="")
        return
    try:
        insert(given.page, tables)
    except ReportError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
