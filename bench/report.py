"""Turn pytest-benchmark's JSON into the tables of pages and a chart, so that no figure is typed by hand.

    pytest --benchmark-only --sweep --benchmark-json=results.json
    python -m bench.report results.json --store docs/results.json
    python -m bench.report docs/results.json --page docs/performance.md README.md --plot docs/performance.svg

A page gets the tables that it has markers for: `headline`, and one for each part of the table of benchmarks. Without
options all tables are printed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from bench.limits import share
from bench.lines import NAMES, Line, ReportError

FULL = ("fills", "norms", "steps", "files")  # parts whose tables have a column for each contender
SWEPT = ("fills", "norms")  # parts with more sizes than a page needs; the chart has all
LARGEST = 1 << 24  # elements that a page shows
PACKAGES = {
    "fastinit": "fastinit",
    "numba": "Numba",
    "numpy": "NumPy",
    "scipy": "SciPy",
    "torch": "torch",
    "jax": "JAX",
    "keras": "Keras",
    "transformers": "transformers",
    "scikit-learn": "scikit-learn",
    "python": "Python",
}
# The short table of the README: works and sizes.
HEADLINE = (
    ("normal, float32", "2^24"),
    ("uniform, float32", "2^24"),
    ("normal cut at 2 sigma, float32", "2^22"),
    ("normal, bfloat16", "2^24"),
    ("`fast_init`", "GPT-2 small, 124 million float32"),
    ("training step", "784-512-512-10, batch 128"),
    ("training step", "64-256x30-10, batch 128"),
    ("global norm of 1,000 arrays, clipping, float32", "16,776,723"),
)


def load(path: Path) -> dict[str, Any]:
    """Read pytest-benchmark's JSON."""
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ReportError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise ReportError(f"{path} is no JSON") from None
    if not isinstance(results, dict) or not isinstance(results.get("benchmarks"), list):
        raise ReportError(f"{path} was not written by pytest-benchmark: it has no list `benchmarks`")
    return results


def lines_of(results: dict[str, Any]) -> list[Line]:
    """Return the works and sizes in the order in which they were measured.

    Raises:
        ReportError: a benchmark is not of this table, or fastinit's time is missing where others have one.
    """
    found: dict[tuple[str, str], Line] = {}
    for benchmark in results["benchmarks"]:
        about = benchmark["extra_info"]
        try:
            line = Line(about["part"], about["work"], about["size"], about["order"])
            line = found.setdefault((line.work, line.size), line)
            line.seconds[about["library"]] = benchmark["stats"]["median"] / about["steps"]
        except KeyError as error:
            raise ReportError(f"a benchmark does not say {error}: it is not of this suite") from None
    if not any("fastinit" in line.seconds for line in found.values()):
        raise ReportError("the results hold no time of fastinit: run `pytest --benchmark-only` on the whole suite")
    for line in found.values():
        line.share = share(line.work, line.order, line.seconds, results.get("machine_info", {}))
        if "fastinit" not in line.seconds and line.rivals.keys() - {"numpy"}:  # NumPy alone measures bounds
            raise ReportError(f"the results hold no time of fastinit for {line.work!r}, {line.size}")
    return list(found.values())


def setting(results: dict[str, Any]) -> str:
    """Return what the times depend on: the CPU, the versions and the date."""
    machine = results.get("machine_info", {})
    try:
        versions = ", ".join(f"{name} {machine['versions'][package]}" for package, name in PACKAGES.items())
        date = f"; {results['datetime'][:10]}" if "datetime" in results else ""
        return f"{machine['cpu_name']} ({machine['llvm_cpu']}), {machine['cores']} cores; {versions}{date}"
    except KeyError as error:
        raise ReportError(f"the results do not say {error} of the machine: they are not of this suite") from None


def duration(seconds: float | None) -> str:
    """Return a time with its unit, to three digits.

    >>> duration(0.0205), duration(3.1e-6)
    ('20.5 ms', '3.1 us')
    """
    if seconds is None:
        return ""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size or unit == "us":
            value = seconds / size
            return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    raise AssertionError


def multiple(ratio: float | None) -> str:
    """Return a ratio as tables show it; a loss is named.

    >>> multiple(12.3), multiple(0.82), multiple(None)
    ('12x', '0.82x, slower', '')
    """
    if ratio is None:
        return ""
    text = f"{ratio:.0f}x" if ratio >= 99.5 else f"{ratio:.2g}x"
    return f"{text}, slower" if ratio < 0.995 else text


def best_other(line: Line, without: tuple[str, ...] = ()) -> str:
    """Return the time and the name of the fastest other contender."""
    rivals = {name: t for name, t in line.rivals.items() if name not in without}
    if not rivals:
        return ""
    name = min(rivals, key=lambda name: rivals[name])
    return f"{duration(rivals[name])} ({NAMES[name]})"


def summary_cells(lines: list[Line]) -> list[list[str]]:
    """Return the table that has NumPy's time and names the best of the others."""
    head = ["work", "size", "fastinit", "plain NumPy", "best other", "ratio"]
    return [
        head,
        *(
            [
                line.work,
                line.size,
                duration(line.seconds.get("fastinit")),
                duration(line.seconds.get("numpy")),
                best_other(line, ("numpy",)),
                multiple(line.ratio),
            ]
            for line in lines
        ),
    ]


