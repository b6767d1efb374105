"""Patterns of names: what they stand for, and what they match."""

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastinit.plan._patterns import escape, expand, matches, near

LLAMA = [f"model.layers.{i}.self_attn.{part}_proj.weight" for i in range(2) for part in "qkvo"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("plain", ["plain"]),
        ("h.{0..2}.w", ["h.0.w", "h.1.w", "h.2.w"]),
        ("{q,k}.{9..10}", ["q.9", "q.10", "k.9", "k.10"]),
        ("{3..3}", ["3"]),
        ("a[{]b[}]", ["a{b}"]),
        ("[{]{a,[}]b}", ["{a", "{}b"]),
        ("a[0].*?", ["a[0].*?"]),
    ],
)
def test_patterns(pattern, names):
    assert list(expand(pattern)) == names


BAD = ["a{", "a}", "{a", "{}", "{a}", "{2..1}", "{a,}", "{0..x}", "{{0..1}}", "[a{]", "{a,[{}"]


@pytest.mark.parametrize("pattern", BAD)
def test_bad_patterns(pattern):
    for call in (lambda: list(expand(pattern)), lambda: matches(pattern, "a")):
        with pytest.raises(ValueError, match=r"brace|backwards|must be a range"):
            call()


@pytest.mark.parametrize("pattern", ["{0..9999999999}", "{0..999}.{0..999}.{0..9}"])
def test_a_pattern_of_too_many_names(pattern):
    with pytest.raises(ValueError, match="more than 1,000,000 names"):
        expand(pattern)


@given(st.text("{}[]ab,.09*", max_size=12))
def test_an_escaped_name_stands_for_itself(name):
    assert list(expand(escape(name))) == [name]


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("*", ["", "a.b", "line\nbreak"], []),
        ("h.*.w", ["h.0.w", "h.0.1.w"], ["h.w", "xh.0.w", "h.0.w2"]),
        ("?.w", ["a.w", "\n.w"], [".w", "ab.w"]),
        ("[ab-d].w", ["a.w", "c.w"], ["e.w", "-.w", "A.w"]),
        ("[!a].w", ["b.w", "\n.w"], ["a.w", ".w"]),
        ("[]x]", ["]", "x"], ["[]x]"]),
        ("[a-]", ["a", "-"], ["b"]),
        ("[\\^^]", ["^", "\\"], ["a"]),
        ("[", ["["], ["a"]),
        ("[{]x[}]", ["{x}"], ["x"]),
        ("*.{o,down}_proj.weight", ["l.o_proj.weight", "l.down_proj.weight"], ["l.q_proj.weight", "o_proj.weight"]),
        ("l.{9..11}.*", ["l.9.a", "l.11.b"], ["l.1.a", "l.12.a", "l.09.a"]),
        ("{*.bias,norm*}", ["a.bias", "norm.w"], ["a.norm", "a.biases"]),
        ("a.b", ["a.b"], ["axb", "A.b"]),
        ("(a|b)$", ["(a|b)$"], ["a"]),
    ],
)
def test_what_matches(pattern, yes, no):
    assert [name for name in yes if not matches(pattern, name)] == []
    assert [name for name in no if matches(pattern, name)] == []


@pytest.mark.parametrize(
    ("pattern", "names", "meant"),
    [
        ("q_proj.weight", LLAMA, "*.q_proj.weight"),  # without the prefix of a model, or of a layer
        ("layers.{0,1}.self_attn.?_proj.weight", LLAMA, "*.layers.{0,1}.self_attn.?_proj.weight"),
        ("proj.weight", LLAMA, "*proj.weight"),
        ("transformer.wte.weight", ["wte.weight"], "wte.weight"),  # with the prefix of a wrapper
        ("*.q_porj.weight", LLAMA, "*.q_proj.weight"),
        ("wet.weight", ["wte.weight", "h.0.ln.bias"], "wte.weight"),
        ("*.wet.weight", ["a.b.{wte}.weight"], "*.[{]wte[}].weight"),
        ("{a.b,c}.weight", LLAMA, None),
        ("*.lora_A", LLAMA, None),
        ("x" * 201, ["x" * 201 + "y"], None),
    ],
)
def test_what_was_meant(pattern, names, meant):
    assert near(pattern, names) == ("" if meant is None else f"; did you mean {meant!r}?")
    assert meant is None or any(matches(meant, name) for name in names)


def test_a_range_of_characters_that_runs_backwards_matches_nothing():
    assert not any(matches("[z-a]", name) for name in ("z", "a", "b", "-", "[z-a]"))


@given(st.text("ab*?[]!-.", max_size=8), st.text("ab.-]", max_size=6))
def test_without_braces_it_is_a_pattern_of_fnmatch(pattern, name):
    assert matches(pattern, name) == fnmatch.fnmatchcase(name, pattern)
