"""Limits of containers and shells: made-up trees of both versions of control groups, and real limits in processes."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import processes
import pytest

import fastinit as fi
from fastinit import checkpoint
from fastinit._runtime import limits, threads

V2 = "30 1 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw"
V1 = "31 1 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct"
V1_MEMORY = "32 1 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
HYBRID = f"{V1}\n{V1_MEMORY}\n33 1 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"


def tree(root, mounts, groups, **texts):
    """A root folder; `texts` are files below /sys/fs/cgroup, with "__" for "/" and "_" as it is."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text(f"{mounts}\n24 1 0:5 / /proc rw - proc proc rw\n")
    (root / "proc/self/cgroup").write_text(f"{groups}\n")
    for name, text in texts.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


# --- CPU quotas ---

QUOTAS = {
    "version 2": (V2, "0::/a", {"a__cpu.max": "150000 100000\n"}, 1.5),
    "version 2, of a group around": (
        V2,
        "0::/a/b/c",
        {"a__b__c__cpu.max": "max 100000", "a__b__cpu.max": "300000 100000", "a__cpu.max": "50000 100000"},
        0.5,
    ),
    "version 2, none": (V2, "0::/a", {"a__cpu.max": "max 100000\n"}, None),
    "version 2, of another group": (V2, "0::/a", {"b__cpu.max": "50000 100000", "a__cpu.max": "max 100000"}, None),
    "version 2, a name that begins alike": (
        V2.replace("0:28 / ", "0:28 /a "),
        "0::/ab/c",
        {"b__c__cpu.max": "50000 100000", "cpu.max": "200000 100000"},
        2,
    ),
    "a namespace: the mount is the own group": (V2, "0::/", {"cpu.max": "200000 100000"}, 2),
    "a group outside of the namespace": (V2, "0::/../../x", {"cpu.max": "200000 100000"}, 2),
    "docker: the own group is mounted": (
        V2.replace("0:28 / ", "0:28 /docker/0a1b "),
        "0::/docker/0a1b/sub",
        {"cpu.max": "400000 100000", "sub__cpu.max": "100000 50000"},
        2,
    ),
    "a mount with a space": (
        V2.replace("/sys/fs/cgroup ", "/sys/fs/cgroup/my\\040groups "),
        "0::/a",
        {"my groups__a__cpu.max": "70000 100000"},
        0.7,
    ),
    "a name with a colon": (V2, "0::/a:b", {"a:b__cpu.max": "70000 100000"}, 0.7),
    "version 1": (
        V1,
        "4:cpu,cpuacct:/a",
        {"cpu,cpuacct__a__cpu.cfs_quota_us": "50000\n", "cpu,cpuacct__a__cpu.cfs_period_us": "100000\n"},
        0.5,
    ),
    "version 1, none": (
        V1,
        "4:cpu,cpuacct:/a",
        {"cpu,cpuacct__a__cpu.cfs_quota_us": "-1\n", "cpu,cpuacct__a__cpu.cfs_period_us": "100000\n"},
        None,
    ),
    "version 1, of a group around": (
        V1,
        "4:cpuacct,cpu:/a/b",
        {"cpu,cpuacct__a__cpu.cfs_quota_us": "250000", "cpu,cpuacct__a__cpu.cfs_period_us": "100000"},
        2.5,
    ),
    "both versions, the quota in version 1": (
        HYBRID,
        "4:cpu,cpuacct:/a\n3:memory:/a\n1:name=systemd:/user\n0::/user",
        {"cpu,cpuacct__a__cpu.cfs_quota_us": "50000", "cpu,cpuacct__a__cpu.cfs_period_us": "25000"},
        2,
    ),
    "both versions, the smaller in version 2": (
        HYBRID,
        "4:cpu,cpuacct:/a\n0::/user",
        {
            "cpu,cpuacct__a__cpu.cfs_quota_us": "50000",
            "cpu,cpuacct__a__cpu.cfs_period_us": "25000",
            "unified__user__cpu.max": "30000 100000",
        },
        0.3,
    ),
    "a text": (V2, "0::/a", {"a__cpu.max": "many 100000"}, None),
    "an empty file": (V2, "0::/a", {"a__cpu.max": ""}, None),
    "no period": (V2, "0::/a", {"a__cpu.max": "50000"}, None),
    "a period of 0": (V2, "0::/a", {"a__cpu.max": "50000 0"}, None),
    "a quota of 0": (V2, "0::/a", {"a__cpu.max": "0 100000"}, None),
    "a folder for a file": (V2, "0::/a", {"a__cpu.max__x": ""}, None),
    "lines that are cut off": ("31 1\n\n- -\nx - cgroup2", "0::/a\n4\n:", {"a__cpu.max": "50000 100000"}, None),
    "no such group": (V2, "0::/gone", {"cpu.max": "50000 100000"}, 0.5),
}


