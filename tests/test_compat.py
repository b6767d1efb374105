"""Private names of frameworks: one file has PyTorch's, and every one of them may be missing."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from processes import environment

import fastinit
from fastinit.torch import _compat

ROOT = Path(fastinit.__file__).parent
FOLDERS = ROOT / "torch", ROOT / "_probe"
FILES = [ROOT / "jax.py", ROOT / "keras.py", *(path for folder in FOLDERS for path in sorted(folder.rglob("*.py")))]
FILES.remove(ROOT / "torch" / "_compat.py")

# One process imports PyTorch; for each name it forks a child, in which the name is taken away before fastinit is there.
SCRIPT = """
import json, os, pkgutil, sys, traceback, warnings
import numba, scipy.linalg, torch
from torch import nn
from torch.overrides import TorchFunctionMode

def exists(name):
    try:
        return pkgutil.resolve_name(name) is not None
    except (ImportError, AttributeError):
        return False

def delete(name):
    parent, _, last = name.rpartition(".")
    pkgutil.resolve_name(name)  # operators are made at their first use
    delattr(pkgutil.resolve_name(parent), last)
    if exists(name):  # an operator: PyTorch needs it itself, and makes it again
        found = pkgutil.resolve_name
        pkgutil.resolve_name = lambda wanted: found("torch.nothing" if wanted == name else wanted)
    assert not exists(name)

class Through(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.register_buffer("narrow16", torch.zeros(8).normal_().half())
        self.register_buffer("order", torch.randperm(8))
        self.register_buffer("product", torch.ones(8).normal_() * torch.full((8,), 2.0))

def is_normal(tensor):
    return bool(tensor.isfinite().all()) and abs(float(tensor.mean())) < 0.1 and abs(float(tensor.std()) - 1) < 0.1

def main(name):
    if name:
        delete(name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        import fastinit.torch as init
        at_import = len(caught)
        tensors = [torch.full((100, 100), torch.nan) for _ in range(2)]
        init.normal_(tensors[0])
        with Through():
            init.normal_(tensors[1])
        models = []
        for _ in range(2):
            with init.fast_init(seed=0):
                models.append(Model())
        try:
            recorded = init.materialize(Model(), init.record(Model), seed=0)
            same = all(map(torch.equal, models[0].state_dict().values(), recorded.state_dict().values()))
        except RuntimeError as error:
            same = str(error)
    return {
        "at import": at_import,
        "warnings": [f"{w.category.__name__}: {w.message}" for w in caught],
        "normal": [is_normal(tensor) for tensor in tensors],
        "defined": all(bool(x.isfinite().all()) for x in models[0].state_dict().values()),
        "weight": 0 < float(models[0].linear.weight.detach().std()) < 1,
        "order": sorted(models[0].order.tolist()),
        "same": same,
    }

for name in json.loads(sys.argv[1]):
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            answer = main(name)
        except BaseException:
            answer = {"error": traceback.format_exc()}
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        print(pipe.read(), flush=True)
    os.waitpid(child, 0)
"""


@pytest.fixture(scope="module")
def answers():
    names = ["", *_compat.FALLBACKS]
    arguments = [sys.executable, "-c", SCRIPT, json.dumps(names)]
    done = subprocess.run(arguments, env=environment(), capture_output=True, text=True, check=True, timeout=300)
    return dict(zip(names, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("name", ["", *_compat.FALLBACKS])
def test_a_missing_name_gives_one_warning_and_a_fallback(answers, name):
    answer = answers[name]
    assert "error" not in answer, answer["error"]
    assert answer["at import"] == 0
    if name:
        (warning,) = answer["warnings"]
        assert warning.startswith("RuntimeWarning: PyTorch ")
        assert f" has no {name}: {_compat.FALLBACKS[name]}" in warning
    else:
        assert answer["warnings"] == []
    assert answer["normal"] == [True, True]
    assert answer["defined"]
    assert answer["weight"]
    assert answer["order"] == list(range(8))
    if name == _compat.DISPATCH_MODE:
        assert f"record needs {name}" in answer["same"]
    else:
        assert answer["same"] is True


def private(name):
    return name.startswith("_") and not name.startswith("__")


def own_names():
    """The private names that fastinit defines itself: functions, classes, variables, attributes of `self`."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                    yield name
                case ast.Name(id=name, ctx=ast.Store()):
                    yield name
                case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                    yield name


OWN = set(own_names())
# `_replace` is a method of every NamedTuple, `_from_config` of the models in transformers.
OTHERS = {"_replace", "_from_config"}


def private_names(path):
    """The private names of other packages that a file takes: attributes, imports, and text that is such a name."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Attribute(attr=name) if private(name) and name not in OWN | OTHERS:
                yield name
            case ast.ImportFrom(module=module, names=names) if module.partition(".")[0] != "fastinit":
                parts = [*module.split("."), *(name.name for name in names)]
                yield from (part for part in parts if private(part))
            case ast.Import(names=names):
                yield from (part for name in names for part in name.name.split(".") if private(part))
            case ast.Call(
                func=ast.Name(id="getattr" | "setattr" | "hasattr"), args=[_, ast.Constant(value=str(name)), *_]
            ):
                yield from (name,) * private(name)
            case ast.Constant(value=str(text)) if re.fullmatch(r"torch[\w.]*", text):
                yield from filter(private, text.split("."))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_private_names_are_in_one_file(path):
    assert list(private_names(path)) == []


def test_what_is_searched_for_can_be_found():
    assert {"_schema", "_current_level"} <= set(private_names(ROOT / "torch" / "_compat.py"))
