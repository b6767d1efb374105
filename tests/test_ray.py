"""The Ray engine, on a real local Ray: the bytes of the engine "threads", whatever dies on the way."""

import contextlib
import errno
import functools
import logging
import math
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import types
import uuid
import warnings
from pathlib import Path

import processes
import pytest
import ray
import ray.exceptions
import torch

import fastinit as fi
from fastinit import checkpoint
from fastinit.checkpoint import _on_ray as on_ray
from fastinit.checkpoint._job import Job
from fastinit.checkpoint._shards import How
from fastinit.torch import record

# Ray forks to start its processes, and JAX, where another test has imported it, warns of every fork.
# On a busy machine the first task of a write may take longer to begin than the warning waits.
pytestmark = pytest.mark.filterwarnings(
    "ignore:os.fork:RuntimeWarning", r"ignore:checkpoint.write\(engine='ray'\) waits:RuntimeWarning"
)

FILES = 48  # seconds of work: something is left when one worker starts late, and when the running tasks are let end
JOB = f"""seed = 4
dtype = "float64"
[tensors."{{{",".join(map(str, range(FILES)))}}}.square"]
shape = [900, 900]
scheme = "orthogonal"
"""


MARK = uuid.uuid4().hex  # of the processes of this module's cluster


@pytest.fixture(scope="module")
def cluster():
    """A Ray with two CPUs, of the caller."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTINIT_TEST", MARK)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        environment, handler, level = dict(os.environ), signal.getsignal(signal.SIGTERM), logging.getLogger("ray").level
        ray.init(
            "local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            object_store_memory=100 << 20,
        )
        yield ray
        ray.shutdown()
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
        signal.signal(signal.SIGTERM, handler)
        logging.getLogger("ray").setLevel(level)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(300, 400, dtype=torch.bfloat16)
        self.square = torch.nn.Linear(300, 300)
        torch.nn.init.orthogonal_(self.square.weight)
        self.computed = torch.nn.Parameter(torch.randn(200, 300).cumsum(0))
        self.register_buffer("positions", torch.arange(300))
        self.tied = torch.nn.Linear(300, 400, dtype=torch.bfloat16)
        self.tied.weight = self.first.weight


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def hidden(folder):
    """The files that are being made."""
    return list(folder.glob(".model*.tmp"))


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.01)
    return found


def every_process(file):
    """A file of /proc of every process that can be read, by its id."""
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            yield int(path.name), (path / file).read_bytes()


def marked(mark):
    """The processes that were started, by whichever way, with a mark in their environment."""
    return [pid for pid, variables in every_process("environ") if mark.encode() in variables]


def writers():
    """The processes in which the cluster of this module runs a task that writes a file."""
    writing = {pid for pid, title in every_process("cmdline") if title.startswith(b"ray::model")}
    return sorted(writing.intersection(marked(MARK)))


@pytest.fixture
def slow_plan(tmp_path):
    """A plan of tensors that take a tenth of a second each; and its job file."""
    path = tmp_path / "job.toml"
    path.write_text(JOB)
    return fi.Plan.from_toml(path), path


@pytest.mark.slow
def test_the_bytes_are_those_of_threads(cluster, tmp_path):
    plan = record(Model)
    how = {"seed": 5, "max_shard_bytes": "300KB", "extra_files": {"config.json": b"{}"}}
    checkpoint.write(plan, tmp_path / "threads", **how)
    report = checkpoint.write(plan, tmp_path / "ray", engine="ray", threads=1, **how)
    assert (report.files, report.written, report.finished) == (4, 4, True)
    assert contents(tmp_path / "ray") == contents(tmp_path / "threads")
    assert cluster.is_initialized()  # it is the caller's
    assert checkpoint.write(plan, tmp_path / "ray", engine="ray", **how).written == 0


@pytest.mark.slow
def test_progress_a_relative_folder_and_more_threads_than_a_node_has(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = fi.Plan({f"w{i}": ((50, 10 + i), "float32", "normal") for i in range(5)})
    job = Job(plan, fi.Key(0), 2000)
    steps = []
    on_ray.engine(None)(job, job.layout.shards[1:], Path(), How(64, True, steps.append))
    assert sorted(steps) == sorted(shard.nbytes for shard in job.layout.shards[1:])
    assert sorted(path.name for path in tmp_path.iterdir()) == [shard.name for shard in job.layout.shards[1:]]


def test_what_is_sent_is_small(monkeypatch):
    sent = []
    monkeypatch.setattr(ray, "put", sent.append)
    monkeypatch.setattr(on_ray, "_own_cpus", lambda: 0)  # asking Ray would start one
    job = Job(
        fi.Plan({f"w{i}": ((50, 10), "float32", "normal") for i in range(500)}), fi.Key(0), 100, {"a": b"a" * 999}
    )
    assert len(job.layout.shards) == 500
    on_ray._write(job, (), Path("/nowhere"), How(1, fsync=False, advance=print))
    assert len(pickle.dumps(sent)) < 0.5 * len(pickle.dumps(job))
    assert sent[0] == job
    assert not sent[0].files


@pytest.mark.slow
def test_a_worker_is_killed_in_the_middle(cluster, slow_plan, tmp_path):
    plan, _ = slow_plan
    out, killed = tmp_path / "ray", []
    out.mkdir()

    def kill():
        for _ in range(2):
            wait_until(lambda: set(hidden(out)) - {file for _, file in killed} and writers())
            (file, *_), (pid, *_) = hidden(out), writers()
            os.kill(pid, signal.SIGKILL)
            killed.append((pid, file))
            wait_until(lambda pid=pid: pid not in writers())

    job = Job(plan, plan.key(), 6_000_000)
    killer = threading.Thread(target=kill)
    killer.start()
    on_ray.engine(None)(job, job.layout.shards, out, How(1, True, lambda nbytes: None))
    killer.join()
    assert len(killed) == 2
    checkpoint.write(plan, tmp_path / "threads", max_shard_bytes="6MB")
    expected = contents(tmp_path / "threads")
    assert contents(out) == {shard.name: expected[shard.name] for shard in job.layout.shards}  # and nothing else


@pytest.mark.slow
def test_a_worker_that_always_dies_is_one_error(cluster, slow_plan, tmp_path, monkeypatch):
    plan, _ = slow_plan
    monkeypatch.setattr(on_ray, "RETRIES", 0)

    def kill():
        wait_until(lambda: hidden(tmp_path / "out" / ".fastinit"))
        os.kill(writers()[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(ChildProcessError, match="Ray gave up: "):
        checkpoint.write(plan, tmp_path / "out", engine="ray", threads=1, max_shard_bytes="6MB")
    killer.join()
    assert writers() == []
    assert hidden(tmp_path / "out" / ".fastinit") == []


@pytest.mark.slow
def test_an_error_in_a_task_is_raised_as_what_it_was(cluster, slow_plan, tmp_path):
    plan, _ = slow_plan
    job = Job(plan, fi.Key(0), 6_000_000)
    with pytest.raises(FileNotFoundError) as error:
        on_ray.engine(None)(job, job.layout.shards, tmp_path / "absent", How(1, False, print))
    assert type(error.value) is FileNotFoundError
    assert Path(error.value.filename).parent == tmp_path / "absent"
    assert writers() == []


@pytest.mark.slow
def test_a_full_disk_stops_the_other_tasks_and_leaves_nothing(cluster, slow_plan):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        folder = Path(name)
        elements = 2 * shutil.disk_usage(folder).total // 4
        tensors = {**slow_plan[0], "z.large": ((elements,), "float32", "normal")}
        job = Job(fi.Plan(tensors), fi.Key(0), 6_000_000)
        large, *others = job.layout.shards[::-1]
        with pytest.raises(OSError, match=r"No space left on device: [\d,]+ bytes are needed") as error:
            on_ray.engine(None)(job, [others[0], large, *others[1:]], folder, How(1, False, print))
        assert type(error.value) is OSError
        assert error.value.errno == errno.ENOSPC
        assert writers() == []
        assert [path for path in folder.iterdir() if path.name.startswith(".")] == []
        assert len(list(folder.iterdir())) < len(others)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_a_driver_that_is_stopped_goes_on_where_it_was(cluster, slow_plan, tmp_path, number):
    plan, job = slow_plan
    out, staging, mark = tmp_path / "out", tmp_path / "out" / ".fastinit", uuid.uuid4().hex
    command = [sys.executable, "-m", "fastinit.cli", "write", job, "--out", out, "--max-shard-bytes", "6MB"]
    run = subprocess.Popen(
        processes.with_interrupts([*command, "--engine", "ray", "--address", "local", "--threads", "1"]),
        env=processes.environment(FASTINIT_TEST=mark),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_until(lambda: list(staging.glob("model*.safetensors")) and hidden(staging))
        os.killpg(run.pid, number)  # as a terminal does
        _, err = run.communicate(timeout=60)
    finally:
        run.kill()
    wait_until(lambda: not marked(mark))
    if number == signal.SIGINT:
        assert run.returncode == 130
        assert err.splitlines()[-1] == "fastinit: interrupted"
        assert hidden(staging) == []
    assert not list(out.glob("model*"))
    report = checkpoint.write(plan, out, engine="ray", threads=1, max_shard_bytes="6MB")
    assert 0 < report.written < report.files == FILES
    checkpoint.write(plan, tmp_path / "threads", max_shard_bytes="6MB")
    assert contents(out) == contents(tmp_path / "threads")


ALONE = """
import logging, os, signal
from pathlib import Path
import fastinit as fi
from fastinit import checkpoint

