"""Commands on hostile input, run in this process, and what they did that they must not do.

A `World` is a folder that is watched: what lies outside of the folders that a command may change is compared before and
after. The limits are those of one command beyond the start of the process.
"""

import contextlib
import faulthandler
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import stat
import sys
import threading
import tomllib
import traceback
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from typer.testing import CliRunner

from fastinit import cli
from fastinit._io.text import LONGEST_LINE

SECONDS = 3.0  # of all processors; a command alone needs less than one
WAIT = 20.0  # by the clock: for one that sleeps
MEMORY = 200_000_000  # bytes
SPACE = 3_000_000_000  # bytes of address space: the test machine is not to be exhausted
_PROGRESS = re.compile(r"[\d,]+ of [\d,]+ bytes")
_OF_A_JOB = re.compile(
    r".*/\.fastinit(/.*)?|.*/(fastinit\.json|model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json|\.[^/]*\.tmp)",
    re.DOTALL,
)
_WARNING = "fastinit: warning: "


class _Stopped(BaseException):
    """A command was stopped by the watchdog."""


@dataclass
class Result:
    code: int
    out: str
    err: str
    faults: list[str]


class World:
    """A watched folder.

    Attributes:
        inside: the folder or the files that a command is given, made anew for each case.
        out: where it may write.
        outside: what it must leave alone.
        cwd: the current folder, empty.
    """

    def __init__(self, root: Path, outside: Path) -> None:
        self.root = root
        self.inside, self.out, self.outside, self.cwd = (root / name for name in ("inside", "out", "outside", "cwd"))
        self._template = outside
        self._restore()

    def _restore(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        self.cwd.mkdir(parents=True)
        shutil.copytree(self._template, self.outside, symlinks=True)
        self._before = self._watched()

    def _watched(self):
        return state(self.root, but=(self.inside, self.out))

    def _inside(self, changes):
        """What a command must leave alone in the folder that it is given."""
        found = state(self.inside) if self.inside.exists() else {}
        return {name: what for name, what in found.items() if not (changes and _is_of_a_job(name, what))}

    def clear(self) -> None:
        """Remove what the last case had."""
        for path in (self.inside, self.out):
            shutil.rmtree(path, ignore_errors=True)

    def run(self, *arguments: object, changes: bool = False, environment: dict[str, str] | None = None) -> Result:
        """Run a command.

        Args:
            arguments: of the command line.
            changes: whether it may change what is inside.
            environment: further variables.
        """
        arguments = [str(argument) for argument in arguments]
        before = self._inside(changes)
        with mock.patch.dict(os.environ, environment or {}), contextlib.chdir(self.cwd):
            result = _guarded(arguments, self.root.parent / "traceback.txt")
        result.faults += _faults_of_output(arguments, result)
        after = self._watched()
        result.faults += _differences("outside", self._before, after)
        result.faults += _differences("inside", before, self._inside(changes))
        if after != self._before:
            self._restore()
        return result


# --- what must stay ---


def state(folder, but=()):
    """All that a folder holds, by name: mode, size, blocks, time and content of each."""
    found, folders = {}, [str(folder)]
    but = set(map(str, but))
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.path in but:
                    continue
                status = entry.stat(follow_symlinks=False)
                kind = stat.S_IFMT(status.st_mode)
                content = None
                if kind == stat.S_IFDIR:
                    folders.append(entry.path)
                elif kind == stat.S_IFLNK:
                    content = str(Path(entry.path).readlink())
                elif kind == stat.S_IFREG:
                    with Path(entry.path).open("rb") as file:
                        content = status.st_size, hashlib.sha256(file.read(1 << 16)).digest()
                found[entry.path] = (status.st_mode, status.st_mtime_ns, status.st_uid, content)
    return found


def _is_of_a_job(path, what):
    return stat.S_ISDIR(what[0]) or _OF_A_JOB.fullmatch(path)


def _differences(what, before, after):
    gone, new = before.keys() - after.keys(), after.keys() - before.keys()
    changed = {name for name in before.keys() & after.keys() if before[name] != after[name]}
    return [
        f"{what}: {how} {Path(name).name!r}"
        for how, names in (("removed", gone), ("made", new), ("changed", changed))
        for name in sorted(names)
    ]


# --- one command ---


def _guarded(arguments, dump):
    """The result of a command, with faults of memory, time, descriptors and threads; `dump` gets a traceback where
    nothing but the end of the process helps."""
    before = _resources()
    faults: list[str] = []
    with _limited(dump, arguments, faults), mock.patch("builtins.input", side_effect=EOFError("input was asked for")):
        try:
            done = CliRunner().invoke(cli._app.app, arguments)
            code, out, err, error = done.exit_code, done.stdout, done.stderr, done.exception
        except _Stopped as stopped:  # CliRunner catches what is an Exception
            code, out, err, error = 1, "", "", stopped
    if error is not None and not isinstance(error, SystemExit):
        faults.append(f"traceback: {_said(error)}")
    after = _resources()
    grown = after["peak"] - before["memory"]
    if grown > MEMORY:
        faults.append(f"memory: {grown / 1e6:,.0f} MB more")
    kept = "descriptors", "threads", "folders to import from"
    faults += [f"{name} left: {after[name] - before[name]}" for name in kept if before[name] < after[name]]
    return Result(code, out, err, faults)


def _resources():
    linux = sys.platform == "linux"
    status = Path("/proc/self/status").read_text() if linux else ""
    sizes = {name: int(number) << 10 for name, number in re.findall(r"(VmHWM|VmRSS):\s+(\d+) kB", status)}
    return {
        "peak": sizes.get("VmHWM", 0),
        "memory": sizes.get("VmRSS", 0),
        "descriptors": len(list(Path("/proc/self/fd" if linux else "/dev/fd").iterdir())),
        "threads": threading.active_count(),
        "folders to import from": len(sys.path),
    }


@contextlib.contextmanager
def _limited(dump, arguments, faults):
    """Limits of time, which stop a command, and of address space, which the command sees as any other limit."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")  # the peak of memory begins anew
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        space = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + SPACE, space[1]))

    def stop(number, frame):
        place = _place(traceback.extract_stack(frame))
        faults.append(f"time: {SECONDS:g} s of work" if number == signal.SIGPROF else f"time: {WAIT:g} s")
        faults[-1] += f", in {place}"
        raise _Stopped

    handlers = {number: signal.signal(number, stop) for number in (signal.SIGPROF, signal.SIGALRM)}
    with dump.open("w") as file:
        print(ascii(arguments), file=file, flush=True)
        faulthandler.dump_traceback_later(3 * WAIT, exit=True, file=file)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.setitimer(signal.ITIMER_REAL, WAIT)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
            faulthandler.cancel_dump_traceback_later()
            for number, handler in handlers.items():
                signal.signal(number, handler)
            if sys.platform == "linux":
                resource.setrlimit(resource.RLIMIT_AS, space)


def _place(frames):
    """The innermost place in fastinit."""
    ours = [f"{Path(frame.filename).name}:{frame.name}" for frame in frames if "/fastinit/" in frame.filename]
    return ours[-1] if ours else "elsewhere"


def _said(error):
    place = _place(traceback.extract_tb(error.__traceback__))
    return f"{type(error).__name__} in {place}: {ascii(str(error))[:150]}"


# --- what a command prints ---


def _faults_of_output(arguments, result):
    faults = []
    if result.code not in (0, 1):
        faults.append(f"exit code {result.code}")
    lines = [line for line in result.err.split("\n") if line and not _PROGRESS.fullmatch(line)]
    for line in lines:
        if not line.startswith("fastinit: "):
            faults.append(f"stderr: no line of ours: {ascii(line)[:100]}")
        if line.startswith("fastinit: unexpected"):  # an error that nobody thought of
            faults.append(f"traceback: {ascii(line)[:300]}")
        if not line.isprintable():
            faults.append(f"stderr: not printable: {ascii(line)[:100]}")
        if len(line) > LONGEST_LINE:
            faults.append(f"stderr: a line of {len(line):,} characters: {ascii(line)[:60]}")
    if len(lines) > 100:
        faults.append(f"stderr: {len(lines):,} lines")
    errors = [line for line in lines if not line.startswith(_WARNING)]
    differs = arguments[0] == "verify" and result.out  # its problems are its output
    wanted = 1 if result.code == 1 and not differs else 0
    if len(errors) != wanted and not result.faults:
        faults.append(f"stderr: {len(errors)} errors with exit code {result.code}: {ascii(result.err)[:100]}")
    raw = [line for line in result.out.split("\n") if not line.isprintable()]
    if raw:
        faults.append(f"stdout: not printable: {ascii(raw[0])[:100]}")
    if result.code == 0 and {"--json", "--toml"} & set(arguments):
        try:
            (json if "--json" in arguments else tomllib).loads(result.out)
        except ValueError as error:
            faults.append(f"stdout: no document: {error}")
    return faults
