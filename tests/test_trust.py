"""No code from a folder: Numba's settings, the compile cache, and the path of modules."""

import contextlib
import os
import pickle
import shutil
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import numba
import numpy as np
import processes
import pytest
from safetensors.numpy import save_file

from fastinit.kernels import _numba, cache, jit

ROOT = os.geteuid() == 0
STRANGER = 12345
COMMAND = str(Path(sys.executable).with_name("fastinit"))
FILL = "import fastinit as fi; print(fi.constant(3, value=0.5, seed=0).tolist())"
FILLED = "[0.5, 0.5, 0.5]"


class Marker:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def run(*command, cwd, **variables):
    """Run a process: (exit code, output, lines of stderr)."""
    env = processes.environment(**variables)
    if "NUMBA_CACHE_DIR" not in variables:
        env.pop("NUMBA_CACHE_DIR", None)
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout.strip(), done.stderr.splitlines()


def fill(cwd, **variables):
    return run(sys.executable, "-c", FILL, cwd=cwd, **variables)


def stats(cwd, **variables):
    return run(COMMAND, "stats", ".", "--json", cwd=cwd, **variables)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A cache with the kernels of `fill` and `stats`."""
    folder, cwd = tmp_path_factory.mktemp("compiled"), tmp_path_factory.mktemp("cwd")
    save_file({"w": np.ones((20, 30), np.float32)}, cwd / "model.safetensors")
    assert fill(cwd, NUMBA_CACHE_DIR=folder) == (0, FILLED, [])
    assert stats(cwd, NUMBA_CACHE_DIR=folder)[0] == 0
    return folder


@pytest.fixture
def stranger(tmp_path, compiled):
    """A folder with a checkpoint, and in `cache` pickles that make the file `ran` in place of all kernels."""
    save_file({"w": np.ones((20, 30), np.float32)}, tmp_path / "model.safetensors")
    shutil.copytree(compiled, tmp_path / "cache")
    for path in (tmp_path / "cache").rglob("*.nb[ic]"):
        version = pickle.dumps(numba.__version__) if path.suffix == ".nbi" else b""  # read first, apart
        path.write_bytes(version + pickle.dumps(Marker(tmp_path / "ran")))
    return tmp_path


def ran(folder):
    return (folder / "ran").exists()


def count(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.nb[ic]")}


# --- settings ---


def test_the_planted_pickles_would_run(stranger):
    """The check of these tests: from a folder of one's own they are loaded."""
    assert fill(stranger, NUMBA_CACHE_DIR=stranger / "cache")[:2] == (0, FILLED)
    assert ran(stranger)


def test_a_cache_named_in_the_current_folder_is_not_used(stranger):
    (stranger / ".numba_config.yaml").write_text(f"cache_dir: {stranger / 'cache'}\ncache_locator_classes: evil.Evil\n")
    (stranger / "evil.py").write_text("open('ran', 'w')\n")
    settings = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    assert fill(stranger) == (0, FILLED, [])
    code, out, lines = stats(stranger, **settings)
    assert (code, '"std": 0' in out) == (0, True)
    assert [".numba_config.yaml in the current folder is ignored" in line for line in lines] == [True]
    assert not ran(stranger)


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
    code, _, lines = fill(tmp_path)
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
    found = run(sys.executable, "-c", code, cwd=tmp_path)
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


def one_file(folder, kind="nbi"):
    return sorted(folder.rglob(f"*.{kind}"))[0]


def each(folder, change):
    for path in sorted(folder.rglob("*.nb?")):
        change(path)


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


def as_a_link(path):
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


