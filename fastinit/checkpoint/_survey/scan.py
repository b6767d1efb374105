"""Reading all of a checkpoint once: the moments of every tensor, and a sample of its elements.

Bytes come by pread into one small buffer for each thread, which stays in the processor's cache while they are looked
at. A memory map would save the copy and cost more: its page faults take two to four times as long as the copy does, its
pages count as memory of this process, and a file that somebody cuts off kills it.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastinit._io import files
from fastinit._io.folders import StoredFile
from fastinit._io.safetensors import Stored
from fastinit._native.library import kernel
from fastinit._native.records import FIELDS, FileRange
from fastinit._runtime import workers
from fastinit._runtime.arrays import DTYPES, Array, aligned_empty
from fastinit._runtime.threads import CHUNK
from fastinit.checkpoint._survey.records import Tensor
from fastinit.stats._summary import Summary, chunks, merged, quick_kernel

BLOCK_BYTES = 1 << 20  # that pass through the cache at once: small tensors together, large ones a part at a time
PIECE_BYTES = 1 << 24  # of a large tensor, for one call into compiled code: Ctrl-C waits for it
MOST_SAMPLED = 1 << 16
MOST_TOGETHER = 1 << 8  # small tensors that one thread looks at between two calls of `each`
MOST_WAITING = 1 << 10  # tensors that are known before one that comes earlier is: some 3 kB each
_FEWEST_SAMPLED, _SHARE_SAMPLED = 1 << 12, 1 << 12  # of the elements: to sort them must not take longer than to read


@dataclass(eq=False)
class TensorScan:
    """A tensor of a file, and what is known of it when all its pieces have been seen.

    `place` is its number in the order of the tensors. `sample` has the tensor's dtype; of integers, booleans and 8-bit
    floats it is float64; of complex numbers empty.
    """

    place: int
    name: str
    file: StoredFile
    stored: Stored
    summary: Summary | None = None
    sample: Array | None = None
    _rows: Array | None = None
    _left: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def size(self) -> int:
        return math.prod(self.stored.shape)

    @property
    def dtype(self) -> str:
        return _read_as(self.stored.dtype)

    @functools.cached_property
    def numbers(self) -> int:
        """Of that dtype."""
        return self.size * (2 if self.stored.dtype == "complex64" else 1)

    @functools.cached_property
    def step(self) -> int:
        """Elements from one of the sample to the next, 0 without a sample: no divisor of the count but 1, or the
        sample would be a few columns."""
        if self.numbers != self.size or not self.size:
            return 0
        wanted = min(MOST_SAMPLED, max(_FEWEST_SAMPLED, self.size // _SHARE_SAMPLED))
        step = -(-self.size // wanted)
        while math.gcd(step, self.size) > 1:
            step += 1
        return step

    def allocate(self) -> tuple[Array, Array]:
        """The rows of all chunks and the sample, made by whichever thread is the first."""
        with self._lock:
            if self._rows is None or self.sample is None:
                self._rows = np.empty((-(-self.numbers // CHUNK), FIELDS))
                number = -(-self.size // self.step) if self.step else 0
                self.sample = np.empty(number, DTYPES.get(self.stored.dtype, np.float64))
                self._left = self.numbers
        return self._rows, self.sample

    def update(self, values: Array, first: int) -> bool:
        """Look at the numbers from `first` on, a multiple of CHUNK; whether they were the last to be seen."""
        rows, sample = self.allocate()
        wide = values if self.dtype in DTYPES else values.astype(np.float64)
        found = chunks(wide, quick=True)
        rows[first // CHUNK : first // CHUNK + len(found)] = found
        if self.step:
            place = -(-first // self.step)
            picked = wide[place * self.step - first :: self.step]
            sample[place : place + picked.size] = picked
        return self.mark_done(values.size)

    def mark_done(self, number: int) -> bool:
        """Count numbers as seen; whether they were the last."""
        with self._lock:
            self._left -= number
            return self._left == 0

    def finish(self) -> None:
        """All was seen: what is known, from all the chunks in their order."""
        rows, _ = self.allocate()
        self.summary, self._rows = merged(rows, self.numbers), None


def _read_as(dtype: str) -> str:
    """What the kernels read, where they can: a complex number is two of its parts."""
    return "float32" if dtype == "complex64" else dtype


def load_kernels(dtype: str) -> None:
    """Load what tensors of a dtype need, so that no thread has to."""
    name = _read_as(dtype)
    quick_kernel(name if name in DTYPES else "float64")


class _Piece(NamedTuple):
    """Numbers [first, first + number) of a tensor, `at` bytes into what is read with others."""

    tensor: TensorScan
    first: int
    number: int
    at: int


class _Read(NamedTuple):
    """Bytes of one file that one thread reads: one piece of a large tensor, or some small tensors."""

    file: StoredFile
    offset: int
    nbytes: int
    pieces: list[_Piece]


def _reads(tensors: Iterable[TensorScan]) -> Iterator[_Read]:
    """All the bytes of some tensors, those of a file one after the other."""
    pieces: list[_Piece] = []
    file, offset, end = None, 0, 0
    for tensor in tensors:
        size = np.dtype(tensor.dtype).itemsize
        most = (PIECE_BYTES if tensor.dtype in DTYPES else BLOCK_BYTES) // size // CHUNK * CHUNK
        place = tensor.file.start + tensor.stored.start
        for first in range(0, tensor.numbers or 1, most):  # an empty tensor is one piece of nothing
            count, here = min(most, tensor.numbers - first), place + first * size
            nbytes = count * size
            together = file is tensor.file and here == end and len(pieces) < MOST_TOGETHER
            if not together or here + nbytes - offset > BLOCK_BYTES:
                if pieces and file is not None:
                    yield _Read(file, offset, end - offset, pieces)
                pieces, file, offset = [], tensor.file, here
            pieces.append(_Piece(tensor, first, count, here - offset))
            end = here + nbytes
    if pieces and file is not None:
        yield _Read(file, offset, end - offset, pieces)


class _InOrder:
    """Pass on what several threads find, in order. A thread that is too far ahead waits."""

    def __init__(self, sink: Callable[[Tensor], None]) -> None:
        self._sink = sink
        self._waiting: dict[int, Tensor] = {}
        self._next = 0
        self._failed = False
        self._changed = threading.Condition()

    def put(self, place: int, tensor: Tensor) -> None:
        """Pass a tensor on when all before it were. The reads are begun in order, so the first that is missing is
        being read by a thread that does not wait here."""
        with self._changed:
            self._changed.wait_for(lambda: place < self._next + MOST_WAITING or self._failed)
            self._waiting[place] = tensor
            while not self._failed and self._next in self._waiting:
                self._sink(self._waiting.pop(self._next))
                self._next += 1
            self._changed.notify_all()

    @contextlib.contextmanager
    def failing(self) -> Iterator[None]:
        """Release the threads that wait, if an exception stops this one."""
        try:
            yield
        except BaseException:
            with self._changed:
                self._failed = True
                self._changed.notify_all()
            raise


def scan(
    tensors: Iterable[TensorScan],
    threads: int,
    describe: Callable[[TensorScan], Tensor],
    sink: Callable[[Tensor], None],
    advance: Callable[[int], None],
) -> None:
    """Look at all elements of some tensors. Memory does not grow with their number.

    Args:
        tensors: in the order of their files and bytes; each is taken when its turn comes.
        threads: how many.
        describe: called with each tensor when all of it was seen, on any thread.
        sink: called with what `describe` gives, in the order of the tensors, by one thread at a time.
        advance: called with the number of bytes that were read, on any thread.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is shorter than its header says.
    """
    ordered = _InOrder(sink)
    with contextlib.ExitStack() as handles:

        def worker() -> Callable[[_Read], None]:
            buffer = aligned_empty((BLOCK_BYTES,), np.dtype(np.uint8))
            file, handle = None, None  # that this thread reads

            def work(read: _Read) -> None:
                nonlocal file, handle
                if handle is None or file is not read.file:
                    if handle is not None:
                        handle.close()
                    file, handle = read.file, _opened(read.file.path, handles)
                look = _large if read.nbytes > buffer.size else _small
                with files.naming(read.file.path):
                    seen = list(look(read, handle.fileno(), buffer))
                for tensor in seen:
                    tensor.finish()
                    ordered.put(tensor.place, describe(tensor))
                advance(read.nbytes)

            def work_or_fail(read: _Read) -> None:
                with ordered.failing():
                    work(read)

            return work_or_fail

        workers.each(_reads(tensors), worker, threads, BLOCK_BYTES)


def _opened(path: Path, handles: contextlib.ExitStack) -> FileIO:
    """Open a file that is there, for as long as nothing closes it."""
    with files.opened_regular(path) as (descriptor, _):
        return handles.enter_context(FileIO(os.dup(descriptor)))


def _large(read: _Read, descriptor: int, buffer: Array) -> Iterator[TensorScan]:
    """Look at a piece of a large tensor; give the tensor if that was the last of it."""
    ((tensor, first, count, _),) = read.pieces
    rows, sample = tensor.allocate()
    size = np.dtype(tensor.dtype).itemsize
    block = buffer.size // size // CHUNK * CHUNK
    done = np.zeros(1, np.int64)
    kernel("sums.reading.read").call(
        *FileRange(
            descriptor=descriptor,
            offset=read.offset,
            elements=count,
            size=size,
            buffer=buffer.ctypes.data,
            block=block,
            kernel=quick_kernel(tensor.dtype).address,
            chunk=CHUNK,
            results=rows[first // CHUNK :].ctypes.data,
            first=first,
            sample=sample.ctypes.data,
            step=tensor.step,
            done=done.ctypes.data,
        )
    )
    number = int(done[0])
    if number < count:
        rest = read.offset + number * size
        files.read_at(descriptor, buffer[:1], rest)  # raises what is the matter, if it is not the end
        raise _cut_off(read)
    if tensor.mark_done(count):
        yield tensor


def _small(read: _Read, descriptor: int, buffer: Array) -> Iterator[TensorScan]:
    """Look at small tensors; give those that were seen to their ends."""
    received = files.read_at(descriptor, buffer[: read.nbytes], read.offset)
    if received.size < read.nbytes:
        raise _cut_off(read)
    for tensor, first, count, at in read.pieces:
        if not count or tensor.update(_values(received, tensor.dtype, count, at), first):
            yield tensor


def _cut_off(read: _Read) -> ValueError:
    return ValueError(f"{read.file.path} was cut off while it was read")


def _values(received: Array, dtype: str, count: int, at: int) -> Array:
    """Numbers in what was read; copied where they do not lie as the kernels want them."""
    kind = np.dtype(dtype)
    part = received[at : at + count * kind.itemsize]
    if at % 8:
        own = aligned_empty((part.size,), part.dtype)
        own[...] = part
        part = own
    return part.view(kind)
