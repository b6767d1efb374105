"""Results that several threads need at the same time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class _Entry:
    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0
    done: bool = False
    result: Any = None


class Shared:
    """Compute a result once for all threads that need it at the same time. The last one that leaves frees it.

    >>> shared = Shared()
    >>> with shared.use("key", lambda: [1, 2]) as result:
    ...     print(result)
    [1, 2]
    """

    def __init__(self) -> None:
        self._entries: dict[Hashable, _Entry] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def use(self, key: Hashable, compute: Callable[[], Any]) -> Iterator[Any]:
        """Give the result of `compute` for the length of the block.

        Args:
            key: names the result.
            compute: is called if no other thread has the result. If it raises, the next thread tries again.
        """
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            entry.users += 1
        try:
            with entry.lock:
                if not entry.done:
                    entry.result, entry.done = compute(), True
            yield entry.result
        finally:
            with self._lock:
                entry.users -= 1
                if not entry.users:
                    del self._entries[key]
