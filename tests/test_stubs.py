"""The stubs are what their script writes, and type checkers find slips in them."""

import subprocess
import sys

import pytest

from scripts import stubs


@pytest.mark.parametrize("path", stubs.STUBS, ids=lambda path: path.name)
def test_the_stubs_are_what_the_script_writes(path):
    assert path.read_text() == stubs.STUBS[path]()


@pytest.mark.slow
def test_a_type_checker_finds_slips(tmp_path):
    (tmp_path / "user.py").write_text(
        "import fastinit as fi\n"
        "weight = fi.he_normal((3, 4), mode='fan_out', seed=fi.Key(0) / 'weight')\n"
        "fi.he_normal((3, 4), mdoe='fan_out')\n"
        "fi.constant((3, 4))\n"
        "fi.he_nromal((3, 4))\n"
    )
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "user.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    found = [line.partition(": error: ")[::2] for line in done.stdout.splitlines() if ": error: " in line]
    assert [place for place, _ in found] == ["user.py:3", "user.py:4", "user.py:5"], done.stdout
    assert 'Unexpected keyword argument "mdoe"' in found[0][1]
    assert 'Missing named argument "value"' in found[1][1]