def state():
    return dict(os.environ), signal.getsignal(signal.SIGTERM)

before = state()
plan = fi.Plan({f"w{i}": ((30, 7), "float32", "normal") for i in range(3)})
report = checkpoint.write(plan, "out", engine="ray", max_shard_bytes=900)
print(report.path, report.written, state() == before)
import ray
print(ray.is_initialized())
"""


@pytest.mark.slow
def test_a_ray_of_its_own_is_shut_down_and_nothing_is_left_changed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mark = uuid.uuid4().hex
    out = processes.run(ALONE, FASTINIT_TEST=mark)
    assert out.splitlines() == ["out/model.safetensors.index.json 3 True", "False"]
    wait_until(lambda: not marked(mark))
    assert checkpoint.verify(tmp_path / "out").problems == ()


# --- CPUs that others hold ---

HELD = """
import os, sys, threading, warnings
import numpy as np
import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

import fastinit as fi
from fastinit import checkpoint
from fastinit.checkpoint import _on_ray as on_ray

plan = fi.Plan({f"w{i}": ((300, 70), "float32", "normal") for i in range(4)})

def write(folder, **how):
    "What was written, and the warnings."
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        report = checkpoint.write(plan, folder, engine="ray", threads=2, max_shard_bytes=84_000, **how)
    return report.written, [str(one.message) for one in caught if issubclass(one.category, RuntimeWarning)]

