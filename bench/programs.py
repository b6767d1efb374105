"""What the programs that compare against targets share: targets, fresh processes, rows of a table, files of results."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Target:
    """A bound that a measured value must keep."""

    sign: str
    limit: float
    unit: str = "x"

    def met(self, value: float) -> bool:
        return value >= self.limit if self.sign == ">=" else value <= self.limit

    def text(self, value: float) -> str:
        return f"{value:.3g} {self.unit}"


def fresh_processes(arguments: list[str], processes: int, report: Callable[[str], object]) -> Iterator[dict[str, Any]]:
    """Yield what Python, started again and again with these arguments, prints as JSON."""
    for i in range(processes):
        report(f"process {i + 1} of {processes}")
        command = [sys.executable, *arguments]
        child = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True)
        yield json.loads(child.stdout)


def row(what: str, target: Target, values: list[float]) -> dict[str, Any]:
    """Return the table's row of a target: the median of its values, one per process, is what counts."""
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
    """Return the rows as aligned text."""
    lines = [tuple(columns), *(tuple(str(row[column]) for column in columns) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def save(path: Path, rows: list[dict[str, Any]], results: list[dict[str, Any]], **about: Any) -> None:
    """Write all that was measured, as JSON."""
    machines = [result.pop("machine") for result in results]
    facts = {"date": datetime.now(UTC).isoformat(), "machine": machines[0]} | about
    path.write_text(json.dumps(facts | {"rows": rows, "processes": results}, indent=1), encoding="utf-8")


def options(module: str, description: str) -> argparse.ArgumentParser:
    """Return a parser of the options that the programs have in common."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("--processes", type=int, default=5, help="fresh processes; default 5")
    parser.add_argument("--json", type=Path, help="where all values go")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
