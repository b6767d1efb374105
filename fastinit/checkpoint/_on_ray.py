"""The Ray engine: one task for each file, on whichever node of a cluster is free.

The folder must be the same on all nodes, under the same path (NFS, Lustre, a mounted bucket), and fastinit be installed
on them. Ray places the tasks, and starts those again whose worker or node died; what a task writes does not depend on
where it runs.
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
from collections.abc import Iterator, Sequence
from pathlib import Path

try:
    import ray
except ImportError as error:
    raise ImportError("the engine 'ray' needs Ray: pip install 'fastinit[ray]'") from error

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
    task = ray.remote(_write_shard)
    numbers = {shard: number for number, shard in enumerate(job.layout.shards)}
    sent = ray.put(dataclasses.replace(job, files={}))  # a new one: the old one has its layout with it
    cpus = _cpus(how.threads)
    pending: dict[ObjectRef[None], Shard] = {}
    try:
        for shard in shards:
            named = task.options(num_cpus=cpus, max_retries=RETRIES, name=shard.name)
            pending[named.remote(sent, numbers[shard], folder, how.threads, how.fsync)] = shard
        while pending:
            (done,), _ = ray.wait(list(pending))
            ray.get(done)
            how.advance(pending.pop(done).nbytes)
    except RayTaskError as error:
        raise error.cause from None  # what the task raised
    except RayError as error:
        raise ChildProcessError(f"Ray gave up: {error}") from error
    finally:
        _stop(pending, folder)


def _write_shard(job: Job, number: int, folder: Path, threads: int, fsync: bool) -> None:
    """What runs on a worker."""
    shard = job.layout.shards[number]
    files.remove_unfinished(folder, [shard.name])  # of a worker that died
    write_shards(job, [shard], folder, How(threads, fsync, advance=lambda nbytes: None))


def _stop(pending: dict[ObjectRef[None], Shard], folder: Path) -> None:
    """End what still runs, and remove what it leaves: when this returns, nobody writes into the folder."""
    if not pending:
        return
    # Ray ends the driver ("Tried to complete task that was not pending", 2.60) where a task is cancelled while a worker
    # gets it. So those that follow the one that failed are let arrive (0.05 s was too short on a busy machine), and
    # what waits is cancelled before what runs.
    time.sleep(SETTLE_SECONDS)
    for one in reversed(list(pending)):
        ray.cancel(one, force=True)  # without, a task ends only when its file is complete
    ray.wait(list(pending), num_returns=len(pending), timeout=STOP_SECONDS)
    files.remove_unfinished(folder, (shard.name for shard in pending.values()))


def _cpus(threads: int) -> int:
    """How many CPUs a task asks for: one per thread, as far as some node has as many. Ray would let a task that no node
    can run wait for ever."""
    largest = max((int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]), default=0)
    return min(threads, largest or threads)  # a cluster may begin without any, and grow


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
