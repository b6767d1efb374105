"""Threads: they change how fast the bits come, never the bits; and nobody else's settings change."""

import concurrent.futures
import contextvars
import itertools
import subprocess
import sys

import ml_dtypes
import numba
import numpy as np
import pytest

import fastinit as fi
from fastinit._core import draw
from fastinit._native.records import RUN
from fastinit._runtime import threads

DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
LAWS = [
    fi.Constant(0.25),
    fi.Uniform(-1, 3),
    fi.Normal(0.5, 2),
    fi.TruncatedNormal(0, 1, -1, 1),
    fi.TruncatedNormal(0, 1, -1, 4),
]
KEY = fi.Key(3) / "threads"
NUMBERS = [1, 2, 3, 8]

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda kind: kind.__name__)
each_law = pytest.mark.parametrize("law", LAWS, ids=repr)


def bits_by_number(write, numbers=NUMBERS):
    """What a call makes under every thread count; it gets a new array each time."""
    found = {}
    for number in numbers:
        with fi.thread_limit(number):
            found[number] = write().tobytes()
    return found


@pytest.fixture
def small(monkeypatch):
    """Edges that cheap arrays reach. A block of the stream has 256 elements, which the chunks here cut."""
    monkeypatch.setattr(threads, "PARALLEL_FROM", 512)
    monkeypatch.setattr(threads, "LONGEST_RANGE", 200)
    monkeypatch.setattr(threads, "SLAB", 1000)


EDGES = [n + d for n in (512, 600, 1000, 3000) for d in (-1, 0, 1)] + [1, 1999, 4321]


@each_dtype
@each_law
def test_bits_do_not_depend_on_the_thread_count(law, dtype, small, monkeypatch):
    for size in EDGES:
        found = bits_by_number(lambda size=size: fi.fill(np.empty(size, dtype), law, seed=KEY))
        with monkeypatch.context() as plain:
            plain.setattr(threads, "PARALLEL_FROM", 1 << 15)
            expected = fi.fill(np.empty(size, dtype), law, seed=KEY).tobytes()
        assert found == dict.fromkeys(NUMBERS, expected)


@each_dtype
@each_law
def test_adding_does_not_depend_on_the_thread_count(law, dtype, small, monkeypatch):
    for size in EDGES[::3]:
        found = bits_by_number(lambda size=size: fi.add(np.full(size, 3, dtype), law, seed=KEY, scale=-0.3))
        with monkeypatch.context() as plain:
            plain.setattr(threads, "PARALLEL_FROM", 1 << 15)
            expected = fi.add(np.full(size, 3, dtype), law, seed=KEY, scale=-0.3).tobytes()
        assert found == dict.fromkeys(NUMBERS, expected)


@each_law
def test_regions_and_strided_targets_do_not_depend_on_the_thread_count(law, small):
    for shape, part in (
        ((70, 90), np.s_[:, :]),
        ((70, 90), np.s_[::2, ::3]),
        ((3, 2500), np.s_[:, :2100]),
        ((1500, 3), np.s_[:, 1:]),
        ((40, 9, 11), np.s_[5:, 1:8, ::-1]),
    ):
        expected = np.ascontiguousarray(fi.fill(np.empty(shape), law, seed=KEY)[part])

        def strided(shape=shape, part=part):
            return fi.fill(np.zeros(shape)[part], law, seed=KEY, shape=shape, region=part)

        assert bits_by_number(strided) == dict.fromkeys(NUMBERS, expected.tobytes())


@each_law
def test_the_real_edges(law):
    for size in [threads.PARALLEL_FROM + d for d in (-1, 0, 1)] + [5 * threads.LONGEST_RANGE + 1]:
        found = bits_by_number(lambda size=size: fi.fill(np.empty(size, np.float32), law, seed=KEY))
        prefix = fi.fill(np.empty(size + 99, np.float32), law, seed=KEY)[:size]
        assert found == dict.fromkeys(NUMBERS, prefix.tobytes())


