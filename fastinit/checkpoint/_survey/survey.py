"""What is in a checkpoint: the moments of every tensor, the law that it looks like, and the one that was planned."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastinit._core.checks import positive_int
from fastinit._core.distributions import Distribution
from fastinit._io import html as page
from fastinit._io.progress import progress as progress_bar
from fastinit._io.safetensors import read_checkpoint
from fastinit._io.text import aligned, printable
from fastinit._runtime import threads as fill_threads
from fastinit._runtime.arrays import DTYPES
from fastinit.checkpoint._folder import Folder
from fastinit.checkpoint._survey.scan import TensorScan, scan
from fastinit.checkpoint._survey.verdicts import Verdict, against, in_words
from fastinit.plan import _serialization as spec
from fastinit.plan._patterns import matches
from fastinit.plan._plan import Plan
from fastinit.stats._fitting import Fit, Sample, fit
from fastinit.stats._histograms import Histogram

_NOWHERE = Fit(None, math.nan, math.nan)
_UNPLANNED = Verdict(None, math.nan, math.nan, "")


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of a checkpoint.

    Attributes:
        name, dtype, shape: as its file says.
        file: the file's name.
        count, min, max, mean, std, zeros, nonfinite: as in `fastinit.Summary`; of complex numbers, of their parts. The
            std is good for 5 digits; integers are taken as float64.
        fit: the law that its numbers look like, by a sample of them: at most 65,536, evenly spread.
        planned: the law of the plan, where it is elementwise.
        planned_ks, planned_p: the sample's distance from it, as in `Fit`; NaN without one.
        verdict: in words: numbers that are not finite, and what the plan says.
        histogram: of the sample, from the smallest of all elements to the largest; None where none was asked for.
    """

    name: str
    file: str
    dtype: str
    shape: tuple[int, ...]
    count: int
    min: float
    max: float
    mean: float
    std: float
    zeros: int
    nonfinite: int
    fit: Fit
    planned: Distribution | None
    planned_ks: float
    planned_p: float
    verdict: str
    histogram: Histogram | None

    def to_table(self) -> dict[str, Any]:
        """The tensor as plain values, strict JSON: None for a number that there is none of (NaN, or a std over the
        range of float64); a law as in a job file."""
        numbers = {name: _plain(getattr(self, name)) for name in ("min", "max", "mean", "std")}
        return {
            "name": self.name,
            "file": self.file,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "count": self.count,
            **numbers,
            "zeros": self.zeros,
            "nonfinite": self.nonfinite,
            "fit": {"distribution": _law(self.fit.distribution), "ks": _plain(self.fit.ks), "p": _plain(self.fit.p)},
            "planned": {"distribution": _law(self.planned), "ks": _plain(self.planned_ks), "p": _plain(self.planned_p)},
            "verdict": self.verdict,
            "histogram": None if self.histogram is None else self.histogram.to_table(),
        }


