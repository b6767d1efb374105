"""Random constructors, run in all ways that fill a model: what PyTorch makes equal is equal, and the bits agree.

`pytest -m slow tests/test_constructor_programs.py` runs 200 programs. FASTINIT_PROGRAMS=10000 runs more, other ones
each time; FASTINIT_STATEMENTS="module fill deepcopy" draws these statements only. A failure prints the program, without
the lines that it does not need, as a call that repeats it: paste that into a test.
"""

import os
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from models import bits
from program_faults import faults
from program_lines import STATEMENTS
from program_ways import all_tensors, plain, run
from programs import Program, programs

NUMBER = int(os.environ.get("FASTINIT_PROGRAMS", "200"))
CHOSEN = os.environ.get("FASTINIT_STATEMENTS", "").split() or STATEMENTS
SHRINKS = "FASTINIT_SHRINK" in os.environ  # by hypothesis: simpler lines too, in minutes

pytestmark = pytest.mark.filterwarnings(
    "ignore:DTensor random operators", "ignore:.*non-resizable", "ignore:An output", "ignore:Tensor.*on 0-D"
)


def check(program):
    found = faults(run(program))
    if found and not SHRINKS:
        program = reduced(program, found)
        found = faults(run(program))
    assert not found, "\n".join([*found, "", f"check({program})"])


def reduced(program, found):
    """The program without the lines that its first fault does not need."""
    way = found[0].partition(":")[0]

    def fails(shorter):
        try:
            return any(fault.partition(":")[0] == way for fault in faults(run(shorter)))
        except (RuntimeError, ValueError, LookupError, NameError, AttributeError, TypeError):
            return False  # a line needs the one that is gone

    position = len(program.lines) - 1
    while position > 0:
        shorter = replace(program, lines=program.lines[:position] + program.lines[position + 1 :])
        if fails(shorter):
            program, position = shorter, len(shorter.lines)
        position -= 1
    return program


@pytest.mark.slow
@settings(
    max_examples=NUMBER,
    deadline=None,
    derandomize="FASTINIT_PROGRAMS" not in os.environ,
    database=None,
    phases=[Phase.generate, Phase.shrink] if SHRINKS else [Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(st.one_of(programs(CHOSEN), programs(CHOSEN), programs([*CHOSEN, "escape", "escape"])))
def test_a_constructor_means_the_same_in_every_way(program):
    check(program)


# A layer, a copy of it, two tensors that are not equal, a constant.
SOUND = Program(
    (
        "root = nn.Module()",
        "root.m0 = nn.Linear(6, 4)",
        "root.m1 = copy.deepcopy(root.m0)",
        "root.w2 = nn.Parameter(torch.zeros(4))",
        "root.w3 = nn.Parameter(root.m0.bias.detach().clone())",
        "nn.init.normal_(root.w3)",
    )
)


def test_a_sound_program_has_no_faults():
    results = run(SOUND)
    assert faults(results) == []
    assert [len(results.recorded), len(results.written), len(results.shards)] == [3, 6, 6]


def changed(runs, name, change):
    return [{**run, f"0.{name}": change(run)} for run in runs]


@pytest.mark.parametrize(
    ("name", "change", "fault"),
    [
        ("m1.bias", lambda run: run["0.m1.bias"] * 2, "m1.bias[0] does not equal 0.m0.bias[0]"),
        ("w3", lambda run: run["0.m0.bias"].clone(), "m0.bias[0] equals 0.w3[0], unlike in PyTorch"),
        ("w2", lambda run: torch.ones(4), "w2[0] is not the constant"),
        ("w3", lambda run: torch.arange(4.0) + 9, "w3[0] does not depend on the seed"),
        ("w3", lambda run: run["0.w3"].double(), "names, layouts or ties differ"),
        ("w3", lambda run: run["0.w2"], "names, layouts or ties differ"),
    ],
)
def test_other_patterns_are_found(name, change, fault):
    results = run(SOUND)
    found = faults(replace(results, drawn=changed(results.drawn, name, change)))
    assert any(text.startswith("fast_init: ") and fault in text for text in found), found


@pytest.mark.parametrize("way", ["recorded", "again", "shards", "sharded", "written"])
def test_other_bits_are_found(way):
    results = run(SOUND)
    run_of_way = results.drawn[0] if way == "sharded" else getattr(results, way)
    one = isinstance(run_of_way, dict)

    def next_number(run):
        return torch.nextafter(run["0.w3"], torch.full((4,), 9.0))

    runs = changed([run_of_way] if one else run_of_way, "w3", next_number)
    texts = {"recorded": "materialize", "again": "materialize again", "written": "write"}
    text = texts.get(way, "sharded materialize" if way == "shards" else "sharded fast_init")
    assert f"{text}: 0.w3 is not what fast_init makes" in faults(replace(results, **{way: runs[0] if one else runs}))


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (("float(root.w0.sum())",), "record: ValueError: cannot record"),  # not marked as one that reads
        (("root.w1 = nn.Parameter(root.w0.detach()[1:])",), "record: ValueError: w1 and w0 share part"),
    ],
)
def test_what_a_way_raises_is_a_fault(lines, fault):
    first = ("root = nn.Module()", "root.w0 = nn.Parameter(torch.randn(4, 6))")
    assert any(text.startswith(fault) for text in faults(run(Program((*first, *lines)))))


def test_a_program_is_shown_as_code_that_runs():
    assert eval(str(SOUND)) == SOUND


@settings(max_examples=30, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(programs([*STATEMENTS, "escape"]))
def test_programs_run_again_as_they_were_written(program):
    """Two runs with one seed are equal, and no line is refused."""
    once, again = all_tensors(plain(program, 0)), all_tensors(plain(program, 0))
    assert {name: bits(tensor) for name, tensor in once.items()} == {n: bits(t) for n, t in again.items()}
