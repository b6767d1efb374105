"""The rooms of the house: who may import whom, what is compiled where, and what `import fastinit` brings along."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import fastinit

ROOT = Path(fastinit.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
LINES = 450

# Lowest first. A room imports only from rooms in lines before its own; rooms of one line do not know each other.
ROOMS = [
    ["kernels"],
    ["_runtime"],
    ["_core"],
    ["clip", "schemes", "stats"],
    ["_io"],
    ["nn", "plan"],
    ["checkpoint"],
    ["__init__"],  # fastinit itself
    ["jax", "keras", "torch"],
    ["_probe", "sources"],
    ["plots"],
    ["cli"],
]
FLOORS = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}
FRAMEWORKS = ["torch", "jax", "keras", "tensorflow", "ray", "transformers", "matplotlib", "scipy.linalg", "safetensors"]


def room_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


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


def rooms_imported(path):
    """The rooms that a file imports from."""
    for name in imported(path):
        package, _, rest = name.partition(".")
        if package == "fastinit":
            room = rest.partition(".")[0]
            yield room if (ROOT / room).is_dir() or (ROOT / f"{room}.py").exists() else "__init__"


def test_a_room_imports_from_rooms_below_only():
    assert {room_of(path) for path in FILES} <= set(FLOORS), "some have no place in the list of rooms"
    wrong = [
        f"{path.relative_to(ROOT)} imports from {other}"
        for path in FILES
        for other in sorted(set(rooms_imported(path)) - {room_of(path)})
        if FLOORS[other] >= FLOORS[room_of(path)]
    ]
    assert wrong == []


def test_files_are_short():
    assert [path for path in FILES if len(path.read_text().splitlines()) > LINES] == []


def test_numba_is_imported_where_code_is_compiled():
    allowed = {ROOT / "_runtime" / name for name in ("environment.py", "threads.py")}  # Numba's version and threads
    others = [path for path in FILES if room_of(path) != "kernels" and path not in allowed]
    assert [p for p in others if {name.partition(".")[0] for name in imported(p)} & {"numba", "llvmlite"}] == []


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
    assert set(compiler_words(jit)) >= {"njit", "cfunc"}


def test_the_compiler_options_are_in_jit():
    """What the test above looks for is there to be found."""
    text = (ROOT / "kernels" / "jit.py").read_text()
    assert all(word in text for word in ("numba.njit", "numba.cfunc", "error_model", "boundscheck", "nogil"))


def test_importing_fastinit_imports_no_framework_and_compiles_nothing():
    script = (
        "import sys\n"
        "from fastinit import *\n"
        f"print([name for name in {FRAMEWORKS} if name in sys.modules])\n"
        "from fastinit.kernels import drive, fill\n"
        "made = drive.single, drive.shared, fill.range_kernel\n"
        "print([one.cache_info().currsize for one in made])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n[0, 0, 0]\n", "")


def test_the_checkpoint_room_is_opened_when_it_is_asked_for():
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
    assert (done.stdout, done.stderr) == ("False set() True\nTrue True False\n", "")


def test_type_checkers_see_the_public_names():
    """`__init__.pyi` imports each from the module that the table names, and all that the table has."""
    stub = ast.parse((ROOT / "__init__.pyi").read_text())
    told = {
        name.asname: node.module.partition(".")[2]
        for node in stub.body
        if isinstance(node, ast.ImportFrom) and node.module
        for name in node.names
    }
    assert told == fastinit._HOME_OF
    assert len(told) == sum(len(names.split()) for names in fastinit._HOMES.values())
    modules = {name.asname for node in stub.body if getattr(node, "module", "") is None for name in node.names}
    assert modules == fastinit._MODULES


def test_no_module_hides_a_public_name():
    assert not {room_of(path) for path in FILES} & set(fastinit.__all__)


def test_public_names_are_documented():
    documentation = {name: getattr(fastinit, name).__doc__ or "" for name in fastinit.__all__}
    # A dataclass writes its signature where there is no docstring.
    bare = [name for name, text in documentation.items() if len(text.split()) <= 5 or text.startswith(f"{name}(")]
    assert bare == []


def test_modules_are_documented():
    assert [path for path in FILES if not ast.get_docstring(tree_of(path))] == []
