"""The header of a safetensors file, read strictly: what is wrong with a file is found before a byte of it is used.

The format (https://huggingface.co/docs/safetensors): the header's length as a little-endian u64, the header as JSON,
the data without holes.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401  NumPy knows the names of its dtypes from then on
import numpy as np

from fastinit._io import documents
from fastinit._io.documents import parse_json

INDEX_NAME = "model.safetensors.index.json"  # beside several files: which tensor is in which of them
LONGEST = 100_000_000  # bytes of a header that the format's own reader takes

CODES = {
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "complex64": "C64",
    "int8": "I8",
    "int16": "I16",
    "int32": "I32",
    "int64": "I64",
    "uint8": "U8",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
    "bool": "BOOL",
}
_NAMES = {code: name for name, code in CODES.items()}


class Stored(NamedTuple):
    """A tensor of a file: its dtype by NumPy's name, and its bytes, counted from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class StoredFile(NamedTuple):
    """A safetensors file: the bytes before its data, and its tensors in the order of their bytes."""

    path: Path
    start: int
    tensors: dict[str, Stored]


def read_checkpoint(path: Path) -> list[StoredFile]:
    """The files of a checkpoint: of a folder (those that its index names, or all .safetensors where it has none), of an
    index, or one file.

    Raises:
        OSError: a file is missing or cannot be read.
        ValueError: a folder without such files, what is no index or does not say what the files hold, a name that
            stands in two files, or what is wrong with a file.
    """
    if path.is_dir():
        if (path / INDEX_NAME).exists():
            return read_index(path / INDEX_NAME)
        files = sorted(path.glob("*.safetensors"))
        if not files:
            raise ValueError(f"{path} holds no {INDEX_NAME} and no .safetensors file")
        return read_files(files)
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return read_index(path) if path.suffix == ".json" else read_files([path])


def read_index(path: Path) -> list[StoredFile]:
    """The files beside an index, which must hold the tensors that it names and no others; errors as above."""
    table = documents.read(path, infinite=True)
    names = table.get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(file, str) for file in names.values()):
        raise ValueError(f"{path}: no index: weight_map must hold a file for each name")
    for file in names.values():
        if Path(file).name != file or "\0" in file:
            raise ValueError(f"{path}: a file of the index must lie beside it. Received: {file!r}")
    found = read_files([path.parent / file for file in dict.fromkeys(names.values())])
    stored = {name for file in found for name in file.tensors}
    if stored != names.keys():
        name = min(stored ^ names.keys())
        raise ValueError(f"{path}: {name!r} is {'not in the index' if name in stored else 'in no file of the index'}")
    return found


def read_files(paths: Iterable[Path]) -> list[StoredFile]:
    """The headers of some files, in which no name may stand twice."""
    found = [StoredFile(path, *read_header(path)) for path in paths]
    names: set[str] = set()
    for file in found:
        for name in file.tensors:
            if name in names:
                raise ValueError(f"{file.path}: {name!r} is in another file too")
            names.add(name)
    return found


def read_header(path: Path) -> tuple[int, dict[str, Stored]]:
    """The bytes before the data, and the tensors in the order of their bytes.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no safetensors file, or not a whole one: a header that is cut off, absurdly long or no JSON,
            a name that stands twice, a dtype that is unknown, or tensors that overlap, leave holes or lie beyond the
            file's end. The file is named, and the tensor.
    """
    if path.exists() and not path.is_file():  # to open a pipe would wait
        raise ValueError(f"{path}: no safetensors file, but a folder or a device")
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(LONGEST, size - 8):
            raise ValueError(f"{path}: no safetensors file, or cut off: a header of {length:,} bytes in {size:,}")
        text = file.read(length)
    try:
        table = parse_json(text.decode())
        if not isinstance(table, dict):
            raise ValueError("the header must be an object")
        table.pop("__metadata__", None)
        found = {name: _stored(name, row) for name, row in table.items()}
        found = dict(sorted(found.items(), key=lambda item: item[1][2:]))
        _side_by_side(found, size - 8 - length)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return 8 + length, found


def _stored(name: str, row: Any) -> Stored:
    if not isinstance(row, dict) or row.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name!r} must have dtype, shape and data_offsets. Received: {row!r:.200}")
    dtype, shape, ends = row["dtype"], row["shape"], row["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _NAMES:
        raise ValueError(f"{name!r} must have a dtype of {', '.join(_NAMES)}. Received: {dtype!r}")
    if not _sizes(shape) or not _sizes(ends) or len(ends) != 2:
        raise ValueError(f"{name!r} must have a shape and two offsets. Received: {row!r:.200}")
    stored = Stored(_NAMES[dtype], tuple(shape), *ends)
    needed = math.prod(shape) * np.dtype(stored.dtype).itemsize
    if stored.end - stored.start != needed:
        raise ValueError(f"{name!r} of shape {stored.shape} must have {needed:,} bytes. Received: offsets {ends}")
    return stored


def _sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _side_by_side(tensors: dict[str, Stored], nbytes: int) -> None:
    """Raise ValueError unless the tensors fill the data from its first byte to its last, each byte once."""
    end = 0
    for name, stored in tensors.items():
        if stored.start != end:
            what = "overlaps what is before it" if stored.start < end else "has a hole before it"
            raise ValueError(f"{name!r} {what}: it starts at byte {stored.start:,} in place of {end:,}")
        end = stored.end
    if end != nbytes:
        raise ValueError(f"the tensors must take {end:,} bytes after the header. Received: {nbytes:,}")
