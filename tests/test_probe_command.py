"""`fastinit probe`: its tables, files, errors."""

import json
import os
import re
import threading

import pytest
from browser import Tables, opened
from processes import command

import fastinit as fi
from fastinit._probe.html import SHOWN

THREE = ["--scheme", "xavier_normal", "--scheme", "he_normal", "--scheme", "zeros"]


def run(*arguments, **options):
    return command("probe", *arguments, **options)


def test_the_table_of_the_issue():
    done = run("--sizes", "784,256x30,10", "--activation", "relu", *THREE)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("layers.30") == 3
    assert "█" in done.stdout
    verdicts = [[*line.split()[:3], line.split("  ")[-1]] for line in done.stdout.splitlines()[-3:]]
    assert verdicts == [
        ["784-256x30-10", "relu", "xavier_normal", "vanishing"],
        ["784-256x30-10", "relu", "he_normal", "healthy"],
        ["784-256x30-10", "relu", "zeros", "vanishing, symmetric"],
    ]


def test_one_scheme_is_one_table_without_a_grid():
    done = run("--sizes", "8, 16 x 2 ,3", "--activation", "tanh")
    assert done.stdout == f"{fi.probe([8, 16, 16, 3], activation='tanh')}\n"


def test_json_is_what_python_gives():
    done = run("--sizes", "8,16x2,3", *THREE, "--activation", "relu", "--activation", "gelu", "--seed", 3, "--json")
    schemes = ["xavier_normal", "he_normal", "zeros"]
    assert json.loads(done.stdout) == fi.compare([8, 16, 16, 3], schemes, ["relu", "gelu"], seed=3).to_table()


def test_options_reach_the_probe():
    done = run("--sizes", "8,16,3", "--output", "sigmoid", "--samples", 77, "--dtype", "float64", "--json")
    (found,) = json.loads(done.stdout)["probes"]
    wanted = fi.probe([8, 16, 3], output="sigmoid", samples=77, dtype="float64")
    assert found == wanted.to_table()
    assert found["samples"] == 77


def test_a_terminal_without_bars_gets_plain_signs():
    done = run("--sizes", "8,16,3", charset="ascii")
    assert done.returncode == 0
    assert "########" in done.stdout
    assert done.stdout.isascii()


def test_the_page_holds_the_numbers(tmp_path):
    page = tmp_path / "page.html"
    done = run("--sizes", "8,16x2,3", *THREE, "--html", page, "--json")
    text = page.read_text()
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    assert json.loads(data) == json.loads(done.stdout)
    assert not re.search(r"https?://(?!www\.w3\.org)", text)  # nothing is fetched
    assert list(tmp_path.iterdir()) == [page]


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_the_picture_is_of_its_kind(tmp_path, kind):
    path = tmp_path / f"picture.{kind}"
    done = run("--sizes", "8,16x2,3", *THREE, "--plot", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert path.read_bytes().startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[kind])


def test_a_report_does_not_take_the_place_of_a_device(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    texts = []
    reader = threading.Thread(target=lambda: texts.append(pipe.read_text()), daemon=True)  # waits for who writes
    reader.start()
    assert run("--sizes", "3,4,2", "--html", pipe).returncode == 0
    reader.join(10)
    assert [text[:15] for text in texts] == ["<!DOCTYPE html>"]
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("--sizes must be like 784,256x30,10", ["--sizes", ""]),
        ("--sizes must be like 784,256x30,10", ["--sizes", "3,"]),
        ("--sizes must be like 784,256x30,10", ["--sizes", "3,-4,2"]),
        ("--sizes must be like 784,256x30,10", ["--sizes", "3,4x0,2"]),
        ("--sizes must be like 784,256x30,10", ["--sizes", "3,4x99999999999,2"]),
        ("sizes must be positive", ["--sizes", "3,0,2"]),
        ("sizes must be two or more", ["--sizes", "3"]),
        ("unknown scheme 'he_norml'; did you mean 'he_normal'", ["--sizes", "3,2", "--scheme", "he_norml"]),
        ("unknown activation 'rel'", ["--sizes", "3,2", "--activation", "rel"]),
        ("samples must be positive", ["--sizes", "3,2", "--samples", "0"]),
        ("dtype must be one of", ["--sizes", "3,2", "--dtype", "bfloat16"]),
        ("No such file or directory", ["--sizes", "3,2", "--html", "/nowhere/at/all.html"]),
        ("Is a directory", ["--sizes", "3,2", "--html", "/"]),
        ("must end in .png, .svg, .pdf", ["--sizes", "3,2", "--plot", "picture.gif"]),
    ],
)
def test_errors_are_one_line(message, arguments):
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert done.stderr.startswith("fastinit: ")
    assert done.stderr.count("\n") == 1


def test_a_picture_of_many_networks_is_the_grid_of_verdicts(tmp_path):
    schemes = [
        word for scheme in ("zeros", "he_normal", "xavier_normal", "normal(std=1)") for word in ("--scheme", scheme)
    ]
    for activations, cells in ((["relu"], 0), (["relu", "tanh"], 8)):
        path = tmp_path / f"{len(activations)}.svg"
        chosen = [word for name in activations for word in ("--activation", name)]
        assert run("--sizes", "8,16x2,3", *schemes, *chosen, "--plot", path).returncode == 0
        assert len(re.findall("<!-- [✓▲▼=■] [a-z, ]+ -->", path.read_text(encoding="utf-8"))) == cells
    repeated = [*schemes, *schemes[:2]]  # no cell for each: curves
    path = tmp_path / "twice.svg"
    done = run("--sizes", "8,16x2,3", *repeated, "--activation", "relu", "--activation", "tanh", "--plot", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "<!-- layer -->" in path.read_text(encoding="utf-8")


def test_the_verdict_comes_first_on_a_page(tmp_path):
    found = fi.probe([8, 16, 16, 3])
    page = found.to_html()
    assert page.index(f"<p>{found.verdict}</p>") < page.index("<figure>")


def test_help_shows_an_example():
    assert "Example: fastinit probe --sizes 784,256x30,10" in run("--help").stdout


@pytest.mark.browser
def test_the_page_opens_and_its_numbers_are_those_of_the_json(tmp_path):
    page = tmp_path / "page.html"
    done = run("--sizes", "8,16x3,3", *THREE, "--scheme", "normal(std=1e15)", "--html", page, "--json")
    probes = json.loads(done.stdout)["probes"]
    dom, messages = opened(page)
    assert messages == []
    rows = Tables(dom).rows
    for probe, row in zip(probes, rows, strict=False):
        verdict = probe["verdict"]
        told = [verdict["forward"], verdict["backward"], probe["loss"]]
        assert row[0] == f"8-16x3-3, relu, {probe['scheme']}"
        assert row[1] == ", ".join(verdict["kinds"])
        assert list(map(same, row[2:5])) == told
    layers = [layer for probe in probes for layer in probe["layers"]]
    for layer, row in zip(layers, rows[len(probes) :], strict=True):
        wanted = [layer[name] for name in ("name", "kind", "units", "dead", "saturated", "alike")]
        for name, numbers in SHOWN.items():
            wanted += [None, *(layer[name][number] for number in numbers)]  # first a histogram, without text
        assert list(map(same, row)) == wanted
    assert any(None in layer["activations"].values() for layer in layers)  # some are not finite
    assert dom.count('class="bars"') == 4 * len(layers)


def same(cell):
    """A cell as JSON has it: what is not finite is not in JSON."""
    return None if cell in ("", "inf", "nan") else cell