@each_dtype
def test_constants_past_the_caches_are_those_of_other_fills(dtype, monkeypatch):
    law = fi.Constant(0.1)
    value = fi.fill(np.empty(1, dtype), law, seed=KEY)[0]
    monkeypatch.setattr(draw, "STREAM_FROM", 1)
    line = 64 // np.dtype(dtype).itemsize
    memory = np.zeros(6 * line, dtype)
    for first, size in itertools.product(range(line + 1), (1, 2, line - 1, line, line + 1, 4 * line + 1)):
        memory[...] = 2
        fi.fill(memory[first : first + size], law, seed=KEY)
        assert (memory[first : first + size] == value).all()
        assert (memory == 2).sum() == memory.size - size  # nothing beside it is written
    large = fi.fill(np.empty(threads.PARALLEL_FROM + 9, dtype), law, seed=KEY)
    assert (large == value).all()


def test_the_real_slab():
    size = threads.SLAB + 5
    found = bits_by_number(lambda: fi.normal(size, seed=KEY, dtype="bfloat16"), [1, 2, 3])
    assert len(set(found.values())) == 1
    last = fi.normal(size, seed=KEY, dtype="bfloat16", region=(slice(threads.SLAB - 5, size),))
    assert found[1][-2 * 10 :] == last.tobytes()


@pytest.mark.parametrize("shape", [(40, 30), (30, 40), (64, 64)], ids=str)
def test_sparse_and_its_ranks_do_not_depend_on_the_thread_count(shape, small):
    found = bits_by_number(lambda: fi.sparse(shape, sparsity=0.3, seed=KEY))
    assert len(set(found.values())) == 1


# --- how many ---


def test_the_limit_holds_inside_the_block_only():
    before = threads.num_threads()
    with fi.thread_limit(7):
        assert threads.num_threads() == 7
        with fi.thread_limit(3):
            assert threads.num_threads() == 3
            with fi.thread_limit(5):
                assert threads.num_threads() == 5
            assert threads.num_threads() == 3
        assert threads.num_threads() == 7
    assert threads.num_threads() == before


def test_the_limit_ends_with_an_exception():
    before = threads.num_threads()
    with fi.thread_limit(6), pytest.raises(KeyError), fi.thread_limit(5):
        raise KeyError
    assert threads.num_threads() == before
    with pytest.raises(KeyError), fi.thread_limit(before + 1):
        raise KeyError
    assert threads.num_threads() == before


@pytest.mark.parametrize(
    ("number", "error", "message"),
    [
        (0, ValueError, "number must be positive. Received: number=0"),
        (-2, ValueError, "number must be positive. Received: number=-2"),
        (True, TypeError, "number must be an int. Received: number=True"),
        (2.0, TypeError, "number must be an int. Received: number=2.0"),
        ("2", TypeError, "number must be an int. Received: number='2'"),
        (None, TypeError, "number must be an int. Received: number=None"),
    ],
    ids=str,
)
def test_what_is_no_limit(number, error, message):
    before = threads.num_threads()
    with pytest.raises(error) as caught, fi.thread_limit(number):
        raise AssertionError("the block was entered")
    assert str(caught.value) == message
    assert threads.num_threads() == before


def test_the_limit_does_not_leak_into_other_threads_and_contexts():
    before = threads.num_threads()
    with concurrent.futures.ThreadPoolExecutor(1) as pool, fi.thread_limit(before + 4):
        assert pool.submit(threads.num_threads).result() == before
        assert contextvars.Context().run(threads.num_threads) == before
        assert contextvars.copy_context().run(threads.num_threads) == before + 4
        assert threads.num_threads() == before + 4


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [("1", 8), ("2", 4), ("3", 2), ("8", 1), ("100", 1), ("0", 8), ("", 8), ("-2", 8), ("two", 8), ("²", 8)],
)
def test_ranks_of_one_machine_share_its_threads(ranks, expected, monkeypatch):
    monkeypatch.setenv("NUMBA_NUM_THREADS", "8")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
    assert threads.num_threads() == expected
    with fi.thread_limit(5):
        assert threads.num_threads() == 5  # what the caller asks for is not shared again


