"""Folders into which a stranger has put something: nothing outside is written, and nothing but the job's own files is
moved, replaced or copied. What is refused is refused in one line, before anything has changed."""

import contextlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from processes import command
from safetensors.numpy import load_file, save_file

import fastinit as fi
from fastinit import checkpoint, sources
from fastinit._io import files
from fastinit.checkpoint import _folder

PLAN = fi.Plan({f"w{i}": ((16, 16), "float32", "normal") for i in range(4)}, seed=3)  # 4 files
CONFIG = {"config.json": b'{"a": 1}'}
FIRST, SECOND = "model-00001-of-00004.safetensors", "model-00002-of-00004.safetensors"
INDEX = "model.safetensors.index.json"


def write(folder, **how):
    return checkpoint.write(PLAN, folder, **{"max_shard_bytes": 1024, "threads": 1, "extra_files": CONFIG} | how)


def parts(folder, **how):
    """All of a checkpoint in its hidden folder, to be finished."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_folder.Folder, "is_complete", lambda *_: False)
        assert not write(folder, part="1/1", **how).finished


def everything(folder):
    """All names below a folder: contents, targets of links, modes."""
    found = {}
    for path in sorted(folder.rglob("*")):
        what = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(folder))] = what, stat.S_IMODE(path.lstat().st_mode)
    return found


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def sound(tmp_path):
    """A finished checkpoint, and a folder elsewhere."""
    write(tmp_path / "out")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "tokenizer.json").write_text("mine")
    return tmp_path / "out"


def trained(path):
    """Other values under the same header."""
    tensors = {name: array + 1 for name, array in load_file(path).items()}
    data = path.read_bytes()
    save_file(tensors, path.with_name("saved"))
    values = path.with_name("saved").read_bytes()[-1024:]
    path.with_name("saved").unlink()
    path.write_bytes(data[:-1024] + values)
    assert path.read_bytes() != data
    return path.read_bytes()


ACTIONS = {
    "write": write,
    "overwrite": lambda folder: write(folder, overwrite=True),
    "overwrite another": lambda folder: write(folder, overwrite=True, seed=5),
    "part": lambda folder: write(folder, part="1/2"),
    "verify": checkpoint.verify,
    "repair": lambda folder: checkpoint.verify(folder, repair=True),
    "finalize": checkpoint.finalize,
}


@contextlib.contextmanager
def ending(seconds=20):
    """What waits for another process for ever is interrupted."""

    def stop(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def refused(folder, action, message, error=(OSError, ValueError)):
    before = everything(folder.parent)
    with pytest.raises(error, match=message) as raised:
        action(folder)
    assert "\n" not in str(raised.value)
    assert everything(folder.parent) == before


# --- the hidden folder ---

HIDDEN = {
    "a link to a folder": lambda path: path.symlink_to("../elsewhere"),
    "a dangling link": lambda path: path.symlink_to("../nowhere"),
    "a link to a file": lambda path: path.symlink_to("../elsewhere/tokenizer.json"),
    "a link to itself": lambda path: path.symlink_to(".fastinit"),
    "a pipe": os.mkfifo,
    "a file": lambda path: path.write_text("mine"),
}


@pytest.mark.parametrize("what", HIDDEN)
@pytest.mark.parametrize("action", ACTIONS)
def test_a_hidden_folder_that_is_none(sound, what, action):
    parts(sound.parent / "other", seed=7)  # as much as a run would have there
    shutil.copytree(sound.parent / "other" / ".fastinit", sound.parent / "elsewhere", dirs_exist_ok=True)
    (sound.parent / "elsewhere" / "moving").touch()
    HIDDEN[what](sound / ".fastinit")
    refused(sound, ACTIONS[action], r"out/\.fastinit must be a folder, and no link to one", NotADirectoryError)


def test_a_link_that_comes_while_a_run_is_at_work(tmp_path, monkeypatch):
    out, elsewhere, real = tmp_path / "out", tmp_path / "elsewhere", _folder.Folder.is_complete

    def swapped(self, job):
        complete = real(self, job)
        (out / ".fastinit").rename(elsewhere)
        (out / ".fastinit").symlink_to(elsewhere)
        return complete

    monkeypatch.setattr(_folder.Folder, "is_complete", swapped)
    with pytest.raises(NotADirectoryError, match=r"\.fastinit must be a folder"):
        write(out)
    assert sorted(path.name for path in out.iterdir()) == [".fastinit"]
    assert len(contents(elsewhere)) == 4 + 3


ODD = {
    "a link": lambda path: path.symlink_to("../../elsewhere/tokenizer.json"),
    "a dangling link": lambda path: path.symlink_to("../../elsewhere/new"),
    "a named pipe": os.mkfifo,
    "a folder": Path.mkdir,
}


@pytest.mark.parametrize("what", ODD)
@pytest.mark.parametrize("name", ["fastinit.json", "moving", "notes.json"])
def test_what_runs_read_in_the_hidden_folder(sound, what, name):
    (sound / ".fastinit").mkdir()
    ODD[what](sound / ".fastinit" / name)
    for action in ACTIONS.values():
        refused(sound, action, rf"\.fastinit/{name}")


@pytest.mark.parametrize("what", [kind for kind in ODD if kind != "a folder"])
def test_a_lock_is_a_file(sound, what):
    parts(sound, seed=7, overwrite=True)
    lock = sound / ".fastinit" / ".part-1-of-2"
    ODD[what](lock)
    elsewhere = everything(sound.parent / "elsewhere")
    with pytest.raises((OSError, ValueError), match=r"\.part-1-of-2"):
        write(sound, seed=7, overwrite=True, part="1/2")
    assert everything(sound.parent / "elsewhere") == elsewhere


# --- names that are not the job's ---

NAMES = ["tokenizer.json", "modeling_x.py", "model-00005-of-00004.safetensors", "model.safetensors", INDEX, "sub"]


@pytest.mark.parametrize("finish", [checkpoint.finalize, write, lambda folder: write(folder, overwrite=True)])
def test_only_names_of_the_job_are_moved(tmp_path, finish):
    write(tmp_path / "expected")
    out = tmp_path / "out"
    parts(out)
    (out / "tokenizer.json").write_text("mine")
    for name in NAMES[:-1]:
        (out / ".fastinit" / name).write_text("planted")
    (out / ".fastinit" / "sub").mkdir()
    (out / ".fastinit" / "sub" / "x.py").write_text("planted")
    finish(out)
    assert contents(out) == contents(tmp_path / "expected") | {"tokenizer.json": b"mine"}


@pytest.mark.parametrize("name", ["config.json", FIRST])
@pytest.mark.parametrize("how", ["link", "hard link"])
def test_links_in_place_of_what_was_written(tmp_path, name, how):
    """Their bytes are right, but they are somebody's file."""
    write(tmp_path / "expected")
    out, foreign = tmp_path / "out", tmp_path / "foreign"
    parts(out)
    (out / ".fastinit" / name).rename(foreign)
    (out / ".fastinit" / name).symlink_to(foreign) if how == "link" else os.link(foreign, out / ".fastinit" / name)
    data = foreign.read_bytes()
    refused(out, checkpoint.finalize, rf"1 of 4 files are not written yet, the first of them {name}", FileNotFoundError)
    write(out)
    assert contents(out) == contents(tmp_path / "expected")
    assert all(not path.is_symlink() and path.stat().st_nlink == 1 for path in out.iterdir())
    assert foreign.read_bytes() == data


