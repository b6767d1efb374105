"""Sources of a plan: each kind gives the plan that it means, and what is none is named in one line."""

import importlib.util
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
from processes import command
from safetensors.torch import save_file

import fastinit as fi
from fastinit import sources
from fastinit._core.composite import Values
from fastinit.plan._fills import Tied
from fastinit.torch import record

TINY = {
    "LlamaForCausalLM": {
        "model_type": "llama", "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "vocab_size": 40,
        "intermediate_size": 24, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
    },
    "GPT2LMHeadModel": {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 40},
    "MixtralForCausalLM": {
        "model_type": "mixtral", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 40,
        "intermediate_size": 24, "num_local_experts": 3, "num_key_value_heads": 1, "dtype": "float16",
    },
    "BertForMaskedLM": {
        "model_type": "bert", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 40,
        "intermediate_size": 24,
    },
    "T5ForConditionalGeneration": {
        "model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "vocab_size": 40,
    },
    "ViTForImageClassification": {
        "model_type": "vit", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 8,
        "intermediate_size": 24, "patch_size": 4,
    },
}  # fmt: skip


def config_of(folder, architecture, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({"architectures": [architecture], **TINY[architecture], **changes}))
    return path


def same(a, b):
    assert list(a) == list(b)
    for name, tensor in a.items():
        if isinstance(tensor, Tied):
            assert tensor == b[name]
            continue
        assert (tensor.shape, tensor.dtype, tensor.persistent) == (b[name].shape, b[name].dtype, b[name].persistent)
        if not isinstance(tensor.distribution, Values):
            assert tensor.distribution == b[name].distribution, name


@pytest.mark.parametrize("architecture", TINY)
@pytest.mark.parametrize("of", ["file", "folder"])
def test_a_config_is_recorded(tmp_path, architecture, of):
    path = config_of(tmp_path, architecture)
    settings = transformers.AutoConfig.from_pretrained(tmp_path)
    dtype = settings.dtype or torch.float32
    expected = record(lambda: getattr(transformers, architecture)._from_config(settings, dtype=dtype))
    found = sources.read(str(path if of == "file" else tmp_path))
    same(found.plan, expected)
    assert found.config == path
    parameters = {fill.dtype for fill in found.plan.filled.values() if fill.persistent and fill.drawn}
    assert parameters == {str(dtype).removeprefix("torch.")}


def test_a_dtype_in_place_of_the_configs(tmp_path):
    path = config_of(tmp_path, "LlamaForCausalLM")
    plan = sources.read(str(path), dtype="float16").plan
    assert {fill.dtype for fill in plan.filled.values() if fill.drawn} == {"float16"}
    config_of(tmp_path, "LlamaForCausalLM", torch_dtype="float8_e4m3fn")
    with pytest.raises(ValueError, match=r"dtype must be one of float16.*float8_e4m3fn"):
        sources.read(str(path))


def test_rules_for_a_config(tmp_path):
    path = config_of(tmp_path, "LlamaForCausalLM")
    plan = sources.read(str(path), rules=["*.{o_proj,down_proj}.weight=depth_scaled(std=0.6)"]).plan
    assert plan["model.layers.2.mlp.down_proj.weight"].distribution == fi.Normal(0, 0.6 / 6**0.5)
    assert plan["model.layers.2.mlp.down_proj.weight"].scheme == "depth_scaled(std=0.6, layers=3)"
    assert plan["model.layers.2.mlp.up_proj.weight"].distribution == fi.Normal(0, 0.02)
    everywhere = sources.read(str(path), scheme="he_normal").plan
    assert everywhere["model.norm.weight"].distribution == fi.Constant(1)
    assert everywhere["model.layers.0.mlp.up_proj.weight"].distribution == fi.distribution("he_normal", (24, 16))


def test_schemes_know_which_axes_are_in_and_out(tmp_path):
    """GPT-2's `Conv1D` is (in, out), Mixtral's experts are a stack of (out, in)."""
    gpt2 = sources.read(str(config_of(tmp_path, "GPT2LMHeadModel")), scheme="he_normal").plan
    name = "transformer.h.0.mlp.c_proj.weight"
    assert (gpt2[name].shape, gpt2[name].distribution.std) == ((64, 16), pytest.approx((2 / 64) ** 0.5))
    assert gpt2["transformer.wte.weight"].distribution.std == pytest.approx((2 / 16) ** 0.5)
    mixtral = sources.read(str(config_of(tmp_path, "MixtralForCausalLM")), scheme="he_normal").plan
    name = "model.layers.1.mlp.experts.down_proj"
    assert (mixtral[name].shape, mixtral[name].distribution.std) == ((3, 16, 24), pytest.approx((2 / 24) ** 0.5))
    vit = sources.read(str(config_of(tmp_path, "ViTForImageClassification")), scheme="he_normal").plan
    name = next(name for name, fill in vit.items() if len(fill.shape) == 4)
    assert vit[name].distribution.std == pytest.approx((2 / (3 * 4 * 4)) ** 0.5)


