"""Any slice of any tensor, made alone, has the bits that it has in the whole: the stream's main promise."""

import contextlib
import functools
import itertools
import math
from unittest import mock

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastinit as fi
from fastinit._core import draw as engine
from fastinit._runtime import threads

DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
LAWS = [
    fi.Constant(0.25),
    fi.Uniform(-1, 3),
    fi.Normal(0.5, 2),
    fi.TruncatedNormal(0, 1, -1, 1),
    fi.TruncatedNormal(0, 1, -1, 4),
]
KEY = fi.Key(11) / "regions"

common = settings(deadline=None, database=None, max_examples=150)
dtypes, laws = st.sampled_from(DTYPES), st.sampled_from(LAWS)
shapes = st.lists(st.integers(0, 6), min_size=0, max_size=4).map(tuple)


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@functools.lru_cache(maxsize=512)
def whole(shape, law, dtype):
    return fi.fill(np.empty(shape, dtype), law, seed=KEY)


def slices(size):
    ends = st.none() | st.integers(-size - 2, size + 2)
    steps = st.none() | st.integers(-3, 3).filter(bool)
    return st.builds(slice, ends, ends, steps)


@st.composite
def regions(draw, shape):
    """Slices of some of the axes, in the forms that Python allows: open ends, negative numbers, past the end."""
    axes = draw(st.integers(0, len(shape)))
    return tuple(draw(slices(size)) for size in shape[:axes])


@st.composite
def memories(draw, shape, dtype):
    """An array of the shape, its axes in any order in memory, with gaps and backwards."""
    order = draw(st.permutations(range(len(shape))))
    steps = [draw(st.sampled_from([1, 1, 2, -1, -3])) for _ in shape]
    base = np.full([shape[axis] * abs(steps[axis]) for axis in order], 7, dtype)
    return base.transpose(np.argsort(order).astype(int))[(*(slice(None, None, step) for step in steps), ...)]


# Small blocks, chunks and slabs, so that small arrays cross all their edges.
LIMITS = {
    (engine, "COPY_BLOCK"): [1, 5, 1 << 18],
    (threads, "PARALLEL_FROM"): [1, 1 << 15],
    (threads, "LONGEST_RANGE"): [1, 3, 256, 1 << 17],
    (threads, "SLAB"): [1, 7, 1 << 23],
}
limits = st.tuples(*map(st.sampled_from, LIMITS.values()))


@contextlib.contextmanager
def limited(values):
    with contextlib.ExitStack() as stack:
        for (module, name), value in zip(LIMITS, values, strict=True):
            stack.enter_context(mock.patch.object(module, name, value))
        yield


@common
@given(st.data(), shapes, laws, dtypes, limits)
def test_a_region_equals_the_slice_of_the_whole(data, shape, law, dtype, edges):
    region = data.draw(regions(shape))
    expected = whole(shape, law, dtype)[(*region, ...)]
    out = data.draw(memories(expected.shape, dtype))
    assert out.shape == expected.shape
    with limited(edges):
        fi.fill(out, law, seed=KEY, shape=shape, region=region)
    assert same_bits(out, expected)


@common
@given(st.data(), shapes, laws, dtypes, limits)
def test_adding_to_a_region_equals_the_slice_of_the_sum(data, shape, law, dtype, edges):
    region = data.draw(regions(shape))
    expected = fi.add(np.full(shape, 7, dtype), law, seed=KEY, scale=0.25)[(*region, ...)]
    out = data.draw(memories(expected.shape, dtype))
    with limited(edges):
        fi.add(out, law, seed=KEY, scale=0.25, shape=shape, region=region)
    assert same_bits(out, expected)


@common
@given(st.data(), laws, dtypes)
def test_a_region_that_crosses_blocks(data, law, dtype):
    size = 2100
    start = data.draw(st.integers(0, size))
    stop = data.draw(st.integers(start, size))
    step = data.draw(st.sampled_from([1, 1, 2, 5]))
    region = (slice(start, stop, step),)
    expected = whole((size,), law, dtype)[region]
    out = fi.fill(np.empty(expected.shape, dtype), law, seed=KEY, shape=size, region=region)
    assert same_bits(out, expected)