def test_notes_of_a_stranger(tmp_path):
    """Names that lead elsewhere, and notes that are none, count for nothing."""
    write(tmp_path / "expected", extra_files={})
    for number, notes in enumerate(
        [
            {"extra": dict.fromkeys(["../x", "a/b", "/etc/x", "", ".", "..", "fastinit.json", FIRST, "\0"], "0" * 64)},
            {"extra": ["x"], "replaced": "x"},
            {"extra": {"x": 3}, "replaced": {"fastinit.json": None, FIRST: {}}},
            [],
            3,
        ]
    ):
        out = tmp_path / str(number)
        parts(out, extra_files={})
        (out / ".fastinit" / "notes.json").write_text(json.dumps(notes))
        if number == 2:
            (out / ".fastinit" / "x").write_text("planted")
            refused(out, checkpoint.finalize, "the first of them x", FileNotFoundError)
            continue
        checkpoint.finalize(out)
        assert contents(out) == contents(tmp_path / "expected")


def test_extra_files_of_any_part_are_moved(tmp_path):
    for part, extra in (("1/3", {}), ("2/3", CONFIG), ("3/3", {"tokenizer.json": b"t"})):
        write(tmp_path, part=part, extra_files=extra)
    assert (contents(tmp_path)["config.json"], contents(tmp_path)["tokenizer.json"]) == (b'{"a": 1}', b"t")


