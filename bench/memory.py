"""Memory: constants against NumPy's, models in fresh memory against the fills alone, small layers against PyTorch.

    python -m bench.memory [--processes 5] [--json FILE]

Each process takes the contenders in turns. Its ratio is that of the medians.
"""

from __future__ import annotations

import gc
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from bench.machine import machine
from bench.programs import Target, fresh_processes, options, progress, row, save, table

ELEMENTS = 1 << 26
PARAMETERS = (8192, 8192), 4  # of a model that is nothing but memory: shape and number, bfloat16
LAYERS = 3000
ROUNDS = 7
TARGETS = {
    "constants of NumPy's fill, float32": Target(">=", 1.5),
    "constants of two threads of NumPy's fill, float32": Target(">=", 1.0),
    "fast_init of the fills in the same fresh memory": Target("<=", 1.15),
    f"fast_init of {LAYERS:,} small layers, of PyTorch's constructor": Target("<=", 2.5),
}


def seconds(call: Callable[[], object]) -> float:
    """Return what a call takes; what it made goes after that."""
    start = time.perf_counter()
    made = call()
    found = time.perf_counter() - start
    del made
    return found


def totals(above: Callable[[], object], below: Callable[[], object]) -> float:
    """Return the ratio of two calls with all that they leave behind: the collector's work for one may come later."""
    found = []
    for call in (above, below):
        call()
        gc.collect()
        start = time.perf_counter()
        for _ in range(ROUNDS):
            call()
        gc.collect()
        found.append(time.perf_counter() - start)
    return found[0] / found[1]


def ratio(above: Callable[[], object], below: Callable[[], object]) -> float:
    """Return how many times as long one call takes as another, in turns; the first turn does not count."""
    turns = [(seconds(above), seconds(below)) for _ in range(ROUNDS + 1)][1:]
    return statistics.median(a for a, _ in turns) / statistics.median(b for _, b in turns)


def constants() -> list[float]:
    """Return the ratios of NumPy's time on one and two threads."""
    from bench.fills import prepared

    fill = prepared("fill", "fastinit", (ELEMENTS,))
    return [ratio(prepared(work, "numpy", (ELEMENTS,)), fill) for work in ("fill", "fill_two_threads")]


def models() -> list[float]:
    """Return the ratios of models in `fast_init`."""
    import torch

    import fastinit as fi
    from fastinit.torch import fast_init

    (shape, number), law = PARAMETERS, fi.Normal(0, 0.02)

    def parameters() -> Any:
        made = torch.nn.ParameterList(torch.empty(shape, dtype=torch.bfloat16) for _ in range(number))
        for parameter in made:
            torch.nn.init.normal_(parameter, 0, 0.02)
        return made

    def layers() -> Any:
        return torch.nn.Sequential(*[torch.nn.Linear(8, 8) for _ in range(LAYERS)])

    def fast(build: Callable[[], Any]) -> Any:
        with fast_init(seed=0):
            return build()

    def fills() -> Any:
        return [fi.fill(np.empty(shape, ml_dtypes.bfloat16), law, seed=i) for i in range(number)]

    return [ratio(lambda: fast(parameters), fills), totals(lambda: fast(layers), layers)]


def main() -> None:
    given = options("bench.memory", "What memory must hold.").parse_args()
    if given.child:
        print(json.dumps({"ratios": dict(zip(TARGETS, constants() + models(), strict=True)), "machine": machine()}))
        return
    results = list(fresh_processes(["-m", "bench.memory", "--child"], given.processes, progress))
    rows = [row(what, target, [found["ratios"][what] for found in results]) for what, target in TARGETS.items()]
    print(table(rows))
    if given.json:
        save(Path(given.json), rows, results)


if __name__ == "__main__":
    main()
