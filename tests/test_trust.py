"""No code from a folder: Numba's settings, the compile cache, and the path of modules."""

import contextlib
import os
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import llvmlite.binding as llvm
import numba
import numpy as np
import processes
import pytest
from safetensors.numpy import save_file

from fastinit._native import cache, library, processor
from fastinit.kernels import _numba, objects

ROOT = os.geteuid() == 0
STRANGER = 12345
COMMAND = str(Path(sys.executable).with_name("fastinit"))
FILL = "import fastinit as fi; print(fi.constant(3, value=0.5, seed=0).tolist())"
FILLED = "[0.5, 0.5, 0.5]"


def run(*command, cwd, **variables):
    """Run a process: (exit code, output, lines of stderr)."""
    env = processes.environment(**variables)
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout.strip(), done.stderr.splitlines()


def fill(cwd, **variables):
    return run(sys.executable, "-c", FILL, cwd=cwd, **variables)


def stats(cwd, **variables):
    return run(COMMAND, "stats", ".", "--json", cwd=cwd, **variables)


# The kernels of `fill` and of `stats`.
PLANTED = ("fill.range_kernel", "fill", "constant", "float32"), ("sums.moments.quick_moments", "float32")


def plant(folder, path):
    """Put object files into a cache that make the file `path` when they are called in place of kernels."""
    data = "".join(f"\\{byte:02x}" for byte in f"{path}\0".encode())
    for names in PLANTED:
        text = f"""
            @path = internal constant [{len(data) // 3} x i8] c"{data}"
            declare i32 @creat(ptr, i32)
            define void @"{"-".join(names)}"() {{
                %file = call i32 @creat(ptr @path, i32 420)
                ret void
            }}
            define void @"{"-".join(names)}-packed"(ptr %words) {{
                call void @"{"-".join(names)}"()
                ret void
            }}"""
        _, letters = objects.module_of(objects.definition_of(*names), "kernel")
        code = letters.encode() + b"\n" + processor.machine().emit_object(llvm.parse_assembly(text))
        name = library._file_name(names, *processor.target())
        (folder / name).write_bytes(cache._first_line(code) + b"\n" + code)
        (folder / name).chmod(0o644)


@pytest.fixture
def stranger(tmp_path):
    """A folder with a checkpoint, and in `cache` object files that make the file `ran` in place of kernels."""
    save_file({"w": np.ones((20, 30), np.float32)}, tmp_path / "model.safetensors")
    (tmp_path / "cache").mkdir(mode=0o755)
    plant(tmp_path / "cache", tmp_path / "ran")
    return tmp_path


def ran(folder):
    return (folder / "ran").exists()


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


# --- settings ---


@pytest.mark.parametrize("program", [fill, stats])
def test_planted_code_would_run(stranger, program):
    """The check of these tests: from a folder of one's own it is loaded."""
    program(stranger, FASTINIT_CACHE_DIR=stranger / "cache")
    assert ran(stranger)


def test_settings_in_the_current_folder_do_not_count(tmp_path):
    """Where something is compiled."""
    save_file({"w": np.ones((20, 30), np.float32)}, tmp_path / "model.safetensors")
    (tmp_path / ".numba_config.yaml").write_text("cache_dir: x\ncache_locator_classes: evil.Evil\ncpu_name: haswell\n")
    (tmp_path / "evil.py").write_text("open('ran', 'w')\n")
    path = os.pathsep.join([*filter(os.path.isabs, sys.path), str(tmp_path)])
    settings = {"PYTHONPATH": path, "FASTINIT_CACHE_DIR": tmp_path / "cache"}
    assert fill(tmp_path, **settings) == (0, FILLED, [])
    code, out, lines = stats(tmp_path, **settings)
    assert (code, '"std": 0' in out) == (0, True)
    assert [".numba_config.yaml in the current folder is ignored" in line for line in lines] == [True]
    assert not ran(tmp_path)
    names = [path.name for path in (tmp_path / "cache").iterdir()]
    assert len(names) == 2
    assert all(name.endswith(f"-{processor.tag(*processor.target())}.o") for name in names)


