"""Fills of arrays, work by library, and the smallest calls.

Every entry takes a prepared buffer and returns a call without arguments that does the work on it once, in the way the
library's own documentation shows. fastinit gets another seed at every call, so that no remembered key is measured. All
libraries get memory that was touched before and is aligned alike.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np

import fastinit as fi
from bench import limits
from bench.turns import Call, Make

Prepare = Callable[[np.ndarray], Call]

LIBRARIES = ("fastinit", "numpy", "numpy_legacy", "torch")
SCALE = 0.5  # of `add`
VALUE = 0.5  # of `fill`
ALIGNMENT = 64  # bytes, as torch's own allocator gives
SEEDS = itertools.count()


class Memory:
    """One block of memory under all buffers of a process, grown on demand: fresh pages must not be measured."""

    def __init__(self) -> None:
        self._block = np.empty(0, np.uint8)

    def view(self, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
        """The first bytes of the block as an array of zeros; it shares them with every other view."""
        needed = np.dtype(dtype).itemsize * math.prod(shape)
        if needed > self._block.size:
            raw = np.empty(needed + ALIGNMENT, np.uint8)
            first = -raw.ctypes.data % ALIGNMENT
            self._block = raw[first : first + needed]
        out = self._block[:needed].view(dtype).reshape(shape)
        out[...] = 0
        return out


@functools.cache
def memory() -> Memory:
    """Return the block of this process."""
    return Memory()


def tensor_of(out: np.ndarray) -> Any:
    """A torch tensor on the memory of an array."""
    import torch

    if out.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(out.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(out)


def _fastinit(law: fi.Distribution) -> Prepare:
    return lambda out: lambda: fi.fill(out, law, seed=next(SEEDS))


def _numpy(method: str) -> Prepare:
    def prepare(out: np.ndarray) -> Call:
        return functools.partial(getattr(np.random.default_rng(), method), dtype=out.dtype, out=out)

    return prepare


def _torch(method: str, *arguments: float) -> Prepare:
    return lambda out: functools.partial(getattr(tensor_of(out), method), *arguments)


def _torch_init(name: str, **arguments: float) -> Prepare:
    def prepare(out: np.ndarray) -> Call:
        import torch

        return functools.partial(getattr(torch.nn.init, name), tensor_of(out), **arguments)

    return prepare


def _legacy_uniform(out: np.ndarray) -> Call:
    def call() -> None:
        out[...] = np.random.rand(*out.shape)

    return call


def _legacy_normal(out: np.ndarray) -> Call:
    sigma = 1.0

    def call() -> None:
        out[...] = sigma * np.random.randn(*out.shape)

    return call


def _fastinit_add(out: np.ndarray) -> Call:
    law = fi.Normal()
    return lambda: fi.add(out, law, seed=next(SEEDS), scale=SCALE)


def _numpy_add(out: np.ndarray) -> Call:
    rng, scale = np.random.default_rng(), out.dtype.type(SCALE)

    def call() -> None:
        np.add(out, scale * rng.standard_normal(out.shape, dtype=out.dtype), out=out)

    return call


def _legacy_add(out: np.ndarray) -> Call:
    def call() -> None:
        np.add(out, SCALE * np.random.randn(*out.shape), out=out, casting="same_kind")

    return call


def _torch_add(out: np.ndarray) -> Call:
    import torch

    tensor = tensor_of(out)
    return lambda: tensor.add_(torch.randn_like(tensor), alpha=SCALE)


def _fastinit_orthogonal(out: np.ndarray) -> Call:
    return lambda: fi.orthogonal(out=out, seed=next(SEEDS))


@functools.cache
def two_threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(2)


def _fill_on_two_threads(out: np.ndarray) -> Call:
    """NumPy lets go of the interpreter's lock in `fill`, so two Python threads show what the memory takes."""
    parts = np.array_split(out, 2)
    return lambda: list(two_threads().map(lambda part: part.fill(VALUE), parts))


@dataclass(frozen=True)
class Work:
    """A row of the table. None, or no entry: the library has no such thing."""

    title: str
    dtype: Any
    fastinit: Prepare | None = None
    numpy: Prepare | None = None
    numpy_legacy: Prepare | None = None
    torch: Prepare | None = None
    largest: dict[str, int] = field(default_factory=dict)  # log2 of the elements from which it takes too long

    def libraries(self) -> dict[str, int]:
        """Return the libraries that have this work, and for each log2 of the most elements it is measured at."""
        return {name: self.largest.get(name, 62) for name in LIBRARIES if getattr(self, name)}


