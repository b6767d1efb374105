"""What a call cannot beat: passes over its memory that do nothing else, and the cycles of its arithmetic by counting.

The share of a fill is the longer of the two times over its own. At 100 % a kernel would keep the memory, or all vector
units of the processor, busy all the time. The limit of clipping is one read of the memory, and where it clips one pass
more that reads and writes.
"""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from bench.turns import Call

LARGE = 1 << 20  # elements from which a fill is compared: it runs on all threads
THREADS = 2  # that store or read; more do not do it faster on a small machine
PARTS = 8  # of a thread that reads: none waits long for a slower one
MEMORY = {"stores", "passes"}  # contenders that do nothing but pass over the memory
LINE = 64  # bytes of a line of the cache

# Cycles of a value on one thread, as docs/design.md counts them: with AVX-512, with AVX2.
CYCLES = {
    "normal, float32": (1.75, 2.74),
    "normal, bfloat16": (2.03, 3.24),
    "normal, float64": (4.18, 6.41),
    "normal cut at 2 sigma, float32": (1.63, 2.46),
    "x += scale * normal, float32": (1.78, 2.78),
    "uniform, float32": (1.10, 1.75),
    "uniform, float64": (2.49, 4.04),
}


@functools.cache
def _kernel() -> Any:
    """Compile the function that fills [first, last), whole lines, with a 64-bit word, past the caches."""
    import numba
    from llvmlite import ir
    from numba import types
    from numba.extending import intrinsic

    line, index = ir.VectorType(ir.IntType(64), LINE // 8), ir.IntType(32)

    @intrinsic
    def store_line(typing_context: Any, place: Any, word: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            vector = builder.insert_element(ir.Constant(line, ir.Undefined), arguments[1], ir.Constant(index, 0))
            vector = builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(index, LINE // 8), None))
            store = builder.store(vector, builder.inttoptr(arguments[0], line.as_pointer()))
            store.align = LINE
            store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(index, 1)]))
            return context.get_dummy_value()

        return types.void(types.uint64, types.uint64), generate

    step = np.uint64(LINE)

    @numba.njit("void(uint64, uint64, uint64)", nogil=True)
    def store(first: int, last: int, word: int) -> None:
        place = first
        while place < last:
            store_line(place, word)
            place += step

    return store


def stores(out: np.ndarray) -> Call:
    """Return a call that writes all whole lines of an array, which begins at one, by THREADS threads."""
    lines = out.nbytes // LINE
    bounds = [out.ctypes.data + LINE * (lines * i // THREADS) for i in range(THREADS + 1)]
    store, pool = _kernel(), ThreadPoolExecutor(THREADS)
    return lambda: list(pool.map(store, bounds[:-1], bounds[1:], [0] * THREADS))


@functools.cache
def _passes() -> tuple[Any, Any]:
    """Compile a function that reads 64-bit words, and one that changes them."""
    import numba

    @numba.njit("uint64(uint64[::1])", nogil=True)
    def read(words: np.ndarray) -> int:
        total = np.uint64(0)
        for i in range(words.size):
            total ^= words[i]
        return total

    @numba.njit("void(uint64[::1])", nogil=True)
    def change(words: np.ndarray) -> None:
        for i in range(words.size):
            words[i] ^= np.uint64(1)

    return read, change


def passes(x: np.ndarray, *, write: bool) -> Call:
    """Return a call that reads all of an array by THREADS threads and then, with `write`, reads and writes it."""
    parts, pool = np.array_split(x.reshape(-1).view(np.uint64), PARTS * THREADS), ThreadPoolExecutor(THREADS)
    works = _passes()[: 2 if write else 1]
    return lambda: [list(pool.map(work, parts)) for work in works]


def share(work: str, elements: int, seconds: dict[str, float], machine: dict[str, Any]) -> str:
    """Return the share of its limit that fastinit reaches, and the limit; nothing if none is known.

    `seconds` are those of a row: by contender.

    >>> machine = {"gigahertz": 2.0, "vector_bits": 512, "cores": 2}
    >>> share("normal, float32", 1 << 20, {"fastinit": 0.001, "stores": 0.0004}, machine)
    '46 % (values)'
    """
    limits = {"bytes": next(seconds[name] for name in MEMORY if name in seconds)} if seconds.keys() & MEMORY else {}
    if work in CYCLES and elements >= LARGE and "gigahertz" in machine and machine["vector_bits"] >= 256:
        cycles = CYCLES[work][0 if machine["vector_bits"] == 512 else 1]
        limits["values"] = cycles * elements / (1e9 * machine["gigahertz"] * machine["cores"])
    if not limits or "fastinit" not in seconds:
        return ""
    name = max(limits, key=lambda name: limits[name])
    return f"{100 * limits[name] / seconds['fastinit']:.0f} % ({name})"
