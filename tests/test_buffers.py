"""Targets of every kind of memory, and what bad input gets: the message, and an array that nobody touched."""

import functools
import itertools
import math
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided, sliding_window_view

import fastinit as fi
from fastinit._core import draw as engine
from fastinit._runtime.arrays import DTYPES, address, check_target

KINDS = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
LAWS = [
    fi.Constant(0.5),
    fi.Uniform(-1, 3),
    fi.Normal(0.5, 2),
    fi.TruncatedNormal(0, 1, -1, 1),
    fi.TruncatedNormal(0, 1, 1, 4),
]
KEY = fi.Key(5) / "buffers"
SENTINEL = 7

each_kind = pytest.mark.parametrize("kind", KINDS, ids=list(DTYPES))
each_write = pytest.mark.parametrize("write", [fi.fill, fi.add])


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


# --- memory ---

# name -> (shape of the memory, the part of it that is filled)
TARGETS = {
    "C order": ((5, 300), lambda a: a),
    "F order": ((300, 5), lambda a: a.T),
    "strided": ((9, 30), lambda a: a[1::2, 2:29:3]),
    "strided rows": ((9, 30), lambda a: a[1::2]),
    "backwards": ((5, 7), lambda a: a[::-1, ::-2]),
    "rows backwards": ((5, 7), lambda a: a[::-1]),
    "columns": ((6, 40), lambda a: a[:, 3:30]),
    "one column": ((600, 3), lambda a: a[:, 1]),
    "one column, kept": ((600, 3), lambda a: a[:, 1:2]),
    "one row": ((3, 600), lambda a: a[1]),
    "0-d": ((3,), lambda a: a[1:2].reshape(())),
    "one element, 5-D": ((3, 3), lambda a: a[1:2, 1:2].reshape(1, 1, 1, 1, 1)),
    "empty": ((4, 0), lambda a: a),
    "empty part": ((4, 4), lambda a: a[2:2]),
    "transposed 4-D": ((3, 4, 5, 6), lambda a: a.transpose(2, 0, 3, 1)),
    "inner part of 4-D": ((4, 5, 6, 7), lambda a: a[1:3, ::2, 1:5, 2:6]),
    "middle axis gone": ((4, 5, 6), lambda a: a[:, 2, :]),
    "a new axis": ((4, 5), lambda a: a[:, None, ::2]),
    "diagonal": ((9, 9), lambda a: a.reshape(-1)[::10]),
}


def target(name, kind):
    """Memory full of sentinels, the part to fill, and where that part lies."""
    shape, part = TARGETS[name]
    memory = np.full(shape, SENTINEL, kind)
    filled = np.zeros(shape, bool)
    part(filled)[...] = True
    return memory, part(memory), filled


@pytest.mark.parametrize("name", TARGETS)
def test_every_memory_gets_the_same_values_and_gaps_stay(name, monkeypatch):
    for block, kind, law in itertools.product((1, 16, 1 << 18), KINDS, LAWS):
        monkeypatch.setattr(engine, "COPY_BLOCK", block)
        memory, out, filled = target(name, kind)
        assert np.shares_memory(memory, out) or not out.size
        assert fi.fill(out, law, seed=KEY) is out
        assert same_bits(out, fi.fill(np.empty(out.shape, kind), law, seed=KEY))
        assert (memory[~filled] == SENTINEL).all()


@pytest.mark.parametrize("name", TARGETS)
def test_adding_to_every_memory(name):
    """scale is a power of two, so the product is exact and the sum is rounded once: the fused multiply-add."""
    for kind in KINDS:
        memory, out, filled = target(name, kind)
        wide = np.float64 if kind == np.float64 else np.float32
        z = fi.fill(np.empty(out.shape, wide), fi.Normal(0.5, 2), seed=KEY)
        expected = (out.astype(wide) + wide(-0.5) * z).astype(kind)
        assert fi.add(out, fi.Normal(0.5, 2), seed=KEY, scale=-0.5) is out
        assert same_bits(out, expected)
        assert (memory[~filled] == SENTINEL).all()


def test_the_product_of_an_addition_is_not_rounded():
    z = fi.normal(1000, seed=KEY)
    out = fi.add(-np.float32(0.1) * z, fi.Normal(), seed=KEY, scale=0.1)
    exact = np.float64(np.float32(0.1)) * z.astype(np.float64) - np.float64(np.float32(0.1) * z)
    assert np.count_nonzero(exact) > 500
    assert same_bits(out, exact.astype(np.float32))


