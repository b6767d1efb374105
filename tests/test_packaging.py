"""The distribution: its name in every text, its metadata, what it depends on, and whose package the command runs."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import fastinit
import fastinit_weights

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BUILT = "__pycache__ build dist _generated golden.json golden_training.json results.json"
TEXTS = {"", ".cff", ".md", ".py", ".pyi", ".sbatch", ".sh", ".toml", ".txt", ".yaml", ".yml"}
OTHERS = {"huggingface_hub", "markupsafe"}  # parts of the interfaces of transformers and Jinja, which bring them
NAMES = {"scikit-learn": "sklearn"}  # distributions whose package has another name


# --- the name ---

# What would install or ask for PyPI's `fastinit`, which is another project.
FOREIGN = re.compile(
    r"""\b(?:install|add|uvx|run)\s+(?:-[-\w]+\s+)*['"]?fastinit(?![-\w])(?=[\s'"`=<>~\[]|$)(?!\s+\w+\s+fastinit)
    |\bfastinit\\?\[(?:torch|jax|keras|hf|ray|sklearn|plot|docs|dev|\{)
    |\b(?:version|distribution|metadata|requires|files)\(['"]fastinit['"]\)
    |pypi\.org/project/fastinit(?![-\w])""",
    re.VERBOSE,
)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("pip install fastinit", True),
        ("pip install -q 'fastinit[torch]'", True),
        ("`pip install\nfastinit`", True),
        ("uv add fastinit", True),
        ("pip install fastinit==0.1.0", True),
        ("the extra is `fastinit[jax]`", True),
        ('importlib.metadata.version("fastinit")', True),
        ("https://pypi.org/project/fastinit/", True),
        ("pip install fastinit-weights", False),
        ("pip install 'fastinit-weights[torch]'", False),
        ("importlib.metadata.version('fastinit-weights')", False),
        ("pip install ./fastinit_weights.whl", False),
    ],
)
def test_what_would_install_another_project_is_recognized(text, wrong):
    assert bool(FOREIGN.search(text)) == wrong


def texts():
    """All texts of the project but this one."""
    for folder, folders, names in os.walk(ROOT):
        hidden = {name for name in folders if name.startswith(".") and name not in (".ci", ".github")}
        folders[:] = sorted({*folders} - hidden - {*BUILT.split()} - {name for name in folders if ".egg-" in name})
        for path in (Path(folder, name) for name in names):
            if path.suffix in TEXTS and path != Path(__file__) and path.name not in BUILT and path.name != ".git":
                yield path


def test_no_text_leads_to_another_project():
    paths = list(texts())
    assert {ROOT / name for name in ("README.md", ".ci/run", "docs/start.md", "fastinit/jax.py")} <= {*paths}
    wrong = [(path, found[0]) for path in paths if (found := FOREIGN.search(path.read_text(encoding="utf-8")))]
    assert wrong == []


def test_the_metadata_name_the_distribution():
    assert PROJECT["name"] == fastinit_weights.DISTRIBUTION == fastinit._DISTRIBUTION == "fastinit-weights"
    assert PROJECT["scripts"] == {"fastinit": "fastinit_weights:main"}
    assert PROJECT["authors"] == [{"name": "The fastinit authors"}]
    assert all(url.startswith("https://github.com/fastinit-weights/fastinit") for url in PROJECT["urls"].values())


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == fastinit.__version__
    assert citation["authors"] == PROJECT["authors"]
    assert citation["repository-code"] == PROJECT["urls"]["Source"]


# --- what it depends on ---


def packages(paths):
    """The top-level packages of others that files import, in functions too."""
    found = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            found |= {name.partition(".")[0] for name in names}
    return found - sys.stdlib_module_names - {"fastinit"}


def declared(requirements):
    names = [re.match(r"[\w-]+", text)[0] for text in requirements]
    return {NAMES.get(name, name.replace("-", "_")) for name in names}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
    """Base files import extras in functions only, after they have asked for them; adapters are the extras' own."""
    extras = {name: declared(texts) for name, texts in PROJECT["optional-dependencies"].items()}
    extras = set().union(*(extras[name] for name in ("torch", "jax", "keras", "hf", "ray", "sklearn", "plot")))
    files = [*(ROOT / "fastinit").rglob("*.py"), ROOT / "fastinit_weights.py"]
    base = declared(PROJECT["dependencies"])
    assert packages(files) - extras - OTHERS == base
    assert not base & extras


# --- whose package the command runs ---

RUN = "import sys, fastinit_weights; sys.argv = ['fastinit', '--version']; fastinit_weights.main()"


def run_command(folder, *options):
    """`fastinit --version`, with a folder ahead of the installed packages."""
    path = os.pathsep.join([str(folder), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-P", *options, "-c", RUN]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_command_runs_this_package(tmp_path):
    done = run_command(tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"fastinit {fastinit.__version__}\n", "")


@pytest.mark.parametrize("content", ["__version__ = '1.0'\n", "import not_installed\n", "raise SystemExit(7)\n"])
def test_the_command_refuses_the_package_of_another_project(tmp_path, content):
    (tmp_path / "fastinit").mkdir()
    (tmp_path / "fastinit" / "__init__.py").write_text(content)
    done = run_command(tmp_path)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert "another project's package" in done.stderr
    assert f"pip install --force-reinstall --no-deps {fastinit_weights.DISTRIBUTION}" in done.stderr


def test_the_command_names_the_distribution_that_took_its_place(tmp_path):
    about = tmp_path / "fastinit-9.9.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: fastinit-of-others\nVersion: 9.9\n")
    (about / "RECORD").write_text("fastinit/__init__.py,,\nfastinit-9.9.dist-info/RECORD,,\n")
    (tmp_path / "fastinit").mkdir()
    (tmp_path / "fastinit" / "__init__.py").write_text("__version__ = '9.9'\n")
    done = run_command(tmp_path)
    assert done.returncode == 1
    assert str(tmp_path / "fastinit" / "__init__.py") in done.stderr
    assert "Otherwise run: pip uninstall fastinit-of-others && pip install --force-reinstall" in done.stderr


def test_the_command_finds_a_damaged_package(tmp_path):
    """What is left where the other distribution was removed, and took `__init__.py` with it."""
    shutil.copy(ROOT / "fastinit_weights.py", tmp_path)
    shutil.copytree(ROOT / "fastinit" / "cli", tmp_path / "fastinit" / "cli")
    command = [sys.executable, "-P", "-S", "-c", RUN]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "a damaged one: no __init__.py" in done.stderr


def test_the_module_runs_as_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "fastinit", "--version"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"fastinit {fastinit.__version__}\n", "")


# --- continuous integration ---

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
CI = (ROOT / ".ci" / "run").read_text()


def steps():
    """(workflow, job, step) of all workflows."""
    for path in WORKFLOWS:
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            yield from ((path.name, job, step) for step in job["steps"])


def test_workflows_run_parts_that_are_there():
    parts = set(re.findall(r"^(\w+)\(\) \{$", CI, re.MULTILINE))
    parts -= {"readme_command", "section", "environment", "interpreter"}
    listed = set(re.search(r'^PARTS="(.*)"$', CI, re.MULTILINE)[1].split())
    assert listed | {"newest"} == parts == set(re.findall(r"^#   (\w+) ", CI, re.MULTILINE))
    run = []
    for _, job, step in steps():
        if ".ci/run" in (command := step.get("run", "")):
            matrix = job.get("strategy", {}).get("matrix", {}).get("parts", [])
            run += " ".join([command.removeprefix(".ci/run").replace("$PARTS", ""), *matrix]).split()
    assert sorted(run) == sorted([*parts, "dist"])  # each once, and the release builds again


def test_an_unknown_part_is_an_error():
    done = subprocess.run([ROOT / ".ci" / "run", "nothing"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("no part nothing. Allowed: job tests slow")


def test_workflows_test_the_versions_that_are_declared():
    versions = [text.rpartition(" ")[2] for text in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d", text)]
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())
    matrix = workflow["jobs"]["pythons"]["strategy"]["matrix"]
    assert matrix["python"] == versions
    assert PROJECT["requires-python"] == f">={versions[0]}"
    assert [name.partition("-")[0] for name in matrix["os"]] == ["ubuntu", "macos"]


def test_only_publishing_has_a_right_to_write():
    for path in WORKFLOWS:
        workflow = yaml.safe_load(path.read_text())
        assert workflow["permissions"] == {"contents": "read"}
        rights = {name: job["permissions"] for name, job in workflow["jobs"].items() if "permissions" in job}
        assert rights == ({"publish": {"id-token": "write"}} if path.name == "release.yml" else {})
        assert "secrets." not in path.read_text()