@pytest.mark.parametrize("case", QUOTAS)
def test_a_cpu_quota(tmp_path, case):
    mounts, groups, texts, expected = QUOTAS[case]
    found = limits.cpu_quota(tree(tmp_path, mounts, groups, **texts))
    assert (found and found.cpus) == expected
    if found is not None:
        assert Path(found.source).is_file()


def test_without_proc_there_are_no_limits(tmp_path):
    assert limits.cpu_quota(tmp_path) is None
    assert limits.memory_limits(tmp_path) == []
    assert limits.fitting(7, 1 << 40, tmp_path) == 7


@pytest.fixture
def machine(monkeypatch):
    """Sets CPUs and quota."""
    for name in ("LOCAL_WORLD_SIZE", "NUMBA_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)

    def setup(cpus, quota):
        found = None if quota is None else limits.Quota(quota, "cpu.max")
        monkeypatch.setattr(threads, "_cpus", lambda: cpus)
        monkeypatch.setattr(limits, "cpu_quota", lambda: found)

    return setup


@pytest.mark.parametrize(
    ("cpus", "quota", "expected"),
    [
        (8, None, 8),
        (8, 0.5, 1),
        (8, 0.01, 1),
        (8, 1, 1),
        (8, 1.5, 2),
        (8, 2, 2),
        (8, 2.01, 3),
        (8, 7.5, 8),
        (8, 64, 8),
        (2, 3.5, 2),
    ],
)
def test_the_threads_of_cpus_and_a_quota(machine, cpus, quota, expected):
    machine(cpus, quota)
    number, source = threads.default_threads()
    assert number == threads.num_threads() == expected
    assert ("cpu.max" in source) == (quota is not None and quota < cpus)


def test_the_order(machine, monkeypatch):
    machine(8, 6)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # torchrun's default for each rank
    assert threads.num_threads() == 6
    monkeypatch.setenv("LOCAL_WORLD_SIZE", " 2 ")
    assert threads.default_threads() == (3, "a quota of 6 CPUs in cpu.max: 6, shared by LOCAL_WORLD_SIZE=2 processes")
    monkeypatch.setenv("NUMBA_NUM_THREADS", "20")
    assert threads.default_threads() == (10, "NUMBA_NUM_THREADS: 20, shared by LOCAL_WORLD_SIZE=2 processes")
    with threads.thread_limit(5):
        assert threads.default_threads() == (5, "thread_limit")
        assert threads.num_threads(7) == 7


@pytest.mark.parametrize(
    ("text", "expected"), [("8", 8), (" 3 ", 3), ("", 1), ("many", 1), ("0", 1), ("-2", 1), ("1.5", 1)]
)
def test_numbas_variable_counts_where_it_is_a_positive_int(machine, monkeypatch, text, expected):
    machine(8, 0.5)
    monkeypatch.setenv("NUMBA_NUM_THREADS", text)
    assert threads.num_threads() == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity")
def test_the_affinity_counts_as_it_is(machine):
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert threads._cpus() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert threads._cpus() == len(before)


@pytest.mark.parametrize("variables", [{"NUMBA_NUM_THREADS": 0}, {"NUMBA_NUM_THREADS": -2}])
def test_numbas_refusal_names_the_variable(variables, tmp_path):
    """Where something has to be compiled."""
    code = """
import fastinit as fi
try:
    fi.normal(4, seed=0)
except ImportError as error:
    print(error)
"""
    said = processes.run(code, FASTINIT_CACHE_DIR=tmp_path, **variables)
    assert said.endswith(f"NUMBA_NUM_THREADS={variables['NUMBA_NUM_THREADS']}")
    assert len(said.splitlines()) == 1


# --- memory ---

MEMORY = {
    "version 2": (
        V2,
        "0::/a",
        {
            "a__memory.max": "1000\n",
            "a__memory.high": "max",
            "a__memory.current": "700",
            "a__memory.stat": "anon 400\nfile 350\ninactive_file 200\nactive_file 100\n",
        },
        [(1000, 600, True)],
    ),
    "version 2, high and around": (
        V2,
        "0::/a/b",
        {
            "a__b__memory.max": "5000",
            "a__b__memory.high": "900",
            "a__b__memory.current": "100",
            "a__memory.max": "4000",
            "a__memory.current": "3500",
        },
        [(4000, 500, True), (900, 800, False), (5000, 4900, True)],
    ),
    "version 1": (
        V1_MEMORY,
        "3:memory:/a",
        {
            "memory__a__memory.limit_in_bytes": "1000",
            "memory__a__memory.usage_in_bytes": "900",
            "memory__a__memory.stat": "inactive_file 1\ntotal_inactive_file 300\ntotal_active_file 50\n",
            "memory__memory.limit_in_bytes": "9223372036854771712",
            "memory__memory.usage_in_bytes": "5000",
        },
        [(1000, 450, True)],
    ),
    "malformed": (V2, "0::/a", {"a__memory.max": "1e9", "a__memory.stat": "x\ninactive_file\n"}, []),
    "only the limit": (
        V2,
        "0::/a",
        {"a__memory.max": "1000", "a__memory.stat": "inactive_file no\n"},
        [(1000, 1000, True)],
    ),
}


@pytest.mark.parametrize("case", MEMORY)
def test_limits_of_memory(tmp_path, case):
    mounts, groups, texts, expected = MEMORY[case]
    found = limits.memory_limits(tree(tmp_path, mounts, groups, **texts))
    assert [(limit.nbytes, limit.left, limit.hard) for limit in found] == expected


@pytest.mark.parametrize(("left", "expected"), [(10_000, 8), (1000, 5), (399, 1), (10, 1), (-5, 1)])
def test_buffers_have_half_of_what_is_left(tmp_path, left, expected):
    texts = {"a__memory.max": "20000", "a__memory.current": str(20_000 - left)}
    root = tree(tmp_path, V2, "0::/a", **texts)
    assert limits.fitting(8, 100, root) == expected
    assert limits.fitting(1, 1 << 50, root) == 1


# --- in processes ---

# 13 blocks of 16 MB: 64 threads would have 13 buffers, and 26 for `verify`.
WRITE = """
import hashlib, json, resource, sys, threading
from pathlib import Path
import fastinit as fi
from fastinit import checkpoint
from fastinit._runtime import workers

number = []
limit = workers.limits.fitting
def fitting(wanted, nbytes):
    found = limit(wanted, nbytes)
    number.append(found if nbytes == 16 << 20 else 0)
    return found
workers.limits.fitting = fitting
LIMIT
plan = fi.Plan({f"h.{i}": ((1024, 1024), "float32", "normal") for i in range(48)})
report = checkpoint.write(plan, FOLDER, seed=1, threads=64, fsync=False)
problems = checkpoint.verify(FOLDER, threads=64).problems
tensors = checkpoint.survey(FOLDER, threads=64).tensors
with open(report.path, "rb") as file:
    digest = hashlib.file_digest(file, "sha256").hexdigest()
print(json.dumps([digest, problems, len(tensors), max(number)]))
"""


def written(folder, limit=""):
    """What a process writes and finds under a limit, and the most threads that it had."""
    return json.loads(processes.run(WRITE.replace("LIMIT", limit).replace("FOLDER", repr(str(folder)))))


@pytest.mark.slow
def test_the_writer_keeps_within_the_address_space(tmp_path):
    *expected, most = written(tmp_path / "free")
    assert most == 13
    for kind, place in (("AS", 0), ("DATA", 5)):
        used = f"int(Path('/proc/self/statm').read_text().split()[{place}]) * resource.getpagesize()"
        limit = f"fi.normal(4, seed=0); resource.setrlimit(resource.RLIMIT_{kind}, ({used} + (300 << 20), -1))"
        *found, most = written(tmp_path / kind, limit)
        assert found == expected
        assert most == 1  # 150 MB for buffers, each with a heap and a stack


@contextlib.contextmanager
def real_group(controller, **texts):
    """A control group of this machine with these limits, by version; None where none can be made."""
    v1 = Path("/sys/fs/cgroup") / controller
    version = "v1" if v1.is_dir() else "v2"
    group = (v1 if v1.is_dir() else Path("/sys/fs/cgroup")) / f"fastinit-test-{os.getpid()}"
    try:
        group.mkdir()
        for name, text in texts[version].items():
            (group / name).write_text(text)
    except OSError:
        with contextlib.suppress(OSError):
            group.rmdir()
        yield None
        return
    try:
        yield group
    finally:
        group.rmdir()


def test_a_real_quota():
    quota = {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "50000"}
    with real_group("cpu", v1=quota, v2={"cpu.max": "50000 100000"}) as group:
        if group is None:
            pytest.skip("no control group can be made here")
        code = f"""
import os, sys
from pathlib import Path
Path({str(group / "cgroup.procs")!r}).write_text(str(os.getpid()))
from fastinit.cli import _app
sys.argv = ["fastinit", "info"]
_app.app()
"""
        env = {key: value for key, value in processes.environment().items() if key != "NUMBA_NUM_THREADS"}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("threads "))
    assert line.split()[1] == "1"
    assert "0.5 CPUs" in line
    assert str(group) in line


