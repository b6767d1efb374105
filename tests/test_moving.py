"""Rows of docs/moving.md: the new code runs, repeats its bits, and gives the old code's shape, dtype and deviation."""

import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from processes import command

PAGE = (Path(__file__).parents[1] / "docs/moving.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (?!you have|---)(.*) \| (.*) \|$", PAGE, re.MULTILINE)
BOTH = """
import os, jax, keras, numpy as np, sklearn.neural_network, torch, transformers
import fastinit as fi, fastinit.jax, fastinit.keras, fastinit.sklearn, fastinit.torch
SIZES = dict(vocab_size=512, hidden_size=256, intermediate_size=512, num_hidden_layers=1, num_attention_heads=4)
torch.manual_seed(0); keras.utils.set_random_seed(0)"""
TORCH = """from torch import nn; w = torch.empty(512, 256); g = torch.Generator().manual_seed(0)
with torch.device("meta"): model = nn.Linear(512, 512)
Model = build = lambda: nn.Linear(512, 512)
plan, model, materialize = fastinit.torch.record(build), model.to_empty(device="cpu"), fastinit.torch.materialize
init_weights = lambda module: nn.init.kaiming_normal_(module.weight)"""
CLIP = "w = torch.nn.Parameter(torch.ones(512, 256)); w.grad = torch.randn(512, 256)"
HUB = """AutoModelForCausalLM = transformers.AutoModelForCausalLM
from_pretrained = AutoModelForCausalLM.from_pretrained
config = transformers.LlamaConfig(**SIZES, architectures=["LlamaForCausalLM"]); config.save_pretrained(".")
build = lambda: AutoModelForCausalLM.from_config(config)"""
SAVED = HUB + "; build().save_pretrained('folder')"
UP = ".model.layers[0].mlp.up_proj.weight"
KERAS = """path = 'm.keras'; layer = keras.layers.Dense(512, kernel_initializer=fastinit.keras.HeNormal())
keras.Sequential([keras.Input((512,)), layer]).save(path)"""
JAX = "key, shape, dtype = jax.random.key(0), (512, 512), 'float32'"
SKLEARN = "X = np.random.default_rng(0).random((64, 512)); y = np.arange(64) % 2"
FIT = "value.set_params(max_iter=1, random_state=0, hidden_layer_sizes=(512,)).fit(X, y).coefs_[0]"
NUMPY = """rng = np.random.default_rng(0); key = fi.Key(0)
shape, std, a = (512, 512), 0.5, 0.5; array = np.zeros(shape, 'f')"""
# For rows that begin so: code before both cells; the array that they give (`value` is what a cell's code gives, `{}`
# the code); the old code, if the row has it in words. None: the row has no new code.
USES = {
    "`(import|from) torch|`torch.manual": (TORCH, "init.kaiming_normal_(w)"),
    "`init.kaiming": (TORCH, "value"),
    "`model.apply": (TORCH, "model.weight"),
    "a model that fills": (TORCH, "model.weight", "model = Model()"),
    "`nn.utils.skip": (TORCH, "model.weight", "model = build()"),
    "`torch.nn.utils.clip": (CLIP, "({}([w], 1.0), w.grad)[1]"),
    "`(AutoModel|from_pre)": (SAVED, "value" + UP),
    "`from_config": (HUB, "from_pretrained('folder')" + UP, "build().save_pretrained('folder')"),
    "a model that does": (
        TORCH,
        "[plan and materialize(model, plan), model.weight][1]",
        "plan, model = 0, build()",
    ),
    "another": (
        HUB,
        "from_pretrained('folder')" + UP,
        "config.initializer_range /= 2; build().save_pretrained('folder')",
    ),
    "`keras.initializers": ("", "value((512, 512))"),
    "`kernel_init": ("", "[layer := keras.layers.Dense(512, {}), layer.build((1, 512)), layer.kernel][2]"),
    "`keras.utils": ("", "init.HeNormal()((512, 512))"),
    "`keras.models": (KERAS, "value.layers[0].kernel"),
    "`import jax": (JAX, "init.he_normal()(key, shape, dtype)"),
    "`init.he": (JAX, "value"),
    "Flax": (JAX, "dict({})['kernel_init'](key, shape, dtype)"),
    "`sklearn": (SKLEARN, FIT),
    "`coefs": (SKLEARN, "[hasattr(init.MLPClassifier(max_iter=1).fit(X, y), name) for name in '{}'.split(', ')]"),
    "`rng.standard": (NUMPY, "value"),
    "`rng.uniform": (NUMPY, "value", "rng.uniform(-a, a, shape).astype('float32')"),
    "a draw": (NUMPY, "array", "array[:] = rng.normal(0, std, shape)"),
    "`array": (NUMPY, "array"),
    "`torch.save": (HUB, "from_pretrained('init')" + UP, "build().save_pretrained('init')"),
    "a checksum": (HUB + "; command('write', 'config.json', '--out', 'init')", "0", ""),
    "an old": (SAVED + "; os.replace('folder/model.safetensors', 'init.safetensors')", "0", ""),
    "`solver|a copy": None,
}
MODULES = {"torch": "torch.nn.init", "keras": "keras.initializers", "jax": "jax.nn.initializers"}
MODULES["sklearn"] = "sklearn.neural_network"


def made(folder, setup, code, array, module):
    """The array of a cell, from names and a folder of its own."""
    folder.mkdir()
    os.chdir(folder)
    names = {"command": command}
    exec(f"{BOTH}\n{module and f'import {module} as init'}\n{setup}", names)
    if code.startswith("fastinit "):
        assert command(*shlex.split(code)[1:]).returncode == 0, code
    elif "{}" not in array:
        exec(re.sub(r"^(with .*?: )?(?=[\w.]+\()", r"\1value = ", code, flags=re.MULTILINE), names)
    found = eval(array.replace("{}", code), names)
    return np.asarray(found.detach() if hasattr(found, "detach") else found)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("old", "new"), ROWS)
def test_a_row(old, new, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # and back, after the folders of the cells
    (uses,) = [use for start, use in USES.items() if re.match(start, old)]
    if uses is None:
        return
    setup, array, *words = uses
    code = ", ".join(re.findall("`(.*?)`", old.replace("...", "")))
    same = new.startswith("the same")
    name = {id(TORCH): "torch", id(JAX): "jax", id(SKLEARN): "sklearn"}.get(id(setup), "keras") if same else ""
    new_code = re.findall("`(.*?)`", new.replace("...", "").replace(", )", ")"))
    if same and new_code:  # "the same, inside `with ...:`" or "the same, after `import ...`"
        new_code[0] += f" {code}" if new_code[0].endswith(":") else f"\n{code}"
    before = made(tmp_path / "old", setup, (words or [code])[0], array, MODULES.get(name, ""))
    new_code, ours = (new_code or [code])[0], name and f"fastinit.{name}"
    after, again = [made(tmp_path / folder, setup, new_code, array, ours) for folder in "ab"]
    assert (after.shape, after.dtype) == (before.shape, before.dtype)
    assert after.std() == pytest.approx(before.std(), rel=0.02)
    assert after.tobytes() == again.tobytes()
