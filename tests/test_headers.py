"""Headers of safetensors files: what the format's own library writes is read, and nothing that is broken."""

import json

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fastinit._io.safetensors import CODES, read_header

A = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
B = {"dtype": "U8", "shape": [], "data_offsets": [24, 25]}


def file_of(path, header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def test_what_the_formats_library_writes_is_read(tmp_path):
    dtypes = {name: getattr(torch, name) for name in CODES}
    tensors = {name: torch.zeros(i, 3, dtype=dtype) for i, (name, dtype) in enumerate(dtypes.items())}
    save_file(tensors, tmp_path / "a.safetensors", metadata={"format": "pt"})
    start, found = read_header(tmp_path / "a.safetensors")
    assert {name: (stored.dtype, stored.shape) for name, stored in found.items()} == {
        name: (name, (i, 3)) for i, name in enumerate(dtypes)
    }
    assert start + max(stored.end for stored in found.values()) == (tmp_path / "a.safetensors").stat().st_size
    assert np.dtype("float8_e5m2") == ml_dtypes.float8_e5m2


def test_tensors_come_in_the_order_of_their_bytes(tmp_path):
    start, found = read_header(file_of(tmp_path / "a", {"b": B, "a": A, "__metadata__": {"x": "y"}}, bytes(25)))
    assert list(found) == ["a", "b"]
    assert found["b"] == ("uint8", (), 24, 25)
    assert start == (tmp_path / "a").stat().st_size - 25


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (b"", b"", "Expecting value"),
        (b"[]", b"", "must be an object"),
        (b"\xff{}", b"", "decode"),
        (b'{"a":1,"a":2}', b"", "'a' is named twice"),
        (b"[" * 100_000, b"", "nested too deeply"),
        ({"a": 3}, b"", "'a' must have dtype, shape and data_offsets"),
        ({"a": {**A, "more": 1}}, bytes(24), "'a' must have dtype"),
        ({"a": {**A, "dtype": "F4"}}, bytes(24), "'a' must have a dtype of F16, .*'F4'"),
        ({"a": {**A, "dtype": ["F32"]}}, bytes(24), "'a' must have a dtype"),
        ({"a": {**A, "shape": [2, -3]}}, bytes(24), "must have a shape"),
        ({"a": {**A, "shape": [2, True]}}, bytes(24), "must have a shape"),
        ({"a": {**A, "shape": [2, 3.0]}}, bytes(24), "must have a shape"),
        ({"a": {**A, "shape": [2, 1e3]}}, bytes(24), "must have a shape"),
        ({"a": {**A, "shape": [1] * 65}}, bytes(24), "must have a shape of at most 64 sizes"),
        ({"a": {**A, "shape": [2**63]}}, bytes(24), r"all below 2\^63"),
        ({"a": {**A, "shape": [10**4000]}}, bytes(24), r"all below 2\^63"),
        ({"a": {**A, "data_offsets": [0, 10**4000]}}, bytes(24), r"all below 2\^63"),
        ({"a": {**A, "shape": [0, 2**62, 2**62], "data_offsets": [0, 0]}}, b"", r"smaller than 2\^63 bytes"),
        ({"a": {**A, "shape": [1] * 5000}}, bytes(24), "'a' must have at most 4,096 bytes of JSON"),
        ({"a": {**A, "shape": [10**4200]}}, bytes(24), "'a' must have at most 4,096 bytes of JSON"),
        ({"a\ud800": A}, bytes(24), "must be Unicode without lone surrogates"),
        ({"a" * 70_000: A}, bytes(24), "names in the header must have at most 65,536 bytes"),
        ({"__metadata__": [1, 2], "a": A}, bytes(24), "__metadata__ must be an object"),
        ({"__metadata__": {"a": 1}, "a": A}, bytes(24), "__metadata__ must hold texts"),
        (b'{"__metadata__":{"a":"\xff' + b"x" * 5000 + b'"}}', b"", "decode"),
        (b'{"a":{"dtype":"F32","dtype":"F32","shape":[0],"data_offsets":[0,0]}}', b"", "'dtype' is named twice"),
        (b'{"' + b"a" * 5000 + b'":{},"b":{}}', b"", "must have dtype"),
        (b'{"' + b"a" * 5000 + b'"}', b"", "must go on with"),
        ({"a": {**A, "data_offsets": [0]}}, bytes(24), "two offsets"),
        ({"a": {**A, "data_offsets": [24, 0]}}, bytes(24), "must have 24 bytes"),
        ({"a": {**A, "shape": [2**62, 2**62]}}, bytes(24), "must have"),
        ({"a": A, "b": {**B, "data_offsets": [23, 24]}}, bytes(24), "'b' overlaps what is before it"),
        ({"a": A, "b": A}, bytes(24), "'b' overlaps"),
        ({"a": A, "b": {**B, "data_offsets": [25, 26]}}, bytes(26), "'b' has a hole before it"),
        ({"a": A}, bytes(23), "must take 24 bytes after the header. Received: 23"),
        ({"a": A}, bytes(25), "must take 24 bytes after the header. Received: 25"),
    ],
)
def test_what_is_broken_is_named(tmp_path, header, data, message):
    path = file_of(tmp_path / "a.safetensors", header, data)
    with pytest.raises(ValueError, match=message) as caught:
        read_header(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("length", [11, 2**63, 100_000_001])
def test_a_header_that_is_cut_off(tmp_path, length):
    with pytest.raises(ValueError, match="no safetensors file, or cut off"):
        read_header(file_of(tmp_path / "a", b"{}12345678", length=length))


def test_a_file_that_is_too_short_for_a_length(tmp_path):
    (tmp_path / "a").write_bytes(b"\0" * 7)
    with pytest.raises(ValueError, match="no safetensors file, or cut off"):
        read_header(tmp_path / "a")


def test_rows_in_any_order_and_with_spaces(tmp_path):
    text = json.dumps({"b\n\u00e9": dict(reversed(B.items())), "a": A}, indent=8).encode() + b"   "
    _, found = read_header(file_of(tmp_path / "a", text, bytes(25)))
    assert list(found.items()) == [("a", ("float32", (2, 3), 0, 24)), ("b\n\u00e9", ("uint8", (), 24, 25))]


def test_a_tensor_of_64_dimensions(tmp_path):
    _, found = read_header(file_of(tmp_path / "a", {"a": {**A, "shape": [1] * 62 + [2, 3]}}, bytes(24)))
    assert found["a"].shape == (1,) * 62 + (2, 3)
