"""The pictures of the documentation: all are made, and the README's shows what the probe finds now."""

import importlib.util
import json
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import fastinit as fi

DOCS = Path(__file__).parents[1] / "docs"
DESCRIPTION = "{http://purl.org/dc/elements/1.1/}description"


@pytest.fixture(scope="module")
def pictures():
    """Loaded by its path: `docs` is no package."""
    spec = importlib.util.spec_from_file_location("pictures", DOCS / "pictures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def described(path):
    return ET.parse(path).getroot().find(f".//{DESCRIPTION}").text


def check_pictures(pictures, tmp_path):
    pictures.make(tmp_path / "new")
    made = {path.name for path in (tmp_path / "new").iterdir()}
    assert made == {name for picture in pictures.CAPTIONS for name in (picture, picture.replace(".svg", ".md"))}
    for name, caption in pictures.CAPTIONS.items():
        figure = (tmp_path / "new" / name.replace(".svg", ".md")).read_text(encoding="utf-8")
        assert figure == f"```{{figure}} /new/{name}\n:alt: {caption}\n\n{caption}\n```\n"
        assert re.fullmatch(r"probe-[a-z-]+\.svg", name)
        assert described(tmp_path / "new" / name) == caption
        assert caption.endswith(".")


def test_every_picture_has_its_caption(pictures, tmp_path, monkeypatch):
    """Two of them, with a small picture in their places."""
    assert list(pictures.CAPTIONS) == list(pictures._MAKERS)
    captions = dict(list(pictures.CAPTIONS.items())[:2])
    figure = pictures.plots.layers(fi.probe([4, 4, 2], samples=8))
    monkeypatch.setattr(pictures, "CAPTIONS", captions)
    monkeypatch.setattr(pictures, "_MAKERS", dict.fromkeys(captions, lambda: figure))
    check_pictures(pictures, tmp_path)


@pytest.mark.slow
def test_every_picture_is_made_with_its_caption(pictures, tmp_path):
    check_pictures(pictures, tmp_path)


@pytest.mark.slow
def test_the_readmes_picture_shows_what_the_probe_finds(pictures):
    shown = json.loads(described(DOCS / "probe.svg"))
    found = pictures.numbers(fi.compare(pictures.README, pictures.SHOWN))
    assert list(shown) == list(found) == pictures.SHOWN
    for scheme, numbers in found.items():
        assert shown[scheme]["verdict"] == numbers["verdict"]
        for name in ("activations", "gradients"):
            assert len(numbers[name]) == len(pictures.README) - 1
            assert shown[scheme][name] == pytest.approx(numbers[name], rel=1e-3, abs=0)
    assert [numbers["verdict"] for numbers in found.values()] == [
        ["healthy"],
        ["vanishing"],
        ["vanishing", "symmetric"],
        ["exploding"],
    ]


@pytest.mark.slow
def test_the_captions_of_glorots_figure_say_what_the_probe_finds(pictures):
    both = [pictures.CAPTIONS[f"probe-glorot-{name}.svg"] for name in ("activations", "gradients")]
    assert all(re.search(r"shrink, to a tenth .* to a half under Xavier", " ".join(text.split())) for text in both)
    old, xavier = pictures._glorot()
    for probe, divisor in ((old, 10), (xavier, 2)):
        assert [round(1 / probe.verdict.forward), round(1 / probe.verdict.backward)] == [divisor, divisor]
        assert probe.verdict.kinds == ("healthy",)
    eight = fi.probe([784, *[1000] * 8, 10], scheme="heuristic_uniform", activation="tanh", samples=128)
    assert eight.verdict.kinds == ("vanishing",)


def test_the_readmes_picture_is_white_and_small():
    text = (DOCS / "probe.svg").read_text(encoding="utf-8")
    width, height = map(float, re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', text).groups())
    assert 560 <= width <= 620
    assert 200 <= height <= 270
    assert re.search(r'<g id="patch_1">\s*<path d="M 0 [^"]*" style="fill: #ffffff"', text)
    assert len(text) < 150_000


@pytest.mark.parametrize("name", ["one.svg", "folder"])
def test_the_command_makes_the_readmes_picture_or_all(pictures, tmp_path, monkeypatch, name):
    made = []
    monkeypatch.setattr(pictures, "make", lambda path: made.append(("all", path)))
    monkeypatch.setattr(pictures, "readme", lambda path: made.append(("readme", path)))
    pictures.main([str(tmp_path / name)])
    assert made == [("readme" if name.endswith(".svg") else "all", tmp_path / name)]
    assert "pictures" not in sys.modules
