"""The folder of a checkpoint, from its first byte to its index.

All files are made in a hidden folder inside, and moved out when all are complete; the index comes last. So what was
there before stays whole until the end, and whatever stops a run, no index names a file that is missing.

Anybody may have put something into either folder. So the hidden one must be a folder and no link; only files of the job
are moved out of it; and without `overwrite` a file in place is replaced only if it is the job's, or if an earlier run
with `overwrite` was to replace this very file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import filecmp
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from fastinit._io import files
from fastinit.checkpoint._job import Job
from fastinit.checkpoint._layout import INDEX_NAME, SHARD_NAME, Shard
from fastinit.checkpoint._notes import MANIFEST, MOVING, NO_NOTES, NOTES, Notes, differs, digest, digests, holds

STAGING = ".fastinit"  # where files are made
REPLACES = "; --overwrite (overwrite=True) replaces it"  # what messages advise


class Folder:
    """A folder that holds a checkpoint, a part of one, or nothing yet.

    With `sync` what is done here is on the disk before the next step.
    """

    def __init__(self, path: str | Path, *, sync: bool = True) -> None:
        self.path, self._sync = Path(path), sync
        self.staging = self.path / STAGING

    @property
    def busy(self) -> str:
        return f"another run is writing into {self.path}"

    def existing(self) -> Path:
        """The folder's path.

        Raises:
            FileNotFoundError, NotADirectoryError: there is none.
        """
        if not self.path.is_dir():
            if self.path.exists():
                raise NotADirectoryError(f"{self.path} is no folder, but a file")
            raise FileNotFoundError(f"{self.path} is no folder: it does not exist")
        return self.path

    @contextlib.contextmanager
    def locked(self, *, shared: bool = False) -> Iterator[int]:
        """Lock the folder for a with-block, and give its descriptor.

        Raises:
            FileNotFoundError, NotADirectoryError: there is none.
            BlockingIOError: another run has locked it.
            OSError, ValueError: as `check_staging`.
        """
        with files.locked(self.existing(), self.busy, shared=shared) as descriptor:
            self.check_staging()
            yield descriptor

    def check_staging(self) -> None:
        """Refuse a hidden folder that no run has made.

        Raises:
            NotADirectoryError: it is no folder, or a link to one.
            PermissionError: it is another user's, in a sticky folder.
            ValueError, IsADirectoryError: a file that runs read there is a link, a pipe, a device or a folder.
        """
        if not os.path.lexists(self.staging):
            return
        files.check_folder(self.staging)
        if files.is_protected(self.staging):
            raise PermissionError(f"{self.staging} is another user's: write into a folder of your own, or remove it")
        for path in (self.staging / name for name in (MANIFEST, MOVING, NOTES)):
            with contextlib.suppress(FileNotFoundError):
                files.check_regular(path, path.lstat())

    def try_lock(self, descriptor: int, *, shared: bool = False) -> bool:
        """Exchange the lock of the folder, whose descriptor it is; False where another process excludes that."""
        with files.naming(self.path):
            return files.try_lock(descriptor, shared=shared)

    def unlock(self, descriptor: int) -> None:
        """Give the lock of the folder back before its with-block ends."""
        with files.naming(self.path):
            files.unlock(descriptor)

    def placed_job(self) -> Job | None:
        """The job whose files are in place."""
        return _job_at(self.path / MANIFEST)

    def staged_job(self) -> Job | None:
        """The job whose files are being made."""
        return _job_at(self.staging / MANIFEST)

    def begin(self, job: Job, descriptor: int, *, overwrite: bool, shared: bool) -> Job:
        """Let the hidden folder hold a job, or refuse. `descriptor` is that of the folder, locked (shared or not).

        Returns:
            the job with the computed values that the folder has already, if it has.

        Raises:
            FileExistsError: the folder holds something else, and `overwrite` is false.
            PermissionError: a file that would be replaced is another user's, in a sticky folder.
            BlockingIOError: what would be removed is being written.
        """
        if overwrite:
            files.check_replaceable(self._replaceable(job.files))
        else:
            self._refuse_others(job)
        if (self.staging / MANIFEST).exists() and not _holds(self.staging, job):
            # Without `overwrite` it came after the look above, and is another run's work, finished or not.
            if not (overwrite and self.try_lock(descriptor)):
                raise BlockingIOError(self.busy)
            self._clear()
            self.try_lock(descriptor, shared=shared)
        self.staging.mkdir(exist_ok=True)
        if not (self.staging / MANIFEST).exists():
            known = _holds(self.path, job) and not overwrite
            text = files.read(self.path / MANIFEST) if known else job.text()
            target = self.staging / MANIFEST
            with contextlib.suppress(FileExistsError):  # another part was first
                files.put(target, text, replace=False, sync=self._sync, replaces=self.path / MANIFEST)
        staged = self.staged_job()
        if staged is None or staged != job:
            raise BlockingIOError(self.busy)
        replaced = self._replaceable({**Notes.read(self.staging).extra, **job.files}) if overwrite else ()
        Notes.add(self.staging, job.files, replaced, sync=self._sync)
        for name, data in job.files.items():
            if not (self.path / name).exists() or differs(self.path / name, digest(data)):
                files.put(self.staging / name, data, sync=self._sync, replaces=self.path / name)
        return dataclasses.replace(staged, files=job.files) if job.computed else job

    def _replaceable(self, extra: Iterable[str]) -> list[Path]:
        """The files in place that a job may replace or remove, whosever they are."""
        beside = (self.path / name for name in (MANIFEST, *extra))
        return [*self._model_files(), *(path for path in beside if os.path.lexists(path))]

    def _refuse_others(self, job: Job) -> None:
        """Raise FileExistsError for what a job would replace; while files are moved, not for what the notes allow."""
        self._check_in_place(job, digests(job.files), Notes.read(self.staging) if self.is_moving() else NO_NOTES)

    def _check_in_place(self, job: Job, extra: Mapping[str, str], notes: Notes) -> None:
        """Raise FileExistsError for what a job would replace, ValueError for what nobody can read.

        Args:
            job: what will be in place.
            extra: SHA-256 of its extra files.
            notes: which files may be replaced all the same.
        """
        staged = self.staged_job()
        if staged is not None and staged != job:
            raise FileExistsError(
                f"{self.path} holds unfinished files of another plan, seed or size of shards{REPLACES}"
            )
        placed = None if notes.allow(self.path / MANIFEST) else self.placed_job()
        if placed is not None and placed != job:
            raise FileExistsError(f"{self.path} holds another plan, seed or size of shards{REPLACES}")
        has_ours = placed is not None or self.is_moving()
        others = [path for path in self._model_files() if not (has_ours and self._is_ours(path, job))]
        others += [self.path / name for name, text in extra.items() if differs(self.path / name, text)]
        _refuse(path for path in others if not notes.allow(path))

    def _is_ours(self, path: Path, job: Job) -> bool:
        """Whether a file in its place is the index or, by its size and header, a shard: training may have put another
        one there."""
        if path.name == INDEX_NAME:
            return self.has_index(job)
        return any(_sound(path, shard) for shard in job.layout.shards if shard.name == path.name)

    def found(self, job: Job, shards: Iterable[Shard] | None = None) -> dict[Shard, Path]:
        """The shards, of some or of all, of which there is a file of the right size and header: waiting in the hidden
        folder, or in its place."""
        folders = self._folders(job)
        places = {shard: self._place(folders, shard) for shard in (job.layout.shards if shards is None else shards)}
        return {shard: path for shard, path in places.items() if path is not None}

    def is_complete(self, job: Job) -> bool:
        """Whether all shards are found. It looks no further than to the first one that is not: every part asks."""
        folders = self._folders(job)
        return all(self._place(folders, shard) is not None for shard in job.layout.shards)

    def missing(self, job: Job) -> list[str]:
        """The names of the shards, and of the extra files, that are not there yet."""
        found, notes = self.found(job), Notes.read(self.staging)
        waiting = [path.name for path in self._waiting(job, notes)]
        extra = [name for name in notes.extra if name not in waiting and not os.path.lexists(self.path / name)]
        return [*(shard.name for shard in job.layout.shards if shard not in found), *extra]

    def _place(self, folders: Iterable[Path], shard: Shard) -> Path | None:
        places = (folder / shard.name for folder in folders)
        return next((path for path in places if _sound(path, shard, plain=path.parent == self.staging)), None)

    def _folders(self, job: Job) -> tuple[Path, ...]:
        """Where a job's files may be."""
        ours = self.is_moving() or _holds(self.path, job)
        return (self.staging, self.path) if ours else (self.staging,)

    def finish(self, job: Job, *, overwrite: bool = False) -> Path:
        """Move everything into its place, the index last, and remove what earlier checkpoints have left. To be called
        by one run at a time, and again where it was stopped.

        Returns:
            the file that stands for the checkpoint.

        Raises:
            FileExistsError: a file in place is something else, and neither `overwrite` nor the notes of an earlier run
                let it be replaced. Nothing was moved.
            PermissionError: a file cannot be replaced. Nothing was moved.
        """
        self.check_staging()
        main, index = self.path / job.layout.main_file, self.path / INDEX_NAME
        ours = {shard.name for shard in job.layout.shards}
        files.remove_unfinished(self.path, (*ours, INDEX_NAME, MANIFEST))  # of a run that was killed about here
        notes = Notes.read(self.staging)
        waiting = self._waiting(job, notes)
        if not waiting and self._is_finished(job):  # nothing was made: nothing is to be touched
            self._clear_quietly()
            return main
        targets = {path: self.path / path.name for path in waiting}
        if not overwrite:
            self._check_in_place(job, notes.extra, notes)
            there = {path: target for path, target in targets.items() if target.exists() and not notes.allow(target)}
            _refuse(target for path, target in there.items() if not filecmp.cmp(path, target, shallow=False))
        old = [path for path in self._model_files() if path.name not in ours]
        files.check_replaceable([*targets.values(), *old, index, self.path / MANIFEST])
        self.staging.mkdir(exist_ok=True)  # after a job that was finished before, and has lost its index
        files.put(self.staging / MOVING, b"", sync=self._sync)
        rights = files.status_of(index)
        index.unlink(missing_ok=True)
        self._settle()
        for path, target in targets.items():
            _move(path, target)
        for path in old:
            path.unlink(missing_ok=True)
        files.put(self.path / MANIFEST, job.text(), sync=self._sync)
        if job.layout.index is not None:
            files.put(index, files.Copy(job.layout.index, rights), sync=self._sync)
        (self.staging / MOVING).unlink(missing_ok=True)
        self._clear_quietly()  # all is complete: what is left of the hidden folder does no harm
        self._settle()
        return main

    def _settle(self) -> None:
        if self._sync:
            files.sync_folder(self.path)

    def _clear(self) -> None:
        """Remove the hidden folder, the job last: if this is stopped, what is left still says whose it is."""
        files.check_folder(self.staging)
        (self.staging / MOVING).unlink(missing_ok=True)
        for path in sorted(self.staging.iterdir(), key=lambda path: path.name == MANIFEST):
            path.unlink(missing_ok=True)
        self.staging.rmdir()

    def _clear_quietly(self) -> None:
        with contextlib.suppress(OSError):
            self._clear()

    def _is_finished(self, job: Job) -> bool:
        return not self.is_moving() and _holds(self.path, job) and self.has_index(job)

    def has_index(self, job: Job) -> bool:
        """Return True if the index in its place is that of a job, or if there is none and the job has none."""
        index = self.path / INDEX_NAME
        try:
            return (files.read(index) if index.exists() else None) == job.layout.index
        except (ValueError, IsADirectoryError):  # too long, or no file
            return False

    def _waiting(self, job: Job, notes: Notes) -> list[Path]:
        """What is to be moved out of the hidden folder: of the names of the job, plain files that it has written, by
        size and header or by their digest."""
        places = [(self.staging / shard.name, shard) for shard in job.layout.shards]
        shards = [path for path, shard in places if _sound(path, shard, plain=True)]
        extra = [self.staging / name for name, text in notes.extra.items() if holds(self.staging / name, text)]
        return sorted([*shards, *extra])

    def leave(self, job: Job) -> None:
        """After a run that did not end well: keep the hidden folder only if there is something in it to go on from."""
        with contextlib.suppress(OSError):  # the error that ended the run counts
            if not any((self.staging / shard.name).exists() for shard in job.layout.shards) and not self.is_moving():
                self._clear()

    def is_moving(self) -> bool:
        """Whether a run was stopped while it moved its files into place: there is neither the old checkpoint any more
        nor the new one."""
        return (self.staging / MOVING).exists()

    def _model_files(self) -> Iterable[Path]:
        """The files of a checkpoint, whosever it is."""
        found = self.path.iterdir() if self.path.exists() else ()
        return sorted(path for path in found if path.name == INDEX_NAME or SHARD_NAME.fullmatch(path.name))


