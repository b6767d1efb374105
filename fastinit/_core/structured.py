"""The distributions whose elements depend on each other: identities, orthogonal matrices, sparse columns.

Shapes here are (out, in, *kernel). `mean`, `std`, `low` and `high` are None where they depend on the shape.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fastinit._core.distributions import Distribution, Normal, Uniform, rounded
from fastinit._core.draw import draw
from fastinit._core.haar import haar
from fastinit._core.key import Key
from fastinit._runtime.arrays import Array, as_slice, c_strides
from fastinit._runtime.checks import finite, non_negative, positive_int

Indices = tuple[range, ...]


@dataclass(frozen=True, slots=True)
class Structured(Distribution):
    """What the structured distributions share."""

    structured: ClassVar[bool] = True
    any_dtype: ClassVar[bool] = False  # whether it fills more than the four float dtypes

    # Of the values drawn; None where they depend on the shape.
    mean: ClassVar[float | None] = None
    std: ClassVar[float | None] = None
    low: ClassVar[float | None] = None
    high: ClassVar[float | None] = None

    def make(self, out: Array, key: Key, shape: tuple[int, ...], indices: Indices, offset: int) -> None:
        """Write the part `indices` of a tensor of `shape`, drawn from element `offset` of the key's stream on."""
        raise NotImplementedError


def made_of(distribution: Distribution) -> Iterator[Distribution]:
    """A distribution and all those that it is made of."""
    yield distribution
    for inner in distribution.inner:
        yield from made_of(inner)


def needs_all(distribution: Distribution) -> bool:
    """Whether a part of a tensor takes the making of all of it."""
    return any(one.needs_all for one in made_of(distribution))


def is_portable(distribution: Distribution) -> bool:
    """Whether another process can be told of it."""
    return all(one.portable for one in made_of(distribution))


def _positions(indices: range, wanted: Array) -> Array:
    """Where global indices stand in a region's axis; -1 for those outside."""
    steps, rest = np.divmod(wanted - indices.start, indices.step)
    return np.where((rest == 0) & (steps >= 0) & (steps < len(indices)), steps, -1)


def _place(out: Array, indices: Indices, points: tuple[Array, ...], value: Any) -> None:
    """Zeros, and `value` at the global points that lie in the region."""
    out[...] = 0
    places = [_positions(index, point) for index, point in zip(indices, points, strict=True)]
    inside = np.logical_and.reduce([place >= 0 for place in places])
    out[tuple(place[inside] for place in places)] = value


def _matrix_at(out: Array, indices: Indices, centre: tuple[int, ...]) -> Array | None:
    """What a region has of the matrix at one point of the kernel; None where the point lies outside."""
    if not all(c in index for c, index in zip(centre, indices[2:], strict=True)):
        return None
    place = tuple(index.index(c) for c, index in zip(centre, indices[2:], strict=True))
    matrix: Array = out[(slice(None), slice(None), *place)]  # type: ignore[arg-type]
    return matrix


@dataclass(frozen=True, slots=True)
class _WithGain(Structured):
    """A distribution with one factor."""

    gain: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "gain", finite("gain", self.gain))


@dataclass(frozen=True, slots=True)
class Eye(_WithGain):
    """`gain` on the diagonal of a matrix, zeros elsewhere.

    Args:
        gain: a finite number.

    >>> import numpy as np
    >>> from fastinit import fill
    >>> fill(np.empty((2, 3)), Eye(), seed=0)
    array([[1., 0., 0.],
           [0., 1., 0.]])
    """

    random: ClassVar[bool] = False

    def check(self, shape: tuple[int, ...], dtype: str) -> None:
        if len(shape) != 2:
            raise ValueError(f"Only tensors with 2 dimensions are supported. Received: shape {shape}")
        rounded("gain", self.gain, dtype)

    def make(self, out: Array, key: Key, shape: tuple[int, ...], indices: Indices, offset: int) -> None:
        diagonal = np.arange(min(shape))
        _place(out, indices, (diagonal, diagonal), self.gain)


