"""The structure: what may import what, what is compiled where, what `import fastinit` loads, what readers find."""

import ast
import functools
import subprocess
import sys
from collections import Counter
from pathlib import Path

from importlinter.cli import lint_imports

import fastinit
from scripts.mutants import MUTANTS

ROOT = Path(fastinit.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
MODULES, LINES, FUNCTION = 13, 400, 60  # at most: in a folder; of a file and of a function, their docstrings aside
FRAMEWORKS = [
    *("torch", "jax", "keras", "tensorflow", "ray", "transformers", "matplotlib", "sklearn"),
    *("scipy.linalg", "safetensors"),
]


@functools.cache
def tree_of(path):
    return ast.parse(path.read_text())


def imported(path):
    """The full names of the modules that a file imports anywhere, in functions too."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import in line {node.lineno}"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def test_imports_go_down():
    """The contracts in pyproject.toml, by import-linter: folders in layers, no circle, Numba in its place."""
    assert lint_imports(config_filename=str(ROOT.parent / "pyproject.toml"), no_cache=True) == 0


def length(node, path):
    """The lines of a module or a function without docstrings."""
    inside = [
        part.body[0]
        for part in ast.walk(node)
        if isinstance(part, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(part, clean=False)
    ]
    lines = len(path.read_text().splitlines()) if isinstance(node, ast.Module) else node.end_lineno - node.lineno + 1
    return lines - sum(docstring.end_lineno - docstring.lineno + 1 for docstring in inside)


def test_folders_files_and_functions_are_short():
    folders = Counter(path.parent for path in FILES if path.name != "__init__.py")
    assert [(folder, number) for folder, number in folders.items() if number > MODULES] == []
    assert [(path, lines) for path in FILES if (lines := length(tree_of(path), path)) > LINES] == []
    functions = [
        (path, node) for path in FILES for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef)
    ]
    long = [(path, node.name, lines) for path, node in functions if (lines := length(node, path)) > FUNCTION]
    assert long == []


def test_a_folder_says_what_lives_there():
    texts = {path: ast.get_docstring(tree_of(path)) for path in FILES if path.name == "__init__.py"}
    assert [path for path, text in texts.items() if path.parent != ROOT and len(text.splitlines()) < 3] == []


COMPILERS = {"njit", "jit", "cfunc", "vectorize", "guvectorize", "stencil", "generated_jit", "overload", "intrinsic"}


OPTIONS = {"fastmath", "error_model", "boundscheck", "nogil", "forceinline", "inline"}


def compiler_words(path):
    """The compilers and options of Numba that a file names."""
    yield from {name.rpartition(".")[2] for name in imported(path) if name.startswith("numba.")} & COMPILERS
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("numba", "nb"):
            yield from {node.attr} & COMPILERS
        if isinstance(node, ast.keyword):
            yield from {node.arg} & OPTIONS


def test_compiler_options_are_named_in_one_place():
    jit = ROOT / "kernels" / "jit.py"
    assert {path: words for path in FILES if path != jit and (words := list(compiler_words(path)))} == {}
    assert set(compiler_words(jit)) >= {"njit"}


def test_the_compiler_options_are_in_jit():
    """What the test above looks for is there to be found."""
    text = (ROOT / "kernels" / "jit.py").read_text()
    assert all(word in text for word in ("numba.njit", "error_model", "boundscheck", "nogil"))


def test_importing_fastinit_imports_no_framework_and_compiles_nothing():
    script = (
        "import sys\n"
        "from fastinit import *\n"
        f"print([name for name in {FRAMEWORKS} if name in sys.modules])\n"
        "from fastinit._native import library\n"
        "print(library._kernels, 'numba' in sys.modules, 'llvmlite' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n{} False True\n", "")


def test_the_checkpoint_package_is_imported_when_it_is_used():
    script = (
        "import sys, fastinit as fi\n"
        "print('fastinit.checkpoint' in sys.modules, callable(fi.checkpoint.write), hasattr(fi, 'nothing'))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False True False\n", "")


def test_public_names_are_imported_when_they_are_asked_for():
    script = (
        "import sys, fastinit as fi\n"
        "print('numba' in sys.modules, set(fi.__all__) & set(vars(fi)), set(fi.__all__) <= set(dir(fi)))\n"
        "fi.fill; print('fill' in vars(fi), 'numba' in sys.modules, 'fastinit.nn._mlp' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False set() True\nTrue False False\n", "")


def test_each_mutant_changes_one_place():
    places = {mutant.name: (ROOT / mutant.module).read_text().count(mutant.old) for mutant in MUTANTS}
    assert {name: number for name, number in places.items() if number != 1} == {}


def test_no_module_hides_a_public_name():
    assert not {path.stem for path in [*ROOT.iterdir()]} & set(fastinit.__all__)


def test_public_names_are_documented():
    documentation = {name: getattr(fastinit, name).__doc__ or "" for name in fastinit.__all__}
    # A dataclass writes its signature where there is no docstring.
    bare = [name for name, text in documentation.items() if len(text.split()) <= 5 or text.startswith(f"{name}(")]
    assert bare == []


def test_modules_are_documented():
    assert [path for path in FILES if not ast.get_docstring(tree_of(path))] == []
