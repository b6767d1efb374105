"""The compile cache: never stale, never needed, never fought over."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import processes
import pytest

import fastinit
from fastinit._native import cache, library, processor

PACKAGE = Path(fastinit.__file__).parent
SOURCES = [path for name in ("_native", "kernels") for path in (PACKAGE / name).rglob("*")]
SOURCES = sorted(str(path.relative_to(PACKAGE)) for path in SOURCES if path.suffix in (".py", ".json"))

# Prints the bits of CASES, which is put before it, and whether Numba was imported, which only compiling does.
BITS = """
import json, sys
from processes import digest
print(json.dumps([digest(*CASES), "numba" in sys.modules]))
"""


def bits_and_numba(*cases, **how):
    return json.loads(processes.run(f"CASES = {cases!r}\n{BITS}", **how))


def files(folder):
    """The files below a folder: name, time and size."""
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def copy(tmp_path):
    """A folder with a copy of the package, for editing."""
    shutil.copytree(PACKAGE, tmp_path / "copy" / "fastinit", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "copy"


# --- what is loaded, what is compiled ---


def test_a_second_process_loads_what_the_first_compiled(tmp_path):
    folder = tmp_path / "not yet there"
    expected = processes.digest("uniform float32")
    assert bits_and_numba("uniform float32", FASTINIT_CACHE_DIR=folder) == [expected, True]
    compiled = files(folder)
    names = "drive.shared", "fill.range_kernel-fill-uniform-float32"
    assert sorted(compiled) == [f"{name}-{processor.tag(*processor.target())}.o" for name in names]
    assert bits_and_numba("uniform float32", FASTINIT_CACHE_DIR=folder) == [expected, False]
    assert files(folder) == compiled


# What a process does. `fastinit` runs the command.
WORK = {
    "fill": """
fi.he_normal((30, 40), seed=0)
fi.orthogonal((30, 40), seed=0)
fi.add(np.zeros((30, 40), "f4"), fi.Uniform(), seed=0)""",
    "write and verify": """
plan = fi.Plan({"w": ((300, 40), "bfloat16", "normal")})
fi.checkpoint.write(plan, "out", seed=0)
assert fi.checkpoint.verify("out").problems == ()""",
    "stats": """
save_file({"w": np.ones((20, 30), "f4")}, "w.safetensors")
fastinit("stats", ".", "--json")""",
    "plan": """
Path("job.toml").write_text('[tensors.w]\\nshape = [3]\\nscheme = "ones"\\n')
fastinit("plan", "job.toml", "--json")""",
    "train": """
fi.MLP([4, 8, 2], "gelu", seed=0).fit(np.ones((20, 4), "f4"), np.arange(20) % 2, epochs=2)""",
    "clip": """
fi.clip_by_global_norm([np.ones(40, "f4"), np.ones((3, 5), "f8")], 1.0)
fi.clip_by_value([np.ones(40, "f4")], -0.5, 0.5)""",
}
WORKING = """
import os, sys
from pathlib import Path
import numpy as np
from safetensors.numpy import save_file
import fastinit as fi

def fastinit(*arguments):
    from fastinit import cli
    sys.argv[1:] = arguments
    try:
        cli.main()
    except SystemExit as end:
        assert end.code == 0
"""


@pytest.mark.parametrize("work", WORK)
def test_a_process_with_a_warm_cache_does_not_import_numba(tmp_path, work):
    code = f"{WORKING}os.chdir({str(tmp_path)!r})\n{WORK[work]}"
    code += "\nprint('numba' in sys.modules)"
    if processes.run(code).splitlines()[-1] == "True":  # this test is the first to use these kernels
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        assert processes.run(code).splitlines()[-1] == "False"


@pytest.mark.slow
def test_fresh_processes_make_the_same_bits():
    expected = processes.digest(*processes.ALL)
    code = "import sys; from processes import ALL, digest; print(digest(*ALL))"
    assert [processes.run(code, timeout=300) for _ in range(2)] == [expected, expected]


@pytest.mark.slow
def test_four_processes_on_an_empty_cache(tmp_path):
    code = f"CASES = ['uniform float32']\n{BITS}"
    started = [processes.start(code, FASTINIT_CACHE_DIR=tmp_path) for _ in range(4)]
    found = [json.loads(processes.finish(process, 240)) for process in started]
    expected = processes.digest("uniform float32")
    assert [bits for bits, _ in found] == [expected] * 4
    assert [name.rpartition(".")[2] for name in files(tmp_path)] == ["o", "o"]  # and no temporary file
    assert bits_and_numba("uniform float32", FASTINIT_CACHE_DIR=tmp_path) == [expected, False]


# --- levels ---


def test_code_for_a_level_is_found_where_it_can_run(tmp_path, monkeypatch):
    """As `fastinit warmup --for` leaves it, and not where the processor lacks one of the level's instructions."""
    level = "generic"
    bits, compiled = bits_and_numba(
        "uniform float32", FASTINIT_CACHE_DIR=tmp_path, NUMBA_CPU_NAME=level, NUMBA_CPU_FEATURES=""
    )
    assert compiled
    assert bits_and_numba("uniform float32", FASTINIT_CACHE_DIR=tmp_path) == [bits, False]
    # Another kind of processor that the environment names has nothing to do with those of this machine.
    assert bits_and_numba("uniform float32", FASTINIT_CACHE_DIR=tmp_path, NUMBA_CPU_FEATURES="")[1]
    v2, v3 = ("+" + ",+".join(sorted(names)) for names in (processor._V2, processor._V3))
    monkeypatch.setattr(
        processor, "LEVELS", {"v4": processor._V4, "v3": processor._V3, "v2": processor._V2, "generic": set()}
    )
    for features, expected in {
        v3: ["v3", "v2", "generic"],
        v3.replace("+fma", "-fma"): ["v2", "generic"],
        v3.replace("+avx2,", ""): ["v2", "generic"],
        v2: ["v2", "generic"],
        "": ["generic"],
    }.items():
        monkeypatch.setattr(processor, "_host", lambda features=features: ("some", features))
        assert processor.levels() == expected
        tried = list(library._file_names(("drive.shared",)))
        assert len(set(tried)) == len(expected) + 1
    monkeypatch.setenv("NUMBA_CPU_NAME", "haswell")
    assert processor.levels() == []


