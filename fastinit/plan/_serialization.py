"""Laws as plain values, the ones that JSON and TOML hold, in the vocabulary of job files; and back, bit for bit."""

from __future__ import annotations

import base64
import math
import re
import sys
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastinit import schemes
from fastinit._core.composite import Cast, Patched, SameAs, Values
from fastinit._core.distributions import Constant, Distribution
from fastinit._core.structured import needs_all
from fastinit._io.documents import only
from fastinit._runtime.arrays import (
    MOST_DIMENSIONS,
    Array,
    as_dtype,
    as_region,
    as_shape,
    dtype_name,
    dtype_or_none,
    long_name,
    nbytes_of,
)
from fastinit.schemes import SCHEMES

FORMS = ("scheme", "parts", "values", "distribution")  # exactly one of these says what is drawn
AROUND = ("same_as", "of_shape", "offset", "strides", "drawn_as")
MOST_DEPTH = 8  # of distributions inside each other; recorded models have up to 3
MOST_PARTS = 10_000  # of a tensor; recorded models have up to some hundred, one for each row that is set
MOST_DRAWS = 64  # values that are drawn for one, where parts overlap; recorded models draw up to three
MOST_OF_WHOLE = 1 << 28  # elements of another tensor that is made whole for the sake of a part
MOST_VALUES = 200_000_000  # bytes of given values in a plan: a kilobyte of zlib may stand for a megabyte of them
_CHUNK = 1 << 20  # bytes that are inflated at once
_SHORT: dict[Distribution, str] = {Constant(0.0): "zeros", Constant(1.0): "ones"}


# --- writing ---


def to_table(found: Distribution, shape: tuple[int, ...], dtype: str, depth: int = 1) -> dict[str, Any]:
    """A law as a table.

    Args:
        found: the law.
        shape: what it is a law over, (out, in, *kernel).
        dtype: the tensor's.
        depth: how many laws it lies in, itself counted.

    Raises:
        ValueError: a law that plain values do not say, or that is larger or deeper than what is read.

    >>> from fastinit import Normal
    >>> to_table(Cast(Normal(0, 0.02), "float32"), (3, 4), "float64")
    {'drawn_as': 'float32', 'scheme': 'normal', 'mean': 0.0, 'std': 0.02}
    """
    _check_depth(depth)
    match found:
        case Values():
            other = {} if found.array.dtype == np.dtype(dtype) else {"values_dtype": found.array.dtype.name}
            return {"values": _packed(found.array), **other}
        case Cast():
            return {"drawn_as": found.dtype, **_inner(found.distribution, shape, dtype, depth)}
        case SameAs():
            part = {} if found == SameAs(found.path, found.distribution, shape) else _part_of(found)
            return {"same_as": list(found.path), **part, **_inner(found.distribution, found.shape, dtype, depth)}
        case Patched():
            _check_parts(found.parts)
            return {"parts": [_part(region, part, shape, dtype, depth) for region, part in found.parts]}
    return _scheme_of(found, shape)


def _part_of(found: SameAs) -> dict[str, Any]:
    return {"of_shape": list(found.shape), "offset": found.offset, "strides": list(found.strides)}


def _check_depth(depth: int) -> None:
    if depth > MOST_DEPTH:
        raise ValueError(f"distributions must lie at most {MOST_DEPTH} deep in each other")


def _check_parts(parts: Sequence[object]) -> None:
    if len(parts) > MOST_PARTS:
        raise ValueError(f"parts must be at most {MOST_PARTS:,}. Received: {len(parts):,}")


def _inner(found: Distribution, shape: tuple[int, ...], dtype: str, depth: int) -> dict[str, Any]:
    table = to_table(found, shape, dtype, depth + 1)
    return {"distribution": table} if table.keys() & set(AROUND) else table


def _part(
    region: tuple[slice, ...], found: Distribution, shape: tuple[int, ...], dtype: str, depth: int
) -> dict[str, Any]:
    place = {"region": _shown_region(region)} if region else {}
    return {**place, **to_table(found, tuple(map(len, as_region(region, shape))), dtype, depth + 1)}


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