def in_a_thread(folder):
    "As Ray Train calls the function of its user."
    results = []
    thread = threading.Thread(target=lambda: results.append(write(folder)))
    thread.start()
    thread.join()
    return results[0]

class Worker:
    def ready(self):
        return True

    def write(self, folder):
        return write(folder)

    def in_a_thread(self, folder):
        return in_a_thread(folder)

# Ray says "Tip: ..." on stderr, where the tests expect nothing.
ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="CRITICAL",
         object_store_memory=100 << 20, runtime_env={"env_vars": {"PYTHONWARNINGS": "ignore"}})
actor = ray.remote(Worker)
free = on_ray._free_cpus

def wait_for(condition):
    import time
    while not condition():
        time.sleep(0.05)
"""


def held(code, tmp_path, monkeypatch):
    """Run a snippet on a Ray with two CPUs; the tensors of the folders that it has written are the plan's."""
    monkeypatch.chdir(tmp_path)
    mark = uuid.uuid4().hex
    out = processes.run(HELD + code, timeout=90, FASTINIT_TEST=mark, RAY_USAGE_STATS_ENABLED="0")
    wait_until(lambda: not marked(mark))
    plan = fi.Plan({f"w{i}": ((300, 70), "float32", "normal") for i in range(4)})
    checkpoint.write(plan, tmp_path / "threads", max_shard_bytes=84_000)
    for folder in tmp_path.glob("out*"):
        assert contents(folder) == contents(tmp_path / "threads")
    return out.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["write", "in_a_thread"])
def test_an_actor_that_holds_all_cpus_writes_itself(tmp_path, monkeypatch, method):
    code = f"""
caller = actor.options(num_cpus=2).remote()
ray.get(caller.ready.remote())
wait_for(lambda: not free())
written, warned = ray.get(caller.{method}.remote(os.path.abspath("out")), timeout=60)
print(written, len(warned), "this process writes the 4 missing files itself, threads: 2" in warned[0])
print("Of the 2 CPUs of the cluster 0 are free" in warned[0])
"""
    assert held(code, tmp_path, monkeypatch) == ["4 1 True", "True"]


