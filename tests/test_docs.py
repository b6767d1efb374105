"""The pages: their examples print what is shown, their links lead somewhere, their tables are what makes them."""

import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from processes import command

import fastinit
from bench import chart, report
from bench.table import PARTS
from fastinit.schemes._registry import table

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))}
PAGES = {name: text for name, text in PAGES.items() if not name.startswith("_generated/")}
# What a run takes is no part of what it says.
QUICK = "```python", "start.md-0"  # in the default run
MEASURED = re.compile(r"\d+(\.\d+)? s \(\d+\.\d+ GB/s\)|peak memory \d+ MB")


def examples(kind):
    """(page, number, code, output) of the blocks whose output is shown."""
    for name, text in PAGES.items():
        for i, found in enumerate(re.finditer(rf"{kind}\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL)):
            quick = (kind, f"{name}-{i}") == QUICK
            yield pytest.param(found[1], found[2], id=f"{name}-{i}", marks=() if quick else pytest.mark.slow)


def run(arguments, folder):
    here = Path(sys.executable).parent
    paths = {"PATH": f"{here}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(arguments, cwd=folder, env=os.environ | paths, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("code", "shown"), list(examples("```python")))
def test_the_examples_print_what_is_shown(code, shown, tmp_path):
    assert run([sys.executable, "-c", code], tmp_path) == shown


@pytest.mark.parametrize(("code", "shown"), list(examples("<!-- run -->\n```sh")))
def test_the_commands_print_what_is_shown(code, shown, tmp_path):
    found = run(["bash", "-euo", "pipefail", "-c", code], tmp_path)
    assert MEASURED.sub("...", found) == MEASURED.sub("...", shown)


def test_every_example_has_its_output():
    lonely = [
        name
        for name, text in PAGES.items()
        if len(re.findall("^```python$", text, re.MULTILINE))
        != len(re.findall("```\n\n```text\n", text)) - text.count("<!-- run -->")
    ]
    assert lonely == []


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    folder = (DOCS / name).parent
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)(?:#[\w-]*)?\)", PAGES[name])
    assert [link for link in links if not (folder / link).exists()] == []


def test_every_page_is_in_a_contents_list():
    listed = re.findall(r"^```\{toctree\}\n(.*?)^```", PAGES["index.md"], re.DOTALL | re.MULTILINE)
    names = [f"{line}.md" for text in listed for line in text.split() if not line.startswith(":")]
    assert sorted({name for name in names if name in PAGES}) == sorted(set(PAGES) - {"index.md"})
    linked = re.findall(r"\]\(([\w/]+\.md)\)", PAGES["index.md"])
    assert sorted(linked) == sorted(set(PAGES) - {"index.md"})


def test_the_page_of_schemes_is_the_table():
    assert PAGES["schemes.md"].endswith(f"\n\n{table()}\n")


def documented():
    """Full names of what the pages of the interface show."""
    found = set()
    for name, text in PAGES.items():
        if not name.startswith("api/"):
            continue
        module = ""
        for line in text.splitlines():
            if line.startswith(".. currentmodule::"):
                module = line.split()[-1]
            elif entry := re.match(r"\.\. (?:autofunction|autoclass):: ([\w.]+)", line):
                found.add(entry[1] if entry[1].startswith("fastinit.") else f"{module}.{entry[1]}")
    return found


# Second names, and objects of the frameworks themselves; each is named on its page.
OTHERS = {
    "fastinit": "glorot_uniform glorot_normal kaiming_uniform kaiming_normal",
    "fastinit.torch": "calculate_gain constant dirac eye kaiming_normal kaiming_uniform normal orthogonal sparse "
    "uniform xavier_normal xavier_uniform",
    "fastinit.jax": "Initializer constant kaiming_normal kaiming_uniform ones xavier_normal xavier_uniform zeros",
}


@pytest.mark.parametrize(
    "module",
    ["fastinit", "fastinit.checkpoint", "fastinit.torch", "fastinit.jax", "fastinit.sklearn", "fastinit.schedules"],
)
def test_the_interface_is_documented(module):
    public = set(importlib.import_module(module).__all__)
    shown = {name.rpartition(".")[2] for name in documented() if name.rpartition(".")[0] == module}
    others = set(OTHERS.get(module, "").split())
    assert shown | others == public
    assert not shown & others
    page = {"fastinit": "schemes", "fastinit.schedules": "networks"}.get(module, module.rpartition(".")[2])
    page = PAGES[f"api/{page}.md"]
    assert [name for name in others if module != "fastinit.torch" and f"`{name}`" not in page] == []


def test_keras_is_documented():
    text = (ROOT / "fastinit" / "keras.py").read_text(encoding="utf-8")  # not imported: its backend is chosen once
    classes = set(re.findall(r"^class ([A-Z]\w+)\(", text, re.MULTILINE))
    assert {name for name in documented() if name.startswith("fastinit.keras.")} == {
        f"fastinit.keras.{name}" for name in classes
    }


def test_every_command_is_on_its_page(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    page = importlib.import_module("commands").page()
    listed = command("--help").stdout
    names = re.findall(r"^  ([a-z]+)  ", listed.partition("Commands:")[2], re.MULTILINE)
    assert names
    assert re.findall(r"^## `fastinit (\w+)`$", page, re.MULTILINE) == names
    assert page.count("Example: `fastinit") + page.count("Example: `RUN fastinit") == len(names)


def test_the_figures_are_those_of_the_stored_results():
    tables = report.tables(report.load(DOCS / "results.json"))
    assert set(tables) == {"headline", *PARTS}
    pages = PAGES["performance.md"], PAGES["index.md"], (ROOT / "README.md").read_text(encoding="utf-8")
    for name, text in tables.items():
        begin, end = report.markers(name)
        assert f"{begin}\n{text}{end}" in pages[0]
        assert all(f"{begin}\n{text}{end}" in page for page in pages if begin in page)
    assert all(report.markers("headline")[0] in page for page in pages)


def test_the_picture_is_that_of_the_stored_results(tmp_path):
    chart.plot(report.lines_of(report.load(DOCS / "results.json")), tmp_path / "new.svg")
    new, old = (path.read_text(encoding="utf-8") for path in (tmp_path / "new.svg", DOCS / "performance.svg"))
    version = r"<dc:title>(Matplotlib [^<]*)<"
    if re.search(version, new)[1] == re.search(version, old)[1]:
        assert new == old
    assert re.findall("<!-- (.*?) -->", new) == re.findall("<!-- (.*?) -->", old)  # all its text, axes included


def test_the_extra_of_the_pages_has_all_that_they_import_but_torch():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    listed = {text.partition(">=")[0] for text in extras["docs"]}
    adapters = {name for name in ("jax", "keras", "sklearn") if f"api/{name}.md" in PAGES}
    assert listed >= {"furo", "matplotlib", "myst-parser", "sphinx"} | {
        extras[name][0].partition(">=")[0] for name in adapters
    }
    assert not any(name.startswith("torch") for name in listed)
    assert 'autodoc_mock_imports = [] if importlib.util.find_spec("torch") else ["torch"]' in (
        DOCS / "conf.py"
    ).read_text(encoding="utf-8")
    (command,) = re.findall(r"<!-- docs-command -->\n```sh\n(.*)\n```", (ROOT / "CONTRIBUTING.md").read_text())
    assert f"`{command}`" in (DOCS / "conf.py").read_text(encoding="utf-8")


def test_the_version_is_the_packages():
    text = (DOCS / "conf.py").read_text(encoding="utf-8")
    assert "release = fastinit.__version__" in text
    assert not re.search(re.escape(fastinit.__version__), text)
