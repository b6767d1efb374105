"""Checkpoints of a config: `from_pretrained` of the real transformers loads them, bit for bit as `fast_init` builds."""

import json
import math
import shutil
import subprocess
import sys
import warnings
from fnmatch import fnmatch

import numpy as np
import pytest
import safetensors
import torch
import transformers
from families import tiny
from models import bits, differing, tensors, ties

from fastinit import checkpoint, cli, sources
from fastinit.torch import fast_init, materialize, record

SEED = 2**70 + 5
LARGE = 1000  # elements from which a standard deviation says something

# The stds that the papers and transformers' own code give, by the names they hold for; later patterns win.
STDS = {
    "gpt2": {"*": 0.02, "*.c_proj.weight": 0.02 / math.sqrt(2 * 2)},
    "llama": {"*": 0.02},
    "llama tied": {"*": 0.02},
    "mixtral": {"*": 0.02},
    "bert": {"*": 0.02},
    "t5": {
        "*": 32**-0.5,
        "shared.weight": 1.0,
        "*.q.weight": (32 * 8) ** -0.5,
        "*.wo.weight": 64**-0.5,
    },
    "vit": {"*": 0.02},
}
CLASSES = {
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "llama tied": "LlamaForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "bert": "BertForMaskedLM",
    "t5": "T5ForConditionalGeneration",
    "vit": "ViTForImageClassification",
    "mamba": "MambaForCausalLM",
    "recurrent_gemma": "RecurrentGemmaForCausalLM",
}
TIES = {"gpt2": [2], "llama": [], "llama tied": [2], "mixtral": [], "bert": [2, 2], "t5": [4], "vit": [], "mamba": [2]}


def config_in(folder, family, **changes):
    """A folder with a config.json, as the real class of a family writes it."""
    config = tiny(family.partition(" ")[0])
    config.architectures = [CLASSES[family]]
    for name, value in {"tie_word_embeddings": True, **changes}.items() if "tied" in family else changes.items():
        setattr(config, name, value)
    config.save_pretrained(folder)
    return folder


def write(source, out, **how):
    """The command, in this process."""
    cli._checkpoints.write(
        str(source), out, **{"seed": SEED, "max_shard_bytes": "40KB", "fsync": False, "as_json": True, **how}
    )


def built(folder, family, dtype=torch.float32):
    """The model that the recorded plan must be that of: transformers' own, under `fast_init`."""
    settings = transformers.AutoConfig.from_pretrained(folder)
    with fast_init(SEED):
        return getattr(transformers, CLASSES[family])._from_config(settings, dtype=dtype)


def loaded(folder, kind):
    """(model, what was missing and the like), with warnings as errors but transformers' own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, info = getattr(transformers, kind).from_pretrained(folder, dtype="auto", output_loading_info=True)
    return model, {name: sorted(map(str, found)) for name, found in info.items()}


def stored(folder):
    """All tensors of all files, as the real library reads them, name -> (file, tensor)."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safetensors.safe_open(path, "pt") as file:
            assert file.metadata() == {"format": "pt"}
            for name in file.keys():  # noqa: SIM118  no mapping
                assert name not in found
                found[name] = path.name, file.get_tensor(name)
    return found


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A checkpoint of each family, made when first asked for: (folder of the config, of the checkpoint)."""
    made = {}

    def of(family):
        if family not in made:
            source = config_in(tmp_path_factory.mktemp("config"), family)
            write(source, source / "out")
            made[family] = source, source / "out"
        return made[family]

    return of


@pytest.mark.parametrize("family", STDS)
def test_the_files_are_what_safetensors_and_the_hub_expect(written, family):
    source, out = written(family)
    found = stored(out)
    files = sorted(path.name for path in out.glob("*.safetensors"))
    assert files == [f"model-{i:05}-of-{len(files):05}.safetensors" for i in range(1, len(files) + 1)]
    assert len(files) > 2
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == {name: file for name, (file, _) in found.items()}
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for _, tensor in found.values())
    assert (out / "config.json").read_bytes() == (source / "config.json").read_bytes()
    assert sorted(contents(out)) == sorted([*files, "config.json", "fastinit.json", "model.safetensors.index.json"])


@pytest.mark.parametrize("family", STDS)
def test_from_pretrained_gives_the_model_of_fast_init(written, family):
    source, out = written(family)
    expected = built(source, family)
    model, info = loaded(out, CLASSES[family])
    assert info == {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": [], "error_msgs": []}
    assert differing(model, expected) == []
    assert ties(model) == ties(expected)
    assert [len(group) for group in ties(model)] == TIES[family]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("family", STDS)
def test_auto_classes_load_it_as_they_load_what_transformers_saves(written, family, tmp_path):
    source, out = written(family)
    expected = built(source, family)
    expected.save_pretrained(tmp_path)
    kinds = ["AutoModel"] + ["AutoModelForCausalLM"] * (family in ("gpt2", "llama", "llama tied", "mixtral"))
    for kind in kinds:
        ours, info = loaded(out, kind)
        theirs, own = loaded(tmp_path, kind)
        assert info == own
        drawn = {name for name in tensors(ours) if any(name.endswith(missing) for missing in info["missing_keys"])}
        assert set(differing(ours, theirs)) <= drawn  # of what is missing, e.g. BERT's pooler, each draws its own
        assert len(drawn) <= 2


@pytest.mark.parametrize("family", STDS)
def test_the_values_have_the_laws_of_the_model(written, family):
    """Against numbers that stand here, not against fastinit's own plan."""
    _, out = written(family)
    model, _ = loaded(out, CLASSES[family])
    checked = 0
    for name, tensor in model.named_parameters():
        values = tensor.detach().double().flatten()
        if "norm" in name.lower() or fnmatch(name, "*.ln_?.*"):
            assert values.eq(0.0 if name.endswith("bias") else 1.0).all(), name
        elif name.endswith("bias") and "relative" not in name:
            assert values.eq(0).all(), name
        elif values.numel() >= LARGE:
            (*_, std) = [std for pattern, std in STDS[family].items() if fnmatch(name, pattern)]
            assert abs(values.mean()) < 5 * std / math.sqrt(len(values)), name
            assert values.square().mean().sqrt() == pytest.approx(std, rel=5 / math.sqrt(2 * len(values))), name
            checked += 1
    assert checked >= 3
    assert len({bits(tensor) for tensor in model.parameters() if tensor.numel() >= LARGE}) == checked  # no two alike


