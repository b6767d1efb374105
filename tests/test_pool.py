"""The helpers: they come where they can, nobody waits for one that did not, and all are outside at the end."""

import gc
import json
import threading
import time
import weakref

import processes
import pytest

from fastinit._runtime import pool
from fastinit._runtime.pool import together


@pytest.fixture(autouse=True)
def nothing_is_left():
    yield
    assert not pool._running


def busy_helper(seconds=0.2):
    """A work in which the caller waits until a helper is inside and then leaves first; and what the helpers do."""
    caller, inside, done = threading.get_ident(), threading.Event(), []

    def work():
        if threading.get_ident() == caller:
            assert inside.wait(10)
        else:
            inside.set()
            time.sleep(seconds)
            done.append(True)

    return work, done


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_so_many_threads_work_at_once(workers):
    meeting = threading.Barrier(workers)  # breaks where fewer come
    seen = set()

    def work():
        meeting.wait(timeout=30)
        seen.add(threading.get_ident())

    for _ in range(3):
        seen.clear()
        together(work, workers)
        assert len(seen) == workers
        assert threading.get_ident() in seen


def test_the_caller_waits_for_a_helper_that_is_inside():
    work, done = busy_helper()
    together(work, 2)
    assert done == [True]


def test_a_late_helper_does_nothing():
    free, calls = threading.Event(), []
    together(lambda: None, 3)
    for _ in pool._helpers:
        pool._jobs.put(pool._Job(free.wait))
    together(lambda: calls.append(threading.get_ident()), 3)
    assert calls == [threading.get_ident()]
    free.set()
    together(busy_helper(0)[0], 2)  # once a helper has done this, the late ones were at the closed job
    assert calls == [threading.get_ident()]


def test_a_closed_job_keeps_nothing_alive():
    class Memory:
        pass

    free = threading.Event()
    together(lambda: None, 3)
    for _ in pool._helpers:
        pool._jobs.put(pool._Job(free.wait))
    memory = Memory()
    gone = weakref.ref(memory)
    together(lambda memory=memory: None, 2)
    del memory
    gc.collect()
    assert not pool._jobs.empty()  # a helper will still look at the job
    assert gone() is None
    free.set()


def test_a_helper_that_comes_while_the_caller_waits_for_another_does_nothing():
    calls, inside, free = [], threading.Event(), threading.Event()

    def work():
        calls.append(threading.get_ident())
        inside.set()
        free.wait(10)

    job = pool._Job(work)
    first, closing = threading.Thread(target=job.help), threading.Thread(target=job.close)
    first.start()
    assert inside.wait(10)
    closing.start()
    while not job._closed:
        time.sleep(0.001)
    job.help()
    assert calls == [first.ident]
    free.set()
    first.join()
    closing.join()


def test_an_error_of_a_helper_is_raised_here():
    caller, inside = threading.get_ident(), threading.Event()

    def work():
        if threading.get_ident() == caller:
            assert inside.wait(10)
        else:
            inside.set()
            raise ZeroDivisionError("in a helper")

    with pytest.raises(ZeroDivisionError, match="in a helper"):
        together(work, 2)
    work, done = busy_helper(0)
    together(work, 2)  # the helper lives on
    assert done == [True]


def test_an_error_of_the_caller_waits_for_the_helpers():
    work, done = busy_helper()

    def fails():
        work()
        if not done:
            raise KeyError("in the caller")

    with pytest.raises(KeyError, match="in the caller"):
        together(fails, 2)
    assert done == [True]


def test_a_job_in_a_job_has_no_helpers():
    inner = []

    def work():
        together(lambda: inner.append(threading.get_ident()), 4)
        time.sleep(0.05)

    together(work, 2)
    assert len(inner) == len(set(inner)) <= 2


def test_a_second_thread_works_alone_meanwhile():
    alone = []
    outer, _ = busy_helper(0)
    caller = threading.get_ident()

    def work():
        outer()
        if threading.get_ident() != caller:
            return
        second = threading.Thread(target=together, args=(lambda: alone.append(threading.get_ident()), 4))
        second.start()
        second.join()
        assert alone == [second.ident]

    together(work, 2)
    assert len(alone) == 1


def test_without_more_threads_the_caller_does_it_all(monkeypatch):
    class NoThread(threading.Thread):
        def start(self):
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading, "Thread", NoThread)
    monkeypatch.setattr(pool, "_helpers", [])
    calls = []
    together(lambda: calls.append(1), 4)
    assert calls == [1]


INTERRUPTS = """
import json, os, signal, threading, time
from fastinit._runtime import pool
signal.signal(signal.SIGINT, signal.default_int_handler)
caller, inside, left = threading.get_ident(), threading.Event(), []

def work():
    if threading.get_ident() == caller:
        inside.wait(10)
        WHERE
    else:
        inside.set()
        time.sleep(0.6)
        left.append(True)

def send():
    for _ in range(3):
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=send).start()
try:
    pool.together(work, 2)
    caught = False
except KeyboardInterrupt:
    caught = True
found = [caught, list(left), bool(pool._running)]
pool.together(work_again := (lambda: found.append(1)), 1)
print(json.dumps(found))
"""


@pytest.mark.parametrize("where", ["time.sleep(5)", "pass"], ids=["in the work", "while it waits"])
def test_three_interrupts_wait_for_the_helper(where):
    assert json.loads(processes.run(INTERRUPTS.replace("WHERE", where))) == [True, [True], False, 1]


FORKS = """
import json, os, signal, threading, time
from fastinit._runtime import pool
caller, parent, inside, shares, children = threading.get_ident(), os.getpid(), threading.Event(), [], []

def handler(number, frame):
    children.append(os.fork())
signal.signal(signal.SIGALRM, handler)

def work():
    if threading.get_ident() == caller:
        inside.wait(10)
        signal.raise_signal(signal.SIGALRM)
        shares.append("caller")
    else:
        inside.set()
        time.sleep(0.3)
        shares.append("helper")

pool.together(work, 2)
while not pool._jobs.empty():
    time.sleep(0.01)
again = []
pool.together(lambda: again.append(1), 2)
right = shares == ["helper", "caller"] and again[0] == 1
if os.getpid() != parent:
    os._exit(0 if right and pool.forked() and again == [1] and pool._jobs.empty() else 7)
print(json.dumps([right, pool.forked(), os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1])]))
"""


def test_a_fork_waits_for_the_helper_whose_work_the_child_would_miss():
    assert json.loads(processes.run(FORKS, fork=True)) == [True, False, 0]


def test_work_at_the_end_of_the_interpreter():
    code = """
import atexit
from fastinit._runtime import pool
calls = []
pool.together(lambda: None, 3)
atexit.register(lambda: print(len(calls) >= 1))
atexit.register(lambda: pool.together(lambda: calls.append(1), 5))
"""
    assert processes.run(code) == "True"
