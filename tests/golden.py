"""The pinned values of the stream. `python tests/golden.py` writes `golden.json` anew, which is a new stream version.

A change of the stream needs a new version in the key's person, a line in the changelog and a reason.
"""

import hashlib
import json
from pathlib import Path

import numpy as np

import fastinit as fi
from fastinit._core.complex import fill_complex
from fastinit._runtime.arrays import DTYPES

PATH = Path(__file__).parent / "golden.json"
LAWS = {
    "constant": fi.Constant(0.1),
    "uniform": fi.Uniform(-0.3, 0.7),
    "normal": fi.Normal(0.5, 0.02),
    "narrow truncation": fi.TruncatedNormal(0, 0.02, -0.04, 0.04),
    "wide truncation": fi.TruncatedNormal(0.1, 1, -3, 100),
    "tail": fi.TruncatedNormal(0, 1, 20, 21),
}
KEYS = {"Key(0)": fi.Key(0), "Key(2**200) / 'layers.0.weight'": fi.Key(2**200) / "layers.0.weight"}
OFFSETS = (0, 1021, 2**32 - 3, 2**34 + 255)
MANY = 100_003
MATRICES = (5, 5), (200, 130), (70, 300)  # orthogonal: of one block of reflections, and of several


def hexed(x):
    return np.ascontiguousarray(x).view(np.uint8).tobytes().hex(" ", x.itemsize)


def values(law, dtype, key, mode, offset, count=6):
    """Elements [offset, offset + count) of a tensor of 2^35 elements, written over (or added to) ones."""
    out = np.ones(count, DTYPES[dtype])
    where = {"shape": 2**35, "region": (slice(offset, offset + count),)}
    return fi.fill(out, law, seed=key, **where) if mode == "fill" else fi.add(out, law, seed=key, scale=0.3, **where)


def digest(law, dtype, key):
    out = fi.fill(np.empty(MANY, DTYPES[dtype]), law, seed=key)
    return hashlib.blake2b(out.view(np.uint8).tobytes(), digest_size=8).hexdigest()


def matrix_digest(shape, dtype, key):
    out = fi.fill(np.empty(shape, DTYPES[dtype]), fi.Orthogonal(2**0.5), seed=key)
    return hashlib.blake2b(out.view(np.uint8).tobytes(), digest_size=8).hexdigest()


def unitary_digest(shape, dtype, key):
    out = fill_complex(np.empty(shape, dtype), fi.Orthogonal(2**0.5), seed=key)
    return hashlib.blake2b(out.tobytes(), digest_size=8).hexdigest()


def matrices():
    """The same of matrices."""
    for dtypes, compute in (DTYPES, matrix_digest), (("complex64", "complex128"), unitary_digest):
        for dtype in dtypes:
            for shape in MATRICES:
                for key_name, key in KEYS.items():
                    yield f"matrix {shape} {dtype} {key_name}", lambda c=(compute, shape, dtype, key): c[0](*c[1:])


def cases():
    """A readable name, and what computes the pinned text."""
    for law_name, law in LAWS.items():
        for dtype in DTYPES:
            for key_name, key in KEYS.items():
                for mode in ("fill", "add"):
                    for offset in OFFSETS:
                        name = f"{mode} {law_name} {dtype} {key_name} at {offset}"
                        yield name, lambda c=(law, dtype, key, mode, offset): hexed(values(*c))
                yield f"digest {law_name} {dtype} {key_name}", lambda c=(law, dtype, key): digest(*c)
    yield from matrices()


def main():
    PATH.write_text(json.dumps({name: compute() for name, compute in cases()}, indent=0) + "\n")


if __name__ == "__main__":
    main()
