"""Check what a release needs, and print what is left to do by hand.

    python scripts/release.py               all checks; needs git, and `pip install build twine`
    python scripts/release.py --build DIR   build the wheel and the sdist into DIR and check these alone, as CI does

The exit code is 1 if a check fails. Nothing is changed but DIR and `dist/`, which must not be there.
"""

from __future__ import annotations

import argparse
import email
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NAME, FOLDER = "fastinit-weights", "fastinit_weights"
# What pins a promise, and what the changelog must say of a version that changes a pinned value.
GOLDEN = {"tests/golden.json": "Stream version", "tests/golden_training.json": "Training bits"}
BY_HAND = """Left to do by hand, in this order:
  1. .ci/run and .ci/torch on this commit: both end in "done".
  2. The workflows are green on this commit, on macOS too.
  3. docs/results.json and the README's figures are of this version (python -m bench.report).
  4. git tag -s v{version} && git push origin v{version}
     The workflow "release" builds, checks, and waits for the approval of its environment `pypi`.
  5. In a fresh environment: pip install {name}=={version} && fastinit --version
  6. A GitHub release of the tag, with this version's part of CHANGELOG.md.
  7. __version__ of the next version, and its heading "## X.Y.Z (unreleased)"."""


def version_of(root: Path) -> str:
    """The version in `fastinit/__init__.py`."""
    return re.findall(r'^__version__ = "(.*)"$', (root / "fastinit" / "__init__.py").read_text(), re.MULTILINE)[0]


