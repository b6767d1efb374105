"""What the runs of a job note in its hidden folder: its extra files, and the files in place that it may replace.

A file that somebody else puts there is in no note, and is not moved into the checkpoint.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

from fastinit._io import documents, files
from fastinit.checkpoint._layout import INDEX_NAME, SHARD_NAME

MANIFEST = "fastinit.json"  # the job: in the hidden folder from the first byte on, beside the files at the end
MOVING = "moving"  # a file that says that all were complete, and that some may have been moved already
NOTES = "notes.json"
_LONGEST_NAME = 200  # bytes: the name of a file that is being written is longer by 22, and 255 is the most


class Notes(NamedTuple):
    """The notes of a job.

    Attributes:
        extra: SHA-256 of the extra files, by their names.
        replaced: size and time of each file in place that a run with `overwrite` was to replace, by their names.
    """

    extra: Mapping[str, str]
    replaced: Mapping[str, list[int]]

    @classmethod
    def read(cls, staging: Path) -> Self:
        """The notes in a hidden folder; without those that no run makes."""
        try:
            table = documents.read(staging / NOTES)
        except (FileNotFoundError, ValueError):
            return cls({}, {})
        extra, replaced = (_table(table.get(field)) for field in cls._fields)
        return cls({name: text for name, text in extra.items() if _is_extra_name(name)}, replaced)

    @classmethod
    def add(cls, staging: Path, extra: Mapping[str, bytes], replaced: Iterable[Path], *, sync: bool) -> None:
        """Note extra files, and files in place that may be replaced."""
        before = cls.read(staging)
        identities = {path.name: found for path in replaced if (found := _identity(path)) is not None}
        notes = cls({**before.extra, **digests(extra)}, {**before.replaced, **identities})
        if notes != before:
            files.put(staging / NOTES, json.dumps(notes._asdict()).encode(), sync=sync)

    def allow(self, path: Path) -> bool:
        """Return True if a file in place is one that a run with `overwrite` was to replace."""
        return path.name in self.replaced and self.replaced[path.name] == _identity(path)


NO_NOTES = Notes({}, {})


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _identity(path: Path) -> list[int] | None:
    """What tells a file in place from one that is put there later."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return [status.st_size, status.st_mtime_ns]


# --- extra files ---


def check_extra_files(extra_files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Extra files, whose names must be plain ones that no other file of a checkpoint has.

    Raises:
        ValueError, TypeError: a name is not, or the contents are no bytes.
    """
    for name, data in extra_files.items():
        if not _is_extra_name(name):
            raise ValueError(
                f"a name in extra_files must be a plain file name of at most {_LONGEST_NAME} bytes, not begin with a "
                f"dot, and not be one of the checkpoint's own. Received: {name!r}"
            )
        if not isinstance(data, bytes):
            raise TypeError(f"extra_files[{name!r}] must be bytes. Received: {type(data).__name__}")
    return dict(extra_files)


def _is_extra_name(name: object) -> bool:
    if not isinstance(name, str) or not name or name[0] == "." or "/" in name or "\0" in name:
        return False
    folded = name.casefold()  # some file systems do not tell cases apart
    if folded in (MANIFEST, MOVING, NOTES, INDEX_NAME) or SHARD_NAME.fullmatch(folded):
        return False
    try:
        return len(os.fsencode(name)) <= _LONGEST_NAME
    except UnicodeEncodeError:
        return False


def digest(data: bytes) -> str:
    """SHA-256 of some bytes."""
    return hashlib.sha256(data).hexdigest()


def digests(extra: Mapping[str, bytes]) -> dict[str, str]:
    """SHA-256 of files by their names."""
    return {name: digest(data) for name, data in extra.items()}


def differs(path: Path, text: str) -> bool:
    """Return True if there is something else than a file of some digest."""
    try:
        return path.exists() and digest(files.read(path)) != text
    except (ValueError, IsADirectoryError):  # too long, or no file
        return True


def holds(path: Path, text: str) -> bool:
    """Return True if there is a file of some digest: no link, and without a second name."""
    with contextlib.suppress(FileNotFoundError, ValueError, IsADirectoryError):
        status = path.lstat()
        files.check_regular(path, status)
        return status.st_nlink <= 1 and digest(files.read(path)) == text
    return False
