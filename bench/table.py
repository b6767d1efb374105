"""The ONE table of what is compared: each work at each size, by whom, and in which process.

`pytest --benchmark-only` runs the rows that are not marked `sweep`, with `--sweep` all of them. What makes a call
stands in the module of its subject (`fills`, `clipping`, `training`, `frameworks`, `construction`, `starts`); here are
the choices.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from bench import clipping, construction, fills, frameworks, limits, starts, training, writing
from bench.turns import MOST, Make

# The parts of the table, in its order.
FILLS, NORMS, MODELS, STEPS, FRAMEWORKS, FILES, CALLS, STARTS = PARTS = (
    "fills",
    "norms",
    "models",
    "steps",
    "frameworks",
    "files",
    "calls",
    "starts",
)
QUICK_ELEMENTS = 1 << 14  # `--quick` leaves larger sizes out


@dataclass(frozen=True)
class Row:
    """One comparison: a work at one size, and its contenders.

    Attributes:
        part: one of PARTS.
        work: what is done, as tables show it.
        size: as tables show it; the sizes of a work are sorted by `order`.
        makers: by contender, what makes its call in its process.
        order: the number of elements, where these are counted, or the place among the sizes.
        sweep: True if only the long sweep has it.
        extras: the contenders that only the long sweep has.
        quick: True if it takes little time also where every row is run once.
        steps: what a call's seconds are divided by.
        most: rounds.
    """

    part: str
    work: str
    size: str
    makers: dict[str, Make]
    order: int = 0
    sweep: bool = False
    extras: frozenset[str] = frozenset()
    quick: bool = True
    steps: int = 1
    most: int = MOST

    @property
    def group(self) -> str:
        return f"{self.work}: {self.size}"

    def contenders(self) -> dict[str, tuple[str, Make]]:
        """By contender, its process and its maker. fastinit has another process where it loads a framework."""
        framework = {FRAMEWORKS: self.work.partition(" ")[0], MODELS: "torch"}.get(self.part)
        return {
            name: (f"{name} {framework}" if framework and name.startswith("fastinit") else name, make)
            for name, make in self.makers.items()
        }


def rows() -> list[Row]:
    """All rows, in the order of the tables: works by part, sizes as numbers."""
    found = [*_fills(), *_norms(), *_models(), *_steps(), *_frameworks(), *_files(), *_calls(), *_starts()]
    works = {row.work: i for i, row in reversed(list(enumerate(found)))}
    return sorted(found, key=lambda row: (PARTS.index(row.part), works[row.work], row.order))


def by(shape: tuple[int, ...]) -> str:
    """The text of a shape.

    >>> by((3, 4))
    '3x4'
    """
    return "x".join(map(str, shape))


def power(elements: int) -> str:
    """The text of a number of elements: a power of two, or its digits.

    >>> power(1024), power(3000)
    ('2^10', '3,000')
    """
    return f"2^{elements.bit_length() - 1}" if elements & (elements - 1) == 0 else f"{elements:,}"


SWEPT = range(6, 27, 2)  # log2 of the elements
# What everybody sees: the exponents of a work that the short run has.
SHOWN = {
    "normal": (10, 16, 24),
    "uniform": (10, 16, 24),
    "truncated_normal": (10, 22),
    "normal_bfloat16": (24,),
    "normal_float64": (24,),
    "add": (24,),
    "fill": (24,),
}


def _fills() -> Iterator[Row]:
    for work, about in fills.WORKS.items():
        shapes = fills.ORTHOGONAL.get(work) or [(1 << exponent,) for exponent in SWEPT]
        for shape in shapes:
            elements = math.prod(shape)
            exponent = elements.bit_length() - 1
            makers: dict[str, Make] = {
                name: partial(fills.prepared, work, name, shape)
                for name, most in about.libraries().items()
                if exponent <= most
            }
            if elements >= limits.LARGE and about.fastinit and work not in fills.ORTHOGONAL:
                makers["stores"] = partial(fills.stored, work, shape)
            yield Row(
                FILLS,
                about.title,
                by(shape) if work in fills.ORTHOGONAL else power(elements),
                makers,
                elements,
                sweep=shape != (1024, 1024) if work in fills.ORTHOGONAL else exponent not in SHOWN.get(work, ()),
                extras=frozenset({"numpy_legacy"}),
                quick=elements <= QUICK_ELEMENTS,
            )


def _norms() -> Iterator[Row]:
    for work, about in clipping.WORKS.items():
        for exponent in about.exponents:
            elements = clipping.elements(work, exponent)
            makers: dict[str, Make] = {
                name: partial(clipping.prepared, work, name, exponent) for name in about.libraries
            }
            if elements >= limits.LARGE and about.arrays is clipping.one and "fastinit" in makers:
                makers["passes"] = partial(clipping.passed, work, exponent)
            shown = exponent == 24 and work != "dot"
            yield Row(
                NORMS, about.title, power(elements), makers, elements, sweep=not shown, quick=elements <= QUICK_ELEMENTS
            )


def _models() -> Iterator[Row]:
    for order, (name, model) in enumerate(construction.MODELS.items()):
        makers = {library: partial(construction.prepared, name, library) for library in construction.CONTENDERS}
        yield Row(MODELS, "`fast_init`", model.title, makers, order, sweep=name != "gpt2", quick=False, most=4)
    makers = {"fastinit": partial(construction.prepared, "record", "record")}
    yield Row(MODELS, "`record`", construction.LARGE.title, makers, sweep=True, quick=False, most=5)


def _steps() -> Iterator[Row]:
    for order, (name, network) in enumerate(training.NETWORKS.items()):
        makers = {library: partial(training.prepared, name, library) for library in network.libraries}
        yield Row(
            STEPS,
            "training step",
            network.title,
            makers,
            order,
            extras=frozenset({"torch_compile", "fastinit_step"}),  # torch.compile takes a minute to begin
            quick=name in training.QUICK_NETWORKS,
            steps=network.all_steps,
            most=15,
        )


def _frameworks() -> Iterator[Row]:
    for work, shapes in frameworks.WORKS.items():
        for shape in shapes:
            makers = {library: partial(frameworks.prepared, work, library, shape) for library in work.libraries}
            yield Row(
                FRAMEWORKS,
                f"{work.framework} `{work.name}`, {work.dtype}",
                by(shape),
                makers,
                math.prod(shape),
                sweep=(work.framework, work.name, shape) not in frameworks.SHOWN or work.dtype != "float32",
                quick=math.prod(shape) <= QUICK_ELEMENTS,
                most=20,
            )
    for order, model in enumerate(frameworks.GRADIENTS):
        for dtype in ("float32", "bfloat16"):
            for clips in (False, True):
                how = "clipping" if clips else "not clipping"
                makers = {
                    library: partial(frameworks.clipped, library, model, dtype, clips)
                    for library in frameworks.CLIPPERS
                }
                yield Row(
                    FRAMEWORKS,
                    f"torch `clip_grad_norm_`, {how}, {dtype}",
                    model,
                    makers,
                    order,
                    sweep=(model, dtype, clips) != ("GPT-2 small", "float32", True),
                    extras=frozenset({"torch_loop"}),
                    quick="small" not in model,
                    most=20,
                )


def _files() -> Iterator[Row]:
    for megabytes in (16, 200, 1000):
        makers = {library: partial(writing.prepared, library, megabytes) for library in ("fastinit", "numpy", "dd")}
        size, shown = f"{megabytes} MB", megabytes == 200
        yield Row(FILES, "checkpoint, fsync", size, makers, megabytes, sweep=not shown, quick=megabytes == 16, most=5)


def _calls() -> Iterator[Row]:
    for work, makers in fills.CALLS.items():
        yield Row(CALLS, work, "8x8", dict(makers))


def _starts() -> Iterator[Row]:
    for work, contenders in starts.WORKS.items():
        makers = {library: partial(starts.prepared, library, *how) for library, how in contenders.items()}
        extras = frozenset({"numba"} if "numpy" in makers else ())  # beside NumPy, what Numba alone takes is a detail
        yield Row(STARTS, work, "", makers, sweep="empty" in work, extras=extras, quick="empty" not in work, most=3)
