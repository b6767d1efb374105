"""The checks before a release: each fault that they look for is put into a small project, and found."""

import io
import json
import subprocess
import tarfile
import zipfile

import pytest

from scripts import release

WHEEL, SDIST = "fastinit_weights-0.2.0-py3-none-any.whl", "fastinit_weights-0.2.0.tar.gz"
CHANGES = "# Changelog\n\n## 0.2.0 (2027-01-02)\n\nStream version 3.\n\n## 0.1.0 (2026-12-01)\n\nTraining bits.\n"
ABOUT = "fastinit_weights-0.2.0.dist-info"
METADATA = (
    "Metadata-Version: 2.4\nName: fastinit-weights\nVersion: 0.2.0\nAuthor: The fastinit authors\n"
    "License-Expression: MIT\nRequires-Python: >=3.11\nProject-URL: Source, https://github.com/x/y\n\n"
    "# fastinit\n\n[a page](https://github.com/x/y/blob/v0.2.0/docs/start.md)\n"
)
IN_WHEEL = {
    f"{ABOUT}/METADATA": METADATA,
    f"{ABOUT}/entry_points.txt": "[console_scripts]\nfastinit = fastinit_weights:main\n",
    f"{ABOUT}/licenses/LICENSE": "MIT",
    "fastinit/py.typed": "",
    "fastinit/_io/page/page.css": "",
    "fastinit_weights.py": "",
}
IN_SDIST = ("tests/golden.json", "CHANGELOG.md", "CITATION.cff", ".ci/run")


def git(root, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false"]
    subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)


def write(root, path, text):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


@pytest.fixture
def project(tmp_path):
    """Version 0.2.0, after a release 0.1.0."""
    root = tmp_path / "project"
    write(root, "tests/golden.json", json.dumps({"a": "01", "b": "02"}))
    write(root, "tests/golden_training.json", json.dumps({"run": {"parameters": "03"}}))
    git(tmp_path, "init", "-q", "project")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "Release")
    git(root, "tag", "v0.1.0")
    write(root, "fastinit/__init__.py", '"""Text."""\n\n__version__ = "0.2.0"\n')
    write(root, "CHANGELOG.md", CHANGES)
    write(root, "CITATION.cff", "cff-version: 1.2.0\nversion: 0.2.0\ndate-released: 2027-01-02\n")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "Next")
    return root


def faults(root):
    checks = release.check_version, release.check_texts, release.check_tree, release.check_golden
    return [fault for check in checks for fault in check(root)]


def test_a_project_that_is_ready(project):
    assert faults(project) == []


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("fastinit/__init__.py", '__version__ = "0.2.0.dev1"\n', "__version__ must be X.Y.Z or X.Y.ZrcN"),
        ("fastinit/__init__.py", '__version__ = "0.1.0"\n', "the tag v0.1.0 is there already"),
        ("CHANGELOG.md", CHANGES.replace("(2027-01-02)", "(unreleased)"), "Received: '0.2.0 (unreleased)'"),
        ("CHANGELOG.md", CHANGES.replace("01-02)", "01-02) draft"), "Received: '0.2.0 (2027-01-02) draft'"),
        ("CHANGELOG.md", CHANGES.replace("0.2.0", "0.3.0"), "must begin with \"## 0.2.0 (YYYY-MM-DD)\". Received: ''"),
        ("CITATION.cff", "version: 0.1.0\ndate-released: 2027-01-02\n", "must have version: 0.2.0. Received: '0.1.0'"),
        ("CITATION.cff", "version: 0.2.0\n", "must have date-released: 2027-01-02. Received: None"),
        ("CITATION.cff", "version: 0.2.0\ndate-released: 2026-01-02\n", "Received: '2026-01-02'"),
    ],
)
def test_faults_of_texts_are_found(project, path, text, expected):
    write(project, path, text)
    git(project, "commit", "-qam", "Change")
    assert any(expected in fault for fault in faults(project))


def test_files_that_are_not_committed_are_found(project):
    write(project, "new.py", "")
    assert faults(project) == ["the tree must be clean. Received: ?? new.py"]