def test_without_ranks_the_threads_are_numbas(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setenv("NUMBA_NUM_THREADS", "6")
    assert threads.num_threads() == 6


@pytest.mark.parametrize("ranks", ["1", "2", "5"])
def test_bits_do_not_depend_on_the_ranks(ranks, monkeypatch):
    size = threads.PARALLEL_FROM + 3
    expected = fi.normal(size, seed=KEY).tobytes()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
    assert fi.normal(size, seed=KEY).tobytes() == expected


def test_the_work_is_spread_over_the_threads_that_were_asked_for(monkeypatch):
    asked = []

    def together(work, workers):
        asked.append(workers)
        work()

    monkeypatch.setattr(threads, "together", together)
    for number in (2, 3, 1):
        with fi.thread_limit(number):
            fi.normal(threads.PARALLEL_FROM, seed=KEY)
            fi.normal(threads.PARALLEL_FROM - 1, seed=KEY)
            fi.normal((3, threads.PARALLEL_FROM // 4), seed=KEY, region=(slice(None), slice(1, None)))
    assert asked == [2, 1, 3, 1, 1, 1]  # one range has no ranges to share; small rows are not shared


@pytest.mark.parametrize("chunk", [threads.CHUNK, threads.LONGEST_RANGE])
@pytest.mark.parametrize("most", [None, 1, 1000, 3 * threads.CHUNK, threads.SLAB, 1 << 40])
def test_the_calls_of_a_list_have_every_range_once(chunk, most):
    counts = [0, 5, 3 * chunk + 1, 0, *[1] * 700, chunk, 9 * chunk - 1, 2, 0]
    runs = np.zeros(len(counts), RUN)
    runs["count"], runs["place"] = counts, np.arange(len(counts))
    found, costs = [], []
    for part, first, stop in threads._calls(runs, chunk, most):
        ranges = [(run["place"], i) for run in part for i in range(-(-run["count"] // chunk))]
        found.append(ranges[first:stop])
        lengths = [min(chunk, counts[run] - i * chunk) for run, i in found[-1]]
        costs.append(sum(max(length, threads.BLOCK) for length in lengths))
    wanted = [(run, i) for run, count in enumerate(counts) for i in range(-(-count // chunk))]
    assert list(itertools.chain(*found)) == wanted
    if most is None or most > 1 << 30:
        assert len(found) == 1
    else:  # a range is not cut, nor is there a call for none
        assert max(costs) < most + chunk + threads.BLOCK
        assert all(found)


# --- other people's threads ---


@pytest.mark.parametrize("limit", [None, 1, 3])
def test_numbas_own_number_stays(limit, small):
    available = numba.config.NUMBA_NUM_THREADS
    for number in {1, available}:
        numba.set_num_threads(number)
        try:
            if limit is None:
                fi.normal(5000, seed=KEY)
            else:
                with fi.thread_limit(limit):
                    fi.normal(5000, seed=KEY)
                    assert numba.get_num_threads() == number
            assert numba.get_num_threads() == number
        finally:
            numba.set_num_threads(available)


def test_python_threads_fill_at_once():
    size = 2 * threads.PARALLEL_FROM
    work = [(law, dtype, str(i)) for i, law in enumerate(LAWS[1:]) for dtype in DTYPES] * 2

    def make(law, dtype, name):
        return fi.fill(np.empty(size, dtype), law, seed=KEY / name).tobytes()

    expected = [make(*job) for job in work]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda job: make(*job), work)) == expected


FORK = """
import os
import numpy as np
import fastinit as fi
from fastinit._core import draw
from fastinit._native.records import RUN
from fastinit._runtime import threads

def make():
    with fi.thread_limit(2):
        return fi.normal(3 * threads.PARALLEL_FROM, seed=1)

expected = make()  # the pool runs before the fork
child = os.fork()
if child == 0:
    os._exit(0 if threads.num_threads() == 1 and (make() == expected).all() else 5)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), (make() == expected).all())
"""


def test_a_forked_child_fills_on_one_thread():
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("0 True\n", "")