class Budget:
    """What is left of the limits for a plan that is read.

    Attributes:
        values: bytes of given values.
    """

    def __init__(self) -> None:
        self.values = MOST_VALUES

    def take_values(self, nbytes: int) -> None:
        """Raise ValueError if the plan's values have more bytes than are left."""
        if nbytes > self.values:
            raise ValueError(f"values must have at most {MOST_VALUES:,} bytes in all tensors. Needed: {nbytes:,} more")
        self.values -= nbytes


def from_table(
    table: Any, shape: tuple[int, ...], dtype: str, budget: Budget | None = None, depth: int = 1
) -> Distribution:
    """The law that a table says.

    Args:
        table, shape, dtype: as `to_table` gives and takes them.
        budget: of the plan that the table is a part of. Default: that of a plan of its own.
        depth: how many tables this one lies in, itself counted.

    Raises:
        TypeError, ValueError: what is wrong in it.

    >>> from_table({"scheme": "he_normal"}, (3, 4), "float32")
    Normal(mean=0.0, std=0.7071067811865476)
    """
    if not isinstance(table, dict):
        raise ValueError(f"must be a table. Received: {table!r:.200}")
    budget = Budget() if budget is None else budget
    _check_depth(depth)
    forms = [form for form in FORMS if form in table]
    if not forms:
        raise ValueError("scheme is missing")
    if len(forms) > 1:
        raise ValueError(f"{forms[0]} and {forms[1]} exclude each other")
    rest = {key: value for key, value in table.items() if key not in AROUND}
    if "same_as" in table:
        if "drawn_as" in table:
            raise ValueError('same_as and drawn_as exclude each other: one of them is in "distribution"')
        whole = as_shape(table.get("of_shape", shape), "of_shape")
        return _same_as(table, whole, _READERS[forms[0]](rest, whole, dtype, budget, depth))
    if part := [key for key in AROUND[1:4] if key in table]:
        raise ValueError(f"{part[0]} needs same_as, the names of the tensor that it is about")
    found = _READERS[forms[0]](rest, shape, dtype, budget, depth)
    return (
        found if "drawn_as" not in table else Cast(found, dtype_name(_named("drawn_as", table["drawn_as"], as_dtype)))
    )


def _same_as(table: dict[str, Any], whole: tuple[int, ...], found: Distribution) -> SameAs:
    path = table["same_as"]
    if not isinstance(path, list) or not path or not all(isinstance(name, str) for name in path):
        raise ValueError(f"same_as must be a list of names. Received: same_as={path!r:.200}")
    if needs_all(found) and math.prod(whole) > MOST_OF_WHOLE:
        raise ValueError(
            f"of_shape must have at most {MOST_OF_WHOLE:,} elements, which are made whole. Received: {whole}"
        )
    strides = table.get("strides")
    if isinstance(strides, list) and len(strides) <= MOST_DIMENSIONS:
        strides = tuple(_number("strides", step) for step in strides)
    elif strides is not None:
        raise ValueError(f"strides must be an int or a sequence of ints. Received: strides={strides!r:.200}")
    return SameAs(tuple(path), found, whole, _number("offset", table.get("offset", 0)), strides)


