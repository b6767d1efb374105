"""The header of a safetensors file, read strictly: what is wrong with a file is found before a byte of it is used.

The format (https://huggingface.co/docs/safetensors): the header's length as a little-endian u64, the header as JSON,
the data without holes.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401  NumPy knows the names of its dtypes from then on
import numpy as np

from fastinit._io.documents import parse_json
from fastinit._io.files import naming

INDEX_NAME = "model.safetensors.index.json"  # beside several files: which tensor is in which of them
LFS_POINTER = b"version https://git-lfs"  # the first bytes of what a clone without Git LFS has in a file's place
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
_OTHER_FORMATS = {
    LFS_POINTER: "a Git LFS pointer: download the file itself, as by `git lfs pull`",
    b"PK\x03\x04": "a pickle of torch.save (or another zip file): save the model as safetensors",
    b"\x80": "a pickle: save the model as safetensors",
    b"GGUF": "a GGUF file: save the model as safetensors",
    b"\x89HDF": "an HDF5 file: save the model as safetensors",
}


class Stored(NamedTuple):
    """A tensor of a file: its dtype by NumPy's name, and its bytes, counted from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(path: Path, *, whole: bool = True) -> tuple[int, dict[str, Stored]]:
    """The bytes before the data, and the tensors in the order of their bytes.

    Args:
        path: of the file.
        whole: refuse a file that is shorter or longer than its header says.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no safetensors file, or not a whole one: a header that is cut off, absurdly long or no JSON,
            a name that stands twice, a dtype that is unknown, or tensors that overlap, leave holes or lie beyond the
            file's end. The file is named, and the tensor.
    """
    if path.exists() and not path.is_file():  # to open a pipe would wait
        raise ValueError(f"{path}: no safetensors file, but a folder or a device")
    size = path.stat().st_size
    if not size:
        raise ValueError(f"{path}: no safetensors file: it is empty")
    with naming(path), path.open("rb") as file:
        first = file.read(len(LFS_POINTER))
        length = int.from_bytes(first[:8], "little")
        if size < 8 or length > min(LONGEST, size - 8):
            for begin, what in _OTHER_FORMATS.items():
                if length > LONGEST and first.startswith(begin):  # else it may be a length
                    raise ValueError(f"{path}: no safetensors file, but {what}")
            raise ValueError(f"{path}: no safetensors file, or cut off: a header of {length:,} bytes in {size:,}")
        file.seek(8)
        text = file.read(length)
    try:
        table = parse_json(text.decode())
        if not isinstance(table, dict):
            raise ValueError("the header must be an object")
        table.pop("__metadata__", None)
        found = {name: _stored(name, row) for name, row in table.items()}
        found = dict(sorted(found.items(), key=lambda item: item[1][2:]))
        _side_by_side(found, size - 8 - length if whole else None)
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


def _side_by_side(tensors: dict[str, Stored], nbytes: int | None) -> None:
    """Raise ValueError unless the tensors fill the data from its first byte to its last, each byte once.

    `nbytes` are those of the data; None does not ask for the last byte.
    """
    end = 0
    for name, stored in tensors.items():
        if stored.start != end:
            what = "overlaps what is before it" if stored.start < end else "has a hole before it"
            raise ValueError(f"{name!r} {what}: it starts at byte {stored.start:,} in place of {end:,}")
        end = stored.end
    if nbytes is not None and end != nbytes:
        raise ValueError(f"the tensors must take {end:,} bytes after the header. Received: {nbytes:,}")
