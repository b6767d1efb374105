"""Limits that a container or a shell sets for this process: CPU quotas, memory, address space.

Files that are missing, or hold something else than expected, set no limit.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/")
_UNLIMITED = 1 << 60  # version 1 writes a number near 2^63 where there is no limit
# What a thread takes of the address space in addition to its buffers: a heap of glibc's malloc, and its stack.
_HEAP, _STACK = 64 << 20, 8 << 20


class Quota(NamedTuple):
    """CPUs that a control group may use, which need not be a whole number, and the file that says so."""

    cpus: float
    source: str


class MemoryLimit(NamedTuple):
    """A limit of memory.

    Attributes:
        source: what sets it: a file, or an option of `ulimit`.
        nbytes: the limit.
        left: what of it is not in use.
        addresses: whether it counts address space, memory or not.
        hard: whether more is refused, or kills the process; otherwise it only becomes slow.
    """

    source: str
    nbytes: int
    left: int
    addresses: bool = False
    hard: bool = True

    def __str__(self) -> str:
        return f"{self.source}: {self.nbytes:,} bytes, {max(0, self.left):,} of them free"


@functools.cache
def cpu_quota(root: Path = ROOT) -> Quota | None:
    """The smallest CPU quota of the control groups that hold this process; None where none is set.

    It is read once: a fill has no time for it.

    Args:
        root: the folder with `proc` and the mounted control groups.
    """
    quotas = []
    for group in _groups("cpu", root):
        for name, *more in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
            words = [word for file in (name, *more) for word in _text(group / file).split()]
            numbers = [int(word) for word in words if word.isdecimal()]  # a quota of "max" or -1 is none
            if len(words) == len(numbers) == 2 and all(numbers):
                quotas.append(Quota(numbers[0] / numbers[1], str(group / name)))
    return min(quotas, default=None)


def memory_limits(root: Path = ROOT) -> list[MemoryLimit]:
    """The limits of memory that this process has, as they are now: the one with the least left first."""
    limits = []
    for group in _groups("memory", root):
        for name, usage, hard in (
            ("memory.max", "memory.current", True),
            ("memory.high", "memory.current", False),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", True),
        ):
            nbytes = _number(group / name)
            if nbytes is not None and nbytes < _UNLIMITED:
                used = (_number(group / usage) or 0) - _reclaimable(group / "memory.stat")
                limits.append(MemoryLimit(str(group / name), nbytes, nbytes - max(0, used), hard=hard))
    pages = _text(root / "proc/self/statm").split()
    if len(pages) == 7 and all(map(str.isdecimal, pages)):  # Linux: elsewhere the system ignores these limits
        page = os.sysconf("SC_PAGE_SIZE")
        for option, kind, used in (
            ("ulimit -v", resource.RLIMIT_AS, int(pages[0]) * page),
            ("ulimit -d", resource.RLIMIT_DATA, int(pages[5]) * page),
        ):
            nbytes = resource.getrlimit(kind)[0]
            if nbytes != resource.RLIM_INFINITY:
                limits.append(MemoryLimit(option, nbytes, nbytes - used, addresses=True))
    return sorted(limits, key=lambda limit: limit.left)


def fitting(number: int, nbytes: int, root: Path = ROOT) -> int:
    """How many of some threads, each with buffers, fit into half of the memory that is left; at least one.

    The other half is for the compiler, the interpreter, and tensors that are made whole.

    Args:
        number: of threads that are wanted.
        nbytes: of the buffers of a thread.
        root: as in `cpu_quota`.
    """
    for limit in memory_limits(root) if number > 1 else ():
        each = nbytes + (_HEAP + _STACK if limit.addresses else 0)
        number = min(number, limit.left // 2 // max(each, 1))
    return max(1, number)


@contextlib.contextmanager
def address_space(more: int) -> Iterator[None]:
    """Let the process take only so many bytes more inside the with-block; an allocation beyond is a MemoryError.

    Other threads have the same limit for that time. A limit that is smaller stays. Where the system does not tell how
    much is in use (macOS, which knows no such limit), nothing is limited.
    """
    pages = _text(ROOT / "proc/self/statm").split()
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = int(pages[0]) * os.sysconf("SC_PAGE_SIZE") + more if pages else before[0]
    if before[0] != resource.RLIM_INFINITY:
        limit = min(limit, before[0])
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def in_words(root: Path = ROOT) -> str:
    """The limits of memory, for the message of an error."""
    limits = memory_limits(root)
    if limits:
        return f"Limits of this process: {'; '.join(map(str, limits))}"
    return "No limit is set for this process: the system has no more"


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """The folders of this process's control groups, of both versions, and of all groups around them.

    A container often sees only a part of the hierarchy: the folder that is mounted is then its own group, or the
    nearest around it that can be seen.
    """
    own = dict(_memberships(_text(root / "proc/self/cgroup")))
    found: dict[Path, None] = {}
    for kind, options, top, point in _mounts(_text(root / "proc/self/mountinfo")):
        if kind == "cgroup2" or (kind == "cgroup" and controller in options.split(",")):
            path = own.get("" if kind == "cgroup2" else controller)
            if path is None:
                continue
            inside = path == top or path.startswith(f"{top.rstrip('/')}/")
            below = [] if not inside or ".." in path else Path(path).relative_to(top).parts
            for depth in range(len(below), -1, -1):
                found[root.joinpath(point.lstrip("/"), *below[:depth])] = None
    yield from found


def _memberships(text: str) -> Iterator[tuple[str, str]]:
    """The controllers of /proc/self/cgroup, "" for version 2, and the groups that the process is in."""
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        names, colon, path = rest.partition(":")
        if colon:
            yield from ((name, path) for name in names.split(","))


def _mounts(text: str) -> Iterator[tuple[str, str, str, str]]:
    """Type, options of the super block, root and place of each line of /proc/self/mountinfo."""
    for line in text.splitlines():
        head, _, tail = line.partition(" - ")
        fields, kinds = head.split(" "), tail.split(" ")
        if len(fields) >= 5 and len(kinds) >= 3:
            top, point = (re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), field) for field in fields[3:5])
            yield kinds[0], kinds[2], top, point


def _reclaimable(stat: Path) -> int:
    """Bytes of a group's page cache: files that were written or read, for which the system takes no memory away."""
    counts = dict(line.split(" ")[:2] for line in _text(stat).splitlines() if " " in line)
    lists = ("inactive_file", "active_file")
    values = [counts.get(f"total_{name}", counts.get(name, "")) for name in lists]  # with all groups inside
    return sum(int(value) for value in values if value.isdecimal())


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
