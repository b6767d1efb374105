"""Ctrl-C in the middle of a large fill: it lands soon, leaves whole slabs in order, and nothing is left held."""

import json
import statistics

import numpy as np
import processes
import pytest

import fastinit as fi
from fastinit._runtime import threads

# A thread sends the signal to its own process, so both moments are read off one clock.
INTERRUPTED = """
import json, os, signal, threading, time
import numpy as np
import fastinit as fi
from fastinit._runtime import threads
from processes import digest

signal.signal(signal.SIGINT, signal.default_int_handler)
law = fi.TruncatedNormal(0.25, 1, -4, 3)
sent = []

def send():
    sent.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)

def interrupted(work, after):
    timer = threading.Timer(after, send)
    timer.start()
    try:
        work()
        landed = float("inf")
        timer.join()
        time.sleep(5)  # the signal came too late: it must not end the process
    except KeyboardInterrupt:
        landed = time.monotonic() - sent[-1]
    timer.join()
    return landed

def elsewhere(work):
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join(20)
    return found[0] if found else "still locked"

digest("truncated float32", "truncated float64")
latencies = []
"""

LARGE = (
    INTERRUPTED
    + """
large = np.full(1 << 27, np.nan, np.float32)
slabs = []
begun = time.monotonic()
fi.fill(large, law, seed=5)
whole = time.monotonic() - begun
for after in (whole / 8, whole / 4, whole / 3):
    large[...] = np.nan
    latencies.append(interrupted(lambda: fi.fill(large, law, seed=5), after))
    done = large.size - int(np.count_nonzero(np.isnan(large)))
    prefix = fi.fill(np.empty(done, np.float32), law, seed=5)
    assert (prefix == large[:done]).all(), "not a prefix"
    assert done % threads.SLAB == 0, done
    slabs.append(done // threads.SLAB)
print(json.dumps([latencies, slabs, elsewhere(lambda: digest("normal float32"))]))
"""
)

# What is asked for -> an expression that takes far longer than the signal. The elements of the last three lie one by
# one or few by few in the stream, and each costs a block of it.
LONG = {
    "a loop of fills": "while True: fi.fill(target, law, seed=5)",
    "one thread": "with fi.thread_limit(1): fi.fill(target, law, seed=5)\n    while True: fi.fill(target, law, seed=5)",
    "a strided target": "while True: fi.fill(target[::2], law, seed=5)",
    "every second element": "fi.fill(target, law, seed=5, shape=2 * n, region=(slice(None, None, 2),))",
    "a column": "fi.fill(target[:, None], law, seed=5, shape=(n, 64), region=(slice(None), slice(3, 4)))",
    "adding to a column": "fi.add(target[:, None], law, seed=5, shape=(n, 9), region=(slice(None), slice(3, 4)))",
}
OTHERS = (
    INTERRUPTED
    + """
n = 1 << 23
target = np.zeros(n)
fi.add(target[:9], law, seed=5)  # compiled, or loaded, before the signals
def work():
    WORK
for after in (0.2, 0.3, 0.4):
    latencies.append(interrupted(work, after))
print(json.dumps([latencies, elsewhere(lambda: digest("normal float32"))]))
"""
)


def median(latencies):
    assert max(latencies) < float("inf"), "the work was done before the signal came"
    return statistics.median(latencies)


def test_an_interrupt_leaves_whole_slabs_in_order(monkeypatch):
    size, slab, together, calls = 1 << 19, 1 << 16, threads.together, []

    def interrupted(work, workers):
        calls.append(workers)
        if len(calls) > 3:
            raise KeyboardInterrupt
        together(work, workers)

    out = np.full(size, np.nan, np.float32)
    with monkeypatch.context() as patch:
        patch.setattr(threads, "SLAB", slab // 2)
        patch.setattr(threads, "together", interrupted)
        with pytest.raises(KeyboardInterrupt), fi.thread_limit(2):
            fi.fill(out, fi.Normal(), seed=5)
    assert np.isnan(out[3 * slab :]).all()
    np.testing.assert_array_equal(out[: 3 * slab], fi.fill(np.empty(3 * slab, np.float32), fi.Normal(), seed=5))


def test_a_fill_ends_soon_and_others_go_on():
    """The quickest of those below, with one signal."""
    code = OTHERS.replace("WORK", LONG["a loop of fills"]).replace("(0.2, 0.3, 0.4)", "(0.1,)")
    latencies, digest = json.loads(processes.run(code))
    assert median(latencies) < 0.5
    assert digest == processes.digest("normal float32")


@pytest.mark.slow
def test_a_large_fill_ends_soon_and_in_order():
    latencies, slabs, digest = json.loads(processes.run(LARGE, NUMBA_NUM_THREADS=2))
    assert median(latencies) < 0.5
    assert max(slabs) > 0
    assert min(slabs) < 16
    assert digest == processes.digest("normal float32")


@pytest.mark.slow
@pytest.mark.parametrize("what", LONG)
def test_every_way_of_filling_ends_soon(what):
    latencies, digest = json.loads(processes.run(OTHERS.replace("WORK", LONG[what])))
    assert median(latencies) < 0.5
    assert digest == processes.digest("normal float32")