def _plain(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _law(law: Distribution | None) -> dict[str, Any] | None:
    return None if law is None else spec.to_table(law, (1,), "float64")


_NUMBERS = "count", "min", "max", "mean", "std", "zeros", "nonfinite"


@dataclass(frozen=True, slots=True)
class Survey:
    """What a checkpoint holds.

    Attributes:
        path: of the checkpoint.
        tensors: those that were asked for, in the order of their files and bytes.
        missing: the names of the plan's tensors that no file has.
        nbytes: of the tensors.
    """

    path: str
    tensors: tuple[Tensor, ...]
    missing: tuple[str, ...]
    nbytes: int
    seconds: float

    @property
    def gigabytes_per_second(self) -> float:
        return self.nbytes / self.seconds / 1e9

    def to_table(self) -> dict[str, Any]:
        """The survey as plain values, as `Tensor.to_table`."""
        return {
            "path": self.path,
            "nbytes": self.nbytes,
            "seconds": self.seconds,
            "missing": list(self.missing),
            "tensors": [tensor.to_table() for tensor in self.tensors],
        }

    def to_json(self) -> str:
        """The survey as one line of strict JSON."""
        return json.dumps(self.to_table(), allow_nan=False)

    def __str__(self) -> str:
        heads = ("name", "dtype", "shape", *_NUMBERS[1:], "looks like", "ks", "verdict")
        lines = [heads, *map(_line, self.tensors)]
        if not any(tensor.verdict for tensor in self.tensors):
            lines = [line[:-1] for line in lines]
        left = [i for i, name in enumerate(heads) if name in ("name", "dtype", "shape", "looks like", "verdict")]
        return "\n".join([*aligned(lines, left), *self._remarks()])

    def _remarks(self) -> list[str]:
        count = sum(tensor.count for tensor in self.tensors)
        missing = [f"not in the checkpoint, though in the plan: {printable(name)}" for name in self.missing[:20]]
        more = [f"and {len(self.missing) - 20:,} more"] if len(self.missing) > 20 else []
        return [*missing, *more, f"{len(self.tensors):,} tensors, {count:,} elements, {self.nbytes:,} bytes"]

    def to_html(self) -> str:
        """The survey as a page, complete in itself; its numbers stand in it as JSON too, without the histograms."""
        columns = ("name", "dtype", "shape", *_NUMBERS, "histogram", "looks like", "ks", "verdict")
        rows = [
            (
                tensor.name,
                tensor.dtype,
                _shape(tensor),
                *(value if math.isfinite(value := getattr(tensor, name)) else None for name in _NUMBERS),
                None if tensor.histogram is None else page.bars(tensor.histogram),
                in_words(tensor.fit.distribution),
                _plain(tensor.fit.ks),
                tensor.verdict,
            )
            for tensor in self.tensors
        ]
        table = self.to_table()
        for row in table["tensors"]:
            del row["histogram"]
        return page.page(f"Checkpoint {self.path}", [*self._remarks(), page.table(columns, rows)], table)


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "scalar"


def _line(tensor: Tensor) -> tuple[str, ...]:
    values = [getattr(tensor, name) for name in _NUMBERS[1:]]
    numbers = [f"{v:,}" if isinstance(v, int) else f"{v:.4g}" if math.isfinite(v) else "" for v in values]
    law, ks = in_words(tensor.fit.distribution), f"{tensor.fit.ks:.4f}" if math.isfinite(tensor.fit.ks) else ""
    return printable(tensor.name), tensor.dtype, _shape(tensor), *numbers, law, ks, tensor.verdict


def survey(
    path: str | Path,
    names: Iterable[str] = (),
    *,
    plan: Plan | None = None,
    threads: int | None = None,
    progress: bool = False,
    histograms: bool = True,
) -> Survey:
    """Look at all tensors of a safetensors checkpoint: their moments, the laws that they look like, and whether they
    are as planned. Every byte is read once; memory does not grow with the checkpoint.

    Args:
        path: of a file, an index, or a folder: with an index, or with `.safetensors` files.
        names: patterns as in `Plan.with_rules`; the tensors that match one of them. Default: all.
        plan: what the tensors should be. Default: that of the `fastinit.json` in the folder, where there is one.
        threads: how many. Default: as many as a large fill has. The result does not depend on it.
        progress: whether to show a bar (lines, without a terminal) on stderr.
        histograms: whether to make them.

    Raises:
        OSError: a file is missing or cannot be read.
        ValueError: what is wrong with a file; a folder without any; a name or pattern that no tensor matches.
    """
    start = time.perf_counter()
    number = fill_threads.count() if threads is None else positive_int("threads", threads)
    path, patterns = Path(path), [names] if isinstance(names, str) else list(names)
    every = [TensorScan(name, file, one) for file in read_checkpoint(path) for name, one in file.tensors.items()]
    for pattern in patterns:
        if not any(matches(pattern, tensor.name) for tensor in every):
            raise ValueError(f"no tensor matches {pattern!r}")
    chosen = [tensor for tensor in every if _wanted(tensor.name, patterns)]
    if plan is None:
        job = Folder(path if path.is_dir() else path.parent).placed_job()
        plan = None if job is None else job.plan
    found: dict[str, Tensor] = {}
    lock = threading.Lock()

    def done(tensor: TensorScan) -> None:
        result = _tensor(tensor, plan, histograms)
        tensor.sample = None
        with lock:
            found[tensor.name] = result

    nbytes = sum(tensor.stored.end - tensor.stored.start for tensor in chosen)
    with progress_bar(nbytes, quiet=not progress) as advance:
        scan(chosen, number, done, advance)
    stored = {tensor.name for tensor in every}
    return Survey(
        path=str(path),
        tensors=tuple(found[tensor.name] for tensor in chosen),
        missing=() if plan is None else tuple(n for n in _expected(plan, patterns) if n not in stored),
        nbytes=nbytes,
        seconds=time.perf_counter() - start,
    )


def _wanted(name: str, patterns: list[str]) -> bool:
    return not patterns or any(matches(pattern, name) for pattern in patterns)


def _expected(plan: Plan, patterns: list[str]) -> list[str]:
    """The tensors that a checkpoint of a plan has."""
    return [name for name, tensor in plan.filled.items() if tensor.persistent and _wanted(name, patterns)]


def _tensor(tensor: TensorScan, plan: Plan | None, histograms: bool) -> Tensor:
    summary, sample, stored = tensor.summary, tensor.sample, tensor.stored
    assert summary is not None
    assert sample is not None
    drawable = stored.dtype in DTYPES
    picked = Sample.of(sample, stored.dtype if drawable else "float64")
    looks = fit(picked, summary, stored.dtype) if drawable else _NOWHERE
    law, ks, p, verdict = _UNPLANNED
    if plan is not None:
        law, ks, p, verdict = against(plan, tensor.name, stored, summary, picked if drawable else None)
    if summary.nonfinite:
        verdict = "; ".join(filter(None, [f"{summary.nonfinite:,} not finite", verdict]))
    low, high = (summary.min, summary.max) if math.isfinite(summary.min) else (None, None)
    histogram = None
    if histograms and sample.size:
        histogram = Histogram.of(picked.values, low=low, high=high, weights=np.diff(picked.counted, prepend=0))
    return Tensor(
        name=tensor.name,
        file=tensor.file.path.name,
        dtype=stored.dtype,
        shape=stored.shape,
        **{name: getattr(summary, name) for name in _NUMBERS} | {"count": tensor.size},
        fit=looks,
        planned=law,
        planned_ks=ks,
        planned_p=p,
        verdict=verdict,
        histogram=histogram,
    )