def changes_of(root: Path, version: str) -> tuple[str, str]:
    """The heading of a version in the changelog, which must be the first, and the text below it; empty if it is not."""
    found = re.search(r"^## (.*)\n([\s\S]*?)(?=^## |\Z)", (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    return (found[1], found[2]) if found and found[1].split()[:1] == [version] else ("", "")


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


# --- checks: what is wrong, one text for each fault ---


def check_version(root: Path) -> Iterator[str]:
    version = version_of(root)
    if not re.fullmatch(r"\d+\.\d+\.\d+(rc\d+)?", version):
        yield f"__version__ must be X.Y.Z or X.Y.ZrcN. Received: {version!r}"
    if git(root, "tag", "--list", f"v{version}"):
        yield f"the tag v{version} is there already: choose the next version"


def check_texts(root: Path) -> Iterator[str]:
    """The changelog and the citation name the version and one date."""
    version = version_of(root)
    heading, _ = changes_of(root, version)
    dated = re.fullmatch(rf"{re.escape(version)} \((\d{{4}}-\d\d-\d\d)\)", heading)
    if not dated:
        yield f'CHANGELOG.md must begin with "## {version} (YYYY-MM-DD)". Received: {heading!r}'
    citation = dict(re.findall(r"^([\w-]+): (\S+)$", (root / "CITATION.cff").read_text(), re.MULTILINE))
    if citation.get("version") != version:
        yield f"CITATION.cff must have version: {version}. Received: {citation.get('version')!r}"
    if dated and citation.get("date-released") != dated[1]:
        yield f"CITATION.cff must have date-released: {dated[1]}. Received: {citation.get('date-released')!r}"


def check_tree(root: Path) -> Iterator[str]:
    if changed := git(root, "status", "--porcelain"):
        yield f"the tree must be clean. Received: {', '.join(changed.split(chr(10)))}"


def check_golden(root: Path) -> Iterator[str]:
    """No pinned value of the last release is changed or removed, or the changelog says so; new ones may be added."""
    version = version_of(root)
    tags = git(root, "tag", "--list", "v*", "--merged", "HEAD", "--sort=-version:refname").split()
    for path, word in GOLDEN.items() if tags else ():
        before: dict[str, Any] = json.loads(git(root, "show", f"{tags[0]}:{path}"))
        now = json.loads((root / path).read_text())
        changed = [name for name, value in before.items() if now.get(name) != value]
        if changed and word not in changes_of(root, version)[1]:
            yield (
                f"{len(changed)} values of {path} differ from {tags[0]}'s, as {changed[0]!r}, and the changelog of "
                f'{version} does not say "{word}"'
            )


def check_built(folder: Path, version: str) -> Iterator[str]:
    """The wheel and the sdist in a folder."""
    names = sorted(path.name for path in folder.iterdir())
    if names != [f"{FOLDER}-{version}-py3-none-any.whl", f"{FOLDER}-{version}.tar.gz"]:
        yield f"{folder} must hold one wheel and one sdist of {version}. Received: {', '.join(names)}"
        return
    with zipfile.ZipFile(folder / names[0]) as wheel:
        inside = wheel.namelist()
        about = f"{FOLDER}-{version}.dist-info"
        metadata = email.message_from_bytes(wheel.read(f"{about}/METADATA"))
        commands = wheel.read(f"{about}/entry_points.txt").decode()
    yield from _check_metadata(metadata, version)
    if others := {name.split("/")[0] for name in inside} - {"fastinit", f"{FOLDER}.py", about}:
        yield f"the wheel must hold the package alone. Received: {', '.join(sorted(others))}"
    if absent := {"fastinit/py.typed", "fastinit/_io/page/page.css", f"{about}/licenses/LICENSE"} - {*inside}:
        yield f"the wheel lacks {', '.join(sorted(absent))}"
    if commands.split() != ["[console_scripts]", "fastinit", "=", f"{FOLDER}:main"]:
        yield f"the wheel must have the one command fastinit. Received: {commands!r}"
    with tarfile.open(folder / names[1]) as sdist:
        inside = sdist.getnames()
    needed = ("tests/golden.json", "CHANGELOG.md", "CITATION.cff", ".ci/run")
    if missing := [name for name in needed if f"{FOLDER}-{version}/{name}" not in inside]:
        yield f"the sdist lacks {', '.join(missing)}"


def _check_metadata(metadata: Any, version: str) -> Iterator[str]:
    if (metadata["Name"], metadata["Version"]) != (NAME, version):
        yield f"the wheel must be {NAME} {version}. Received: {metadata['Name']} {metadata['Version']}"
    if missing := [name for name in ("Author", "License-Expression", "Requires-Python") if not metadata[name]]:
        yield f"the metadata lack {', '.join(missing)}"
    if not any(text.startswith("Source, https://") for text in metadata.get_all("Project-URL", [])):
        yield "the metadata lack the URL of the source"
    if links := re.findall(r"\]\((?!https?:)([^)]+)\)", metadata.get_payload()):
        yield f"the README on PyPI must have absolute links alone. Received: {', '.join(links)}"


def build(root: Path, folder: Path) -> Iterator[str]:
    """Build into a folder, by way of the sdist, and check what is there."""
    if folder.exists():
        yield f"{folder} must not be there: remove it"
        return
    for command in (
        ["build", "--outdir", str(folder), str(root)],
        ["twine", "check", "--strict", f"{folder}/*"],
    ):
        done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
        if done.returncode:
            yield f"{' '.join(command)}: {(done.stdout + done.stderr).strip()}"
            return
    yield from check_built(folder, version_of(root))


def report(name: str, faults: Iterator[str]) -> bool:
    """Print what is wrong, or that nothing is; return whether nothing is."""
    found = list(faults)
    print(f"{'FAILED' if found else 'ok':<8}{name}", *found, sep="\n        ", flush=True)
    return not found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--build", type=Path, metavar="DIR", help="build into this folder, and check that alone")
    asked = parser.parse_args(arguments)
    if asked.build:
        return 0 if report("the wheel and the sdist", build(ROOT, asked.build)) else 1
    passed = [
        report("the version is a new one", check_version(ROOT)),
        report("changelog and citation name it", check_texts(ROOT)),
        report("the tree is clean", check_tree(ROOT)),
        report("pinned values are those of the last release", check_golden(ROOT)),
        report("the wheel and the sdist", build(ROOT, ROOT / "dist")),
    ]
    print(BY_HAND.format(version=version_of(ROOT), name=NAME))
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
