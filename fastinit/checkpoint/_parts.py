"""Parts of a job: which one this process is."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

# Pairs of variables, which of so many processes this is, counted from 0: torchrun and its like.
_RANKS = ("RANK", "WORLD_SIZE")
_SLURM_TASK = ("SLURM_PROCID", "SLURM_NTASKS")
_MOST_DIGITS = 18
_SLURM_ARRAY = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT")
_DIGITS = "[0-9]{1,18}"  # int() takes digits of other scripts too, and no more than 4300 of them


@dataclass(frozen=True, slots=True)
class Part:
    """One of several shares of a job.

    Args:
        index: from 1 to `count`.
        count: how many there are.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"a job must have at least one part. Received: {self}")
        if not 1 <= self.index <= self.count:
            raise ValueError(f"a part must be from 1/{self.count} to {self.count}/{self.count}. Received: {self}")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @classmethod
    def of(cls, text: str | Part | None) -> Part | None:
        """The part that a text means: "2/8", or "auto" for what the environment says.

        >>> Part.of("2/8")
        Part(index=2, count=8)
        """
        if text is None or isinstance(text, Part):
            return text
        if text == "auto":
            return cls.from_environment(os.environ)
        found = re.fullmatch(rf"({_DIGITS})/({_DIGITS})", text)
        if found is None or not int(found[2]):
            raise ValueError(f"a part must be of the form 2/8, or auto. Received: {text!r:.200}")
        return cls(int(found[1]), int(found[2]))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Part:
        """The part of a process that torchrun (RANK, WORLD_SIZE) or Slurm (tasks, arrays, arrays of tasks) started.

        >>> Part.from_environment({"RANK": "0", "WORLD_SIZE": "4"})
        Part(index=1, count=4)
        """
        rank, size = _pair(environment, *_RANKS)
        if size is None:
            task, tasks = _pair(environment, *_SLURM_TASK)
            item, items = _pair(environment, *_SLURM_ARRAY)
            if items is not None:
                first = _number(environment, "SLURM_ARRAY_TASK_MIN", 0)
                step = _number(environment, "SLURM_ARRAY_TASK_STEP", 1)
                if not step:
                    raise ValueError("SLURM_ARRAY_TASK_STEP must be positive. Received: '0'")
                item = (item - first) // step
            if tasks is None and items is None:
                names = ", ".join("/".join(pair) for pair in (_RANKS, _SLURM_TASK, _SLURM_ARRAY))
                raise ValueError(f"--part auto needs one of {names} in the environment")
            inner, outer = cls(task + 1, 1 if tasks is None else tasks), cls(item + 1, 1 if items is None else items)
            rank, size = (outer.index - 1) * inner.count + inner.index - 1, outer.count * inner.count
        return cls(rank + 1, size)


def _pair(environment: Mapping[str, str], index: str, count: str) -> tuple[int, int | None]:
    if index in environment and count in environment:
        return _number(environment, index), _number(environment, count)
    return 0, None


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name)
    if text is None and default is not None:
        return default
    if text is None or not re.fullmatch(_DIGITS, text):
        raise ValueError(f"{name} must be a number. Received: {text!r:.200}")
    return int(text)
