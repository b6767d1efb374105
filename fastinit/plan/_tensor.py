"""Tensors that a compiled program asks for block by block: described as text, drawn by the words of a key."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastinit._core.complex import fill_complex
from fastinit._core.distributions import Distribution
from fastinit._runtime.arrays import DTYPES, Array, aligned_empty, as_region
from fastinit._runtime.sharing import Shared
from fastinit.plan._serialization import from_table, to_table
from fastinit.schemes._filling import fill


def seed_of(words: Array) -> int:
    """Return the words of a key as one number, the first word on top.

    >>> seed_of(np.array([1, 5], np.uint32)) == 2**32 + 5
    True
    """
    return int.from_bytes(words.astype(">u4").tobytes(), "big")


@dataclass(frozen=True)
class Tensor:
    """What is to be drawn, but for the seed.

    Args:
        law: the distribution.
        shape: of the whole tensor, in the layout "io".
        dtype: any dtype that a framework has. The narrow ones that the kernels do not know are rounded from float32.
        column_axis: the axis of a matrix's columns; all others are its rows.
    """

    law: Distribution
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    column_axis: int = -1

    @functools.cached_property
    def text(self) -> Array:
        """The tensor as the bytes of JSON, which compiled programs contain; `read` is the inverse."""
        fields = {
            "distribution": to_table(self.law, (), "float32"),
            "shape": self.shape,
            "dtype": self.dtype.name,
            "column_axis": self.column_axis,
        }
        return np.frombuffer(json.dumps(fields, sort_keys=True).encode(), np.uint8)

    def draw(self, words: Array, region: tuple[slice, ...] | None = None, out: Array | None = None) -> Array:
        """Return the values of the whole or of a region, drawn into `out` where it is given."""
        region = (slice(None),) * len(self.shape) if region is None else region
        part = tuple(map(len, as_region(region, self.shape)))
        known = self.dtype.kind == "c" or self.dtype in DTYPES.values()
        target = out
        if target is None or not known:
            target = aligned_empty(part, self.dtype if known else np.dtype(np.float32))
        write: Any = fill_complex if self.dtype.kind == "c" else fill
        write(
            target.transpose(self._columns_last(range(target.ndim))),
            self.law,
            seed=seed_of(words),
            shape=self._columns_last(self.shape),
            region=self._columns_last(region),
            layout="io",
        )
        if known:
            return target
        if out is None:
            return target.astype(self.dtype)  # float8 and the like
        out[...] = target
        return out

    def _columns_last(self, axes: Sequence[Any]) -> tuple[Any, ...]:
        order = list(axes)
        if order:
            order.append(order.pop(self.column_axis))
        return tuple(order)

    def write(self, out: Array, words: Array, position: Array) -> None:
        """Write the block at a position of the tensors of a batch of keys.

        Args:
            out: the block, of shape (*batch, *shape). Only the last blocks along an axis may reach beyond it.
            words: of the keys, (*batch, words of a key).
            position: of the block along the last axes, counted in blocks; 0 along the others. Axes before the last of
                this array are copies.
        """
        if not out.size:
            return
        place = position[(0,) * (position.ndim - 1)].tolist()
        place = [0] * (out.ndim - len(place)) + place
        sizes = (*words.shape[:-1], *self.shape)
        block = [
            slice(min(i * n, size), min((i + 1) * n, size)) for i, n, size in zip(place, out.shape, sizes, strict=True)
        ]
        inside = tuple(slice(cut.stop - cut.start) for cut in block)
        if out[inside].shape != out.shape:
            out[...] = 0  # padding
        batch = len(sizes) - len(self.shape)
        region = tuple(block[batch:])
        for index in np.ndindex(out[inside].shape[:batch]):
            key = words[tuple(cut.start + i for cut, i in zip(block, index, strict=False))]
            target = out[(*index, *inside[batch:], ...)]  # an array for a scalar too
            if self.law.needs_all and target.shape != self.shape:
                with _WHOLE.use((self, key.tobytes()), functools.partial(self.draw, key)) as whole:
                    target[...] = whole[region]
            else:
                self.draw(key, region, target)


_WHOLE = Shared()  # the matrices that the devices of a program cut their blocks from


@functools.lru_cache(maxsize=1024)
def read(text: bytes) -> Tensor:
    """Return the tensor that a text describes."""
    fields = json.loads(text)
    law = from_table(fields["distribution"], (), "float32")
    return Tensor(law, tuple(fields["shape"]), np.dtype(fields["dtype"]), fields["column_axis"])
