"""The header of a safetensors file, written, and read strictly: what is wrong is found before a byte is used.

The format (https://huggingface.co/docs/safetensors): the header's length as a little-endian u64, the header as JSON,
the data without holes.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from json import JSONDecodeError, JSONDecoder
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401  NumPy knows the names of its dtypes from then on
import numpy as np

from fastinit._io.documents import MOST_NAMES, as_object, is_unicode, no_number, parse_json
from fastinit._io.files import opened_regular
from fastinit._runtime.arrays import MOST_DIMENSIONS, nbytes_of

INDEX_NAME = "model.safetensors.index.json"  # beside several files: which tensor is in which of them
METADATA = "__metadata__"  # a header's own entry: texts by name
MOST_METADATA = 10_000  # names in it; the largest in use, of trainers of adapters, have a hundred
MOST_FILES = 100_000  # of a model; the largest in use have some hundred
LFS_POINTER = b"version https://git-lfs"  # the first bytes of what a clone without Git LFS has in a file's place
LONGEST = 100_000_000  # bytes of a header that the format's own reader takes
ALIGNMENT = 64  # of the data's first byte: a memory-mapped file can then be handed to vector code as it is
LONGEST_NAME = 65_536  # bytes of a tensor's name
LONGEST_ROW = 4096  # bytes of JSON for one tensor: 64 sizes of 19 digits take 1,400, indented ones twice as many

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
_KEYS = {"dtype", "shape", "data_offsets"}
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


def as_header(tensors: Mapping[str, tuple[str, tuple[int, ...]]], metadata: dict[str, str], *, file: str) -> bytes:
    """The first bytes of a file, up to its data: the header's length, and the header, filled up with spaces.

    Args:
        tensors: the dtype, by NumPy's name, and the shape of each, in the order of their bytes.
        metadata: texts by name.
        file: its name, for errors.

    Raises:
        ValueError: a dtype that safetensors does not have, or more names than a header can hold.

    >>> as_header({"a": ("float16", (3,))}, {}, file="model.safetensors")[8:72]
    b'{"__metadata__":{},"a":{"dtype":"F16","shape":[3],"data_offsets"'
    """
    table: dict[str, object] = {METADATA: metadata}
    end = 0
    for name, (dtype, shape) in tensors.items():
        if dtype not in CODES:
            raise ValueError(f"safetensors has no dtype {dtype}: {name!r}")
        start, end = end, end + math.prod(shape) * np.dtype(dtype).itemsize
        table[name] = {"dtype": CODES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    if len(text) > LONGEST:
        raise ValueError(f"the header of {file} must have at most {LONGEST:,} bytes. Needed: {len(text):,}")
    return len(text).to_bytes(8, "little") + text


def read_header(path: Path, *, whole: bool = True) -> tuple[int, dict[str, Stored]]:
    """The bytes before the data, and the tensors in the order of their bytes.

    A tensor is checked as soon as its row of the header is read: what is wrong takes no more memory than its text.

    Args:
        path: of the file.
        whole: refuse a file that is shorter or longer than its header says.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no safetensors file, or not a whole one: a header that is cut off, absurdly long or no JSON,
            a name that stands twice, a dtype that is unknown, or tensors that overlap, leave holes or lie beyond the
            file's end. The file is named, and the tensor.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path}: no safetensors file, but a folder or a device")
    with contextlib.ExitStack() as stack:
        descriptor, size = stack.enter_context(opened_regular(path))
        if not size:
            raise ValueError(f"{path}: no safetensors file: it is empty")
        file = stack.enter_context(open(descriptor, "rb", closefd=False))
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
        found = _tensors(text)
        _side_by_side(found, size - 8 - length if whole else None)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return 8 + length, found


# --- the header's text ---

_SPACE = rb"[ \t\n\r]*+"
_STRING = rb'"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+"'
_OPENING = re.compile(_SPACE + rb"\{")
_CLOSING = re.compile(_SPACE + rb"\}")
_NAME = re.compile(_SPACE + rb"(" + _STRING + rb")" + _SPACE + rb":" + _SPACE)
_TEXT = re.compile(_STRING)
_NEXT = re.compile(_SPACE + rb"([,}])")
_END = re.compile(_SPACE + rb"\Z")
_CHUNK = 1 << 20  # bytes of a long text that are looked at at once
_decoder = JSONDecoder(object_pairs_hook=as_object, parse_constant=no_number)