@pytest.mark.parametrize(
    "name",
    ["../x", "a/b", "/x", "", ".", "..", ".fastinit", ".x", "fastinit.json", "FastInit.json", "moving", "notes.json",
     "model.safetensors", FIRST, "model-00009-of-00009.safetensors", INDEX, "a\0b", "\ud800", "x" * 250, 3, b"x"],
)  # fmt: skip
def test_names_of_extra_files(tmp_path, name):
    with pytest.raises(ValueError, match=r"a name in extra_files must be a plain file name"):
        write(tmp_path / "out", extra_files={name: b""})
    assert not (tmp_path / "out").exists()


def test_extra_files_are_bytes(tmp_path):
    with pytest.raises(TypeError, match=r"extra_files\['a'\] must be bytes. Received: str"):
        write(tmp_path / "out", extra_files={"a": "text"})
    assert not (tmp_path / "out").exists()


# --- repairs ---


def linked(how, path, target):
    """Move a file elsewhere, and leave a link or a second name."""
    path.rename(target)
    path.symlink_to(target) if how == "link" else os.link(target, path)


@pytest.mark.parametrize("how", ["link", "hard link"])
@pytest.mark.parametrize("damage", ["values", "cut off", "longer", "header", "another layout"])
def test_a_repair_does_not_write_into_a_linked_file(sound, how, damage):
    expected, path, foreign = contents(sound), sound / SECOND, sound.parent / "elsewhere" / "blob"
    data = bytearray(path.read_bytes())
    data[-5] ^= 9
    text = {
        "values": bytes(data),
        "cut off": bytes(data[:-100]),
        "longer": bytes(data) + b"more",
        "header": data[:20] + b"?" + data[21:],
        "another layout": data,
    }[damage]
    path.write_bytes(text)
    if damage == "another layout":
        save_file(load_file(path), path, metadata={"by": "another program"})
    linked(how, path, foreign)
    before = foreign.read_bytes()
    assert checkpoint.verify(sound).problems
    assert checkpoint.verify(sound, repair=True).repaired
    assert foreign.read_bytes() == before
    assert not path.is_symlink()
    assert path.stat().st_nlink == 1
    assert checkpoint.verify(sound).problems == ()
    if damage != "another layout":
        assert contents(sound) == expected


def test_a_repair_in_the_hubs_cache_leaves_the_blobs(sound, tmp_path):
    repository = tmp_path / "models--a--b"
    place, blobs = repository / "snapshots" / "0123", repository / "blobs"
    shutil.copytree(sound, place)
    blobs.mkdir()
    for path in place.iterdir():
        path.rename(blobs / path.name)
        path.symlink_to(Path("../../blobs") / path.name)
    assert checkpoint.verify(repository).problems == ()
    trained(blobs / FIRST)
    before = everything(blobs)
    assert checkpoint.verify(repository, repair=True).differing == ("w0",)
    assert everything(blobs) == before
    assert {path.name for path in place.iterdir() if not path.is_symlink()} == {FIRST}
    assert contents(place) == contents(sound)


def test_a_repair_replaces_dangling_links_and_pipes(sound):
    expected = contents(sound)
    for path, plant in zip(sorted(sound.glob("model-*")), (*ODD.values(), None), strict=False):
        path.unlink()
        if plant is not Path.mkdir and plant is not None:
            plant(path)
    (sound / INDEX).unlink()
    (sound / INDEX).symlink_to("../elsewhere/index")
    found = checkpoint.verify(sound)
    assert any(SECOND in problem for problem in found.problems)
    assert checkpoint.verify(sound, repair=True).repaired
    assert contents(sound) == expected
    assert not any(path.is_symlink() for path in sound.iterdir())
    assert contents(sound.parent / "elsewhere") == {"tokenizer.json": b"mine"}