@pytest.mark.parametrize("family", STDS)
def test_parts_and_one_file_give_the_same_values(written, family, tmp_path):
    source, out = written(family)
    for i in (3, 1, 2):
        write(source, tmp_path / "parts", part=f"{i}/3")
    assert contents(tmp_path / "parts") == contents(out)
    write(source, tmp_path / "one", max_shard_bytes="5GB")
    assert sorted(contents(tmp_path / "one")) == ["config.json", "fastinit.json", "model.safetensors"]
    ours, theirs = stored(out), stored(tmp_path / "one")
    assert ours.keys() == theirs.keys()
    assert all(bits(tensor) == bits(theirs[name][1]) for name, (_, tensor) in ours.items())
    model, info = loaded(tmp_path / "one", CLASSES[family])
    assert info["missing_keys"] == info["unexpected_keys"] == []
    assert differing(model, built(source, family)) == []


@pytest.mark.parametrize("family", ["gpt2", "llama tied", "mixtral", "bert", "t5", "vit", "mamba"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_a_dtype_that_is_asked_for(tmp_path, family, dtype):
    source = config_in(tmp_path / "source", family)
    write(source, tmp_path / "out", dtype=dtype)
    wanted = getattr(torch, dtype)
    model, info = loaded(tmp_path / "out", CLASSES[family])
    assert info["missing_keys"] == info["unexpected_keys"] == []
    built(source, family, wanted).save_pretrained(tmp_path / "theirs")
    kinds = [{tensor.dtype for _, tensor in stored(tmp_path / name).values()} for name in ("out", "theirs")]
    assert kinds[0] == kinds[1] >= {wanted}
    theirs, _ = loaded(tmp_path / "theirs", CLASSES[family])
    dtypes = {name: tensor.dtype for name, tensor in tensors(theirs).items()}  # some versions keep some in float32
    assert {name: tensor.dtype for name, tensor in tensors(model).items()} == dtypes
    assert wanted in dtypes.values()
    assert differing(model, theirs) == []
    assert checkpoint.verify(tmp_path / "out").problems == ()


@pytest.mark.parametrize(("asked", "wanted"), [(None, "bfloat16"), ("float32", "float32")])
def test_the_configs_own_dtype_holds_unless_another_is_asked_for(tmp_path, asked, wanted):
    source = config_in(tmp_path / "source", "llama", dtype="bfloat16")
    write(source, tmp_path / "out", dtype=asked)
    model, _ = loaded(tmp_path / "out", "AutoModelForCausalLM")
    assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, wanted)}
    assert differing(model, built(source, "llama", getattr(torch, wanted))) == []
    assert model.config.dtype == getattr(torch, wanted)


