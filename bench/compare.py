"""The ratios that must hold, measured honestly: `python -m bench.compare [--size 26] [--processes 5] --json FILE`.

A benchmark suite measures one library for a while, then the next; on a shared machine the difference between them is
partly that between two moments. Here the contenders take turns (A B C A B C ...) inside a process, a ratio is that of
their medians in it, and the table gives the median and the range of the ratios over several fresh processes.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import fastinit as fi
from bench.bench_start import ROOT, SCRIPTS, Starts
from bench.libraries import SEEDS, WORKS, Call, Memory, machine, prepared

ROUNDS = 5  # of a contest at full size
SMALL_ROUNDS = 15
SMALL_SECONDS = 1e-3  # that a round of a small call lasts at least
PAUSE = 0.01  # a thread pool spins for some milliseconds after its work; the next contender must not pay for that
SMALL_WORKS = ("uniform", "normal", "uniform_float64", "normal_float64")
SMALL_EXPONENTS = range(10, 21)


@dataclass(frozen=True)
class Target:
    """What must hold. With a rival (work, library) the value is the quotient of elements per second."""

    sign: str
    limit: float
    unit: str = "x"
    work: str = ""
    rival: tuple[str, str] = ("", "")

    def met(self, value: float) -> bool:
        return value >= self.limit if self.sign == ">=" else value <= self.limit

    def text(self, value: float) -> str:
        return f"{value:.3g} {self.unit}"


NEVER_SLOWER = "any fill of 2^10 to 2^20 elements, of NumPy: the worst"
FILL, HE_NORMAL = "fill of 64 elements", "he_normal of 8 x 8"
IMPORT, WARM, COLD = "import, of numba and numpy", "first call beyond import, warm cache", "first call, empty cache"
TWO_THREADS = ("fill_two_threads", "numpy")

TARGETS = {
    "normal float32, of NumPy": Target(">=", 25, work="normal", rival=("normal", "numpy")),
    "normal float32, of torch": Target(">=", 10, work="normal", rival=("normal", "torch")),
    "normal float32, of fill on two threads": Target(">=", 0.45, work="normal", rival=TWO_THREADS),
    "uniform float32, of NumPy": Target(">=", 10, work="uniform", rival=("uniform", "numpy")),
    "uniform float32, of torch": Target(">=", 14, work="uniform", rival=("uniform", "torch")),
    "uniform float32, of fill on two threads": Target(">=", 0.6, work="uniform", rival=TWO_THREADS),
    "truncated normal, of torch": Target(">=", 200, work="truncated_normal", rival=("truncated_normal", "torch")),
    "normal bfloat16, of torch": Target(">=", 12, work="normal_bfloat16", rival=("normal_bfloat16", "torch")),
    "normal float64, of NumPy": Target(">=", 8, work="normal_float64", rival=("normal_float64", "numpy")),
    "orthogonal 2048 x 2048, of torch": Target(">=", 1.5, work="orthogonal", rival=("orthogonal", "torch")),
    NEVER_SLOWER: Target(">=", 1),
    FILL: Target("<=", 5, "us"),
    HE_NORMAL: Target("<=", 10, "us"),
    IMPORT: Target("<=", 1.15),
    WARM: Target("<=", 0.35, "s"),
    COLD: Target("<=", 4, "s"),
}


def take_turns(calls: dict[Any, Call], rounds: int, *, seconds: float = 0.0, pause: float = 0.0) -> dict[Any, float]:
    """The median time of every call, in seconds; a round repeats a call until it lasts `seconds`."""
    repeats: dict[Any, int] = {}
    times: dict[Any, list[float]] = {name: [] for name in calls}
    for name, call in calls.items():
        call()
        repeats[name] = math.ceil(seconds / _timed(call, 1)) if seconds else 1
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(pause)
            times[name].append(_timed(call, repeats[name]))
    return {name: statistics.median(values) for name, values in times.items()}


def _timed(call: Call, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def speeds(work: str, exponent: int, memory: Memory) -> dict[tuple[str, str], float]:
    """Elements per second of a work by fastinit and by its rivals, each at 2^exponent elements or the most it can."""
    cells = [(work, "fastinit"), *(target.rival for target in TARGETS.values() if target.work == work)]
    shapes = {cell: _shape(cell, exponent) for cell in cells}
    calls = {cell: prepared(*cell, memory, shape) for cell, shape in shapes.items()}
    return {cell: math.prod(shapes[cell]) / t for cell, t in take_turns(calls, ROUNDS, pause=PAUSE).items()}


def _shape(cell: tuple[str, str], exponent: int) -> tuple[int, ...]:
    work, library = cell
    if work == "orthogonal":
        return (min(2048, 1 << exponent // 2),) * 2
    return (1 << WORKS[work].size(library, exponent),)


def small_ratios(memory: Memory) -> dict[str, float]:
    """NumPy's time over fastinit's, by work and size."""
    ratios = {}
    for work in SMALL_WORKS:
        for exponent in SMALL_EXPONENTS:
            libraries = ("fastinit", "numpy")
            calls = {library: prepared(work, library, memory, (1 << exponent,)) for library in libraries}
            times = take_turns(calls, SMALL_ROUNDS, seconds=SMALL_SECONDS)
            ratios[f"{work} 2^{exponent}"] = times["numpy"] / times["fastinit"]
    return ratios


def call_times(memory: Memory) -> dict[str, float]:
    """Microseconds of the smallest calls."""
    calls: dict[str, Call] = {
        FILL: prepared("normal", "fastinit", memory, (64,)),
        HE_NORMAL: lambda: fi.he_normal((8, 8), seed=next(SEEDS)),
    }
    return {name: t * 1e6 for name, t in take_turns(calls, SMALL_ROUNDS, seconds=SMALL_SECONDS).items()}


def one_process(exponent: int) -> dict[str, Any]:
    """All that is measured inside a process: the values by target, the ratios of small calls, the absolute speeds."""
    memory = Memory()
    memory.view(np.float64, (1 << max(exponent, 22),))  # the largest buffer: one block for all
    works = dict.fromkeys(target.work for target in TARGETS.values() if target.work)
    measured = {work: speeds(work, exponent, memory) for work in works}
    values = {
        what: measured[target.work][target.work, "fastinit"] / measured[target.work][target.rival]
        for what, target in TARGETS.items()
        if target.work
    }
    absolute = {work: {" ".join(cell): v for cell, v in cells.items()} for work, cells in measured.items()}
    small = small_ratios(memory)
    return {"values": values | call_times(memory), "small": small, "speeds": absolute, "machine": machine()}


def start_times(starts: Starts) -> dict[str, float]:
    """Seconds of one start of every kind."""
    starts.clear()
    return {name: _timed(lambda name=name: starts.run(name), 1) for name in SCRIPTS}


def start_values(seconds: dict[str, float]) -> dict[str, float]:
    """The starts by target; that of Python itself is taken off the imports, so that it does not pad the quotient."""
    python, baseline, ours = (seconds[name] for name in ("python", "import numba and numpy", "import fastinit"))
    warm, cold = (seconds[f"first he_normal, {state} cache"] for state in ("warm", "empty"))
    return {IMPORT: (ours - python) / (baseline - python), WARM: warm - ours, COLD: cold}


def numba_start(results: list[dict[str, Any]]) -> float:
    """Seconds that a cached function of one line takes beyond Numba's import: what no library on Numba can avoid."""
    starts = [result["starts"] for result in results]
    return statistics.median(s["cached njit function"] - s["import numba and numpy"] for s in starts)


