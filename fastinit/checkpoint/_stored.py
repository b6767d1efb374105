"""A checkpoint as it lies in its folder: which file holds which tensor of the plan, by the files' own headers.

Other programs save the same tensors in other files, in another order or with other metadata. So only a file that begins
with the planned header is compared byte for byte; of any other one the tensors are compared where its header says.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from fastinit._core.structured import needs_all
from fastinit._io.files import front, opened_regular
from fastinit._io.folders import Model, pick
from fastinit._io.safetensors import Stored, read_header
from fastinit.checkpoint._folder import Folder
from fastinit.checkpoint._job import Job
from fastinit.checkpoint._layout import INDEX_NAME, SHARD_NAME, Entry, Shard, index_text
from fastinit.plan._plan import Plan


@dataclass(slots=True)
class Examined:
    """What the names, sizes and headers of a checkpoint's files say, and what a repair has to write.

    Attributes:
        shards: the files there are, each with the tensors of the plan that it holds.
        problems: in words.
        differing: the names of tensors of another dtype or shape.
        notes: which files were chosen of those in the folder, in words.
        as_planned: whether files, headers and index are those that `write` makes.
        rewritten: the planned shards that a repair writes whole, since no file holds their tensors, or none rightly.
        removed: the files that it removes then: they hold the same tensors in another layout.
        index: the index that it writes; None if there is none to write.
    """

    shards: list[Shard] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    as_planned: bool = True
    rewritten: list[Shard] = field(default_factory=list)
    removed: list[Path] = field(default_factory=list)
    index: bytes | None = None
    _names: dict[str, set[str]] = field(default_factory=dict)  # file -> tensors of the plan, by their first names
    _weight_map: dict[str, str] = field(default_factory=dict)  # all tensors of files whose headers can be read
    _bad: set[str] = field(default_factory=set)  # files that are missing, or not to be mended tensor by tensor

    def is_rewritten(self, shard: Shard) -> bool:
        """Return True if a repair writes the file of a shard whole."""
        return any(shard.name == one.name for one in self.rewritten)


def examine(place: Folder, job: Job) -> Examined:
    """Find the tensors of a job in the files of its folder."""
    planned = {shard.name: shard for shard in job.layout.shards}
    found = Examined()
    model = _choose(place, job, found.notes)
    for name in model.absent:
        what = "a Git LFS pointer: run `git lfs pull`" if (place.path / name).exists() else "missing"
        found.problems.append(f"{name} is {what}")
        _excuse(found, name, planned, model, job.plan)
    for path in model.files:
        _add(found, path, planned.get(path.name), job.plan)
        if path.name not in found._names:  # its header cannot be read
            _excuse(found, path.name, planned, model, job.plan)
    held = set().union(*found._names.values())
    missing = [entry.name for shard in planned.values() for entry in shard.entries if entry.name not in held]
    found.problems += [f"{name} is in no file" for name in missing]
    names = {*model.absent, *(path.name for path in model.files)}
    found.as_planned &= names == planned.keys()
    sound = _look_at_index(found, place, job, model, names == planned.keys())
    _plan_repair(found, planned, model, missing)
    if found.rewritten:
        pointers = [place.path / name for name in model.absent if name not in planned]
        found.removed += [path for path in pointers if path.exists() and _is_replaced(found, path)]
    if len(found.rewritten) == len(planned) or (not sound and names == planned.keys()):
        found.index = job.layout.index
    elif not sound or (found.rewritten and names != planned.keys()):
        found.index = index_text(
            [*(shard for shard in found.shards if not found.is_rewritten(shard)), *found.rewritten]
        )
    return found


def _choose(place: Folder, job: Job, notes: list[str]) -> Model:
    """The files that hold the checkpoint, and the names of those that should be there too."""
    planned = [shard.name for shard in job.layout.shards]
    pointers: list[str] = []
    for indexed in True, False:  # a damaged index is a problem, but says nothing about the files
        said: list[str] = []
        try:
            model = pick(place.path, said, indexed=indexed)
        except (ValueError, FileNotFoundError):
            continue
        names = [path.name for path in model.files]
        pointers = pointers or [name for name in model.absent if (place.path / name).exists()]
        if not any(_may_hold(path, job.plan) for path in model.files):
            continue
        notes += said
        if set(names) <= set(planned):
            return dataclasses.replace(model, absent=tuple(name for name in planned if name not in names))
        return model
    return Model((), tuple(dict.fromkeys([*pointers, *planned])))


def _may_hold(path: Path, plan: Plan) -> bool:
    """Return False if a file certainly holds no tensor of a plan, as that of an adapter."""
    try:
        _, tensors = read_header(path, whole=False)
    except ValueError:
        return True
    return not tensors or any(name in plan for name in tensors)


def _excuse(found: Examined, name: str, planned: dict[str, Shard], model: Model, plan: Plan) -> None:
    """Enter the tensors that a file would hold, so that only the file is called missing."""
    indexed = {tensor for tensor, file in model.weight_map.items() if file == name}
    entries = planned[name].entries if name in planned else ()
    found._names[name] = _first_names(indexed, plan) | {entry.name for entry in entries}
    found._bad.add(name)


def _add(found: Examined, path: Path, shard: Shard | None, plan: Plan) -> None:
    """Enter a file: the planned shard, or one with the tensors that its header names."""
    size = path.stat().st_size
    stored: dict[str, Stored] = {}
    if shard is None or not path.is_file() or not _begins_with(path, shard.header):
        found.as_planned = False
        try:
            start, stored = read_header(path, whole=False)
        except ValueError as error:
            if shard is None or shard.nbytes != size or not path.is_file():
                found.problems.append(str(error).removeprefix(f"{path.parent}/"))
                return
        else:
            shard = _shard(found, path.name, start, stored, plan)
    assert shard is not None
    found.shards.append(shard)
    if size != shard.nbytes:
        found.problems.append(f"{path.name} must have {shard.nbytes:,} bytes. Received: {size:,}")
        cut = (entry for entry in shard.entries if entry.end > size and needs_all(entry.fill.distribution))
        found.differing += [entry.name for entry in cut]  # they are not made to be compared
    for name in stored or [entry.name for entry in shard.entries]:
        if name in found._weight_map:
            found.problems.append(f"{path.name}: {name} is in {found._weight_map[name]} too")
            found._bad |= {path.name, found._weight_map[name]}
        found._weight_map[name] = path.name
    found._names[path.name] = _first_names(stored or [entry.name for entry in shard.entries], plan)


def _shard(found: Examined, file: str, start: int, tensors: dict[str, Stored], plan: Plan) -> Shard:
    """A file as its header has it, with the tensors that are as planned."""
    entries = []
    for name, stored in tensors.items():
        if name not in plan:
            found.problems.append(f"{file}: {name} is not in the plan")
            found._bad.add(file)
            continue
        fill = plan.of(name)
        if (stored.dtype, stored.shape) == (fill.dtype, fill.shape):
            entries.append(Entry(name, fill, start + stored.start))
            continue
        wanted, received = (f"{one.dtype} of shape {list(one.shape)}" for one in (fill, stored))
        found.problems.append(f"{file}: {name} must be {wanted}. Received: {received}")
        found.differing.append(name)
        found._bad.add(file)
    return Shard(file, b"", tuple(entries), start + max((stored.end for stored in tensors.values()), default=0))


def _begins_with(path: Path, header: bytes) -> bool:
    """Whether a file begins with a header, or with as much of it as the file has bytes."""
    with opened_regular(path) as (descriptor, _):
        return header.startswith(front(descriptor, len(header)))


def _first_names(names: Iterable[str], plan: Plan) -> set[str]:
    return {plan.first_name(name) for name in names if name in plan}


def _look_at_index(found: Examined, place: Folder, job: Job, model: Model, same_files: bool) -> bool:
    """Whether the index is what the files need; enter it among the problems if not."""
    if same_files and (job.layout.index is None or place.has_index(job)):
        return True
    found.as_planned = False
    files = [path.name for path in model.files]
    if model.index is None and len(files) + len(model.absent) == 1:
        return True
    known = set(found._weight_map.values())
    if model.index is not None and found._weight_map == {
        name: file for name, file in model.weight_map.items() if file in known or file not in found._bad
    }:
        return True
    there = (place.path / INDEX_NAME).exists()
    found.problems.append(f"{INDEX_NAME} {'is not what it should be' if there else 'is missing'}")
    return False


def _plan_repair(found: Examined, planned: dict[str, Shard], model: Model, missing: list[str]) -> None:
    """Choose the shards to write whole: those of tensors that no file holds rightly; all if the layout is another."""
    lost = set(missing).union(*(found._names.get(name, ()) for name in found._bad))
    found.rewritten = [
        shard
        for shard in planned.values()
        if shard.name in found._bad or any(entry.name in lost for entry in shard.entries)
    ]
    written = {entry.name for shard in found.rewritten for entry in shard.entries}
    rewritten = {shard.name for shard in found.rewritten}
    kept = [path for path in model.files if path.name not in rewritten]
    if any(path.name in found._bad or found._names[path.name] & written for path in kept):
        found.rewritten = list(planned.values())
        found.removed = [path for path in kept if path.name not in planned and _is_replaced(found, path)]


def _is_replaced(found: Examined, path: Path) -> bool:
    """Whether the planned files take the place of a file. An index may name any, such as a tokenizer or an adapter."""
    is_model = bool(found._names.get(path.name)) or SHARD_NAME.fullmatch(path.name) is not None
    return is_model and path.suffix == ".safetensors"
