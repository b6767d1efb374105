"""Keys: the encoding (docs/stream.md, "Keys") by hand, and what makes two keys one."""

import hashlib
import pickle

import numpy as np
import pytest

import fastinit as fi
from fastinit._core.key import as_key

SEEDS = [0, 1, 255, 256, 2**31, 2**32 - 1, 2**32, 2**63, 2**64, 2**200, 2**200 + 1, 10**300]
PATHS = [(), ("a",), ("a", "b"), ("model.layers.0.mlp.weight",), ("",), ("", ""), ("Gewürz", "重み", "🙂")]


def part_by_hand(content: bytes) -> bytes:
    size = len(content)
    return bytes([size & 255, size >> 8 & 255, size >> 16 & 255, size >> 24]) + content


def words_by_hand(seed: int, path: tuple[str, ...]) -> tuple[int, int]:
    """Digest bytes 0-3, 4-7, 8-11, 12-15 are k0, k1, c2, c3, each little-endian."""
    digits = []
    while seed:
        seed, digit = divmod(seed, 256)
        digits.append(digit)
    encoding = part_by_hand(bytes(digits)) + b"".join(part_by_hand(name.encode("utf-8")) for name in path)
    digest = hashlib.blake2b(encoding, digest_size=16, person=b"fastinit-v1").digest()
    k0, k1, c2, c3 = (int.from_bytes(digest[i : i + 4], "little") for i in (0, 4, 8, 12))
    return k0 + (k1 << 32), c2 + (c3 << 32)


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_words_follow_the_encoding(path):
    for seed in SEEDS:
        assert fi.Key(seed, path).words() == words_by_hand(seed, path)


def test_words_are_pinned():
    # Version 1 of the stream: a change here is a new version.
    assert fi.Key(0).words() == (0x832526FD399C08E4, 0xFB42ABEFE9AEA272)
    assert (fi.Key(7) / "layers.0.weight").words() == (0xB4AE18B00A23FB80, 0x2933CB85329C658A)


def test_words_are_remembered():
    key = fi.Key(3) / "a"
    assert key.words() is key.words()
    assert (key / "b").words() == words_by_hand(3, ("a", "b"))  # a child does not take its parent's


DIFFERENT = [
    (fi.Key(0) / "ab", fi.Key(0) / "a" / "b"),
    (fi.Key(0) / "ab" / "c", fi.Key(0) / "a" / "bc"),
    (fi.Key(0), fi.Key(0) / ""),
    (fi.Key(0) / "", fi.Key(0) / "" / ""),
    (fi.Key(0) / "a" / "b", fi.Key(0) / "b" / "a"),
    (fi.Key(0) / "a", fi.Key(1) / "a"),
    (fi.Key(97), fi.Key(0) / "a"),  # the byte of the seed is the name's
    (fi.Key(2**200), fi.Key(2**200 + 1)),
    (fi.Key(1), fi.Key(1 + 2**128)),
    (fi.Key(1), fi.Key(256)),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT, ids=repr)
def test_different_seeds_and_paths_are_different_streams(one, other):
    assert one != other
    assert one.words() != other.words()
    assert len({one, other}) == 2


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_equal_keys_are_one(path):
    one = fi.Key(5, path)
    other = fi.Key(np.uint8(5))
    for name in path:
        other = other / name
    assert one == other
    assert hash(one) == hash(other)
    assert one.words() == other.words()
    assert len({one, other}) == 1


def test_a_fresh_key_draws_the_same_again():
    keys = [fi.Key.fresh() for _ in range(50)]
    assert len(set(keys)) == 50
    assert 120 < max(key.seed for key in keys).bit_length() <= 128
    assert all(key.path == () for key in keys)
    drawn = fi.normal(5, seed=keys[0] / "w")
    assert (fi.normal(5, seed=fi.Key(keys[0].seed) / "w") == drawn).all()


def test_none_is_a_fresh_key(monkeypatch):
    monkeypatch.setattr(fi.Key, "fresh", classmethod(lambda cls: cls(7)))
    assert as_key(None) == fi.Key(7)
    assert (fi.normal(5) == fi.normal(5, seed=7)).all()


def test_a_key_is_no_int():
    assert fi.Key(0) != 0
    assert fi.Key(0) != (0, ())


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_repr_and_pickle_give_the_key_back(path):
    for seed in (0, 2**200):
        key = fi.Key(seed, path)
        assert eval(repr(key), {"Key": fi.Key}) == key
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            copy = pickle.loads(pickle.dumps(key, protocol))
            assert copy == key
            assert copy.words() == key.words()


