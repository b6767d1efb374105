"""What is in a checkpoint: the moments of every tensor, the distribution that it looks like, and the planned one."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from fastinit._io.folders import read_checkpoint
from fastinit._io.progress import Progress, progress_bar
from fastinit._runtime.arrays import DTYPES
from fastinit._runtime.threads import num_threads
from fastinit.checkpoint._folder import Folder
from fastinit.checkpoint._survey.comparison import PlanComparison, compare
from fastinit.checkpoint._survey.records import NUMBERS, Survey, Tensor
from fastinit.checkpoint._survey.scan import TensorScan, scan
from fastinit.plan._patterns import matches
from fastinit.plan._plan import Plan
from fastinit.stats._fitting import Fit, Sample, fit
from fastinit.stats._histograms import Histogram

_NO_FIT = Fit(None, math.nan, math.nan)


def survey(
    path: str | Path,
    names: Iterable[str] = (),
    *,
    plan: Plan | None = None,
    threads: int | None = None,
    progress: Progress = False,
    histograms: bool = True,
) -> Survey:
    """Look at all tensors of a safetensors checkpoint: their moments, the laws that they look like, and whether they
    are as planned. Every byte is read once; memory does not grow with the checkpoint.

    Args:
        path: of a file, an index, or a folder. Of a folder with variants, or with other files beside a model's, those
            are read that `from_pretrained` loads. Where the models lie in folders inside (a pipeline of diffusers),
            names begin with the folder's: "unet/conv_in.weight". A warning says what was chosen, and what is missing.
        names: patterns as in `Plan.with_rules`; the tensors that match one of them. Default: all.
        plan: what the tensors should be. Default: that of the `fastinit.json` in the folder, where there is one.
        threads: how many. Default: as many as a large fill has. The result does not depend on it.
        progress: as in `fastinit.checkpoint.write`.
        histograms: whether to make them.

    Raises:
        OSError: a file is missing or cannot be read.
        ValueError: what is wrong with a file; a folder without any; a name or pattern that no tensor matches.
    """
    start = time.perf_counter()
    number = num_threads(threads)
    path, patterns = Path(path), [names] if isinstance(names, str) else list(names)
    stored_files = read_checkpoint(path)
    every = [TensorScan(name, file, one) for file in stored_files for name, one in file.tensors.items()]
    for pattern in patterns:
        if not any(matches(pattern, tensor.name) for tensor in every):
            raise ValueError(f"no tensor matches {pattern!r}")
    chosen = [tensor for tensor in every if _wanted(tensor.name, patterns)]
    if plan is None:
        several = any(file.prefix for file in stored_files)
        job = None if several else Folder(stored_files[0].path.parent).placed_job()
        plan = None if job is None else job.plan
    found: dict[str, Tensor] = {}

    def done(tensor: TensorScan) -> None:
        found[tensor.name] = _tensor(tensor, plan, histograms)
        tensor.sample = None

    nbytes = sum(tensor.stored.end - tensor.stored.start for tensor in chosen)
    with progress_bar(progress, nbytes) as advance:
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
    looks = fit(picked, summary, stored.dtype) if drawable else _NO_FIT
    compared = PlanComparison()
    if plan is not None:
        compared = compare(plan, tensor.name, stored, summary, picked if drawable else None)
    verdict = compared.verdict
    if summary.nonfinite:
        verdict = "; ".join(filter(None, [f"{summary.nonfinite:,} not finite", verdict]))
    low, high = (summary.min, summary.max) if math.isfinite(summary.min) else (None, None)
    histogram = None
    if histograms and sample.size:
        histogram = Histogram.of(picked.values, low=low, high=high, weights=np.diff(picked.counted, prepend=0))
    return Tensor(
        name=tensor.name,
        file=tensor.file.prefix + tensor.file.path.name,
        dtype=stored.dtype,
        shape=stored.shape,
        **{name: getattr(summary, name) for name in NUMBERS} | {"count": tensor.size},
        fit=looks,
        planned=compared.planned,
        planned_ks=compared.ks,
        planned_p=compared.p,
        verdict=verdict,
        histogram=histogram,
    )
