"""The Ray engine: one task for each file, on whichever node of a cluster is free.

The folder must be the same on all nodes, under the same path (NFS, Lustre, a mounted bucket), and fastinit be installed
on them. Ray places the tasks, and starts those again whose worker or node died; what a task writes does not depend on
where it runs.

Tasks ask for CPUs that are free. If others hold all of them, a driver waits, with a warning and a time limit. A caller
that runs in a Ray worker and holds CPUs itself writes the files in its own process, since it would only wait.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

try:
    import ray
except ImportError as error:
    raise ImportError("the engine 'ray' needs Ray: pip install 'fastinit-weights[ray]'") from error

import ray.util.client
from ray import ObjectRef
from ray.exceptions import RayError, RayTaskError

from fastinit._io import files
from fastinit.checkpoint._job import Job
from fastinit.checkpoint._layout import Shard
from fastinit.checkpoint._shards import Engine, How, write_shards

RETRIES = 5  # of a task whose worker died; Ray counts those that ran out of memory apart
REACH_SECONDS = 20
SETTLE_SECONDS = 0.5
STOP_SECONDS = 30  # how long killed tasks may take to end: a node that cannot be reached never says so
FREE_SECONDS = 2  # Ray's list of free resources is up to a second old
START_SECONDS = 10  # a worker starts in 1 to 5 s: if no task runs after this time, others hold the CPUs
WAIT_SECONDS = 600  # an autoscaler adds a node in minutes

# Entered while Ray starts. Ray puts the folder that is current then at the head of its workers' path of modules.
starting: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext


def engine(address: str | None) -> Engine:
    """The engine that writes on a Ray cluster.

    Args:
        address: of the cluster. Default: what `ray.init()` finds, else a Ray of this machine's own, for this one call.
            Where the caller's Ray is initialised already, that one is used, and left running.
    """

    def run(job: Job, shards: Sequence[Shard], folder: Path, how: How) -> None:
        with _connected(address):
            _write(job, shards, folder.absolute(), how)

    return run


def _write(job: Job, shards: Sequence[Shard], folder: Path, how: How) -> None:
    numbers = {shard: number for number, shard in enumerate(job.layout.shards)}
    sent = ray.put(dataclasses.replace(job, files={}))  # a new one: the old one has its layout with it
    tasks = _Tasks(sent, numbers, folder, how)
    left = tasks.write(shards)
    if left:
        cpus = _own_cpus()
        warnings.warn(
            f"no CPU is free for the tasks of checkpoint.write(engine='ray'): this process writes the {len(left):,} "
            f"missing files itself, threads: {cpus}, as many as it holds CPUs. {_usage()}",
            RuntimeWarning,
            stacklevel=2,
        )
        write_shards(job, left, folder, how._replace(threads=min(cpus, how.threads)))


class _Task(NamedTuple):
    shard: Shard
    handle: Any  # a generator of Ray, or where there are none the reference itself


class _Tasks:
    """The tasks of one call.

    Args:
        sent: the job, as an object of Ray.
        numbers: of the job's shards.
        folder, how: as an engine takes them.
    """

    def __init__(self, sent: Any, numbers: dict[Shard, int], folder: Path, how: How) -> None:
        self._sent, self._numbers, self._folder, self._how = sent, numbers, folder, how
        self._pending: dict[ObjectRef[None], _Task] = {}
        self._holds_cpus = _own_cpus() > 0
        # A generator tells when its task begins. Ray Client has none.
        self._tells_starts = not ray.util.client.ray.is_connected()

    def write(self, shards: Sequence[Shard]) -> list[Shard]:
        """Write shards; return those that the caller has to write, because no CPU is free and it holds some."""
        left = list(shards)
        if self._holds_cpus:
            if not _wait_for_free_cpus():
                return left
            return self._attempt(left, _asked(self._how.threads))
        while left:
            left = self._attempt(left, _asked(self._how.threads))
        return left

    def _attempt(self, shards: Sequence[Shard], cpus: int) -> list[Shard]:
        """Write shards by tasks of some CPUs each; return those that are left where this number is not to be had."""
        try:
            for shard in shards:
                self._start(shard, cpus)
            self._wait(cpus)
            return [task.shard for task in self._pending.values()]
        except RayTaskError as error:
            raise error.cause from None  # what the task raised
        except RayError as error:
            raise ChildProcessError(f"Ray gave up: {error}") from error
        finally:
            _stop(self._pending, self._folder)
            self._pending = {}

    def _start(self, shard: Shard, cpus: int) -> None:
        options: dict[str, Any] = {"num_cpus": cpus, "max_retries": RETRIES, "name": shard.name}
        arguments = self._sent, self._numbers[shard], self._folder, cpus, self._how.fsync
        if self._tells_starts:
            steps: Any = ray.remote(_write_in_steps).options(**options, num_returns="streaming").remote(*arguments)
            self._pending[steps.completed()] = _Task(shard, steps)
        else:
            ended = ray.remote(_write_shard).options(**options).remote(*arguments)
            self._pending[ended] = _Task(shard, ended)

    def _wait(self, cpus: int) -> None:
        """Wait for the tasks: for all of them, or until it is of no use to wait for more."""
        busy, warned = time.monotonic(), False
        while self._pending:
            done, _ = ray.wait(list(self._pending), timeout=START_SECONDS)
            for ended in done:
                ray.get(ended)
                task = self._pending[ended]
                for step in task.handle if self._tells_starts else ():
                    ray.get(step)  # raises what the task raised
                del self._pending[ended]
                self._how.advance(task.shard.nbytes)
            if done or self._is_running():
                busy = time.monotonic()
                continue
            if self._tells_starts and (self._holds_cpus or 0 < _free_cpus() < cpus):
                return
            idle = time.monotonic() - busy
            if self._tells_starts and idle > WAIT_SECONDS:
                raise TimeoutError(
                    f"no task of checkpoint.write(engine='ray') could run for {idle:.0f} s: each asks for {cpus} CPUs. "
                    f"{_usage()}. {_ADVICE}, and write again: it goes on with the missing files"
                )
            if not warned:
                limit = f", for at most {WAIT_SECONDS} s" if self._tells_starts else ""
                warnings.warn(
                    f"checkpoint.write(engine='ray') waits{limit}: each of its tasks asks for {cpus} CPUs. "
                    f"{_usage()}. {_ADVICE}",
                    RuntimeWarning,
                    stacklevel=2,
                )
                warned = True

    def _is_running(self) -> bool:
        """True if a task has begun."""
        return self._tells_starts and any(task.handle.next_ready() for task in self._pending.values())


def _write_in_steps(job: Job, number: int, folder: Path, threads: int, fsync: bool) -> Iterator[None]:
    """Write a shard on a worker. The first step tells the caller that the task has begun."""
    yield None
    _write_shard(job, number, folder, threads, fsync)


def _write_shard(job: Job, number: int, folder: Path, threads: int, fsync: bool) -> None:
    """Write a shard on a worker."""
    shard = job.layout.shards[number]
    files.check_folder(folder)
    files.remove_unfinished(folder, [shard.name])  # of a worker that died
    write_shards(job, [shard], folder, How(threads, fsync, advance=lambda nbytes: None, place=folder.parent))


def _stop(pending: dict[ObjectRef[None], _Task], folder: Path) -> None:
    """End what still runs, and remove what it leaves: when this returns, nobody writes into the folder."""
    if not pending:
        return
    # Ray ends the driver ("Tried to complete task that was not pending", 2.60) where a task is cancelled while a worker
    # gets it. So those that follow the one that failed are let arrive (0.05 s was too short on a busy machine), and
    # what waits is cancelled before what runs.
    time.sleep(SETTLE_SECONDS)
    for task in reversed(list(pending.values())):
        ray.cancel(task.handle, force=True)  # without, a task ends only when its file is complete
    ray.wait(list(pending), num_returns=len(pending), timeout=STOP_SECONDS)
    files.remove_unfinished(folder, (task.shard.name for task in pending.values()))


# --- CPUs ---

_ADVICE = "Free some, add nodes, or use engine='threads', which needs no CPUs of Ray's"


class _Cpus(NamedTuple):
    """The CPUs that tasks can have: those of the cluster, or of the placement group that captures the tasks.

    Attributes:
        free: how many are free, in all.
        places: the CPUs of each node, or of each bundle of the group.
        owner: what they are of.
    """

    free: float
    places: tuple[float, ...]
    owner: str


def _cpus() -> _Cpus:
    available, group = ray.available_resources(), _capturing_group()
    if group is None:
        nodes = (node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"])
        return _Cpus(available.get("CPU", 0), tuple(nodes), "cluster")
    bundles = (bundle.get("CPU", 0) for bundle in group.bundle_specs)
    return _Cpus(available.get(f"CPU_group_{group.id.hex()}", 0), tuple(bundles), "placement group")


def _capturing_group() -> Any:
    """The placement group in which the tasks of this process run, or None."""
    group = ray.util.get_current_placement_group()
    captures = group is not None and ray.get_runtime_context().should_capture_child_tasks_in_placement_group
    return group if captures else None


def _own_cpus() -> int:
    """How many CPUs this process holds as a worker of Ray, a part of one counted as one.

    0 for drivers, and for actors without CPUs. In a placement group that captures tasks at least 1: no other job frees
    the CPUs of a group.
    """
    try:
        held = ray.get_runtime_context().get_assigned_resources().get("CPU", 0)
    except AssertionError:  # a driver
        return 0
    return max(int(held), 1) if held or _capturing_group() else 0


def _free_cpus() -> int:
    """How many CPUs a task can have now: so many are free on at least one node."""
    free, places, _ = _cpus()
    # Ray tells what is free on a single node by private functions only. Of n nodes one has at least an n-th of it.
    return max(int(free / sum(cpus >= 1 for cpus in places)), 1) if free >= 1 and max(places, default=0) >= 1 else 0


def _wait_for_free_cpus() -> bool:
    """True if CPUs are free, or become free at once."""
    end = time.monotonic() + FREE_SECONDS
    while not _free_cpus():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def _asked(threads: int) -> int:
    """How many CPUs a task asks for: one per thread, as far as they are free; if none are, as far as a node has them.

    Ray would let a task wait for ever that no node can run.
    """
    largest = int(max(_cpus().places, default=0))
    return min(threads, _free_cpus() or largest or threads)  # a cluster may begin without any, and grow


def _usage() -> str:
    free, places, owner = _cpus()
    return (
        f"Of the {sum(places):g} CPUs of the {owner} {free:g} are free; actors, tasks, placement groups hold the rest"
    )


@contextlib.contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """Connect to a Ray cluster, and undo at the end what `ray.init` changed of the process.

    That is the environment (even `breakpoint()`'s), SIGTERM and the level of Ray's logger. Variables that others set
    while Ray runs stay: other threads of the caller may.
    """
    if ray.is_initialized():
        yield
        return
    _reach(address)
    before, logger = dict(os.environ), logging.getLogger("ray")
    level, handler = logger.level, signal.getsignal(signal.SIGTERM)
    changed: dict[str, str] = {}
    try:
        try:
            with starting():
                ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        finally:
            changed.update(item for item in os.environ.items() if item not in before.items())
        yield
    finally:
        ray.shutdown()
        for name in (name for name, value in changed.items() if os.environ.get(name) == value):
            del os.environ[name]
            if name in before:
                os.environ[name] = before[name]
        logger.setLevel(level)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _reach(address: str | None) -> None:
    """Raise ConnectionError where nobody answers at host:port: `ray.init` would go on trying for many minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()
        except OSError as error:
            raise ConnectionError(f"no Ray cluster answers at {address}: {error}") from None
