"""Orthogonal and unitary matrices: the reflections that they are made of, and the same bits however they are made.

Their distribution is tested in `test_structured.py` and `test_complex_laws.py`, their bits by the specification in
`test_stream.py`, on other processors in `test_golden.py`, `test_cpu.py` and `test_arm.py`.
"""

import itertools

import numpy as np
import pytest
import scipy.linalg
from products import kernel_of

import fastinit as fi
from fastinit._core import haar
from fastinit._core.complex import fill_complex
from fastinit._native.records import REFLECTION_BLOCK
from fastinit.kernels.products.product import SHAPES

DTYPES = ["float32", "float64", "complex64", "complex128"]
# About a block of reflections, and with several of them: square, wide and tall.
MATRICES = [(1, 1), (1, 3), (3, 1), (64, 64), (65, 65), (63, 200), (129, 128), (300, 290), (70, 333), (500, 33)]
KEY = fi.Key(8) / "orthogonal"

each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def made(size, dtype, **where):
    fill = fill_complex if dtype.startswith("complex") else fi.fill
    out = np.full(size, np.nan, dtype)
    return fill(out, fi.Orthogonal(), seed=KEY, **where)


def all_of(dtype):
    return [made(shape, dtype).tobytes() for shape in MATRICES]


@pytest.fixture(scope="module")
def expected():
    """dtype -> the bytes of MATRICES."""
    with fi.thread_limit(1):
        return {dtype: all_of(dtype) for dtype in DTYPES}


@pytest.mark.parametrize("threads", [1, 2, 3, 5, 8])
@each_dtype
def test_any_number_of_threads(dtype, threads, expected, monkeypatch):
    monkeypatch.setattr(haar, "PARALLEL_FROM", 0)
    with fi.thread_limit(threads):
        assert all_of(dtype) == expected[dtype]


@pytest.mark.parametrize("bits", SHAPES)
@each_dtype
def test_any_shape_of_tiles(dtype, bits, expected, monkeypatch):
    inner = haar.kernel

    def kernel(name, real):
        return kernel_of(real, SHAPES[bits]) if name == "products.product.product" else inner(name, real)

    monkeypatch.setattr(haar, "kernel", kernel)
    assert all_of(dtype) == expected[dtype]


@pytest.mark.parametrize("slab", [1, 1 << 16, 1 << 20, 1 << 23])
@each_dtype
def test_any_number_of_calls(dtype, slab, expected, monkeypatch):
    monkeypatch.setattr(haar, "SLAB", slab)
    if slab == 1:
        assert made((65, 3), dtype).tobytes() == made((3, 65), dtype).T.tobytes()
    else:
        assert all_of(dtype) == expected[dtype]


def calls_of(shape, dtype, monkeypatch):
    """The name and the record of each call into compiled code for a matrix; nothing is computed."""
    calls, names, inner = [], [], haar.kernel

    def kernel(name, real):
        names.append(name.rpartition(".")[2])
        return inner(name, real)

    def together(work, workers):
        (place,) = work.args
        calls.append((names[-1], np.array(records[place])))
        assert workers == 2

    def address(array):
        place = inner_address(array)
        records[place] = array
        return place

    records, inner_address = {}, haar.address
    monkeypatch.setattr(haar, "kernel", kernel)
    monkeypatch.setattr(haar, "together", together)
    monkeypatch.setattr(haar, "address", address)
    with fi.thread_limit(2):
        made(shape, dtype)
    return calls