def _job_at(path: Path) -> Job | None:
    try:
        text = files.read(path)
    except FileNotFoundError:
        return None
    return Job.from_text(text, path)


def _holds(folder: Path, job: Job) -> bool:
    """Whether a folder's description is that of a job; a damaged one is not."""
    try:
        return _job_at(folder / MANIFEST) == job
    except ValueError:
        return False


def _move(source: Path, target: Path) -> None:
    """Move a file. Over a network, where locks do not reach, another part that is the last too may have moved it."""
    try:
        source.replace(target)
    except FileNotFoundError:
        if not target.exists():
            raise


def _refuse(others: Iterable[Path]) -> None:
    """Raise FileExistsError for the first of some files, by name."""
    for path in sorted(others):
        raise FileExistsError(f"{path} exists and is not this plan's{REPLACES}")


def _sound(path: Path, shard: Shard, *, plain: bool = False) -> bool:
    """Whether there is a file of a shard's size and header; `plain`: no link, and without a second name."""
    try:
        with files.opened_regular(path, os.O_RDONLY | os.O_NOFOLLOW * plain) as (descriptor, size):
            if size != shard.nbytes or (plain and os.fstat(descriptor).st_nlink > 1):
                return False
            return files.front(descriptor, len(shard.header)) == shard.header
    except (FileNotFoundError, ValueError, IsADirectoryError):
        return False
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return False
