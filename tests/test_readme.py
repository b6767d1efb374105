"""The README is executed, and says no more than there is. `test_docs.py` does the same for the pages."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from fastinit.sources import read

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize(("code", "shown"), list(zip(blocks("python"), blocks("text"), strict=True)))
def test_the_examples_print_what_is_shown(code, shown):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout == shown


def test_it_is_short_and_in_order():
    """What it is, how to begin, one picture, one example with its output, one measured table, the two commands, what is
    promised and what is not; then where to go."""
    order = [
        "Fills the weights of large neural networks",
        "python examples/tour.py",
        "fast_init(seed=0): model",
        "](docs/probe.svg)",
        "```python",
        "```text",
        "<!-- headline:begin -->",
        "<!-- job-command -->",
        "<!-- test-command -->",
        "## Guarantees",
        "## Limits",
        "## From here",
    ]
    places = [README.index(part) for part in order]
    assert places == sorted(places)
    assert [README.count(part) for part in order] == [1] * len(order)
    assert len(README.splitlines()) <= 120


def test_the_speed_that_is_promised_is_in_the_table():
    """How many times as fast the fills are: the least and the largest ratio, rounded down."""
    rows = re.findall(r"^\| (normal|uniform|`fast_init`)[^|]*\|.*\| ([\d.]+)x \|$", README, re.MULTILINE)
    ratios = [int(float(ratio)) for _, ratio in rows]
    assert len(ratios) == 5
    for page in (README, (ROOT / "docs" / "index.md").read_text()):
        assert re.search(r"are (\d+) to (\d+) times\s+as fast", page).groups() == (str(min(ratios)), str(max(ratios)))
        assert "memory speed" not in page


def test_the_counts_of_the_job_are_those_of_its_plan():
    plan = read(ROOT / "examples" / "gpt2.toml").plan
    assert f"({len(plan)} tensors, {plan.parameters:,} parameters)" in README


@pytest.mark.parametrize(
    ("marker", "last"),
    [
        ("job-command", ".venv/bin/fastinit write examples/gpt2.toml --out gpt2-init"),
        ("test-command", ".venv/bin/pytest"),
    ],
)
def test_two_commands_set_everything_up(marker, last):
    (command,) = re.findall(rf"<!-- {marker} -->\n```sh\n(.*?)```", README, re.DOTALL)
    lines = command.splitlines()
    assert lines[0] == "python3 -m venv .venv"
    assert lines[1].startswith(".venv/bin/pip install")
    assert lines[2] == last
    assert len(lines) == 3


def test_links_lead_somewhere():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_lower_bounds_are_those_that_are_tested():
    bounds = re.findall(r'^    "([\w-]+)>=([\d.]+)", *#', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    pins = re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / "tests" / "oldest.txt").read_text(), re.MULTILINE)
    assert len(bounds) == 9
    assert [name for name, _ in bounds] == [name for name, _ in pins]
    for (_, bound), (_, pin) in zip(bounds, pins, strict=True):
        assert pin == bound or pin == f"{bound}.0"


def test_the_bounds_of_torch_are_those_that_are_tested():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    pins, newest = (
        dict(re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / "tests" / f"{name}-torch.txt").read_text(), re.MULTILINE))
        for name in ("oldest", "newest")
    )
    assert list(newest) == ["torch"]
    bounds = [re.fullmatch(r"([\w-]+)>=([\d.]+)", text).groups() for name in ("torch", "hf") for text in extras[name]]
    assert [name for name, _ in bounds] == ["torch", "transformers", "torch"]
    assert all(pins[name] == f"{bound}.0" for name, bound in bounds)