# --- edits ---


def test_an_edit_to_any_file_of_compiled_code_changes_the_tag(copy, monkeypatch):
    tag = processor.tag.__wrapped__
    monkeypatch.setattr(processor, "PACKAGE", copy / "fastinit")
    tags = {"": tag("x", "")}
    for path in [copy / "fastinit" / name for name in SOURCES]:
        source = path.read_text()
        path.write_text(source + "\n")
        tags[str(path)] = tag("x", "")
        path.write_text(source)
    assert tag("x", "") == tags[""]
    assert len(tags) == len(SOURCES) + 1 > 20
    others = {tag("y", ""), tag("x", "+avx"), tag("", "x")}
    monkeypatch.setattr(processor.llvm, "get_process_triple", lambda: "other-machine")
    others.add(tag("x", ""))
    monkeypatch.setattr(processor.importlib.metadata, "version", lambda name: "1")
    others.add(tag("x", ""))
    assert len({*tags.values(), *others}) == len(tags) + 5


@pytest.mark.slow
def test_an_edit_to_another_file_reaches_the_kernel(copy):
    path, old, new = copy / "fastinit/kernels/store.py", "out[i] = TO(value)\n", "out[i] = TO(-value)\n"
    source = path.read_text()
    how = {"package": copy, "FASTINIT_CACHE_DIR": copy / "cache"}
    before = bits_and_numba("constant float32", **how)
    assert before == [processes.digest("constant float32"), True]
    assert source.count(old) == 1
    path.write_text(source.replace(old, new))
    changed = bits_and_numba("constant float32", **how)
    assert (changed[0] != before[0], changed[1]) == (True, True)
    path.write_text(source)
    assert bits_and_numba("constant float32", **how) == [before[0], False]


# --- no cache, half a cache ---


@pytest.mark.slow
@pytest.mark.parametrize("named", [True, False], ids=["FASTINIT_CACHE_DIR", "no setting"])
def test_where_no_folder_can_be_made(copy, named):
    """By root neither: where the folder would be are files. And nothing is written into the package."""
    (copy / "file").touch()
    nowhere = copy / "file" / "below"
    settings = {"HOME": nowhere, "XDG_CACHE_HOME": nowhere, "FASTINIT_CACHE_DIR": nowhere if named else ""}
    before = sorted(copy.rglob("*"))
    found = bits_and_numba("uniform float32", package=copy, **settings)
    assert found == [processes.digest("uniform float32"), True]
    assert sorted(copy.rglob("*")) == before


# What happens to the cache folder between the import and the first call, or the second kernel.
ACCIDENTS = {
    "it vanishes": "shutil.rmtree(folder)",
    "it becomes a file": "shutil.rmtree(folder); folder.touch()",
    # Every write beyond some bytes fails, as on a full disk.
    "the disk is full": "resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))",
}