def test_a_repair_does_not_remove_what_an_index_names(sound):
    """It may name any file of the folder."""
    save_file({"lora": np.ones(3, np.float32)}, sound / "adapter.safetensors")
    (sound / "tokenizer.json").write_text("mine")
    (sound / "big.json").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    expected = contents(sound)
    for path in sound.glob("model-*"):
        path.unlink()
    save_file({"w0": np.ones((16, 16), np.float32)}, sound / "x.safetensors")
    others = {"a": "tokenizer.json", "w1": "config.json", "lora": "adapter.safetensors", "w2": "big.json"}
    (sound / INDEX).write_text(json.dumps({"weight_map": others | {"w0": "x.safetensors"}}))
    assert checkpoint.verify(sound, repair=True).repaired
    assert contents(sound) == expected


def test_a_repair_finds_a_folder_before_it_changes_anything(sound):
    trained(sound / FIRST)
    (sound / SECOND).unlink()
    (sound / SECOND).mkdir()
    refused(sound, ACTIONS["repair"], rf"Is a directory: '.*{SECOND}'", IsADirectoryError)


def test_a_reader_keeps_the_bytes_that_it_has_mapped(sound):
    trained(sound / FIRST)
    mapped = np.memmap(sound / FIRST, np.uint8, "r")
    before = mapped.tobytes()
    checkpoint.verify(sound, repair=True)
    assert mapped.tobytes() == before != (sound / FIRST).read_bytes()


