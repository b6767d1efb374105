"""Threads that take items: all of them once, none after an error, and never more threads than were asked for."""

import threading
import time

import pytest

from fastinit._runtime import threads, workers


@pytest.mark.parametrize("number", [1, 2, 5])
def test_every_item_once_and_in_order(number):
    done, lock, seen = [], threading.Lock(), set()

    def worker():
        seen.add(threading.get_ident())

        def work(item):
            assert threads.num_threads() == 1  # fills on these threads have no helpers
            with lock:
                done.append(item)

        return work

    workers.each(iter(range(200)), worker, number)
    assert sorted(done) == list(range(200))
    assert len(seen) <= number
    assert threading.get_ident() not in seen
    if number == 1:
        assert done == list(range(200))


def test_threads_really_work_at_once():
    meet = threading.Barrier(3, timeout=30)
    workers.each(range(3), lambda: lambda item: meet.wait(), 3)


@pytest.mark.parametrize("error", [OSError("disk"), KeyboardInterrupt(), ValueError("x")])
def test_after_an_error_nothing_is_begun(error):
    begun = []

    def work(item):
        begun.append(item)
        if item == 5:
            raise error
        time.sleep(0.001)

    with pytest.raises(type(error)):
        workers.each(range(100_000), lambda: work, 3)
    assert 5 in begun
    assert len(begun) < 1000
    seen = len(begun)
    time.sleep(0.05)
    assert len(begun) == seen  # all threads have ended


def test_an_error_of_the_items_themselves():
    def items():
        yield 1
        raise OSError("cannot be opened")

    done = []
    with pytest.raises(OSError, match="cannot be opened"):
        workers.each(items(), lambda: done.append, 2)
    assert done == [1]


def test_an_error_of_a_worker_that_cannot_begin():
    def worker():
        raise MemoryError("no buffer")

    with pytest.raises(MemoryError, match="no buffer"):
        workers.each(range(10), worker, 2)


def test_without_items_nothing_is_done():
    workers.each([], lambda: pytest.fail, 2)


# --- fewer than were asked for ---


@pytest.mark.parametrize("possible", [0, 1, 3])
def test_where_the_system_starts_no_more_threads_those_that_there_are_do_all(monkeypatch, possible):
    start, started, done = threading.Thread.start, [], []

    def limited(self):
        if len(started) == possible:
            raise RuntimeError("can't start new thread")
        started.append(self)
        start(self)

    monkeypatch.setattr(threading.Thread, "start", limited)
    workers.each(range(100), lambda: done.append, 5)
    assert sorted(done) == list(range(100))
    assert len(started) <= possible


def test_a_thread_without_memory_for_its_buffers_leaves_the_items_to_others():
    lock, made, done = threading.Lock(), [], []

    def worker():
        with lock:
            made.append(threading.get_ident())
            if len(made) != 2:
                raise MemoryError("no buffer")
        return done.append

    def gather():
        meeting.wait()
        return worker()

    meeting = threading.Barrier(4, timeout=30)  # or the first thread would be asked for all
    workers.each(range(100), gather, 4)
    assert sorted(done) == list(range(100))
    assert len(made) == 4


def test_the_error_for_buffers_names_the_limits(monkeypatch):
    limit = workers.limits.MemoryLimit("ulimit -v", 1000, 10, addresses=True)
    monkeypatch.setattr(workers.limits, "memory_limits", lambda *root: [limit])

    def worker():
        raise MemoryError("no buffer")

    with pytest.raises(MemoryError) as caught:
        workers.each(range(3), worker, 2, 16)
    assert str(caught.value) == "no buffer. Limits of this process: ulimit -v: 1,000 bytes, 10 of them free"


def test_as_many_threads_as_buffers_fit(monkeypatch):
    limit = workers.limits.MemoryLimit("memory.max", 1000, 100)
    monkeypatch.setattr(workers.limits, "memory_limits", lambda *root: [limit])
    seen = set()
    workers.each(range(50), lambda: lambda item: (seen.add(threading.get_ident()), time.sleep(0.002)), 8, 20)
    assert len(seen) == 2