def test_without_architectures_a_language_model_is_meant(tmp_path):
    path = config_of(tmp_path, "GPT2LMHeadModel")
    expected = sources.read(str(path)).plan
    for architectures in (None, [], ["NoSuchModel"], "GPT2"):
        config_of(tmp_path, "GPT2LMHeadModel", architectures=architectures)
        same(sources.read(str(path)).plan, expected)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "mine", "auto_map": {"AutoModel": "x.Y"}}, "its class in remote code, which is not run"),
        ({"model_type": "lama"}, "unknown model_type 'lama'; did you mean 'llama'"),
        ({"model_type": ["llama"]}, "unknown model_type"),
        ({"model_type": "vit", "architectures": ["Nothing"]}, "no class 'Nothing', and 'vit' has no causal"),
        ({"model_type": "vit"}, "no architectures in the config"),
        ({"model_type": "llama", "hidden_size": "wide"}, "hidden_size"),
    ],
)  # fmt: skip
def test_a_config_that_is_no_model(tmp_path, config, message):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message) as caught:
        sources.read(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_of_the_callers_is_changed(tmp_path, monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    before = dict(os.environ), list(sys.path), constants.HF_HUB_OFFLINE, transformers.utils.logging.get_verbosity()
    sources.read(str(config_of(tmp_path, "GPT2LMHeadModel")))
    assert before == (
        dict(os.environ), list(sys.path), constants.HF_HUB_OFFLINE, transformers.utils.logging.get_verbosity()
    )  # fmt: skip
    assert torch.get_default_dtype() is torch.float32
    assert torch.distributed.is_available()


TENSORS = {
    "h.0.w": torch.zeros(4, 6),
    "h.0.norm.weight": torch.zeros(4, dtype=torch.bfloat16),
    "h.0.bias": torch.zeros(4, dtype=torch.float16),
    "ids": torch.arange(5),
    "flags": torch.tensor([True, False, True]),
    "none": torch.zeros(0, 3, dtype=torch.int8),
    "count": torch.tensor(7, dtype=torch.int32),
}


def check_stored(plan):
    assert {name: (fill.shape, fill.dtype) for name, fill in plan.filled.items()} == {
        name: (tuple(t.shape), str(t.dtype).removeprefix("torch.")) for name, t in TENSORS.items()
    }
    assert plan["h.0.w"].distribution == fi.distribution("xavier_normal", (4, 6))
    assert plan["h.0.norm.weight"].distribution == fi.Constant(1)
    assert plan["h.0.bias"].distribution == fi.Constant(0)
    for name in ("ids", "flags", "none", "count"):
        array = np.empty(plan[name].shape, plan[name].dtype)
        plan[name].fill(array, plan.key())
        np.testing.assert_array_equal(array, TENSORS[name].numpy())


def test_a_safetensors_file(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file(TENSORS, path)
    found = sources.read(str(path), scheme="xavier_normal")
    check_stored(found.plan)
    assert found.config is None
    same(fi.Plan.from_table(found.plan.to_table()), found.plan)
    half = sources.read(str(path), scheme="xavier_normal", dtype="bfloat16").plan
    assert (half["h.0.w"].dtype, half["ids"].dtype) == ("bfloat16", "int64")
    with pytest.raises(ValueError, match=r"'h\.0\.\w+.*' has no law \(3 tensors have none\): give a scheme or a rule"):
        sources.read(str(path))
    rules = ["*=zeros", "h.*.w=xavier_normal", "*.norm.*=ones"]
    check_stored(sources.read(str(path), rules=rules).plan)


def sharded(folder):
    names = list(TENSORS)
    files = {"a.safetensors": names[:3], "b.safetensors": names[3:]}
    for file, own in files.items():
        save_file({name: TENSORS[name] for name in own}, folder / file)
    return {name: file for file, own in files.items() for name in own}


def test_a_folder_and_an_index(tmp_path):
    weight_map = sharded(tmp_path)
    check_stored(sources.read(str(tmp_path), scheme="xavier_normal").plan)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    save_file({"other": torch.zeros(3)}, tmp_path / "other.safetensors")
    check_stored(sources.read(str(index), scheme="xavier_normal").plan)
    (tmp_path / "config.json").write_text("{}")
    with pytest.warns(UserWarning, match=r"a\.safetensors, b\.safetensors are read, not other\.safetensors"):
        found = sources.read(str(tmp_path), scheme="xavier_normal")
    check_stored(found.plan)
    assert found.config == tmp_path / "config.json"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"h.0.w": "../a.safetensors"}, "must lie beside it"),
        ({"h.0.w": "/a.safetensors"}, "must lie beside it"),
        ({"h.0.w": 3}, "must hold a file for each name"),
        ({"h.0.w": None}, "must hold a file for each name"),
    ],
)
def test_an_index_that_is_wrong(tmp_path, change, message):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {**sharded(tmp_path), **change}}))
    with pytest.raises(ValueError, match=message):
        sources.read(str(index), scheme="zeros")


