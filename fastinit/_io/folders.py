"""The safetensors files of a model: which files of a folder they are, and what is in them.

The names are those that Hugging Face's libraries give and look for. The files of one model share a stem: they are one
file (`model.safetensors`), or shards (`model-00001-of-00002.safetensors`) with an index. A variant, as
`model.fp16.safetensors`, holds the same tensors once more.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from fastinit._io import documents
from fastinit._io.files import opened_regular
from fastinit._io.files import read as read_file
from fastinit._io.safetensors import INDEX_NAME, LFS_POINTER, MOST_FILES, Stored, read_header
from fastinit._io.text import LONGEST_CELL, LONGEST_LINE, printable

PIPELINE = "model_index.json"  # of diffusers: the folder's models lie in folders below it

_STEMS = "model", "diffusion_pytorch_model"  # that `from_pretrained` of transformers and of diffusers looks for
_VARIANT = re.compile(r"(fp|bf|f|float|bfloat|int)\d+\w*|(non_)?ema")
_FIRST_VARIANTS = "fp32", "bf16", "fp16"  # in a folder that has variants only
_FILE = re.compile(r"(?P<stem>.+?)(-\d{5,}-of-(?P<count>(?!0+\D)\d{5,}))?(?P<variant>\.[^.]+)?\.safetensors")
_INDEX = re.compile(r"(?P<stem>.+)\.safetensors\.index(?P<variant>\.[^.]+)?\.json")
_NUMBER = re.compile(r"-\d{5,}-of-")
_OTHER_WEIGHTS = ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".npz", ".onnx"
_LONGEST_REF = 1_000  # bytes of a branch's file in the Hub's cache: a commit in 40 digits
_DEPTH = 2  # of folders below the one that was given


class StoredFile(NamedTuple):
    """A safetensors file: the bytes before its data, and its tensors in the order of their bytes.

    `prefix` is what the names of its tensors begin with: that of its model.
    """

    path: Path
    start: int
    tensors: dict[str, Stored]
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class Model:
    """The files of one model.

    Attributes:
        files: that are there.
        absent: the names of those that should be there too.
        index: the index that was read.
        weight_map: what it says: tensor -> name of a file.
        prefix: the model's folder and "/", for the names of its tensors, where several models are read at once.
    """

    files: tuple[Path, ...]
    absent: tuple[str, ...] = ()
    index: Path | None = None
    weight_map: dict[str, str] = field(default_factory=dict)
    prefix: str = ""


def read_checkpoint(path: Path) -> list[StoredFile]:
    """The files of a checkpoint: of a folder, of an index, or one file; what was chosen or is missing is warned of.

    Raises:
        OSError: no file of a model is there, or one cannot be read.
        ValueError: a folder without such files, what is no index, a name that stands in two files, or what is wrong
            with a file.
    """
    notes: list[str] = []
    found = [file for model in choose(path, notes) for file in _read(model, notes)]
    for note in notes:
        warnings.warn(printable(note, LONGEST_LINE), stacklevel=4)  # of `survey`
    return found


def _read(model: Model, notes: list[str]) -> list[StoredFile]:
    """The headers of a model's files, each tensor in one of them: if two hold it, in the one that the index names."""
    headers = {path: read_header(path) for path in model.files}
    holders: dict[str, Path] = {}
    several: dict[str, list[Path]] = {}
    for path, (_, tensors) in headers.items():
        for name in tensors:
            if holders.setdefault(name, path) is not path:
                several.setdefault(name, [holders[name]]).append(path)
    for name, paths in several.items():
        indexed = model.weight_map.get(name)
        if indexed not in [path.name for path in paths]:
            what = f"{name!r} is in another file too, {paths[0].name}"
            raise ValueError(f"{paths[1]}: {what}: give one of the files, or an index that names one")
        for path in paths:
            if path.name != indexed:
                del headers[path][1][name]
    if model.index is not None:
        expected = {name for name, file in model.weight_map.items() if file not in model.absent}
        for names, what in (
            (expected - holders.keys(), "in no file of the index"),
            (holders.keys() - model.weight_map.keys(), "not in the index, but read"),
        ):
            if names:
                listed = _some(map(repr, sorted(names)))
                notes.append(f"{model.index}: {listed} {'is' if len(names) == 1 else 'are'} {what}")
    return [
        StoredFile(path, start, _prefixed(tensors, model.prefix), model.prefix)
        for path, (start, tensors) in headers.items()
    ]


def _prefixed(tensors: dict[str, Stored], prefix: str) -> dict[str, Stored]:
    return {prefix + name: stored for name, stored in tensors.items()} if prefix else tensors