def test_what_transformers_keeps_in_float32_is_rounded_once(tmp_path):
    """T5's `wo` is loaded in float32 also from a float16 checkpoint, whoever wrote that."""
    source = config_in(tmp_path / "source", "t5")
    write(source, tmp_path / "out", dtype="float16")
    assert {tensor.dtype for _, tensor in stored(tmp_path / "out").values()} == {torch.float16}
    model, _ = loaded(tmp_path / "out", CLASSES["t5"])
    expected = tensors(built(source, "t5", torch.float16))
    wide = [name for name, tensor in tensors(model).items() if tensor.dtype == torch.float32]
    assert len(wide) == 4
    assert all(name.endswith(".wo.weight") for name in wide)
    assert all(bits(tensor.half()) == bits(expected[name]) for name, tensor in tensors(model).items())


def test_mixtral_is_written_with_the_names_of_the_modules(written, tmp_path):
    """transformers saves each expert's matrices under the names of the first release, and loads both ways."""
    source, out = written("mixtral")
    expected = built(source, "mixtral")
    expected.save_pretrained(tmp_path)
    ours, theirs = stored(out), stored(tmp_path)
    assert ours.keys() == dict(expected.named_parameters()).keys()
    experts = "model.layers.1.mlp.experts"
    if transformers.__version__.startswith("4."):  # each expert is a module: there are no other names
        assert ours.keys() == theirs.keys()
        return
    released = "model.layers.1.block_sparse_moe.experts"
    assert f"{experts}.gate_up_proj" not in theirs
    assert f"{released}.3.w1.weight" in theirs
    model, info = loaded(out, "AutoModelForCausalLM")
    assert not any(info.values())
    gate_up, down = ours[f"{experts}.gate_up_proj"][1], ours[f"{experts}.down_proj"][1]
    width = gate_up.shape[1] // 2
    for expert in range(4):
        parts = {"w1": gate_up[expert, :width], "w3": gate_up[expert, width:], "w2": down[expert]}
        for name, part in parts.items():
            assert torch.equal(part, theirs[f"{released}.{expert}.{name}.weight"][1])
    assert torch.equal(model.model.layers[1].mlp.experts.gate_up_proj, gate_up)


def test_record_and_materialize_give_the_same_model(written):
    source, out = written("t5")
    settings = transformers.AutoConfig.from_pretrained(source)
    plan = record(lambda: transformers.T5ForConditionalGeneration._from_config(settings, dtype=torch.float32))
    with torch.device("meta"):
        model = transformers.T5ForConditionalGeneration._from_config(settings, dtype=torch.float32)
    materialize(model, plan, SEED)
    ours, _ = loaded(out, CLASSES["t5"])
    assert differing(ours, model) == []


def test_the_loaded_model_runs(written):
    source, out = written("gpt2")
    model, _ = loaded(out, CLASSES["gpt2"])
    words = torch.arange(10).view(1, 10)
    with torch.no_grad():
        logits, expected = model(words).logits, built(source, "gpt2").eval()(words).logits
    assert torch.equal(logits, expected)
    assert logits.std() > 0.01
    loss = model.train()(words, labels=words).loss
    loss.backward()
    assert loss.item() == pytest.approx(math.log(128), rel=0.05)  # as of a model that knows nothing
    assert model.transformer.wte.weight.grad.abs().sum() > 0


@pytest.mark.slow
def test_the_command_as_a_process(written, tmp_path):
    source, out = written("llama tied")
    command = [sys.executable, "-m", "fastinit.cli", "write", source, "--out", tmp_path, "--seed", SEED]
    command += ["--max-shard-bytes", "40KB", "--threads", "1", "--no-fsync"]
    for part in ("2/2", "1/2"):
        done = subprocess.run([*map(str, command), "--part", part], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert ("other parts are missing" in done.stdout) is (part == "2/2")
    assert contents(tmp_path) == contents(out)


@pytest.mark.parametrize("family", ["mamba", "recurrent_gemma"])
def test_tensors_that_the_constructor_computes_of_draws(tmp_path, family):
    """Written, stopped, gone on with, verified, damaged, repaired, loaded."""
    source, out = config_in(tmp_path / "source", family), tmp_path / "out"
    plan = sources.read(str(source)).plan
    computed = [name for name, fill in plan.filled.items() if type(fill.distribution).__name__ == "Computed"]
    assert len(computed) == 2
    write(source, out, part="1/2")
    assert not (out / "model.safetensors.index.json").exists()
    write(source, out)
    write(source, tmp_path / "undisturbed")
    assert contents(out) == contents(tmp_path / "undisturbed")
    before = contents(out)
    model, info = loaded(out, CLASSES[family])
    assert not any(info.values())
    assert differing(model, built(source, family)) == []
    for name in computed:
        file, tensor = stored(out)[name]
        assert tensor.unique().numel() > 8  # they are draws
        path, value = out / file, bits(tensor)
        data = path.read_bytes()
        place = data.index(value) + len(value) - 1
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x40]) + data[place + 1 :])
    found = checkpoint.verify(out, repair=True)
    assert set(found.differing) == set(computed)
    assert contents(out) == before
    assert checkpoint.verify(out).problems == ()