@pytest.mark.slow
@pytest.mark.parametrize("first", ["", "fi.ones(1)"], ids=["at first", "later"])
@pytest.mark.parametrize("accident", ACCIDENTS)
def test_an_accident_to_the_cache_costs_time_only(tmp_path, accident, first):
    code = f"""
import os, resource, shutil
from pathlib import Path
import fastinit as fi
from processes import digest
folder = Path(os.environ["FASTINIT_CACHE_DIR"])
{first}
{ACCIDENTS[accident]}
print(digest("uniform float32"))
"""
    folder = tmp_path / "cache"
    folder.mkdir()
    assert processes.run(code, FASTINIT_CACHE_DIR=folder) == processes.digest("uniform float32")
    assert [name for name in files(tmp_path) if not name.endswith(".o")] == ["cache"] * ("file" in accident)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "cut by a byte": lambda path: os.truncate(path, path.stat().st_size - 1),
    "one bit": flip,
    "empty": lambda path: os.truncate(path, 0),
    "other content": lambda path: path.write_bytes(b"\x7fELF" + bytes(1000)),
    "no digest": lambda path: path.write_bytes(path.read_bytes().partition(b"\n")[2]),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_not_loaded(tmp_path, monkeypatch, damage):
    """What a crash of the machine may leave behind; it is written again."""
    monkeypatch.setenv("FASTINIT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(cache, "_warned", True)
    compiled = []
    monkeypatch.setattr(library, "_compiled", lambda *names: compiled.append(names) or b"iii\nthe object file")
    monkeypatch.setattr(library, "load", lambda data, symbol: data)
    name = library._file_name(("drive.shared",), *processor.target())
    assert (library._loaded("drive.shared"), len(compiled)) == (b"iii\nthe object file", 1)
    assert (library._loaded("drive.shared"), len(compiled)) == (b"iii\nthe object file", 1)
    DAMAGES[damage](tmp_path / name)
    assert (library._loaded("drive.shared"), len(compiled)) == (b"iii\nthe object file", 2)
    if damage != "a folder":  # which might be another's, and is not removed
        assert (library._loaded("drive.shared"), len(compiled)) == (b"iii\nthe object file", 2)
    assert [path.name for path in tmp_path.iterdir()] == [name]


# --- threads, forks, interrupts ---


@pytest.mark.slow
def test_threads_that_ask_for_kernels_at_once(tmp_path):
    """For the same ones and for others, while one more thread compiles functions of its own by Numba."""
    cases = "uniform float32", "normal bfloat16", "uniform float32", "constant float64", "normal bfloat16"
    code = f"""
import sys, threading
import numba
import fastinit as fi
from fastinit._native import library
from processes import digest

loads, load = [], library.load
library.load = lambda data, symbol: loads.append(symbol) or load(data, symbol)
found, cases = [None] * {len(cases)}, {cases!r}
start = threading.Barrier(len(cases) + 1)
def ask(i):
    start.wait()
    found[i] = digest(cases[i])
def theirs():
    start.wait()
    found.append([numba.njit(lambda x: x * x + n)(1.5) for n in range(20)])
sys.setswitchinterval(1e-5)
threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(cases))] + [threading.Thread(target=theirs)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert found.pop() == [2.25 + n for n in range(20)]
assert sorted(loads) == sorted(set(loads)), loads  # each once
print(*found)
"""
    found = processes.run(code, FASTINIT_CACHE_DIR=tmp_path).split()
    assert found == [processes.digest(case) for case in cases]


@pytest.mark.slow
def test_forks_while_a_thread_compiles(tmp_path):
    """The fork waits for the compiler, so a child can compile, and finds what its parent has."""
    code = """
import os, threading
import fastinit as fi
from fastinit._native import library
from processes import digest

started, compiled = threading.Event(), library._compiled
def slowly(*names):
    started.set()
    return compiled(*names)
library._compiled = slowly
thread = threading.Thread(target=fi.uniform, args=(4,))
thread.start()
started.wait()
children = []
for case in ("uniform float32", "normal float32"):
    read, write = os.pipe()
    if os.fork() == 0:
        os.write(write, digest(case).encode())
        os._exit(0)
    children.append(read)
thread.join()
print(*[os.read(read, 64).decode() for read in children])
"""
    found = processes.run(code, fork=True, FASTINIT_CACHE_DIR=tmp_path).split()
    assert found == [processes.digest("uniform float32"), processes.digest("normal float32")]


@pytest.mark.slow
def test_interrupts_while_kernels_are_compiled_and_loaded(tmp_path):
    """At any moment: the process can compile and load them afterwards, with the same bits."""
    code = """
import os, signal
import numba
from fastinit._native import library
from fastinit.kernels import _numba, objects

expected, interrupts, compiled = {}, 0, library._compiled
library._compiled = lambda *names: waited.append(names) or compiled(*names)
for i in range(60):
    names = "fill.range_kernel", "fill", ("uniform", "normal")[i % 2], "float32"
    library._kernels.clear()
    waited = []
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.002 + 0.006 * i)
    try:
        library.kernel(*names)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        interrupts += 1
    code = objects.compiled(*names)
    assert expected.setdefault(names, code) == code
    assert library.kernel(*names).address
    assert len(waited) == 1  # what is compiled while a signal waits is kept
assert numba.config.OPT == 3, numba.config.OPT
from processes import digest
print(interrupts, digest("uniform float32", "normal float32"))
"""
    (tmp_path / "file").touch()  # so nothing is kept
    interrupts, digest = processes.run(code, FASTINIT_CACHE_DIR=tmp_path / "file" / "below").split()
    assert int(interrupts) > 20
    assert digest == processes.digest("uniform float32", "normal float32")


def test_the_digest_sees_one_bit(monkeypatch):
    """What the other tests here compare."""
    before = processes.digest("normal float32")
    fills = processes.fills

    def touched(case):
        for array in fills(case):
            array.view(np.uint8)[-1] ^= 1
            yield array

    monkeypatch.setattr(processes, "fills", touched)
    assert processes.digest("normal float32") != before