@pytest.mark.parametrize("where", ["", ".fastinit"])
@pytest.mark.parametrize("name", ["fastinit.json", INDEX, "config.json", FIRST])
def test_pipes_and_devices_do_not_hold_a_command_up(sound, where, name):
    folder = sound / where
    for plant in (os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to(name)):
        folder.mkdir(exist_ok=True)
        (folder / name).unlink(missing_ok=True)
        plant(folder / name)
        for arguments in (["verify", sound], ["stats", sound], ["plan", sound], ["finalize", sound]):
            with ending(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                done = command(*arguments)
            said = [line for line in done.stderr.splitlines() if not line.endswith(" bytes")]
            assert len(said) <= 1, said
            assert done.returncode == 0 or (done.returncode, bool(said or done.stdout)) == (1, True)


# --- files in place that are not the job's ---


@pytest.mark.parametrize("marker", [None, b"", b'{"replaced": {}}'])
@pytest.mark.parametrize("manifest", [True, False])
@pytest.mark.parametrize("action", [write, lambda folder: write(folder, part="1/1"), checkpoint.finalize])
def test_trained_weights_are_not_replaced_by_what_a_stranger_has_put_there(sound, marker, manifest, action):
    """A whole job that seems to be being moved: nothing in it says that these weights may go."""
    trained(sound / FIRST)
    if not manifest:
        (sound / "fastinit.json").unlink()
    parts(sound.parent / "other")
    shutil.copytree(sound.parent / "other" / ".fastinit", sound / ".fastinit")
    if marker is not None:
        (sound / ".fastinit" / "moving").write_bytes(marker)
    before = contents(sound)
    with pytest.raises(FileExistsError, match=rf"{re.escape(FIRST)} exists and is not this plan's; --overwrite"):
        action(sound)
    assert contents(sound) == before
    write(sound, overwrite=True)
    assert checkpoint.verify(sound).problems == ()


@pytest.mark.parametrize("action", [write, checkpoint.finalize])
def test_weights_that_came_while_files_were_moved_are_kept(tmp_path, action, monkeypatch):
    """An overwrite was stopped; it may be gone on with, unless the old files were replaced since."""
    out, moved = tmp_path / "out", []
    write(out, seed=9)

    def move(source, target):
        moved.append(target)
        if len(moved) > 2:
            raise KeyboardInterrupt
        source.replace(target)

    with monkeypatch.context() as patch:
        patch.setattr(_folder, "_move", move)
        with pytest.raises(KeyboardInterrupt):
            write(out, overwrite=True)
    shutil.copytree(out, tmp_path / "undisturbed")
    action(tmp_path / "undisturbed")
    assert checkpoint.verify(tmp_path / "undisturbed").problems == ()
    name = max(path.name for path in out.glob("model-*"))
    saved = trained(out / name)
    with pytest.raises(FileExistsError, match=f"{name} exists and is not this plan's"):
        action(out)
    assert (out / name).read_bytes() == saved


def test_finalize_replaces_what_the_parts_were_to_replace(tmp_path):
    out = tmp_path / "out"
    write(out, seed=9, extra_files={"config.json": b"{}"})
    shutil.copytree(out, tmp_path / "without")
    parts(out, overwrite=True)
    checkpoint.finalize(out)
    write(tmp_path / "expected")
    assert contents(out) == contents(tmp_path / "expected")
    parts(tmp_path / "other")
    shutil.copytree(tmp_path / "other" / ".fastinit", tmp_path / "without" / ".fastinit")
    refused(tmp_path / "without", checkpoint.finalize, "holds another plan", FileExistsError)


# --- other users ---


@contextlib.contextmanager
def another_user(user=12345):
    """Be another user, if this is root; the kernel's own checks then."""
    os.setegid(user)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def shared(monkeypatch):
    """A checkpoint in a folder as /tmp, of one user, and a function that acts as another."""
    with tempfile.TemporaryDirectory() as name:  # pytest's own is closed to others
        folder = Path(name) / "shared"
        Path(name).chmod(0o755)
        write(folder)
        folder.chmod(0o1777)

        def act(action):
            if os.geteuid():
                with monkeypatch.context() as patch:
                    patch.setattr(files, "is_protected", lambda path: path.name in contents(folder))
                    return action(folder)
            with another_user():
                return action(folder)

        yield folder, act


def test_files_of_another_user_in_a_folder_as_tmp(shared):
    folder, act = shared
    before = contents(folder)
    with pytest.raises(PermissionError, match=r"Operation not permitted: '.*/shared/\w+"):
        act(ACTIONS["overwrite another"])
    assert contents(folder) == before
    shutil.rmtree(folder / ".fastinit", ignore_errors=True)
    trained(folder / FIRST)
    (folder / SECOND).unlink()
    before = contents(folder)
    with pytest.raises(PermissionError, match=rf"Operation not permitted: '.*/{FIRST}'"):
        act(ACTIONS["repair"])
    assert contents(folder) == before


def test_one_file_of_another_user_that_came_while_a_run_was_at_work(shared, monkeypatch):
    """It is found before the first file is moved."""
    folder, act = shared
    if os.geteuid() == 0:
        for path in folder.iterdir():
            os.chown(path, 12345, 12345)
    before, came, real = contents(folder), [], _folder.Folder.is_complete
    monkeypatch.setattr(_folder.Folder, "is_complete", lambda *how: came.append(SECOND) or real(*how))
    monkeypatch.setattr(files, "is_protected", lambda path: path.name in came)
    for part in (None, "1/1"):
        with pytest.raises(PermissionError, match=rf"Operation not permitted: '.*/{SECOND}'"):
            act_as(act, lambda folder, part=part: write(folder, seed=5, overwrite=True, part=part), folder)
        assert contents(folder) == before
        came.clear()


def act_as(act, action, folder):
    """As another user if this is root, whom no file is closed to."""
    return action(folder) if os.geteuid() else act(action)


def test_a_hidden_folder_of_another_user(shared, monkeypatch):
    folder, act = shared
    (folder / ".fastinit").mkdir()
    (folder / ".fastinit").chmod(0o777)
    if os.geteuid() == 0:
        os.chown(folder / ".fastinit", 54321, 54321)
    before, real = everything(folder), files.is_protected
    monkeypatch.setattr(files, "is_protected", lambda path: real(path) or (os.geteuid() and path.name == ".fastinit"))
    for action in ACTIONS.values():
        with pytest.raises(PermissionError, match=r"\.fastinit is another user's"):
            act_as(act, action, folder)
    assert everything(folder) == before
    monkeypatch.setattr(files, "is_protected", real)
    folder.chmod(0o777)  # a team's
    act(write)


def test_a_file_that_must_not_be_changed(sound, monkeypatch):
    monkeypatch.setattr(files, "_is_immutable", lambda path: path.name == SECOND)
    before = contents(sound)
    with pytest.raises(PermissionError, match=SECOND):
        write(sound, seed=5, overwrite=True)
    assert contents(sound) == before
    assert not (sound / ".fastinit").exists()  # it is found before hours of work


def test_a_file_that_is_a_mount_point(sound, monkeypatch):
    mounted = os.fsencode(sound.resolve() / SECOND)
    monkeypatch.setattr(files, "_mount_points", lambda: frozenset([mounted]))
    before = contents(sound)
    with pytest.raises(OSError, match="busy: it is a mount point"):
        write(sound, seed=5, overwrite=True)
    assert contents(sound) == before
    monkeypatch.undo()
    assert b"/" in files._mount_points() or sys.platform != "linux"


def test_a_snapshot_that_is_a_link_to_a_folder_elsewhere(sound):
    """A repair would write there; a config there may be private."""
    before = everything(sound)
    for link in "snapshots/abc", "snapshots":
        hub = sound.parent / f"models--{len(link)}"
        for name in "refs", "blobs", "snapshots":
            (hub / name).mkdir(parents=True)
        (hub / "refs/main").write_text("abc")
        if link == "snapshots":
            (hub / link).rmdir()
            (sound.parent / "abc").symlink_to(sound)
        (hub / link).symlink_to(sound if "/" in link else sound.parent)
        for arguments in (["verify", hub, "--repair"], ["stats", hub], ["write", hub, "--out", sound.parent / "new"]):
            done = command(*arguments)
            assert (done.returncode, "refs/main names none of the snapshots" in done.stderr) == (1, True)
    assert everything(sound) == before
    assert not (sound.parent / "new").exists()


# --- reports ---


@pytest.mark.parametrize("report", [FIRST, INDEX, "fastinit.json", "config.json", "code.py"])
@pytest.mark.parametrize("how", ["", "hard link"])
def test_a_report_does_not_replace_what_was_read(sound, report, how):
    (sound / "code.py").write_text("import torch\n")
    path = sound / report
    if how:
        path = sound.parent / "report.html"
        os.link(sound / report, path)
    before = everything(sound.parent)
    for source in (sound, sound / FIRST if report == FIRST else sound / INDEX):
        done = command("stats", source, "--html", path)
        assert (done.returncode, done.stdout) == (1, "")
        assert "a report must replace nothing but a page or a picture" in done.stderr
        assert everything(sound.parent) == before


def test_a_report_does_not_replace_the_plan_or_the_other_report(sound, tmp_path):
    plan = tmp_path / "plan.json"
    plan.write_text(PLAN.to_json())
    done = command("stats", sound, "--plan", plan, "--html", plan)
    assert (done.returncode, plan.read_text()) == (1, PLAN.to_json())
    done = command("probe", "--sizes", "3,4,2", "--plot", tmp_path / "a.png", "--html", tmp_path / "x" / ".." / "a.png")
    assert done.returncode == 1
    (tmp_path / "x").mkdir()
    done = command("probe", "--sizes", "3,4,2", "--plot", tmp_path / "a.png", "--html", tmp_path / "x" / ".." / "a.png")
    assert (done.returncode, "must be two files" in done.stderr) == (1, True)
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize("target", ["elsewhere/tokenizer.json", "elsewhere/new"])
def test_a_report_takes_the_place_of_a_link(sound, target):
    page = sound.parent / "page.html"
    page.symlink_to(target)
    before = everything(sound.parent / "elsewhere")
    assert command("probe", "--sizes", "3,4,2", "--html", page).returncode == 0
    assert everything(sound.parent / "elsewhere") == before
    assert not page.is_symlink()
    assert page.read_text().startswith("<!DOCTYPE html>")


def test_a_report_through_a_link_to_a_device_and_to_a_pipe_that_nobody_reads(tmp_path):
    pipe, page = tmp_path / "pipe", tmp_path / "page.html"
    os.mkfifo(pipe)
    probe = ["probe", "--sizes", "3,4,2", "--html"]
    with ending():
        done = command(*probe, pipe)
    assert (done.returncode, "No such device or address" in done.stderr) == (1, True)
    page.symlink_to(pipe)
    with ending():
        assert command(*probe, page).returncode == 0
    assert page.read_text().startswith("<!DOCTYPE html>")
    done = subprocess.run(
        [sys.executable, "-m", "fastinit.cli", *probe, "/dev/stdout"], capture_output=True, check=True
    )
    assert done.stdout.startswith(b"<!DOCTYPE html>")
    assert Path("/dev/stdout").is_symlink()


# --- rights ---


def modes(folder):
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}


