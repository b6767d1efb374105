"""Progress: what is shown, where, and what a caller's function gets."""

import threading

import pytest

from fastinit._io.progress import progress_bar


def run(progress, steps=(3, 7, 10), unit="bytes"):
    with progress_bar(progress, sum(steps), unit) as advance:
        for step in steps:
            advance(step)


def test_nothing_is_shown(capfd):
    run(False)
    assert capfd.readouterr() == ("", "")


def test_lines_at_every_tenth_where_there_is_no_terminal(capfd):
    run(True, [1] * 1000 + [0], "epochs")
    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [f"{n:,} of 1,000 epochs" for n in range(100, 1001, 100)]


@pytest.mark.parametrize(("unit", "text"), [("bytes", "20/20 bytes"), ("epochs", "20/20")])
def test_a_bar_on_a_terminal(monkeypatch, capfd, unit, text):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    run(True, unit=unit)
    assert text in capfd.readouterr().err


def test_a_function_is_called_on_any_thread_with_counts_that_grow():
    seen = []
    with progress_bar(lambda *counts: seen.append(counts), 400) as advance:
        threads = [threading.Thread(target=lambda: [advance(1) for _ in range(100)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert seen == [(n, 400) for n in range(1, 401)]


def test_an_exception_of_the_function_stops_the_work():
    def stop(done, total):
        raise InterruptedError(f"{done} of {total}")

    with pytest.raises(InterruptedError, match="3 of 20"):
        run(stop)


@pytest.mark.parametrize("progress", [None, 1, "yes"])
def test_what_is_no_progress(progress):
    with pytest.raises(TypeError, match="progress must be True, False or a function"):
        run(progress)