@pytest.mark.slow
def test_the_writer_keeps_within_a_real_limit_of_memory(tmp_path):
    """The kernel kills what takes more, as 13 buffers and the kernels would."""
    *expected, _ = written(tmp_path / "free")  # first: to compile takes memory too
    size = str(256 << 20)
    with real_group("memory", v1={"memory.limit_in_bytes": size}, v2={"memory.max": size}) as group:
        if group is None:
            pytest.skip("no control group can be made here")
        enter = f"import os; Path({str(group / 'cgroup.procs')!r}).write_text(str(os.getpid()))"
        *found, most = written(tmp_path / "out", enter)
    assert found == expected
    assert 4 <= most <= 8  # 128 MB


WHOLE = """
import resource, sys
from pathlib import Path
import fastinit as fi
from fastinit import checkpoint

plan = fi.Plan({"small": ((4, 4), "float32", "normal"), "big": ((9000, 9000), "bfloat16", "orthogonal")})
fi.orthogonal((4, 4), seed=0)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (MB << 20), -1))
try:
    checkpoint.write(plan, FOLDER)
except MemoryError as error:
    print(error)
print(sorted(path.name for path in Path(FOLDER).rglob("*")))
"""


@pytest.mark.parametrize("mb", [100, 700])  # it takes 162 MB for the tensor, 648 MB to make it
def test_a_tensor_that_cannot_be_made_whole_is_refused_before_anything_is_written(tmp_path, mb):
    said = processes.run(WHOLE.replace("FOLDER", repr(str(tmp_path / "out"))).replace("MB", str(mb)))
    error, left = said.splitlines()
    assert error.startswith("big (orthogonal) must be made whole, which takes 810,000,000 bytes of memory. Limits of")
    assert "ulimit -v" in error
    assert left == "[]"