@contextlib.contextmanager
def umask(mask):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextlib.contextmanager
def watched(monkeypatch):
    """The rights of every file at the moment at which it is open and empty, by the name that it will have."""
    found, create = {}, files.create

    def creating(path, *arguments):
        descriptor = create(path, *arguments)
        found[path.name[1:].rsplit(".", 2)[0]] = stat.S_IMODE(os.fstat(descriptor).st_mode)
        return descriptor

    with monkeypatch.context() as patch:
        patch.setattr(files, "create", creating)
        yield found


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o666, 0o400])
def test_a_copied_config_gives_no_new_rights(tmp_path, monkeypatch, mask, mode):
    source = tmp_path / "config.json"
    source.write_text('{"a": 1}')
    source.chmod(mode)
    for dtype in (None, "bfloat16"):
        extra = sources.Source(PLAN, source, dtype).extra_files()
        for out, part in ((tmp_path / f"{dtype}", None), (tmp_path / f"{dtype} part", "1/2")):
            with umask(mask), watched(monkeypatch) as seen:
                write(out, extra_files=extra, part=part)
            assert modes(out)["config.json"] == seen["config.json"] == mode & ~mask
            if part:
                write(out, extra_files={}, part="2/2")
                assert modes(out)["config.json"] == mode & ~mask
            assert modes(out)[FIRST] == 0o666 & ~mask


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o660, 0o666])
def test_a_file_that_is_replaced_gives_no_new_rights(sound, monkeypatch, mode):
    with umask(0o022):
        for path in sound.iterdir():
            path.chmod(mode)
        with watched(monkeypatch) as seen:
            write(sound, seed=5, overwrite=True, extra_files={"config.json": b"{}"})
        seen = {name: found for name, found in seen.items() if name in contents(sound)}
        assert set(seen.values()) == set(modes(sound).values()) == {mode & ~0o022}
        trained(sound / FIRST)
        (sound / FIRST).chmod(mode)
        (sound / SECOND).write_bytes(b"broken")
        (sound / INDEX).write_bytes(b"{}")
        with watched(monkeypatch) as seen:
            checkpoint.verify(sound, repair=True)
        assert set(seen) == {FIRST, SECOND, INDEX}
        assert set(seen.values()) == set(modes(sound).values()) == {mode & ~0o022}
        page = sound.parent / "page.html"
        page.write_text("<!DOCTYPE html>")
        page.chmod(mode)
        assert command("probe", "--sizes", "3,4,2", "--html", page).returncode == 0
        assert stat.S_IMODE(page.stat().st_mode) == mode & ~0o022


