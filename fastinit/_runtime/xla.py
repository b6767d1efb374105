"""XLA's foreign function interface (FFI): read the arguments of a custom call, in Python, by ctypes.

The structures are those of `xla/ffi/api/c_api.h`, which jaxlib ships (`jax.ffi.include_dir()`). Within major version 0
fields are only added at the end, so those named here keep their places. Versions 0.3 (jaxlib 0.10) and 0.5 (jaxlib
0.12) have been run.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_uint32, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

from fastinit._runtime.arrays import Array

MAJOR, MINOR = 0, 3  # of the interface that is described here; later minor versions have it too
INTERNAL = 13  # the error code
METADATA = 1  # the extension that asks for a handler's version

# Called with the operands' bytes and with the result's address and shape.
Call = Callable[[list[Array], int, tuple[int, ...]], None]


class _Version(ctypes.Structure):
    _fields_ = (("struct_size", c_size_t), ("extension", c_void_p), ("major", c_int), ("minor", c_int))


class _Metadata(ctypes.Structure):
    _fields_ = (("struct_size", c_size_t), ("version", _Version), ("traits", c_uint32))


class _Extension(ctypes.Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("type", c_int),
        ("next", c_void_p),
        ("metadata", POINTER(_Metadata)),
    )


class _Buffer(ctypes.Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("extension", c_void_p),
        ("dtype", c_int),
        ("data", c_void_p),
        ("rank", c_int64),
        ("dims", POINTER(c_int64)),
    )


class _Buffers(ctypes.Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("extension", c_void_p),
        ("size", c_int64),
        ("types", POINTER(c_int)),
        ("buffers", POINTER(POINTER(_Buffer))),
    )


class _ErrorArguments(ctypes.Structure):
    _fields_ = (("struct_size", c_size_t), ("extension", c_void_p), ("message", c_char_p), ("code", c_int))


class _Api(ctypes.Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("extension", c_void_p),
        ("version", _Version),
        ("internal", c_void_p),
        ("create_error", ctypes.CFUNCTYPE(c_void_p, POINTER(_ErrorArguments))),
    )


class _Frame(ctypes.Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("extension", POINTER(_Extension)),
        ("api", POINTER(_Api)),
        ("context", c_void_p),
        ("stage", c_int),
        ("operands", _Buffers),
        ("results", _Buffers),
    )


_Handler = ctypes.CFUNCTYPE(c_void_p, POINTER(_Frame))


def _shape(buffer: _Buffer) -> tuple[int, ...]:
    return tuple(buffer.dims[: buffer.rank])


def memory(address: int, nbytes: int) -> Array:
    """Return memory that is not Python's as writeable bytes."""
    buffer: Any = (ctypes.c_uint8 * nbytes).from_address(address)
    return np.frombuffer(buffer, np.uint8)


def version(include: str) -> tuple[int, int] | None:
    """Return the version of the interface of a jaxlib, or None if it is not the one described here.

    Args:
        include: the folder of jaxlib's C headers.
    """
    try:
        text = Path(include, "xla/ffi/api/c_api.h").read_text()
    except OSError:
        return None
    numbers = [re.search(rf"define XLA_FFI_API_{name}\s+(\d+)", text) for name in ("MAJOR", "MINOR")]
    major, minor = (int(number[1]) if number else -1 for number in numbers)
    return (major, minor) if major == MAJOR and minor >= MINOR else None


def handler(call: Call, dtypes: tuple[Any, ...], version: tuple[int, int] = (MAJOR, MINOR)) -> Any:
    """Return a C function that XLA can call on the CPU.

    The function is never freed: XLA's registry and compiled programs hold its address until the process ends.

    Args:
        call: is given the operands as arrays, and the address and the shape of the one result, which it must write.
            An exception becomes an error of the program.
        dtypes: of the operands.
        version: that the function claims to know. XLA refuses versions above its own.
    """

    def run(pointer: Any) -> int | None:
        frame = pointer.contents
        if frame.extension:  # XLA asks for the version once, when the function is registered
            if frame.extension.contents.type == METADATA:
                answer = frame.extension.contents.metadata.contents.version
                answer.major, answer.minor = version
            return None
        try:
            operands = []
            for i, dtype in enumerate(dtypes):
                buffer = frame.operands.buffers[i].contents
                shape, kind = _shape(buffer), np.dtype(dtype)
                size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
                operands.append(memory(buffer.data or 0, size).view(kind).reshape(shape))
            result = frame.results.buffers[0].contents
            call(operands, result.data or 0, _shape(result))
        except BaseException as error:  # XLA's thread cannot take a Python exception
            message = f"{type(error).__name__}: {error}".encode()
            arguments = _ErrorArguments(ctypes.sizeof(_ErrorArguments), None, message, INTERNAL)
            created: int | None = frame.api.contents.create_error(ctypes.byref(arguments))
            return created
        return None

    function = _Handler(run)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(function))
    return function
