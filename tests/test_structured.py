"""Laws whose elements depend on each other: against torch, against linear algebra, against the exact Haar law."""

import functools
import itertools
import math
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch

import fastinit as fi

DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
KEY = fi.Key(21) / "structured"

# law -> shapes that it exists for
SHAPES = {
    fi.Eye(): [(5, 5), (3, 7), (7, 3), (1, 6), (6, 1), (1, 1)],
    fi.Eye(-0.5): [(4, 6)],
    fi.Dirac(): [(4, 4, 3), (6, 4, 4), (4, 6, 3, 2), (3, 3, 5, 4, 3), (1, 1, 1)],
    fi.Dirac(2): [(4, 4, 3), (6, 2, 5), (6, 2, 3, 4), (2, 5, 3, 3, 3)],
    fi.Dirac(3): [(9, 2, 3), (9, 4, 3, 3)],
    fi.Orthogonal(): [(5, 5), (40, 9), (9, 40), (1, 7), (7, 1), (1, 1), (6, 4, 3), (20, 2, 3, 3), (3, 2, 2, 2, 2)],
    fi.Orthogonal(2.5): [(4, 6)],
    fi.DeltaOrthogonal(): [(4, 4, 3), (9, 4, 4), (6, 4, 3, 2), (5, 3, 5, 4, 3), (1, 1, 1)],
    fi.DeltaOrthogonal(-2): [(6, 4, 3)],
    fi.Hadamard(): [(5, 5), (3, 7), (8, 8), (8, 3), (7, 3), (20, 17), (2, 1), (1, 6), (1, 1), (6, 4, 3), (3, 2, 4, 5)],
    fi.Sparse(0.25): [(20, 6), (3, 9), (1, 5), (7, 1)],
    fi.Sparse(0, 2): [(6, 4)],
    fi.Sparse(1, 2): [(6, 4)],
}
FIXED = (fi.Eye, fi.Dirac, fi.Hadamard)  # nothing is drawn
CASES = [(law, shape) for law, shapes in SHAPES.items() for shape in shapes]

each_law = pytest.mark.parametrize("law", SHAPES, ids=repr)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda kind: kind.__name__)


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def make(law, shape, dtype=np.float64, seed=KEY):
    return fi.fill(np.full(shape, 7, dtype), law, seed=seed)


def scheme_of(law):
    """The function of the table that makes a law, and its parameters."""
    match law:
        case fi.Eye():
            return fi.eye, {"gain": law.gain}
        case fi.Dirac():
            return fi.dirac, {"groups": law.groups}
        case fi.Orthogonal():
            return fi.orthogonal, {"gain": law.gain}
        case fi.DeltaOrthogonal():
            return fi.delta_orthogonal, {"gain": law.gain}
        case fi.Hadamard():
            return fi.hadamard, {}
    return fi.sparse, {"sparsity": law.sparsity, "std": law.normal.std}


# --- each law ---


@each_dtype
def test_eye_is_torchs(dtype):
    for shape in SHAPES[fi.Eye()]:
        assert same_bits(make(fi.Eye(), shape, dtype), torch.nn.init.eye_(torch.empty(shape)).numpy().astype(dtype))
        assert same_bits(make(fi.Eye(-2.5), shape, dtype), (-2.5 * np.eye(*shape) + 0.0).astype(dtype))


@each_dtype
def test_dirac_is_torchs(dtype):
    for law, shape in [case for case in CASES if isinstance(case[0], fi.Dirac)]:
        expected = torch.nn.init.dirac_(torch.empty(shape), groups=law.groups).numpy()
        assert same_bits(make(law, shape, dtype), expected.astype(dtype))


def tolerance(dtype, n):
    """Of Q^T Q - 1: rounding the entries of two unit vectors moves their product by one eps of the target's at most;
    n reflections in the working precision move it by a few n eps of that."""
    working = np.finfo(np.float64 if dtype == np.float64 else np.float32).eps
    return float(ml_dtypes.finfo(dtype).eps) + 4 * n * working


@each_dtype
def test_orthogonal_rows_or_columns(dtype):
    for shape in [*SHAPES[fi.Orthogonal()], (64, 64), (300, 20), (130, 257)]:
        q = make(fi.Orthogonal(), shape, dtype).astype(np.float64).reshape(shape[0], -1)
        short = q.T if q.shape[0] >= q.shape[1] else q  # orthonormal rows
        error = abs(short @ short.T - np.eye(len(short))).max()
        assert error <= tolerance(dtype, max(q.shape))


