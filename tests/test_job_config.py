"""A job file names the Hugging Face config of its model, and the checkpoint is what transformers loads."""

import json
import re
from pathlib import Path

import pytest
import torch
import transformers
from processes import command

import fastinit as fi
from fastinit import checkpoint, sources

EXAMPLES = Path(__file__).parents[1] / "examples"
CONFIG = {"model_type": "gpt2", "n_layer": 2, "n_embd": 8, "n_head": 2, "n_positions": 16, "vocab_size": 40}
JOB = '{top}[tensors."a.{{0..3}}.weight"]\nshape = [8, 8]\nscheme = "normal"\n'


def job(folder, top='config = "own.json"\n', config=CONFIG):
    (folder / "job.toml").write_text(JOB.format(top=top))
    (folder / "own.json").write_text(json.dumps(config))
    return str(folder / "job.toml")


def config_beside(source, **how):
    return json.loads(sources.read(source, **how).extra_files()["config.json"])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gpt2_loads_as_the_readme_writes_it(tmp_path, dtype):
    out = tmp_path / "gpt2-init"
    options = [] if dtype == "float32" else ["--dtype", dtype]
    command("write", EXAMPLES / "gpt2.toml", "--out", out, *options)
    model, report = transformers.AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert isinstance(model, transformers.GPT2LMHeadModel)
    assert not any(report.values())
    assert model.lm_head.weight is model.transformer.wte.weight
    assert model.dtype == getattr(torch, dtype)
    plan = fi.Plan.from_toml(EXAMPLES / "gpt2.toml").with_dtype(dtype)
    loaded = dict(model.transformer.named_parameters())
    assert loaded.keys() == plan.keys()
    for name, fill in plan.filled.items():
        expected = torch.empty(fill.shape, dtype=getattr(torch, dtype))
        plan.fill({name: _numpy(expected)})
        assert torch.equal(loaded[name], expected), name


def _numpy(tensor):
    import ml_dtypes

    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


@pytest.mark.parametrize("name", ["gpt2", "llama-405b"])
def test_configs_of_examples_have_the_tensors_of_their_jobs(name):
    """Names, shapes, dtypes and distributions, but for what GPT-2's config does not say: the depth of its residuals."""
    found = sources.read(str(EXAMPLES / f"{name}.toml"))
    said = sources.read(str(found.config)).plan
    prefix = {"gpt2": "transformer.", "llama-405b": ""}[name]
    drawn = {n.removeprefix(prefix): (f.shape, f.dtype, f.distribution) for n, f in said.filled.items() if f.persistent}
    assert {n: (f.shape, f.dtype, f.distribution) for n, f in found.plan.filled.items()} == drawn


def test_config_is_written_beside(tmp_path):
    """Whole, in parts, again after a stop, and with another config only if it may replace the first."""
    source = job(tmp_path)
    out, parts = tmp_path / "out", tmp_path / "parts"
    command("write", source, "--out", out)
    written = (out / "config.json").read_bytes()
    assert json.loads(written) == CONFIG | {"dtype": "float32"}
    for part in ("1/2", "2/2"):
        command("write", source, "--out", parts, "--max-shard-bytes", "300", "--part", part)
    assert (parts / "config.json").read_bytes() == written
    (out / "config.json").unlink()
    command("write", source, "--out", out)
    assert (out / "config.json").read_bytes() == written
    assert not checkpoint.verify(out).problems
    (tmp_path / "own.json").write_text(json.dumps(CONFIG | {"n_head": 4}))
    done = command("write", source, "--out", out)
    assert done.returncode == 1
    assert "config.json" in done.stderr
    assert (out / "config.json").read_bytes() == written
    command("write", source, "--out", out, "--overwrite")
    assert json.loads((out / "config.json").read_text())["n_head"] == 4


@pytest.mark.parametrize(
    ("top", "asked", "said"),
    [
        ('config = "own.json"\n', None, "float32"),
        ('config = "own.json"\ndtype = "bfloat16"\n', None, "bfloat16"),
        ('config = "own.json"\ndtype = "bfloat16"\n', "float16", "float16"),
        ('config = "own.json"\n[tensors.b]\nshape = [3]\nscheme = "ones"\ndtype = "float64"\n', None, "float8"),
    ],
)
def test_config_has_the_dtype_of_the_tensors(tmp_path, top, asked, said):
    """Where the tensors have several, the config's own stays."""
    source = job(tmp_path, top, CONFIG | {"dtype": "float8"})
    assert config_beside(source, dtype=asked) == CONFIG | {"dtype": said}


def test_saved_plans_and_the_option(tmp_path):
    source = job(tmp_path)
    saved = json.loads(sources.read(source).plan.to_json())
    (tmp_path / "plan.json").write_text(json.dumps(saved | {"config": "own.json"}))
    assert config_beside(str(tmp_path / "plan.json")) == config_beside(source)
    (tmp_path / "other.json").write_text('{"model_type": "other"}')
    assert config_beside(source, config=tmp_path / "other.json") == {"model_type": "other"}
    assert sources.read(job(tmp_path, "")).extra_files() == {}


@pytest.mark.parametrize("place", ["{outside}/secret.json", "../secret.json", "link.json"])
def test_config_outside_of_the_folder_is_not_copied(tmp_path, place):
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret.json").write_text("{}")
    (inside / "link.json").symlink_to(tmp_path / "secret.json")
    source = job(inside, f'config = "{place.format(outside=tmp_path)}"\n')
    done = command("write", source, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert re.search(r"leads out of .*Give the file that you mean by --config", done.stderr)
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"job\.toml: config must be the name of a file\. Received: config=3"):
        sources.read(job(tmp_path, "config = 3\n"))
    source = job(tmp_path, 'config = "missing.json"\n')
    assert len(sources.read(source).plan) == 4  # a plan needs no config
    with pytest.raises(FileNotFoundError, match=r"missing\.json"):
        sources.read(source).extra_files()
    with pytest.raises(ValueError, match=r"own\.json: must hold an object"):
        sources.read(job(tmp_path, config="weights")).extra_files()


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("option", ["--toml", "--json"])
def test_a_printed_plan_names_its_config(tmp_path, monkeypatch, option):
    """From the current folder; the plan is a source from any other. Of a config elsewhere it has no name."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "other").mkdir()
    job(tmp_path / "sub")
    (tmp_path / "sub" / "config.json").write_text(json.dumps(CONFIG | {"architectures": ["GPT2LMHeadModel"]}))
    monkeypatch.chdir(tmp_path)
    for source in ("sub/job.toml", tmp_path / "sub" / "config.json"):
        saved = tmp_path / f"plan.{option[2:]}"
        saved.write_text(command("plan", source, option).stdout)
        monkeypatch.chdir(tmp_path / "other")
        assert command("write", saved, "--out", "out", "--overwrite").returncode == 0
        assert json.loads(Path("out/config.json").read_text())["n_embd"] == 8
        done = command("plan", tmp_path / "sub" / "job.toml", option)
        assert done.stdout.splitlines()[0] == {"--toml": "seed = 0", "--json": "{"}[option]
        assert "config" not in done.stdout
        assert "own.json is not in the current folder, and the plan does not name it" in done.stderr
        monkeypatch.chdir(tmp_path)