@pytest.mark.parametrize(
    ("distribution", "nbytes"), [("orthogonal", 64 * 64 * 12), ("sparse(sparsity=0.1)", 64 * 64 * 22)]
)
def test_what_is_made_whole_must_fit_before_there_is_a_file(tmp_path, monkeypatch, distribution, nbytes):
    plan = fi.Plan({"a": ((64, 64), "float32", "normal"), "big": ((64, 64), "float32", distribution)})

    def allow(left, hard=True):
        found = [limits.MemoryLimit("memory.max", 1 << 30, left, hard=hard)]
        monkeypatch.setattr(limits, "memory_limits", lambda *root: found)

    allow(nbytes - 1)
    out = tmp_path / "out"
    with pytest.raises(MemoryError, match=rf"^big \({distribution[:6]}.* which takes {nbytes:,} bytes of memory\. "):
        checkpoint.write(plan, out, seed=0)
    assert not out.exists()
    allow(nbytes)
    checkpoint.write(plan, out, seed=0)
    allow(nbytes - 1)
    with pytest.raises(MemoryError, match=r"^big .* must be made whole"):
        checkpoint.verify(out)
    allow(0, hard=False)
    assert checkpoint.verify(out).problems == ()


# --- recording ---

RECORD = """
import resource
from pathlib import Path
import torch
from fastinit.torch import record

used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (300 << 20), -1))
try:
    record(lambda: torch.nn.ModuleList(torch.nn.Linear(2048, WIDTH, bias=False) for _ in range(200)))
except MemoryError as error:
    print(error)
"""


@pytest.mark.parametrize(("width", "tensor"), [(16384, "134,217,728 bytes"), (2048, "that PyTorch makes")])
def test_a_recording_without_address_space_names_the_limit(width, tensor):
    said = processes.run(RECORD.replace("WIDTH", str(width)))
    assert said.startswith("cannot record: no address space is left for a tensor ")
    assert tensor in said
    assert "The limit is ulimit -v: " in said
    assert len(said.splitlines()) == 1


# --- Numba's switch ---


def test_kernels_are_compiled_whatever_numba_is_set_to(tmp_path):
    code = """
import numba
import numpy as np
import fastinit as fi
from fastinit._runtime.arrays import DTYPES
from processes import digest

@numba.njit
def theirs(x):
    return x

print(digest("normal float32"), type(theirs).__name__, numba.config.DISABLE_JIT)
"""
    settings = {f"NUMBA_{name}": 1 for name in ("DISABLE_JIT", "BOUNDSCHECK", "DEBUGINFO", "ENABLE_PROFILING")}
    bits, kind, setting = processes.run(code, FASTINIT_CACHE_DIR=tmp_path, **settings).split()
    assert (kind, setting) == ("function", "1")
    assert bits == processes.digest("normal float32")


@pytest.mark.slow
def test_the_switch_may_be_turned_later(tmp_path):
    code = """
import os, numba
import fastinit as fi
before = fi.normal(4, seed=0).tobytes()
os.environ["NUMBA_DISABLE_JIT"] = "1"
print(fi.uniform(4, seed=0).size, numba.config.DISABLE_JIT, fi.normal(4, seed=0).tobytes() == before)
"""
    assert processes.run(code, FASTINIT_CACHE_DIR=tmp_path) == "4 1 True"