def test_repr():
    assert repr(fi.Key(3) / "a" / "b'c") == """Key(3) / 'a' / "b'c\""""


@pytest.mark.parametrize("attribute", ["seed", "path", "name"])
def test_a_key_does_not_change(attribute):
    key = fi.Key(0) / "a"
    with pytest.raises(AttributeError, match=attribute):
        setattr(key, attribute, 1)
    assert key == fi.Key(0) / "a"


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int32, np.uint32, np.int64, np.uint64, int])
def test_integers_of_any_type_are_taken(kind):
    key = fi.Key(kind(100))
    assert key == fi.Key(100)
    assert type(key.seed) is int
    assert as_key(kind(100)).words() == fi.Key(100).words()


BAD_SEEDS = [
    (-1, ValueError, "seed must not be negative. Received: seed=-1"),
    (-(2**200), ValueError, f"seed must not be negative. Received: seed={-(2**200)}"),
    (np.int8(-3), ValueError, "seed must not be negative. Received: seed=-3"),
    (1.0, TypeError, "seed must be an int or a Key. Received: seed=1.0"),
    (float("nan"), TypeError, "seed must be an int or a Key. Received: seed=nan"),
    (np.float32(2), TypeError, "seed must be an int or a Key. Received: seed=np.float32(2.0)"),
    (True, TypeError, "seed must be an int, not a bool. Received: seed=True"),
    (False, TypeError, "seed must be an int, not a bool. Received: seed=False"),
    (np.bool_(True), TypeError, "seed must be an int or a Key. Received: seed=np.True_"),
    ("0", TypeError, "seed must be an int or a Key. Received: seed='0'"),
    (b"0", TypeError, "seed must be an int or a Key. Received: seed=b'0'"),
    ((1, 2), TypeError, "seed must be an int or a Key. Received: seed=(1, 2)"),
    ([1, 2], TypeError, "seed must be an int or a Key. Received: seed=[1, 2]"),
    ({}, TypeError, "seed must be an int or a Key. Received: seed={}"),
]


@pytest.mark.parametrize(("seed", "error", "message"), BAD_SEEDS, ids=repr)
def test_bad_seeds(seed, error, message):
    as_key(1)  # True and 1.0 are equal to a seed that was seen before
    for make in (fi.Key, as_key):
        with pytest.raises(error) as caught:
            make(seed)
        assert str(caught.value) == message


def test_key_of_none_is_an_error_but_the_seed_argument_takes_it():
    with pytest.raises(TypeError, match=r"^seed must be an int or a Key\. Received: seed=None$"):
        fi.Key(None)
    assert isinstance(as_key(None), fi.Key)


@pytest.mark.parametrize("name", [0, None, b"a", ("a",), fi.Key(0)], ids=repr)
def test_names_are_strings(name):
    message = f"a name in a key must be a string. Received: {name!r}"
    for make in (lambda: fi.Key(0) / name, lambda: fi.Key(0, ("a", name))):
        with pytest.raises(TypeError) as caught:
            make()
        assert str(caught.value) == message


def test_none_is_fresh_every_time():
    keys = [as_key(None) for _ in range(20)]
    assert len(set(keys)) == 20
    assert max(key.seed for key in keys) >= 2**100  # 128 bits of entropy, not a small number
    draws = {fi.normal(4).tobytes() for _ in range(20)}
    assert len(draws) == 20


def test_a_seed_and_its_key_are_the_same_stream():
    key = fi.Key(4) / "a"
    assert as_key(key) is key
    assert as_key(4) == fi.Key(4)
    assert fi.normal(64, seed=4).tobytes() == fi.normal(64, seed=fi.Key(4)).tobytes()


def test_one_seed_gives_two_tensors_the_same_values_and_names_part_them():
    one, other = fi.normal((8, 8), seed=0), fi.normal((8, 8), seed=0)
    assert one.tobytes() == other.tobytes()
    named = [fi.normal((8, 8), seed=fi.Key(0) / name) for name in ("q", "k", "v")]
    assert len({a.tobytes() for a in [one, *named]}) == 4
    for a in named:
        assert abs(np.corrcoef(a.ravel(), one.ravel())[0, 1]) < 0.5  # 4 sigma at 64 elements


def test_all_bits_of_a_seed_count():
    seeds = [0, *(2**i for i in range(0, 256, 5))]
    assert len({fi.uniform(4, seed=seed).tobytes() for seed in seeds}) == len(seeds)
