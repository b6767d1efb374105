"""A key names one stream of random numbers: a seed and a path of names."""

from __future__ import annotations

import hashlib
import secrets
import struct
from typing import Any, TypeAlias

from fastinit._runtime.checks import whole

# The next version of the stream (STREAM_VERSION in _runtime/environment.py) is a new word here.
_FRESH = hashlib.blake2b(digest_size=16, person=b"fastinit-v1")
_length, _two_words = struct.Struct("<I").pack, struct.Struct("<QQ").unpack


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
    (`docs/stream.md`, "Keys").

    >>> Key(0) / "layers.0.weight"
    Key(0) / 'layers.0.weight'
    >>> Key(0) / "a" == Key(0) / "a", Key(0) / "a" == Key(0) / "b", Key(0) / "ab" == Key(0) / "a" / "b"
    (True, False, False)
    """

    # The hash of the encoding so far goes on from key to key: a child costs one short update.
    __slots__ = ("_hash", "_path", "_seed", "_words")
    _hash: Any
    _path: tuple[str, ...]
    _seed: int
    _words: tuple[int, int] | None

    def __init__(self, seed: int, path: tuple[str, ...] = ()) -> None:
        if type(seed) is not int or seed < 0:
            seed = _checked_seed(seed)
        if isinstance(path, str):
            raise TypeError(f"path must be a tuple of names. Received: path={path!r}")
        self._seed = seed
        self._path = tuple(path)
        self._hash = _seeded(seed)
        self._words = None
        for name in self._path:
            self._hash = _extended(self._hash, _encoded(name))

    @classmethod
    def fresh(cls) -> Key:
        """Return a key whose seed is 128 bits of fresh entropy of the operating system.

        That is what `seed=None` means where NumPy arrays are filled. Keep the key to be able to draw the same again.

        >>> key = Key.fresh()
        >>> Key(key.seed) == key, Key.fresh() == key
        (True, False)
        """
        return cls(secrets.randbits(128))

    @property
    def seed(self) -> int:
        """The seed as an int."""
        return self._seed

    @property
    def path(self) -> tuple[str, ...]:
        return self._path

    def __truediv__(self, name: str) -> Key:
        child = Key.__new__(Key)
        child._hash = _extended(self._hash, _encoded(name))
        child._seed = self._seed
        child._path = (*self._path, name)
        child._words = None
        return child

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
            key, stream = _two_words(self._hash.digest())
            self._words = key, stream
        return self._words


def _seeded(seed: int) -> Any:
    size = (seed.bit_length() + 7) // 8
    state = _FRESH.copy()
    state.update((seed << 32 | size).to_bytes(size + 4, "little"))  # the length and the bytes of `_extended` in one
    return state


def _encoded(name: object) -> bytes:
    if not isinstance(name, str):
        raise TypeError(f"a name in a key must be a string. Received: {name!r}")
    try:
        return name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"a name in a key must be Unicode without lone surrogates. Received: {name!r}") from None


def _extended(state: Any, part: bytes) -> Any:
    """The hash after one more part of the encoding: its length, its bytes."""
    state = state.copy()
    state.update(_length(len(part)) + part)
    return state


def _checked_seed(seed: object) -> int:
    if isinstance(seed, bool):
        raise TypeError(f"seed must be an int, not a bool. Received: seed={seed!r}")
    try:
        number = whole(seed)
    except TypeError:
        raise TypeError(f"seed must be an int or a Key. Received: seed={seed!r}") from None
    if number < 0:
        raise ValueError(f"seed must not be negative. Received: seed={number}")
    return number


Seed: TypeAlias = "int | Key | None"


def as_key(seed: Seed) -> Key:
    """The key that a seed argument means: a key itself, an int as `Key(int)`, None as fresh entropy."""
    if isinstance(seed, Key):
        return seed
    return Key.fresh() if seed is None else Key(seed)


def words_of(seed: Seed) -> tuple[int, int]:
    """`as_key(seed).words()`; of a plain int without making the key, which would be a fifth of a small call."""
    if type(seed) is int and seed >= 0:
        return _two_words(_seeded(seed).digest())
    return as_key(seed).words()
