"""The benchmarks' report: an exact table out of a small JSON, and one line for every input that is none."""

import importlib.util
import json
from pathlib import Path

import pytest

# Loaded by its path: `bench` is no part of the installed package.
_SPEC = importlib.util.spec_from_file_location("bench_report", Path(__file__).parents[1] / "bench" / "report.py")
report = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(report)

MACHINE = {
    "cpu_name": "Some CPU",
    "llvm_cpu": "znver4",
    "cores": 8,
    "fastinit_threads": 8,
    "torch_threads": 4,
    "blas_threads": 6,
    "jax_threads": 7,
    "versions": {
        "python": "3.12.1",
        "fastinit": "0.1.0",
        "numba": "0.63.0",
        "numpy": "2.0.0",
        "scipy": "1.13.0",
        "torch": "2.13.0",
        "jax": "0.10.0",
        "keras": "3.15.0",
        "transformers": "5.23.0",
        "scikit-learn": "1.5.0",
    },
}

TABLE = """\
| work | elements | fastinit | NumPy | NumPy legacy | torch | of NumPy | of torch |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| normal, float32 | 2^20 | 2.5 | 0.1 | 0.0123 | 0.3 | 25x | 8.3x |
| cut, float32 | 2^24 | 1.05 |  |  | 0.004 |  | 262x |
| square, float32 | 3,000 | 1 |  |  | 2 |  | 0.5x |
| fill, float32, two Python threads | 2^20 |  | 128 |  |  |  |  |

10^9 elements per second, medians; the last columns are fastinit's multiple. Some CPU (znver4), 8 cores, fastinit on \
8 threads and torch on 4; fastinit 0.1.0, Numba 0.63.0, NumPy 2.0.0, torch 2.13.0, Python 3.12.1; 2025-11-22.
"""

TRAINING = """\
| network | fastinit | fastinit, a call per step | products alone | NumPy | JAX | scikit-learn |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
| 8-4, batch 2 | 0.08 | 0.1 | 0.04 (0.5x) | 0.2 (2.5x) | 12 (150x) |  |
| digits | 1 |  |  |  |  | 5 (5x) |

Milliseconds per step, medians; in brackets fastinit's multiple. Some CPU (znver4), 8 cores, fastinit on 8 threads, \
BLAS on 6, torch on 4 and JAX on 7; fastinit 0.1.0, Numba 0.63.0, NumPy 2.0.0, SciPy 1.13.0, torch 2.13.0, JAX 0.10.0, \
scikit-learn 1.5.0, Python 3.12.1; 2025-11-22.
"""


FACES = """\
| in | work | size | fastinit | the framework | times |
| --- | --- | --- | ---: | ---: | ---: |
| torch | `normal_` | 8x8 | 0.5 | 2 | 4x |
| JAX | `normal` | 4x4 | 1 | 3 | 3x |
| torch | `fast_init` | small | 1 | 8 | 8x |
| torch | `fast_init` | large | 10 | 5 | 0.5x |
| torch | `record` | huge | 700 |  |  |

Milliseconds, medians; of several ways that a framework has, the fastest. The last column is fastinit's gain. Some CPU \
(znver4), 8 cores, fastinit on 8 threads and torch on 4; fastinit 0.1.0, Numba 0.63.0, NumPy 2.0.0, torch 2.13.0, jax \
0.10.0, keras 3.15.0, transformers 5.23.0, Python 3.12.1; 2025-11-22.
"""


def _face(face, title, size, library, milliseconds):
    extra = {"face": face, "title": title, "size": size, "library": library}
    return {"extra_info": extra, "stats": {"median": milliseconds / 1e3}}


def test_the_table_of_the_faces_is_exact(tmp_path, capsys):
    found = _results() | {
        "benchmarks": [
            _face("torch", "`normal_`", "4x4", "fastinit", 0.1),
            _face("torch", "`normal_`", "4x4", "torch", 0.1),
            _face("torch", "`normal_`", "8x8", "fastinit", 0.5),
            _face("torch", "`normal_`", "8x8", "torch", 2.0),
            _face("JAX", "`normal`", "4x4", "fastinit", 1.0),
            _face("JAX", "`normal`", "4x4", "fastinit in jit", 0.5),
            _face("JAX", "`normal`", "4x4", "jax", 6.0),
            _face("JAX", "`normal`", "4x4", "jax in jit", 3.0),
            _face("torch", "`fast_init`", "small", "fastinit", 1.0),
            _face("torch", "`fast_init`", "small", "torch", 8.0),
            _face("torch", "`fast_init`", "large", "fastinit", 10.0),
            _face("torch", "`fast_init`", "large", "torch", 5.0),
            _face("torch", "`record`", "huge", "fastinit", 700.0),
        ]
    }
    path = tmp_path / "results.json"
    path.write_text(json.dumps(found), encoding="utf-8")
    report.main([str(path)])
    assert capsys.readouterr().out == FACES
    found["benchmarks"] = found["benchmarks"][1:2]
    path.write_text(json.dumps(found), encoding="utf-8")
    assert "no time of fastinit for '`normal_`'" in _refusal(capsys, path)


