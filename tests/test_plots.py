"""Pictures: what their artists hold, what their files are, and that their colours can be told apart."""

import itertools
import math
import re
import subprocess
import sys
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

import fastinit as fi
from fastinit import plots
from fastinit.plots._densities import shade
from fastinit.plots._style import SETTINGS, legend, panels, styled
from fastinit.plots._style import style as style_of
from fastinit.stats._histograms import Histogram

# Machado, Oliveira, Fernandes, "A physiologically-based model for simulation of color vision deficiency" (2009),
# severity 1.0: on linear RGB.
MACHADO = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
RGB_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def seen(colour, vision=None):
    """A colour in CIELAB, as it is seen."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    if vision:
        linear = np.clip(np.array(MACHADO[vision]) @ linear, 0, 1)
    xyz = RGB_TO_XYZ @ linear / (RGB_TO_XYZ @ np.ones(3))
    x, y, z = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def distances(colours, vision=None):
    return [float(np.linalg.norm(seen(a, vision) - seen(b, vision))) for a, b in itertools.combinations(colours, 2)]


@pytest.fixture(scope="module")
def relu():
    schemes = ["zeros", "xavier_normal", "he_normal", "normal(std=1000)"]
    return fi.compare([16, *[24] * 20, 4], schemes, samples=32)


@pytest.fixture(scope="module")
def tanh():
    return fi.compare([16, *[64] * 5, 4], ["heuristic_uniform", "xavier_uniform"], ["tanh"], samples=64)


def lines_of(axes):
    """Lines of data by their labels, without marks at the ends."""
    return {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}


def texts_of(axes):
    return [text.get_text() for text in axes.texts]


HISTORY = fi.History([2.0, 0.0, math.nan, 0.5], [1.0, 20.0, math.inf, 0.25], [0.0, 0.5, 0.0, 1.0], [0.1, 0.2, 0.3, 0.4])


def every_picture(relu, tanh):
    yield plots.layers(relu)
    yield plots.activations(tanh)
    yield plots.gradients(relu)
    yield plots.grid(tanh)
    yield plots.weights(fi.MLP([8, 16, 4], seed=0), "he_normal")
    yield plots.history({"a": HISTORY, "b": fi.History([1.0], [1.0], [1.0], [1.0])})


# --- layers ---


def test_lines_are_the_probes_numbers(relu):
    for axes, name in zip(plots.layers(relu).axes, ("activations", "gradients"), strict=True):
        lines = lines_of(axes)
        assert list(lines) == [f"{probe.scheme}: {', '.join(probe.verdict.kinds)}" for probe in relu]
        for probe, line in zip(relu, lines.values(), strict=True):
            sizes = np.array([getattr(layer, name).rms for layer in probe.layers])
            shown = np.isfinite(sizes) & (sizes > 0)
            np.testing.assert_array_equal(line.get_ydata()[shown], sizes[shown])
            assert np.isnan(line.get_ydata()[~shown]).all()
            assert line.get_xdata().tolist() == list(range(21))  # as in the layers' names
        assert axes.get_yscale() == "log"


def test_what_a_logarithm_cannot_show_is_marked_and_named(relu):
    forward, backward = plots.layers(relu).axes
    assert texts_of(forward) == ["0", "not finite"]
    marks = {line.get_gid(): line for line in forward.lines if line.get_gid()}
    assert marks["0: 0"].get_xdata().tolist() == list(range(21))  # zeros
    sizes = [layer.activations.rms for layer in relu[3].layers]
    assert marks["not finite: 3"].get_xdata().tolist() == [i for i, size in enumerate(sizes) if not math.isfinite(size)]
    assert len(marks) == 2
    assert (marks["0: 0"].get_ydata() < 0.1).all()
    assert (marks["not finite: 3"].get_ydata() > 0.9).all()
    bottom, top = forward.get_ylim()
    drawn = np.concatenate([line.get_ydata() for line in lines_of(forward).values()])
    height = (np.log(drawn[~np.isnan(drawn)]) - math.log(bottom)) / (math.log(top) - math.log(bottom))
    assert marks["0: 0"].get_ydata().max() < height.min()
    assert marks["not finite: 3"].get_ydata().min() > height.max()
    assert "0" in texts_of(backward)


def test_a_point_without_neighbours_is_marked(relu):
    axes = plots.layers(relu).axes[1]  # under zeros only the output has a gradient
    line = next(iter(lines_of(axes).values()))
    assert np.flatnonzero(~np.isnan(line.get_ydata())).tolist() == [20]
    assert 20 in line.get_markevery()


def test_what_hardly_changes_looks_flat():
    figure = plots.layers(fi.probe([64, *[64] * 3, 4], "orthogonal", "identity"))
    low, high = figure.axes[0].get_ylim()
    assert high / low > 100


@pytest.mark.parametrize("scheme", ["zeros", "normal(std=1e-30)", "normal(std=1e30)"])
def test_float64_to_its_ends(scheme):
    found = fi.probe([4, *[8] * 12, 2], scheme, dtype="float64", samples=8)
    for figure in [plots.layers(found), plots.activations(found), plots.gradients(found)]:
        with styled():
            figure.draw_without_rendering()
    low, high = plots.layers(found).axes[0].get_ylim()
    assert 0 < low < high < math.inf


def test_one_layer_and_many(tmp_path):
    plots.save(plots.layers(fi.probe([3, 2], samples=4)), tmp_path / "one.png")
    plots.save(plots.activations(fi.probe([3, 2], samples=4)), tmp_path / "one.png")
    figure = plots.layers(fi.probe([8, *[8] * 200, 2], samples=4))
    assert len(figure.axes[0].lines[0].get_markevery()) < 25


def test_probes_that_look_alike_have_labels_of_their_own():
    probes = [fi.probe([3, 4, 2], "he_normal", seed=seed) for seed in range(3)]
    labels = list(lines_of(plots.layers(probes).axes[0]))
    assert labels[0].startswith("he_normal: ")
    assert [label.split(":")[0] for label in labels] == ["he_normal", "he_normal (2)", "he_normal (3)"]
    other = replace(probes[0], network="another", activation="tanh")
    assert list(lines_of(plots.layers([probes[0], other]).axes[0]))[1].startswith("another, tanh, he_normal: ")


# --- histograms ---


@pytest.mark.parametrize("name", ["activations", "gradients"])
def test_histograms_are_densities_of_the_hidden_layers(tanh, name):
    figure = getattr(plots, name)(tanh)
    assert [axes.get_title("left") for axes in figure.axes] == [
        f"{probe.scheme}: {', '.join(probe.verdict.kinds)}" for probe in tanh
    ]
    for probe, axes in zip(tanh, figure.axes, strict=True):
        assert [line.get_gid() for line in axes.lines] == [f"layers.{i}" for i in range(5)]
        for layer, line in zip(probe.layers, axes.lines, strict=False):
            histogram = getattr(layer, name).histogram
            width = (histogram.high - histogram.low) / len(histogram.counts)
            np.testing.assert_allclose(line.get_ydata(), np.array(histogram.counts) / histogram.total / width)
            assert line.get_xdata()[0] == pytest.approx(histogram.low + width / 2)
            assert line.get_ydata().sum() * width == pytest.approx(1)
    assert len({axes.get_xlim() + axes.get_ylim() for axes in figure.axes}) == 1


def test_what_histograms_do_not_show_is_said(relu):
    notes = ["".join(texts_of(axes)) for axes in plots.activations(relu).axes]
    assert notes[0] == "all 0: layers.0 and 19 more"
    assert "higher than the picture: layers." in notes[1]
    infinite = sum(not math.isfinite(layer.activations.rms) for layer in relu[3].layers[:-1])
    assert re.search(rf"not finite: layers\.{20 - infinite} and {infinite - 1} more", notes[3])
    assert "wider than the picture: layers.0 and" in notes[3]
    assert not plots.activations(relu).axes[0].lines


def test_of_deep_networks_six_layers_are_named():
    figure = plots.activations(fi.probe([8, *[32] * 50, 2], samples=16))
    assert list(lines_of(figure.axes[0])) == [
        "layers.0",
        "layers.10",
        "layers.20",
        "layers.29",
        "layers.39",
        "layers.49",
    ]
    assert len(figure.axes[0].lines) == 50
    assert len({line.get_linestyle() + str(line._dash_pattern) for line in lines_of(figure.axes[0]).values()}) == 6


def test_a_share_of_zeros_makes_the_axis_logarithmic(tanh):
    assert {axes.get_yscale() for axes in plots.activations(tanh).axes} == {"linear"}
    assert plots.activations(fi.probe([16, 32, 32, 4])).axes[0].get_yscale() == "log"


# --- weights ---


def test_weights_and_their_laws():
    model = fi.MLP([300, 200, 4], init="xavier_uniform", seed=0)
    figure = plots.weights(model, "xavier_uniform")
    for axes, name in zip(figure.axes, ("layers.0.weight", "layers.1.weight"), strict=True):
        array = model.parameters[name]
        histogram = Histogram.of(array)
        [stairs] = axes.patches
        values, edges, _ = stairs.get_data()
        np.testing.assert_array_equal(edges, histogram.edges)
        np.testing.assert_allclose(values * np.diff(edges), np.array(histogram.counts) / array.size)
        [line] = axes.lines
        law = fi.distribution("xavier_uniform", array.shape)
        inside = np.abs(line.get_xdata()) < 0.99 * law.high
        np.testing.assert_allclose(line.get_ydata()[inside], 1 / (2 * law.high))
        assert line.get_ydata()[0] == line.get_ydata()[-1] == 0
        assert axes.get_title("left").split("\n") == [
            f"{name}  {array.shape[0]}×{array.shape[1]}",
            "xavier_uniform",
        ]


def test_a_population_has_the_fans_of_one_member():
    model = fi.MLP([30, 20, 4], population=3, seed=0)
    [line] = plots.weights(model, {"layers.0.weight": "he_normal"}).axes[0].lines
    assert line.get_ydata().max() == pytest.approx(1 / math.sqrt(2 * math.pi * 2 / 30), rel=1e-3)


def test_weights_of_a_probe_and_odd_arrays():
    found = fi.probe([8, 16, 4])
    figure = plots.weights(found, fi.Normal(0, 0.5))
    assert [axes.get_title("left").split("\n")[0] for axes in figure.axes] == ["layers.0.weight", "layers.1.weight"]
    odd = {"zero": np.zeros(3), "some": [1.0, math.nan, math.inf], "none": np.zeros((0, 4)), "int": np.arange(5)}
    titles = [axes.get_title("left") for axes in plots.weights(odd).axes]
    assert titles == ["zero  3", "some  3, 2 not finite", "none  0×4", "int  5"]


@pytest.mark.parametrize(
    ("error", "message", "arrays", "laws"),
    [
        (TypeError, "arrays by name", [1.0, 2.0], None),
        (ValueError, "1 to 60", {}, None),
        (ValueError, "1 to 60", dict.fromkeys(map(str, range(61)), np.ones(2)), None),
        (TypeError, "real numbers", {"a": np.ones(3, complex)}, None),
        (ValueError, "names of arrays. Received: 'b'", {"a": np.ones((2, 2))}, {"b": "he_normal"}),
        (ValueError, "densities, for 'a'", {"a": np.ones((2, 2))}, "orthogonal"),
        (ValueError, "densities, for 'a'", {"a": np.ones((2, 2))}, "zeros"),
        (ValueError, "unknown scheme", {"a": np.ones((2, 2))}, "he_norml"),
        (TypeError, "schemes or distributions", {"a": np.ones((2, 2))}, 3),
    ],
)
def test_weights_that_do_not_fit(error, message, arrays, laws):
    with pytest.raises(error, match=message):
        plots.weights(arrays, laws)


def test_a_probe_has_no_shapes_for_schemes():
    with pytest.raises(ValueError, match="it has no shapes"):
        plots.weights(fi.probe([3, 4, 2]), "he_normal")


# --- history ---


def test_history_is_what_happened():
    loss, norm, clipped, validation = plots.history(HISTORY).axes
    [line] = lines_of(loss).values()
    np.testing.assert_array_equal(line.get_ydata(), [2.0, math.nan, math.nan, 0.5])
    assert line.get_xdata().tolist() == [1, 2, 3, 4]
    assert texts_of(loss) == ["0", "not finite"]
    assert texts_of(norm) == ["not finite"]
    assert lines_of(clipped)["training"].get_ydata().tolist() == HISTORY.clipped
    assert lines_of(validation)["training"].get_ydata().tolist() == HISTORY.validation
    assert [axes.get_yscale() for axes in (loss, norm, clipped, validation)] == ["log", "log", "linear", "linear"]
    assert all(tick == int(tick) for tick in loss.get_xticks())


def test_there_is_a_panel_for_what_there_is_to_say():
    titles = [axes.get_title("left") for axes in plots.history(fi.History([1.0], [2.0], [0.0])).axes]
    assert titles == ["loss", "norm of the gradient"]
    assert len(plots.history(fi.History([0.0], [0.0], [0.0])).axes) == 1


def test_a_population_is_its_median_and_a_band():
    losses = np.random.default_rng(0).exponential(size=(6, 101))
    losses[3, :5] = math.nan  # few: below the upper quantile
    losses[4, :20] = math.inf
    [axes] = plots.history(fi.History(list(losses))).axes
    [line] = lines_of(axes).values()
    ordered = np.sort(np.where(np.isfinite(losses), losses, math.inf), axis=1)
    np.testing.assert_array_equal(line.get_ydata(), ordered[:, 50])
    [band] = axes.collections
    high = [path.vertices[:, 1].max() for path in band.get_paths()]
    assert max(high) == ordered[[0, 1, 2, 3, 5], 90].max()


@pytest.mark.parametrize(
    ("error", "given"),
    [
        (TypeError, [1.0]),
        (TypeError, {"a": [1.0]}),
        (ValueError, {}),
        (ValueError, fi.History()),
        (ValueError, {"a": HISTORY, "b": fi.History()}),
    ],
)
def test_what_is_no_history_is_refused(error, given):
    with pytest.raises(error, match="histories must"):
        plots.history(given)


# --- grid ---


def test_the_grid_has_every_verdict(relu):
    [axes] = plots.grid(relu).axes
    words = [text.split(" ", 1)[1] for text in texts_of(axes)[::2]]
    assert words == [", ".join(probe.verdict.kinds) for probe in relu]
    assert [label.get_text() for label in axes.get_yticklabels()] == [probe.scheme for probe in relu]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["relu"]
    assert texts_of(axes)[1] == "→ 0×   ← 0×"
    assert len({patch.get_facecolor() for patch in axes.patches}) == len({probe.verdict.kind for probe in relu})


def test_signs_stand_for_every_kind():
    from fastinit._probe.verdicts import HEALTHY, ORDER
    from fastinit.plots._verdicts import SIGNS

    assert set(SIGNS) == {HEALTHY, *ORDER}
    assert len({sign for _, sign in SIGNS.values()}) == len(SIGNS)
    contrast = [seen(colour)[0] for colour, _ in SIGNS.values()]
    assert min(contrast) > 70  # black text


def test_a_grid_of_two_in_one_cell_is_refused():
    found = fi.probe([3, 4, 2])
    with pytest.raises(ValueError, match="one probe for each"):
        plots.grid([found, found])


@pytest.mark.parametrize("name", ["layers", "activations", "gradients", "grid"])
@pytest.mark.parametrize(("error", "given"), [(TypeError, "text"), (TypeError, 3), (TypeError, [3]), (ValueError, [])])
def test_what_is_no_probe_is_refused(name, error, given):
    with pytest.raises(error, match="probes must"):
        getattr(plots, name)(given)


# --- colours ---


@pytest.mark.parametrize(("vision", "limit"), [(None, 20), ("protanopia", 9), ("deuteranopia", 9), ("tritanopia", 9)])
def test_colours_are_told_apart_by_everyone(vision, limit):
    """A distance of 2.3 in CIELAB can just be seen."""
    colours = [style["color"] for style in plots.STYLES]
    assert min(distances(colours, vision)) > limit
    assert min(distances([*colours[:4], "white"], vision)) > limit


def test_a_bad_pair_of_colours_would_be_seen():
    assert min(distances(["#ff0000", "#00c000"])) > 100
    assert min(distances(["#d4000f", "#5a5200"], "protanopia")) < 25


def test_no_two_series_differ_in_colour_alone():
    for part in ("color", "marker", "linestyle"):
        assert len({str(style[part]) for style in plots.STYLES}) == len(plots.STYLES) == 7
    assert len({(style_of(i)["color"], style_of(i)["marker"]) for i in range(49)}) == 49


@pytest.mark.parametrize("vision", [None, *MACHADO])
def test_layers_grow_lighter_to_everyone_and_in_grey(vision):
    lightness = [seen(shade(i, 6), vision)[0] for i in range(6)]
    assert min(np.diff(lightness)) > 8
    assert lightness[-1] < 82  # on white


# --- files, and what is left alone ---


@pytest.mark.parametrize(("kind", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_files_are_the_same_bytes_every_time(tmp_path, tanh, kind, start):
    for name in ("first", "second"):
        plots.save(plots.layers(tanh), tmp_path / f"{name}.{kind.upper()}", "what it shows")
    first, second = (tmp_path / f"{name}.{kind.upper()}" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().startswith(start)
    assert len(list(tmp_path.iterdir())) == 2  # nothing unfinished
    if kind != "pdf":
        assert b"what it shows" in first.read_bytes()
    assert not re.search(rb"<dc:date>|CreationDate", first.read_bytes())


def test_a_png_has_150_dots_per_inch(tmp_path):
    figure = Figure(figsize=(2, 1))
    plots.save(figure, tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    assert [int.from_bytes(content[i : i + 4], "big") for i in (16, 20)] == [300, 150]


@pytest.mark.parametrize("name", ["a.gif", "a", "png", "a.svg.txt", ".png"])
def test_other_endings_are_refused(tmp_path, name):
    for refuse in (lambda path: plots.check(path), lambda path: plots.save(Figure(), path)):
        with pytest.raises(ValueError, match=r"path must end in \.png, \.svg, \.pdf\. Received: ") as error:
            refuse(tmp_path / name)
        assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "a.svg"
    path.write_text("older")
    figure = Figure()
    monkeypatch.setattr(figure, "savefig", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        plots.save(figure, path)
    assert path.read_text() == "older"
    with pytest.raises(FileNotFoundError):
        plots.save(Figure(), tmp_path / "nowhere" / "a.svg")


def test_settings_of_the_caller_are_left_and_do_not_matter(tmp_path, tanh):
    path = tmp_path / "a.svg"
    plots.save(plots.layers(tanh), path)
    usual = path.read_bytes()
    strange = {
        "text.color": "red",
        "axes.facecolor": "black",
        "figure.facecolor": "black",
        "axes.grid": False,
        "font.size": 30,
        "lines.linewidth": 9,
        "svg.hashsalt": "other",
        "axes.spines.top": True,
        "legend.frameon": True,
    }
    assert set(strange) <= set(mpl.rc_params_from_file(SETTINGS, use_default_template=False))
    with mpl.rc_context(strange):
        before = dict(mpl.rcParams)
        plots.save(plots.layers(tanh), path)
        assert dict(mpl.rcParams) == before
    assert path.read_bytes() == usual


def test_every_picture_is_drawn_without_a_warning_and_no_text_lies_outside_of_it(tmp_path, relu, tanh):
    for number, figure in enumerate(every_picture(relu, tanh)):
        assert type(figure) is Figure
        plots.save(figure, tmp_path / f"{number}.png")
        assert (tmp_path / f"{number}.png").stat().st_size > 5000
        box = figure.get_tightbbox()
        width, height = figure.get_size_inches()
        assert -0.01 <= box.x0 < box.x1 <= width + 0.01
        assert -0.01 <= box.y0 < box.y1 <= height + 0.01


def test_a_legend_names_each_series_once():
    with styled():
        figure, both = panels(1, 2, (8, 3))
        for axes in both:
            axes.plot([1, 2], label="same")
        legend(figure)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["same"]


def test_pyplot_is_not_imported_and_matplotlib_only_when_drawing():
    script = (
        "import sys, fastinit as fi\n"
        "from fastinit import plots\n"
        "print('matplotlib' in sys.modules)\n"
        "plots.layers(fi.probe([3, 4, 2]))\n"
        "print('matplotlib' in sys.modules, 'matplotlib.pyplot' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False\nTrue False\n", "")


def test_without_matplotlib_the_extra_is_named(monkeypatch, relu):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    calls = [
        lambda: plots.layers(relu),
        lambda: plots.activations(relu),
        lambda: plots.gradients(relu),
        lambda: plots.grid(relu),
        lambda: plots.weights({"a": np.ones(3)}),
        lambda: plots.history(HISTORY),
        lambda: plots.check("a.png"),
        lambda: plots.save(object(), "a.png"),
    ]
    for call in calls:
        with pytest.raises(ImportError, match=r"pip install 'fastinit-weights\[plot\]'"):
            call()