def test_names_that_two_files_hold_or_the_index_leaves_out(tmp_path):
    weight_map = sharded(tmp_path)
    del weight_map["h.0.w"]
    index = tmp_path / "x.json"
    for change, message in (
        ({}, "'h.0.w' is not in the index, but read"),
        ({"more": "a.safetensors", "h.0.w": "a.safetensors"}, "'more' is in no file of the index"),
        ({"more": "gone.safetensors", "h.0.w": "a.safetensors"}, "gone.safetensors is missing"),
    ):
        index.write_text(json.dumps({"weight_map": weight_map | change}))
        with pytest.warns(UserWarning, match=re.escape(message)) as warned:
            check_stored(sources.read(str(index), scheme="xavier_normal").plan)
        assert len(warned) == 1
    save_file({"ids": TENSORS["ids"]}, tmp_path / "c.safetensors")
    with pytest.raises(ValueError, match=r"c\.safetensors: 'ids' is in another file too, b\.safetensors"):
        sources.read(str(tmp_path), scheme="zeros")
    index.write_text(json.dumps({"weight_map": {"gone": "gone.safetensors"}}))
    with pytest.raises(FileNotFoundError, match=r"x\.json: gone\.safetensors is missing"):
        sources.read(str(index), scheme="zeros")


def test_quantised_floats_are_refused_by_name(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"w": torch.zeros(3).to(torch.float8_e4m3fn)}, path)
    with pytest.raises(ValueError, match=r"a\.safetensors: 'w': F8_E4M3 has no law"):
        sources.read(str(path), scheme="zeros")


GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False}
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ({"quantization_config": FP8}, {}),
        ({"quantization_config": {}}, {}),
        ({"compression_config": {"format": "pack-quantized"}}, {}),
        ({"quantization": {"group_size": 64, "bits": 4}, "quantization_config": {"group_size": 64, "bits": 4}}, {}),
        ({"own": {"quantization_config": FP8, "size": 3}}, {"own": {"size": 3}}),
        ({"a": {"b": {"quantization_config": FP8}, "c": float("inf")}}, {"a": {"b": {}, "c": float("inf")}}),
    ],
)
def test_a_config_that_says_quantised_does_not_beside_plain_tensors(tmp_path, said, kept):
    """The plan is that of the plain model; so is a config that is given for another source."""
    plain = sources.read(str(config_of(tmp_path, "LlamaForCausalLM")))
    same_bytes = plain.extra_files()["config.json"]
    for source in ("file", "folder", "plan", "safetensors"):
        folder = tmp_path / source
        folder.mkdir()
        config = config_of(folder, "LlamaForCausalLM", **said)
        if source == "plan":
            found = sources.read("examples/gpt2.toml", config=config)
        elif source == "safetensors":
            save_file({"w": torch.ones(3, 4), "mask": torch.ones(3).int()}, folder / "a.safetensors")
            found = sources.read(str(folder / "a.safetensors"), scheme="zeros")
        else:
            found = sources.read(str(config if source == "file" else folder))
            same(found.plan, plain.plan)
        with pytest.warns(
            UserWarning, match=r"config\.json: the tensors are written unquantised: .*left out"
        ) as warned:
            (name, data), *_ = found.extra_files().items()
        assert len(warned) == 1
        assert (name, json.loads(data)) == ("config.json", json.loads(same_bytes) | kept)
    with pytest.warns(UserWarning, match="unquantised"):
        table = json.loads(sources.read(str(config), dtype="float16").extra_files()["config.json"])
    plain_table = {name: value for name, value in json.loads(same_bytes).items() if name != "torch_dtype"}
    assert table == plain_table | kept | {"dtype": "float16"}


