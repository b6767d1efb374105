"""The generator against its published answers, and the compiled words against plain NumPy."""

from pathlib import Path

import numba
import numpy as np
import pytest
import reference

import fastinit as fi
from fastinit.kernels import philox

KNOWN = [
    [int(word, 16) for word in line.split()]
    for line in (Path(__file__).parent / "kat" / "philox4x32-10.txt").read_text().splitlines()
    if not line.startswith("#")
]
u64 = np.uint64


@numba.njit
def compiled_words32(counter, key, stream, words):
    planes = np.empty_like(words)
    philox.words32(counter, key, stream, planes)
    philox.interleave32(planes, words)


@numba.njit
def compiled_words64(counter, key, stream, words):
    planes = np.empty_like(words)
    philox.words64(counter, key, stream, planes)
    philox.interleave64(planes, words)


@pytest.mark.parametrize("known", KNOWN, ids=["zeros", "ones", "pi"])
def test_known_answers(known):
    counter, key, output = known[:4], known[4:6], known[6:]
    assert len(KNOWN) == 3
    np.testing.assert_array_equal(reference.philox(np.array([counter], u64), key)[0], np.array(output, u64))
    assert list(philox.philox(*counter, *key)) == output


@pytest.mark.parametrize("counter", [0, 64, 2**32 - 64, 2**32, 2**40 + 64, 2**62])
@pytest.mark.parametrize("seed", [0, 2**200])
def test_words_are_the_blocks_of_the_stream(counter, seed):
    key = reference.key_words(seed, "name")
    blocks = reference.blocks(counter, philox.COUNTERS, key)
    key_word, stream = (u64(word) for word in (fi.Key(seed) / "name").words())
    assert (int(key_word), int(stream)) == (key[0] | key[1] << 32, key[2] | key[3] << 32)
    narrow = np.empty(4 * philox.COUNTERS, np.uint32)
    compiled_words32(u64(counter), key_word, stream, narrow)
    np.testing.assert_array_equal(narrow.reshape(-1, 4), blocks)
    wide = np.empty(2 * philox.COUNTERS, u64)
    compiled_words64(u64(counter), key_word, stream, wide)
    np.testing.assert_array_equal(wide.reshape(-1, 2), blocks[:, ::2] | blocks[:, 1::2] << u64(32))
