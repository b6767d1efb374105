"""The report of benchmarks: exact tables out of a small JSON, and one line for every input that is none."""

import json

import pytest

from bench import chart, report
from bench.table import rows

MACHINE = {
    "cpu_name": "Some CPU",
    "llvm_cpu": "znver4",
    "cores": 8,
    "versions": dict.fromkeys(report.PACKAGES, "1.0") | {"numpy": "2.0.0"},
}
SETTING = (
    "Some CPU (znver4), 8 cores; fastinit 1.0, Numba 1.0, NumPy 2.0.0, SciPy 1.0, torch 1.0, JAX 1.0, Keras 1.0, "
    "transformers 1.0, scikit-learn 1.0, Python 1.0; 2025-11-22"
)
CAPTION = f"\n{report.EXPLAINED} {SETTING}.\n"
HEADLINE = (("normal, float32", "2^24"), ("training step", "8-4"))

HEADLINE_TABLE = f"""\
| work | size | fastinit | plain NumPy | best other | ratio |
| --- | --- | ---: | ---: | ---: | ---: |
| normal, float32 | 2^24 | 10 ms | 120 ms | 90 ms (torch) | 9x |
| training step | 8-4 | 2 ms | 1.5 ms | 3 ms (JAX) | 0.75x, slower |
{CAPTION}"""
FILLS_TABLE = """\
| work | size | fastinit | NumPy | NumPy legacy | torch | ratio |
| --- | --- | ---: | ---: | ---: | ---: | ---: |
| normal, float32 | 2^10 | 8 us | 10 us |  | 4 us | 0.5x, slower |
| normal, float32 | 2^24 | 10 ms | 120 ms | 2 s | 90 ms | 9x |
| cut, float32 | 2^22 | 1 ms |  |  | 250 ms | 250x |
| constant, two threads | 2^24 |  | 2 ms |  |  |  |
"""
STEPS_TABLE = """\
| work | size | fastinit | one product | NumPy | JAX | ratio |
| --- | --- | ---: | ---: | ---: | ---: | ---: |
| training step | 8-4 | 2 ms | 500 us | 1.5 ms | 3 ms | 0.75x, slower |
"""
MODELS_TABLE = """\
| work | size | fastinit | plain NumPy | best other | ratio |
| --- | --- | ---: | ---: | ---: | ---: |
| `record` | large | 400 ms |  |  |  |
"""


def _benchmarks(part, work, size, order, steps=1, **seconds):
    about = {"part": part, "work": work, "size": size, "order": order, "steps": steps}
    return [
        {"extra_info": about | {"library": name}, "stats": {"median": t * steps}, "name": "left out by --store"}
        for name, t in seconds.items()
    ]


def _results():
    normal = "normal, float32"
    return {
        "datetime": "2025-11-22T03:32:00+00:00",
        "machine_info": MACHINE | {"node": "left out by --store"},
        "benchmarks": [
            *_benchmarks("fills", normal, "2^10", 1 << 10, fastinit=8e-6, numpy=1e-5, torch=4e-6),
            *_benchmarks("fills", normal, "2^18", 1 << 18, fastinit=1e-3, numpy=1e-2, numpy_legacy=1, torch=4e-3),
            *_benchmarks("fills", normal, "2^24", 1 << 24, fastinit=1e-2, numpy=0.12, numpy_legacy=2, torch=0.09),
            *_benchmarks("fills", normal, "2^26", 1 << 26, fastinit=4e-2, numpy=0.5, torch=0.4),
            *_benchmarks("fills", "cut, float32", "2^22", 1 << 22, fastinit=1e-3, torch=0.25),
            *_benchmarks("fills", "cut, float32", "2^24", 1 << 24, fastinit=4e-3),
            *_benchmarks("fills", "constant, two threads", "2^24", 1 << 24, numpy=2e-3),
            *_benchmarks("models", "`record`", "large", 0, fastinit=0.4),
            *_benchmarks(
                "steps", "training step", "8-4", 0, 600, fastinit=2e-3, one_product=5e-4, numpy=1.5e-3, jax=3e-3
            ),
        ],
    }


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "HEADLINE", HEADLINE)
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
    expected = [HEADLINE_TABLE, FILLS_TABLE, MODELS_TABLE, STEPS_TABLE]
    assert capsys.readouterr().out == "\n".join(expected)


def test_the_table_of_a_run_has_every_size_of_fastinit():
    shown = report.console(_results()).splitlines()
    assert shown[0] == SETTING
    assert shown[3].split("  ")[0] == "work"
    sizes = [line.removeprefix("normal, float32").split()[0] for line in shown if line.startswith("normal, float32")]
    assert sizes == ["2^10", "2^18", "2^24", "2^26"]
    assert [line for line in shown if "two threads" in line] == []
    column = shown[3].index("fastinit")
    assert all(line[column - 2 : column] == "  " and line[column] != " " for line in shown[5:])


def test_large_fills_show_the_share_of_their_nearer_limit(results):
    """Stores of 4 ms and 2^24 values of 1.75 cycles, in 10 ms; small fills have none, other tables no such column."""
    found = _results()
    found["machine_info"] = MACHINE | {"gigahertz": 2.0, "vector_bits": 512}
    found["benchmarks"] += _benchmarks("fills", "normal, float32", "2^24", 1 << 24, stores=4e-3)
    head, _, small, large, *_ = report.tables(found)["fills"].splitlines()
    assert head.endswith("| ratio | of the limit |")
    assert [line.split("|")[-2].strip() for line in (small, large)] == ["", "40 % (bytes)"]
    found["machine_info"]["gigahertz"] = 0.5
    assert "73 % (values)" in report.tables(found)["fills"].splitlines()[3]
    assert report.tables(found)["steps"] == STEPS_TABLE


