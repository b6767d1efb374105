"""pytest-benchmark's JSON as the tables of pages and as a plot, so that no figure is typed by hand.

    pytest --benchmark-only --benchmark-json=results.json
    python -m bench.report results.json --store docs/results/fills.json
    python -m bench.report docs/results/*.json --page docs/performance.md README.md --plot docs/performance.svg

A page gets the tables that it has markers for. Without options the tables of what was measured are printed: fills,
training steps, faces, and from the three together the headline.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

LIBRARIES = {"fastinit": "fastinit", "numpy": "NumPy", "numpy_legacy": "NumPy legacy", "torch": "torch"}
RIVALS = ("numpy", "torch")  # what the last columns divide by
# Of training; every column but fastinit's own two has fastinit's multiple in brackets.
TRAINERS = {
    "fastinit": "fastinit",
    "fastinit_step": "fastinit, a call per step",
    "gemms": "products alone",
    "numpy": "NumPy",
    "torch": "torch",
    "torch_compile": "torch.compile",
    "jax": "JAX",
    "sklearn": "scikit-learn",
}
BOUND_FROM = 1 << 18  # below, handing work to two Python threads takes longer than the work
# Okabe and Ito's colours, apart for every kind of colour vision; the markers differ as well.
STYLES = {
    "fastinit": {"color": "#0072B2", "marker": "o"},
    "numpy": {"color": "#E69F00", "marker": "s"},
    "numpy_legacy": {"color": "#CC79A7", "marker": "^"},
    "torch": {"color": "#D55E00", "marker": "D"},
}

# The short table: of fills (all sizes but the largest left out), of networks, and of models.
HEADLINE = (
    ("normal, float32", ""),
    ("normal cut at 2 sigma, float32", ""),
    ("normal, bfloat16", ""),
    ("`fast_init`", "GPT-2 small, 124 million float32"),
    ("784-512-512-10, batch 128", "a training step"),
    ("64-256x30-10, batch 128", "a training step"),
    ("global norm of 1,000 arrays, clipping, float32", ""),
)
NO_RIVALS = ("gemms",)  # a part of the work, not another way to do it
NAMES = LIBRARIES | TRAINERS

EVERY_SIZE = ("`fast_init`",)  # works whose sizes are works of their own: models

Sizes = dict[int, float]  # elements: 10^9 elements per second
Rows = dict[str, dict[str, Sizes]]  # title of the work: library: sizes
Steps = dict[str, dict[str, float]]  # title of the network: library: milliseconds per step


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
    _demand_fastinit(rows, "throughput")
    return rows


def _demand_fastinit(rows: Rows | Steps, what: str) -> None:
    if not any("fastinit" in libraries for libraries in rows.values()):
        raise ReportError(f"the results hold no {what} of fastinit: run `pytest --benchmark-only` on the whole suite")
    lost = [title for title, libraries in rows.items() if len(libraries) > 1 and "fastinit" not in libraries]
    if lost:
        raise ReportError(f"the results hold no {what} of fastinit for {lost[0]!r}")


def step_times(results: dict[str, Any]) -> Steps:
    """Milliseconds per training step by network and library, in the order in which they were measured.

    Raises:
        ReportError: there are none, or a network was not trained by fastinit.
    """
    rows: Steps = {}
    for benchmark in results["benchmarks"]:
        about = benchmark["extra_info"]
        if "steps" in about:
            milliseconds = 1e3 * benchmark["stats"]["median"] / about["steps"]
            rows.setdefault(about["title"], {})[about["library"]] = milliseconds
    _demand_fastinit(rows, "training step")
    return rows


def tables(measured: list[dict[str, Any]]) -> dict[str, str]:
    """The tables that there are benchmarks for, by the name in their markers; a later file's stand for an earlier's."""
    makers = {"benchmark": ("elements", table), "training": ("steps", training_table), "faces": ("face", faces_table)}
    made: dict[str, str] = {}
    for results in measured:
        fields = set().union(*(benchmark["extra_info"] for benchmark in results["benchmarks"]))
        made |= {name: make(results) for name, (field, make) in makers.items() if field in fields}
    if len(made) == len(makers):
        made["headline"] = headline_table(measured)
    return made or {"benchmark": table(measured[0])}  # which says what is missing


def trimmed(results: dict[str, Any]) -> dict[str, Any]:
    """What the tables and the plot need of the results, and nothing else: to be kept beside the pages."""
    machine = results.get("machine_info", {})
    kept = ("cpu_name", "llvm_cpu", "cores", "versions")
    return {
        "datetime": results["datetime"],
        "machine_info": {name: machine[name] for name in machine if name in kept or name.endswith("_threads")},
        "benchmarks": [
            {"extra_info": benchmark["extra_info"], "stats": {"median": benchmark["stats"]["median"]}}
            for benchmark in results["benchmarks"]
            if {"elements", "steps", "face"} & set(benchmark["extra_info"])
        ],
    }


def headline_table(measured: list[dict[str, Any]]) -> str:
    """A short Markdown table with a caption: the works of HEADLINE, and for each the fastest of the other libraries.

    Raises:
        ReportError: a work was not measured, or not on one machine.
    """
    times: dict[tuple[str, str], dict[str, float]] = {}  # by work and size; milliseconds by library
    for results in measured:
        for title, libraries in (throughputs(results) if _has(results, "elements") else {}).items():
            size = max(set.intersection(*(set(sizes) for sizes in libraries.values())), default=0)
            shown = f"{_elements(size)} elements"
            times[title, shown] = {name: size / sizes[size] / 1e6 for name, sizes in libraries.items() if size}
        for title, libraries in (step_times(results) if _has(results, "steps") else {}).items():
            times[title, "a training step"] = libraries
        for (_, title), sizes in face_times(results).items():
            times |= {(title, size): libraries for size, libraries in sizes.items()}
    lines = [["work", "size", "fastinit", "the best other", "times"], ["---"] * 2 + ["---:"] * 3]
    for title, wanted in HEADLINE:
        found = [key for key in times if key[0] == title and wanted in ("", key[1])]
        if not found:
            raise ReportError(f"the results hold no {title!r}")
        libraries = times[found[-1]]
        own = libraries["fastinit"]
        rivals = {name: ms for name, ms in libraries.items() if name not in NO_RIVALS and "fastinit" not in name}
        best = min(rivals, key=lambda name: rivals[name])
        cells = [_number(own), f"{_number(rivals[best])} ({NAMES.get(best, best)})", _multiple(rivals[best] / own)]
        lines.append([*found[-1], *cells])
    packages = {"numba": "Numba", "numpy": "NumPy", "torch": "torch", "jax": "JAX", "transformers": "transformers"}
    machines = {results["machine_info"]["cpu_name"] for results in measured}
    if len(machines) > 1:
        raise ReportError(f"the results are of several machines: {', '.join(sorted(machines))}")
    newest = max(measured, key=lambda results: len(results["machine_info"]["versions"]))
    return _markdown(lines, f"Milliseconds, medians. {_setting(newest, {'torch': 'torch'}, packages)}")


def _has(results: dict[str, Any], field: str) -> bool:
    return any(field in benchmark["extra_info"] for benchmark in results["benchmarks"])


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
    about = "10^9 elements per second, medians; the last columns are fastinit's multiple."
    packages = {"numba": "Numba", "numpy": "NumPy", "torch": "torch"}
    return _markdown(lines, f"{about} {_setting(results, {'torch': 'torch'}, packages)}")


def training_table(results: dict[str, Any]) -> str:
    """A Markdown table with a caption: a row per network, milliseconds per training step."""
    rows = step_times(results)
    libraries = [library for library in TRAINERS if any(library in row for row in rows.values())]
    lines = [["network", *(TRAINERS[library] for library in libraries)], ["---", *["---:"] * len(libraries)]]
    lines += [[title, *(_milliseconds(row, library) for library in libraries)] for title, row in rows.items()]
    about = "Milliseconds per step, medians; in brackets fastinit's multiple."
    threads = {"blas": "BLAS", "torch": "torch", "jax": "JAX"}
    packages = {
        "numba": "Numba",
        "numpy": "NumPy",
        "scipy": "SciPy",
        "torch": "torch",
        "jax": "JAX",
        "scikit-learn": "scikit-learn",
    }
    return _markdown(lines, f"{about} {_setting(results, threads, packages)}")


def face_times(results: dict[str, Any]) -> dict[tuple[str, str], Steps]:
    """Milliseconds by framework and work, then by size and library."""
    rows: dict[tuple[str, str], Steps] = {}
    for benchmark in results["benchmarks"]:
        about = benchmark["extra_info"]
        if "face" in about:
            work = about["face"], about["title"]
            sizes = rows.setdefault(work, {}).setdefault(about["size"], {})
            sizes[about["library"]] = 1e3 * benchmark["stats"]["median"]
    return rows


def faces_table(results: dict[str, Any]) -> str:
    """A Markdown table with a caption: a row per work of a framework's face, at the largest size; milliseconds."""
    lines = [["in", "work", "size", "fastinit", "the framework", "times"], ["---"] * 3 + ["---:"] * 3]
    for (face, title), measured in face_times(results).items():
        for size, times in measured.items() if title in EVERY_SIZE else [list(measured.items())[-1]]:
            if "fastinit" not in times:
                raise ReportError(f"the results hold no time of fastinit for {title!r}")
            theirs = min((ms for library, ms in times.items() if not library.startswith("fastinit")), default=None)
            ratio = "" if theirs is None else _multiple(theirs / times["fastinit"])
            lines.append([face, title, size, _number(times["fastinit"]), _number(theirs) if theirs else "", ratio])
    about = (
        "Milliseconds, medians; of several ways that a framework has, the fastest. The last column is fastinit's gain."
    )
    packages = {"numba": "Numba", "numpy": "NumPy"} | {name: name for name in ("torch", "jax", "keras", "transformers")}
    return _markdown(lines, f"{about} {_setting(results, {'torch': 'torch'}, packages)}")


