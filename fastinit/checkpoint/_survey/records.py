"""The results of `survey`, and how they are shown."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fastinit._core.distributions import Distribution
from fastinit._io.html import bars, fragment, page, table
from fastinit._io.text import LONGEST_LINE, cells, padded, plain, printable
from fastinit.checkpoint._survey.comparison import AS_PLANNED, DIFFERS, in_words
from fastinit.plan import _serialization as spec
from fastinit.stats._fitting import Fit
from fastinit.stats._histograms import Histogram

_MOST_ROWS = 60  # tensors in a notebook
MOST_ON_A_PAGE = 20_000  # tensors: 30 MB of HTML
_encode = json.JSONEncoder(allow_nan=False).encode
_TAB = "\t"  # in no cell: `cells` escapes it
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
        names = ("name", "file", "dtype", "shape", *NUMBERS, "verdict")
        planned = Fit(self.planned, self.planned_ks, self.planned_p)
        return {name: plain(getattr(self, name)) for name in names} | {
            "histogram": None if self.histogram is None else self.histogram.to_table(),
            "fit": _fit_table(self.fit),
            "planned": _fit_table(planned),
        }


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
        parts = list[str]()
        stream = JsonStream(parts.append, self.path, self.nbytes, self.missing)
        for tensor in self.tensors:
            stream.add(tensor)
        stream.end(self.seconds)
        return "".join(parts)

    def __str__(self) -> str:
        lines = TextTable()
        for tensor in self.tensors:
            lines.add(tensor)
        return "\n".join(lines.end(self.nbytes, self.missing))

    def to_html(self) -> str:
        """The survey as a page that needs no other file. It has the numbers as JSON too, without the histograms.

        Raises:
            ValueError: there are more tensors than a browser shows well.
        """
        check_page(len(self.tensors))
        data = self.to_table()
        for row in data["tensors"]:
            del row["histogram"]
        return page(f"Checkpoint {self.path}", self._parts(), data)

    def _repr_html_(self) -> str:
        """The table that notebooks show."""
        return fragment(self._parts(_MOST_ROWS))

    def _parts(self, most: int | None = None) -> list[str]:
        columns = ("name", "verdict", "dtype", "shape", *NUMBERS, "histogram", "looks like", "ks")
        rows = [
            (
                tensor.name,
                tensor.verdict,
                tensor.dtype,
                _shape(tensor),
                *plain(tuple(getattr(tensor, name) for name in NUMBERS)),
                None if tensor.histogram is None else bars(tensor.histogram),
                in_words(tensor.fit.distribution),
                plain(tensor.fit.ks),
            )
            for tensor in self.tensors
        ]
        elements = sum(tensor.count for tensor in self.tensors)
        remarks = _remarks(len(rows), elements, self.nbytes, self.missing)
        return [*_verdicts(self.tensors), *remarks, table(columns, rows, most)]


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "scalar"


def _verdicts(tensors: Sequence[Tensor]) -> list[str]:
    """How many tensors are as planned, have a fault, or cannot be told; and the first faults."""
    judged = [tensor for tensor in tensors if tensor.verdict]
    faults = [tensor for tensor in judged if tensor.nonfinite or DIFFERS in tensor.verdict]
    planned = sum(tensor.verdict == AS_PLANNED for tensor in judged)
    counts = {
        "as planned": planned,
        "that differ from the plan or are not finite": len(faults),
        "not told": len(judged) - planned - len(faults),
    }
    summary = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    first = [printable(f"{tensor.name}: {tensor.verdict}", LONGEST_LINE) for tensor in faults[:5]]
    more = [f"and {len(faults) - 5:,} more"] if len(faults) > 5 else []
    return [f"{summary}.", *first, *more] if summary else []


def _remarks(number: int, elements: int, nbytes: int, missing: Sequence[str]) -> list[str]:
    listed = [printable(f"not in the checkpoint, though in the plan: {name}", LONGEST_LINE) for name in missing[:20]]
    more = [f"and {len(missing) - 20:,} more"] if len(missing) > 20 else []
    return [*listed, *more, f"{number:,} tensors, {elements:,} elements, {nbytes:,} bytes"]


def check_page(number: int) -> None:
    """Raise ValueError if a page would have more tensors than a browser shows well."""
    if number > MOST_ON_A_PAGE:
        raise ValueError(
            f"a page must have at most {MOST_ON_A_PAGE:,} tensors. Received: {number:,}. Choose some by their names"
        )


class JsonStream:
    """The JSON of a survey, tensor by tensor: one object on one line.

    Args:
        write: gets its parts.
        path, nbytes, missing: as in `Survey`.
    """

    def __init__(self, write: Callable[[str], object], path: str, nbytes: int, missing: Sequence[str]) -> None:
        self._write, self._separator = write, ""
        head = json.dumps({"path": path, "nbytes": nbytes, "missing": list(missing)})
        write(f'{head[:-1]}, "tensors": [')

    def add(self, tensor: Tensor) -> None:
        self._write(self._separator + _encode(tensor.to_table()))
        self._separator = ", "

    def end(self, seconds: float) -> None:
        self._write(f'], "seconds": {json.dumps(seconds)}}}')


class TextTable:
    """A survey as lines of text. What it keeps of a tensor is its line, some 100 bytes."""

    _HEADS = ("name", "dtype", "shape", *NUMBERS[1:], "looks like", "ks", "verdict")
    _LEFT = "name", "dtype", "shape", "looks like", "verdict"

    def __init__(self) -> None:
        self._rows = [_TAB.join(self._HEADS)]
        self._widths = list(map(len, self._HEADS))
        self._elements, self._verdicts = 0, False

    def add(self, tensor: Tensor) -> None:
        row = cells(_row(tensor))
        self._rows.append(_TAB.join(row))
        self._widths = list(map(max, self._widths, map(len, row)))
        self._elements += tensor.count
        self._verdicts |= bool(tensor.verdict)

    def end(self, nbytes: int, missing: Sequence[str]) -> Iterator[str]:
        """The lines; without a column of verdicts where there are none."""
        columns = len(self._HEADS) - (not self._verdicts)
        left = [i for i, name in enumerate(self._HEADS) if name in self._LEFT]
        yield from padded((row.split(_TAB) for row in self._rows), self._widths[:columns], left)
        yield from _remarks(len(self._rows) - 1, self._elements, nbytes, missing)


def _row(tensor: Tensor) -> tuple[str, ...]:
    values = [getattr(tensor, name) for name in NUMBERS[1:]]
    numbers = [f"{v:,}" if isinstance(v, int) else f"{v:.4g}" if math.isfinite(v) else "" for v in values]
    looks, ks = in_words(tensor.fit.distribution), f"{tensor.fit.ks:.4f}" if math.isfinite(tensor.fit.ks) else ""
    return tensor.name, tensor.dtype, _shape(tensor), *numbers, looks, ks, tensor.verdict
