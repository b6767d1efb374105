"""What is in a checkpoint: the moments of every tensor, the distribution that it looks like, and the planned one."""

from __future__ import annotations

import functools
import math
import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, chain, pairwise
from pathlib import Path

import numpy as np

from fastinit._io.folders import StoredFile, read_checkpoint
from fastinit._io.progress import Progress, progress_bar
from fastinit._io.safetensors import Stored
from fastinit._runtime.arrays import DTYPES
from fastinit._runtime.threads import num_threads
from fastinit.checkpoint._folder import Folder
from fastinit.checkpoint._survey.comparison import PlanComparison, compare
from fastinit.checkpoint._survey.records import NUMBERS, Survey, Tensor
from fastinit.checkpoint._survey.scan import PIECE_BYTES, TensorScan, load_kernels, scan
from fastinit.plan._patterns import matches, near
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
    are as planned. Every byte is read once; memory does not grow with the checkpoint's bytes.

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
    contents, found = Contents(path, names, plan=plan, threads=threads), list[Tensor]()
    contents.scan(found.append, progress=progress, histograms=histograms)
    return Survey(contents.path, tuple(found), contents.missing, contents.nbytes, contents.seconds)


class _Header:
    """The tensors of a file in 30 bytes each and their names; as a dict of `Stored` they take 250."""

    def __init__(self, file: StoredFile) -> None:
        self.file, stored = file._replace(tensors={}), file.tensors.values()
        self._names, self._ends_of_names = "".join(file.tensors), array("q", accumulate(map(len, file.tensors)))
        self._starts, self._ends = array("q", [one.start for one in stored]), array("q", [one.end for one in stored])
        kinds: dict[tuple[str, tuple[int, ...]], tuple[str, tuple[int, ...]]] = {}
        self._kinds = [kinds.setdefault(one[:2], one[:2]) for one in stored]

    def names(self) -> Iterator[str]:
        for start, end in pairwise(chain([0], self._ends_of_names)):
            yield self._names[start:end]

    def __iter__(self) -> Iterator[tuple[str, Stored]]:
        rows = zip(self.names(), self._kinds, self._starts, self._ends, strict=True)
        return ((name, Stored(*kind, start, end)) for name, kind, start, end in rows)


class Contents:
    """The tensors of a checkpoint that are asked for, known by their headers and not yet looked at. The arguments and
    exceptions are those of `survey`.

    Attributes:
        path, missing, nbytes: as in `Survey`.
        number: of the tensors.
    """

    def __init__(
        self, path: str | Path, names: Iterable[str] = (), *, plan: Plan | None = None, threads: int | None = None
    ) -> None:
        self._start, self._threads = time.perf_counter(), num_threads(threads)
        self._patterns = [names] if isinstance(names, str) else list(names)
        self.path, self._files = str(path), list(map(_Header, read_checkpoint(Path(path))))
        for pattern in self._patterns:
            if not any(matches(pattern, name) for header in self._files for name in header.names()):
                names = (name for header in self._files for name in header.names())
                raise ValueError(f"no tensor matches {pattern!r}{near(pattern, names)}")
        if plan is None:
            first = self._files[0].file
            job = None if first.prefix else Folder(first.path.parent).placed_job()
            plan = None if job is None else job.plan
        self._plan, self.missing = plan, () if plan is None else tuple(self._absent(plan))
        self.number, self.nbytes, self._dtypes = 0, 0, set[str]()
        for _, _, stored in self._chosen():
            self.number, self.nbytes = self.number + 1, self.nbytes + stored.end - stored.start
            self._dtypes.add(stored.dtype)

    @property
    def seconds(self) -> float:
        """Since the files were opened."""
        return time.perf_counter() - self._start

    def scan(self, sink: Callable[[Tensor], None], *, progress: Progress = False, histograms: bool = True) -> None:
        """Look at all tensors, and give them to `sink` one by one, in their order: no more than some wait in memory."""
        describe = functools.partial(_tensor, plan=self._plan, histograms=histograms)
        threads = min(self._threads, self.number + self.nbytes // PIECE_BYTES)
        for dtype in self._dtypes:  # here: a worker thread has a heap of its own, and would take new memory for them
            load_kernels(dtype)
        with progress_bar(progress, self.nbytes) as advance:
            tensors = (TensorScan(place, *row) for place, row in enumerate(self._chosen()))
            scan(tensors, threads, describe, sink, advance)

    def _chosen(self) -> Iterator[tuple[str, StoredFile, Stored]]:
        for header in self._files:
            for name, stored in header:
                if self._wanted(name):
                    yield name, header.file, stored

    def _wanted(self, name: str) -> bool:
        return not self._patterns or any(matches(pattern, name) for pattern in self._patterns)

    def _absent(self, plan: Plan) -> Iterator[str]:
        """The tensors that a checkpoint of a plan has, but not this one."""
        stored = {name for header in self._files for name in header.names()}
        for name, tensor in plan.filled.items():
            if tensor.persistent and name not in stored and self._wanted(name):
                yield name


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
