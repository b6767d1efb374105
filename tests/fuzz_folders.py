"""Folders as strangers may supply them: right ones, with links, pipes, devices and changed documents laid over them."""

import functools
import os
import shutil
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fuzz_documents import FOLDER_PLAN, RIGHT, Document, Written, documents
from hypothesis import strategies as st

from fastinit import checkpoint

CODE = "import pathlib\npathlib.Path({marker!r}).write_text('this code was run')\nclass Ran: pass\n"
BASES = "empty", "one", "many", "staged", "moving", "hub", "pipeline", "config"
HEADERS = tuple(name for name in RIGHT if name.endswith(".safetensors"))
BELONGS = {  # what a name's documents are made of
    "model.safetensors": ("one model.safetensors",),
    "model.fp16.safetensors": ("one model.safetensors",),
    "adapter_model.safetensors": HEADERS,
    "model-00001-of-00003.safetensors": HEADERS,
    "model-00002-of-00003.safetensors": HEADERS,
    "model-00003-of-00003.safetensors": HEADERS,
    "model-00001-of-99999999.safetensors": HEADERS,
    "model-00001-of-00000.safetensors": HEADERS,
    f"model-{'9' * 30}-of-{'9' * 30}.safetensors": HEADERS,
    "a\nb\x1b[31m.safetensors": HEADERS,
    "a\udcff.safetensors": HEADERS,
    "model.safetensors.index.json": ("many model.safetensors.index.json",),
    "other.safetensors.index.json": ("many model.safetensors.index.json",),
    "fastinit.json": ("one fastinit.json", "many fastinit.json"),
    "model_index.json": ("pipeline",),
    "config.json": tuple(name for name in RIGHT if name.startswith("config ")),
    ".fastinit": (),
    ".fastinit/fastinit.json": ("many fastinit.json", "one fastinit.json"),
    ".fastinit/moving": ("pipeline",),
    ".fastinit/notes.json": ("pipeline",),
    ".fastinit/model.safetensors": HEADERS,
    ".fastinit/model-00001-of-00003.safetensors": HEADERS,
    ".fastinit/model-00002-of-00003.safetensors": HEADERS,
    ".fastinit/model-00003-of-00003.safetensors": HEADERS,
    ".fastinit/config.json": ("config llama",),
    ".fastinit/planted.py": ("pipeline",),
    ".fastinit/folder/planted": ("pipeline",),
    ".fastinit/.part-1-of-2": ("pipeline",),
    ".model.safetensors.0123456789abcdef.tmp": HEADERS,
    "unet/model.safetensors": HEADERS,
    "unet/config.json": ("config llama",),
    "vae/deep/model.safetensors": HEADERS,
    "refs/main": ("pipeline",),
    "refs": (),
    "snapshots": (),
    "snapshots/a": (),
    "snapshots/a/model.safetensors": HEADERS,
    "blobs/b": HEADERS,
    "pytorch_model.bin": ("pipeline",),
    ".numba_config.yaml": ("pipeline",),
}
KINDS = (
    "right", "right", "document", "document", "link inside", "link outside", "link to a file outside", "dangling",
    "loop", "pipe", "socket", "/dev/zero", "/dev/full", "folder", "full folder", "hard link", "hard link to a private",
    "empty", "pointer", "sparse", "garbage", "absolute path", "removed", "read-only",
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A name in a folder, and what lies there.

    Args:
        name: of `BELONGS`.
        kind: one of `KINDS`.
        document: of the kind "document".
    """

    name: str
    kind: str
    document: Document | Written | None = None


@dataclass(frozen=True)
class Hostile:
    """A folder: one of `BASES`, with entries laid over it."""

    base: str
    entries: tuple[Entry, ...] = ()

    def make(self, folder: Path, outside: Path) -> None:
        shutil.copytree(_bases() / self.base, folder, symlinks=True)
        marker = str(outside / "ran")
        for name in ("ran.py", "sitecustomize.py", "torch.py"):
            (folder / name).write_text(CODE.format(marker=marker))
        for entry in self.entries:
            try:
                _lay(folder, outside, entry)
            except (FileExistsError, NotADirectoryError, FileNotFoundError):  # a file where a folder should be
                continue


def entries() -> st.SearchStrategy[Entry]:
    def of_name(name):
        plain = st.builds(Entry, st.just(name), st.sampled_from([kind for kind in KINDS if kind != "document"]))
        if not BELONGS[name]:
            return plain
        return st.one_of(plain, st.builds(Entry, st.just(name), st.just("document"), documents(BELONGS[name])))

    return st.one_of(list(map(of_name, BELONGS)))


def folders(most: int = 6) -> st.SearchStrategy[Hostile]:
    return st.builds(Hostile, st.sampled_from(BASES), st.lists(entries(), max_size=most).map(tuple))


def files_of(base: str) -> list[str]:
    """The names of all files of a base."""
    folder = _bases() / base
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


# --- making them ---


def make_outside(folder: Path) -> Path:
    """What belongs to others: a private file, a checkpoint, a plan, an empty folder."""
    shutil.copytree(_bases() / "one", folder / "checkpoint")
    (folder / "empty").mkdir()
    (folder / "private").write_bytes(RIGHT_SHARD.data())
    (folder / "private").chmod(0o600)
    (folder / "notes").write_text("not yours")
    (folder / "plan.json").write_text(FOLDER_PLAN.to_json())
    os.utime(folder / "private", (10**9, 10**9))
    return folder


RIGHT_SHARD = Document("one model.safetensors")


@functools.cache
def _bases() -> Path:
    """The folder of right folders; removed with the process."""
    held = tempfile.TemporaryDirectory(prefix="fastinit-fuzz-")
    _held.append(held)
    place = Path(held.name)
    (place / "empty").mkdir()
    checkpoint.write(FOLDER_PLAN, place / "one", fsync=False)
    checkpoint.write(FOLDER_PLAN, place / "many", max_shard_bytes=500, fsync=False)
    for part in ("1/3", "2/3"):
        checkpoint.write(FOLDER_PLAN, place / "staged", max_shard_bytes=500, part=part, fsync=False)
    shutil.copytree(place / "many", place / "moving")
    (place / "moving/.fastinit").mkdir()
    for name in ("fastinit.json", "model-00002-of-00003.safetensors"):
        (place / "moving" / name).rename(place / "moving/.fastinit" / name)
    (place / "moving/.fastinit/moving").touch()
    shutil.copytree(place / "one", place / "hub/blobs")
    (place / "hub/refs").mkdir()
    (place / "hub/refs/main").write_text("a")
    (place / "hub/snapshots/a").mkdir(parents=True)
    for path in (place / "hub/blobs").iterdir():
        (place / "hub/snapshots/a" / path.name).symlink_to(f"../../blobs/{path.name}")
    shutil.copytree(place / "one", place / "pipeline/unet")
    shutil.copytree(place / "one", place / "pipeline/vae")
    (place / "pipeline/model_index.json").write_bytes(Document("pipeline").data())
    (place / "config").mkdir()
    (place / "config/config.json").write_bytes(Document("config gpt2").data())
    return place


_held: list[tempfile.TemporaryDirectory[str]] = []


def _lay(folder, outside, entry):
    path = folder / entry.name
    if any((folder / above).is_symlink() for above in Path(entry.name).parents):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    kinds = BELONGS.get(entry.name, HEADERS)
    right = entry.document or (Document(kinds[0]) if kinds else None)
    _remove(path)
    match entry.kind:
        case "right" | "document":
            path.mkdir() if right is None else path.write_bytes(right.data())
        case "link inside":
            path.symlink_to(folder / "model.safetensors")
        case "link outside":
            path.symlink_to(outside / ("checkpoint" if right is None else f"checkpoint/{path.name}"))
        case "link to a file outside":
            path.symlink_to(outside / "private")
        case "dangling":
            path.symlink_to(outside / "made")
        case "loop":
            path.symlink_to(path.name)
        case "pipe":
            os.mkfifo(path)
        case "socket":
            _make_socket(path)
        case "/dev/zero" | "/dev/full":
            path.symlink_to(entry.kind)
        case "folder":
            path.mkdir()
        case "full folder":
            (path / "below").mkdir(parents=True)
            (path / "below/file").write_text("mine")
        case "hard link":
            path.hardlink_to(outside / "notes")
        case "hard link to a private":
            path.hardlink_to(outside / "private")
        case "empty":
            path.touch()
        case "pointer":
            path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n")
        case "sparse":
            path.write_bytes(b"" if right is None else right.data())
            os.truncate(path, 1 << 40)
        case "garbage":
            path.write_bytes(bytes(range(256)) * 8)
        case "absolute path":
            path.write_text(str(outside / "checkpoint"))
        case "read-only":
            path.write_bytes(b"" if right is None else right.data())
            path.chmod(0o400)


def _remove(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _make_socket(path):
    """Names of sockets are short: bind it by a name in the current folder."""
    with socket.socket(socket.AF_UNIX) as made:
        here = os.open(".", os.O_RDONLY)
        try:
            os.chdir(path.parent)
            made.bind(path.name[:90])
        finally:
            os.fchdir(here)
            os.close(here)
