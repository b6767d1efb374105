"""Time contenders in turns, each in a process of its own.

Libraries that share a process slow each other down: the threads of their pools spin for a while after each piece of
work and take the cores from the next library. PyTorch's training step of nine layers of 1024 took 125 ms in a process
in which JAX, NumPy and torch.compile ran too, and 65 ms alone. And a machine that others use changes its speed from
minute to minute. So a library keeps its process, and the rounds of a comparison go A B C, B C A, C A B ...
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

Call = Callable[[], object]
Make = Callable[[], Call | None]  # picklable; None where the library cannot run here

ROUND_SECONDS = 1e-3  # that a round lasts at least: the clock's own time and the first wake-up must not count
PAUSE = 0.005  # before a round, in seconds: the threads of the last contender stop spinning
SECONDS = 0.4  # that all rounds of one contender take together, where the number of rounds allows it
FEWEST, MOST = 3, 60  # rounds

_call: Call | None = None  # in the process of a contender: what is timed


def _prepare(make: Make) -> float | None:
    """Make the call, run it once to warm up, and return the seconds of the second run."""
    global _call
    _call = make()
    if _call is None:
        return None
    _call()
    return _run(1)


def _run(calls: int) -> float:
    """Return the seconds of one call, the mean of so many."""
    assert _call is not None
    start = time.perf_counter()
    for _ in range(calls):
        _call()
    return (time.perf_counter() - start) / calls


def _forget() -> None:
    global _call
    _call = None
    gc.collect()


class Contenders:
    """Processes by name, each started when it is first asked for. A context manager that ends them."""

    def __init__(self) -> None:
        self._processes: dict[str, ProcessPoolExecutor] = {}

    def __enter__(self) -> Contenders:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.shutdown(wait=False)  # all at once: each takes half a second to end
        for process in self._processes.values():
            process.shutdown()
        self._processes.clear()

    def ask(self, process: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what a function returns in the process of this name."""
        if process not in self._processes:
            self._processes[process] = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        return self._processes[process].submit(function, *arguments).result()

    def take_turns(
        self, makers: Mapping[str, tuple[str, Make]], *, seconds: float = SECONDS, most: int = MOST
    ) -> dict[str, list[float]]:
        """Return the seconds of a call, round by round, for every contender that can run here.

        Args:
            makers: by contender, the name of its process and what makes its call there; each contender of a comparison
                has a process of its own.
            seconds: how long the rounds of one contender take together, about.
            most: the number of rounds is between FEWEST (or this, if it is smaller) and this.
        """
        processes = {name: process for name, (process, _) in makers.items()}
        if len(set(processes.values())) < len(processes):
            raise ValueError(f"each contender needs a process of its own. Received: {processes}")
        firsts = {name: self.ask(processes[name], _prepare, make) for name, (_, make) in makers.items()}
        names = [name for name in makers if firsts[name] is not None]
        calls = {name: math.ceil(ROUND_SECONDS / firsts[name]) for name in names}
        wanted = seconds * len(names) / max(sum(firsts[name] * calls[name] for name in names), 1e-9)
        rounds = min(most, max(FEWEST, int(wanted)))
        times: dict[str, list[float]] = {name: [] for name in names}
        for i in range(rounds):
            for name in names[i % len(names) :] + names[: i % len(names)]:
                time.sleep(PAUSE)
                times[name].append(self.ask(processes[name], _run, calls[name]))
        for name in makers:
            self.ask(processes[name], _forget)
        return times