def test_changed_golden_values_need_a_line_in_this_versions_changelog(project):
    write(project, "tests/golden.json", json.dumps({"a": "01", "b": "02", "c": "03"}))
    git(project, "commit", "-qam", "A new value")
    assert faults(project) == []
    write(project, "tests/golden.json", json.dumps({"a": "FF", "c": "03"}))
    git(project, "commit", "-qam", "Other values")
    assert faults(project) == []  # the changelog of 0.2.0 says "Stream version"
    write(project, "CHANGELOG.md", CHANGES.replace("Stream version 3", "Faster"))
    write(project, "tests/golden_training.json", json.dumps({"run": {"parameters": "FF"}}))
    git(project, "commit", "-qam", "Not said")
    stream, training = faults(project)
    assert stream.startswith("2 values of tests/golden.json differ from v0.1.0's, as 'a', and the changelog of 0.2.0")
    assert training.endswith('does not say "Training bits"')  # what 0.1.0 said does not count


def built(folder, wheel=IN_WHEEL, sdist=IN_SDIST):
    folder.mkdir()
    with zipfile.ZipFile(folder / WHEEL, "w") as file:
        for name, text in wheel.items():
            file.writestr(name, text)
    with tarfile.open(folder / SDIST, "w:gz") as file:
        for name in sdist:
            file.addfile(tarfile.TarInfo(f"fastinit_weights-0.2.0/{name}"), io.BytesIO())
    return folder


def test_a_wheel_and_an_sdist_that_are_right(tmp_path):
    assert list(release.check_built(built(tmp_path / "dist"), "0.2.0")) == []


def metadata(old, new):
    assert METADATA.count(old) == 1
    return IN_WHEEL | {f"{ABOUT}/METADATA": METADATA.replace(old, new)}


@pytest.mark.parametrize(
    ("wheel", "expected"),
    [
        (
            metadata("Name: fastinit-weights", "Name: fastinit"),
            "the wheel must be fastinit-weights 0.2.0. Received: fastinit",
        ),
        (metadata("Version: 0.2.0", "Version: 0.1.0"), "Received: fastinit-weights 0.1.0"),
        (metadata("Author: The fastinit authors\n", ""), "the metadata lack Author"),
        (metadata("Source, ", "Docs, "), "the metadata lack the URL of the source"),
        (metadata("https://github.com/x/y/blob/v0.2.0/", ""), "absolute links alone. Received: docs/start.md"),
        (IN_WHEEL | {"tests/test_a.py": ""}, "must hold the package alone. Received: tests"),
        ({name: text for name, text in IN_WHEEL.items() if "py.typed" not in name}, "lacks fastinit/py.typed"),
        (IN_WHEEL | {f"{ABOUT}/entry_points.txt": "[console_scripts]\nx = y:z\n"}, "the one command fastinit"),
    ],
)
def test_faults_of_a_wheel_are_found(tmp_path, wheel, expected):
    (fault,) = release.check_built(built(tmp_path / "dist", wheel), "0.2.0")
    assert expected in fault


def test_faults_of_an_sdist_are_found(tmp_path):
    assert list(release.check_built(built(tmp_path / "dist", sdist=IN_SDIST[1:]), "0.2.0")) == [
        "the sdist lacks tests/golden.json"
    ]


def test_other_files_are_found(tmp_path):
    (fault,) = release.check_built(built(tmp_path / "dist"), "0.3.0")
    assert fault.endswith(f"must hold one wheel and one sdist of 0.3.0. Received: {WHEEL}, {SDIST}")
    assert list(release.build(tmp_path, tmp_path / "dist")) == [f"{tmp_path / 'dist'} must not be there: remove it"]


def test_the_script_says_what_failed_and_what_is_left_by_hand(project, monkeypatch, capsys):
    monkeypatch.setattr(release, "ROOT", project)
    monkeypatch.setattr(release, "build", lambda *_: iter(()))
    assert release.main([]) == 0
    printed = capsys.readouterr().out
    assert printed.count("ok  ") == 5
    assert "git push origin v0.2.0" in printed
    assert "pip install fastinit-weights==0.2.0" in printed
    write(project, "new.py", "")
    assert release.main([]) == 1
    assert "FAILED  the tree is clean\n        the tree must be clean. Received: ?? new.py\n" in capsys.readouterr().out
