"""Pages in windows from 400 to 1920 pixels: all text fits, or lies in a box that scrolls."""

import subprocess
import sys
from pathlib import Path

import pytest
from browser import cut_off

import fastinit as fi
from fastinit import checkpoint
from fastinit._io.html import lines, page, table

ROOT = Path(__file__).parents[1]
WIDTHS = [400, 1024, 1280, 1920]
LONG = "model.language_model.encoder_decoder_layers.{0..999}.self_attention_projection.up_proj.weight"
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The documentation, built with warnings as errors."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-b", "html", "docs", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


def names(folder):
    return [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.html"))]


def test_no_text_of_the_site_is_cut_off(site):
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html").as_posix() for path in ROOT.glob("docs/[!_]*.md")}
    assert pages < {*names(site)}
    assert cut_off(site, names(site), WIDTHS) == []


def test_no_text_of_a_report_is_cut_off(tmp_path):
    sizes = [64, *[32] * 30, 10]
    schemes = ["he_normal", "variance_scaling(scale=2.352, mode='fan_avg', distribution='uniform')", "zeros"]
    pages = tmp_path / "pages"
    pages.mkdir()
    (tmp_path / "plan.toml").write_text(f'[tensors."{LONG}"]\nshape = [8, 8]\nscheme = "he_normal"\n')
    checkpoint.write(fi.Plan.from_toml(tmp_path / "plan.toml"), tmp_path / "start", seed=0)
    reports = {
        "stats": checkpoint.survey(tmp_path / "start"),
        "probe": fi.probe(sizes, samples=16),
        "compare": fi.compare(sizes, schemes, ["relu", "leaky_relu"], samples=16),
    }
    for name, report in reports.items():
        (pages / f"{name}.html").write_text(report.to_html(), encoding="utf-8")
    assert cut_off(pages, names(pages), WIDTHS) == []


SPOILT = {
    "line": ["<pre>" + "x" * 500 + "</pre>"],
    "cell": ["<table><tr><td style='white-space:nowrap'>" + "long " * 200 + "</table>"],
    "hidden": ["<p style='overflow:hidden;width:200px;white-space:nowrap'>" + "long " * 20],
    "legend": [lines({"s" * 300: [1.0]}, [0], caption="c")],
}


def test_text_that_is_cut_off_is_seen(tmp_path):
    """Beside them a page on which all is well: a wide table in its box."""
    for name, parts in SPOILT.items():
        made = page(name, []).replace("</body>", f"{parts[0]}</body>")
        (tmp_path / f"{name}.html").write_text(made, encoding="utf-8")
    wide = table([f"column {i}" for i in range(60)], [range(60)])
    (tmp_path / "wide.html").write_text(page("wide", [wide, "text " * 100]), encoding="utf-8")
    found = cut_off(tmp_path, names(tmp_path), [400, 1920])
    assert sorted((name, width) for name, width, _ in found) == [
        (f"{name}.html", width) for name in sorted(SPOILT) for width in (400, 1920)
    ]
