"""Configs of strangers: no code that they name is run, nothing is asked, nothing is fetched."""

import contextlib
import json
import os
import pty
import select
import socket
import subprocess
import sys
import time
from pathlib import Path

import processes
import pytest
import torch

from fastinit.sources import read
from fastinit.torch import _pretrained

AUTO = dict.fromkeys(("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoBackbone"), "evil.Evil")
TINY = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 20}
LLAMA = {"model_type": "llama", "num_key_value_heads": 2, **TINY}
CLIP = {"model_type": "clip_vision_model", "image_size": 8, "patch_size": 4, **TINY}
BERT = {"model_type": "bert", **TINY}
GPT2 = {"model_type": "gpt2", "n_layer": 1, "n_embd": 8, "n_head": 2, "vocab_size": 10}
LLAVA = {"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"], "image_token_index": 3}
PAIR = {"model_type": "encoder-decoder", "architectures": ["EncoderDecoderModel"]}
# transformers has no AutoModel for these, so it would look for one in `auto_map`.
NO_MODEL = {"model_type": "rag"}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Any attempt fails the test, also where an error of the network would be taken for an answer."""
    tried = []

    def connect(*arguments):
        tried.append(arguments)
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    yield
    assert tried == []


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """What gives the plan of a config that lies beside code which makes a file when it is imported."""
    monkeypatch.chdir(tmp_path)
    Path("evil.py").write_text("open('ran', 'w').close()\nclass Evil: ...\n")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))

    def plan(config):
        Path("config.json").write_text(json.dumps(config))
        return read("config.json").plan

    yield plan
    assert not Path("ran").exists()


def both(config, **changes):
    return config | {"auto_map": AUTO} | changes


# A config with code inside -> the same without.
NESTED = {
    "at the top": (both(GPT2), GPT2),
    "a text and a vision config": (
        LLAVA | {"text_config": both(LLAMA), "vision_config": both(CLIP)},
        LLAVA | {"text_config": LLAMA, "vision_config": CLIP},
    ),
    "encoder and decoder": (
        PAIR | {"encoder": both(BERT), "decoder": both(BERT, is_decoder=True)},
        PAIR | {"encoder": BERT, "decoder": BERT | {"is_decoder": True}},
    ),
    "deeper, and in a list": (
        GPT2 | {"parts": [{"inner": [both(LLAMA)]}], "task_specific_params": {"a": both({})}},
        GPT2,
    ),
}


@pytest.mark.parametrize("kind", NESTED)
def test_code_that_is_named_inside_is_not_run(planned, kind):
    hostile, plain = NESTED[kind]
    assert list(planned(hostile).items()) == list(planned(plain).items())


REFUSED = {
    "an unknown type at the top": (
        both({"model_type": "mine"}),
        "'mine' has its class in remote code, which is not run",
    ),
    "an unknown type inside": (
        LLAVA | {"text_config": both({"model_type": "mine"})},
        "text_config: 'mine' has its class in remote code, which is not run",
    ),
    "an unknown type in a list": (
        GPT2 | {"parts": [GPT2, both({"model_type": ["mine"]})]},
        "parts[1]: ['mine'] has its class in remote code, which is not run",
    ),
    "a type without such a model": (
        LLAVA | {"text_config": LLAMA, "vision_config": both(NO_MODEL)},
        "Unrecognized configuration class",
    ),
    "the name of the code under another name": (
        LLAVA | {"text_config": LLAMA, "vision_config": NO_MODEL | {"attribute_map": {"auto_map": "x"}, "x": AUTO}},
        "Unrecognized configuration class",
    ),
    "a backbone of the Hub": (
        {"model_type": "dpt", "architectures": ["DPTForDepthEstimation"], "backbone": "evil/backbone"}
        | {"use_pretrained_backbone": True, "use_timm_backbone": False},
        "offline mode is enabled",
    ),
    "a model of timm from the Hub": (
        {"model_type": "timm_wrapper", "architectures": ["TimmWrapperModel"], "architecture": "hf-hub:evil/model"},
        "architecture must be a name, not a place. Received: 'hf-hub:evil/model'",
    ),
    "a backbone of timm from a folder": (
        {"model_type": "dpt", "backbone_config": {"model_type": "timm_backbone", "backbone": "local-dir:/evil"}},
        "backbone_config.backbone must be a name, not a place. Received: 'local-dir:/evil'",
    ),
    "a dtype that is a function": (
        GPT2 | {"dtype": "load"},
        "dtype must be one of float16, bfloat16, float32, float64",
    ),
    "a dtype that is a path": (GPT2 | {"dtype": "os.system"}, "os.system"),
    "values in values": (GPT2 | {"x": json.loads("[" * 700 + "]" * 700)}, "nested too deeply"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_configs_that_need_code_or_files_are_refused(planned, kind):
    config, message = REFUSED[kind]
    with pytest.raises(ValueError) as error:  # noqa: PT011  the message is looked at
        planned(config)
    assert message in str(error.value)
    assert str(error.value).startswith("config.json: ")
    assert "\n" not in str(error.value)


KERNELS = {
    "attention of the Hub": {"attn_implementation": "kernels-community/flash-attn"},
    "by its private name": {"_attn_implementation": "evil/kernel"},
    "inside": {"parts": [{"_attn_implementation_internal": "evil/kernel"}]},
    "under another name": {"attribute_map": {"_attn_implementation": "x"}, "x": "evil/kernel"},
    "what is not installed": {"_attn_implementation": "flash_attention_2"},
    "experts of the Hub": {"experts_implementation": "evil/kernel", "use_kernels": True},
}


@pytest.mark.parametrize("kind", KERNELS)
def test_kernels_of_the_hub_have_no_part_in_a_plan(planned, monkeypatch, kind):
    from transformers.integrations import hub_kernels

    monkeypatch.setattr(hub_kernels, "get_kernel_hub", lambda *_, **__: pytest.fail("fetched"), raising=False)
    assert list(planned(GPT2 | KERNELS[kind]).items()) == list(planned(GPT2).items())


def test_transformers_is_kept_from_all_of_that_inside_a_block_only():
    from huggingface_hub import constants
    from transformers import dynamic_module_utils
    from transformers.integrations import hub_kernels

    def settings():
        return constants.HF_HUB_OFFLINE, dynamic_module_utils.TIME_OUT_REMOTE_CODE, hub_kernels.is_kernels_available

    before = settings()
    with contextlib.suppress(ZeroDivisionError), _pretrained._offline():
        offline, seconds, available = settings()
        assert (offline, seconds, available()) == (True, 0, False)
        with pytest.raises(ValueError, match="execute custom code"):  # instead of a question
            dynamic_module_utils.resolve_trust_remote_code(None, "evil", False, True)
        1 / 0  # noqa: B018
    assert settings() == before


def test_a_file_that_timm_would_load_is_left_out(tmp_path):
    """timm.create_model(checkpoint_path=...) unpickles it."""
    config = {"model_type": "timm_wrapper", "architectures": ["TimmWrapperModel"], "architecture": "resnet18"}
    config |= {"model_args": {"checkpoint_path": "evil.pth", "depth": 3}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    kind, settings = _pretrained._model_class(config, tmp_path / "config.json")
    assert kind.__name__ == "TimmWrapperModel"
    assert settings.model_args == {"depth": 3}


def test_names_of_files_are_only_names(planned):
    other = {"_name_or_path": "/nowhere/evil", "name_or_path": "evil/x", "tokenizer_class": "evil.Evil"}
    other |= {"custom_pipelines": {"x": {"impl": "evil.Evil", "pt": ["Evil"]}}, "transformers_version": "99"}
    assert list(planned(GPT2 | other).items()) == list(planned(GPT2).items())


def test_a_special_number_of_transformers_5(planned):
    config = LLAMA | {"architectures": ["LlamaForCausalLM"], "rms_norm_eps": {"__float__": "Infinity"}}
    assert planned(config)
    assert _pretrained._model_class(config, Path("config.json"))[1].rms_norm_eps == float("inf")
    assert torch.get_default_dtype() == torch.float32


# What is asked is only asked at a terminal. -> part of the one line that is printed.
AT_A_TERMINAL = {
    "a type without such a model": "Unrecognized configuration class",
    "an unknown type inside": "remote code, which is not run",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", AT_A_TERMINAL)
def test_nothing_is_asked_at_a_terminal(tmp_path, kind):
    (tmp_path / "config.json").write_text(json.dumps(REFUSED[kind][0]))
    (tmp_path / "evil.py").write_text("open('ran', 'w').close()\nclass Evil: ...\n")
    ours, theirs = pty.openpty()
    command = [Path(sys.executable).with_name("fastinit"), "plan", "config.json"]
    env = processes.environment()
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path, env=env) as process:
        os.close(theirs)
        shown, end = b"", time.monotonic() + 100
        while process.poll() is None or select.select([ours], [], [], 0)[0]:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    shown += os.read(ours, 1 << 16)
                except OSError:  # all is read
                    break
            if b"[y/N]" in shown or time.monotonic() > end:
                process.kill()
    os.close(ours)
    assert process.returncode == 1, shown
    lines = shown.decode().splitlines()
    assert len(lines) == 1
    assert AT_A_TERMINAL[kind] in lines[0]
    assert not (tmp_path / "ran").exists()
