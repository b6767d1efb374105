"""Architectures of `transformers`, plain and under `fast_init`, on memory that holds NaN before: alike but for chance.

Ten families stand for all in the default run. `pytest -m families` tries every one that there is, before a release;
`python tests/families.py llama vit` tries two and prints the list of docs/families.md.
"""

import pytest
import torch
from families import CONFIG_MAPPING, build, differences, fast, tiny, tried
from models import unlike_the_plan

import fastinit as fi
from fastinit.torch import record

# A family for each way to draw or to name: ties and padding (bart, bert), Conv1D (gpt2), computed values (mamba,
# qwen3_next), stacked experts (mixtral), orthogonal_ (rwkv), trunc_normal_ and images (swin), tables of positions (t5),
# and weight norm (wav2vec2).
FAMILIES = ["bart", "bert", "gpt2", "mamba", "mixtral", "qwen3_next", "rwkv", "swin", "t5", "wav2vec2"]


@pytest.mark.filterwarnings("ignore")  # of transformers
@pytest.mark.parametrize("family", FAMILIES)
def test_a_start_differs_in_nothing_but_the_draws(family):
    assert differences(tiny(family)) == []


@pytest.mark.families
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", CONFIG_MAPPING)
def test_no_start_differs(family):
    kind, words = tried(family)
    assert kind != "differs", words


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
