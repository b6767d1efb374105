"""pytest-benchmark's JSON as the README's table and as a plot, so that no figure is typed by hand.

    pytest --benchmark-only --benchmark-json=results.json
    python -m bench.report results.json --readme README.md --plot docs/performance.svg

Without `--readme` and `--plot` the table is printed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

LIBRARIES = {"fastinit": "fastinit", "numpy": "NumPy", "numpy_legacy": "NumPy legacy", "torch": "torch"}
RIVALS = ("numpy", "torch")  # what the last columns divide by
BEGIN, END = "<!-- benchmark:begin -->", "<!-- benchmark:end -->"
BOUND_FROM = 1 << 18  # below, handing work to two Python threads takes longer than the work
# Okabe and Ito's colours, apart for every kind of colour vision; the markers differ as well.
STYLES = {
    "fastinit": {"color": "#0072B2", "marker": "o"},
    "numpy": {"color": "#E69F00", "marker": "s"},
    "numpy_legacy": {"color": "#CC79A7", "marker": "^"},
    "torch": {"color": "#D55E00", "marker": "D"},
}

Sizes = dict[int, float]  # elements: 10^9 elements per second
Rows = dict[str, dict[str, Sizes]]  # title of the work: library: sizes


class ReportError(Exception):
    """What is wrong with the input, in one line."""


def load(path: Path) -> dict[str, Any]:
    """pytest-benchmark's JSON."""
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ReportError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise ReportError(f"{path} is no JSON") from None
    if not isinstance(results, dict) or not isinstance(results.get("benchmarks"), list):
        raise ReportError(f"{path} was not written by pytest-benchmark: it has no list `benchmarks`")
    return results


def throughputs(results: dict[str, Any]) -> Rows:
    """Speeds by work, library and size, in the order in which they were measured.

    Raises:
        ReportError: no benchmark holds elements per second, or none of them is fastinit's.
    """
    rows: Rows = {}
    for benchmark in results["benchmarks"]:
        about = benchmark["extra_info"]
        if "elements" in about:
            sizes = rows.setdefault(about["title"], {}).setdefault(about["library"], {})
            sizes[about["elements"]] = about["elements"] / benchmark["stats"]["median"] / 1e9
    if not any("fastinit" in libraries for libraries in rows.values()):
        raise ReportError(
            "the results hold no throughput of fastinit: run `pytest --benchmark-only` on the whole suite"
        )
    lost = [title for title, libraries in rows.items() if len(libraries) > 1 and "fastinit" not in libraries]
    if lost:
        raise ReportError(f"the results hold no throughput of fastinit for {lost[0]!r}")
    return rows


def table(results: dict[str, Any]) -> str:
    """A Markdown table with a caption: a row per work, at the largest size measured with all its libraries."""
    head = ["work", "elements", *LIBRARIES.values(), *(f"of {LIBRARIES[rival]}" for rival in RIVALS)]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for title, libraries in throughputs(results).items():
        common = set.intersection(*(set(sizes) for sizes in libraries.values()))
        if not common:
            raise ReportError(f"no size of {title!r} was measured with all of {', '.join(libraries)}")
        largest = max(common)
        speeds = {library: sizes[largest] for library, sizes in libraries.items()}
        cells = [_number(speeds[library]) if library in speeds else "" for library in LIBRARIES]
        lines.append([title, _elements(largest), *cells, *(_ratio(speeds, rival) for rival in RIVALS)])
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{body}\n\n{caption(results)}\n"


