"""Pure: a plan -> the header of a safetensors file and the byte range of every tensor. No file is touched here.

The format (https://huggingface.co/docs/safetensors): the header's length as a little-endian u64, the header as JSON,
the data without holes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from fastinit.plan import Fill, Plan

FILE_NAME = "model.safetensors"
ALIGNMENT = 64  # of the data's first byte: a memory-mapped file can then be handed to vector code as it is

_DTYPE_CODES = {
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


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor's place: `offset` and `nbytes` in bytes, from the start of the file."""

    name: str
    fill: Fill
    offset: int

    @property
    def nbytes(self) -> int:
        return self.fill.nbytes


@dataclass(frozen=True, slots=True)
class Layout:
    """A file: its first bytes, its tensors in the order of their bytes, and its size in bytes."""

    header: bytes
    entries: tuple[Entry, ...]
    nbytes: int


def layout(plan: Plan) -> Layout:
    """The layout of a plan as one file: tensors by descending alignment of their dtype, then by name; without the
    second names of tied ones, and without buffers that are not persistent.

    >>> found = layout(Plan({"b": ((3,), "float16", "zeros"), "a": ((2,), "float64", "ones")}))
    >>> [entry.name for entry in found.entries], len(found.header) % 64, found.nbytes - len(found.header)
    (['a', 'b'], 0, 22)
    """
    kept = [(name, fill) for name, fill in plan.filled.items() if fill.persistent]
    order = sorted(kept, key=lambda item: (-np.dtype(item[1].dtype).itemsize, item[0]))
    table: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, fill in order:
        ends = [offset, offset + fill.nbytes]
        table[name] = {"dtype": _DTYPE_CODES[fill.dtype], "shape": list(fill.shape), "data_offsets": ends}
        offset += fill.nbytes
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    header = len(text).to_bytes(8, "little") + text
    entries = []
    position = len(header)
    for name, fill in order:
        entries.append(Entry(name, fill, position))
        position += fill.nbytes
    return Layout(header, tuple(entries), position)