def test_rights_of_a_group_do_not_go_to_another(sound, monkeypatch):
    with umask(0o002):
        for mode, of_another in ((0o660, 0o600), (0o664, 0o644), (0o640, 0o600)):
            for path in sound.iterdir():
                path.chmod(mode)
            write(sound, seed=5 + mode, overwrite=True, extra_files={"config.json": b"1"})
            assert set(modes(sound).values()) == {mode & ~0o002}
            with monkeypatch.context() as patch:
                patch.setattr(files, "status_of", of_another_group)
                write(sound, seed=6 + mode, overwrite=True, extra_files={"config.json": b"2"})
            assert set(modes(sound).values()) == {of_another & ~0o002}


def of_another_group(path):
    """A file's status, as one of a group has it to which the user does not belong."""
    if not path.exists():
        return None
    status = list(path.stat())
    status[stat.ST_GID] += 1
    return os.stat_result(status)


def test_a_folder_of_a_team(tmp_path):
    tmp_path.chmod(0o2775)
    with umask(0o002):
        write(tmp_path / "out")
    assert set(modes(tmp_path / "out").values()) == {0o664}
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o2775


# --- configs that lead elsewhere ---


@pytest.fixture
def source(tmp_path):
    """A folder with weights, and a secret beside it."""
    (tmp_path / "secret.json").write_text('{"auths": "secret"}')
    folder = tmp_path / "source"
    folder.mkdir()
    save_file({"w": np.zeros((4, 4), np.float32)}, folder / "model.safetensors")
    return folder


