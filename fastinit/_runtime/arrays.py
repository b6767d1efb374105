"""Targets: which arrays can be filled, and how a region of a tensor lies in one."""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import itertools
import math
import mmap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import numpy.typing as npt

from fastinit._native import catalogue
from fastinit._native.records import Rows
from fastinit._runtime.checks import whole

Array: TypeAlias = npt.NDArray[Any]
Arrays: TypeAlias = Array | Mapping[Any, Array] | Iterable[Array]
Region: TypeAlias = tuple[slice, ...]

DTYPES: dict[str, np.dtype[Any]] = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
}
MOST_DIMENSIONS = 64  # of NumPy's arrays
FLOATS = catalogue.FLOATS
PARTS = {"complex64": "float32", "complex128": "float64"}  # the dtypes of the real and the imaginary part
NUMBERS = (*DTYPES, *PARTS)
# A big-endian dtype is not equal, and not found.
_NAMES = {dtype: name for name, dtype in DTYPES.items()} | {np.dtype(name): name for name in PARTS}


_SHORT_DTYPES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32", "fp64": "float64"}
_LONGEST_DTYPE = 32  # characters of a name; of a text of a thousand fields NumPy would make a structure


def as_dtype(dtype: Any) -> np.dtype[Any]:
    """The dtype of a `dtype=` argument: a name, a NumPy dtype, a scalar type, or one of torch's dtypes.

    Raises:
        TypeError: it is none of float16, bfloat16, float32, float64.

    >>> as_dtype("bf16") == as_dtype("torch.bfloat16") == as_dtype("bfloat16")
    True
    """
    dtype = long_name(dtype)
    if isinstance(dtype, str) and dtype in DTYPES:
        return DTYPES[dtype]
    found = None if dtype is None else dtype_or_none(dtype)  # NumPy takes None for float64
    if found is None or _NAMES.get(found) not in DTYPES:
        raise TypeError(f"dtype must be one of {', '.join(DTYPES)}. Received: dtype={dtype!r:.200}")
    return found


def long_name(dtype: Any) -> Any:
    """NumPy's name of a float dtype for torch's dtypes, their names (torch.bfloat16), and bf16, fp16, fp32, fp64; all
    else as it is."""
    if isinstance(dtype, str):
        text = dtype
    elif type(dtype).__module__ == "torch" and type(dtype).__name__ == "dtype":
        text = str(dtype)
    else:
        return dtype
    plain = text.removeprefix("torch.")
    name = _SHORT_DTYPES.get(plain.lower(), plain)
    return name if name in DTYPES else dtype


def dtype_or_none(dtype: Any) -> np.dtype[Any] | None:
    """What NumPy makes of a `dtype=` argument; None if it refuses it, or it is no name but a text of a structure."""
    if isinstance(dtype, str) and len(dtype) > _LONGEST_DTYPE:
        return None
    try:
        found: np.dtype[Any] = np.dtype(dtype)
    except (TypeError, ValueError, SyntaxError, OverflowError, RecursionError):  # of lists, dicts and texts with commas
        return None
    return found


# JAX takes memory over instead of copying it where it begins at a multiple of this: a cache line.
ALIGNMENT = 64


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """A new array, not yet filled, that begins at a multiple of 64 bytes: XLA takes such memory over without a copy.

    >>> aligned_empty((2, 3), DTYPES["bfloat16"]).ctypes.data % 64
    0
    """
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


_HUGE_FROM = 1 << 22  # bytes, as in NumPy
_PAGE = mmap.PAGESIZE


@functools.cache
def _madvise() -> Any:
    """The function of the C library; None where the system has no huge pages."""
    try:
        function = ctypes.CDLL(None).madvise if hasattr(mmap, "MADV_HUGEPAGE") else None
    except (OSError, AttributeError):
        return None
    if function is not None:
        function.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    return function