def fifo(path):
    os.mkfifo(path)


def huge(path):
    path.touch()
    os.truncate(path, 1 << 33)


BROKEN = {
    "no YAML": lambda path: path.write_text("cache_dir: ["),
    "a list": lambda path: path.write_text("- 1\n- 2\n"),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "a bad setting": lambda path: path.write_text("num_threads: -1\nopt: 9\n"),
    "a pipe": fifo,
    "a folder": Path.mkdir,
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "8 GB": huge,
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_settings_file_does_not_stop_the_command(tmp_path, kind):
    BROKEN[kind](tmp_path / ".numba_config.yaml")
    code, out, lines = run(COMMAND, "info", cwd=tmp_path)
    assert (code, "threading layer" in out) == (0, True)
    assert lines == [
        "fastinit: warning: .numba_config.yaml in the current folder is ignored: settings come from the environment"
    ]


def test_as_a_library_a_broken_settings_file_is_named(tmp_path):
    (tmp_path / ".numba_config.yaml").write_text("cache_dir: [")
    code, _, lines = fill(tmp_path, FASTINIT_CACHE_DIR=tmp_path / "empty")
    assert code == 1
    assert lines[-1].startswith("ImportError: Numba cannot be imported: while parsing")
    assert lines[-1].endswith("the file .numba_config.yaml in the current folder")


def test_the_callers_own_settings_stay(tmp_path):
    """Of the file too: it may be the caller's."""
    (tmp_path / ".numba_config.yaml").write_text("opt: '1'\ncache_dir: nothing\ndebug_cache: 1\n")
    code = """
import numba, os
from numba.core import config
from fastinit.kernels import _numba
import fastinit as fi
reload, before = config.reload_config, (config.OPT, config.CACHE_DIR, config.DEBUG_CACHE)
with _numba.compiler():
    print(int(config.OPT), repr(config.CACHE_DIR), config.DEBUG_CACHE)
print(fi.constant(3, value=0.5, seed=0).tolist())
print((config.OPT, config.CACHE_DIR, config.DEBUG_CACHE) == before == (1, "nothing", 1), config.reload_config is reload)
print(numba.njit(lambda x: x + 1)(1), int(config.OPT))
"""
    found = run(sys.executable, "-c", code, cwd=tmp_path, FASTINIT_CACHE_DIR=tmp_path / "empty")
    assert found == (0, f"3 '' 0\n{FILLED}\nTrue True\n2 1", [])
    assert not (tmp_path / "nothing").exists()


def test_settings_of_matplotlib_in_the_current_folder(tmp_path):
    (tmp_path / "matplotlibrc").write_text("backend: module://evil\ntext.usetex: True\nlines.nonsense: 1\n")
    (tmp_path / "evil.py").write_text("open('ran', 'w')\n")
    command = [COMMAND, "probe", "--sizes", "8,8", "--plot", "x.png"]
    code, _, lines = run(*command, cwd=tmp_path, PYTHONPATH=os.pathsep.join([*sys.path[1:], str(tmp_path)]))
    assert (code, len(lines), ran(tmp_path)) == (0, 1, False)
    assert "matplotlibrc in the current folder is ignored" in lines[0]
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


# --- modules ---


@pytest.mark.parametrize(
    "start", [[COMMAND], [sys.executable, "-m", "fastinit"], [sys.executable, "-m", "fastinit.cli"]]
)
def test_no_module_of_the_current_folder_is_imported(tmp_path, start):
    for name in ("numpy", "yaml", "numba", "typer", "click", "llvmlite", "scipy", "jinja2", "rich", "tomli_w", "json"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w')\nraise ImportError\n")
    save_file({"w": np.ones((20, 30), np.float32)}, tmp_path / "model.safetensors")
    for arguments in (["stats", "."], ["plan", "model.safetensors", "--scheme", "ones", "--toml"], ["--help"]):
        code, out, _ = run(*start, *arguments, cwd=tmp_path)
        assert (code, out != "", ran(tmp_path)) == (0, True, False)


@pytest.mark.slow
def test_rays_workers_import_no_module_of_the_current_folder(tmp_path):
    for name in ("numba", "yaml", "scipy", "fastinit"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w')\nraise ImportError\n")
    (tmp_path / "job.toml").write_text('[tensors.w]\nshape = [3]\ndtype = "float32"\nscheme = "ones"\n')
    code, _, lines = run(COMMAND, "write", "job.toml", "--out", "out", "--engine", "ray", "--json", cwd=tmp_path)
    assert (code, lines, ran(tmp_path)) == (0, [], False)
    assert (tmp_path / "out" / "model.safetensors").exists()


# --- the cache ---


def only_file(folder):
    (path,) = folder.iterdir()
    return path


def give_away(path):
    os.chown(path, STRANGER, -1)


def replace(path, make):
    path.unlink()
    make(path)


def move_below(folder, mode):
    """Put the cache below a folder of this mode."""
    above = folder.with_name("above")
    above.mkdir()
    folder.rename(above / folder.name)
    above.chmod(mode)
    return above / folder.name


def behind_a_link(folder, owner=None):
    link = folder.with_name("link")
    link.symlink_to(folder.name)
    if owner is not None:
        os.lchown(link, owner, -1)
    return link


# What is wrong with a cache -> (what makes it so, and gives where it is then if it has moved; part of the message).
# Other owners are only given by root.
FAULTS = {
    "all may write to it": (lambda folder: folder.chmod(0o777), "cache can be written to by all users"),
    "its group may write to it": (lambda folder: folder.chmod(0o770), "cache can be written to by its group"),
    "it is sticky": (lambda folder: folder.chmod(0o1777), "cache can be written to by all users"),
    "all may exchange it": (lambda folder: move_below(folder, 0o777), "above can be written to by all users"),
}
OWNERS = {
    "another's": (give_away, f"cache belongs to another user ({STRANGER})"),
    "another's link": (lambda folder: behind_a_link(folder, STRANGER), "link belongs to another user"),
}
# The same of the file. It is not loaded, but replaced, but for a folder.
FILE_FAULTS = {
    "all may write to it": (lambda path: path.chmod(0o666), "term can be written to by all users"),
    "its group may write to it": (lambda path: path.chmod(0o664), "term can be written to by its group"),
    "a pipe": (lambda path: replace(path, os.mkfifo), "term is not a regular file"),
    "a folder": (lambda path: replace(path, Path.mkdir), "term is not a regular file"),
}
FILE_OWNERS = {"another's": (give_away, "term belongs to another user")}
TERM = b"what was compiled"


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A cache in `tmp_path / "cache"` that holds one file."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("FASTINIT_CACHE_DIR", str(folder))
    monkeypatch.setattr(cache, "_warned", False)
    assert loads(folder) is False
    assert cache.save("term", TERM)
    return folder


def loads(folder):
    """Whether what was kept comes out of the cache at a folder."""
    os.environ["FASTINIT_CACHE_DIR"] = str(folder)
    found = cache.read("term")
    assert found in (None, TERM)
    return found is not None


@contextlib.contextmanager
def one_warning(message, folder):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield
    assert [warning.category for warning in found] == [RuntimeWarning]  # one in a process
    text = str(found[0].message)
    assert message in text
    assert str(folder) in text
    assert "set FASTINIT_CACHE_DIR to a folder that only you can write to" in text


@pytest.mark.parametrize("fault", [*FAULTS, *(OWNERS if ROOT else ())])
def test_a_folder_that_others_could_write_to_is_not_used(kept, fault):
    make, message = {**FAULTS, **OWNERS}[fault]
    folder = make(kept)
    folder = folder if isinstance(folder, Path) else kept
    before = files(kept.parent)
    with one_warning(message, kept.parent):
        assert not loads(folder)
        assert not cache.save("term", TERM)
        assert not cache.save("other", TERM)
        assert (cache.folder(), cache.names(), cache.is_writable()) == (None, set(), False)
    assert files(kept.parent) == before  # nothing is written there either


@pytest.mark.parametrize("fault", [*FILE_FAULTS, *(FILE_OWNERS if ROOT else ())])
def test_a_file_that_others_could_have_written_is_replaced(kept, fault):
    make, message = {**FILE_FAULTS, **FILE_OWNERS}[fault]
    make(only_file(kept))
    with one_warning(message, kept):
        assert not loads(kept)
        assert not loads(kept)
        assert cache.save("term", TERM) is loads(kept) is (fault != "a folder")
    assert [path.name for path in kept.iterdir()] == ["term"]


def test_a_link_in_the_place_of_a_file_is_replaced(kept):
    """Its target stays as it is."""
    path = only_file(kept)
    target = path.rename(kept.parent / "elsewhere")
    path.symlink_to(target)
    before = files(kept.parent)[target]
    assert not loads(kept)
    assert cache.save("term", TERM)
    assert loads(kept)
    assert (path.is_symlink(), files(kept.parent)[target]) == (False, before)


def test_owners_are_compared_with_this_user(kept, monkeypatch):
    """Where no file can be given away: this user is another one."""
    owner = kept.stat().st_uid
    assert loads(kept)
    monkeypatch.setattr(cache, "_user", lambda: STRANGER)
    if owner != 0:
        with pytest.warns(RuntimeWarning, match=f"belongs to another user \\({owner}\\)"):
            assert not loads(kept)
    else:
        assert loads(kept)


def test_a_relative_folder_is_the_current_folders(kept, monkeypatch):
    monkeypatch.chdir(kept.parent)
    with pytest.warns(RuntimeWarning, match="FASTINIT_CACHE_DIR must be an absolute path. Received: 'cache'"):
        assert not loads("cache")


GOOD = {
    "as it was made": lambda folder: None,
    "through a link of one's own": behind_a_link,
    "below a folder with the sticky bit": lambda folder: move_below(folder, 0o1777),
    "read-only": lambda folder: only_file(folder).chmod(0o444),
}


@pytest.mark.parametrize("kind", GOOD)
def test_good_caches_are_used(kept, kind):
    folder = GOOD[kind](kept) or kept
    assert loads(folder)
    assert cache.save("other", TERM)
    assert cache.names() == {"term", "other"}


def test_a_cache_of_roots_that_this_user_cannot_write_to(kept, monkeypatch):
    """As in a container whose image was built by root."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert loads(kept)
    assert not cache.is_writable()


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_what_is_made_is_nobody_elses_whatever_the_umask(tmp_path, monkeypatch, umask):
    monkeypatch.setenv("FASTINIT_CACHE_DIR", str(tmp_path / "a" / "b"))
    before = os.umask(umask)
    try:
        assert cache.save("term", TERM)
    finally:
        os.umask(before)
    made = [path.stat().st_mode for path in (tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "term")]
    assert [mode & (stat.S_IWGRP | stat.S_IWOTH) for mode in made] == [0] * 3
    assert loads(tmp_path / "a" / "b")


def test_a_private_group_may_write(kept, monkeypatch):
    """The umask lets it, on many systems."""
    import grp
    import pwd

    name = pwd.getpwuid(os.getuid()).pw_name
    members = []
    monkeypatch.setattr(grp, "getgrgid", lambda number: grp.struct_group((name, "x", number, members)))
    monkeypatch.setattr(pwd, "getpwuid", lambda number: pwd.struct_passwd((name, "x", number, 1, "", "/", "")))
    monkeypatch.setattr(cache, "_user", lambda: os.getuid() or 1)
    group = os.stat_result((stat.S_IFDIR | 0o775, 0, 0, 0, 0, STRANGER, 0, 0, 0, 0))
    assert cache._mode_fault(group) == ""
    members.append("somebody")
    assert "by its group" in cache._mode_fault(group)
    members.clear()
    monkeypatch.setattr(cache, "_user", lambda: 0)
    assert "by its group" in cache._mode_fault(group)


def test_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("FASTINIT_CACHE_DIR", raising=False)
    below = "Library/Caches" if sys.platform == "darwin" else ".cache"
    home = tmp_path / "home" / below / "fastinit"
    assert cache.folder() == home
    for relative in ("", "cache", "./x", "~/x"):  # a relative path counts as none
        monkeypatch.setenv("XDG_CACHE_HOME", relative)
        assert cache.folder() == home
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.folder() == tmp_path / "xdg" / "fastinit"
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "numbas"))  # is for the caller's own functions
    assert cache.folder() == tmp_path / "xdg" / "fastinit"
    monkeypatch.setenv("FASTINIT_CACHE_DIR", "")
    assert cache.folder() == tmp_path / "xdg" / "fastinit"
    monkeypatch.setenv("FASTINIT_CACHE_DIR", str(tmp_path / "named"))
    assert cache.folder() == tmp_path / "named"
    monkeypatch.delenv("FASTINIT_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME")
    for home in (".", "home"):
        monkeypatch.setenv("HOME", home)
        assert cache.folder() is None
    assert list(tmp_path.iterdir()) == []


def test_where_the_home_folder_lies_is_not_asked(tmp_path, monkeypatch):
    """Who can exchange it can change what Python imports. Some lie in folders of a group."""
    home = tmp_path / "group" / "home"
    home.mkdir(parents=True)
    (tmp_path / "group").chmod(0o770)
    monkeypatch.setenv("HOME", str(home))
    assert cache._check(home / "x") == home / "x"
    with pytest.raises(cache.UntrustedError, match="group can be written to by its group"):
        cache._check(tmp_path / "group" / "x")
    home.chmod(0o777)
    with pytest.raises(cache.UntrustedError, match="home can be written to by all users"):
        cache._check(home / "x")


def test_links_in_a_circle(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(cache.UntrustedError, match="more than 40 links"):
        cache._check(tmp_path / "a" / "c")


@pytest.mark.parametrize("program", [fill, stats])
@pytest.mark.parametrize("mode", [0o777, 0o755 if ROOT else 0o777])
@pytest.mark.parametrize("place", ["FASTINIT_CACHE_DIR", "XDG_CACHE_HOME"])
@pytest.mark.slow
def test_planted_code_does_not_run(stranger, place, mode, program):
    """In processes, of both kinds of places: all may write there, or it is another's."""
    folder = stranger / "cache"
    variables = {place: folder}
    if place == "XDG_CACHE_HOME":
        folder = folder.rename(stranger / "fastinit")
        variables = {place: stranger, "FASTINIT_CACHE_DIR": ""}
    folder.chmod(mode)
    if mode == 0o755:
        give_away(folder)
    code, out, lines = program(stranger, **variables)
    assert (code, bool(out), ran(stranger)) == (0, True, False)
    lines = [line for line in lines if "arning" in line]
    assert len(lines) == 1
    assert str(folder) in lines[0]


# --- Numba's private names ---


@pytest.mark.parametrize("name", _numba.FALLBACKS)
def test_a_missing_name_of_numba_gives_one_warning(monkeypatch, name):
    """And the kernels are the same."""
    names = "fill.range_kernel", "fill", "uniform", "float32"
    expected = objects.compiled(*names)
    assert _numba._exists(name)
    exists = _numba._exists
    monkeypatch.setattr(_numba, "_exists", lambda asked: asked != name and exists(asked))
    _numba._has.cache_clear()
    try:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            again = objects.compiled(*names)
            objects.compiled(*names)
        assert [str(warning.message) for warning in found] == [
            f"Numba {numba.__version__} has no {name}: {_numba.FALLBACKS[name]}"
        ]
        assert len(again) > 0
        assert (again == expected) or name.endswith("target_context")  # optimised twice
    finally:
        _numba._has.cache_clear()


def test_a_missing_name_is_seen():
    assert not _numba._exists("numba.core.caching.NoSuchName")
    assert not _numba._exists("numba.no_such_module.x")


def test_an_exception_inside_leaves_numba_as_it_was():
    from numba.core import config

    def state():
        library, generator = numba.core.codegen.JITCodeLibrary, numba.core.codegen.JITCPUCodegen
        return dict(vars(config)), library._finalize_final_module, generator.set_env

    before = state()
    for inside in (_numba.compiler, _numba.lowering):
        with contextlib.suppress(ZeroDivisionError), inside():
            assert state() != before
            1 / 0  # noqa: B018
        assert state() == before
