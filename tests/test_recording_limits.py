"""Recordings that would not end: configs with absurd numbers, and constructors that register ever more."""

import importlib
import itertools
import json
import resource
import sys

import processes
import pytest
import torch
from processes import command
from torch import nn

from fastinit import sources
from fastinit._runtime.limits import address_space
from fastinit.torch import fast_init, record

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 2,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_attention_heads": 4,
    "vocab_size": 50,
}
# Key or changes -> what the error says. A config that is not refused takes gigabytes and minutes, or never ends.
ABSURD = {
    "num_hidden_layers": (LLAMA | {"num_hidden_layers": 10**9}, "num_hidden_layers must be at most 20,000"),
    "just too many": (LLAMA | {"num_hidden_layers": 20_001}, "num_hidden_layers must be at most 20,000"),
    "a float": (LLAMA | {"num_hidden_layers": 1e9}, "num_hidden_layers must be at most 20,000"),
    "infinite": (LLAMA | {"num_hidden_layers": float("inf")}, "num_hidden_layers must be at most 20,000"),
    "very long": (LLAMA | {"num_hidden_layers": 10**3000}, "num_hidden_layers must be at most 20,000"),
    "heads": (LLAMA | {"num_key_value_heads": 10**9}, "num_key_value_heads must be at most 20,000"),
    "labels": (LLAMA | {"num_labels": 10**9}, "num_labels must be at most 200,000"),
    "gpt2": ({"model_type": "gpt2", "n_layer": 10**9}, "n_layer must be at most 20,000"),
    "t5": ({"model_type": "t5", "num_decoder_layers": 10**9}, "num_decoder_layers must be at most 20,000"),
    "mixtral": ({"model_type": "mixtral", "num_local_experts": 10**9}, "num_local_experts must be at most 20,000"),
    "a list": ({"model_type": "swin", "depths": [2, 10**9]}, "depths must be at most 20,000"),
    "inside": ({"model_type": "siglip", "vision_config": {"num_hidden_layers": 10**9}}, "must be at most 20,000"),
    "positions": ({"model_type": "bert", "max_position_embeddings": 10**9}, "must be at most 12,000,000"),
    "no key tells": ({"model_type": "gpt_neo", "attention_types": [[["global"], 10**9]]}, "its numbers make lists of"),
}
REFUSED = """
import json, re, resource, tempfile
from pathlib import Path
import fastinit.torch
from fastinit import sources
from transformers.models.llama import modeling_llama  # what every config takes
resource.setrlimit(resource.RLIMIT_AS, (16 << 30, -1))  # should one not be refused
path = Path(tempfile.mkdtemp()) / "config.json"
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
said = []
for config in json.loads(CONFIGS):
    path.write_text(json.dumps(config))
    before = peak()
    try:
        sources.read(str(path))
        raise SystemExit(f"not refused: {config}")
    except ValueError as error:
        said.append(str(error))
    assert peak() - before < 200e6, (peak() - before, said)
assert resource.getrlimit(resource.RLIMIT_AS)[0] == 16 << 30
print(json.dumps(said))
"""


@pytest.mark.slow
def test_absurd_numbers_in_a_config():
    configs = json.dumps([config for config, _ in ABSURD.values()])
    said = json.loads(processes.run(REFUSED.replace("CONFIGS", repr(configs)), timeout=100))
    for text, (_, expected) in zip(said, ABSURD.values(), strict=True):
        assert expected in text
        assert "config.json: " in text
        assert len(text) < 400


def test_large_numbers_that_are_sizes():
    """Names that say a size, an id or a base are no counts of anything that is made one by one."""
    changes = {
        "vocab_size": 2_000_000,
        "bos_token_id": 1_999_999,
        "rope_theta": 10**9,
        "max_position_embeddings": 10**7,
    }
    changes |= {"num_image_tokens": 10**6, "vocab_size_per_layer_input": 10**6, "total_steps": 10**12}
    _read(LLAMA | changes)


@pytest.mark.slow
def test_no_default_config_is_refused():
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES

    check_counts = importlib.import_module("fastinit.torch._pretrained")._check_counts
    checked = 0
    for model_type in CONFIG_MAPPING_NAMES:
        try:
            config = CONFIG_MAPPING[model_type]().to_dict()
        except Exception:  # two of 800 have defaults that they refuse themselves
            continue
        check_counts(config, 200_000)
        checked += 1
    assert checked > 200


def _read(config, **options):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps(config))
        return sources.read(str(path), **options).plan