def prefer_huge_pages(place: int, nbytes: int) -> None:
    """Ask the system for huge pages under memory that nothing was written to yet, as NumPy does for its own arrays.

    It is advice, and makes no difference where the system knows none.
    """
    if nbytes >= _HUGE_FROM and (advise := _madvise()) is not None:
        first, end = -(-place // _PAGE) * _PAGE, (place + nbytes) // _PAGE * _PAGE
        advise(first, end - first, mmap.MADV_HUGEPAGE)


def dtype_name(dtype: np.dtype[Any]) -> str:
    """The name of a dtype that `as_dtype` or `check_target` has let pass."""
    return _NAMES[dtype]


def overlaps(shape: Sequence[int], strides: Sequence[int], size: int = 1) -> bool:
    """Return True if two elements may share memory: some stride is shorter than what lies inside it.

    Args:
        shape: of an array.
        strides: in bytes, or in elements.
        size: of an element, in the same unit.
    """
    for stride, count in sorted((abs(stride), n) for stride, n in zip(strides, shape, strict=True) if n > 1):
        if stride < size:
            return True
        size += stride * (count - 1)
    return False


def check_source(x: Any, name: str, dtypes: Collection[str] = DTYPES) -> str:
    """The dtype's name of an array that can be read; `name` is what messages call it.

    Raises:
        TypeError: not a NumPy array, or none of these dtypes.
    """
    found = _NAMES.get(x.dtype, "") if isinstance(x, np.ndarray) else ""
    if found not in dtypes:
        *others, last = dtypes
        received = x.dtype if isinstance(x, np.ndarray) else type(x).__name__
        raise TypeError(f"{name} must be a NumPy array of {', '.join(others)} or {last}. Received: {received}")
    return found


def check_target(out: Any, name: str = "out", dtypes: Collection[str] = DTYPES) -> str:
    """The dtype's name of an array that can be written; `name` is what messages call it.

    Raises:
        TypeError: not a NumPy array, or none of these dtypes.
        ValueError: read-only, or its elements share memory.
    """
    found = check_source(out, name, dtypes)
    flags = out.flags
    if flags.carray:  # contiguous, aligned and writeable: the usual case
        return found
    if not flags.writeable:
        raise ValueError(f"{name} must be writeable. Received: a read-only array")
    if not flags.c_contiguous and overlaps(out.shape, out.strides, out.itemsize):
        raise ValueError(f"{name} must not overlap itself. Received: shape {out.shape} with strides {out.strides}")
    return found


def check_form(x: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Refuse all but an array of this shape and dtype.

    Raises:
        TypeError: not a NumPy array.
        ValueError: another shape or dtype.
    """
    if isinstance(x, np.ndarray) and x.shape == shape and x.dtype == dtype:
        return
    wanted = f"{name} must be an array of shape {shape} of {dtype.name}"
    if isinstance(x, np.ndarray):
        raise ValueError(f"{wanted}. Received: {x.shape} of {x.dtype}")
    raise TypeError(f"{wanted}. Received: {type(x).__name__}")


def check_contiguous(x: Array, name: str) -> None:
    """Refuse an array with gaps, in another order than C's, or not aligned."""
    if not (x.flags.c_contiguous and x.flags.aligned):
        raise ValueError(f"{name} must be C-contiguous and aligned. Received: strides {x.strides}")


def check_apart(written: Mapping[str, Array], read: Mapping[str, Array]) -> None:
    """Refuse contiguous results that share memory, with one another or with what is read while they are written."""
    others = dict(read)
    for name, result in written.items():
        for other, array in others.items():
            if np.may_share_memory(result, array):  # exact: all are contiguous
                raise ValueError(f"{name} must not share memory with {other}")
        others[name] = result


def as_matrix(x: Any, name: str, dtype: np.dtype[Any] | None = None) -> Array:
    """A C-contiguous matrix of float32 or float64, of `dtype` where it is given; a copy where need be."""
    check_source(x, name, FLOATS)
    if x.ndim != 2:
        raise ValueError(f"{name} must have two dimensions (rows, columns). Received: shape {x.shape}")
    if dtype is not None and x.dtype != dtype:
        raise ValueError(f"{name} must have the dtype {dtype.name} of the others. Received: {x.dtype.name}")
    return np.ascontiguousarray(x)


def as_result(x: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """A caller's contiguous array for a result, or a new one for None."""
    if x is None:
        return np.empty(shape, dtype)
    check_form(x, name, shape, dtype)
    check_target(x, name)
    check_contiguous(x, name)
    return x  # type: ignore[no-any-return]


@dataclasses.dataclass(frozen=True)
class NamedArrays:
    """The arrays of an argument, and what messages call each; a name is made where a message needs it.

    Attributes:
        argument: the argument's name.
        arrays: what it holds, not yet checked.
        keys: of a mapping, else the numbers; None for one array by itself.
    """

    argument: str
    arrays: list[Any]
    keys: Sequence[Any] | None

    def name(self, number: int) -> str:
        """What messages call an array."""
        return self.argument if self.keys is None else f"{self.argument}[{self.keys[number]!r}]"


def named_arrays(arrays: Arrays, name: str) -> NamedArrays:
    """One array or several, by key or number.

    Raises:
        TypeError: no array, and nothing that can hold some.

    >>> named = named_arrays({"weight": np.ones(2)}, "arrays")
    >>> named.name(0)
    "arrays['weight']"
    """
    if isinstance(arrays, np.ndarray):
        return NamedArrays(name, [arrays], None)
    if isinstance(arrays, Mapping):
        return NamedArrays(name, list(arrays.values()), list(arrays))
    try:
        several = list(arrays)
    except TypeError:
        received = type(arrays).__name__
        raise TypeError(f"{name} must be a NumPy array or several in a list or dict. Received: {received}") from None
    return NamedArrays(name, several, range(len(several)))


def paired_arrays(parameters: Arrays, gradients: Arrays) -> tuple[NamedArrays, NamedArrays]:
    """The parameters and as many gradients: by their keys where both have keys, else by their order.

    Raises:
        TypeError: as `named_arrays`.
        ValueError: their keys or numbers differ.
    """
    weights, slopes = named_arrays(parameters, "parameters"), named_arrays(gradients, "gradients")
    if isinstance(parameters, Mapping) and isinstance(gradients, Mapping):
        if parameters.keys() != gradients.keys():
            differing = ", ".join(sorted(map(repr, parameters.keys() ^ gradients.keys())))
            raise ValueError(f"gradients must have the keys of parameters. Received: only one has {differing}")
        slopes = NamedArrays(slopes.argument, [gradients[key] for key in parameters], weights.keys)
    if len(weights.arrays) != len(slopes.arrays):
        received = len(slopes.arrays)
        raise ValueError(f"gradients must be as many as parameters, {len(weights.arrays)}. Received: {received}")
    return weights, slopes


def blocks(out: Array, indices: tuple[range, ...], size: int) -> Iterator[tuple[Array, tuple[range, ...]]]:
    """An array, and the global indices that it has, in blocks of at most `size` elements."""
    if out.size <= size:
        if out.size:
            yield out, indices
        return
    axis = next(axis for axis, n in enumerate(out.shape) if n > 1)
    height = max(1, size // (out.size // out.shape[axis]))
    for first in range(0, out.shape[axis], height):
        block = out[(*[slice(None)] * axis, slice(first, first + height))]
        yield from blocks(block, (*indices[:axis], indices[axis][first : first + height], *indices[axis + 1 :]), size)


def memory_order(x: Array) -> Array:
    """The same elements in the order in which they lie in memory, where that makes a view without gaps of them; for
    work that does not care for the order. Otherwise the array as it is."""
    if not x.flags.c_contiguous:
        forward = x[tuple(slice(None, None, -1 if step < 0 else 1) for step in x.strides)]
        forward = forward.transpose(sorted(range(x.ndim), key=lambda axis: -forward.strides[axis]))
        return forward if forward.flags.c_contiguous else x
    return x


def as_shape(shape: Any, name: str = "shape") -> tuple[int, ...]:
    """A shape from an int or a sequence of ints."""
    if isinstance(shape, tuple) and len(shape) <= MOST_DIMENSIONS:
        for n in shape:  # a generator would take as long as the rest of the call
            if type(n) is not int or n < 0:
                break
        else:
            if 0 < math.prod(shape) < 1 << 63:
                return tuple(shape)  # torch.Size is one too
    try:
        if isinstance(shape, (str, bytes, set, frozenset, dict)):
            raise TypeError
        several = (shape,) if isinstance(shape, (int, np.integer)) else shape
        sizes = tuple(map(whole, itertools.islice(several, MOST_DIMENSIONS + 1)))
    except TypeError:
        raise TypeError(f"{name} must be an int or a sequence of ints. Received: {name}={shape!r:.200}") from None
    if len(sizes) > MOST_DIMENSIONS:
        raise ValueError(f"{name} must have at most {MOST_DIMENSIONS} dimensions. Received: more")
    if any(n < 0 for n in sizes):
        raise ValueError(f"{name} must not be negative. Received: {name}={sizes!r:.200}")
    nbytes_of(sizes, "uint8", name)
    return sizes


def nbytes_of(shape: tuple[int, ...], dtype: str, name: str = "shape") -> int:
    """The bytes of an array of this shape.

    Raises:
        ValueError: NumPy has no such array; a size of 0 does not help where the others are too large. `name` is what
            the message calls it.

    >>> nbytes_of((2, 3), "float32"), nbytes_of((0, 2**40), "float32")
    (24, 0)
    """
    nbytes = np.dtype(dtype).itemsize * math.prod(shape)
    if nbytes >= 1 << 63 or (not nbytes and math.prod(n or 1 for n in shape) * np.dtype(dtype).itemsize >= 1 << 63):
        received = [n if n < 1 << 63 else "2^63 or more" for n in shape]  # Python prints no more than 4,300 digits
        raise ValueError(
            f"{name} must be smaller than 2^63 bytes, a size of 0 counted as 1. Received: shape {received}"
        )
    return nbytes


def as_region(region: Sequence[slice] | None, shape: tuple[int, ...], out: Array | None = None) -> tuple[range, ...]:
    """Return the global indices that a region covers, along every axis; axes that it leaves out are whole.

    Raises:
        TypeError: the region is no tuple of slices.
        ValueError: the region has more axes than the shape, the shape too many elements, or `out` another shape than
            the region.
    """
    if math.prod(shape) >= 1 << 63:
        raise ValueError(f"shape must have fewer than 2^63 elements. Received: shape={shape}")
    slices = () if region is None else region
    if not isinstance(slices, tuple) or not all(isinstance(s, slice) for s in slices):
        raise TypeError(f"region must be a tuple of slices. Received: region={region!r}")
    if len(slices) > len(shape):
        raise ValueError(f"region must have at most {len(shape)} slices, one per axis. Received: {len(slices)}")
    whole_axes = (slice(None),) * (len(shape) - len(slices))
    indices = tuple(range(n)[s] for s, n in zip(slices + whole_axes, shape, strict=True))
    if out is not None and (part := tuple(map(len, indices))) != out.shape:
        raise ValueError(f"out must have the region's shape {part}, of the global {shape}. Received: {out.shape}")
    return indices


def as_slice(part: range) -> slice:
    """The slice that takes these indices."""
    return slice(part.start, None if part.step < 0 and part.stop < 0 else part.stop, part.step)


def boxes(shape: tuple[int, ...], start: int, stop: int) -> Iterator[Region]:
    """The elements [start, stop) of a tensor in C order, as few regions, one after the other.

    >>> list(boxes((4, 10), 7, 32))
    [(slice(0, 1, None), slice(7, 10, None)), (slice(1, 3, None),), (slice(3, 4, None), slice(0, 2, None))]
    """
    if start >= stop:
        return
    if len(shape) < 2:
        yield (slice(start, stop),)[: len(shape)]
        return
    row = math.prod(shape[1:])
    (first, begin), (last, end) = divmod(start, row), divmod(stop, row)
    if first == last:
        yield from ((slice(first, first + 1), *box) for box in boxes(shape[1:], begin, end))
        return
    if begin:
        yield from ((slice(first, first + 1), *box) for box in boxes(shape[1:], begin, row))
        first += 1
    if first < last:
        yield (slice(first, last),)
    yield from ((slice(last, last + 1), *box) for box in boxes(shape[1:], 0, end))


# An array is, in NumPy's C interface, Python's head of an object and then the pointer to the first element.
HEAD = object.__basicsize__
_pointer_at = ctypes.c_void_p.from_address


def address(out: Array) -> int:
    """Return where the first element lies: `out.ctypes.data`, which takes ten times as long."""
    return _pointer_at(id(out) + HEAD).value or 0


@functools.lru_cache(maxsize=4096)
def c_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """From one index to the next along each axis, in elements, where a tensor's elements are counted in C order.

    >>> c_strides((2, 3, 4))
    (12, 4, 1)
    """
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def common(a: range, b: range) -> range:
    """The numbers in both of two ascending ranges."""
    step = math.lcm(a.step, b.step)
    shared = math.gcd(a.step, b.step)
    if (b.start - a.start) % shared:
        return range(0)
    turns = (b.start - a.start) // shared * pow(a.step // shared, -1, b.step // shared) % (b.step // shared)
    first = a.start + turns * a.step  # the least member of a's line, from a's start on, that is on b's line
    low = max(a.start, b.start)
    first += max(0, -(-(low - first) // step)) * step
    return range(first, min(a.stop, b.stop), step)


def runs(out: Array, steps: tuple[int, ...], indices: tuple[range, ...], start: int = 0) -> Iterator[Rows]:
    """The region `indices` of a tensor as it lies in `out`, whose innermost axis is contiguous.

    Axes that are one run both in the target and in the stream become one axis; the two innermost that are left are
    the rows and columns of a piece, and the outer ones are counted through here.

    Args:
        out: the region's memory.
        steps: of the stream, from one index of the tensor to the next along each axis.
        indices: the region.
        start: of the stream, at the tensor's first element.
    """
    start += sum(index.start * step for index, step in zip(indices, steps, strict=True) if len(index))
    axes: list[tuple[int, int, int]] = []  # (size, bytes of the target, elements of the stream), innermost last
    for n, out_step, index, step in zip(out.shape, out.strides, indices, steps, strict=True):
        if n == 1:
            continue
        stream_step = index.step * step
        if axes and axes[-1][1:] == (n * out_step, n * stream_step):
            axes[-1] = (axes[-1][0] * n, out_step, stream_step)
        else:
            axes.append((n, out_step, stream_step))
    if not axes or axes[-1][1:] != (out.itemsize, 1):
        axes.append((1, out.itemsize, 1))  # a stepped region: runs of one element
    (columns, _, _) = axes.pop()
    rows, out_row, stream_row = axes.pop() if axes else (1, 0, 0)
    base = address(out)
    for outer in itertools.product(*(range(n) for n, _, _ in axes)):
        location = base + sum(i * step for i, (_, step, _) in zip(outer, axes, strict=True))
        first = start + sum(i * step for i, (_, _, step) in zip(outer, axes, strict=True))
        yield Rows(location, rows, columns, out_step=out_row, start=first, stream_step=stream_row)