def choose(path: Path, notes: list[str]) -> list[Model]:
    """The models that a path stands for: one, or those of the folders inside where it has none of its own.

    Args:
        path: a folder, an index or a file.
        notes: gets a sentence for each choice that was made, and for what is missing.

    Raises:
        OSError, ValueError: as `read_checkpoint`.
    """
    path = snapshot(path)
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    if not path.is_dir():
        return [_complete(_indexed(path), path, notes) if path.suffix == ".json" else Model((path,))]
    own = [file.name for group in _groups(path).values() for file in group.all]
    inside = {} if own and not (path / PIPELINE).exists() else _below(path)
    if not inside:
        return [_complete(pick(path, notes), path, notes)]
    left_out = f", not {_some(own)} beside" if own else ""
    if len(inside) == 1:
        notes.append(f"{path}: the model in {next(iter(inside))} is read{left_out}")
    else:
        notes.append(f"{path}: {len(inside)} models are read, each under its folder's name: {_some(inside)}{left_out}")
    models = []
    for name, folder in inside.items():
        try:
            model = _complete(pick(folder, notes), folder, notes)
            models.append(replace(model, prefix=f"{name}/" if len(inside) > 1 else ""))
        except FileNotFoundError as error:
            if len(inside) == 1:
                raise
            notes.append(str(error))
    if not models:
        raise FileNotFoundError(notes[-1])
    return models


def snapshot(path: Path) -> Path:
    """The snapshot of `main` where a path is a repository in the Hub's cache (`models--org--name`), else the path.

    Snapshots are folders in the repository. What is a link there, to a folder elsewhere, is none.

    Raises:
        ValueError: the repository has no such snapshot, and not only one.
    """
    if not (path / "snapshots").is_dir() or not ((path / "refs").is_dir() or (path / "blobs").is_dir()):
        return path
    main = path / "refs" / "main"
    commit = read_file(main, _LONGEST_REF).decode(errors="replace").strip() if main.is_file() else ""
    folders = [] if (path / "snapshots").is_symlink() else sorted((path / "snapshots").iterdir())
    found = {folder.name: folder for folder in folders if folder.is_dir() and not folder.is_symlink()}
    if commit not in found and len(found) != 1:
        raise ValueError(f"{path}: refs/main names none of the snapshots: give one of {_some(found) or 'a download'}")
    return found[commit] if commit in found else next(iter(found.values()))


def has_weights(folder: Path) -> bool:
    """Return True if a folder, or one inside, has safetensors files or an index."""
    return bool(_groups(folder) or _below(folder))


def no_weights(folder: Path, also: str = "") -> ValueError:
    """An error for a folder without safetensors files; `also` begins the list of what it lacks."""
    others = sorted(path.name for path in folder.iterdir() if path.suffix in _OTHER_WEIGHTS)
    only = f", but {_some(others)}: save the model as safetensors, as `save_pretrained` does" if others else ""
    return ValueError(f"{folder} holds no {also}{INDEX_NAME} and no .safetensors file{only}")


# --- one folder ---


@dataclass(slots=True)
class _Group:
    """The files of a folder that share a stem and a variant: a single one, shards by their number, an index."""

    single: Path | None = None
    shards: dict[int, list[Path]] = field(default_factory=lambda: defaultdict(list))
    index: Path | None = None

    @property
    def all(self) -> list[Path]:
        files = [path for shards in self.shards.values() for path in shards]
        return [path for path in (self.single, *files, self.index) if path is not None]


def pick(folder: Path, notes: list[str], *, indexed: bool = True) -> Model:
    """The model whose files lie in a folder itself: the one that `from_pretrained` loads, or else all files but
    variants.

    Args:
        folder: where to look.
        notes: as in `choose`.
        indexed: whether indices count.

    Raises:
        OSError, ValueError: as `read_checkpoint`.
    """
    groups = _groups(folder)
    if not indexed:
        groups = {name: replace(group, index=None) for name, group in groups.items() if group.all != [group.index]}
    if not groups:
        raise no_weights(folder)
    models = [_of_group(groups[name], notes) for name in _preferred(groups)]
    model = models[0]
    if len(models) > 1:
        files = dict.fromkeys(path for model in models for path in model.files)
        model = Model(tuple(files), tuple(name for model in models for name in model.absent))
    read = {path.name for one in models for path in (*one.files, one.index) if path is not None}
    left_out = [path.name for group in groups.values() for path in group.all if path.name not in read]
    left_out = [name for name in left_out if name not in model.absent and not name.endswith(".json")]
    if left_out and model.files:
        what = "is" if len(model.files) == 1 else "are"
        notes.append(f"{folder}: {_some(path.name for path in model.files)} {what} read, not {_some(left_out)}")
    return model


def _complete(model: Model, source: Path, notes: list[str]) -> Model:
    """The model; its missing files are noted, or an error if none is there."""
    if model.absent:
        what = f"{_some(model.absent)} {'is' if len(model.absent) == 1 else 'are'} missing or a Git LFS pointer"
        if not model.files:
            raise FileNotFoundError(f"{source}: {what}: download the model again, or run `git lfs pull`")
        notes.append(f"{source}: {what}: its tensors are left out")
    return model


