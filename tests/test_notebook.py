"""Results in a notebook: tables and charts, escaped, without scripts; and the example notebook as it is."""

import io
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import fastinit as fi
from fastinit import checkpoint
from fastinit._io.progress import progress_bar

ROOT = Path(__file__).parents[1]
HOSTILE = "</table><script>boom()</script>\x1b[2J\u202e"


class Page(HTMLParser):
    """Whether tags are balanced, which there are, and the texts of table cells."""

    VOID = ("path", "polyline", "tr", "td", "th", "wbr")  # what ends by itself, or by what follows

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.cells = [], [], []
        self.feed(text)
        self.close()
        self.cells = [cell.strip() for cell in self.cells]

    def handle_starttag(self, tag, attrs):
        assert not [name for name, value in attrs if name.startswith("on") or "javascript" in (value or "")]
        self.tags.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.cells:
            self.cells[-1] += data


def shown(result):
    """What a notebook shows of a result, as a page that was checked."""
    text = result._repr_html_()
    page = Page(text)
    assert page.open == []
    assert not {"script", "link", "iframe", "object", "img", "form"} & set(page.tags)
    assert re.search(r"https?:|@import|url\(|\x1b|\u202e", text) is None
    # Styles are for what is inside only.
    for rule in "".join(re.findall(r"<style>(.*?)</style>", text, re.DOTALL)).replace("\n", "").split("}")[:-1]:
        assert all(selector.startswith(".fastinit ") for selector in rule.partition("{")[0].split(","))
    return page


def test_a_summary():
    found = fi.summarize(np.arange(2000, dtype="float32"), fi.Uniform(0, 2000))
    cells = shown(found).cells
    assert cells == str(found).split()
    assert cells[:2] == ["count", "2,000"]


def test_a_plan():
    plan = fi.Plan({HOSTILE: ((3, 4), "float32", "normal"), "scalar": ((), "float64", "ones")}, seed=7)
    page = shown(plan)
    assert page.cells[5:7] == ["</table><script>boom()</script>\\x1b[2J\\u202e", "3 x 4"]
    assert page.cells[-5:-1] == ["scalar", "scalar", "float64", "ones"]
    assert "2 tensors, 13 parameters, 56 bytes, seed 7" in plan._repr_html_()
    large = fi.Plan({f"w.{i}": ((1,), "float32", "ones") for i in range(1000)})
    cells = shown(large).cells
    assert len(cells) == 61 * 5
    assert "... 941 more" in cells
    assert {"w.0", "w.29", "w.971", "w.999"} < set(cells)
    assert not {"w.30", "w.970"} & set(cells)


@pytest.mark.parametrize("depth", [2, 40])
def test_a_probe(depth):
    page = shown(fi.probe([8, *[16] * depth, 4], "he_normal"))
    assert page.tags.count("figure") == 2
    assert {"layers.0", f"layers.{depth}"} < set(page.cells)
    assert ("... 18 more" in page.cells) == (depth == 40)
    assert page.tags.count("tr") == min(1 + depth + 1, 25)


def test_a_comparison():
    found = fi.compare([8, *[16] * 20, 4], ["zeros", "he_normal", "normal(std=9)"])
    page = shown(found)
    assert page.tags.count("figure") == 2
    assert [cell for cell in page.cells if cell in ("healthy", "exploding", "vanishing, symmetric")] == [
        ", ".join(probe.verdict.kinds) for probe in found
    ]
    assert "loss (softmax cross-entropy)" in page.cells


@pytest.mark.parametrize("population", [None, 3])
def test_a_history(population):
    rng = np.random.default_rng(0)
    model = fi.MLP([3, 4, 2], seed=0, population=population)
    x, y = rng.standard_normal((40, 3)), rng.integers(0, 2, 40)
    history = model.fit(x, y, epochs=25, validation=(x, y))
    page = shown(history)
    assert page.tags.count("figure") == 1
    assert page.cells[:5] == ["epoch", "loss", "gradient norm", "clipped", "validation"]
    first = history.loss[0] if population is None else np.sort(history.loss[0])[1]
    assert page.cells[6] == f"{first:.4g}"
    assert ("medians of 3 members" in history._repr_html_()) == (population == 3)
    assert "... 6 more" in page.cells
    assert shown(fi.History()).tags.count("figure") == 0
    assert "nan" in shown(fi.History(loss=[1.0, float("nan")])).cells


def test_a_survey(tmp_path):
    plan = fi.Plan({"a<b>&": ((64, 64), "float32", "he_normal"), "x" * 300: ((2,), "float32", "ones")})
    checkpoint.write(plan, tmp_path / "out", fsync=False)
    page = shown(checkpoint.survey(tmp_path / "out"))
    assert page.cells.count("a<b>&") == 1
    assert page.cells.count("as planned") == 2
    assert page.tags.count("svg") == 2


class Cell(io.StringIO):
    """The stderr of a notebook's cell."""

    __module__ = "ipykernel.iostream"


def test_progress_is_one_line_that_is_written_again(monkeypatch):
    stderr = Cell()
    monkeypatch.setattr(sys, "stderr", stderr)
    with progress_bar(True, 1000, "epochs") as advance:
        for _ in range(1000):
            advance(1)
    first, *lines = stderr.getvalue().split("\r")
    assert first == ""
    assert lines == [
        *(f"{n:3}%  {max(10 * n, 1):,} of 1,000 epochs" for n in range(100)),
        "100%  1,000 of 1,000 epochs\n",
    ]


@pytest.mark.slow
def test_the_notebook_runs(monkeypatch):
    """Headless, in a kernel of its own: every result is shown, and no cell fails or warns."""
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(Path(fi.__file__).parents[1]))
    notebook = nbformat.read(ROOT / "examples" / "tour.ipynb", as_version=4)
    assert [cell for cell in notebook.cells if cell.get("outputs")] == []  # as it is stored
    resources = {"metadata": {"path": str(ROOT / "examples")}}
    NotebookClient(notebook, timeout=300, resources=resources, coalesce_streams=True).execute()
    first, *others = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    assert first == []
    kinds = [[output.output_type for output in outputs] for outputs in others]
    assert [each[-1] for each in kinds] == ["execute_result"] * len(others)
    assert all("<table" in outputs[-1].data["text/html"] for outputs in others)
    streams = [output for outputs in others for output in outputs if output.output_type == "stream"]
    assert [stream.name for stream in streams] == ["stderr"] * 2  # progress, a line each
    assert streams[0].text == "100%  30 of 30 epochs\n"
    assert re.fullmatch(r"100%  ([\d,]+) of \1 bytes\n", streams[1].text)