@pytest.mark.parametrize(
    "said", [{"quantization_config": None}, {"quantization": "of the codebook"}, {"a": {"bits": 4}}]
)
def test_a_config_that_is_not_quantised_is_copied_as_it_is(tmp_path, said):
    config = config_of(tmp_path, "LlamaForCausalLM", **said)
    assert sources.read(str(config)).extra_files() == {"config.json": config.read_bytes()}


def test_a_checkpoint_of_quantised_weights_keeps_its_config(tmp_path):
    config = config_of(tmp_path, "LlamaForCausalLM", quantization_config=GPTQ)
    save_file(
        {"w.qweight": torch.ones(3, 4).int(), "w.scales": torch.ones(1, 4).half()}, tmp_path / "model.safetensors"
    )
    found = sources.read(str(tmp_path / "model.safetensors"), scheme="zeros")
    assert found.extra_files() == {"config.json": config.read_bytes()}


CODE = """
import torch
def model():
    return torch.nn.Linear(3, 4)
class Zoo:
    small = staticmethod(model)
def wrong():
    return 3
"""


def test_code_is_recorded(tmp_path, monkeypatch):
    (tmp_path / "own_models.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    expected = record(lambda: torch.nn.Linear(3, 4))
    for source in ("own_models:model", "own_models:Zoo.small"):
        same(sources.read(source).plan, expected)
    assert sys.path == path
    for source, message in {
        "own_models:modle": "unknown name 'modle'; did you mean 'model'",
        "own_models:wrong": "own_models:wrong: factory must return a torch.nn.Module",
        "own_modles:model": "No module named 'own_modles'",
    }.items():
        with pytest.raises(ValueError, match=message):
            sources.read(source)


def test_saved_plans_are_sources(tmp_path):
    plan = sources.read("examples/gpt2.toml", scheme="he_normal", rules=["wte.weight=normal(std=0.5)"]).plan
    assert plan["wte.weight"].distribution == fi.Normal(0, 0.5)
    assert plan["h.3.attn.c_attn.bias"].distribution == fi.Constant(0)
    for suffix, text in ((".toml", plan.to_toml()), (".json", plan.to_json())):
        path = tmp_path / f"plan{suffix}"
        path.write_text(text)
        same(sources.read(str(path)).plan, plan)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{}", r"no plan \(tensors\), no config \(model_type\) and no index"),
        ("a.txt", "", "a source must be"),
        ("a:b", "", "a source must be"),
    ],
)
def test_what_is_no_source(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        sources.read(str(tmp_path / name))


def test_an_empty_folder_and_nothing_at_all(tmp_path):
    with pytest.raises(
        ValueError, match=r"holds no config\.json with a model_type, no model\.safetensors\.index\.json"
    ):
        sources.read(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        sources.read(str(tmp_path / "nothing.toml"))


@pytest.mark.parametrize(("name", "extra"), [("transformers", "hf"), ("torch", "hf")])
def test_a_missing_library_is_named_with_its_extra(tmp_path, monkeypatch, name, extra):
    source, find_spec = config_of(tmp_path, "GPT2LMHeadModel"), importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda wanted, *more: None if wanted == name else find_spec(wanted, *more)
    )
    monkeypatch.setitem(sys.modules, name, None)
    if name == "torch":  # its import must fail again
        for module in [module for module in sys.modules if module.startswith("fastinit.torch")]:
            monkeypatch.delitem(sys.modules, module)
    done = command("plan", source)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert f"pip install 'fastinit-weights[{extra}]'" in done.stderr


def test_a_process_without_a_network(tmp_path):
    """The same plan, with nothing on stderr, and the environment is afterwards what it was."""
    path = config_of(tmp_path, "LlamaForCausalLM")
    script = (
        "import socket, os\n"
        "def refuse(*a, **k): raise AssertionError('network')\n"
        "socket.getaddrinfo = socket.socket.connect = refuse\n"
        "from fastinit.sources import read\n"
        f"plan = read({str(path)!r}).plan\n"
        "assert 'HF_HUB_OFFLINE' not in os.environ\n"
        "print(plan.to_json())\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    same(fi.Plan.from_table(json.loads(done.stdout)), sources.read(str(path)).plan)