def _training(title, library, steps, milliseconds):
    extra = {"title": title, "library": library, "steps": steps}
    return {"extra_info": extra, "stats": {"median": steps * milliseconds / 1e3}}


def _benchmark(title, library, elements, speed):
    extra = {"title": title, "library": library, "elements": elements}
    return {"extra_info": extra, "stats": {"median": elements / speed / 1e9}}


def _results():
    million = 1 << 20
    return {
        "datetime": "2025-11-22T03:32:00+00:00",
        "machine_info": MACHINE,
        "benchmarks": [
            {"extra_info": {"title": "a call", "library": "fastinit"}, "stats": {"median": 1e-6}},
            _benchmark("normal, float32", "fastinit", 64, 0.01),
            _benchmark("normal, float32", "numpy", 64, 0.02),
            _benchmark("normal, float32", "numpy_legacy", 64, 0.01),
            _benchmark("normal, float32", "torch", 64, 0.01),
            _benchmark("normal, float32", "fastinit", million, 2.5),
            _benchmark("normal, float32", "numpy", million, 0.1),
            _benchmark("normal, float32", "numpy_legacy", million, 0.0123),
            _benchmark("normal, float32", "torch", million, 0.3),
            _benchmark("normal, float32", "fastinit", 64 * million, 2.6),  # the legacy library was not measured here
            _benchmark("normal, float32", "torch", 64 * million, 0.2),
            _benchmark("cut, float32", "fastinit", 16 * million, 1.05),
            _benchmark("cut, float32", "torch", 16 * million, 0.004),
            _benchmark("square, float32", "fastinit", 3000, 1.0),
            _benchmark("square, float32", "torch", 3000, 2.0),
            _benchmark("fill, float32, two Python threads", "numpy", million, 128.0),
            _training("8-4, batch 2", "fastinit", 600, 0.08),
            _training("8-4, batch 2", "fastinit_step", 600, 0.1),
            _training("8-4, batch 2", "gemms", 600, 0.04),
            _training("8-4, batch 2", "numpy", 600, 0.2),
            _training("8-4, batch 2", "jax", 600, 12.0),
            _training("digits", "fastinit", 560, 1.0),
            _training("digits", "sklearn", 560, 5.0),
        ],
    }


@pytest.fixture
def results(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(_results()), encoding="utf-8")
    return path


def _refusal(capsys, *arguments):
    """What a refused call prints: one line."""
    with pytest.raises(SystemExit) as stop:
        report.main([str(argument) for argument in arguments])
    assert stop.value.code == 1
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    return text


def test_the_tables_are_exact(results, capsys):
    report.main([str(results)])
    assert capsys.readouterr().out == f"{TABLE}\n{TRAINING}"


BEGIN, END = report.markers("benchmark")


def _readme(table, training):
    between = "\n".join(report.markers("training")).replace("\n", f"\n{training}")
    return f"# above\n\n{BEGIN}\n{table}{END}\n\nbetween\n\n{between}\n\nbelow\n"


def test_the_tables_go_between_their_markers_and_nothing_else_changes(results, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(_readme("old\n", "old\n"), encoding="utf-8")
    for _ in range(2):  # the second time replaces the first
        report.main([str(results), "--page", str(readme)])
        assert readme.read_text(encoding="utf-8") == _readme(TABLE, TRAINING)


@pytest.mark.parametrize(
    ("field", "expected"), [("steps", (TABLE, "old\n")), ("elements", ("old\n", TRAINING))], ids=["fills", "training"]
)
def test_a_table_that_was_not_measured_is_left_alone(tmp_path, field, expected):
    path, readme = tmp_path / "results.json", tmp_path / "README.md"
    path.write_text(json.dumps(_without(_results(), lambda about: field in about)), encoding="utf-8")
    readme.write_text(_readme("old\n", "old\n"), encoding="utf-8")
    report.main([str(path), "--page", str(readme)])
    assert readme.read_text(encoding="utf-8") == _readme(*expected)


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("", "benchmark"),
        (BEGIN, "benchmark"),
        (f"{END}\n{BEGIN}", "benchmark"),
        (f"{BEGIN}{BEGIN}{END}", "benchmark"),
    ],
    ids=["none", "no end", "wrong order", "twice"],
)
def test_a_readme_without_its_markers_is_left_alone(results, tmp_path, capsys, text, lost):
    readme = tmp_path / "README.md"
    readme.write_text(text, encoding="utf-8")
    assert f"{lost}:begin" in _refusal(capsys, results, "--page", readme)
    assert readme.read_text(encoding="utf-8") == text


def test_a_page_gets_the_tables_that_it_has_markers_for(results, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"{BEGIN}\n{END}\n", encoding="utf-8")
    report.main([str(results), "--page", str(page)])
    assert page.read_text(encoding="utf-8") == f"{BEGIN}\n{TABLE}{END}\n"


