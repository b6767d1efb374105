"""Rules: what they match, in which order they win, what they refuse."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import fastinit as fi
from fastinit._core.composite import Patched, Values
from fastinit.plan import _rules as rules
from fastinit.plan._fills import Fill, Tied
from fastinit.torch import record


def test_a_rule_without_the_prefix_of_its_names():
    plan = fi.Plan({f"model.layers.{i}.self_attn.q_proj.weight": ((3, 3), "float32", "normal") for i in range(2)})
    with pytest.raises(ValueError, match=r"matches no tensor that is drawn; did you mean '\*\.q_proj\.weight'\?"):
        plan.with_rules(["q_proj.weight=he_normal"])


def test_rules_must_be_a_list():
    plan = fi.Plan({"a": ((3, 3), "float32", "normal")})
    for rule in ("*=zeros", {"*": "zeros"}):
        with pytest.raises(TypeError, match=r"texts must be a list of 'PATTERN=SCHEME'\. Received: "):
            plan.with_rules(rule)


def laws(plan):
    return {name: fill.distribution for name, fill in plan.filled.items()}


@pytest.mark.parametrize(
    ("text", "pattern", "scheme", "parameters", "axes"),
    [
        ("*=he_normal", "*", "he_normal", {}, {}),
        ("* = normal( std = 2e-2 ) ", "* ", "normal", {"std": 0.02}, {}),
        ("a=b=zeros", "a=b", "zeros", {}, {}),
        ("a=normal(std=1)=zeros", "a=normal(std=1)", "zeros", {}, {}),
        ("w=uniform(low=-1, high=+1)", "w", "uniform", {"low": -1, "high": 1}, {}),
        ("w=he_uniform(mode='fan_out',layout='io')", "w", "he_uniform", {"mode": "fan_out"}, {"layout": "io"}),
        ("w=orthogonal(batch_axes=(0, 1))", "w", "orthogonal", {}, {"batch_axes": (0, 1)}),
        ("line\nbreak=glorot_normal()", "line\nbreak", "glorot_normal", {}, {}),
    ],
)  # fmt: skip
def test_rules_are_parsed(text, pattern, scheme, parameters, axes):
    rule = rules.parse(text)
    assert (rule.pattern, rule.scheme, rule.parameters, rule.axes) == (pattern, scheme, parameters, axes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be PATTERN=SCHEME"),
        ("he_normal", "must be PATTERN=SCHEME"),
        ("=he_normal", "must be PATTERN=SCHEME"),
        ("*=", "must be PATTERN=SCHEME"),
        ("*=normal(std=0.02", "must be PATTERN=SCHEME"),
        ("*=3", "must be PATTERN=SCHEME"),
        ("*=normal(0.02)", r"must be NAME or NAME\(parameter=value"),
        ("*=normal(std=x)", "must be NAME or NAME"),
        ("*=normal(std=__import__('os'))", "must be NAME or NAME"),
        ("*=normal(std=1, std=2)", "must be NAME or NAME"),
        ("*=normal(**{'std': 1})", "must be NAME or NAME"),
        ("*=normal(std=1)(std=2)", "must be NAME or NAME"),
        ("*=normal(std=" + "(" * 5000 + ")" * 5000 + ")", "must be NAME or NAME"),
        ("*=normal(\0)", "must be NAME or NAME"),
        ("*=he_norml", "unknown scheme 'he_norml'; did you mean 'he_normal'"),
        ("*=normal(sdt=1)", "unknown parameter of normal 'sdt'; did you mean 'std'"),
    ],
)
def test_what_is_no_rule(text, message):
    with pytest.raises(ValueError, match=message):
        rules.parse(text)


PLAN = fi.Plan(
    {
        "embed.weight": ((10, 4), "float32", Patched((((), fi.Normal()), ((slice(0, 1),), fi.Constant(0))))),
        "h.0.w": ((4, 8), "bfloat16", "normal"),
        "h.0.bias": Fill((4,), "float32", "ones", persistent=False),
        "h.3.w": Fill((4, 8), "float32", "normal", layout="io"),
        "mask": ((4,), "bool", Values(np.ones(4, bool))),
        "table": ((4,), "float32", Values(np.ones(4, np.float32))),
        "head.weight": Tied("embed.weight"),
    },
    seed=7,
)


def test_later_rules_win_and_the_rest_stays():
    found = PLAN.with_rules(["*=normal(std=0.5)", "h.*.w=he_normal", "h.3.*=zeros"])
    assert laws(found) | {"mask": 0, "table": 0} == {
        "embed.weight": fi.Normal(0, 0.5),
        "h.0.w": fi.distribution("he_normal", (4, 8)),
        "h.0.bias": fi.Normal(0, 0.5),
        "h.3.w": fi.Constant(0),
        "mask": 0,
        "table": 0,
    }
    assert found["mask"] is PLAN["mask"]
    assert found["table"] is PLAN["table"]
    assert found["head.weight"] == Tied("embed.weight")
    assert list(found) == list(PLAN)
    assert found.seed == 7
    assert (found["h.0.w"].dtype, found["h.0.bias"].persistent, found["h.3.w"].layout) == ("bfloat16", False, "io")
    assert PLAN["h.0.w"].distribution == fi.Normal()


def test_the_tensors_own_layout_counts_unless_the_rule_has_one():
    assert PLAN.with_rules(["h.3.w=he_normal"])["h.3.w"].distribution == fi.distribution("he_normal", (8, 4))
    found = PLAN.with_rules(["h.3.w=he_normal(layout='oi')"])["h.3.w"]
    assert (found.distribution, found.layout) == (fi.distribution("he_normal", (4, 8)), "oi")
    assert found.scheme == "he_normal(layout=oi)"


@pytest.mark.parametrize("pattern", ["nothing", "head.weight", "mask", "{mask,table,head.*}", "H.0.w"])
def test_a_rule_that_changes_nothing_is_an_error(pattern):
    with pytest.raises(ValueError, match="matches no tensor that is drawn") as caught:
        PLAN.with_rules(["*=normal", f"{pattern}=zeros"])
    assert f"'{pattern}=zeros'" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("h.*=he_normal", r"rule 'h\.\*=he_normal': 'h.0.bias': .*fewer than 2 dimensions"),
        ("h.0.w=constant(value=1e39)", "'h.0.w': value is over the range of bfloat16"),
        ("h.0.w=normal(std='x')", "std must be a real number"),
        ("h.0.w=sparse", "needs the parameter 'sparsity'"),
        ("h.{=zeros", r"rule 'h\.\{=zeros': unbalanced braces"),
    ],
)
def test_what_a_rule_cannot_do_names_it(text, message):
    with pytest.raises(ValueError, match=message):
        PLAN.with_rules([text])


def test_layers_of_two_stacks_are_not_added_up():
    stacks = {"encoder": 3, "decoder.blocks": 5}
    plan = fi.Plan({f"{s}.{i}.wo": ((4, 4), "float32", "normal") for s, n in stacks.items() for i in range(n)})
    with pytest.raises(
        ValueError, match=r"there are 3 in encoder, 5 in decoder.blocks: give layers, or a rule for each"
    ):
        plan.with_rules(["*.wo=depth_scaled"])
    found = plan.with_rules(["encoder.*=depth_scaled", "decoder.*=depth_scaled"])
    assert found["encoder.0.wo"].scheme == "depth_scaled(layers=3)"
    assert found["decoder.blocks.4.wo"].scheme == "depth_scaled(layers=5)"
    assert plan.with_rules(["*.wo=depth_scaled(layers=9)"])["encoder.0.wo"].scheme == "depth_scaled(layers=9)"


def test_layers_are_counted_by_the_names_that_match():
    found = PLAN.with_rules(["*.w=depth_scaled(std=0.4)"])
    assert found["h.0.w"].distribution == fi.Normal(0, 0.2)
    assert found["h.3.w"].distribution == fi.Normal(0, 0.2)
    assert found["h.0.w"].scheme == "depth_scaled(std=0.4, layers=2)"
    assert found["embed.weight"].distribution == PLAN["embed.weight"].distribution
    given = PLAN.with_rules(["*.w=depth_scaled(std=0.4, layers=8)"])
    assert given["h.3.w"].distribution == fi.Normal(0, 0.1)
    with pytest.raises(
        ValueError, match=r"'embed\.\*=depth_scaled': layers are counted in one stack .* there are none: give layers"
    ):
        PLAN.with_rules(["embed.*=depth_scaled"])


def test_the_first_integer_is_the_block():
    names = [f"model.layers.{i}.experts.{j}.down" for i in range(3) for j in range(5)]
    plan = fi.Plan(dict.fromkeys(names, ((4, 4), "float32", "normal")))
    assert plan.with_rules(["*=depth_scaled"])[names[0]].scheme == "depth_scaled(layers=3)"


def test_a_scheme_for_all_comes_first_and_spares_what_is_no_matrix():
    found = PLAN.with_rules(["h.0.w=zeros"], scheme="he_normal")
    assert found["embed.weight"].distribution == fi.distribution("he_normal", (10, 4))
    assert found["h.0.w"].distribution == fi.Constant(0)
    assert found["h.0.bias"] is PLAN["h.0.bias"]
    everywhere = PLAN.with_rules([], scheme="normal(std=0.5)")
    assert everywhere["h.0.bias"].distribution == fi.Normal(0, 0.5)
    with pytest.raises(ValueError, match="std must not be negative"):
        PLAN.with_rules([], scheme="normal(std=-1)")


def test_tensors_without_a_law_of_their_own():
    shapes = {
        "w": (4, 8), "ln.weight": (4,), "ln.g": (4,), "norm.gamma": (4,), "q_scale": (4,), "ln.bias": (4,),
        "embedding": (4,), "t": (),
    }  # fmt: skip
    plan = fi.Plan({name: (shape, "float32", "zeros") for name, shape in shapes.items()})
    found = plan.with_rules([], scheme="orthogonal(gain=2)", without_rule=shapes)
    assert laws(found) == {
        "w": fi.Orthogonal(2.0),
        **dict.fromkeys(("ln.weight", "ln.g", "norm.gamma", "q_scale"), fi.Constant(1)),
        **dict.fromkeys(("ln.bias", "embedding", "t"), fi.Constant(0)),
    }
    assert found["ln.g"].scheme == "ones"
    with pytest.raises(ValueError, match=r"'ln.bias' has no law \(3 tensors have none\): give a scheme or a rule"):
        plan.with_rules(["{w,*.weight,*.g,*gamma,*scale}=normal"], without_rule=shapes)


def test_what_is_computed_may_get_a_law():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.rand(10).erfinv_())

    plan = record(Model)
    assert plan.with_rules(["w=uniform"]).to_table()["tensors"]["w"]["scheme"] == "uniform"


def test_the_rules_of_the_pages_are_rules():
    docs = Path(__file__).parents[1] / "docs"
    shown = re.findall(r"^ {6}(\S+=\w.*)$", (docs / "schemes.md").read_text(), re.MULTILINE)
    shown += re.findall(r"--rule '(.*?)'", (docs / "checkpoints.md").read_text())
    assert len(shown) > 10
    for text in shown:
        assert text == "PATTERN=SCHEME" or rules.parse(text).scheme


def test_gpt2_as_its_paper_says():
    config = transformers.GPT2Config(n_embd=16, n_layer=3, n_head=2, vocab_size=40, n_positions=8)
    plan = record(lambda: transformers.GPT2LMHeadModel(config))
    found = plan.with_rules(
        ["*.c_proj.weight=depth_scaled(std=0.02)", "*.c_fc.weight=he_normal(layout='io')", "*.attn.c_proj.bias=zeros"]
    )
    for i in range(3):
        assert found[f"transformer.h.{i}.attn.c_proj.weight"].distribution == fi.Normal(0, 0.02 / 6**0.5)
        assert found[f"transformer.h.{i}.mlp.c_fc.weight"].distribution == fi.Normal(0, (2 / 16) ** 0.5)
    with pytest.raises(ValueError, match=r"'lm_head\.weight' is tied"):
        plan.with_rules(["lm_head.weight=zeros"])
