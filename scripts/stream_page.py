"""Write the tables of `docs/stream.md`: coefficients and constants out of the kernels, test vectors out of the library.

Run: python scripts/stream_page.py. A changed vector is a new version of the stream.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import fastinit as fi
from fastinit._core.complex import fill_complex
from fastinit._runtime.arrays import DTYPES
from fastinit.kernels import elementary as e

PAGE = Path(__file__).parents[1] / "docs" / "stream.md"

POLYNOMIALS = {
    "coefficients32": ("LOG1P_32", "SINPI_32", "COSPI_32", "QUANTILE_32_P", "QUANTILE_32_Q"),
    "tail32": ("TAIL_32_P", "TAIL_32_Q"),
    "coefficients64": ("ATANH_64", "SINPI_64", "COSPI_64"),
    "quantile64": ("QUANTILE_64_P", "QUANTILE_64_Q"),
    "near64": ("NEAR_TAIL_64_P", "NEAR_TAIL_64_Q"),
    "far64": ("FAR_TAIL_64_P", "FAR_TAIL_64_Q"),
}
CONSTANTS = (
    "LN2_HIGH_32", "LN2_LOW_32", "EDGE_32", "EDGE_SQUARED_32",
    "LN2_HIGH_64", "LN2_LOW_64", "EDGE_SQUARED_64", "TAIL_64",
)  # fmt: skip

KEYS = {"A": fi.Key(0), "B": fi.Key(0) / "layers.0.weight", "C": fi.Key(2**64 + 1) / "a" / "ü"}
BLOCKS = (0, 1, 2**32 - 1, 2**32, 2**63 + 5)
LAWS = {
    "constant(0.1)": fi.Constant(0.1),
    "uniform(0, 1)": fi.Uniform(0, 1),
    "uniform(-0.3, 0.7)": fi.Uniform(-0.3, 0.7),
    "normal(0, 1)": fi.Normal(0, 1),
    "normal(0.5, 0.02)": fi.Normal(0.5, 0.02),
    "truncated(0, 0.02, -0.04, 0.04)": fi.TruncatedNormal(0, 0.02, -0.04, 0.04),
    "truncated(0.1, 1, -3, 100)": fi.TruncatedNormal(0.1, 1, -3, 100),
    "truncated(0, 1, 20, 21)": fi.TruncatedNormal(0, 1, 20, 21),
}
OFFSETS = (0, 2**32 - 2, 2**35 + 1)
MANY = 1001
MATRICES = (
    ((4, 2), "float32", 1.0),
    ((2, 3), "float64", 0.3),
    ((3, 3), "bfloat16", 1.0),
    ((3, 2), "complex64", 1.0),
    ((2, 2), "complex128", 0.3),
    ((150, 3), "float32", 1.0),
    ((70, 66), "float32", 1.0),
    ((3, 150), "float64", 0.3),
    ((35, 34), "complex64", 0.3),
)
Table = list[tuple[str, ...]]


def bits(x: object) -> str:
    """The bits of a NumPy number in hexadecimal, the sign first; of a complex one the real part's and the other's."""
    if np.iscomplexobj(x):
        return " ".join((bits(x.real), bits(x.imag)))
    x = np.asarray(x)
    return f"{int(x.view(f'u{x.itemsize}')):0{2 * x.itemsize}x}"


def markdown(head: tuple[str, ...], rows: Iterator[tuple[str, ...]] | Table) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *rows))


def polynomials(names: tuple[str, ...]) -> str:
    """A row for each power, from the constant up."""
    tables = [getattr(e, name)[::-1] for name in names]
    rows = [
        (str(power), *(f"`{bits(table[power])}`" if power < len(table) else "" for table in tables))
        for power in range(max(map(len, tables)))
    ]
    return markdown(("power", *(f"`{name}`" for name in names)), rows)


def constants() -> str:
    rows = [(f"`{name}`", f"`{bits(getattr(e, name))}`", f"{getattr(e, name)!r}"[11:-1]) for name in CONSTANTS]
    return markdown(("name", "bits", "value"), rows)


def keys() -> str:
    rows = []
    for label, key in KEYS.items():
        encoded = key.seed.to_bytes((key.seed.bit_length() + 7) // 8, "little")
        parts = [encoded, *(name.encode() for name in key.path)]
        encoding = b"".join(struct.pack("<I", len(part)) + part for part in parts)
        digest = struct.pack("<QQ", *key.words())
        assert digest == hashlib.blake2b(encoding, digest_size=16, person=b"fastinit-v1").digest()
        rows.append((label, str(key.seed), ", ".join(f"`{name}`" for name in key.path), f"`{digest.hex()}`"))
    return markdown(("key", "seed", "names", "digest"), rows)


def words() -> str:
    """Raw words: the uniform float64 stream shows 53 bits of a word only, so the generator is asked."""
    from fastinit.kernels.philox import philox

    def halves(number: int) -> tuple[int, int]:
        return number & 0xFFFFFFFF, number >> 32

    rows = []
    for label, key in KEYS.items():
        key_word, stream = key.words()
        for block in BLOCKS:
            found = philox(*halves(block), *halves(stream), *halves(key_word))
            rows.append((label, str(block), *(f"`{word:08x}`" for word in found)))
    return markdown(("key", "block", "w0", "w1", "w2", "w3"), rows)


def elements() -> str:
    """Four elements of a tensor of 2^36, from each offset on."""
    rows = []
    for name, law in LAWS.items():
        for dtype, kind in DTYPES.items():
            for offset in OFFSETS if law.random else OFFSETS[:1]:
                where = {"shape": 2**36, "region": (slice(offset, offset + 4),)}
                out = fi.fill(np.empty(4, kind), law, seed=KEYS["B"], **where)
                rows.append((f"`{name}`", dtype, str(offset), f"`{' '.join(map(bits, out))}`"))
    return markdown(("law", "dtype", "first element", "bits of four elements"), rows)


def digests() -> str:
    """Of the first elements, written and added to ones."""
    rows = []
    for name, law in LAWS.items():
        for dtype, kind in DTYPES.items():
            filled = fi.fill(np.empty(MANY, kind), law, seed=KEYS["C"])
            added = fi.add(np.ones(MANY, kind), law, seed=KEYS["C"], scale=0.3)
            rows.append((f"`{name}`", dtype, *(f"`{digest(x)}`" for x in (filled, added))))
    return markdown(("law", "dtype", "written", "added to ones, scale 0.3"), rows)


def digest(x: np.ndarray) -> str:
    return hashlib.blake2b(x.view(np.uint8).tobytes(), digest_size=8).hexdigest()


def structured() -> str:
    """Exact ones: sparse columns, and complex numbers, of which the uniform ones are drawn again now and then."""
    sparse = fi.fill(np.empty((5, 3), np.float32), fi.Sparse(0.5, 0.01), seed=KEYS["B"])
    rows = [
        (f"`sparse(0.5, 0.01)`, row {i}", "float32", f"`{' '.join(map(bits, row))}`") for i, row in enumerate(sparse)
    ]
    for name, law in {"normal(0, 1)": fi.Normal(), "uniform(-1, 1)": fi.Uniform(-1, 1)}.items():
        for kind in (np.complex64, np.complex128):
            out = fill_complex(np.empty(6, kind), law, seed=KEYS["B"])
            rows.append((f"`{name}`, 6 elements", np.dtype(kind).name, f"`{' '.join(map(bits, out))}`"))
    return markdown(("law", "dtype", "bits"), rows)


def orthogonal() -> str:
    """The bits of small matrices, and the digests of larger ones, with several blocks of reflections."""
    rows = []
    for shape, dtype, gain in MATRICES:
        fill = fill_complex if dtype.startswith("complex") else fi.fill
        out = fill(np.empty(shape, DTYPES.get(dtype, dtype)), fi.Orthogonal(gain), seed=KEYS["B"])
        found = " ".join(map(bits, out.ravel())) if out.size <= 9 else digest(out)
        rows.append((f"{shape[0]} x {shape[1]}", dtype, str(gain), f"`{found}`"))
    return markdown(("matrix", "dtype", "gain", "bits of all elements, or digest"), rows)


def tables() -> dict[str, str]:
    """What stands between the markers of the page, by their names."""
    made = {name: polynomials(names) for name, names in POLYNOMIALS.items()}
    makers = (constants, keys, words, elements, digests, structured, orthogonal)
    return made | {maker.__name__: maker() for maker in makers}


def updated(text: str) -> str:
    """The page with its tables made anew.

    Raises:
        ValueError: a marker is missing.
    """
    for name, table in tables().items():
        begin, end = f"<!-- {name}:begin -->\n", f"\n<!-- {name}:end -->"
        before, found, rest = text.partition(begin)
        _, closed, after = ("\n" + rest).partition(end)
        if not (found and closed):
            raise ValueError(f"{PAGE} must hold {begin.strip()} and {end.strip()}")
        text = f"{before}{begin}{table}{end}{after}"
    return text


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