def fresh_processes(arguments: list[str], processes: int, report: Callable[[str], object]) -> Iterator[dict[str, Any]]:
    """What Python, started again and again with these arguments, prints as JSON."""
    for i in range(processes):
        report(f"process {i + 1} of {processes}")
        command = [sys.executable, *arguments]
        child = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True)
        yield json.loads(child.stdout)


def measure(exponent: int, processes: int, report: Callable[[str], object]) -> list[dict[str, Any]]:
    """One result per fresh process, the starts beside it."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        starts = Starts(Path(folder))
        start_times(starts)  # fills the warm cache
        for result in fresh_processes(["-m", "bench.compare", "--child", "--size", str(exponent)], processes, report):
            result["starts"] = start_times(starts)
            result["values"] |= start_values(result["starts"])
            results.append(result)
    return results


def summary(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The table's rows: per target the median and the range over the processes."""
    small = {cell: [result["small"][cell] for result in results] for cell in results[0]["small"]}
    worst = min(small, key=lambda cell: statistics.median(small[cell]))
    rows = []
    for what, target in TARGETS.items():
        never = what == NEVER_SLOWER
        values = small[worst] if never else [result["values"][what] for result in results]
        rows.append(row(f"{what} ({worst})" if never else what, target, values))
    return rows


def row(what: str, target: Target, values: list[float]) -> dict[str, Any]:
    """The table's row of a target: the median of its values, one per process, is what counts."""
    middle = statistics.median(values)
    return {
        "what": what,
        "target": f"{target.sign} {target.text(target.limit)}",
        "median": target.text(middle),
        "range": f"{min(values):.3g} - {max(values):.3g}",
        "met": "yes" if target.met(middle) else "NO",
        "values": values,
    }


def table(rows: list[dict[str, Any]], columns: Sequence[str] = ("what", "target", "median", "range", "met")) -> str:
    """The rows as aligned text."""
    lines = [tuple(columns), *(tuple(str(row[column]) for column in columns) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def save(path: Path, rows: list[dict[str, Any]], results: list[dict[str, Any]], **about: Any) -> None:
    """All that was measured, as JSON."""
    machines = [result.pop("machine") for result in results]
    facts = {"date": datetime.now(UTC).isoformat(), "machine": machines[0]} | about
    path.write_text(json.dumps(facts | {"rows": rows, "processes": results}, indent=1), encoding="utf-8")


def options(module: str, description: str) -> argparse.ArgumentParser:
    """What the command lines of the comparisons have in common."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("--processes", type=int, default=5, help="fresh processes; default 5")
    parser.add_argument("--json", type=Path, help="where all values go")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = options("bench.compare", "The ratios that must hold.")
    parser.add_argument("--size", type=int, default=26, help="log2 of the elements; default 26")
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(one_process(arguments.size)))
        return
    results = measure(arguments.size, arguments.processes, progress)
    rows = summary(results)
    print(table(rows))
    print(f"Numba's own start, a cached function of one line: {numba_start(results):.3g} s beyond its import")
    if arguments.json:
        save(arguments.json, rows, results, size=arguments.size)


if __name__ == "__main__":
    main()