def test_norms_show_the_share_of_passes_over_the_memory(results):
    found = _results()
    found["benchmarks"] += _benchmarks("norms", "norm", "2^24", 1 << 24, fastinit=5e-3, passes=4e-3, torch=10e-3)
    head, _, line = report.tables(found)["norms"].splitlines()
    assert head == "| work | size | fastinit | passes alone | torch | ratio | of the limit |"
    assert line == "| norm | 2^24 | 5 ms | 4 ms | 10 ms | 2x | 80 % (bytes) |"


def test_stored_results_give_the_same_tables(results, tmp_path, capsys):
    stored = tmp_path / "stored" / "results.json"
    report.main([str(results), "--store", str(stored)])
    for path in (results, stored):
        report.main([str(path)])
    first, second = capsys.readouterr().out.split(HEADLINE_TABLE)[1:]
    assert first == second
    assert "left out" in results.read_text(encoding="utf-8")
    assert "left out" not in stored.read_text(encoding="utf-8")


def _page(*names, between="old\n"):
    return "# above\n" + "".join(between.join(f"{marker}\n" for marker in report.markers(name)) for name in names)


def test_the_tables_go_between_their_markers_and_nothing_else_changes(results, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(_page("headline") + "between\n" + _page("steps") + "below\n", encoding="utf-8")
    for _ in range(2):  # the second time replaces the first
        report.main([str(results), "--page", str(page)])
        expected = _page("headline", between=HEADLINE_TABLE) + "between\n" + _page("steps", between=STEPS_TABLE)
        assert page.read_text(encoding="utf-8") == expected + "below\n"


BEGIN, END = report.markers("headline")


@pytest.mark.parametrize(
    "text", ["", BEGIN, f"{END}\n{BEGIN}", f"{BEGIN}{BEGIN}{END}"], ids=["none", "no end", "wrong order", "twice"]
)
def test_a_page_without_its_markers_is_left_alone(results, tmp_path, capsys, text):
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    assert "headline:begin" in _refusal(capsys, results, "--page", page)
    assert page.read_text(encoding="utf-8") == text


def test_unknown_files_are_named(results, tmp_path, capsys):
    assert "absent.json" in _refusal(capsys, tmp_path / "absent.json")
    assert "absent.md" in _refusal(capsys, results, "--page", tmp_path / "absent.md")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"benchmarks": 1}'])
def test_what_is_no_benchmark_json_is_refused(tmp_path, capsys, text):
    path = tmp_path / "results.json"
    path.write_text(text, encoding="utf-8")
    assert "results.json" in _refusal(capsys, path)


def _without(lost):
    """The results without the benchmarks that `lost` holds of."""
    found = _results()
    return found | {"benchmarks": [row for row in found["benchmarks"] if not lost(row["extra_info"])]}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (_without(lambda about: True), "no time of fastinit"),
        (_without(lambda about: about["library"] == "fastinit"), "no time of fastinit"),
        (_without(lambda about: (about["work"], about["library"]) == ("cut, float32", "fastinit")), "'cut, float32'"),
        (_without(lambda about: about["part"] == "steps"), "'training step'"),
        (_results() | {"machine_info": {}}, "'versions'"),
        (_results() | {"benchmarks": [{"extra_info": {}, "stats": {"median": 1}}]}, "'part'"),
    ],
    ids=["nothing", "no fastinit", "no fastinit in one work", "no headline", "no machine", "another suite"],
)
def test_missing_rows_are_refused(results, tmp_path, capsys, found, words):
    path = tmp_path / "other.json"
    path.write_text(json.dumps(found), encoding="utf-8")
    assert words in _refusal(capsys, path)


def test_the_headline_and_the_chart_show_what_the_table_of_benchmarks_has():
    known = {(row.work, row.size) for row in rows()}
    assert set(report.HEADLINE) <= known
    assert {work for panels in chart.PANELS for work in panels} <= {work for work, _ in known}


# --- the chart ---


@pytest.fixture
def charted(monkeypatch):
    monkeypatch.setattr(chart, "PANELS", (("normal, float32", "cut, float32", "training step", "normal, float32"),))
    return report.lines_of(_results())


def test_the_chart_shows_ratios_over_sizes_in_order(charted):
    lines, found = chart.ratios(charted[::-1], "normal, float32")
    assert [line.size for line in lines] == ["2^10", "2^18", "2^24", "2^26"]
    assert found["numpy_legacy"] == pytest.approx({1: 1000, 2: 200})
    assert found["torch"] == pytest.approx({0: 0.5, 1: 4, 2: 9, 3: 10})
    assert "one_product" not in chart.ratios(charted, "training step")[1]
    with pytest.raises(report.ReportError, match="'absent'"):
        chart.ratios(charted, "absent")


def test_the_chart_is_written_and_is_the_same_every_time(charted, tmp_path):
    paths = [tmp_path / "docs" / name for name in ("first.svg", "second.svg")]
    for path in paths:
        chart.plot(charted, path)
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    assert b"<svg" in first