@pytest.mark.slow
def test_a_task_that_holds_all_cpus_writes(tmp_path, monkeypatch):
    code = """
written, _ = ray.get(ray.remote(write).options(num_cpus=2).remote(os.path.abspath("out")), timeout=60)
print(written)
"""
    assert held(code, tmp_path, monkeypatch) == ["4"]


@pytest.mark.slow
def test_an_actor_in_a_placement_group_that_captures_tasks(tmp_path, monkeypatch):
    code = """
group = placement_group([{"CPU": 1}])
ray.get(group.ready())
strategy = PlacementGroupSchedulingStrategy(group, placement_group_capture_child_tasks=True)
caller = actor.options(num_cpus=1, scheduling_strategy=strategy).remote()
written, warned = ray.get(caller.write.remote(os.path.abspath("out")), timeout=60)  # the other CPU is not of the group
print(written, "Of the 1 CPUs of the placement group 0 are free" in warned[0])
ray.kill(caller)
ray.util.remove_placement_group(group)
wait_for(lambda: free() == 2)

group = placement_group([{"CPU": 1}, {"CPU": 1}])
ray.get(group.ready())
strategy = PlacementGroupSchedulingStrategy(group, placement_group_capture_child_tasks=True)
caller = actor.options(num_cpus=1, scheduling_strategy=strategy).remote()
print(ray.get(caller.write.remote(os.path.abspath("out2")), timeout=60))  # on the other bundle
"""
    assert held(code, tmp_path, monkeypatch) == ["4 True", "(4, [])"]


@pytest.mark.slow
def test_tasks_ask_for_what_is_free(tmp_path, monkeypatch):
    code = """
other = actor.options(num_cpus=1).remote()
ray.get(other.ready.remote())
wait_for(lambda: free() == 1)
print(write("out"))
ray.kill(other)
wait_for(lambda: free() == 2)

on_ray.START_SECONDS = 3
other = actor.options(num_cpus=1).remote()
ray.get(other.ready.remote())
old, on_ray._free_cpus = on_ray._free_cpus, lambda: 2  # Ray's list is old

def later():
    on_ray._free_cpus = old

threading.Timer(1, later).start()
print(write("out2"))
"""
    assert held(code, tmp_path, monkeypatch) == ["(4, [])", "(4, [])"]


@pytest.mark.slow
def test_a_driver_waits_for_cpus_with_a_warning_and_a_limit(tmp_path, monkeypatch):
    code = """
on_ray.START_SECONDS, on_ray.WAIT_SECONDS = 2, 3
other = actor.options(num_cpus=2).remote()
ray.get(other.ready.remote())
wait_for(lambda: not free())
warnings.simplefilter("ignore")
try:
    checkpoint.write(plan, "out", engine="ray", threads=2, max_shard_bytes=84_000)
except TimeoutError as error:
    print(error)
on_ray.WAIT_SECONDS = 60
threading.Timer(4, ray.kill, [other]).start()
written, warned = write("out")
print(written, len(warned), warned[0])
"""
    first, second = held(code, tmp_path, monkeypatch)
    usage = (
        "each asks for 2 CPUs. Of the 2 CPUs of the cluster 0 are free; actors, tasks, placement groups hold the rest. "
        "Free some, add nodes, or use engine='threads'"
    )
    assert first.startswith("no task of checkpoint.write(engine='ray') could run for ")
    assert usage in first
    assert second.startswith(
        "4 1 checkpoint.write(engine='ray') waits, for at most 60 s: each of its tasks asks for 2 CPUs."
    )


# --- without a cluster ---


class Task:
    """A task, or the generator that stands for it."""

    def __init__(self, call, how):
        self.call, self.how, self.begun = call, how, False

    def completed(self):
        return self

    def next_ready(self):
        return self.begun

    def __iter__(self):
        assert self.how["num_returns"] == "streaming"
        return self.call()


