"""Laws as plain values, the ones that JSON and TOML hold, in the vocabulary of job files; and back, bit for bit."""

from __future__ import annotations

import base64
import binascii
import math
import re
import sys
import zlib
from typing import Any

import numpy as np

from fastinit import schemes
from fastinit._core.composite import Cast, Patched, SameAs, Values
from fastinit._core.distributions import Constant, Distribution
from fastinit._io.documents import only
from fastinit._runtime.arrays import Array, as_dtype, as_region, as_shape, dtype_name
from fastinit.schemes import SCHEMES

FORMS = ("scheme", "parts", "values", "distribution")  # exactly one of these says what is drawn
AROUND = ("same_as", "of_shape", "offset", "strides", "drawn_as")
_SHORT: dict[Distribution, str] = {Constant(0.0): "zeros", Constant(1.0): "ones"}


# --- writing ---


def to_table(found: Distribution, shape: tuple[int, ...], dtype: str) -> dict[str, Any]:
    """A law as a table.

    Args:
        found: the law.
        shape: what it is a law over, (out, in, *kernel).
        dtype: the tensor's.

    Raises:
        ValueError: a law that plain values do not say.

    >>> from fastinit import Normal
    >>> to_table(Cast(Normal(0, 0.02), "float32"), (3, 4), "float64")
    {'drawn_as': 'float32', 'scheme': 'normal', 'mean': 0.0, 'std': 0.02}
    """
    match found:
        case Values():
            other = {} if found.array.dtype == np.dtype(dtype) else {"values_dtype": found.array.dtype.name}
            return {"values": _packed(found.array), **other}
        case Cast():
            return {"drawn_as": found.dtype, **_inner(found.distribution, shape, dtype)}
        case SameAs():
            part = {} if found == SameAs(found.path, found.distribution, shape) else _part_of(found)
            return {"same_as": list(found.path), **part, **_inner(found.distribution, found.shape, dtype)}
        case Patched():
            return {"parts": [_part(region, part, shape, dtype) for region, part in found.parts]}
    return _scheme_of(found, shape)


def _part_of(found: SameAs) -> dict[str, Any]:
    return {"of_shape": list(found.shape), "offset": found.offset, "strides": list(found.strides)}


def _inner(found: Distribution, shape: tuple[int, ...], dtype: str) -> dict[str, Any]:
    table = to_table(found, shape, dtype)
    return {"distribution": table} if table.keys() & set(AROUND) else table


def _part(region: tuple[slice, ...], found: Distribution, shape: tuple[int, ...], dtype: str) -> dict[str, Any]:
    place = {"region": _shown_region(region)} if region else {}
    return {**place, **to_table(found, tuple(map(len, as_region(region, shape))), dtype)}


def _scheme_of(found: Distribution, shape: tuple[int, ...]) -> dict[str, Any]:
    """The scheme that gives a law and no other: the one of its class's name."""
    if found in _SHORT:
        return {"scheme": _SHORT[found]}
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(found).__name__).lower()
    if name in SCHEMES:
        try:
            parameters = {p: _parameter(found, p) for p in SCHEMES[name].parameters}
            if schemes.distribution(name, shape, **parameters) == found:
                return {"scheme": name, **parameters}
        except AttributeError:
            pass
    raise ValueError(f"{found!r} is no law that a file can hold")


def _parameter(found: Distribution, name: str) -> Any:
    """A parameter of a law; `mean` and `std` are those before what the law does to a normal one."""
    before = getattr(found, "normal", None)
    return getattr(before if before is not None and name in ("mean", "std") else found, name)


def _shown_region(region: tuple[slice, ...]) -> str:
    return f"[{', '.join(map(_shown_slice, region))}]"


def _shown_slice(part: slice) -> str:
    numbers = [part.start, part.stop] if part.step is None else [part.start, part.stop, part.step]
    return ":".join("" if number is None else str(number) for number in numbers)


def _packed(array: Array) -> str:
    own = np.ascontiguousarray(array, np.dtype(array.dtype.name))
    own = own.byteswap() if sys.byteorder == "big" else own
    return base64.b64encode(zlib.compress(own.tobytes())).decode()


# --- reading ---


def from_table(table: Any, shape: tuple[int, ...], dtype: str) -> Distribution:
    """The law that a table says; arguments as for `to_table`.

    Raises:
        TypeError, ValueError: what is wrong in it.

    >>> from_table({"scheme": "he_normal"}, (3, 4), "float32")
    Normal(mean=0.0, std=0.7071067811865476)
    """
    if not isinstance(table, dict):
        raise ValueError(f"must be a table. Received: {table!r}")
    forms = [form for form in FORMS if form in table]
    if not forms:
        raise ValueError("scheme is missing")
    if len(forms) > 1:
        raise ValueError(f"{forms[0]} and {forms[1]} exclude each other")
    rest = {key: value for key, value in table.items() if key not in AROUND}
    if "same_as" in table:
        if "drawn_as" in table:
            raise ValueError('same_as and drawn_as exclude each other: one of them is in "distribution"')
        return _same_as(table, rest, forms[0], shape, dtype)
    if part := [key for key in AROUND[1:4] if key in table]:
        raise ValueError(f"{part[0]} needs same_as, the names of the tensor that it is about")
    found = _READERS[forms[0]](rest, shape, dtype)
    return (
        found if "drawn_as" not in table else Cast(found, dtype_name(_named("drawn_as", table["drawn_as"], as_dtype)))
    )