def _milliseconds(row: dict[str, float], library: str) -> str:
    if library not in row:
        return ""
    own = library in ("fastinit", "fastinit_step")
    return _number(row[library]) if own else f"{_number(row[library])} ({_multiple(row[library] / row['fastinit'])})"


def _markdown(lines: list[list[str]], caption: str) -> str:
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{body}\n\n{caption}\n"


def _setting(results: dict[str, Any], threads: dict[str, str], packages: dict[str, str]) -> str:
    """What the numbers depend on: the CPU, and of whose threads and versions the caption tells."""
    machine = results.get("machine_info", {})
    try:
        versions = machine["versions"]
        *others, last = [f"{name} on {machine[f'{key}_threads']}" for key, name in threads.items()]
        counts = ", ".join([f"fastinit on {machine['fastinit_threads']} threads", *others])
        told = {"fastinit": "fastinit"} | packages | {"python": "Python"}
        return (
            f"{machine['cpu_name']} ({machine['llvm_cpu']}), {machine['cores']} cores, {counts} and {last}; "
            f"{', '.join(f'{name} {versions[package]}' for package, name in told.items())}; {results['datetime'][:10]}."
        )
    except KeyError as error:
        raise ReportError(f"the results do not say {error} of the machine: they are not of this suite") from None


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _ratio(speeds: dict[str, float], rival: str) -> str:
    if "fastinit" not in speeds or rival not in speeds:
        return ""
    return _multiple(speeds["fastinit"] / speeds[rival])