def _number(key: str, value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        what = "must not be negative" if type(value) is int and value < 0 else "must be a number below 2^63"
        raise ValueError(f"{key} {what}. Received: {key}={value!r:.200}")
    return value


def _from_scheme(table: dict[str, Any], shape: tuple[int, ...], dtype: str, budget: Budget, depth: int) -> Distribution:
    parameters = dict(table)
    scheme = parameters.pop("scheme")
    if not isinstance(scheme, str):
        raise ValueError(f"scheme must be a name. Received: scheme={scheme!r:.200}")
    return schemes.distribution_of(schemes.find(scheme).name, shape, "oi", (), parameters)


def _from_parts(table: dict[str, Any], shape: tuple[int, ...], dtype: str, budget: Budget, depth: int) -> Distribution:
    only(table, ["parts"])
    parts = table["parts"]
    if not isinstance(parts, list) or not parts:
        raise ValueError(f"parts must be a list of tables. Received: parts={parts!r:.200}")
    _check_parts(parts)
    found = []
    for i, part in enumerate(parts):
        try:
            if not isinstance(part, dict):
                raise ValueError(f"must be a table. Received: {part!r:.200}")
            region = _read_region(part["region"], len(shape)) if "region" in part else ()
            inside = tuple(map(len, as_region(region, shape)))
            rest = {key: value for key, value in part.items() if key != "region"}
            found.append((region, from_table(rest, inside, dtype, budget, depth + 1)))
        except (TypeError, ValueError) as error:
            raise ValueError(f"parts[{i}]: {error}") from None
    return Patched(tuple(found))


def check_draws(found: Distribution, shape: tuple[int, ...]) -> None:
    """Raise ValueError for parts that lie over each other so often that most of what is drawn is lost."""
    if _draws(found, shape) > MOST_DRAWS:
        raise ValueError(f"parts must not overlap so much that more than {MOST_DRAWS} values are drawn for one")


def _draws(found: Distribution, shape: tuple[int, ...]) -> float:
    """How many values are drawn for each element of a shape."""
    match found:
        case Cast():
            return _draws(found.distribution, shape)
        case SameAs():
            return _draws(found.distribution, found.shape)
        case Patched():
            places = ((tuple(map(len, as_region(region, shape))), part) for region, part in found.parts)
            return sum(math.prod(inside) * _draws(part, inside) for inside, part in places) / max(1, math.prod(shape))
    return 1.0


def _from_values(table: dict[str, Any], shape: tuple[int, ...], dtype: str, budget: Budget, depth: int) -> Distribution:
    only(table, ["values", "values_dtype"])
    kind = np.dtype(_named("values_dtype", table.get("values_dtype", dtype), any_dtype))
    text = table["values"]
    nbytes = nbytes_of(shape, kind.name)
    budget.take_values(nbytes)
    what = "values must be base64 of zlib of little-endian bytes"
    try:
        data = base64.b64decode(text, validate=True)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what}: {error}") from None
    try:
        array = _inflated(data, nbytes).view(kind).reshape(shape)
    except zlib.error as error:
        raise ValueError(f"{what}: {error}") from None
    return Values(array.byteswap() if sys.byteorder == "big" else array)


def _inflated(data: bytes, nbytes: int) -> Array:
    """The bytes that zlib has made `data` of; the memory is taken as they come.

    Raises:
        ValueError: they are not `nbytes`.
    """
    found, done, unpacker = np.empty(nbytes, np.uint8), 0, zlib.decompressobj()
    while part := unpacker.decompress(data, min(_CHUNK, nbytes - done + 1)):
        if done + len(part) > nbytes:
            break
        found[done : done + len(part)] = np.frombuffer(part, np.uint8)
        done, data = done + len(part), unpacker.unconsumed_tail
    if done != nbytes or part or not unpacker.eof:
        raise ValueError(f"values must be {nbytes:,} bytes, as many as shape and dtype say")
    return found


def _from_distribution(
    table: dict[str, Any], shape: tuple[int, ...], dtype: str, budget: Budget, depth: int
) -> Distribution:
    only(table, ["distribution"])
    return from_table(table["distribution"], shape, dtype, budget, depth + 1)


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
    dtype = long_name(dtype)
    found = dtype_or_none(dtype)
    if found is None or found.name != dtype or not (found.kind in "biufc" or found.type.__module__ == "ml_dtypes"):
        raise TypeError(f"dtype must be the name of a dtype of numbers. Received: dtype={dtype!r:.200}")
    return str(found.name)


_SLICE = re.compile(r"\s*+(-?\d{1,19})?\s*+:\s*+(-?\d{1,19})?\s*+(?::\s*+(-?\d{1,19})?\s*+)?")


def _read_region(text: Any, ndim: int) -> tuple[slice, ...]:
    """A region from text like "[0:1, :]", as NumPy's slices are written."""
    if not isinstance(text, str) or not (text.startswith("[") and text.endswith("]")):
        raise ValueError(f'region must be text like "[0:1, :]". Received: region={text!r:.200}')
    slices = []
    for part in text[1:-1].split(",", MOST_DIMENSIONS):
        found = _SLICE.fullmatch(part)
        if found is None or found[3] == "0":
            raise ValueError(f'region must be text like "[0:1, :]". Received: region={text!r:.200}')
        slices.append(slice(*(None if end is None else int(end) for end in found.groups())))
    if len(slices) > ndim:
        raise ValueError(f"region must have at most {ndim} slices, one per axis. Received: region={text!r:.200}")
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
