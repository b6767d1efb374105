"""The folder of a checkpoint, from its first byte to its index.

All files are made in a hidden folder inside, and moved out when all are complete; the index comes last. So what was
there before stays whole until the end, and whatever stops a run, no index names a file that is missing.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable
from pathlib import Path

from fastinit._io import files
from fastinit.checkpoint._job import Job
from fastinit.checkpoint._layout import INDEX_NAME, SHARD_NAME, Shard

STAGING = ".fastinit"  # where files are made
MANIFEST = "fastinit.json"  # the job: in the hidden folder from the first byte on, beside the files at the end
REPLACES = "; --overwrite (overwrite=True) replaces it"  # what messages advise
_MOVING = "moving"  # a file that says that all were complete, and that some may have been moved already


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

    def try_lock(self, descriptor: int, *, shared: bool = False) -> bool:
        """Exchange the lock of the folder, whose descriptor it is; False where another process excludes that."""
        with files.naming(self.path):
            return files.try_lock(descriptor, shared=shared)

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
            NotADirectoryError: the hidden folder is something else.
            BlockingIOError: what would be removed is being written.
        """
        if self.staging.is_symlink() or (self.staging.exists() and not self.staging.is_dir()):
            raise NotADirectoryError(f"{self.staging} must be a folder, and no link to one")
        if not overwrite:
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
            with contextlib.suppress(FileExistsError):  # another part was first
                files.put(self.staging / MANIFEST, text, replace=False, sync=self._sync)
        staged = self.staged_job()
        if staged is None or staged != job:
            raise BlockingIOError(self.busy)
        for name, data in job.files.items():
            if not (self.path / name).exists() or _differs(self.path / name, data):
                files.put(self.staging / name, data, sync=self._sync)
        return dataclasses.replace(staged, files=job.files) if job.computed else job

    def _refuse_others(self, job: Job) -> None:
        """Raise FileExistsError for what a job would replace, ValueError for what nobody can read."""
        staged = self.staged_job()
        if staged is not None and staged != job:
            raise FileExistsError(
                f"{self.path} holds unfinished files of another plan, seed or size of shards{REPLACES}"
            )
        if self.is_moving():  # the old checkpoint is gone already
            return
        placed = self.placed_job()
        if placed is not None and placed != job:
            raise FileExistsError(f"{self.path} holds another plan, seed or size of shards{REPLACES}")
        others = [path.name for path in self._model_files() if placed is None or not self._is_ours(path, job)]
        others += [name for name, data in job.files.items() if _differs(self.path / name, data)]
        if others:
            raise FileExistsError(f"{self.path / min(others)} exists and is not this plan's{REPLACES}")

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
        places = {shard: _place(folders, shard) for shard in (job.layout.shards if shards is None else shards)}
        return {shard: path for shard, path in places.items() if path is not None}

    def is_complete(self, job: Job) -> bool:
        """Whether all shards are found. It looks no further than to the first one that is not: every part asks."""
        folders = self._folders(job)
        return all(_place(folders, shard) is not None for shard in job.layout.shards)

    def _folders(self, job: Job) -> tuple[Path, ...]:
        """Where a job's files may be."""
        ours = self.is_moving() or _holds(self.path, job)
        return (self.staging, self.path) if ours else (self.staging,)

    def finish(self, job: Job) -> Path:
        """Move everything into its place, the index last, and remove what earlier checkpoints have left. To be called
        by one run at a time, and again where it was stopped.

        Returns:
            the file that stands for the checkpoint.
        """
        main = self.path / job.layout.main_file
        ours = {shard.name for shard in job.layout.shards}
        files.remove_unfinished(self.path, (*ours, INDEX_NAME, MANIFEST))  # of a run that was killed about here
        if self._is_finished(job):  # nothing was made: nothing is to be touched
            self._clear_quietly()
            return main
        self.staging.mkdir(exist_ok=True)  # after a job that was finished before, and has lost its index
        files.put(self.staging / _MOVING, b"", sync=self._sync)
        index = self.path / INDEX_NAME
        index.unlink(missing_ok=True)
        self._settle()
        for path in self._waiting():
            _move(path, self.path / path.name)
        for path in self._model_files():
            if path.name not in ours:
                path.unlink(missing_ok=True)
        files.put(self.path / MANIFEST, job.text(), sync=self._sync)
        if job.layout.index is not None:
            files.put(index, job.layout.index, sync=self._sync)
        (self.staging / _MOVING).unlink(missing_ok=True)
        self._clear_quietly()  # all is complete: what is left of the hidden folder does no harm
        self._settle()
        return main

    def _settle(self) -> None:
        if self._sync:
            files.sync_folder(self.path)

    def _clear(self) -> None:
        """Remove the hidden folder, the job last: if this is stopped, what is left still says whose it is."""
        (self.staging / _MOVING).unlink(missing_ok=True)
        for path in sorted(self.staging.iterdir(), key=lambda path: path.name == MANIFEST):
            path.unlink(missing_ok=True)
        self.staging.rmdir()

    def _clear_quietly(self) -> None:
        with contextlib.suppress(OSError):
            self._clear()

    def _is_finished(self, job: Job) -> bool:
        return not self._waiting() and not self.is_moving() and _holds(self.path, job) and self.has_index(job)

    def has_index(self, job: Job) -> bool:
        """Return True if the index in its place is that of a job, or if there is none and the job has none."""
        index = self.path / INDEX_NAME
        return (files.read(index) if index.exists() else None) == job.layout.index

    def _waiting(self) -> list[Path]:
        """What is to be moved out of the hidden folder."""
        try:
            found = list(self.staging.iterdir())
        except FileNotFoundError:  # without locks another run may have finished meanwhile
            return []
        ours = (MANIFEST, _MOVING)
        return sorted(path for path in found if path.name not in ours and not path.name.startswith("."))

    def leave(self, job: Job) -> None:
        """After a run that did not end well: keep the hidden folder only if there is something in it to go on from."""
        with contextlib.suppress(OSError):  # the error that ended the run counts
            if not any((self.staging / shard.name).exists() for shard in job.layout.shards) and not self.is_moving():
                self._clear()

    def is_moving(self) -> bool:
        """Whether a run was stopped while it moved its files into place: there is neither the old checkpoint any more
        nor the new one."""
        return (self.staging / _MOVING).exists()

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


def _differs(path: Path, data: bytes) -> bool:
    return path.exists() and files.read(path) != data


def _place(folders: Iterable[Path], shard: Shard) -> Path | None:
    return next((folder / shard.name for folder in folders if _sound(folder / shard.name, shard)), None)


def _sound(path: Path, shard: Shard) -> bool:
    """Whether there is a file of a shard's size and header."""
    try:
        with files.opened_regular(path) as (descriptor, size), open(descriptor, "rb", closefd=False) as file:
            return size == shard.nbytes and file.read(len(shard.header)) == shard.header
    except FileNotFoundError:
        return False
