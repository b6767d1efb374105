"""The compile cache: never stale, never needed, never fought over."""

import json
import os
import shutil
from pathlib import Path

import numba
import numpy as np
import processes
import pytest

import fastinit
from fastinit.kernels import jit

PACKAGE = Path(fastinit.__file__).parent
SOURCES = [*(PACKAGE / "kernels").rglob("*.py"), *(PACKAGE / "kernels").rglob("*.json")]
KERNELS = sorted(str(path.relative_to(PACKAGE / "kernels")) for path in SOURCES)

# Prints the bits and how many kernels came out of the cache; CASES is put before it.
LOADED = """
import json
from processes import digest
from fastinit.kernels import drive, fill
names = {"narrow": "narrow_truncated"}
found = digest(*CASES)
hits = 0
for law, dtype in map(str.split, CASES):
    law = law if dtype == "float64" and law != "narrow" else names.get(law, law)
    hits += fill.range_kernel("fill", law, dtype).owner.cache_hits
hits += sum(sum(driver().stats.cache_hits.values()) for driver in (drive.single, drive.shared))
print(json.dumps([found, hits]))
"""


def bits_and_hits(*cases, **how):
    return json.loads(processes.run(f"CASES = {cases!r}\n{LOADED}", **how))


def files(folder):
    """The cache files below a folder: name, time and size."""
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*.nb[ic]")}