def _same_as(table: dict[str, Any], rest: dict[str, Any], form: str, shape: tuple[int, ...], dtype: str) -> SameAs:
    path, whole = table["same_as"], as_shape(table.get("of_shape", shape), "of_shape")
    if not isinstance(path, list) or not path or not all(isinstance(name, str) for name in path):
        raise ValueError(f"same_as must be a list of names. Received: same_as={path!r}")
    offset = as_shape(table.get("offset", 0), "offset")
    if len(offset) != 1:
        raise ValueError(f"offset must be a number. Received: offset={table['offset']!r}")
    strides = as_shape(table["strides"], "strides") if "strides" in table else None
    return SameAs(tuple(path), _READERS[form](rest, whole, dtype), whole, offset[0], strides)


def _from_scheme(table: dict[str, Any], shape: tuple[int, ...], dtype: str) -> Distribution:
    parameters = dict(table)
    scheme = parameters.pop("scheme")
    if not isinstance(scheme, str):
        raise ValueError(f"scheme must be a name. Received: scheme={scheme!r}")
    return schemes.distribution_of(schemes.find(scheme).name, shape, "oi", (), parameters)


def _from_parts(table: dict[str, Any], shape: tuple[int, ...], dtype: str) -> Distribution:
    only(table, ["parts"])
    parts = table["parts"]
    if not isinstance(parts, list) or not parts:
        raise ValueError(f"parts must be a list of tables. Received: parts={parts!r}")
    found = []
    for i, part in enumerate(parts):
        try:
            if not isinstance(part, dict):
                raise ValueError(f"must be a table. Received: {part!r}")
            region = _read_region(part["region"], len(shape)) if "region" in part else ()
            inside = tuple(map(len, as_region(region, shape)))
            rest = {key: value for key, value in part.items() if key != "region"}
            found.append((region, from_table(rest, inside, dtype)))
        except (TypeError, ValueError) as error:
            raise ValueError(f"parts[{i}]: {error}") from None
    return Patched(tuple(found))


def _from_values(table: dict[str, Any], shape: tuple[int, ...], dtype: str) -> Distribution:
    only(table, ["values", "values_dtype"])
    kind = np.dtype(_named("values_dtype", table.get("values_dtype", dtype), any_dtype))
    text = table["values"]
    nbytes = math.prod(shape) * kind.itemsize
    try:
        unpacker = zlib.decompressobj()
        found = unpacker.decompress(base64.b64decode(text, validate=True), nbytes + 1)
    except (TypeError, binascii.Error, zlib.error) as error:
        raise ValueError(f"values must be base64 of zlib of little-endian bytes: {error}") from None
    if len(found) != nbytes or not unpacker.eof:
        raise ValueError(f"values must be {nbytes:,} bytes, as many as shape and dtype say")
    array = np.frombuffer(bytearray(found), kind).reshape(shape)  # of its own, writeable memory, as a recorded one
    return Values(array.byteswap() if sys.byteorder == "big" else array)


def _from_distribution(table: dict[str, Any], shape: tuple[int, ...], dtype: str) -> Distribution:
    only(table, ["distribution"])
    return from_table(table["distribution"], shape, dtype)


_READERS = {"scheme": _from_scheme, "parts": _from_parts, "values": _from_values, "distribution": _from_distribution}


def _named(key: str, value: Any, check: Any) -> Any:
    """What a check makes of a key's value; its error with the key named."""
    try:
        return check(value)
    except TypeError as error:
        raise ValueError(f"{key}: {error}") from None


def any_dtype(dtype: Any) -> str:
    """The name of a dtype that given values may have: any of numbers or bools, ml_dtypes' too.

    Raises:
        TypeError: it is none.
    """
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = np.dtype(object)
    if found.name != dtype or not (found.kind in "biufc" or found.type.__module__ == "ml_dtypes"):
        raise TypeError(f"dtype must be the name of a dtype of numbers. Received: dtype={dtype!r}")
    return str(found.name)


_SLICE = re.compile(r"\s*(-?\d+)?\s*:\s*(-?\d+)?\s*(?::\s*(-?\d+)?\s*)?")


def _read_region(text: Any, ndim: int) -> tuple[slice, ...]:
    """A region from text like "[0:1, :]", as NumPy's slices are written."""
    if not isinstance(text, str) or not (text.startswith("[") and text.endswith("]")):
        raise ValueError(f'region must be text like "[0:1, :]". Received: region={text!r}')
    slices = []
    for part in text[1:-1].split(","):
        found = _SLICE.fullmatch(part)
        if found is None or found[3] == "0":
            raise ValueError(f'region must be text like "[0:1, :]". Received: region={text!r}')
        slices.append(slice(*(None if end is None else int(end) for end in found.groups())))
    if len(slices) > ndim:
        raise ValueError(f"region must have at most {ndim} slices, one per axis. Received: region={text!r}")
    return tuple(slices)


def label(found: Distribution, shape: tuple[int, ...], digits: int = 6) -> str:
    """Return a distribution as people read it, the parameters with so many digits.

    >>> from fastinit import Constant, Normal
    >>> label(Patched((((), Normal()), ((slice(0, 1),), Constant(0)))), (3, 4))
    'normal, [0:1] zeros'
    """
    match found:
        case Values():
            return "values"
        case Cast():
            return f"{label(found.distribution, shape)} drawn as {found.dtype}"
        case SameAs():
            return f"{label(found.distribution, shape)}, same as {'/'.join(found.path)}"
        case Patched():
            parts = (
                f"{_shown_region(region)} {label(part, tuple(map(len, as_region(region, shape))))}"
                for region, part in found.parts
            )
            return ", ".join(parts).removeprefix("[] ")
    try:
        table = _scheme_of(found, shape)
    except ValueError:
        return type(found).__name__
    return schemes.describe(table.pop("scheme"), table, digits)