def taken(source, folder, *options):
    done = command("write", source, "--scheme", "normal", "--out", folder, "--json", *options)
    return done.returncode, done.stderr, contents(folder) if folder.exists() else {}


@pytest.mark.parametrize("link", ["../secret.json", "inner/config.json", "other"])
def test_a_config_that_leads_out_of_its_source_is_not_copied(source, tmp_path, link):
    (source / "config.json").symlink_to(link)
    (source / "inner").symlink_to(tmp_path / "private")
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "config.json").write_text('{"b": 2}')
    (source / "other").symlink_to("../secret.json")
    for given in (source, source / "model.safetensors"):
        code, error, found = taken(given, tmp_path / "out")
        assert (code, found) == (1, {})
        assert re.fullmatch(r"fastinit: .*config\.json leads out of .*--config\n", error)
    assert not (tmp_path / "out").exists()
    code, _, found = taken(source, tmp_path / "out", "--config", source / "config.json")
    assert (code, found["config.json"]) == (0, (source / "config.json").read_bytes())
    assert command("plan", source, "--scheme", "normal").returncode == 0


def test_a_config_that_is_a_link_inside_of_its_source(source, tmp_path):
    (source / "inner").mkdir()
    (source / "inner" / "config.json").write_text('{"b": 2}')
    (source / "config.json").symlink_to("inner/config.json")
    (tmp_path / "given").symlink_to(source)
    code, _, found = taken(tmp_path / "given", tmp_path / "out")
    assert (code, found["config.json"]) == (0, b'{"b": 2}')


@pytest.mark.parametrize("leads_out", [False, True])
def test_a_config_in_the_hubs_cache(source, tmp_path, leads_out):
    repository = tmp_path / "models--a--b"
    (repository / "snapshots").mkdir(parents=True)
    (repository / "blobs").mkdir()
    place = source.rename(repository / "snapshots" / "0123")
    if leads_out:
        (repository / "blobs" / "4567").symlink_to(tmp_path / "secret.json")
    else:
        (repository / "blobs" / "4567").write_text('{"b": 2}')
    (place / "config.json").symlink_to("../../blobs/4567")
    for given in (repository, place, place / "model.safetensors"):
        code, _, found = taken(given, tmp_path / "out")
        assert code == leads_out
        assert found.get("config.json") == (None if leads_out else b'{"b": 2}')


# --- what killed runs have left ---


def test_only_names_of_our_own_are_cleaned_up(sound):
    kept = {
        f".{FIRST}.0123.tmp": "short", f".{FIRST}.0123456789ABCDEF.tmp": "upper", f".{FIRST}.0123456789abcdeg.tmp": "g",
        f"{FIRST}.0123456789abcdef.tmp": "no dot", f".{FIRST}.0123456789abcdef.tmp.txt": "longer",
        f".x{FIRST}.0123456789abcdef.tmp": "another", f".{FIRST}.x.tmp": "x",
    }  # fmt: skip
    for name, text in kept.items():
        (sound / name).write_text(text)
    (sound / f".{FIRST}.aaaaaaaaaaaaaaaa.tmp").mkdir()
    (sound / f".{FIRST}.bbbbbbbbbbbbbbbb.tmp").symlink_to("../elsewhere/tokenizer.json")
    (sound / f".{FIRST}.cccccccccccccccc.tmp").write_text("ours")
    trained(sound / FIRST)
    checkpoint.verify(sound, repair=True)
    found = {
        path.name for path in sound.iterdir() if path.name not in contents(sound.parent / "out") or "tmp" in path.name
    }
    assert found == {*kept, f".{FIRST}.aaaaaaaaaaaaaaaa.tmp"}
    assert contents(sound.parent / "elsewhere") == {"tokenizer.json": b"mine"}