# What is wrong with a cache -> (what makes it so, and gives where it is then if it has moved; part of the message).
# Other owners are only given by root.
FAULTS = {
    "all may write to it": (lambda folder: folder.chmod(0o777), "cache can be written to by all users"),
    "all may write to the inner folder": (lambda folder: one_file(folder).parent.chmod(0o1777), "by all users"),
    "its group may write to it": (lambda folder: folder.chmod(0o770), "cache can be written to by its group"),
    "all may write to a file": (lambda folder: one_file(folder).chmod(0o666), "nbi can be written to by all users"),
    "its group may write to a file": (
        lambda folder: one_file(folder).chmod(0o664),
        "nbi can be written to by its group",
    ),
    "all may write to the data": (lambda folder: each(folder, lambda path: path.chmod(0o666)), "by all users"),
    "all may exchange it": (lambda folder: move_below(folder, 0o777), "above can be written to by all users"),
    "a file is a link": (lambda folder: as_a_link(one_file(folder)), "nbi is not a regular file"),
    "a file is a pipe": (lambda folder: replace(one_file(folder), os.mkfifo), "nbi is not a regular file"),
    "the data is a pipe": (lambda folder: replace(one_file(folder, "nbc"), os.mkfifo), "nbc is not a regular file"),
    "a file is a folder": (lambda folder: replace(one_file(folder), Path.mkdir), "nbi is not a regular file"),
}
OWNERS = {
    "another's": (give_away, f"cache belongs to another user ({STRANGER})"),
    "another's inner folder": (lambda folder: give_away(one_file(folder).parent), "belongs to another user"),
    "another's file": (lambda folder: give_away(one_file(folder)), "nbi belongs to another user"),
    "another's data": (lambda folder: give_away(one_file(folder, "nbc")), "nbc belongs to another user"),
    "another's link": (lambda folder: behind_a_link(folder, STRANGER), "link belongs to another user"),
}


def term(x):
    return x * x + x


SIGNATURE = numba.float64(numba.float64)


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A cache in `tmp_path / "cache"` that holds one kernel."""
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o755)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(folder))
    monkeypatch.setattr(cache, "_warned", False)
    assert loads(folder) is False
    assert len(count(folder)) == 2
    return folder


def loads(folder):
    """Whether the kernel comes out of the cache at a folder; it must compute in any case."""
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
    found = jit.entry(term, SIGNATURE, "test_trusted")
    assert found(3.0) == 12.0
    return sum(found.stats.cache_hits.values()) == 1


@pytest.mark.parametrize("fault", [*FAULTS, *(OWNERS if ROOT else ())])
def test_what_others_could_have_written_is_not_loaded(kept, fault):
    make, message = {**FAULTS, **OWNERS}[fault]
    folder = make(kept)
    folder = folder if isinstance(folder, Path) else kept
    before = sorted(path.name for path in kept.parent.rglob("*"))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        assert not loads(folder)
        assert not loads(folder)
    assert [warning.category for warning in found] == [RuntimeWarning]  # one in a process
    text = str(found[0].message)
    assert message in text
    assert str(kept.parent) in text
    assert "set NUMBA_CACHE_DIR to a folder that only you can write to" in text
    assert sorted(path.name for path in kept.parent.rglob("*")) == before  # nothing is written there either


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
    with pytest.warns(RuntimeWarning, match="NUMBA_CACHE_DIR must be an absolute path. Received: 'cache'"):
        assert not loads("cache")


GOOD = {
    "as it was made": lambda folder: None,
    "through a link of one's own": behind_a_link,
    "below a folder with the sticky bit": lambda folder: move_below(folder, 0o1777),
    "read-only": lambda folder: each(folder, lambda path: path.chmod(0o444)),
}


@pytest.mark.parametrize("kind", GOOD)
def test_good_caches_are_used(kept, kind):
    folder = GOOD[kind](kept) or kept
    before = count(kept.parent)
    assert loads(folder)
    assert count(kept.parent) == before


def test_a_cache_of_roots_that_this_user_cannot_write_to(kept, monkeypatch):
    """As in a container whose image was built by root."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert loads(kept)


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_what_is_made_is_nobody_elses_whatever_the_umask(tmp_path, monkeypatch, umask):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "a" / "b"))
    before = os.umask(umask)
    try:
        assert not loads(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    made = [path.stat().st_mode for path in (tmp_path / "a").rglob("*")]
    assert len(made) == 4
    assert [mode & (stat.S_IWGRP | stat.S_IWOTH) for mode in made] == [0] * 4
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


def test_the_folders_that_are_tried(tmp_path, monkeypatch):
    source = tmp_path / "package" / "fill.py"
    (tmp_path / "package").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    below = "Library/Caches" if sys.platform == "darwin" else ".cache"
    own, home = tmp_path / "package" / "__pycache__", tmp_path / "home" / below / "fastinit"

    def tried():
        found = list(cache._folders(source))
        return [path if path.name == "__pycache__" else path.parent for path in found]

    assert tried() == [own, home]
    for relative in ("", "cache", "./x", "~/x"):  # a relative path counts as none
        monkeypatch.setenv("XDG_CACHE_HOME", relative)
        assert tried() == [own, home]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert tried() == [own, tmp_path / "xdg" / "fastinit"]
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "named"))
    assert tried() == [tmp_path / "named", own, tmp_path / "xdg" / "fastinit"]
    (tmp_path / "package").chmod(0o777)  # others could change the code too: the user's folder is taken, without a word
    assert tried() == [tmp_path / "named", tmp_path / "xdg" / "fastinit"]
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME")
    for home in (".", "home"):
        monkeypatch.setenv("HOME", home)
        assert tried() == []


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