@pytest.mark.parametrize("gain", [0, -1, 0.1, math.sqrt(2)])
def test_the_gain_of_orthogonal_is_its_singular_values(gain):
    singular = np.linalg.svd(make(fi.Orthogonal(gain), (12, 7)), compute_uv=False)
    np.testing.assert_allclose(singular, abs(gain), rtol=1e-14)


@each_dtype
def test_16_bits_are_float32_rounded(dtype):
    if dtype == np.float64:
        assert abs(make(fi.Orthogonal(), (9, 6)) - make(fi.Orthogonal(), (9, 6), np.float32)).max() > 0.1
    else:
        assert same_bits(make(fi.Orthogonal(), (9, 6), dtype), make(fi.Orthogonal(), (9, 6), np.float32).astype(dtype))


@each_dtype
def test_delta_orthogonal(dtype):
    for law, shape in [case for case in CASES if isinstance(case[0], fi.DeltaOrthogonal)]:
        x = make(law, shape, dtype)
        centre = (..., *((size - 1) // 2 for size in shape[2:]))
        assert same_bits(x[centre], make(fi.Orthogonal(law.gain), shape[:2], dtype))
        x[centre] = 0
        assert not x.any()


def zero_by_hand(shape):
    """ZerO's algorithm 1 with its matrices written out: I* (m x p), H of p = 2^k rows, I* (p x n)."""
    out, inputs = shape
    if out <= inputs:
        return np.eye(out, inputs)
    k = math.ceil(math.log2(out))
    partial = np.eye(out, 2**k), np.eye(2**k, inputs)
    return 2 ** (-(k - 1) / 2) * (partial[0] @ scipy.linalg.hadamard(2**k) @ partial[1])


@each_dtype
def test_hadamard_is_zeros_algorithm(dtype):
    for shape in [(s[0], s[1]) for s in SHAPES[fi.Hadamard()]] + [(300, 40), (64, 63)]:
        assert same_bits(make(fi.Hadamard(), shape, dtype), zero_by_hand(shape).astype(dtype))


@pytest.mark.parametrize("shape", [(8, 3), (64, 63), (128, 64), (2, 1)], ids=str)
def test_hadamards_columns_are_orthogonal_where_a_layer_widens_to_a_power_of_two(shape):
    h = make(fi.Hadamard(), shape)
    np.testing.assert_allclose(h.T @ h, 2 * np.eye(shape[1]), rtol=1e-15, atol=1e-15)
    assert (h[:, 0] > 0).all()


@pytest.mark.parametrize("shape", [(5, 5, 3), (3, 7, 4), (6, 4, 3), (9, 4, 2, 5), (3, 2, 1, 3, 2)], ids=str)
def test_hadamard_of_a_convolution_is_at_the_centre(shape):
    x = make(fi.Hadamard(), shape)
    centre = (..., *(size // 2 for size in shape[2:]))
    assert same_bits(x[centre].copy(), zero_by_hand(shape[:2]))
    x[centre] = 0
    assert not x.any()


def test_a_part_of_a_huge_hadamard_matrix_needs_memory_for_the_part_only():
    shape, rows, columns = (1 << 35, 1 << 26), slice(2**30 + 77, 2**30 + 677, 3), slice(2**26 - 1, 3, -12345)
    tracemalloc.start()
    x = fi.hadamard(shape, region=(rows, columns), dtype="float16")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    bits = [[(i & j).bit_count() for j in range(2**26 - 1, 3, -12345)] for i in range(2**30 + 77, 2**30 + 677, 3)]
    assert same_bits(x, ((-1.0) ** np.array(bits) * 2**-17).astype(np.float16))
    assert peak < 2 * x.nbytes


def test_hadamard_is_made_in_slabs():
    """More elements than are computed at once, and an unfinished last slab."""
    assert same_bits(make(fi.Hadamard(), (1000, 300), np.float32), zero_by_hand((1000, 300)).astype(np.float32))


@pytest.mark.parametrize("sparsity", [0, 0.07, 0.1, 1 / 3, 0.5, 0.9, 1])
def test_sparse_has_torchs_number_of_zeros_in_every_column(sparsity):
    for shape in ((100, 30), (10, 4), (7, 5), (1, 3)):
        x = make(fi.Sparse(sparsity, 0.5), shape)
        torch.manual_seed(0)
        counts = (torch.nn.init.sparse_(torch.empty(shape), sparsity, 0.5) == 0).sum(0).numpy()
        assert (counts == counts[0]).all()
        assert ((x == 0).sum(axis=0) == counts).all()
        normal = make(fi.Normal(0, 0.5), shape)
        assert same_bits(x, np.where(x == 0, 0.0, normal))


def test_the_zeros_of_sparse_lie_anywhere():
    """The count of zeros in a row is binomial; columns choose on their own."""
    rows, columns, share = 20, 2000, 0.25
    zeros = make(fi.Sparse(share), (rows, columns)) == 0
    deviation = math.sqrt(columns * share * (1 - share))
    assert abs(zeros.sum(axis=1) - columns * share).max() < 5 * deviation
    patterns = {column.tobytes() for column in zeros.T}
    assert len(patterns) > 0.9 * columns  # of 15504
    other = make(fi.Sparse(share), (rows, columns), seed=KEY / "other") == 0
    assert abs((zeros & other).mean() - share**2) < 5 * share / math.sqrt(zeros.size)


def test_the_zeros_of_sparse_know_nothing_of_the_values():
    """What is left is as normal as before: zeros drawn from the values' own words would take the large ones."""
    x = make(fi.Sparse(0.5, 2), (200, 50))
    assert scipy.stats.kstest(x[x != 0], scipy.stats.norm(0, 2).cdf).pvalue > 1e-3


# --- the Haar measure ---


def haar_by_qr(count, n, sign):
    """Mezzadri, Notices of the AMS 54, 2007: QR of a Gaussian matrix, with the signs of R's diagonal put right."""
    gaussian = np.random.default_rng(5).standard_normal((count, n, n))
    q, r = np.linalg.qr(gaussian)
    return q * np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None, :] if sign else q


def entry_pvalues(q):
    """Of every entry: (Q_ij + 1) / 2 follows Beta((n - 1) / 2, (n - 1) / 2), n the length of the unit vectors."""
    n = max(q.shape[1:])
    law = scipy.stats.beta((n - 1) / 2, (n - 1) / 2, loc=-1, scale=2)
    return np.array([scipy.stats.kstest(q[:, i, j], law.cdf).pvalue for i, j in np.ndindex(*q.shape[1:])])


@pytest.mark.parametrize("shape", [(3, 3), (4, 4), (5, 2), (2, 5)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_entries_follow_the_exact_law(shape, dtype):
    q = fi.orthogonal((2500, *shape), seed=KEY / "entries", dtype=dtype, batch_axes=0).astype(np.float64)
    assert entry_pvalues(q).min() > 1e-3 / q[0].size


def test_the_test_of_entries_sees_wrong_signs_and_scales():
    assert entry_pvalues(haar_by_qr(2500, 4, sign=True)).min() > 1e-3 / 16
    assert entry_pvalues(haar_by_qr(2500, 4, sign=False)).min() < 1e-12
    q = fi.orthogonal((2500, 4, 4), seed=KEY / "entries", dtype="float64", batch_axes=0)
    assert entry_pvalues(1.25 * q).min() < 1e-6


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_reflections_and_rotations_are_as_frequent(n):
    q = fi.orthogonal((2000, n, n), seed=KEY / "signs", dtype="float64", batch_axes=0)
    determinants = np.linalg.det(q)
    np.testing.assert_allclose(abs(determinants), 1, rtol=1e-13)
    assert abs((determinants > 0).sum() - 1000) < 4 * math.sqrt(2000) / 2


@pytest.mark.parametrize("n", [3, 6])
def test_matrices_as_a_whole_are_those_of_qr(n):
    """Statistics of many entries at once: the trace, a minor, the product of the corners."""
    q = fi.orthogonal((3000, n, n), seed=KEY / "whole", dtype="float64", batch_axes=0)
    expected = haar_by_qr(3000, n, sign=True)
    for statistic in (
        lambda m: np.trace(m, axis1=1, axis2=2),
        lambda m: np.linalg.det(m[:, :2, :2]),
        lambda m: m[:, 0, 0] * m[:, -1, -1],
        lambda m: np.trace(m @ m, axis1=1, axis2=2),
    ):
        assert scipy.stats.ks_2samp(statistic(q), statistic(expected)).pvalue > 1e-3


# --- parts, layouts and populations ---

STEPS = [slice(None), slice(1, None), slice(None, None, 2), slice(None, None, -1), slice(None, -1), slice(1, 1)]


@each_law
def test_regions_equal_the_slice_of_the_whole(law):
    for shape, dtype in itertools.product(SHAPES[law], DTYPES):
        whole = make(law, shape, dtype)
        for region in itertools.product(STEPS, STEPS[:5], STEPS[1:3] if len(shape) == 3 else [slice(None)]):
            part = region[: len(shape)]
            out = np.full(whole[part].shape, 7, dtype)
            assert same_bits(fi.fill(out, law, seed=KEY, shape=shape, region=part), whole[part])


@each_law
def test_any_memory_gets_the_same_values(law):
    for dtype, shape in itertools.product(DTYPES, SHAPES[law]):
        expected = make(law, shape, dtype)
        memory = np.full([2 * size for size in reversed(shape)], 7, dtype)
        out = memory[tuple(slice(None, None, -2) for _ in shape)].T
        assert same_bits(fi.fill(out, law, seed=KEY), expected)
        assert (memory == 7).sum() >= memory.size - out.size


@each_law
def test_adding(law):
    for dtype, shape in itertools.product(DTYPES, SHAPES[law]):
        wide = np.float64 if dtype == np.float64 else np.float32
        out = np.full(shape, 3, dtype)
        assert fi.add(out, law, seed=KEY, scale=0.5) is out
        assert same_bits(out, (3 + wide(0.5) * make(law, shape, wide)).astype(dtype))


@each_law
def test_io_is_oi_transposed(law):
    function, parameters = scheme_of(law)
    for shape in SHAPES[law]:
        expected = function(shape, seed=KEY, dtype="float64", **parameters)
        assert same_bits(expected, make(law, shape))
        x = function((*shape[2:], shape[1], shape[0]), seed=KEY, dtype="float64", layout="io", **parameters)
        assert same_bits(x.transpose(-1, -2, *range(len(shape) - 2)), expected)


@each_law
def test_members_of_a_population_are_members_of_the_law(law):
    function, parameters = scheme_of(law)
    for shape in SHAPES[law]:
        one = function(shape, seed=KEY, dtype="float64", **parameters)
        whole = function((3, *shape, 2), seed=KEY, dtype="float64", batch_axes=(0, -1), **parameters)
        members = [whole[i, ..., j] for i in range(3) for j in range(2)]
        assert same_bits(members[0], one)
        signs_only = isinstance(law, (fi.Orthogonal, fi.DeltaOrthogonal)) and shape[:2] == (1, 1)
        zeros_only = isinstance(law, fi.Sparse) and (law.sparsity == 1 or shape[0] == 1)
        if not (signs_only or zeros_only or isinstance(law, FIXED)):
            assert len({member.tobytes() for member in members}) == len(members)
        if isinstance(law, FIXED):
            assert all(same_bits(member, one) for member in members)
        for member in members:
            np.testing.assert_allclose(invariant(law, member), invariant(law, one), atol=1e-14)


def test_members_have_zeros_of_their_own():
    whole = fi.sparse((40, 20, 6), sparsity=0.25, seed=KEY, dtype="float64", batch_axes=0)
    assert len({(member == 0).tobytes() for member in whole}) == len(whole)


def invariant(law, x):
    """What every draw of a law shares."""
    if isinstance(law, fi.Sparse):
        return (x == 0).sum(axis=0)
    if isinstance(law, fi.DeltaOrthogonal):
        x = x.reshape(*x.shape[:2], -1).sum(axis=2)
    matrix = x.reshape(len(x), -1)
    return matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T


@each_law
def test_a_part_of_a_population(law):
    function, parameters = scheme_of(law)
    for shape in SHAPES[law]:
        whole = function((5, *shape), seed=KEY, batch_axes=0, **parameters)
        for region in [(slice(3, 4),), (slice(None, None, -2), slice(1, None)), (slice(2, 2),)]:
            part = function((5, *shape), seed=KEY, batch_axes=0, region=region, **parameters)
            assert same_bits(part, whole[region])


# --- the edges ---


EMPTY = [
    (fi.Eye(), (0, 3)),
    (fi.Eye(), (3, 0)),
    (fi.Dirac(), (0, 3, 3)),
    (fi.Dirac(2), (4, 3, 0)),
    (fi.Orthogonal(), (0, 4)),
    (fi.Orthogonal(), (4, 0)),
    (fi.Orthogonal(), (4, 0, 3)),
    (fi.DeltaOrthogonal(), (4, 0, 3)),
    (fi.DeltaOrthogonal(), (4, 3, 0)),
    (fi.Hadamard(), (0, 4)),
    (fi.Hadamard(), (4, 0)),
    (fi.Hadamard(), (4, 3, 0)),
    (fi.Sparse(0.5), (0, 4)),
    (fi.Sparse(0.5), (4, 0)),
]


@each_dtype
def test_zero_size_is_nothing_to_do(dtype):
    for law, shape in EMPTY:
        for write in (fi.fill, fi.add):
            out = np.empty(shape, dtype)
            assert write(out, law, seed=0) is out
        function, parameters = scheme_of(law)
        assert function((2, *shape), batch_axes=0, **parameters).shape == (2, *shape)


TWO = "Only tensors with 2 dimensions are supported. Received: shape {}"
CONVOLUTIONS = "Only tensors with 3, 4, or 5 dimensions are supported. Received: shape {}"
MATRICES = "Only tensors with 2 or more dimensions are supported. Received: shape {}"
WRONG_SHAPES = [
    *((law, shape, TWO) for law in (fi.Eye(), fi.Sparse(0.5)) for shape in [(), (4,), (2, 2, 2), (0,)]),
    *((law, shape, CONVOLUTIONS) for law in (fi.Dirac(), fi.DeltaOrthogonal()) for shape in [(), (4, 4), (1,) * 6]),
    *((law, shape, MATRICES) for law in (fi.Orthogonal(), fi.Hadamard()) for shape in [(), (4,)]),
    (fi.Dirac(3), (4, 4, 3), "dim 0 must be divisible by groups. Received: shape {}, groups=3"),
    (fi.DeltaOrthogonal(), (3, 4, 3), "fan_in must not be above fan_out, channel by channel. Received: shape {}"),
]


def test_wrong_shapes():
    for law, shape, message in WRONG_SHAPES:
        function, parameters = scheme_of(law)
        out, population = np.full(shape, 7.0), np.full((2, *shape), 7.0)
        for call in (
            functools.partial(fi.fill, out, law, seed=0),
            functools.partial(fi.add, out, law, seed=0),
            functools.partial(function, out=out, seed=0, **parameters),
            functools.partial(function, out=population, seed=0, batch_axes=0, **parameters),
        ):
            with pytest.raises(ValueError, match="Received: shape") as caught:
                call()
            assert str(caught.value) == message.format(shape)
        assert (out == 7).all()
        assert (population == 7).all()


@pytest.mark.parametrize(
    ("make_law", "error", "message"),
    [
        (lambda: fi.Eye(math.nan), ValueError, "gain must be finite. Received: gain=nan"),
        (lambda: fi.Orthogonal(math.inf), ValueError, "gain must be finite. Received: gain=inf"),
        (lambda: fi.DeltaOrthogonal("1"), TypeError, "gain must be a real number. Received: gain='1'"),
        (lambda: fi.Dirac(0), ValueError, "groups must be positive. Received: groups=0"),
        (lambda: fi.Dirac(1.0), TypeError, "groups must be an int. Received: groups=1.0"),
        (lambda: fi.Dirac(True), TypeError, "groups must be an int. Received: groups=True"),
        (lambda: fi.Sparse(-0.1), ValueError, "sparsity must not be negative. Received: sparsity=-0.1"),
        (lambda: fi.Sparse(1.1), ValueError, "sparsity must be from 0 to 1. Received: sparsity=1.1"),
        (lambda: fi.Sparse(0.5, -1), ValueError, "std must not be negative. Received: std=-1"),
    ],
)
def test_wrong_parameters(make_law, error, message):
    with pytest.raises(error) as caught:
        make_law()
    assert str(caught.value) == message


@each_law
def test_what_does_not_depend_on_the_shape(law):
    assert law.structured
    assert law.mean == (None if isinstance(law, FIXED) else 0)
    assert (law.std, law.low, law.high) == (None, None, None)
    assert eval(repr(law), vars(fi)) == law
    assert hash(eval(repr(law), vars(fi))) == hash(law)
