"""Dtypes have other names than NumPy's, which mean the same wherever a dtype is named."""

import json

import numpy as np
import pytest
import torch
from processes import command

import fastinit as fi
from fastinit import sources
from fastinit._core.composite import Values
from fastinit._runtime.arrays import DTYPES, as_dtype

SHORT = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32", "float64": "fp64"}
GIVEN = [(name, text) for name in DTYPES for text in (SHORT[name], SHORT[name].upper(), f"torch.{name}")]
WRONG = ["torch.float", "torch.int8", "bf", "bf 16", "torch.torch.float32", torch.int8, torch.ones(2)]


@pytest.mark.parametrize(("name", "given"), [*GIVEN, *((name, getattr(torch, name)) for name in DTYPES)])
def test_functions_and_plans(name, given):
    assert as_dtype(given) is DTYPES[name]
    assert fi.he_normal((2, 3), seed=0, dtype=given).dtype == DTYPES[name]
    plan = fi.Plan({"w": ((2, 3), name, "normal")})
    assert fi.Plan({"w": ((2, 3), given, "normal")}) == plan
    assert fi.Plan({"w": ((2, 3), "float64", "normal")}).with_dtype(given) == plan
    assert fi.Fill((2, 3), given, Values(np.ones((2, 3)))).dtype == name
    if name in ("float32", "float64"):
        assert fi.MLP([3, 2], dtype=given).dtype == DTYPES[name]


@pytest.mark.parametrize(("name", "given"), GIVEN)
def test_job_files_and_options(tmp_path, name, given):
    """The files that are written have NumPy's name."""
    w = '[tensors.w]\nshape = [2, 3]\nscheme = "normal"\n'
    top, own, cast = (tmp_path / f"{place}.toml" for place in ("top", "own", "cast"))
    top.write_text(f'dtype = "{given}"\n{w}')
    own.write_text(f'{w}dtype = "{given}"\n')
    cast.write_text(f'dtype = "{name}"\n{w}drawn_as = "{given}"\n')
    plan = fi.Plan({"w": ((2, 3), name, "normal")})
    for path in (top, own):
        assert sources.read(str(path)).plan == plan
    assert sources.read(str(cast)).plan.to_table()["tensors"]["w"]["drawn_as"] == name
    done = command("plan", top, "--dtype", given, "--json")
    assert json.loads(done.stdout) == plan.to_table()
    values = fi.Plan({"w": ((2, 3), name, Values(np.ones((2, 3), DTYPES[name])))}).to_table()
    values["tensors"]["w"] |= {"dtype": given, "values_dtype": given}
    assert fi.Plan.from_table(values)["w"].dtype == name


@pytest.mark.parametrize("given", WRONG)
def test_others_are_refused(given):
    with pytest.raises(TypeError, match="dtype must be one of float16, bfloat16, float32, float64"):
        as_dtype(given)
