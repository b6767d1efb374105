"""Laws made of laws: parts of a tensor, copies of another, given values."""

import itertools

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastinit as fi
from fastinit._core.composite import Cast, Patched, SameAs, Values
from fastinit._runtime.arrays import as_dtype, common
from fastinit.plan._fills import Fill, Tied
from fastinit.plan._plan import Plan

KEY = fi.Key(5) / "name"
PARTS = (
    ((), fi.Normal(0, 2)),
    ((slice(1, 3),), fi.Uniform(10, 11)),
    ((slice(0, 5, 2), slice(3, 4)), fi.Constant(7)),
    ((slice(3, 6), slice(1, 4)), fi.Orthogonal()),
)


def ranges():
    return st.builds(
        lambda start, count, step: range(start, start + (count - 1) * step + 1, step),
        st.integers(0, 20),
        st.integers(1, 12),
        st.integers(1, 7),
    )


@given(ranges(), ranges())
def test_what_two_ranges_have_in_common(a, b):
    assert list(common(a, b)) == sorted(set(a) & set(b))


def test_later_parts_lie_over_earlier_ones():
    out = fi.fill(np.empty((6, 5)), Patched(PARTS), seed=KEY)
    base = fi.fill(np.empty((6, 5)), fi.Normal(0, 2), seed=KEY)
    evenly = fi.fill(np.empty((6, 5)), fi.Uniform(10, 11), seed=KEY)
    covered = np.zeros((6, 5), bool)
    square = out[3:6, 1:4]
    assert np.allclose(square @ square.T, np.eye(3))
    covered[3:6, 1:4] = True
    sevens = np.zeros_like(covered)
    sevens[0:5:2, 3] = True
    assert (out[sevens & ~covered] == 7).all()
    covered |= sevens
    rows = np.zeros_like(covered)
    rows[1:3] = True
    assert (out[rows & ~covered] == evenly[rows & ~covered]).all()
    covered |= rows
    assert (out[~covered] == base[~covered]).all()


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_every_region_of_parts_is_a_part_of_the_whole(dtype):
    law, whole = Patched(PARTS), np.empty((6, 5), as_dtype(dtype))
    fi.fill(whole, law, seed=KEY)
    cuts = [slice(a, b, s) for a, b in itertools.combinations(range(7), 2) for s in (1, 2)] + [slice(None, None, -1)]
    for rows, columns in itertools.product(cuts, [slice(0, 5), slice(1, 4, 2), slice(4, 0, -2), slice(3, 4)]):
        expected = whole[rows, columns]
        part = fi.fill(np.empty_like(expected), law, seed=KEY, shape=(6, 5), region=(rows, columns))
        assert part.tobytes() == expected.tobytes(), (rows, columns)


def test_what_no_part_covers_stays():
    out = fi.fill(np.full((3, 2), 4.0), Patched((((slice(1, 2),), fi.Constant(0)),)), seed=0)
    assert out.tolist() == [[4, 4], [0, 0], [4, 4]]


def test_equal_structured_parts_are_different_draws():
    law = Patched((((slice(0, 4),), fi.Orthogonal()), ((slice(4, 8),), fi.Orthogonal())))
    out = fi.fill(np.empty((8, 4)), law, seed=0)
    assert not np.allclose(out[:4], out[4:])


def test_parts_are_checked_before_anything_is_written():
    out = np.ones((3, 2), np.float16)
    for law, words in (
        (Patched((((), fi.Normal()), ((slice(0, 1),), fi.Constant(1e6)))), "over the range of float16"),
        (Patched((((slice(0, 1),), fi.Dirac()),)), "3, 4, or 5 dimensions"),
    ):
        with pytest.raises(ValueError, match=words):
            fi.fill(out, law, seed=0)
    assert (out == 1).all()


@pytest.mark.parametrize("law", [fi.Normal(), fi.Orthogonal(), Patched(PARTS[:2])], ids=lambda law: type(law).__name__)
def test_a_copy_is_the_draw_of_the_other(law):
    other = fi.fill(np.empty((4, 3), np.float32), law, seed=fi.Key(1) / "other")
    same = SameAs(("other",), law, (4, 3)).under(fi.Key(1))
    assert (fi.fill(np.empty((4, 3), np.float32), same) == other).all()
    part = fi.fill(np.empty((2, 3), np.float32), same, shape=(4, 3), region=(slice(1, 3),))
    assert (part == other[1:3]).all()