def _multiple(ratio: float) -> str:
    return f"{ratio:.0f}x" if ratio >= 100 else f"{ratio:.2g}x"


def _elements(number: int) -> str:
    return f"2^{number.bit_length() - 1}" if number & (number - 1) == 0 else f"{number:,}"


def markers(name: str) -> tuple[str, str]:
    """What stands before and after a generated table."""
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
    parser = argparse.ArgumentParser(prog="python -m bench.report", description="Benchmarks as tables and a plot.")
    parser.add_argument("results", type=Path, nargs="+", help="pytest-benchmark's JSON, or what --store made of it")
    parser.add_argument("--page", type=Path, nargs="+", default=[], help="files to put tables into, between markers")
    parser.add_argument("--plot", type=Path, help="the plot to write, e.g. docs/performance.svg")
    parser.add_argument("--store", type=Path, help="keep what the tables need, e.g. docs/results/fills.json")
    given = parser.parse_args(arguments)
    try:
        measured = [load(path) for path in given.results]
        texts = tables(measured)
        if given.store:
            store(measured, given.store)
        for page in given.page:
            insert(page, texts)
        if given.plot:
            plot(next((results for results in measured if _has(results, "elements")), measured[0]), given.plot)
    except ReportError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    if not (given.page or given.plot or given.store):
        print("\n".join(texts.values()), end="")


def store(measured: list[dict[str, Any]], path: Path) -> None:
    """Write one file of results, trimmed: a line for each benchmark."""
    if len(measured) != 1:
        raise ReportError(f"one file of results is stored at a time. Received: {len(measured)}")
    kept = trimmed(measured[0])
    lines = ",\n".join(f" {json.dumps(benchmark)}" for benchmark in kept.pop("benchmarks"))
    head = json.dumps(kept, indent=1).removesuffix("\n}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{head},\n "benchmarks": [\n{lines}\n ]\n}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
