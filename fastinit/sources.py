"""What a plan can be read from: files, folders, configs and code."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import re
import sys
import warnings
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastinit._core.composite import Values
from fastinit._core.distributions import Constant
from fastinit._io import documents, files
from fastinit._io.folders import choose, has_weights, no_weights, read_checkpoint, snapshot
from fastinit._io.hub import missing
from fastinit._io.safetensors import CODES, Stored
from fastinit._io.text import LONGEST_LINE, printable
from fastinit._runtime.arrays import DTYPES, as_dtype, dtype_name
from fastinit._runtime.checks import unknown
from fastinit.plan._fills import Fill
from fastinit.plan._plan import Plan

_QUANTISED = "quantization_config", "compression_config"  # of transformers, and what compressed-tensors called it
_MLX = "quantization"  # of MLX, beside the first of these
_PACKED = "int8", "uint8", "int32"  # what quantised weights are stored in

_CODE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_ALLOWED = (
    "a .toml or .json plan, a Hugging Face config.json, a .safetensors file, its index or a folder of any of these, "
    "or module:function"
)


@dataclass(frozen=True, slots=True)
class Source:
    """A plan, and the config.json that goes with it where there is one.

    `dtype` is the one that the config must say: what was asked for instead of the source's own, or a job file's.
    `models` are the folders of a source that holds several models: the names of the plan's tensors begin with them.
    `packed` says that the source is a checkpoint of quantised weights, whose integers the plan keeps. `folder` is the
    source's folder where the config is its own.
    """

    plan: Plan
    config: Path | None
    dtype: str | None = None
    models: tuple[str, ...] = ()
    packed: bool = False
    folder: Path | None = None

    def extra_files(self) -> dict[str, bytes]:
        """The files that belong beside a checkpoint, name -> bytes. They give nobody rights that the originals do not.

        A config says the dtype that the weights have: transformers loads them in the one that it finds there. What it
        says of quantisation is left out, with a warning, unless the tensors are quantised (`packed`).

        Raises:
            ValueError: the source's own config is a link to a file outside of the source. It may be anybody's.
        """
        if self.config is None:
            return {}
        if self.folder is not None:
            _check_inside(self.config, self.folder)
        data, status = files.read(self.config, documents.MOST_CONFIG), self.config.stat()
        table, dropped = documents.read(self.config, infinite=True, most=documents.MOST_CONFIG), list[str]()
        if not self.packed:
            table = _unquantised(table, dropped)
        if dropped:
            what = f"{', '.join(dropped)} {'is' if len(dropped) == 1 else 'are'} left out of the copied config"
            note = f"{self.config}: the tensors are written unquantised: {what}"
            warnings.warn(printable(note, LONGEST_LINE), stacklevel=2)
        if self.dtype is not None:
            table.pop("torch_dtype", None)  # the name until transformers 4
            table["dtype"] = self.dtype
        if dropped or self.dtype is not None:
            text = json.dumps(table, indent=2, ensure_ascii=False) + "\n"
            data = text.encode(errors="backslashreplace")  # half a surrogate pair, which JSON writes in the same way
        return {"config.json": files.Copy(data, status)}


def _check_inside(path: Path, folder: Path) -> None:
    """Raise ValueError for a file that a link leads out of a folder, except to the blobs of a snapshot in the Hub's
    cache."""
    root, target = folder.resolve(), path.resolve()
    snapshots = [above for above in (root, *root.parents) if above.parent.name == "snapshots"]
    if not any(target.is_relative_to(inside) for inside in (root, *(s.parent.parent / "blobs" for s in snapshots))):
        raise ValueError(
            f"{path} leads out of {folder}, to {target}, and is not copied. Give the file that you mean by --config"
        )


def _unquantised(table: dict[str, Any], dropped: list[str], path: str = "") -> dict[str, Any]:
    """A config without what it says of quantised weights, also in the configs inside; `dropped` gets the keys."""
    kept: dict[str, Any] = {}
    for key, value in table.items():
        if (key in _QUANTISED and value is not None) or (key == _MLX and isinstance(value, dict) and "bits" in value):
            dropped.append(path + key)
        else:
            kept[key] = _unquantised(value, dropped, f"{path}{key}.") if isinstance(value, dict) else value
    return kept


def read(
    source: str,
    *,
    scheme: str | None = None,
    rules: Iterable[str] = (),
    dtype: str | None = None,
    config: Path | None = None,
    max_tensors: int | None = None,
) -> Source:
    """The plan that a source holds or describes. A source is one of

    - a job file or a saved plan (.toml, .json). Its key `config` names the config.json that goes with it, a file in the
      same folder or below;
    - a Hugging Face config.json, or a folder with one: the model of the class that it names is recorded, with the
      installed transformers. Nothing is downloaded, no code that it names is run, at any depth, and nothing is asked;
    - a safetensors file, index or folder: names, shapes and dtypes come from it, laws from `scheme` and `rules`;
      tensors of integers and bools keep their values. Which files of a folder count is told by `checkpoint.survey`;
    - `module:function`, a function in code that can be imported from the current folder, which returns a torch
      module: it is recorded.

    Args:
        source: one of these four.
        scheme, rules: as in `Plan.with_rules`; they come after the source's own.
        dtype: for all tensors that are drawn. Default: the source's own.
        config: the config.json that goes with the plan. Default: the source's own.
        max_tensors: of a model that is recorded; more are an error, and so are numbers in a config that would give
            more. Default: 200,000, twice as many as the largest models have.

    Raises:
        OSError: a file is missing or cannot be read.
        ImportError: what the source needs is not installed.
        ValueError: what is wrong with it.
    """
    if not source:
        raise ValueError(f"a source must be {_ALLOWED}. Received: an empty text")
    dtype = None if dtype is None else dtype_name(as_dtype(dtype))
    plan, own, without_rule, models, packed, said = _found(source, dtype, max_tensors)
    plan = plan if dtype is None else plan.with_dtype(dtype)
    rules = list(rules)
    if rules or scheme is not None or without_rule:
        plan = plan.with_rules(rules, scheme=scheme, without_rule=without_rule)
    if config is not None:
        return Source(plan, config, dtype, models, packed)
    folder = snapshot(Path(source)) if Path(source).is_dir() else Path(source).parent
    return Source(plan, own, dtype or said, models, packed, None if own is None else folder)


class Found(NamedTuple):
    """What a source holds, before rules; `without_rule` are the names of tensors without a distribution, `dtype` the
    one that the config must say."""

    plan: Plan
    config: Path | None = None
    without_rule: Collection[str] = ()
    models: tuple[str, ...] = ()
    packed: bool = False
    dtype: str | None = None


def _found(source: str, dtype: str | None, max_tensors: int | None) -> Found:
    path = Path(source)
    if path.is_dir():
        return _folder(path, dtype, max_tensors)
    if not path.exists():
        if _CODE.fullmatch(source):
            return Found(_code(source, max_tensors))
        raise missing(source)
    match path.suffix:
        case ".toml":
            return _job(path, toml=True)
        case ".safetensors":
            return _stored(path)
        case ".json":
            return _document(path, dtype, max_tensors)
    raise ValueError(f"{source}: a source must be {_ALLOWED}")


def _folder(folder: Path, dtype: str | None, max_tensors: int | None) -> Found:
    folder = snapshot(folder)
    config = folder / "config.json"
    if config.exists() and "model_type" in documents.read(config, infinite=True, most=documents.MOST_CONFIG):
        return _document(config, dtype, max_tensors)
    if not has_weights(folder):
        raise no_weights(folder, "config.json with a model_type, no ")
    models = choose(folder, [])
    inside = models[0].files[0].parent
    if len(models) > 1 or inside == folder:
        return _stored(folder)
    note = f"{folder}: {inside} is taken, the only folder inside with weights"
    warnings.warn(printable(note, LONGEST_LINE), stacklevel=4)
    return _folder(inside, dtype, max_tensors)


def _document(path: Path, dtype: str | None, max_tensors: int | None) -> Found:
    table = documents.read(path, infinite=True)  # a config may; a plan is read again, strictly
    if "tensors" in table:
        return _job(path, toml=False)
    if "weight_map" in table:
        return _stored(path)
    if "model_type" in table:
        documents.read(path, infinite=True, most=documents.MOST_CONFIG)  # a config has a smaller limit
        if importlib.util.find_spec("torch") is None:
            raise ImportError(f"{path} needs PyTorch and transformers: pip install 'fastinit-weights[hf]'")
        from fastinit.torch._pretrained import plan_of_config

        return Found(plan_of_config(_unquantised(table, []), path, dtype, max_tensors), path)
    raise ValueError(f"{path}: no plan (tensors), no config (model_type) and no index (weight_map)")


def _job(path: Path, *, toml: bool) -> Found:
    """A job file or a saved plan. Its config says the dtype of the tensors, if all that are drawn have the same."""
    table = documents.read(path, toml=toml)
    try:
        plan = Plan.from_table(table)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not table.get("config"):
        return Found(plan)
    dtypes = {fill.dtype for fill in plan.filled.values() if fill.drawn}
    return Found(plan, path.parent / table["config"], dtype=dtypes.pop() if len(dtypes) == 1 else None)


# --- code ---


def _code(source: str, max_tensors: int | None) -> Plan:
    module, _, name = source.partition(":")
    with _importable_from(str(Path.cwd())):
        try:
            function: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise ValueError(f"{source}: {error}") from None
        for part in name.split("."):
            if not hasattr(function, part):
                raise ValueError(f"{source}: {unknown('name', part, [n for n in vars(function) if n[0] != '_'])}")
            function = getattr(function, part)
        from fastinit.torch import record

        try:
            return record(function, max_tensors=max_tensors)
        except TypeError as error:
            raise ValueError(f"{source}: {error}") from error


@contextlib.contextmanager
def _importable_from(folder: str) -> Iterator[None]:
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


# --- safetensors ---


def _stored(source: Path) -> Found:
    tensors: dict[str, Fill] = {}
    stored_files = read_checkpoint(source)
    for path, start, header, _ in stored_files:
        for name, stored in header.items():
            try:
                tensors[name] = _fill(path, start, stored)
            except ValueError as error:
                raise ValueError(f"{path}: {name!r}: {error}") from None
    config = stored_files[0].path.parent / "config.json"
    drawn = [name for name, fill in tensors.items() if fill.drawn]
    models = tuple(dict.fromkeys(file.prefix.rstrip("/") for file in stored_files if file.prefix))
    packed = any(fill.dtype in _PACKED and len(fill.shape) > 1 for fill in tensors.values())
    return Found(Plan(tensors), config if config.exists() and not models else None, drawn, models, packed)


def _fill(path: Path, start: int, stored: Stored) -> Fill:
    """A tensor of a file: with its values, or floats whose law is still to come."""
    if stored.dtype in DTYPES:
        return Fill(stored.shape, stored.dtype, Constant(0.0))
    if stored.dtype.startswith("float"):
        raise ValueError(f"{CODES[stored.dtype]} has no law: give a source in bfloat16 or float32")
    if not stored.end - stored.start:
        return Fill(stored.shape, stored.dtype, Values(np.empty(stored.shape, stored.dtype)))
    with files.opened_regular(path) as (descriptor, _), open(descriptor, "rb", closefd=False) as file:
        memory = np.memmap(file, np.uint8, "r", start + stored.start, (stored.end - stored.start,))
    return Fill(stored.shape, stored.dtype, Values(np.asarray(memory).view(stored.dtype).reshape(stored.shape)))