HEADLINE = """\
| work | size | fastinit | the best other | times |
| --- | --- | ---: | ---: | ---: |
| normal, float32 | 2^20 elements | 0.419 | 3.5 (torch) | 8.3x |
| 8-4, batch 2 | a training step | 0.08 | 0.2 (NumPy) | 2.5x |
| `fast_init` | large | 10 | 5 (torch) | 0.5x |

Milliseconds, medians. Some CPU (znver4), 8 cores, fastinit on 8 threads and torch on 4; fastinit 0.1.0, Numba 0.63.0, \
NumPy 2.0.0, torch 2.13.0, JAX 0.10.0, transformers 5.23.0, Python 3.12.1; 2025-11-22.
"""


def _models():
    rows = [_face("torch", "`fast_init`", size, "fastinit", ms) for size, ms in (("small", 1.0), ("large", 10.0))]
    rows += [_face("torch", "`fast_init`", size, "torch", ms) for size, ms in (("small", 8.0), ("large", 5.0))]
    return _results() | {"benchmarks": rows}


def test_the_headline_is_exact_and_the_same_of_stored_results(results, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        report, "HEADLINE", (("normal, float32", ""), ("8-4, batch 2", "a training step"), ("`fast_init`", "large"))
    )
    models = tmp_path / "models.json"
    models.write_text(json.dumps(_models()), encoding="utf-8")
    stored = [tmp_path / "stored" / path.name for path in (results, models)]
    for path, to in zip((results, models), stored, strict=True):
        report.main([str(path), "--store", str(to)])
    report.main([str(results), str(models)])
    found = capsys.readouterr().out
    assert found.endswith(f"\n\n{HEADLINE}")
    report.main([str(path) for path in stored])
    assert capsys.readouterr().out == found
    assert "a call" in results.read_text(encoding="utf-8")
    assert "a call" not in stored[0].read_text(encoding="utf-8")  # no table has it
    monkeypatch.setattr(report, "HEADLINE", (("absent", ""),))
    assert "no 'absent'" in _refusal(capsys, results, models)


def test_a_headline_is_of_one_machine(results, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(report, "HEADLINE", (("normal, float32", ""),))
    models = tmp_path / "models.json"
    models.write_text(json.dumps(_models() | {"machine_info": MACHINE | {"cpu_name": "Other"}}), encoding="utf-8")
    assert "Other, Some CPU" in _refusal(capsys, results, models)
    assert "one file" in _refusal(capsys, results, results, "--store", tmp_path / "x.json")


def test_unknown_files_are_named(results, tmp_path, capsys):
    assert "absent.json" in _refusal(capsys, tmp_path / "absent.json")
    assert "absent.md" in _refusal(capsys, results, "--page", tmp_path / "absent.md")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"benchmarks": 1}'])
def test_what_is_no_benchmark_json_is_refused(tmp_path, capsys, text):
    path = tmp_path / "results.json"
    path.write_text(text, encoding="utf-8")
    assert "results.json" in _refusal(capsys, path)


def _without(results, lost):
    """The results without the benchmarks that `lost` holds of."""
    return results | {"benchmarks": [row for row in results["benchmarks"] if not lost(row["extra_info"])]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: _without(r, lambda about: True), "no throughput of fastinit"),
        (lambda r: _without(r, lambda about: about["library"] == "fastinit"), "no throughput of fastinit"),
        (
            lambda r: _without(r, lambda about: (about["title"], about["library"]) == ("normal, float32", "fastinit")),
            "no throughput of fastinit for 'normal, float32'",
        ),
        (
            lambda r: _without(r, lambda about: (about["title"], about["library"]) == ("8-4, batch 2", "fastinit")),
            "no training step of fastinit for '8-4, batch 2'",
        ),
        (
            lambda r: r | {"benchmarks": [_benchmark("a", "fastinit", 64, 1.0), _benchmark("a", "torch", 128, 1.0)]},
            "no size of 'a'",
        ),
        (lambda r: r | {"machine_info": {}}, "'versions'"),
    ],
    ids=[
        "nothing",
        "no fastinit",
        "no fastinit in one work",
        "no fastinit in one network",
        "no common size",
        "no machine",
    ],
)
def test_missing_rows_are_refused(tmp_path, capsys, change, words):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(change(_results())), encoding="utf-8")
    assert words in _refusal(capsys, path)


def test_the_plot_is_written_and_is_the_same_every_time(results, tmp_path):
    pytest.importorskip("matplotlib")
    paths = [tmp_path / "docs" / name for name in ("first.svg", "second.svg")]
    for path in paths:
        report.main([str(results), "--plot", str(path)])
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    assert b"<svg" in first


def test_nothing_to_plot_is_refused(tmp_path, capsys):
    path = tmp_path / "results.json"
    one_size = _without(_results(), lambda about: about.get("elements") in (64, 1 << 26))
    path.write_text(json.dumps(one_size), encoding="utf-8")
    assert "nothing to plot" in _refusal(capsys, path, "--plot", tmp_path / "plot.svg")