def full_cells(lines: list[Line]) -> list[list[str]]:
    """Return the table that has a column for each contender, and one for the share of the limit if any is known."""
    names = [name for name in NAMES if any(name in line.seconds for line in lines)]
    limit = any(line.share for line in lines)
    head = ["work", "size", *(NAMES[name] for name in names), "ratio", *["of the limit"] * limit]
    return [
        head,
        *(
            [
                line.work,
                line.size,
                *(duration(line.seconds.get(name)) for name in names),
                multiple(line.ratio),
                *[line.share] * limit,
            ]
            for line in lines
        ),
    ]


EXPLAINED = "Medians; the ratio is the time of the fastest other over fastinit's, so below 1 fastinit is slower."


def console(results: dict[str, Any]) -> str:
    """Return the one table of a run as aligned text, the CPU and the versions above it."""
    cells = summary_cells([line for line in lines_of(results) if "fastinit" in line.seconds])
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    rows.insert(1, "-" * len(rows[0]))
    return "\n".join([setting(results), EXPLAINED, "", *rows])


def markdown(cells: list[list[str]]) -> str:
    """Return a table as Markdown, its numbers aligned to the right."""
    head, *rows = cells
    rule = ["---", "---", *["---:"] * (len(head) - 2)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows]) + "\n"


def tables(results: dict[str, Any]) -> dict[str, str]:
    """Return the Markdown tables, by the names in their markers; the first has a caption, which holds for all.

    Raises:
        ReportError: a work of HEADLINE is missing.
    """
    lines = lines_of(results)
    found = {}
    for part in dict.fromkeys(line.part for line in lines):
        own = [line for line in lines if line.part == part]
        own = selected(own) if part in SWEPT else own
        found[part] = markdown((full_cells if part in FULL else summary_cells)(own))
    known = {(line.work, line.size): line for line in lines}
    missing = [f"{work!r}, {size}" for work, size in HEADLINE if (work, size) not in known]
    if missing:
        raise ReportError(f"the results hold no {missing[0]}")
    headline = markdown(summary_cells([known[key] for key in HEADLINE]))
    return {"headline": f"{headline}\n{EXPLAINED} {setting(results)}.\n"} | found


def selected(lines: list[Line]) -> list[Line]:
    """Leave out most sizes of long sweeps: a work keeps 2^10, 2^16 and the largest that all its contenders share."""
    works: dict[str, list[Line]] = {}
    for line in lines:
        works.setdefault(line.work, []).append(line)
    chosen = []
    for own in works.values():
        names = set().union(*(line.seconds for line in own))
        whole = [line for line in own if set(line.seconds) == names and line.order <= LARGEST] or own[-1:]
        few = [line for line in own if line.size in ("2^10", "2^16") and line.rivals.keys() != line.seconds.keys()]
        chosen += [line for line in own if line in few or line is whole[-1]]
    return chosen


def trimmed(results: dict[str, Any]) -> dict[str, Any]:
    """Return what the tables and the chart need of the results, and nothing else: to be kept beside the pages."""
    machine = results.get("machine_info", {})
    known = ("cpu_name", "llvm_cpu", "gigahertz", "vector_bits", "cores", "versions")
    return {
        "datetime": results["datetime"],
        "machine_info": {name: machine[name] for name in known if name in machine},
        "benchmarks": [
            {"extra_info": benchmark["extra_info"], "stats": {"median": benchmark["stats"]["median"]}}
            for benchmark in results["benchmarks"]
        ],
    }


def store(results: dict[str, Any], path: Path) -> None:
    """Write results, trimmed: a line for each benchmark."""
    kept = trimmed(results)
    rows = ",\n".join(f" {json.dumps(benchmark)}" for benchmark in kept.pop("benchmarks"))
    head = json.dumps(kept, indent=1).removesuffix("\n}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{head},\n "benchmarks": [\n{rows}\n ]\n}}\n', encoding="utf-8")


def markers(name: str) -> tuple[str, str]:
    """Return what stands before and after a generated table."""
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"


def insert(page: Path, texts: dict[str, str]) -> None:
    """Replace what stands between the markers of a file, for those of the tables that it has markers for.

    Raises:
        ReportError: there is no such file, or it holds no marker, or not each once and in order. Nothing was written.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise ReportError(f"cannot read {page}: {error.strerror}") from None
    wanted = [name for name in texts if any(marker in text for marker in markers(name))]
    if not wanted:
        raise ReportError(f"{page} must hold {' and '.join(markers(next(iter(texts))))}, or those of another table")
    for name in wanted:
        begin, end = markers(name)
        if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
            raise ReportError(f"{page} must hold {begin} and, after it, {end}, each once")
        text = f"{text[: text.index(begin) + len(begin)]}\n{texts[name]}{text[text.index(end) :]}"
    page.write_text(text, encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.report", description="Benchmarks as tables and a chart.")
    parser.add_argument("results", type=Path, help="pytest-benchmark's JSON, or what --store made of it")
    parser.add_argument("--page", type=Path, nargs="+", default=[], help="files to put tables into, between markers")
    parser.add_argument("--plot", type=Path, help="the chart to write, e.g. docs/performance.svg")
    parser.add_argument("--store", type=Path, help="keep what the tables need, e.g. docs/results.json")
    given = parser.parse_args(arguments)
    try:
        results = load(given.results)
        texts = tables(results)
        if given.store:
            store(results, given.store)
        for page in given.page:
            insert(page, texts)
        if given.plot:
            from bench.chart import plot

            plot(lines_of(results), given.plot)
    except ReportError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    if not (given.page or given.plot or given.store):
        print("\n".join(texts.values()), end="")


if __name__ == "__main__":
    main()