@common
@given(laws, dtypes, st.integers(0, 1500), st.integers(0, 1500))
def test_a_shorter_tensor_is_a_prefix(law, dtype, one, other):
    short, long = sorted((one, other))
    assert same_bits(whole((short,), law, dtype), whole((long,), law, dtype)[:short])


@common
@given(st.data(), laws, dtypes, st.integers(1, 40), st.integers(1, 40))
def test_any_cut_into_row_blocks_gives_the_whole(data, law, dtype, rows, columns):
    cuts = sorted({0, rows, *data.draw(st.lists(st.integers(0, rows), max_size=5))})
    blocks = list(itertools.pairwise(cuts))
    out = np.zeros((rows, columns), dtype)
    for first, last in data.draw(st.permutations(blocks)):
        region = (slice(first, last),)
        fi.fill(out[first:last], law, seed=KEY, shape=(rows, columns), region=region)
    assert same_bits(out, whole((rows, columns), law, dtype))


@pytest.mark.parametrize("parts", [(1, 1), (2, 1), (1, 4), (3, 2), (5, 7)])
def test_column_and_row_shards_give_the_whole(parts):
    shape = (30, 42)
    expected = whole(shape, LAWS[2], np.float32)
    height, width = (n // p for n, p in zip(shape, parts, strict=True))
    for i, j in np.ndindex(*(-(-n // s) for n, s in zip(shape, (height, width), strict=True))):
        region = (slice(i * height, (i + 1) * height), slice(j * width, (j + 1) * width))
        part = fi.normal(shape, mean=0.5, std=2, seed=KEY, region=region)
        assert same_bits(part, expected[region])


# --- what is no region ---

BAD_REGIONS = [
    (slice(0, 2), TypeError, "region must be a tuple of slices. Received: region=slice(0, 2, None)"),
    ([slice(0, 2)], TypeError, "region must be a tuple of slices. Received: region=[slice(0, 2, None)]"),
    ((0, slice(0, 2)), TypeError, "region must be a tuple of slices. Received: region=(0, slice(0, 2, None))"),
    ((Ellipsis,), TypeError, "region must be a tuple of slices. Received: region=(Ellipsis,)"),
    ((slice(None),) * 3, ValueError, "region must have at most 2 slices, one per axis. Received: 3"),
    ((slice(0, 2, 0),), ValueError, "slice step cannot be zero"),
    (
        (slice(0, 3),),
        ValueError,
        "out must have the region's shape (3, 6), of the global (4, 6). Received: (2, 6)",
    ),
    (
        (slice(0, 2), slice(0, 5)),
        ValueError,
        "out must have the region's shape (2, 5), of the global (4, 6). Received: (2, 6)",
    ),
    (None, ValueError, "out must have the region's shape (4, 6), of the global (4, 6). Received: (2, 6)"),
    ((slice(4, 9),), ValueError, "out must have the region's shape (0, 6), of the global (4, 6). Received: (2, 6)"),
]


@pytest.mark.parametrize(("region", "error", "message"), BAD_REGIONS, ids=lambda value: str(value)[:40])
def test_bad_regions(region, error, message):
    out = np.full((2, 6), 7.0)
    for write, law in itertools.product((fi.fill, fi.add), (fi.Normal(), fi.Orthogonal())):
        with pytest.raises(error) as caught:
            write(out, law, seed=0, shape=(4, 6), region=region)
        assert str(caught.value) == message
    assert (out == 7).all()


BAD_SHAPES = [
    ((4, -6), ValueError, "shape must not be negative. Received: shape=(4, -6)"),
    ((4, 2.5), TypeError, "shape must be an int or a sequence of ints. Received: shape=(4, 2.5)"),
    ((4, True), TypeError, "shape must be an int or a sequence of ints. Received: shape=(4, True)"),
    ("46", TypeError, "shape must be an int or a sequence of ints. Received: shape='46'"),
    (4.0, TypeError, "shape must be an int or a sequence of ints. Received: shape=4.0"),
    (True, TypeError, "shape must be an int or a sequence of ints. Received: shape=True"),
]


@pytest.mark.parametrize(("shape", "error", "message"), BAD_SHAPES, ids=lambda value: str(value)[:40])
def test_bad_shapes(shape, error, message):
    out = np.full((2, 6), 7.0)
    for call in (
        lambda: fi.fill(out, fi.Normal(), seed=0, shape=shape, region=(slice(0, 2),)),
        lambda: fi.normal(shape, out=out, seed=0, region=(slice(0, 2),)),
        lambda: fi.normal(shape, seed=0),
    ):
        with pytest.raises(error) as caught:
            call()
        assert str(caught.value) == message
    assert (out == 7).all()


def test_a_shape_may_be_an_int_or_any_sequence():
    expected = whole((12,), LAWS[2], np.float32)
    for shape in (12, [12], np.int64(12), (np.int64(12),), np.array([12])):
        out = fi.fill(np.empty(5, np.float32), LAWS[2], seed=KEY, shape=shape, region=(slice(3, 8),))
        assert same_bits(out, expected[3:8])
        assert same_bits(fi.fill(np.empty(12, np.float32), LAWS[2], seed=KEY, shape=shape), expected)


# --- far into a stream ---

FAR = (2**33, 5)  # 4.3e10 elements
ROWS = 2**33 - 13


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_offsets_beyond_32_bits_in_many_cuts(law, dtype):
    def part(region, shape=FAR):
        size = tuple(len(range(n)[s]) for n, s in zip(shape, region, strict=True))
        return fi.fill(np.empty(size, dtype), law, seed=KEY, shape=shape, region=region)

    rows = slice(ROWS, FAR[0])
    block = part((rows, slice(0, 5)))
    flat = part((slice(ROWS * 5, None),), (math.prod(FAR),))
    by_column = np.concatenate([part((rows, slice(j, j + 1))) for j in range(5)], axis=1)
    by_row = np.concatenate([part((slice(i, i + 1), slice(0, 5))) for i in range(ROWS, FAR[0])])
    backwards = part((slice(None, ROWS - 1, -1), slice(None, None, -1)))
    assert same_bits(flat.reshape(block.shape), block)
    assert same_bits(by_column, block)
    assert same_bits(by_row, block)
    assert same_bits(backwards[::-1, ::-1], block)


@pytest.mark.parametrize("bit", [32, 34, 36, 45])
def test_no_bit_of_an_offset_is_lost(bit):
    shape = 2**46
    near = fi.uniform(shape, seed=KEY, region=(slice(1, 257),))
    far = fi.uniform(shape, seed=KEY, region=(slice(2**bit + 1, 2**bit + 257),))
    assert (near == far).mean() < 0.05


def philox_by_hand(counter, key):
    """Philox4x32-10: Salmon, Moraes, Dror, Shaw, SC 2011, section 3.3."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    mask = 2**32 - 1
    for _ in range(10):
        p, q = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = q >> 32 ^ c1 ^ k0, q & mask, p >> 32 ^ c3 ^ k1, p & mask
        k0, k1 = k0 + 0x9E3779B9 & mask, k1 + 0xBB67AE85 & mask
    return c0, c1, c2, c3


def uniform_by_hand(element, dtype):
    """In [0, 1) from the words of one element."""
    key, stream = KEY.words()
    per_block = 2 if dtype == np.float64 else 4
    block = element // per_block
    halves = [n & 2**32 - 1 if low else n >> 32 for n in (block, stream, key) for low in (True, False)]
    words = philox_by_hand(halves[:4], halves[4:])
    if dtype == np.float64:
        low, high = words[element % 2 * 2 :][:2]
        return ((low + (high << 32)) >> 11) * 2.0**-53
    return (words[element % 4] >> 8) * 2.0**-24


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_elements_are_the_words_of_the_stream(dtype):
    for start in (0, 1, 251, 2**32 - 5, 2**33 - 5, 2**34 - 5, 2**35 - 7, 2**40 + 3):
        out = fi.uniform(2**41, seed=KEY, dtype=dtype, region=(slice(start, start + 11),))
        assert out.tolist() == [uniform_by_hand(e, dtype) for e in range(start, start + 11)]