VIEWS = {
    "transposed": (lambda x: x.T, 0, (1, 10)),
    "every third of two rows, backwards in the axes": (lambda x: x[1:5:2, 2::3].T, 12, (3, 20)),
    "a column": (lambda x: x[:, 7], 7, (10,)),
    "a row, with an axis more": (lambda x: x[2, None], 20, (0, 1)),
    "one element": (lambda x: x[3, 4], 34, ()),
}
MORE_VIEWS = {
    "a row, three times": (lambda x: np.broadcast_to(x[2], (3, 10)), 20, (0, 1)),
    "flat": (lambda x: x.reshape(-1)[3:40:4], 3, (4,)),
    "the diagonal": (np.diagonal, 0, (11,)),
    "other rows": (lambda x: x.reshape(5, 12)[1:, ::5], 12, (12, 5)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("law", [fi.Normal(), fi.Orthogonal(), Patched(PARTS[:3])], ids=lambda law: type(law).__name__)
@pytest.mark.parametrize("name", [*VIEWS, *MORE_VIEWS])
def test_a_copy_of_a_part_in_any_order(name, law, dtype):
    take, offset, strides = {**VIEWS, **MORE_VIEWS}[name]
    expected = take(fi.fill(np.empty((6, 10), as_dtype(dtype)), law, seed=fi.Key(1) / "a" / "b"))
    copy = SameAs(("a", "b"), law, (6, 10), offset, strides)
    if law.structured and name in MORE_VIEWS:
        with pytest.raises(ValueError, match=r"a copy of .* must be a region of it"):
            copy.check(expected.shape, dtype)
        return
    copy.check(expected.shape, dtype)
    made = fi.fill(np.empty(expected.shape, as_dtype(dtype)), copy.under(fi.Key(1)))
    assert made.tobytes() == expected.tobytes()
    if expected.ndim and len(expected) > 1:
        region = (slice(None, None, -2),)
        part = np.empty_like(expected[region])
        fi.fill(part, copy.under(fi.Key(1)), shape=expected.shape, region=region)
        assert part.tobytes() == expected[region].tobytes()


@pytest.mark.parametrize(("offset", "strides"), [(-1, (1,)), (0, (-1,)), (0, (13,)), (51, (1,)), (0, (1, 1))])
def test_a_copy_lies_in_its_original(offset, strides):
    with pytest.raises(ValueError, match="offset and strides must be those of a part"):
        SameAs(("a",), fi.Normal(), (6, 10), offset, strides).check((10,), "float32")


def test_a_copy_has_the_others_values_in_its_own_dtype():
    half = fi.fill(np.empty(50, ml_dtypes.bfloat16), fi.Normal(), seed=fi.Key(1) / "other")
    wide = fi.fill(np.empty(50), Cast(SameAs(("other",), fi.Normal(), (50,)), "bfloat16").under(fi.Key(1)))
    assert (wide == half.astype(float)).all()


@pytest.mark.parametrize("dtype", ["int64", "bool", "uint8", "complex64", "float8_e4m3fn", "float32"])
def test_given_values_of_any_dtype(dtype):
    values = (np.arange(6).reshape(2, 3) % 2).astype(dtype)
    plan = Plan({"table": Fill((2, 3), dtype, Values(values)), "weight": ((2,), "float32", "normal")})
    assert (plan["table"].nbytes, plan.with_dtype("float16")["table"].dtype) == (values.nbytes, dtype)
    out = {"table": np.zeros_like(values)}
    plan.fill(out)
    assert (out["table"] == values).all()
    with pytest.raises(TypeError, match=f"table must be a writeable array of {dtype}"):
        plan.fill({"table": np.zeros((2, 3), np.int16)})
    with pytest.raises(ValueError, match="shape must be that of the values"):
        Fill((3, 2), dtype, Values(values))


def test_tied_tensors_are_filled_once_and_alike():
    plan = Plan({"a": ((4, 3), "float32", "normal"), "b": Tied("a")}, seed=2)
    assert (plan.parameters, plan.nbytes, list(plan.filled), plan.of("b"), len(plan)) == (12, 48, ["a"], plan["a"], 2)
    apart = {"b": np.empty((4, 3), np.float32), "a": np.empty((4, 3), np.float32)}
    plan.fill(apart)
    assert (apart["a"] == apart["b"]).all()
    together, seen = np.empty((4, 3), np.float32), []
    plan.fill({"a": together, "b": together}, progress=lambda *counts: seen.append(counts))
    assert (together == apart["a"]).all()
    assert seen == [(48, 96), (96, 96)]
    assert plan.with_dtype("bfloat16")["b"] == Tied("a")


@pytest.mark.parametrize("name", ["c", "b"])
def test_a_tie_must_lead_to_a_filled_tensor(name):
    with pytest.raises(ValueError, match=f"must be tied to a filled tensor of the plan. Received: '{name}'"):
        Plan({"a": ((3,), "float32", "ones"), "b": Tied(name)})