WORKS = {
    "normal": Work(
        title="normal, float32",
        dtype=np.float32,
        fastinit=_fastinit(fi.Normal()),
        numpy=_numpy("standard_normal"),
        numpy_legacy=_legacy_normal,
        torch=_torch("normal_"),
        largest={"numpy_legacy": 24},
    ),
    "uniform": Work(
        title="uniform, float32",
        dtype=np.float32,
        fastinit=_fastinit(fi.Uniform()),
        numpy=_numpy("random"),
        numpy_legacy=_legacy_uniform,
        torch=_torch("uniform_"),
        largest={"numpy_legacy": 24},
    ),
    "truncated_normal": Work(
        title="normal cut at 2 sigma, float32",
        dtype=np.float32,
        fastinit=_fastinit(fi.TruncatedNormal(0, 1, -2, 2)),
        torch=_torch_init("trunc_normal_", a=-2.0, b=2.0),
        largest={"torch": 22},
    ),
    "normal_bfloat16": Work(
        title="normal, bfloat16",
        dtype=ml_dtypes.bfloat16,
        fastinit=_fastinit(fi.Normal()),
        torch=_torch("normal_"),
    ),
    "normal_float64": Work(
        title="normal, float64",
        dtype=np.float64,
        fastinit=_fastinit(fi.Normal()),
        numpy=_numpy("standard_normal"),
        numpy_legacy=_legacy_normal,
        torch=_torch("normal_"),
        largest={"numpy_legacy": 24},
    ),
    "uniform_float64": Work(
        title="uniform, float64",
        dtype=np.float64,
        fastinit=_fastinit(fi.Uniform()),
        numpy=_numpy("random"),
        numpy_legacy=_legacy_uniform,
        torch=_torch("uniform_"),
        largest={"numpy_legacy": 24},
    ),
    "add": Work(
        title="x += scale * normal, float32",
        dtype=np.float32,
        fastinit=_fastinit_add,
        numpy=_numpy_add,
        numpy_legacy=_legacy_add,
        torch=_torch_add,
        largest={"numpy_legacy": 24},
    ),
    "orthogonal": Work(
        title="orthogonal, square, float32",
        dtype=np.float32,
        fastinit=_fastinit_orthogonal,
        torch=_torch_init("orthogonal_"),
    ),
    "orthogonal_tall": Work(
        title="orthogonal, tall, float32",
        dtype=np.float32,
        fastinit=_fastinit_orthogonal,
        torch=_torch_init("orthogonal_"),
    ),
    "fill": Work(
        title="constant, float32",
        dtype=np.float32,
        fastinit=_fastinit(fi.Constant(VALUE)),
        numpy=lambda out: functools.partial(out.fill, VALUE),
        torch=_torch("fill_", VALUE),
    ),
    "fill_two_threads": Work(
        title="constant, float32, two Python threads",
        dtype=np.float32,
        numpy=_fill_on_two_threads,
    ),
}


ORTHOGONAL: dict[str, list[tuple[int, ...]]] = {
    "orthogonal": [(side, side) for side in (128, 256, 1024, 2048)],
    "orthogonal_tall": [(4096, 512)],
}


def prepared(work: str, library: str, shape: tuple[int, ...]) -> Call:
    """Return the call of a work by a library, on a buffer of this shape."""
    row = WORKS[work]
    prepare: Prepare = getattr(row, library)
    return prepare(memory().view(row.dtype, shape))


def stored(work: str, shape: tuple[int, ...]) -> Call:
    """Return the call that stores as many bytes as a work, and does nothing else."""
    return limits.stores(memory().view(WORKS[work].dtype, shape))


# --- what a call costs before the first value is made ---

SMALL = (8, 8)


def _he_normal() -> Call:
    return lambda: fi.he_normal(SMALL, seed=next(SEEDS))


def _key() -> Call:
    return lambda: (fi.Key(next(SEEDS)) / "layers.0.weight").words()


def _numpy_he_normal() -> Call:
    rng, std = np.random.default_rng(), np.float32((2 / SMALL[1]) ** 0.5)
    return lambda: std * rng.standard_normal(SMALL, dtype=np.float32)


def _torch_he_normal() -> Call:
    import torch

    return lambda: torch.nn.init.kaiming_normal_(torch.empty(SMALL))


CALLS: dict[str, dict[str, Make]] = {
    "normal into a buffer": {
        name: functools.partial(prepared, "normal", name, SMALL) for name in ("fastinit", "numpy", "torch")
    },
    "`he_normal` of a new array": {"fastinit": _he_normal, "numpy": _numpy_he_normal, "torch": _torch_he_normal},
    "key from a seed and a name": {"fastinit": _key},
}