PLACES = {
    "NUMBA_CACHE_DIR": lambda folder: {"NUMBA_CACHE_DIR": folder / "cache"},
    "XDG_CACHE_HOME": lambda folder: {"XDG_CACHE_HOME": folder},
}


@pytest.mark.parametrize("program", [fill, stats])
@pytest.mark.parametrize("mode", [0o777, 0o755 if ROOT else 0o777])
@pytest.mark.parametrize("place", ["NUMBA_CACHE_DIR", "XDG_CACHE_HOME"])
@pytest.mark.slow
def test_planted_pickles_do_not_run(stranger, tmp_path_factory, place, mode, program):
    """In processes, of both kinds of places: all may write there, or it is another's."""
    variables = {"NUMBA_CACHE_DIR": stranger / "cache"}
    if place == "XDG_CACHE_HOME":
        package = tmp_path_factory.mktemp("copy")
        shutil.copytree(
            Path(jit.__file__).parents[1], package / "fastinit", ignore=shutil.ignore_patterns("__pycache__")
        )
        (package / "fastinit" / "kernels" / "__pycache__").touch()  # no folder of the package's own
        for inner in ("sums", "nn"):
            (package / "fastinit" / "kernels" / inner / "__pycache__").touch()
        variables = {"XDG_CACHE_HOME": stranger / "cache", "NUMBA_CACHE_DIR": ""}
        variables |= {"PYTHONPATH": os.pathsep.join([str(package), str(processes.TESTS)])}
        for inner in list((stranger / "cache").iterdir()):  # wherever it is looked for
            for name in ("numba", "fastinit"):
                shutil.copytree(inner, stranger / "cache" / name / inner.name)
    (stranger / "cache").chmod(mode)
    if mode == 0o755:
        give_away(stranger / "cache")
    code, out, lines = program(stranger, **variables)
    assert (code, bool(out), ran(stranger)) == (0, True, False)
    lines = [line for line in lines if "arning" in line]
    assert len(lines) == 1
    assert str(stranger / "cache") in lines[0]


# --- Numba's private names ---


@pytest.mark.parametrize("name", _numba.FALLBACKS)
def test_a_missing_name_of_numba_gives_one_warning(kept, monkeypatch, name):
    assert _numba._exists(name)
    exists = _numba._exists
    monkeypatch.setattr(_numba, "_exists", lambda asked: asked != name and exists(asked))
    _numba._has.cache_clear()
    try:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            assert loads(kept) is ("reloader" in name)
            loads(kept)
        assert [str(warning.message) for warning in found] == [
            f"Numba {numba.__version__} has no {name}: {_numba.FALLBACKS[name]}"
        ]
    finally:
        _numba._has.cache_clear()


def test_a_missing_name_is_seen():
    assert not _numba._exists("numba.core.caching.NoSuchName")
    assert not _numba._exists("numba.no_such_module.x")


def test_an_exception_inside_leaves_numba_as_it_was():
    from numba.core import config

    before = dict(vars(config))
    with contextlib.suppress(ZeroDivisionError), _numba.compiler():
        1 / 0  # noqa: B018
    assert vars(config) == before