@dataclass(frozen=True, slots=True)
class Dirac(Structured):
    """A convolution that passes its input channels on: 1 at the kernel's centre (size // 2), zeros elsewhere.

    Args:
        groups: of the convolution. It must divide the output channels, and each group is a Dirac of its own.

    Shapes have 3 to 5 dimensions.

    >>> import numpy as np
    >>> from fastinit import fill
    >>> fill(np.empty((2, 2, 3)), Dirac(), seed=0)[0]
    array([[0., 1., 0.],
           [0., 0., 0.]])
    """

    groups: int = 1
    random: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", positive_int("groups", self.groups))

    def check(self, shape: tuple[int, ...], dtype: str) -> None:
        if len(shape) not in (3, 4, 5):
            raise ValueError(f"Only tensors with 3, 4, or 5 dimensions are supported. Received: shape {shape}")
        if shape[0] % self.groups:
            raise ValueError(f"dim 0 must be divisible by groups. Received: shape {shape}, groups={self.groups}")

    def make(self, out: Array, key: Key, shape: tuple[int, ...], indices: Indices, offset: int) -> None:
        height = shape[0] // self.groups
        channel = np.tile(np.arange(min(height, shape[1])), self.groups)
        group = np.repeat(np.arange(self.groups), min(height, shape[1]))
        centre = tuple(np.full(channel.size, size // 2) for size in shape[2:])
        _place(out, indices, (group * height + channel, channel, *centre), 1)


_SIGNS = 1 << 16  # elements of a Hadamard matrix whose signs are computed at once: few enough for the cache


@dataclass(frozen=True, slots=True)
class Hadamard(Structured):
    """The identity where a layer does not widen, part of a Hadamard matrix where it does: nothing is drawn.

    With out <= in, ones on the diagonal. With out > in the upper left corner of c H, H Sylvester's matrix of 2^k rows
    for k = ceil(log2 out), H[i, j] = (-1)^(number of ones in the bits of i & j), and c = 2^(-(k - 1) / 2). Of a
    convolution this is the matrix at the kernel's centre, size // 2; zeros elsewhere. (Zhao, Schaefer, Anandkumar,
    ZerO, TMLR 2022, algorithms 1 and 2; the authors' code has 2^(-k / 2), which is an isometry for out = 2^k.)

    >>> import numpy as np
    >>> from fastinit import fill
    >>> fill(np.empty((2, 1)), Hadamard(), seed=0).T, fill(np.empty((4, 2)), Hadamard(), seed=0).T * 2**0.5
    (array([[1., 1.]]), array([[ 1.,  1.,  1.,  1.],
           [ 1., -1.,  1., -1.]]))
    """

    random: ClassVar[bool] = False

    def check(self, shape: tuple[int, ...], dtype: str) -> None:
        if len(shape) < 2:
            raise ValueError(f"Only tensors with 2 or more dimensions are supported. Received: shape {shape}")

    def make(self, out: Array, key: Key, shape: tuple[int, ...], indices: Indices, offset: int) -> None:
        if shape[2:]:
            out[...] = 0
        matrix = _matrix_at(out, indices, tuple(size // 2 for size in shape[2:]))
        if matrix is None:
            return
        if shape[0] <= shape[1]:
            Eye().make(matrix, key, shape[:2], indices[:2], offset)
            return
        value = math.sqrt(math.ldexp(1.0, 1 - (shape[0] - 1).bit_length()))
        values = np.array([value, -value]).astype(out.dtype)
        rows, columns = (np.arange(index.start, index.stop, index.step) for index in indices[:2])
        height = max(1, _SIGNS // columns.size)
        for first in range(0, rows.size, height):
            slab = slice(first, first + height)
            matrix[slab] = values[np.bitwise_count(rows[slab, None] & columns) & 1]


def _working_dtype(dtype: str) -> str:
    return dtype if dtype.startswith("complex") or dtype == "float64" else "float32"


@dataclass(frozen=True, slots=True)
class Orthogonal(_WithGain):
    """`gain` times a Haar-distributed matrix with orthonormal rows or columns, whichever are fewer.

    Dimensions after the first are flattened. 16-bit targets are made in float32. A region needs the whole matrix:
    it is computed, and the region copied. (Saxe, McClelland, Ganguli, ICLR 2014.)

    Args:
        gain: the factor, and all singular values.

    >>> import numpy as np
    >>> from fastinit import fill
    >>> q = fill(np.empty((5, 3)), Orthogonal(), seed=0)
    >>> np.allclose(q.T @ q, np.eye(3))
    True
    """

    needs_all: ClassVar[bool] = True
    mean: ClassVar[float | None] = 0.0

    def check(self, shape: tuple[int, ...], dtype: str) -> None:
        if len(shape) < 2:
            raise ValueError(f"Only tensors with 2 or more dimensions are supported. Received: shape {shape}")
        rounded("gain", self.gain, dtype)

    def work_bytes(self, shape: tuple[int, ...], dtype: str) -> int:
        return 2 * math.prod(shape) * np.dtype(_working_dtype(dtype)).itemsize  # the vectors, and a matrix to copy from

    def make(self, out: Array, key: Key, shape: tuple[int, ...], indices: Indices, offset: int) -> None:
        dtype = np.dtype(_working_dtype(out.dtype.name))
        is_target = out.dtype == dtype and out.flags.carray and indices == tuple(map(range, shape))
        whole = out if is_target else np.empty(shape, dtype)
        haar(whole.reshape(shape[0], -1), key, offset)
        if not is_target or self.gain != 1:
            np.multiply(whole[tuple(map(as_slice, indices))], dtype.type(self.gain), out=out, casting="unsafe")


@dataclass(frozen=True, slots=True)
class DeltaOrthogonal(_WithGain):
    """A convolution that is an orthogonal matrix at the kernel's centre, (size - 1) // 2, and zero elsewhere.

    Shapes of 3 to 5 dimensions with at least as many output as input channels. (Xiao, Bahri, Sohl-Dickstein,
    Schoenholz, Pennington, ICML 2018, algorithm 2.)

    Args:
        gain: the factor.

    >>> import numpy as np
    >>> from fastinit import fill
    >>> kernel = fill(np.empty((3, 2, 5)), DeltaOrthogonal(), seed=0)
    >>> kernel.any(axis=(0, 1)), np.allclose(kernel[..., 2].T @ kernel[..., 2], np.eye(2))
    (array([False, False,  True, False, False]), True)
    """

    needs_all: ClassVar[bool] = True
    mean: ClassVar[float | None] = 0.0

    def check(self, shape: tuple[int, ...], dtype: str) -> None:
        if len(shape) not in (3, 4, 5):
            raise ValueError(f"Only tensors with 3, 4, or 5 dimensions are supported. Received: shape {shape}")
        if shape[1] > shape[0]:
            raise ValueError(f"fan_in must not be above fan_out, channel by channel. Received: shape {shape}")
        rounded("gain", self.gain, dtype)

    def work_bytes(self, shape: tuple[int, ...], dtype: str) -> int:
        return Orthogonal().work_bytes(shape[:2], dtype)

    def make(self, out: Array, key: Key, shape: tuple[int, ...], indices: Indices, offset: int) -> None:
        out[...] = 0
        matrix = _matrix_at(out, indices, tuple((size - 1) // 2 for size in shape[2:]))
        if matrix is not None:
            Orthogonal(self.gain).make(matrix, key, shape[:2], indices[:2], offset)


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Sparse(Structured):
    """N(0, std), with ceil(sparsity * rows) elements of every column set to zero, drawn evenly.

    Args:
        sparsity: the share of zeros, from 0 to 1.
        std: of the elements that are not zero; `normal` keeps it. The attribute `std` depends on the shape.

    Raises:
        ValueError: sparsity is not from 0 to 1, or std is negative or not finite.

    The places of the zeros come from the key's own child stream, "sparse.zeros". (Martens, ICML 2010.)

    >>> import numpy as np
    >>> from fastinit import fill
    >>> (fill(np.empty((6, 4)), Sparse(0.5), seed=0) == 0).sum(axis=0)
    array([3, 3, 3, 3])
    """

    sparsity: float
    normal: Normal
    needs_all: ClassVar[bool] = True
    mean: ClassVar[float | None] = 0.0

    def __init__(self, sparsity: float, std: float = 0.01) -> None:
        sparsity = non_negative("sparsity", sparsity)
        if sparsity > 1:
            raise ValueError(f"sparsity must be from 0 to 1. Received: sparsity={sparsity!r}")
        object.__setattr__(self, "sparsity", sparsity)
        object.__setattr__(self, "normal", Normal(0.0, std))

    def __repr__(self) -> str:
        return f"Sparse(sparsity={self.sparsity!r}, std={self.normal.std!r})"

    def check(self, shape: tuple[int, ...], dtype: str) -> None:
        if len(shape) != 2:
            raise ValueError(f"Only tensors with 2 dimensions are supported. Received: shape {shape}")
        self.normal.pack(dtype)

    def work_bytes(self, shape: tuple[int, ...], dtype: str) -> int:
        return 18 * math.prod(shape)  # float64 ranks, the int64 order of them, and two masks

    def make(self, out: Array, key: Key, shape: tuple[int, ...], indices: Indices, offset: int) -> None:
        draw(out, self.normal, key.words(), strides=c_strides(shape), indices=indices, offset=offset)
        ranks = np.empty((shape[0], len(indices[1])))
        draw(
            ranks,
            Uniform(),
            (key / "sparse.zeros").words(),
            strides=c_strides(shape),
            indices=(range(shape[0]), indices[1]),
            offset=offset,
        )
        zeros = np.zeros(ranks.shape, bool)
        lowest = np.argsort(ranks, axis=0, kind="stable")[: math.ceil(self.sparsity * shape[0])]
        np.put_along_axis(zeros, lowest, True, axis=0)
        out[zeros[np.ix_(indices[0], range(len(indices[1])))]] = 0
