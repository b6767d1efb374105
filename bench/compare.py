"""The ratios that must hold: `python -m bench.compare [--only WORD ...] [--processes 5] [--json FILE]`.

Every contender has a process of its own and the rounds go in turns, as in the benchmarks; all processes are started
anew `--processes` times. A target's value is the median over these of the ratio of two contenders' medians.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench import clipping
from bench.machine import machine
from bench.programs import Target, options, progress, row, save, table
from bench.table import Row, power, rows
from bench.turns import Contenders

SMALL = [power(1 << exponent) for exponent in range(10, 21, 2)]
LARGEST = power(1 << 26)
MANY = [power(clipping.elements("clip_many", exponent)) for exponent in clipping.WORKS["clip_many"].exponents]


@dataclass(frozen=True)
class Bound:
    """A target for a work at some sizes: the worst of them counts.

    Attributes:
        sizes: as the table of benchmarks shows them.
        target: of the rival's time over fastinit's; of fastinit's over the rival's where the sign is `<=`; of
            fastinit's time in the target's unit where there is no rival.
        beyond: True if the rival's time is subtracted instead.
    """

    work: str
    sizes: tuple[str, ...]
    target: Target
    rival: str = ""
    beyond: bool = False

    @property
    def what(self) -> str:
        size = self.sizes[0] if len(self.sizes) == 1 else f"{self.sizes[0]} to {self.sizes[-1]}"
        how = f", {'beyond' if self.beyond else 'of'} {self.rival}" if self.rival else ""
        return f"{self.work}: {size}{how}"

    def value(self, times: dict[tuple[str, str], dict[str, float]]) -> float | None:
        """Return the value out of seconds by work and size; None where the rival cannot run here."""
        unit = {"s": 1.0, "us": 1e6, "x": 1.0}[self.target.unit]
        values = []
        for size in self.sizes:
            own, rival = times[self.work, size]["fastinit"], times[self.work, size].get(self.rival)
            if self.rival and rival is None:
                return None
            if rival is None:
                values.append(own * unit)
            elif self.beyond:
                values.append((own - rival) * unit)
            else:
                values.append(rival / own if self.target.sign == ">=" else own / rival)
        return min(values) if self.target.sign == ">=" else max(values)


def _of(work: str, size: str, **limits: float) -> Iterator[Bound]:
    """Yield a bound for each rival: how many times as fast fastinit must be at least."""
    for rival, limit in limits.items():
        yield Bound(work, (size,), Target(">=", limit), rival)


BOUNDS = [
    *_of("normal, float32", LARGEST, numpy=25, torch=10),
    *_of("uniform, float32", LARGEST, numpy=10, torch=14),
    *_of("normal cut at 2 sigma, float32", power(1 << 22), torch=200),
    *_of("normal, bfloat16", LARGEST, torch=12),
    *_of("normal, float64", LARGEST, numpy=8),
    *_of("orthogonal, square, float32", "2048x2048", torch=1.5),
    *(
        Bound(f"{work}, {dtype}", tuple(SMALL), Target(">=", 1), "numpy")
        for work in ("uniform", "normal")
        for dtype in ("float32", "float64")
    ),
    Bound("normal into a buffer", ("8x8",), Target("<=", 3, "us")),
    Bound("`he_normal` of a new array", ("8x8",), Target("<=", 5, "us")),
    *(
        Bound(f"torch `{name}`, float32", ("64x64",), Target("<=", 1.2), "torch")
        for name in ("normal_", "uniform_", "kaiming_uniform_", "trunc_normal_")
    ),
    *(
        bound
        for how in ("not clipping", "clipping")
        for bound in (
            Bound(f"global norm of 6 arrays, {how}, float32", ("2^8", "2^14"), Target("<=", 1), "torch"),
            Bound(f"torch `clip_grad_norm_`, {how}, float32", ("6 arrays of 64x64",), Target("<=", 1), "torch"),
        )
    ),
    *_of("global norm, not clipping, float32", LARGEST, passes=0.95),
    *_of("global norm, clipping, float32", LARGEST, passes=0.9),
    *(
        Bound(work, tuple(sizes), Target(">=", 1), rival)
        for how in ("not clipping", "clipping")
        for work, sizes in (
            (f"global norm of 1,000 arrays, {how}, float32", MANY),
            (f"global norm of 1,000 equal arrays, {how}, float32", ("2^14", "2^20")),
        )
        for rival in ("numpy", "torch")
    ),
    Bound("process: import", ("",), Target("<=", 1.15), "numba"),
    Bound("process: first `he_normal`", ("",), Target("<=", 0.12, "s"), "numpy", beyond=True),
    Bound("process: first `he_normal`, empty cache", ("",), Target("<=", 1.5, "s")),
    Bound("process: write GPT-2 to memory", ("",), Target("<=", 0.9, "s")),
    *_of("training step", "64-128-128-10, batch 64", jax=2, torch=4.5, torch_compile=3, numpy=2, one_product=0.55),
    *_of(
        "training step", "784-512-512-10, batch 128", jax=1.4, torch=1.35, torch_compile=1.3, numpy=2, one_product=0.6
    ),
    *_of("training step", "64-256x30-10, batch 128", jax=1.4, torch=1.4, torch_compile=1.3, numpy=2, one_product=0.65),
    *_of("training step", "1024x9, batch 256", jax=1.2, torch=1.1, torch_compile=1.1, numpy=1.4, one_product=0.75),
    *_of("training step", "digits, 64-128-128-10, batch 64", sklearn=5),
]


def needed(bounds: list[Bound]) -> list[Row]:
    """Return the rows of the table that the bounds ask for, with the contenders that they name."""
    rivals: dict[tuple[str, str], set[str]] = {}
    for bound in bounds:
        for size in bound.sizes:
            rivals.setdefault((bound.work, size), {"fastinit"}).add(bound.rival)
    found = [row for row in rows() if (row.work, row.size) in rivals]
    missing = rivals.keys() - {(row.work, row.size) for row in found}
    if missing:
        raise ValueError(f"the table of benchmarks has no {sorted(missing)}")
    return [
        dataclasses.replace(row, makers={name: make for name, make in row.makers.items() if name in wanted})
        for row in found
        for wanted in [rivals[row.work, row.size]]
    ]


def measured(chosen: list[Row]) -> dict[tuple[str, str], dict[str, float]]:
    """Return the median seconds by work and size, and by contender; in fresh processes."""
    times = {}
    with Contenders() as contenders:
        for row in chosen:
            progress(row.group)
            rounds = contenders.take_turns(row.contenders(), most=row.most)
            times[row.work, row.size] = {name: statistics.median(values) for name, values in rounds.items()}
    return times


def summary(bounds: list[Bound], results: list[dict[tuple[str, str], dict[str, float]]]) -> list[dict[str, Any]]:
    """Return the table's rows; a bound whose rival cannot run here has none."""
    found = []
    for bound in bounds:
        values = [bound.value(times) for times in results]
        if None not in values:
            found.append(row(bound.what, bound.target, values))  # type: ignore[arg-type]
    return found


def main() -> None:
    parser = options("bench.compare", "The ratios that must hold.")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="works and sizes with one of these words in them")
    given = parser.parse_args()
    bounds = [bound for bound in BOUNDS if not given.only or any(word in bound.what for word in given.only)]
    results = [measured(needed(bounds)) for _ in range(given.processes)]
    found = summary(bounds, results)
    print(table(found))
    if given.json:
        times = [{"machine": machine(), "seconds": {": ".join(key): t for key, t in one.items()}} for one in results]
        save(given.json, found, times)


if __name__ == "__main__":
    main()
