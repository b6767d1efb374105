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