@each_kind
def test_a_large_strided_target_is_copied_block_by_block(kind):
    memory = np.full((2, 700, 801), SENTINEL, kind)
    out = memory[:, :, ::2]
    assert out.size > 2 * engine.COPY_BLOCK
    fi.fill(out, fi.Normal(), seed=KEY)
    assert same_bits(out, fi.normal(out.shape, seed=KEY, dtype=kind))
    assert (memory[:, :, 1::2] == SENTINEL).all()


@each_kind
def test_addresses(kind):
    for shape, part in TARGETS.values():
        out = part(np.zeros(shape, kind))
        for view in (out, out.view(np.recarray), np.broadcast_to(out, (2, *out.shape))):  # a subclass; read-only
            assert address(view) == view.ctypes.data


@each_write
def test_a_strided_target_needs_little_memory(write, monkeypatch):
    monkeypatch.setattr(engine, "COPY_BLOCK", 1 << 12)
    out = np.zeros((300, 400))[:, ::2]
    write(out, fi.Normal(), seed=KEY)  # what is compiled and remembered is not counted
    tracemalloc.start()
    write(out, fi.Normal(), seed=KEY)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (1 << 12) * 8 <= peak < 2 * (1 << 12) * 8 < out.nbytes


@each_kind
@each_write
def test_unaligned_memory(write, kind):
    for shape in ((), (1,), (5,), (3, 7)):
        records = np.zeros(shape, np.dtype([("before", "u1"), ("x", kind), ("after", "u1")]))
        records["before"] = records["after"] = 0xAB
        out = records["x"]
        assert not out.flags.aligned
        for law in LAWS:
            out[...] = SENTINEL
            write(out, law, seed=KEY)
            assert same_bits(out, write(np.full(shape, SENTINEL, kind), law, seed=KEY))
            assert (records["before"] == 0xAB).all()
            assert (records["after"] == 0xAB).all()


@each_kind
def test_unaligned_contiguous_memory(kind):
    size = np.dtype(kind).itemsize
    memory = np.full(1 + 300 * size + 7, 0xAB, np.uint8)
    out = memory[1 : 1 + 300 * size].view(kind)
    assert not out.flags.aligned
    fi.fill(out, fi.Normal(), seed=KEY)
    assert same_bits(out, fi.normal(300, seed=KEY, dtype=kind))
    assert set(memory[[0, *range(-7, 0)]]) == {0xAB}


@each_kind
@each_write
def test_kernels_get_aligned_memory_only(write, kind, monkeypatch):
    """Most CPUs would not notice: an address that is no multiple of an element's bytes is undefined behaviour."""
    addresses, spread = [], engine.spread_rows
    monkeypatch.setattr(engine, "spread_rows", lambda *args: addresses.append(args[2].place) or spread(*args))
    size = np.dtype(kind).itemsize
    memory = np.zeros(1 + 40 * size, np.uint8)
    for shape in ((40,), (1,), (5, 8), ()):
        out = memory[1 : 1 + math.prod(shape) * size].view(kind).reshape(shape)
        write(out, fi.Normal(), seed=KEY)
    assert len(addresses) == 4
    assert not any(address % size for address in addresses)


