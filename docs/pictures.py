"""The pictures of the documentation, by fastinit's own probe, and the README's.

python docs/pictures.py FOLDER           all pictures of the documentation
python docs/pictures.py docs/probe.svg   the README's
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import fastinit as fi
from fastinit import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEEP = [100] * 31 + [10]  # 30 hidden layers
README = [784, *[256] * 30, 10]
SHOWN = ["he_normal", "xavier_normal", "zeros", "normal(std=0.2)"]
PAPER = [784, *[1000] * 5, 10]
WIDTHS, YTICKS = [64, 128, 256, 512, 1024], [0.5, 1, 2, 5, 10, 20]

CAPTIONS: dict[str, str] = {}
_MAKERS: dict[str, Callable[[], Figure]] = {}

Maker = Callable[[], "Figure"]


def picture(name: str, caption: str) -> Callable[[Maker], Maker]:
    """Enter a picture of the documentation."""

    def enter(maker: Maker) -> Maker:
        CAPTIONS[name], _MAKERS[name] = caption, maker
        return maker

    return enter


def deep(schemes: list[str], activation: str) -> Figure:
    return plots.layers(fi.compare(DEEP, schemes, [activation], samples=64))


@picture(
    "probe-baselines.svg",
    "Baselines through 30 ReLU layers of 100 units. Zeros pass nothing on, one value for all makes all units of a "
    "layer the same, and a standard deviation that does not know the width vanishes or explodes.",
)
def baselines() -> Figure:
    return deep(
        ["zeros", "constant(value=0.01)", "normal(std=0.01)", "uniform(low=-0.1, high=0.1)", "normal(std=1)"], "relu"
    )


@picture(
    "probe-relu.svg",
    "30 ReLU layers: He's factor of 2 makes up for the half that ReLU cuts away. Without it, under Xavier, signal and "
    "gradient lose a factor of about 1.4 in every layer, and of about 2.4 under the old heuristic.",
)
def relu() -> Figure:
    return deep(
        ["he_normal", "he_uniform", "orthogonal(gain=1.4142)", "xavier_normal", "heuristic_uniform"],
        "relu",
    )


@picture(
    "probe-tanh.svg",
    "30 tanh layers: under Xavier and orthogonal weights signals shrink slowly, as tanh itself does it; the old "
    "heuristic leaves 1/sqrt(3) of them in every layer; large weights saturate tanh, and gradients explode.",
)
def tanh() -> Figure:
    return deep(["xavier_uniform", "orthogonal", "he_normal", "heuristic_uniform", "normal(std=1)"], "tanh")


@picture(
    "probe-sigmoid.svg",
    "30 sigmoid layers: activations stay, since they are never 0, but gradients shrink under every scheme: by 4 in a "
    "layer under Xavier, and still by 1.6 under weights four times as large. A deep network wants another activation.",
)
def sigmoid() -> Figure:
    return deep(["xavier_uniform", "heuristic_normal", "he_normal", "normal(std=0.4)"], "sigmoid")


@picture(
    "probe-selu.svg",
    "30 SELU layers: with LeCun's variance 1/n a network normalises itself; a third of it (the old heuristic) "
    "or twice of it (He) moves away from there.",
)
def selu() -> Figure:
    return deep(["lecun_normal", "lecun_uniform", "he_normal", "heuristic_uniform", "normal(std=0.01)"], "selu")


@picture(
    "probe-gelu.svg",
    "30 GELU layers: no scale holds for signals of every size. 2.35 is right for those of variance 1, and drifts up "
    "from there; He's 2 drifts down; both are healthy at this depth, and Xavier is not.",
)
def gelu() -> Figure:
    return deep(["variance_scaling(scale=2.352)", "he_normal", "xavier_normal"], "gelu")


@picture(
    "probe-orthogonal.svg",
    "100 linear layers of 64 units: orthogonal weights keep the norm of every signal, but for rounding; others of the "
    "same variance keep it on average only, and drift.",
)
def orthogonal() -> Figure:
    return plots.layers(
        fi.compare([64] * 101 + [10], ["orthogonal", "lecun_normal", "lecun_uniform"], ["identity"], samples=64)
    )


@picture(
    "probe-structured.svg",
    "30 ReLU layers of 128 units: the identity and ZerO's corner of a Hadamard matrix pass on what is positive, as it "
    "is; orthogonal weights, and sparse ones, 15 of 128 for each input, have the variance that ReLU wants.",
)
def structured() -> Figure:
    schemes = ["eye", "hadamard", "orthogonal(gain=1.4142)", "sparse(sparsity=0.88, std=0.365)"]
    return plots.layers(fi.compare([64, *[128] * 30, 10], schemes, ["relu"], samples=64))


@picture(
    "probe-glorot-activations.svg",
    "Activations of five tanh layers of 1000 units, as in Glorot & Bengio (2010), Fig. 6: from layer to layer they "
    "shrink, to a tenth under the old heuristic (top), to a half under Xavier (bottom). Both count as healthy at this "
    "depth; with eight such layers the verdict on the old heuristic is vanishing.",
)
def glorot_activations() -> Figure:
    return plots.activations(_glorot())


@picture(
    "probe-glorot-gradients.svg",
    "Gradients of the same networks on their way back, Fig. 7: they shrink, to a tenth under the old heuristic (top), "
    "to a half under Xavier (bottom).",
)
def glorot_gradients() -> Figure:
    return plots.gradients(_glorot())


@functools.cache
def _glorot() -> fi.Comparison:
    return fi.compare(PAPER, ["heuristic_uniform", "xavier_uniform"], ["tanh"], samples=128)


@picture(
    "probe-grid.svg",
    "Verdicts on 20 layers of 64 units: in each cell by how much activations change from the first hidden layer to the "
    "last (right arrow), and gradients from the last to the first (left arrow).",
)
def grid() -> Figure:
    schemes = ["zeros", "normal(std=0.01)", "heuristic_uniform", "xavier_normal", "he_normal", "normal(std=1)"]
    return plots.grid(fi.compare([64] * 21 + [10], schemes, ["tanh", "sigmoid", "relu", "selu"], samples=64))


@picture(
    "probe-weights.svg",
    "Weights of a matrix of 200 x 400 under several schemes, and the densities of their laws. Orthogonal weights look "
    "normal one by one; what matters is how they stand to each other.",
)
def weights() -> Figure:
    laws = {
        "normal": "he_normal",
        "uniform": "he_uniform",
        "truncated": "he_normal(truncated=True)",
        "mean of both fans": "xavier_normal",
        "older": "heuristic_uniform",
        "orthogonal": "orthogonal(gain=1.4142)",
    }
    arrays = {name: _drawn(text) for name, text in laws.items()}
    return plots.weights(arrays, laws | {"orthogonal": "normal(std=0.0707)"})


def _drawn(text: str) -> object:
    import numpy as np

    from fastinit.schemes import as_distribution

    name, shape = text.partition("(")[0], (200, 400)
    return fi.fill(np.empty(shape, np.float32), as_distribution(text, shape), seed=fi.Key(0) / name)


@picture(
    "probe-mup.svg",
    "Wider and wider, three ReLU layers: under one standard deviation for all widths activations grow with the width; "
    "under muP, tuned at 128 units, those of hidden layers stay and the outputs shrink as 1/sqrt(width).",
)
def mup() -> Figure:
    hidden = "mup(std=0.125, base=128)"
    rules = {
        "normal(std=0.125)": ["normal(std=0.125)"] * 4,
        "mup(std=0.125, base=128)": [
            'mup(std=0.125, base=128, role="input")',
            hidden,
            hidden,
            'mup(std=0.125, base=128, role="output")',
        ],
    }
    found = {
        name: [fi.probe([64, *[width] * 3, 10], scheme=schemes, samples=128) for width in WIDTHS]
        for name, schemes in rules.items()
    }
    return _over_widths(found)


def _over_widths(found: dict[str, list[fi.Probe]]) -> Figure:
    from fastinit.plots._style import legend, panels, styled

    with styled():
        figure, both = panels(1, 2, (8.3, 2.9))
        for axes, layer, title in zip(both, (-2, -1), ("last hidden layer", "outputs"), strict=True):
            for look, (name, probes) in zip(plots.STYLES, found.items(), strict=False):
                axes.plot(WIDTHS, [probe.layers[layer].activations.rms for probe in probes], label=name, **look)
            axes.set_title(f"{title}, root mean square")
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set(ylim=(0.25, 30), yticks=YTICKS, yticklabels=map(str, YTICKS))
            axes.minorticks_off()
            axes.set_xticks(WIDTHS, map(str, WIDTHS))
            axes.set_xlabel("units of a hidden layer")
        legend(figure)
    return figure


def make(folder: Path) -> None:
    """Every picture of the documentation, and for each what a page includes to show it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, maker in _MAKERS.items():
        plots.save(maker(), folder / name, CAPTIONS[name])
        figure = f"```{{figure}} /{folder.name}/{name}\n:alt: {CAPTIONS[name]}\n\n{CAPTIONS[name]}\n```\n"
        (folder / name).with_suffix(".md").write_text(figure, encoding="utf-8")


def readme(path: Path) -> None:
    """The README's picture, and in its description the numbers that it shows."""
    found = fi.compare(README, SHOWN)
    plots.save(plots.layers(found), path, json.dumps(numbers(found)))


def numbers(found: fi.Comparison) -> dict[str, object]:
    """By scheme, the verdict and the root mean squares of all layers, in five digits."""
    return {
        probe.scheme: {"verdict": list(probe.verdict.kinds)}
        | {
            name: [float(f"{getattr(layer, name).rms:.4e}") for layer in probe.layers]
            for name in ("activations", "gradients")
        }
        for probe in found
    }


def main(arguments: list[str]) -> None:
    place = Path(arguments[0])
    (readme if place.suffix == ".svg" else make)(place)


if __name__ == "__main__":
    main(sys.argv[1:])