@pytest.mark.parametrize("slab", [1 << 18, 1 << 22, 1 << 24])
@each_dtype
def test_a_call_is_short(dtype, slab, monkeypatch):
    """Ctrl-C waits for one. Each block of reflections comes to each column once, the last block first."""
    monkeypatch.setattr(haar, "SLAB", slab)
    shape, parts = (700, 500), 1 + dtype.startswith("complex")
    reflected, columns = [], [[] for _ in range(500)]
    for name, run in calls_of(shape, dtype, monkeypatch):
        blocks = range(run["first_block"], run["last_block"])
        if name == "reflect":
            reflected += blocks
            products = len(blocks) * REFLECTION_BLOCK**2 * 700 * parts
            assert len(blocks) == 1 or products <= 2 * slab
            continue
        for column in range(run["begin"], run["end"]):
            columns[column] += reversed(blocks)
        products = 2 * len(blocks) * REFLECTION_BLOCK * 700 * parts * (run["end"] - run["begin"])
        assert products <= 2 * slab
    every = list(range(-(-500 * parts // REFLECTION_BLOCK)))
    assert reflected == every
    assert columns == [every[::-1]] * 500


@each_dtype
def test_tall_matrices_are_wide_ones_transposed(dtype):
    for shape in MATRICES:
        if shape[0] != shape[1]:
            assert made(shape, dtype).tobytes() == np.ascontiguousarray(made(shape[::-1], dtype).T).tobytes()


@each_dtype
def test_regions(dtype):
    whole = made((200, 130), dtype)
    steps = [slice(None), slice(3, 150, 7), slice(None, None, -1), slice(100, None, -3), slice(63, 66)]
    for region in itertools.product(steps, steps):
        part = whole[region]
        assert made(part.shape, dtype, shape=(200, 130), region=region).tobytes() == part.tobytes()


def gaussian(tall, short, dtype):
    real = np.empty(0, dtype).real.dtype
    parts = 1 + dtype.startswith("complex")
    return fi.fill(np.empty((short, parts * tall), real), fi.Normal(), seed=KEY).view(dtype)


@pytest.mark.parametrize("dtype", DTYPES[:2])
def test_lapack_makes_the_same_matrices_to_rounding(dtype):
    """Of the same reflections, by its orgqr."""
    for tall, short in [(5, 5), (65, 65), (200, 130), (300, 64)]:
        rows = gaussian(tall, short, dtype).astype(np.float64)
        factors, signs = np.empty(short), np.empty(short)
        for k, row in enumerate(rows):
            head, norm = row[k], np.linalg.norm(row[k:])
            beta = -np.copysign(norm, head)
            factors[k], signs[k] = (beta - head) / beta, np.sign(beta)
            row[k + 1 :] /= head - beta
        wanted = scipy.linalg.lapack.dorgqr(rows.T, factors)[0] * signs
        found = made((tall, short), dtype)
        assert abs(found - wanted).max() < 16 * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES[2:])
def test_complex_reflections_one_by_one(dtype):
    for tall, short in [(1, 1), (3, 3), (35, 34), (80, 40)]:
        q = np.eye(tall, short, dtype=complex)
        for k, row in reversed(list(enumerate(gaussian(tall, short, dtype).astype(complex)))):
            g = row[k:]
            head, norm = abs(g[0]), np.linalg.norm(g)
            v = np.concatenate([[1], g[1:] / (head + norm)])
            q[k, k] *= -g[0] / head
            q[k:] -= (head + norm) / norm * np.outer(v, v.conj() @ q[k:])
        assert abs(made((tall, short), dtype) - q).max() < 16 * np.finfo(dtype).eps


@each_dtype
def test_gaussian_numbers_that_are_zero(dtype, monkeypatch):
    """A normal of float32 is zero once in 2^31: a vector of nothing else is reflected to itself."""
    monkeypatch.setattr(haar, "Normal", lambda: fi.Constant(0.0))
    for shape in [(1, 1), (70, 66), (3, 5)]:
        np.testing.assert_array_equal(made(shape, dtype), np.eye(*shape))


def test_a_zero_at_the_head_of_a_vector(monkeypatch):
    inner = haar.draw

    def draw(out, law, *arguments, **how):
        inner(out, law, *arguments, **how)
        if law == fi.Normal():
            np.fill_diagonal(out, 0)

    monkeypatch.setattr(haar, "draw", draw)
    q = made((70, 66), "float64")
    assert abs(q.T @ q - np.eye(66)).max() < 1e-14