class Here:
    """What `on_ray` uses of Ray, in this process.

    A task runs when it is waited for; what it is sent is pickled. The attributes tell what was asked for, and how many
    tasks may run before one fails with `error`. Tasks that ask for more CPUs than `fits` never begin; `held` are those
    of the caller, None in a driver; with `group` a placement group captures its tasks.
    """

    def __init__(self, initialized=True, client=False):
        self.initialized, self.options, self.cancelled, self.calls = initialized, [], [], []
        self.good, self.error = math.inf, None
        self.free, self.fits, self.held, self.group = {"CPU": 5.0}, math.inf, None, None
        connection = types.SimpleNamespace(is_connected=lambda: client)
        self.util = types.SimpleNamespace(
            client=types.SimpleNamespace(ray=connection), get_current_placement_group=lambda: self.group
        )

    def available_resources(self):
        return self.free

    def get_runtime_context(self):
        def get_assigned_resources():
            assert self.held is not None, "This method is only available when the process is a worker"
            return {"CPU": self.held} if self.held else {}

        return types.SimpleNamespace(
            get_assigned_resources=get_assigned_resources, should_capture_child_tasks_in_placement_group=True
        )

    def nodes(self):
        return [
            {"Alive": alive, "Resources": {"CPU": cpus}} for alive, cpus in ((True, 2.0), (True, 3.0), (False, 64.0))
        ]

    def put(self, value):
        return pickle.dumps(value)

    def remote(self, function):
        def options(**how):
            def start(sent, *arguments):
                self.options.append(how)
                return Task(functools.partial(function, pickle.loads(sent), *arguments), how)

            return types.SimpleNamespace(remote=start)

        return types.SimpleNamespace(options=options)

    def wait(self, tasks, num_returns=1, timeout=None):
        self.calls.append(("wait", num_returns))
        assert len(self.calls) < 1000, "waits for ever"
        able = [task for task in tasks if task.how["num_cpus"] <= self.fits]
        return able[:num_returns], able[num_returns:]

    def get(self, task):
        if not isinstance(task, Task):
            return
        if self.good == 0:
            raise self.error
        self.good -= 1
        if "num_returns" not in task.how:
            task.call()

    def cancel(self, task, force):
        assert force
        self.cancelled.append(task)

    def is_initialized(self):
        return self.initialized

    def init(self, address, **how):
        self.calls.append(("init", address))
        os.environ["FASTINIT_TEST_RAY"] = os.environ["FASTINIT_TEST_CHANGED"] = "set by ray.init"
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def shutdown(self):
        self.calls.append("shutdown")


@pytest.fixture
def here(monkeypatch):
    ray = Here()
    monkeypatch.setattr(on_ray, "ray", ray)
    monkeypatch.setattr(on_ray, "SETTLE_SECONDS", 0)
    return ray


SMALL = fi.Plan({f"w{i}": ((50, 10 + i), "float32", "normal") for i in range(5)})


def test_the_bytes_of_tasks_are_those_of_threads(here, tmp_path):
    how = {"seed": 5, "max_shard_bytes": 2000, "extra_files": {"config.json": b"{}"}}
    checkpoint.write(SMALL, tmp_path / "threads", **how)
    report = checkpoint.write(SMALL, tmp_path / "ray", engine="ray", threads=64, **how)
    assert (report.files, report.written, report.finished) == (5, 5, True)
    assert contents(tmp_path / "ray") == contents(tmp_path / "threads")
    names = [f"model-0000{i}-of-00005.safetensors" for i in range(1, 6)]
    options = {"num_cpus": 2, "max_retries": on_ray.RETRIES, "num_returns": "streaming"}  # 5 are free on 2 nodes
    assert here.options == [options | {"name": name} for name in names]
    assert (here.cancelled, "shutdown" in here.calls) == ([], False)
    assert checkpoint.write(SMALL, tmp_path / "ray", engine="ray", **how).written == 0


