"""A key names one stream of random numbers: a seed and a path of names."""

from __future__ import annotations

import functools
import hashlib
import operator
import secrets
import struct
from typing import TypeAlias

_PERSON = b"fastinit-v1"  # a new version of the stream is a new word here


def _encoded(part: bytes) -> bytes:
    return struct.pack("<I", len(part)) + part


class Key:
    """A seed and a path of names, e.g. ``Key(0) / "layers.0.weight"``.

    The same key gives every tensor the same values: two weights of one shape filled with ``seed=0`` are equal, unit
    by unit. Give a model one seed and each tensor its name.

    Args:
        seed: any non-negative int, of any size; all of it counts.

    Raises:
        TypeError: the seed is no int (a bool and a float are none), or a name is no string.
        ValueError: the seed is negative.

    The key of the generator and the upper half of its counter are 128 bits of BLAKE2b over the seed and the names
    (`docs/design.md`, "The stream").

    >>> Key(0) / "layers.0.weight"
    Key(0) / 'layers.0.weight'
    >>> Key(0) / "a" == Key(0) / "a", Key(0) / "a" == Key(0) / "b", Key(0) / "ab" == Key(0) / "a" / "b"
    (True, False, False)
    """

    __slots__ = ("_words", "path", "seed")
    seed: int
    path: tuple[str, ...]
    _words: tuple[int, int] | None

    def __init__(self, seed: int, path: tuple[str, ...] = ()) -> None:
        if isinstance(seed, bool):
            raise TypeError(f"seed must be an int, not a bool. Received: seed={seed!r}")
        try:
            seed = operator.index(seed)
        except TypeError:
            raise TypeError(f"seed must be an int or a Key. Received: seed={seed!r}") from None
        if seed < 0:
            raise ValueError(f"seed must not be negative. Received: seed={seed}")
        for name in path:
            if not isinstance(name, str):
                raise TypeError(f"a name in a key must be a string. Received: {name!r}")
        object.__setattr__(self, "seed", seed)
        object.__setattr__(self, "path", tuple(path))
        object.__setattr__(self, "_words", None)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Key does not change; make a new one (setting {name!r})")

    def __truediv__(self, name: str) -> Key:
        return Key(self.seed, (*self.path, name))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and (self.seed, self.path) == (other.seed, other.path)

    def __hash__(self) -> int:
        return hash((self.seed, self.path))

    def __repr__(self) -> str:
        return " / ".join([f"Key({self.seed})", *map(repr, self.path)])

    def __reduce__(self) -> tuple[type[Key], tuple[int, tuple[str, ...]]]:
        return Key, (self.seed, self.path)

    def words(self) -> tuple[int, int]:
        """Two 64-bit words: the Philox key k0 + 2^32 k1, and the counter's upper half c2 + 2^32 c3."""
        if self._words is None:
            encoding = _encoded(self.seed.to_bytes((self.seed.bit_length() + 7) // 8, "little"))
            encoding += b"".join(_encoded(name.encode()) for name in self.path)
            digest = hashlib.blake2b(encoding, digest_size=16, person=_PERSON).digest()
            object.__setattr__(self, "_words", struct.unpack("<QQ", digest))
        assert self._words is not None
        return self._words


Seed: TypeAlias = "int | Key | None"


def as_key(seed: Seed) -> Key:
    """The key that a seed argument means: a key itself, an int as `Key(int)`, None as fresh entropy."""
    if isinstance(seed, Key):
        return seed
    return Key(secrets.randbits(128)) if seed is None else _key_of(seed) if isinstance(seed, int) else Key(seed)


# Typed, so that True is not taken for the 1 that was asked for before. A hit saves 2 us of 5.
_key_of = functools.lru_cache(maxsize=256, typed=True)(Key)
