"""Compile everything into the cache, before it is needed."""

from __future__ import annotations

import itertools
import multiprocessing
import os
from collections.abc import Iterator

from fastinit._native import catalogue, library


def compile_everything(workers: int, level: str | None = None) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Compile all functions that the cache lacks, and give the names of each and whether the cache has it now.

    Args:
        workers: processes. What shares most of its code is compiled in one.
        level: a key of `processor.LEVELS`, or what `processor.target` says.
    """
    order = sorted(catalogue.everything(), key=_shares)
    groups = [list(group) for _, group in itertools.groupby(order, _shares)]
    with multiprocessing.get_context("spawn").Pool(workers, _name_processor, (level,)) as pool:
        for group, kept in pool.imap_unordered(_compile, sorted(groups, key=len, reverse=True)):
            yield from zip(group, kept, strict=True)


def _shares(names: tuple[str, ...]) -> tuple[str, str]:
    """What functions have in common that share code: the module and the dtype."""
    name, *variant = names
    return name.rpartition(".")[0], variant[-1] if variant else ""


def _name_processor(level: str | None) -> None:
    if level is not None:
        os.environ |= {"NUMBA_CPU_NAME": level, "NUMBA_CPU_FEATURES": ""}


def _compile(group: list[tuple[str, ...]]) -> tuple[list[tuple[str, ...]], list[bool]]:
    return group, [library.compile_into_cache(*names) for names in group]