def test_a_task_that_fails_ends_the_others(here, tmp_path):
    job = Job(SMALL, fi.Key(0), 2000)
    lost = ray.exceptions.RayError("the node is gone")
    task = ray.exceptions.RayTaskError("write", "traceback", OSError(errno.ENOSPC, "No space left on device"))
    for error, kind, message in (
        (lost, ChildProcessError, "Ray gave up: the node is gone"),
        (task, OSError, "No space"),
    ):
        folder = tmp_path / kind.__name__
        folder.mkdir()
        here.good, here.error = 2, error
        here.cancelled.clear()
        for shard in job.layout.shards[3:]:
            (folder / f".{shard.name}.0123456789abcdef.tmp").write_bytes(b"half")  # of a task that was ended
        done = []
        with pytest.raises(kind, match=message) as raised:
            on_ray.engine(None)(job, job.layout.shards, folder, How(1, False, done.append))
        assert type(raised.value) is kind
        assert done == [shard.nbytes for shard in job.layout.shards[:2]]
        assert [task.call.args[1] for task in here.cancelled] == [4, 3, 2]  # what waits before what runs
        assert here.calls[-1] == ("wait", 3)
        assert sorted(path.name for path in folder.iterdir()) == [shard.name for shard in job.layout.shards[:2]]


def test_how_many_cpus_a_task_asks_for(here):
    for free, expected in ((5.0, 2), (2.0, 1), (1.5, 1), (1.0, 1), (0.5, 3), (0.0, 3)):  # nodes of 2 and 3
        here.free = {"CPU": free}
        assert on_ray._asked(64) == expected
        assert on_ray._asked(1) == 1
    here.group = types.SimpleNamespace(id=bytes(2), bundle_specs=[{"CPU": 4.0}, {"GPU": 1.0}])
    for free, expected in ((4.0, 4), (1.0, 1), (0.0, 4)):
        here.free = {"CPU": 5.0, "CPU_group_0000": free}
        assert on_ray._asked(64) == expected
    here.group, here.free = None, {}
    here.nodes = list  # of a cluster that is to grow
    assert on_ray._asked(64) == 64


def test_a_worker_that_holds_cpus_writes_what_no_task_can(here, tmp_path, monkeypatch):
    monkeypatch.setattr(on_ray, "FREE_SECONDS", 0)
    checkpoint.write(SMALL, tmp_path / "threads", max_shard_bytes=2000)
    group = types.SimpleNamespace(id=bytes(2), bundle_specs=[{"GPU": 1.0}])
    cases = (
        ("none is free", {}, 0, 2.0, None, 0),
        ("none is free after all", {"CPU": 5.0}, 0, 0.5, None, 5),
        ("a group without CPUs", {"CPU": 5.0}, 0, 0, group, 0),
    )
    for name, here.free, here.fits, here.held, here.group, tasks in cases:
        here.options.clear()
        with pytest.warns(RuntimeWarning, match=r"this process writes the 5 missing files itself, threads: [12]"):
            checkpoint.write(SMALL, tmp_path / name, engine="ray", threads=64, max_shard_bytes=2000)
        assert len(here.options) == tasks
        assert contents(tmp_path / name) == contents(tmp_path / "threads")
        assert on_ray._own_cpus() == max(here.held, 1)
    here.group, here.held = None, 0  # an actor without CPUs only waits
    assert on_ray._own_cpus() == 0


def test_tasks_that_are_too_large_for_what_is_free_are_started_anew(here, tmp_path):
    here.fits = 1

    def wait(*arguments, **how):
        here.free = {"CPU": 2.0}  # what Ray says with a delay
        return Here.wait(here, *arguments, **how)

    here.wait = wait
    assert checkpoint.write(SMALL, tmp_path / "out", engine="ray", threads=64, max_shard_bytes=2000).written == 5
    assert [how["num_cpus"] for how in here.options] == [2] * 5 + [1] * 5
    assert len(here.cancelled) == 5


def test_a_driver_waits_for_cpus_and_says_so(here, tmp_path, monkeypatch):
    here.free, here.fits = {"CPU": 0.0}, 0
    clock = iter(range(0, 10_000, 100))
    monkeypatch.setattr(
        on_ray, "time", types.SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda seconds: None)
    )
    job = Job(SMALL, fi.Key(0), 2000)
    usage = r"each (of its tasks )?asks for 3 CPUs\. Of the 5 CPUs of the cluster 0 are free; .* Free some, "
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(TimeoutError, match=rf"could run for 700 s: {usage}"):
            on_ray.engine(None)(job, job.layout.shards, tmp_path, How(64, False, print))
    assert len(caught) == 1
    assert re.search(rf"waits, for at most 600 s: {usage}", str(caught[0].message))
    assert len(here.cancelled) == 5