class _Reader:
    """A header's text from its first byte to its last; what was read is not kept."""

    def __init__(self, text: bytes) -> None:
        self.text, self.position = text, 0

    def names(self, what: str) -> Iterator[str]:
        """The names of an object. Whoever takes one reads its value, by another method, before the next."""
        self._match(_OPENING, what, "be an object")
        if closing := _CLOSING.match(self.text, self.position):
            self.position = closing.end()
            return
        following = b","
        while following == b",":
            name = self._match(_NAME, what, 'go on with "NAME":')
            if name.end(1) - name.start(1) > LONGEST_NAME:
                raise ValueError(f"names in {what} must have at most {LONGEST_NAME:,} bytes")
            raw = name[1]
            yield _decoder.decode(raw.decode()) if b"\\" in raw else raw[1:-1].decode()
            following = self._match(_NEXT, what, "go on with a comma or a closing brace")[1]

    def row(self, name: str) -> Any:
        """The value that comes next, of at most `LONGEST_ROW` bytes."""
        try:
            # Each byte is a character: a row that is right has ASCII only.
            value, end = _decoder.raw_decode(self._part())
        except JSONDecodeError as error:
            if error.pos > LONGEST_ROW - 64 and len(self.text) - self.position > LONGEST_ROW:
                raise ValueError(f"{name!r} must have at most {LONGEST_ROW:,} bytes of JSON") from None
            raise ValueError(f"{name!r}: {error.msg}, {error.pos:,} bytes after the name") from None
        except (RecursionError, ValueError) as error:
            what = "nested too deeply" if isinstance(error, RecursionError) else error
            raise ValueError(f"{name!r}: {what}") from None
        self.position += end
        return value

    def skip_text(self, what: str) -> None:
        """Pass over a string; it may be long."""
        start = self.position
        self._match(_TEXT, what, "hold texts")
        decoder = codecs.getincrementaldecoder("utf-8")()
        for i in range(start, self.position, _CHUNK):
            decoder.decode(self.text[i : min(i + _CHUNK, self.position)])

    def end(self) -> None:
        """Raise ValueError if more than space follows."""
        self._match(_END, "the header", "end with its closing brace")

    def _match(self, pattern: re.Pattern[bytes], what: str, expected: str) -> re.Match[bytes]:
        found = pattern.match(self.text, self.position)
        if found is None:
            received = self.text[self.position : self.position + 20]
            raise ValueError(f"{what} must {expected} at byte {self.position:,}. Received: {received!r}")
        self.position = found.end()
        return found

    def _part(self) -> str:
        return self.text[self.position : self.position + LONGEST_ROW].decode("latin-1")


def _tensors(text: bytes) -> dict[str, Stored]:
    """The tensors of a header, in the order of their bytes."""
    found: dict[str, Stored] = {}
    shapes: dict[tuple[int, ...], tuple[int, ...]] = {}  # many tensors share one: a few objects instead of many
    if len(text) <= LONGEST_ROW or not text.startswith(b"{"):
        parse_json(
            text[:LONGEST_ROW].decode()
        )  # of a short text, or one of another kind, the errors of JSON are better
    reader, ordered, last = _Reader(text), True, (0, 0)
    for name in reader.names("the header"):
        if name in found:
            raise ValueError(f"{name!r} is named twice")
        if name == METADATA:
            _skip_metadata(reader)
            continue
        if not is_unicode(name):
            raise ValueError(f"{name!r} must be Unicode without lone surrogates")
        stored = _stored(name, reader.row(name), shapes, last[1])
        found[name] = stored
        if len(found) > MOST_NAMES:
            raise ValueError(f"the header must name at most {MOST_NAMES:,} tensors")
        ordered, last = ordered and last <= stored[2:], stored[2:]
    reader.end()
    return found if ordered else dict(sorted(found.items(), key=lambda item: item[1][2:]))


def _skip_metadata(reader: _Reader) -> None:
    keys: set[str] = set()
    for key in reader.names(METADATA):
        if key in keys or len(keys) == MOST_METADATA:
            raise ValueError(f"{METADATA} must have at most {MOST_METADATA:,} names, each once. Received: {key!r}")
        keys.add(key)
        reader.skip_text(METADATA)


def _stored(name: str, row: Any, shapes: dict[tuple[int, ...], tuple[int, ...]], place: int) -> Stored:
    """A row of the header as a tensor; if it begins at `place`, that object is kept and not another equal one."""
    if not isinstance(row, dict) or row.keys() != _KEYS:
        raise ValueError(f"{name!r} must have dtype, shape and data_offsets. Received: {row!r:.200}")
    dtype, sizes, ends = row["dtype"], row["shape"], row["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _NAMES:
        raise ValueError(f"{name!r} must have a dtype of {', '.join(_NAMES)}. Received: {dtype!r:.200}")
    if not _whole(sizes) or not _whole(ends) or len(ends) != 2:
        raise ValueError(
            f"{name!r} must have a shape of at most {MOST_DIMENSIONS} sizes and two offsets, all below 2^63. "
            f"Received: {row!r:.200}"
        )
    kind = _NAMES[dtype]
    shape = tuple(sizes)
    shape = shapes.setdefault(shape, shape)
    needed = math.prod(shape) * np.dtype(kind).itemsize
    start, end = ends
    if end - start != needed:
        raise ValueError(f"{name!r} of shape {shape} must have {needed:,} bytes. Received: offsets {ends}")
    nbytes_of(shape, kind, repr(name))  # raises what no array can be, of no elements too
    return Stored(kind, shape, place if start == place else start, end)


def _whole(values: Any) -> bool:
    """Whether this is a list of sizes or offsets."""
    if not isinstance(values, list) or len(values) > MOST_DIMENSIONS:
        return False
    return all(type(value) is int and 0 <= value < 1 << 63 for value in values)


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