def test_the_number_of_tensors_of_a_config_can_be_chosen(tmp_path):
    number = len(_read(LLAMA))
    assert len(_read(LLAMA, max_tensors=number)) == number
    with pytest.raises(ValueError, match=rf"config.json: .* more than {number - 1} tensors"):
        _read(LLAMA, max_tensors=number - 1)
    deep = LLAMA | {"num_hidden_layers": 30_000, "vocab_size": -1}
    with pytest.raises(ValueError, match=r"num_hidden_layers must be at most 25,000\. Received: 30000"):
        _read(deep, max_tensors=250_000)
    with pytest.raises(ValueError, match="cannot be built of it"):
        _read(deep, max_tensors=300_000)
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    for arguments in (["plan"], ["write", "--out", tmp_path / "out"]):
        done = command(*arguments, tmp_path, "--max-tensors", number - 1)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert f"more than {number - 1} tensors" in done.stderr
        assert "--max-tensors" in done.stderr
    assert not (tmp_path / "out").exists()
    assert command("plan", tmp_path, "--max-tensors", number).returncode == 0


def test_a_constructor_that_registers_too_much():
    def linears(number):
        return nn.ModuleList(nn.Linear(2, 2) for _ in range(number))

    assert len(record(lambda: linears(5), max_tensors=10)) == 10
    with pytest.raises(ValueError, match="more than 9 tensors, or 36 modules: if it is meant to, allow more"):
        record(lambda: linears(5), max_tensors=9)
    with pytest.raises(ValueError, match="more than 3 tensors, or 12 modules"):
        record(lambda: nn.Sequential(*(nn.Identity() for _ in range(13))), max_tensors=3)
    with pytest.raises(ValueError, match="more than 1,000 tensors"):
        record(lambda: nn.ModuleList(nn.Linear(2, 2) for _ in itertools.count()), max_tensors=1000)
    with fast_init(seed=0):  # nothing counts any more
        assert len(list(linears(20).parameters())) == 40


def test_buffers_count_too():
    module = nn.Module()

    def build():
        for i in itertools.count():
            module.register_buffer(f"b{i}", torch.zeros(1))

    with pytest.raises(ValueError, match="more than 100 tensors"):
        record(build, max_tensors=100)


@pytest.mark.parametrize("number", [0, -1, 1.5, "many", True])
def test_max_tensors_must_be_a_positive_int(number):
    with pytest.raises((ValueError, TypeError), match="max_tensors must be"):
        record(lambda: nn.Linear(2, 2), max_tensors=number)


def test_code_is_bounded_as_configs_are(tmp_path, monkeypatch):
    (tmp_path / "endless.py").write_text(
        "from itertools import count\nfrom torch import nn\n"
        "def model():\n    return nn.ModuleList(nn.Linear(2, 2) for _ in count())\n"
    )
    done = command("plan", "endless:model", "--max-tensors", 500, cwd=tmp_path)
    monkeypatch.delitem(sys.modules, "endless", raising=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "more than 500 tensors" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say how much address space is in use")
def test_a_limit_of_address_space():
    before = resource.getrlimit(resource.RLIMIT_AS)
    with address_space(64 << 20):
        assert len(bytes(1 << 20)) == 1 << 20
        with pytest.raises(MemoryError):
            bytes(1 << 30)
        inner = resource.getrlimit(resource.RLIMIT_AS)[0]
        with address_space(1 << 40):  # a smaller one stays
            assert resource.getrlimit(resource.RLIMIT_AS)[0] == inner
        assert resource.getrlimit(resource.RLIMIT_AS)[0] == inner
    assert resource.getrlimit(resource.RLIMIT_AS) == before


COMPUTED = {
    "masks of n by n": {"model_type": "gpt_neo", "max_position_embeddings": 150_000},
    "a table of sines": {"model_type": "gptj", "n_positions": 9_000_000, "architectures": ["GPTJForCausalLM"]},
    "indices of pairs": {"model_type": "swin", "window_size": 300, "architectures": ["SwinModel"]},
    "a logarithm for each state": {"model_type": "mamba", "state_size": 400_000},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPUTED)
def test_what_a_constructor_computes_is_bounded(tmp_path, name):
    (tmp_path / "config.json").write_text(json.dumps(COMPUTED[name]))
    with pytest.raises((ValueError, MemoryError), match=r"computes tensors of more than|no address space"):
        sources.read(str(tmp_path / "config.json"))