def test_a_task_that_has_begun_may_take_any_time(here, tmp_path, monkeypatch):
    here.fits, looks = 0, iter(range(100))

    def wait(tasks, num_returns=1, timeout=None):
        tasks[-1].begun = True
        here.fits = 64 if next(looks) == 10 else here.fits
        return Here.wait(here, tasks, num_returns)

    here.wait = wait
    clock = iter(range(0, 100_000, 1000))
    monkeypatch.setattr(on_ray, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    assert checkpoint.write(SMALL, tmp_path / "out", engine="ray", max_shard_bytes=2000).written == 5


def test_through_ray_client(tmp_path, monkeypatch):
    here = Here(client=True)
    monkeypatch.setattr(on_ray, "ray", here)
    looks = iter(range(100))
    here.free, here.fits = {}, 0

    def wait(*arguments, **how):
        here.fits = 64 if next(looks) == 5 else here.fits
        return Here.wait(here, *arguments, **how)

    here.wait = wait
    clock = iter(range(0, 100_000, 1000))
    monkeypatch.setattr(on_ray, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    with pytest.warns(RuntimeWarning, match=r"waits: each of its tasks") as warned:  # nothing tells what runs: no limit
        assert checkpoint.write(SMALL, tmp_path / "out", engine="ray", max_shard_bytes=2000).written == 5
    assert len(warned) == 1
    assert all("num_returns" not in how for how in here.options)


def test_a_task_removes_what_a_worker_that_died_has_left(tmp_path):
    job = Job(SMALL, fi.Key(0), 2000)
    first, second = (f".{shard.name}.0123456789abcdef.tmp" for shard in job.layout.shards[:2])
    for name in (first, second):
        (tmp_path / name).touch()
    on_ray._write_shard(job, 0, tmp_path, 1, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [second, job.layout.shards[0].name]


def test_a_task_does_not_write_through_a_link(tmp_path):
    """Its node may see another hidden folder than the caller did."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".fastinit").symlink_to("elsewhere")
    job = Job(fi.Plan({"w": ((3,), "float32", "normal")}), fi.Key(0), 1000)
    with pytest.raises(NotADirectoryError, match=r"\.fastinit must be a folder, and no link to one"):
        on_ray._write_shard(job, 0, tmp_path / ".fastinit", 1, False)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_ray_of_its_own_leaves_the_process_as_it_was(here, tmp_path, monkeypatch):
    here.initialized = False
    monkeypatch.setenv("FASTINIT_TEST_CHANGED", "before")
    level, handler = logging.getLogger("ray").level, signal.getsignal(signal.SIGTERM)
    checkpoint.write(SMALL, tmp_path / "out", engine="ray", address="local")
    assert (here.calls[0], here.calls[-1]) == (("init", "local"), "shutdown")
    assert "FASTINIT_TEST_RAY" not in os.environ
    assert os.environ["FASTINIT_TEST_CHANGED"] == "before"
    assert (logging.getLogger("ray").level, signal.getsignal(signal.SIGTERM)) == (level, handler)


def test_variables_that_others_set_while_ray_runs_stay(here, tmp_path, monkeypatch):
    here.initialized = False
    for name in ("OTHER", "RAY", "CHANGED"):
        monkeypatch.setenv(f"FASTINIT_TEST_{name}", "before")

    def progress(done, total):
        os.environ["FASTINIT_TEST_OTHER"] = "set by another thread"
        os.environ["FASTINIT_TEST_RAY"] = os.environ["FASTINIT_TEST_CHANGED"] = "by another thread, later"

    checkpoint.write(SMALL, tmp_path / "out", engine="ray", address="local", progress=progress)
    assert os.environ["FASTINIT_TEST_OTHER"] == "set by another thread"
    assert os.environ["FASTINIT_TEST_RAY"] == os.environ["FASTINIT_TEST_CHANGED"] == "by another thread, later"


def test_nobody_at_the_address():
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1"):
        with pytest.raises(ConnectionError, match=rf"no Ray cluster answers at {address}: "):
            on_ray._reach(address)
    for address in (None, "auto", "local"):  # nothing to ask
        on_ray._reach(address)


def test_without_ray(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "fastinit.checkpoint._on_ray")
    with pytest.raises(ImportError, match=r"pip install 'fastinit-weights\[ray\]'"):
        checkpoint.write(fi.Plan({"w": ((3,), "float32", "normal")}), tmp_path / "out", engine="ray")
    assert not (tmp_path / "out").exists()
