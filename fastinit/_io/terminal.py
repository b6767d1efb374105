"""Text for stdout and stderr: in the characters that a stream has; and a stderr that takes nothing stops no work."""

from __future__ import annotations

import contextlib
import sys
from typing import Any, TextIO

_PLAIN = str.maketrans(dict.fromkeys("▏▎▍▌▋▊▉█", "#"))  # bars


def encodable(text: str, stream: TextIO) -> str:
    r"""Replace the characters that a stream's encoding does not have: bars by #, others by escapes.

    >>> import io
    >>> encodable("é▋", io.TextIOWrapper(io.BytesIO(), "ascii"))
    '\\xe9#'
    """
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_PLAIN).encode(encoding, "backslashreplace").decode(encoding)
    return text


class Lenient:
    """A text stream that drops what another one does not take, because it is full, closed or has no reader."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):  # ValueError: closed
            self._stream.write(encodable(text, self._stream))
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return self._stream.isatty()
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def stderr() -> Lenient | None:
    """Return the standard error stream as it is now; None in a process without one (`2>&-`, pythonw)."""
    return None if sys.stderr is None else Lenient(sys.stderr)


def say(line: str) -> None:
    """Print a line on stderr, as far as that takes it."""
    stream = stderr()
    if stream is not None:
        print(line, file=stream, flush=True)
