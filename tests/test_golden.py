"""The stream is a promise: these values never change within a version."""

import json

import golden
import numpy as np
import pytest
import reference

import fastinit as fi

PINNED = json.loads(golden.PATH.read_text())
CASES = dict(golden.cases())


def test_every_case_is_pinned():
    assert list(PINNED) == list(CASES)


@pytest.mark.parametrize("law", golden.LAWS)
def test_pinned_values(law):
    mine = [name for name in CASES if f" {law} " in name]
    assert len(mine) == 4 * 2 * (2 * len(golden.OFFSETS) + 1)
    assert {name: CASES[name]() for name in mine} == {name: PINNED[name] for name in mine}


def test_pinned_matrices():
    mine = [name for name, _ in golden.matrices()]
    assert len(mine) == 6 * 3 * 2
    assert {name: CASES[name]() for name in mine} == {name: PINNED[name] for name in mine}


def test_the_pinned_uniforms_are_those_of_the_specification():
    """Not only what the kernels once said: the words, the key and the element order by plain NumPy."""
    for seed, path, name in ((0, (), "Key(0)"), (2**200, ("layers.0.weight",), "Key(2**200) / 'layers.0.weight'")):
        for offset in golden.OFFSETS:
            wanted = reference.uniform(offset, 6, reference.key_words(seed, *path), -0.3, 0.7, "float32")
            assert golden.hexed(wanted) == PINNED[f"fill uniform float32 {name} at {offset}"]


def test_a_16_bit_model_is_the_rounded_float32_model():
    key = fi.Key(3)
    for law in (fi.Normal(0, 0.02), fi.Constant(0.1)):
        single = fi.fill(np.empty(10_000, np.float32), law, seed=key)
        for dtype in ("float16", "bfloat16"):
            half = fi.fill(np.empty(10_000, reference.NUMPY[dtype]), law, seed=key)
            np.testing.assert_array_equal(half.view(np.uint16), single.astype(half.dtype).view(np.uint16))