def _groups(folder: Path) -> dict[str, _Group]:
    groups: dict[str, _Group] = defaultdict(_Group)
    for path in sorted(folder.iterdir()):
        index, file = _INDEX.fullmatch(path.name), _FILE.fullmatch(path.name)
        if path.name.startswith(".") or not (index or file):
            continue
        if index is not None:
            groups[index["stem"] + (index["variant"] or "")].index = path
        elif file is not None:
            group = groups[file["stem"] + (file["variant"] or "")]
            if file["count"] is None:
                group.single = path
            else:
                group.shards[int(file["count"])].append(path)
    return groups


def _below(folder: Path, depth: int = _DEPTH) -> dict[str, Path]:
    """The folders inside that hold weights, hidden ones aside; name, with those above it -> path."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if depth else ():
        if path.is_dir() and not path.name.startswith("."):
            deeper = {"": path} if _groups(path) else _below(path, depth - 1)
            found |= {f"{path.name}/{name}".rstrip("/"): below for name, below in deeper.items()}
    return found


def _preferred(groups: dict[str, _Group]) -> list[str]:
    """The names of the groups to read."""
    variants: dict[str, list[str]] = defaultdict(list)
    for name in groups:
        variants[_stem(name)].append(name)
    order = {variant: place for place, variant in enumerate(_FIRST_VARIANTS)}
    chosen = {
        stem: min(names, key=lambda name: (name != stem, order.get(name.rpartition(".")[2], len(order)), name))
        for stem, names in variants.items()
    }
    for stem in _STEMS:
        if stem in chosen:
            return [chosen[stem]]
    names = list(chosen.values())
    return [name for name in names if groups[name].index] or names


def _stem(name: str) -> str:
    """The name of a group without its variant."""
    stem, _, variant = name.rpartition(".")
    return stem if stem and _VARIANT.fullmatch(variant) else name


def _of_group(group: _Group, notes: list[str]) -> Model:
    """One of a group's single file, what its index names, and its shards: the first that is there."""
    if group.single is not None:
        if group.index is not None:  # one that names another file is of an earlier checkpoint
            with contextlib.suppress(ValueError):
                model = _indexed(group.index)
                if model.files == (group.single,) and not model.absent:
                    return model
        return _there([group.single])
    shards = _there(_shards(group))
    if group.index is not None:
        model = _indexed(group.index)
        if model.files or not shards.files:
            return model
        notes.append(f"{group.index}: none of its files is there: the shards beside it are read")
    return shards


def _shards(group: _Group) -> list[Path]:
    """The shards of a group, of those in another number aside if these are complete; also those that are missing."""
    for count, there in group.shards.items():
        if count > MOST_FILES:
            raise ValueError(f"{there[0]}: a model must have at most {MOST_FILES:,} files")
    complete = [count for count, paths in group.shards.items() if len(paths) == count]
    paths: list[Path] = []
    for count in complete if len(complete) == 1 else group.shards:
        there = group.shards[count]
        first = 0 if "-00000-of-" in there[0].name else 1
        names = [_NUMBER.sub(f"-{i:05}-of-", there[0].name) for i in range(first, first + count)]
        paths += [there[0].with_name(name) for name in names]
    return paths


def _indexed(index: Path) -> Model:
    """What an index names.

    Raises:
        ValueError: it is no index, or names a file elsewhere.
    """
    weight_map = documents.read(index, infinite=True).get("weight_map")
    if weight_map == {}:
        raise ValueError(f"{index}: the index names no tensors: remove it, or download the model again")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise ValueError(f"{index}: no index: weight_map must hold a file for each name")
    for file in weight_map.values():
        if Path(file).name != file or "\0" in file or not documents.is_unicode(file):
            raise ValueError(f"{index}: a file of the index must lie beside it. Received: {file!r:.200}")
    names = dict.fromkeys(weight_map.values())
    if len(names) > MOST_FILES or len(weight_map) > documents.MOST_NAMES:
        raise ValueError(
            f"{index}: an index must name at most {MOST_FILES:,} files and {documents.MOST_NAMES:,} tensors. "
            f"Received: {len(names):,} and {len(weight_map):,}"
        )
    found = _there(index.parent / name for name in names)
    return replace(found, index=index, weight_map=weight_map)


def _there(paths: Iterable[Path]) -> Model:
    """Files that are there, and the names of those that are not, or only as a Git LFS pointer."""
    files, absent = [], []
    for path in paths:
        there = path.exists()
        if path.is_file():
            with opened_regular(path) as (descriptor, _):
                there = os.read(descriptor, len(LFS_POINTER)) != LFS_POINTER
        if there:
            files.append(path)
        else:
            absent.append(path.name)
    return Model(tuple(files), tuple(absent))


def _some(names: Iterable[str], most: int = 4) -> str:
    """The first of some names, for people."""
    listed = list(names)
    shown = (printable(name, LONGEST_CELL // most) for name in listed[:most])
    more = f" and {len(listed) - most:,} more" if len(listed) > most else ""
    return ", ".join(shown) + more
