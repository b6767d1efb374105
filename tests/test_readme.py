"""The README is executed, and says no more than there is. `test_docs.py` does the same for the pages."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from fastinit.schemes import ALIASES, SCHEMES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize(("code", "shown"), list(zip(blocks("python"), blocks("text"), strict=True)))
def test_the_examples_print_what_is_shown(code, shown):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout == shown


def test_the_schemes_are_those_of_the_table():
    (listed,) = re.findall(r"\*\*Schemes\*\*: `(.*?)`", README, re.DOTALL)
    assert listed.split() == list(SCHEMES)
    assert {alias.split("_")[0] for alias in ALIASES} == set(re.findall(r"`(\w+)_\*`", README))


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
    assert len(bounds) == 8
    assert [name for name, _ in bounds] == [name for name, _ in pins]
    for (_, bound), (_, pin) in zip(bounds, pins, strict=True):
        assert pin == bound or pin == f"{bound}.0"
