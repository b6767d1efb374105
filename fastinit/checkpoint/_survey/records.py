"""The results of `survey`, and how they are shown."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from fastinit._core.distributions import Distribution
from fastinit._io.html import bars, page, table
from fastinit._io.text import LONGEST_LINE, aligned, plain, printable
from fastinit.checkpoint._survey.comparison import in_words
from fastinit.plan import _serialization as spec
from fastinit.stats._fitting import Fit
from fastinit.stats._histograms import Histogram

NUMBERS = "count", "min", "max", "mean", "std", "zeros", "nonfinite"


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of a checkpoint.

    Attributes:
        name, dtype, shape: as its file says.
        file: the file's name.
        count, min, max, mean, std, zeros, nonfinite: as in `fastinit.Summary`; of complex numbers, of their parts. The
            std is good for 5 digits; integers are taken as float64.
        fit: the distribution that its numbers look like, by a sample of them: at most 65,536, evenly spread.
        planned: the distribution of the plan, where it is elementwise.
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
        """The tensor as plain values, strict JSON: None for a number that is not finite (NaN, or a std over the range
        of float64); a distribution as in a job file."""
        names = ("name", "file", "dtype", "shape", *NUMBERS, "verdict", "histogram")
        planned = Fit(self.planned, self.planned_ks, self.planned_p)
        numbers = {name: plain(getattr(self, name)) for name in names}
        return numbers | {"fit": _fit_table(self.fit), "planned": _fit_table(planned)}


def _fit_table(fit: Fit) -> dict[str, Any]:
    distribution = None if fit.distribution is None else spec.to_table(fit.distribution, (1,), "float64")
    return {"distribution": distribution, "ks": plain(fit.ks), "p": plain(fit.p)}


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
        whole = {name: plain(getattr(self, name)) for name in ("path", "nbytes", "seconds", "missing")}
        return whole | {"tensors": [tensor.to_table() for tensor in self.tensors]}

    def to_json(self) -> str:
        """The survey as one line of strict JSON."""
        return json.dumps(self.to_table(), allow_nan=False)

    def __str__(self) -> str:
        heads = ("name", "dtype", "shape", *NUMBERS[1:], "looks like", "ks", "verdict")
        lines = [heads, *map(_line, self.tensors)]
        if not any(tensor.verdict for tensor in self.tensors):
            lines = [line[:-1] for line in lines]
        left = [i for i, name in enumerate(heads) if name in ("name", "dtype", "shape", "looks like", "verdict")]
        return "\n".join([*aligned(lines, left), *self._remarks()])

    def _remarks(self) -> list[str]:
        count = sum(tensor.count for tensor in self.tensors)
        missing = [
            printable(f"not in the checkpoint, though in the plan: {name}", LONGEST_LINE) for name in self.missing[:20]
        ]
        more = [f"and {len(self.missing) - 20:,} more"] if len(self.missing) > 20 else []
        return [*missing, *more, f"{len(self.tensors):,} tensors, {count:,} elements, {self.nbytes:,} bytes"]

    def to_html(self) -> str:
        """The survey as a page that needs no other file. It has the numbers as JSON too, without the histograms."""
        columns = ("name", "dtype", "shape", *NUMBERS, "histogram", "looks like", "ks", "verdict")
        rows = [
            (
                tensor.name,
                tensor.dtype,
                _shape(tensor),
                *plain(tuple(getattr(tensor, name) for name in NUMBERS)),
                None if tensor.histogram is None else bars(tensor.histogram),
                in_words(tensor.fit.distribution),
                plain(tensor.fit.ks),
                tensor.verdict,
            )
            for tensor in self.tensors
        ]
        data = self.to_table()
        for row in data["tensors"]:
            del row["histogram"]
        return page(f"Checkpoint {self.path}", [*self._remarks(), table(columns, rows)], data)


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "scalar"


def _line(tensor: Tensor) -> tuple[str, ...]:
    values = [getattr(tensor, name) for name in NUMBERS[1:]]
    numbers = [f"{v:,}" if isinstance(v, int) else f"{v:.4g}" if math.isfinite(v) else "" for v in values]
    looks, ks = in_words(tensor.fit.distribution), f"{tensor.fit.ks:.4f}" if math.isfinite(tensor.fit.ks) else ""
    return tensor.name, tensor.dtype, _shape(tensor), *numbers, looks, ks, tensor.verdict
