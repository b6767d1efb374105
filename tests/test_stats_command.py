"""The command `stats`: what it prints, its page, its exit codes."""

import json
import re

import numpy as np
import pytest
from browser import Tables, opened
from processes import command
from test_survey import BAD, HOSTILE, saved

import fastinit as fi
from fastinit import checkpoint

JOB = """
[tensors."h.{0..2}.weight"]
shape = [300, 200]
dtype = "bfloat16"
scheme = "normal"
std = 0.02
[tensors."h.{0..2}.bias"]
shape = [300]
scheme = "zeros"
"""


def stats(*arguments, **options):
    return command("stats", *arguments, **options)


def answer(*arguments):
    done = stats(*arguments)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def refusal(*arguments, **options):
    done = stats(*arguments, **options)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done
    assert done.stderr.startswith("fastinit: ")
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    (folder / "job.toml").write_text(JOB)
    checkpoint.write(fi.Plan.from_toml(folder / "job.toml"), folder / "out", max_shard_bytes=300_000, fsync=False)
    return folder / "out"


def test_help_has_an_example():
    assert "Example: fastinit stats" in answer("--help")


def test_a_table_for_people(written):
    done = stats(written)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].split()[:3] == ["name", "dtype", "shape"]
    assert len(lines) == 8
    assert all(line.endswith("as planned") for line in lines[1:-1])
    assert lines[-1] == "6 tensors, 180,900 elements, 363,600 bytes"


def test_json_is_that_of_python(written):
    table, expected = json.loads(answer(written, "--json")), checkpoint.survey(written).to_table()
    assert {**table, "seconds": 0} == {**expected, "seconds": 0}


def test_names_and_threads(written):
    table = json.loads(answer(written, "--json", "--name", "*.0.*", "--name", "h.2.bias", "--threads", 1))
    assert [row["name"] for row in table["tensors"]] == ["h.0.weight", "h.0.bias", "h.2.bias"]
    assert "no tensor matches 'x*'" in refusal(written, "--name", "x*")
    assert "threads must be positive" in refusal(written, "--threads", 0)


def test_another_plan(written, tmp_path):
    plan = tmp_path / "other.toml"
    plan.write_text(JOB.replace("0.02", "0.03"))
    done = stats(written, "--plan", plan)
    assert done.returncode == 0  # whatever the verdicts
    assert done.stdout.count("differs from the plan: std 0.0") == 3
    assert "No such file" in refusal(written, "--plan", tmp_path / "gone.toml")


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_line(tmp_path, what):
    make, _, message = BAD[what]
    assert message in refusal(make(tmp_path))


def test_bad_places_of_a_page(written, tmp_path):
    assert "No such file" in refusal(written, "--html", tmp_path / "no" / "x.html")
    assert "Is a directory" in refusal(written, "--html", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", HOSTILE)
def test_names_of_any_kind(tmp_path, name):
    path = saved(tmp_path / "a.safetensors", {name: fi.normal(200)})
    out = answer(path, "--json", "--html", tmp_path / "x.html")
    assert json.loads(out)["tensors"][0]["name"] == name
    done = stats(path)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 3
    assert all(line.isprintable() for line in done.stdout.splitlines())


def test_a_terminal_without_unicode(tmp_path):
    path = saved(tmp_path / "a.safetensors", {"ü☃": fi.normal(200)})
    done = stats(path, charset="ascii")
    assert done.returncode == 0
    assert "normal(" in done.stdout


def numbers_of(dom):
    """The rows of a page's table as the JSON has them, less what is shown as words."""
    columns = ("count", "min", "max", "mean", "std", "zeros", "nonfinite")
    found = Tables(dom)
    places = [found.heads.index(name) for name in (*columns, "ks")]
    return {row[0]: [None if row[i] == "" else row[i] for i in places] for row in found.rows}


def numbers_in(table):
    columns = ("count", "min", "max", "mean", "std", "zeros", "nonfinite")
    return {row["name"]: [*(row[name] for name in columns), row["fit"]["ks"]] for row in table["tensors"]}


def assert_same(dom, table):
    assert numbers_of(dom) == numbers_in(table)
    embedded = json.loads(re.search(r'id="data">(.*?)</script>', dom, re.DOTALL)[1])
    assert [one | {"histogram": 0} for one in embedded["tensors"]] == [
        one | {"histogram": 0} for one in table["tensors"]
    ]


@pytest.fixture
def odd(tmp_path):
    tensors = {
        "<b>&": fi.normal((30, 40)),
        "nan": np.array([np.nan, 1, -np.inf]),
        "none": np.zeros((0, 3)),
        "ids": np.arange(10**6) * 10**6,
        "flags": np.array([True, False]),
        "tiny": np.array([5e-324, -1.7e308]),
        **{f"layers.{i}.weight": fi.uniform(200, seed=i, dtype="float16") for i in range(40)},
    }
    return saved(tmp_path / "odd.safetensors", tensors)


def test_a_page_has_the_numbers_of_the_json(odd, tmp_path):
    table = json.loads(answer(odd, "--json", "--html", tmp_path / "x.html"))
    page = (tmp_path / "x.html").read_text()
    assert_same(page, table)
    assert page.count("<svg") == 45  # all but the empty one
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".safetensors"] == ["x.html"]


def test_verdicts_come_first_on_a_page(written, tmp_path):
    page = checkpoint.survey(written).to_html()
    assert Tables(page).heads[:2] == ["name", "verdict"]
    assert f"<h1>Checkpoint {written}</h1>\n<p>6 as planned.</p>" in page
    (tmp_path / "job.toml").write_text(JOB.replace("0.02", "0.5"))
    found = checkpoint.survey(written, plan=fi.Plan.from_toml(tmp_path / "job.toml"))
    first = next(tensor for tensor in found.tensors if tensor.verdict != "as planned")
    assert (
        f"<p>3 as planned, 3 that differ from the plan or are not finite.</p>\n<p>{first.name}: {first.verdict}</p>"
        in found.to_html()
    )
    (tmp_path / "few.toml").write_text('[tensors.a]\nshape = [3]\nscheme = "normal"\n')
    few = checkpoint.survey(
        saved(tmp_path / "few.safetensors", {"a": np.ones(3, np.float32)}),
        plan=fi.Plan.from_toml(tmp_path / "few.toml"),
    )
    assert few.tensors[0].verdict == "too few elements to tell"
    assert "<p>1 not told.</p>" in few.to_html()
    assert "as planned" not in checkpoint.survey(saved(tmp_path / "x.safetensors", {"a": np.ones(3)})).to_html()


@pytest.mark.browser
def test_a_browser_shows_the_numbers_of_the_json(odd, written, tmp_path):
    for path in (odd, written):
        table = json.loads(answer(path, "--json", "--html", tmp_path / "x.html"))
        dom, messages = opened(tmp_path / "x.html")
        assert messages == []
        assert_same(dom, table)
        assert dom.count("<button>") == 14