def caption(results: dict[str, Any]) -> str:
    """What the numbers are, and what they depend on."""
    machine = results.get("machine_info", {})
    try:
        versions = machine["versions"]
        words = (
            f"{machine['cpu_name']} ({machine['llvm_cpu']}), {machine['cores']} cores, fastinit on "
            f"{machine['fastinit_threads']} threads and torch on {machine['torch_threads']}; fastinit "
            f"{versions['fastinit']}, Numba {versions['numba']}, NumPy {versions['numpy']}, torch {versions['torch']}, "
            f"Python {versions['python']}; {results['datetime'][:10]}"
        )
    except KeyError as error:
        raise ReportError(f"the results do not say {error} of the machine: they are not of this suite") from None
    return f"10^9 elements per second, medians; the last columns are fastinit's multiple. {words}."


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _ratio(speeds: dict[str, float], rival: str) -> str:
    if "fastinit" not in speeds or rival not in speeds:
        return ""
    ratio = speeds["fastinit"] / speeds[rival]
    return f"{ratio:.0f}x" if ratio >= 100 else f"{ratio:.2g}x"


def _elements(number: int) -> str:
    return f"2^{number.bit_length() - 1}" if number & (number - 1) == 0 else f"{number:,}"


def insert(readme: Path, text: str) -> None:
    """Replace what stands between the markers of a file.

    Raises:
        ReportError: there is no such file, or it does not hold each marker once, in order. Nothing was written.
    """
    try:
        old = readme.read_text(encoding="utf-8")
    except OSError as error:
        raise ReportError(f"cannot read {readme}: {error.strerror}") from None
    if old.count(BEGIN) != 1 or old.count(END) != 1 or old.index(BEGIN) > old.index(END):
        raise ReportError(f"{readme} must hold {BEGIN} and, after it, {END}, each once")
    before, after = old[: old.index(BEGIN) + len(BEGIN)], old[old.index(END) :]
    readme.write_text(f"{before}\n{text}{after}", encoding="utf-8")


def plot(results: dict[str, Any], path: Path) -> None:
    """Speed over size, one panel per work; a work that fastinit has no part in is the bound of the others' panels."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows = throughputs(results)
    several = {title: row for title, row in rows.items() if "fastinit" in row and len(row["fastinit"]) > 1}
    bounds = {title: sizes for title, row in rows.items() if "fastinit" not in row for sizes in row.values()}
    if not several:
        raise ReportError("the results hold no work at several sizes: nothing to plot")
    height = -(-len(several) // 3)
    with mpl.rc_context({"svg.hashsalt": "fastinit", "font.size": 9}):  # the same file for the same results
        figure = Figure(figsize=(11, 2.9 * height), layout="constrained")
        grid = figure.subplots(height, 3, squeeze=False).ravel()
        for axes, (title, row) in zip(grid, several.items(), strict=False):
            _panel(axes, title, row, bounds)
        for axes in grid[len(several) :]:
            axes.remove()
        entries = {
            label: line for axes in figure.axes for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=len(entries), frameon=False)
        figure.suptitle("10^9 elements per second, over the number of elements")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _panel(axes: Any, title: str, row: dict[str, Sizes], bounds: dict[str, Sizes]) -> None:
    width = title.rpartition(", ")[2]
    for library, sizes in row.items():
        xs = sorted(sizes)
        axes.plot(xs, [sizes[x] for x in xs], label=LIBRARIES[library], markersize=4, linewidth=1.3, **STYLES[library])
    for name, sizes in bounds.items():
        if f", {width}" in name:  # of the same bytes per element
            xs = [x for x in sorted(sizes) if x in row["fastinit"] and x >= BOUND_FROM]
            axes.plot(xs, [sizes[x] for x in xs], label=name, color="0.5", linestyle="--", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_title(title)
    axes.grid(alpha=0.3)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.report", description="Benchmarks as a table and a plot.")
    parser.add_argument("results", type=Path, help="pytest-benchmark's JSON")
    parser.add_argument("--readme", type=Path, help=f"the file to put the table into, between {BEGIN} and {END}")
    parser.add_argument("--plot", type=Path, help="the plot to write, e.g. docs/performance.svg")
    given = parser.parse_args(arguments)
    try:
        results = load(given.results)
        text = table(results)
        if given.readme:
            insert(given.readme, text)
        if given.plot:
            plot(results, given.plot)
    except ReportError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    if not (given.readme or given.plot):
        print(text, end="")


if __name__ == "__main__":
    main()
