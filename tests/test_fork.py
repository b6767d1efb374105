"""Forks and Python threads beside every threading layer of Numba's that is here: ours must not disturb each other."""

import importlib
import json

import processes
import pytest

MODULES = {"omp": "omppool", "workqueue": "workqueue", "tbb": "tbbpool"}


def exists(layer):
    try:
        importlib.import_module(f"numba.np.ufunc.{MODULES[layer]}")
    except ImportError:
        return False
    return True


LAYERS = [layer for layer in MODULES if exists(layer)]
each_layer = pytest.mark.parametrize("layer", LAYERS)
# Workqueue is always there; one layer is enough for the default run.
smoke = pytest.mark.parametrize(
    "layer", [pytest.param(layer, marks=[pytest.mark.slow] * (layer != "workqueue")) for layer in LAYERS]
)

# `right()` looks at fills on both sides of the parallel threshold; `forked(work)` is the exit code of a child.
START = """
import json, multiprocessing, os, threading, time, traceback
import numba
import numpy as np
import fastinit as fi
from processes import digest

CASES = "normal float32", "uniform bfloat16"
numba.get_num_threads()  # starts Numba's own threads, which a caller's code may have done

def right():
    assert digest(*CASES) == EXPECTED

def forked(work):
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(3)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


@pytest.fixture(scope="module")
def expected():
    return processes.digest("normal float32", "uniform bfloat16")


@pytest.fixture
def under(expected):
    """Run a snippet beside a threading layer, which must be the one that started; the snippet prints JSON."""

    def call(layer, code):
        code = f"{START}\nEXPECTED = {expected!r}\n{code}\nassert numba.threading_layer() == {layer!r}"
        return json.loads(processes.run(code, fork=True, NUMBA_THREADING_LAYER=layer))

    return call


def test_a_layer_is_here():
    assert LAYERS


@smoke
def test_children_and_grandchildren_after_a_parallel_fill(under, layer):
    code = """
right()
def child():
    right()
    assert forked(right) == 0
    right()
ends = [forked(child) for _ in range(3)]
right()
print(ends)
"""
    assert under(layer, code) == [0, 0, 0]


@pytest.mark.slow
@each_layer
def test_a_child_that_dies_is_seen(under, layer):
    """The check of the others: a wrong bit in a child is an exit code."""
    code = """
right()
def child():
    assert (fi.normal(1 << 18, seed=0) == fi.normal(1 << 18, seed=1)).all(), "no report"
    right()
import contextlib, io
with contextlib.redirect_stderr(io.StringIO()):
    print(forked(child))
"""
    assert under(layer, code) == 3


@pytest.mark.slow
@each_layer
def test_a_child_before_any_fill(under, layer):
    code = """
ends = [forked(right), forked(lambda: right() or os._exit(forked(right)))]
right()
print(ends)
"""
    assert under(layer, code) == [0, 0]


@pytest.mark.slow
@each_layer
def test_a_pool_of_forked_workers(under, layer):
    code = """
right()
with multiprocessing.get_context("fork").Pool(3) as pool:
    found = pool.map(digest, CASES * 5)
    right()
print(json.dumps(found == [digest(case) for case in CASES * 5]))
"""
    assert under(layer, code) is True


@pytest.mark.slow
@each_layer
def test_forks_while_another_thread_fills(under, layer):
    code = """
right()
stop, fills = threading.Event(), [0]
def busy():
    large = np.empty(1 << 22, np.float32)
    while not stop.is_set():
        fi.fill(large, fi.Normal(), seed=0)
        fills[0] += 1
thread = threading.Thread(target=busy)
thread.start()
ends = []
while len(ends) < 12 or fills[0] < 10:
    ends.append(forked(right))
    right()
stop.set()
thread.join()
print(ends)
"""
    ends = under(layer, code)
    assert ends == [0] * len(ends)


@pytest.mark.slow
@each_layer
def test_a_fork_in_a_signal_handler_during_a_fill(under, layer):
    """The child goes on with the fill in whose middle it was born."""
    code = """
import signal
children = []
def handler(number, frame):
    if not children:
        children.append(os.fork())
signal.signal(signal.SIGALRM, handler)
right()
size = 1 << 26
law = fi.TruncatedNormal(0.25, 1, -4, 3)
first = fi.fill(np.empty(1 << 17, np.float32), law, seed=3)
last = fi.fill(np.empty(1 << 17, np.float32), law, seed=3, shape=size, region=(slice(size - (1 << 17), size),))
large = np.empty(size, np.float32)
signal.setitimer(signal.ITIMER_REAL, 0.05)
fi.fill(large, law, seed=3)
same = bool((large[: 1 << 17] == first).all() and (large[-(1 << 17):] == last).all())
if children == [0]:
    os._exit(0 if same else 4)
print(json.dumps([same, os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1])]))
"""
    assert under(layer, code) == [True, 0]


@pytest.mark.slow
@each_layer
def test_a_fill_in_a_signal_handler_during_a_fill(under, layer):
    code = """
import signal
law = fi.TruncatedNormal(0.25, 1, -4, 3)
seen = []
busy = []
def handler(number, frame):
    if not busy:
        busy.append(True)
        seen.append(right())
        busy.clear()
signal.signal(signal.SIGALRM, handler)
right()
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
large = np.empty(1 << 20, np.float32)
stop = time.monotonic() + 30
while len(seen) < 20 and time.monotonic() < stop:
    fi.fill(large, law, seed=3)
signal.setitimer(signal.ITIMER_REAL, 0)
right()
print(len(seen))
"""
    assert under(layer, code) >= 20


@pytest.mark.slow
@each_layer
def test_four_python_threads_at_once(under, layer):
    code = """
wrong = []
def work():
    try:
        for _ in range(5):
            right()
    except BaseException:
        wrong.append(traceback.format_exc())
workers = [threading.Thread(target=work) for _ in range(4)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
right()
print(json.dumps(wrong))
"""
    assert under(layer, code) == []