@each_kind
def test_memory_map(kind, tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(bytes([0xAB]) * 4096)
    out = np.memmap(path, kind, "r+", offset=64, shape=(10, 30))
    expected = fi.normal((10, 30), seed=KEY, dtype=kind)
    assert type(fi.fill(out, fi.Normal(), seed=KEY)) is np.memmap
    out.flush()
    content = path.read_bytes()
    assert content[64 : 64 + expected.nbytes] == expected.tobytes()
    assert set(content[:64] + content[64 + expected.nbytes :]) == {0xAB}
    fi.fill(out[:, ::2], fi.Constant(1), seed=KEY)
    assert (out[:, ::2] == 1).all()
    assert same_bits(np.asarray(out[:, 1::2]), expected[:, 1::2])
    locked = np.memmap(path, kind, "r", offset=64, shape=(10, 30))
    with pytest.raises(ValueError, match=r"^out must be writeable\. Received: a read-only array$"):
        fi.fill(locked, fi.Normal(), seed=KEY)


class Sub(np.ndarray):
    """A subclass of no special behaviour."""


@pytest.mark.parametrize("name", ["C order", "strided", "backwards", "0-d", "F order"])
@each_write
def test_subclasses_are_filled_and_returned(name, write):
    memory, out, filled = target(name, np.float32)
    sub = out.view(Sub)
    assert write(sub, LAWS[2], seed=KEY) is sub
    assert same_bits(np.asarray(out), write(np.full(out.shape, SENTINEL, np.float32), LAWS[2], seed=KEY))
    assert (memory[~filled] == SENTINEL).all()
    masked = np.ma.masked_array(np.zeros(4, np.float32), [0, 1, 0, 1])
    assert write(masked, LAWS[2], seed=KEY) is masked
    assert same_bits(masked.data, fi.fill(np.empty(4, np.float32), LAWS[2], seed=KEY))


@each_kind
def test_zero_size_is_nothing_to_do(kind):
    for shape, write, law in itertools.product([(0,), (0, 5), (5, 0), (2, 0, 3)], (fi.fill, fi.add), LAWS):
        out = np.empty(shape, kind)
        assert write(out, law, seed=KEY) is out


# --- bad targets ---

ALLOWED = "float16, bfloat16, float32 or float64"
WRONG_DTYPES = ["int8", "int32", "int64", "uint16", "bool", "O", "c8", "c16", ">f2", ">f4", ">f8", "g", "U3", "M8[s]"]
WRONG_DTYPES += [ml_dtypes.float8_e4m3fn, [("x", "f4")]]


def test_wrong_dtypes():
    for dtype in WRONG_DTYPES:
        out = np.ones((3, 4), dtype)
        before = out.copy()
        message = f"out must be a NumPy array of {ALLOWED}. Received: {out.dtype}"
        for call in (
            functools.partial(fi.fill, out, fi.Normal(), seed=0),
            functools.partial(fi.add, out, fi.Normal(), seed=0),
            functools.partial(fi.zeros, out=out),
        ):
            with pytest.raises(TypeError) as caught:
                call()
            assert str(caught.value) == message
        assert (out == before).all()


@pytest.mark.parametrize("out", [[1.0, 2.0], (1.0,), None, 1.5, np.float32(1), b"1234", memoryview(bytearray(4))])
def test_what_is_no_array(out):
    for write in (fi.fill, fi.add):
        with pytest.raises(TypeError) as caught:
            write(out, fi.Normal(), seed=0)
        assert str(caught.value) == f"out must be a NumPy array of {ALLOWED}. Received: {type(out).__name__}"


def read_only():
    memory = np.full((4, 5), 7.0)
    out = memory.view()
    out.flags.writeable = False
    return memory, out


def windows():
    memory = np.full(6, 7.0)
    return memory, sliding_window_view(memory, 3, writeable=True)


def repeated(shape, strides):
    memory = np.full(20, 7.0)
    return memory, as_strided(memory, shape, [8 * step for step in strides])


READ_ONLY = "out must be writeable. Received: a read-only array"
OVERLAPPING = "out must not overlap itself. Received: shape {} with strides {}"
BAD_MEMORY = {
    "read-only": (read_only, READ_ONLY),
    "broadcast": (lambda: (memory := np.full(5, 7.0), np.broadcast_to(memory, (4, 5))), READ_ONLY),
    "broadcast, writeable": (lambda: repeated((4, 5), (0, 1)), OVERLAPPING.format((4, 5), (0, 8))),
    "broadcast inside": (lambda: repeated((4, 5), (1, 0)), OVERLAPPING.format((4, 5), (8, 0))),
    "windows": (windows, OVERLAPPING.format((4, 3), (8, 8))),
    "rows that overlap": (lambda: repeated((3, 4), (3, 1)), OVERLAPPING.format((3, 4), (24, 8))),
    "elements that overlap": (
        lambda: (memory := np.full(4, 7.0), as_strided(memory, (4,), (4,))),
        OVERLAPPING.format((4,), (4,)),
    ),
}


@pytest.mark.parametrize("name", BAD_MEMORY)
def test_bad_memory(name):
    make, message = BAD_MEMORY[name]
    memory, out = make()
    laws = (fi.Normal(), fi.Constant(1), fi.Orthogonal())
    calls = [functools.partial(write, out, law, seed=0) for write in (fi.fill, fi.add) for law in laws]
    for call in [*calls, lambda: fi.he_normal(out=out), lambda: fi.ones(out.shape, out=out)]:
        with pytest.raises(ValueError, match=r"^out must") as caught:
            call()
        assert str(caught.value) == message
    assert (memory == 7).all()


@pytest.mark.parametrize(
    ("shape", "strides"),
    [
        ((2, 2), (3, 2)),
        ((3, 4), (-4, 1)),
        ((4, 1, 5), (5, 0, 1)),
        ((1, 5), (0, 1)),
        ((0, 5), (0, 0)),
        ((2, 3, 2), (2, 6, 1)),
    ],
)
def test_memory_that_only_looks_like_overlapping(shape, strides):
    memory = np.zeros(40)
    out = as_strided(memory[20:], shape, [8 * step for step in strides])
    assert check_target(out) == "float64"
    fi.fill(out, fi.Uniform(1, 2), seed=0)
    assert np.count_nonzero(memory) == out.size