@pytest.fixture
def copy(tmp_path):
    """A folder with a copy of the package, for editing."""
    shutil.copytree(PACKAGE, tmp_path / "copy" / "fastinit", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "copy"


# --- what is loaded, what is compiled ---


def test_import_compiles_nothing_and_a_second_process_loads_what_the_first_compiled(tmp_path):
    code = """
import os
from pathlib import Path
from numba.core import event
with event.install_recorder("numba:compile") as compiled:
    import fastinit
    imported = len(compiled.buffer)
    assert list(Path(os.environ["NUMBA_CACHE_DIR"]).rglob("*")) == []
    fastinit.uniform(4, seed=0)
assert (imported, len(compiled.buffer) > 0) == (0, True)
CASES = ["uniform float32"]
"""
    cold, hits = json.loads(processes.run(f"{code}\n{LOADED}", NUMBA_CACHE_DIR=tmp_path))
    assert (cold, hits) == (processes.digest("uniform float32"), 0)
    compiled = files(tmp_path)
    assert len(compiled) == 2 * 3  # an index and a data file for the kernel and each of two drivers
    assert bits_and_hits("uniform float32", NUMBA_CACHE_DIR=tmp_path) == [cold, 3]
    assert files(tmp_path) == compiled


@pytest.mark.slow
def test_fresh_processes_make_the_same_bits():
    expected = processes.digest(*processes.ALL)
    code = "import sys; from processes import ALL, digest; print(digest(*ALL))"
    assert [processes.run(code, timeout=300) for _ in range(2)] == [expected, expected]


@pytest.mark.slow
def test_four_processes_on_an_empty_cache(tmp_path):
    code = f"CASES = ['uniform float32']\n{LOADED}"
    started = [processes.start(code, NUMBA_CACHE_DIR=tmp_path) for _ in range(4)]
    found = [json.loads(processes.finish(process, 240)) for process in started]
    expected = processes.digest("uniform float32")
    assert [bits for bits, _ in found] == [expected] * 4
    compiled = files(tmp_path)
    assert bits_and_hits("uniform float32", NUMBA_CACHE_DIR=tmp_path) == [expected, 3]
    assert files(tmp_path) == compiled
    assert list(tmp_path.rglob("*.tmp.*")) == []


# --- edits ---


def test_an_edit_to_any_kernel_file_changes_the_tag(copy, monkeypatch):
    kernels = copy / "fastinit" / "kernels"
    monkeypatch.setattr(jit, "__file__", str(kernels / "jit.py"))
    tags = {"": jit.cache_tag.__wrapped__()}
    for path in [kernels / name for name in KERNELS]:
        source = path.read_text()
        path.write_text(source + "\n")
        tags[str(path.relative_to(kernels))] = jit.cache_tag.__wrapped__()
        path.write_text(source)
    assert jit.cache_tag.__wrapped__() == tags[""] == jit.cache_tag()
    assert sorted(tags) == ["", *KERNELS]
    assert len(set(tags.values())) == len(KERNELS) + 1


EDITS = {
    "elementary.py": ("narrow float32", "f32(0.4782**2)", "f32(0.4785**2)"),
    "store.py": ("constant float32", "out[i] = TO(value)\n", "out[i] = TO(-value)\n"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EDITS)
def test_an_edit_to_another_file_reaches_the_kernel(copy, name):
    case, old, new = EDITS[name]
    path = copy / "fastinit" / "kernels" / name
    source = path.read_text()
    before, hits = bits_and_hits(case, package=copy, NUMBA_CACHE_DIR=copy / "cache")
    assert (before, hits) == (processes.digest(case), 0)
    assert old in source
    path.write_text(source.replace(old, new))
    changed, hits = bits_and_hits(case, package=copy, NUMBA_CACHE_DIR=copy / "cache")
    assert changed != before
    assert hits == 0
    path.write_text(source)
    assert bits_and_hits(case, package=copy, NUMBA_CACHE_DIR=copy / "cache") == [before, 3]


def term(x):
    return x * x + x


def test_a_kernel_is_cached_under_its_name_and_the_tag():
    found = jit.entry(term, numba.float64(numba.float64), "test_term")
    assert found.py_func.__qualname__ == f"test_term-{jit.cache_tag()}"


@pytest.mark.parametrize("name", ["CPU_NAME", "CPU_FEATURES"])
def test_the_tag_depends_on_the_cpu(monkeypatch, name):
    before = jit.cache_tag()
    monkeypatch.setattr(jit._config, name, "generic")
    assert jit.cache_tag.__wrapped__() != before
    monkeypatch.undo()
    assert jit.cache_tag.__wrapped__() == before


# --- no cache, half a cache ---


def test_where_the_cache_fails_it_is_left_out():
    asked = []

    def compile_(cache):
        asked.append(cache)
        if cache:
            raise OSError("no cache")
        return "compiled"

    assert jit._cached_or_not(compile_) == "compiled"
    assert asked == [True, False]
    assert jit._cached_or_not(lambda cache: cache) is True
    with pytest.raises(ZeroDivisionError):  # the compiler's own error
        jit._cached_or_not(lambda cache: 1 / 0)


@pytest.mark.slow
@pytest.mark.parametrize("named", [True, False], ids=["NUMBA_CACHE_DIR", "no setting"])
def test_a_read_only_install_without_a_cache_folder(copy, named):
    """No folder can be made, by root neither: beside the package, in the home folder and where the user says are
    files."""
    (copy / "fastinit" / "kernels" / "__pycache__").touch()
    (copy / "file").touch()
    nowhere = copy / "file" / "below"
    settings = {"HOME": nowhere, "XDG_CACHE_HOME": nowhere, "NUMBA_CACHE_DIR": nowhere if named else ""}
    before = sorted(copy.rglob("*"))
    found = bits_and_hits("uniform float32", package=copy, **settings)
    assert found == [processes.digest("uniform float32"), 0]
    assert sorted(copy.rglob("*")) == before


# What happens to the cache folder between the import and the first call, as a snippet.
ACCIDENTS = {
    "it vanishes": "shutil.rmtree(cache)",
    "it becomes a file": "shutil.rmtree(cache); cache.touch()",
    # Every write beyond some bytes fails, as on a full disk.
    "the disk is full": "resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))",
    "it vanishes after the first kernel": "fi.ones(1); shutil.rmtree(cache)",
    "the disk is full after the first kernel": """fi.ones(1)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))""",
}


@pytest.mark.slow
@pytest.mark.parametrize("accident", ACCIDENTS)
def test_an_accident_to_the_cache_costs_time_only(copy, accident):
    (copy / "fastinit" / "kernels" / "__pycache__").touch()  # the only folder is the one that has the accident
    code = f"""
import os, resource, shutil
from pathlib import Path
import fastinit as fi
from processes import digest
cache = Path(os.environ["NUMBA_CACHE_DIR"])
{ACCIDENTS[accident]}
found = digest("uniform float32")
print(found)
"""
    cache, home = copy / "cache", copy / "file"
    cache.mkdir()
    home.touch()
    settings = {"NUMBA_CACHE_DIR": cache, "HOME": home, "XDG_CACHE_HOME": home}
    assert processes.run(code, package=copy, **settings) == processes.digest("uniform float32")


CONSTANT = "import fastinit as fi; print(float(fi.constant(1, value=0.5, seed=0)[0]))"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A cache of two kernels."""
    folder = tmp_path_factory.mktemp("compiled")
    assert processes.run(CONSTANT, NUMBA_CACHE_DIR=folder) == "0.5"
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kept", [0.0, 0.5])
@pytest.mark.parametrize("kind", ["nbi", "nbc"])
def test_a_cut_off_cache_file_costs_time_only(compiled, tmp_path, kind, kept):
    """What a crash of the machine may leave behind."""
    shutil.copytree(compiled, tmp_path, dirs_exist_ok=True)
    paths = list(tmp_path.rglob(f"*.{kind}"))
    assert len(paths) == 2
    for path in paths:
        os.truncate(path, int(path.stat().st_size * kept))
    assert processes.run(CONSTANT, NUMBA_CACHE_DIR=tmp_path) == "0.5"


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