def test_another_seed_gives_another_model_with_the_same_constants(written, tmp_path):
    source, out = written("bert")
    write(source, tmp_path, seed=SEED + 1)
    ours, theirs = stored(out), stored(tmp_path)
    same = {name for name, (_, tensor) in ours.items() if torch.equal(tensor, theirs[name][1])}
    assert same == {name for name, (_, tensor) in ours.items() if tensor.unique().numel() == 1}
    assert "bert.embeddings.LayerNorm.weight" in same


QUANTISED = {
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False},
    "fp8": {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]},
    "bitsandbytes": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "quant_method": "bitsandbytes"},
    "torchao": {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int4WeightOnlyConfig", "_data": {}}}},
    "mxfp4": {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]},
}


@pytest.mark.parametrize("method", QUANTISED)
def test_the_config_of_a_quantised_release_gives_plain_weights_that_load(written, tmp_path, method):
    source, out = written("llama")
    table = json.loads((source / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(table | {"quantization_config": QUANTISED[method]}))
    with pytest.warns(UserWarning, match="quantization_config is left out of the copied config"):
        write(tmp_path, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == table
    assert {n: bits(t) for n, (_, t) in stored(tmp_path / "out").items()} == {
        n: bits(t) for n, (_, t) in stored(out).items()
    }
    _, info = loaded(tmp_path / "out", "AutoModelForCausalLM")
    assert not any(info.values())


@pytest.mark.parametrize(
    ("family", "architecture", "method", "inside"),
    [
        ("deepseek_v3", "DeepseekV3ForCausalLM", "fp8", None),
        ("gpt_oss", "GptOssForCausalLM", "mxfp4", None),
        ("llava", "LlavaForConditionalGeneration", "gptq", "text_config"),
    ],
)
def test_families_that_are_released_quantised(tmp_path, family, architecture, method, inside):
    config = tiny(family)
    config.architectures = [architecture]
    config.save_pretrained(tmp_path)
    plain = sources.read(str(tmp_path)).plan
    table = json.loads((tmp_path / "config.json").read_text())
    (table[inside] if inside else table)["quantization_config"] = QUANTISED[method]
    (tmp_path / "config.json").write_text(json.dumps(table))
    with pytest.warns(UserWarning, match="quantization_config is left out of the copied config"):
        write(tmp_path, tmp_path / "out")
    assert sources.read(str(tmp_path)).plan.to_table() == plain.to_table()
    assert "quantization_config" not in (tmp_path / "out" / "config.json").read_text()
    _, info = loaded(tmp_path / "out", architecture)
    assert not any(info.values())


@pytest.mark.parametrize("family", ["gpt2", "llama tied", "t5"])
@pytest.mark.parametrize("shards", ["20KB", "1MB"])
def test_what_save_pretrained_writes_of_the_loaded_model_is_the_same(written, tmp_path, family, shards):
    """In the folder itself, in other shards or in one file, which leaves the old index."""
    _, out = written(family)
    folder = tmp_path / "out"
    shutil.copytree(out, folder)
    model, _ = loaded(folder, CLASSES[family])
    model.save_pretrained(folder, max_shard_size=shards)
    assert (len(list(folder.glob("*.safetensors"))) == 1) is (shards == "1MB")
    found = checkpoint.verify(folder)
    assert (found.problems, found.layout) == ((), "other")
    with torch.no_grad():
        name, parameter = list(model.named_parameters())[-1]
        parameter.view(-1)[5] = 7
    model.save_pretrained(folder, max_shard_size=shards)
    found = checkpoint.verify(folder)
    index = [int(i) for i in np.unravel_index(5, parameter.shape)]
    assert found.differing == (name,)
    assert f": {name}{index} must be " in found.problems[0]
    assert "Received: 7.0" in found.problems[0]
    assert checkpoint.verify(folder, repair=True).repaired
    assert checkpoint.verify(folder).problems == ()
    ours, info = loaded(folder, CLASSES[family])
    assert not any(info.values())
    assert differing(ours, loaded(out, CLASSES[family])[0]) == []
