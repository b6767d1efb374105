"""Architectures of `transformers`, plain and under `fast_init`, on memory that holds NaN before: alike but for chance.

`python tests/families.py` tries all that there are; docs/frameworks.md has the list.
"""

import pytest
import torch
from families import build, differences, fast, tiny
from models import unlike_the_plan

import fastinit as fi
from fastinit.torch import record

FAMILIES = (  # noqa: SIM905
    "afmoe albert apertus arcee aria_text bart bert big_bird blip bloom clip codegen cohere convbert deberta "
    "deberta-v2 deepseek_v2 deepseek_v3 deit distilbert dpt electra ernie exaone4 falcon_mamba fnet gemma gemma2 "
    "gemma3_text git glm glm4 gpt2 gpt_bigcode gpt_neox gptj granite granitemoe ibert imagegpt jamba lilt llama "
    "longformer m2m_100 mamba mbart megatron-bert mistral mixtral mpnet mpt mra mt5 mvp nystromformer olmo olmo2 "
    "olmoe opt pegasus persimmon phi phi3 phimoe plbart prophetnet qwen2 qwen2_moe qwen3 qwen3_moe qwen3_next "
    "rembert roberta roformer siglip smollm3 squeezebert stablelm starcoder2 swin switch_transformers t5 "
    "timesformer umt5 vilt vit vit_mae vit_msn vivit wav2vec2 wavlm xlm-roberta xmod yolos yoso "
).split()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of transformers
@pytest.mark.parametrize("family", FAMILIES)
def test_a_start_differs_in_nothing_but_the_draws(family):
    assert differences(tiny(family)) == []


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "mamba", "mixtral", "resnet", "t5", "vit", "wav2vec2"])
def test_a_plan_is_the_model(family):
    config = tiny(family)
    plan, model = record(lambda: build(config)), fast(config, 3)
    assert unlike_the_plan(plan, model, fi.Key(3)) == []


@pytest.mark.filterwarnings("ignore")
def test_the_comparison_sees_what_is_wrong(monkeypatch):
    """A tensor that is not filled, of another law, or constant where it should not be."""
    config = tiny("llama")
    for spoil, words in (
        (lambda weight: weight.fill_(float("nan")), "not all of it is filled"),
        (lambda weight: weight.mul_(1.5), "std"),
        (lambda weight: weight.add_(0.02), "mean"),
        (lambda weight: weight.zero_(), "constant"),
    ):

        def spoilt(config, seed, spoil=spoil):
            model = fast(config, seed)
            with torch.no_grad():
                spoil(model.layers[1].mlp.up_proj.weight)
            return model

        monkeypatch.setattr("families.fast", spoilt)
        found = differences(config)[0]
        assert found.startswith("layers.1.mlp.up_proj.weight: ")
        assert words in found
