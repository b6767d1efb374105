"""Plans as plain data: what is written is read back as the same plan, law for law and bit for bit."""

import base64
import json
import tomllib
import zlib

import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

import fastinit as fi
from fastinit._core.composite import Cast, Patched, SameAs, Values
from fastinit._io import documents
from fastinit.plan import _serialization as spec
from fastinit.plan._fills import Fill, Tied
from fastinit.torch import record
from fastinit.torch._record.replay import Computed
from tests.models import Everything

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
TRANSFORMERS = {
    "llama": ("LlamaForCausalLM", transformers.LlamaConfig(**SMALL, vocab_size=40, num_key_value_heads=1)),
    "tied": ("LlamaForCausalLM", transformers.LlamaConfig(**SMALL, vocab_size=40, tie_word_embeddings=True)),
    "gpt2": ("GPT2LMHeadModel", transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=40, n_positions=8)),
    "mixtral": ("MixtralForCausalLM", transformers.MixtralConfig(**SMALL, vocab_size=40, num_key_value_heads=2)),
    "bert": ("BertForMaskedLM", transformers.BertConfig(**SMALL, vocab_size=40, max_position_embeddings=8)),
    "t5": ("T5ForConditionalGeneration", transformers.T5Config(vocab_size=40, d_model=16, d_kv=8, num_layers=2)),
    "vit": ("ViTForImageClassification", transformers.ViTConfig(**SMALL, image_size=8, patch_size=4)),
}  # fmt: skip


def same_law(a, b):
    """Equal types and numbers, bit for bit; of given values dtype, shape and bytes."""
    if type(a) is not type(b):
        return False
    match a:
        case Values():
            return (a.array.dtype, a.array.shape, a.array.tobytes()) == (
                b.array.dtype,
                b.array.shape,
                b.array.tobytes(),
            )
        case Cast():
            return a.dtype == b.dtype and same_law(a.distribution, b.distribution)
        case SameAs():
            places = [(copy.path, copy.shape, copy.offset, copy.strides) for copy in (a, b)]
            return places[0] == places[1] and same_law(a.distribution, b.distribution)
        case Patched():
            regions = [region for region, _ in a.parts], [region for region, _ in b.parts]
            return regions[0] == regions[1] and all(
                same_law(x, y) for (_, x), (_, y) in zip(a.parts, b.parts, strict=True)
            )
    return a == b and repr(a) == repr(b)


def same_plan(a, b):
    assert a.seed == b.seed
    assert list(a) == list(b)
    for name in a:
        x, y = a[name], b[name]
        if isinstance(x, Tied):
            assert x == y, name
            continue
        for attribute in ("shape", "dtype", "layout", "batch_axes", "persistent"):
            assert getattr(x, attribute) == getattr(y, attribute), (name, attribute)
        assert same_law(x.distribution, y.distribution), name


def comes_back(plan, tmp_path=None):
    table = plan.to_table()
    same_plan(plan, fi.Plan.from_table(table))
    assert fi.Plan.from_table(table).to_table() == table
    same_plan(plan, fi.Plan.from_table(json.loads(plan.to_json())))
    same_plan(plan, fi.Plan.from_table(tomllib.loads(plan.to_toml())))
    if tmp_path is not None:
        for suffix, text in ((".toml", plan.to_toml()), (".json", plan.to_json())):
            path = tmp_path / f"plan{suffix}"
            path.write_text(text, encoding="utf-8")
            same_plan(plan, fi.Plan.from_file(path))


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_recorded_transformers_come_back(name, tmp_path):
    architecture, config = TRANSFORMERS[name]
    plan = record(lambda: getattr(transformers, architecture)(config))
    assert len(plan) > 10
    comes_back(plan, tmp_path)


def test_every_way_to_start_a_tensor_comes_back(tmp_path):
    plan = record(Everything)
    computed = [name for name, tensor in plan.filled.items() if isinstance(tensor.distribution, Computed)]
    assert "computed" in computed
    for name in computed:
        with pytest.raises(ValueError, match="keep what the plan was recorded from") as caught:
            fi.Plan({name: plan[name]}).to_table()
        assert repr(name) in str(caught.value)
    saved = fi.Plan({name: t for name, t in plan.items() if plan.first_name(name) not in computed}, seed=2**200 + 1)
    assert {"square", "scaled", "copied", "embedding.weight", "mask", "counter", "rounded.weight"} <= set(saved)
    assert {type(t.distribution) for t in saved.filled.values()} >= {Values, Patched, SameAs, fi.Orthogonal}
    comes_back(saved, tmp_path)
    again = fi.Plan.from_table(saved.to_table())
    for name, tensor in saved.filled.items():
        first, second = np.empty(tensor.shape, tensor.dtype), np.empty(tensor.shape, tensor.dtype)
        tensor.fill(first, saved.key())
        again[name].fill(second, again.key())
        assert first.tobytes() == second.tobytes(), name


def test_a_job_file_comes_back(tmp_path):
    comes_back(fi.Plan.from_toml("examples/gpt2.toml"), tmp_path)


finite = st.floats(allow_nan=False, allow_infinity=False, width=64)
size = st.floats(min_value=0, max_value=1e30)
pairs = st.tuples(finite, finite).map(sorted)
plain = st.one_of(
    finite.map(fi.Constant),
    pairs.map(lambda pair: fi.Uniform(*pair)),
    st.builds(fi.Normal, finite, size),
    st.builds(lambda mean, std, a, b: fi.TruncatedNormal.in_sigma(mean, std, -a, b), st.floats(-1e9, 1e9),
              st.floats(1e-9, 1e9), st.floats(0, 9), st.floats(0.125, 9)),
    st.builds(fi.Orthogonal, finite),
    st.builds(fi.Eye, finite),
    st.builds(fi.Sparse, st.floats(0, 1), size),
)  # fmt: skip
ends = st.none() | st.integers(-3, 5)
regions = st.lists(st.builds(slice, ends, ends, st.none() | st.integers(1, 3)), max_size=2).map(tuple)
dtypes = st.sampled_from(["float16", "bfloat16", "float32", "float64"])
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
# A copy of a tensor of its own shape, or of a part of a larger one.
PLACE = st.sampled_from([(5, 4), (7, 9)]), st.integers(0, 2), st.sampled_from([None, (9, 1), (1, 5)])
laws = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.builds(Cast, inner, dtypes),
        st.builds(SameAs, st.lists(texts, min_size=1, max_size=3).map(tuple), inner, *PLACE),
        st.lists(st.tuples(regions, inner), min_size=1, max_size=3).map(lambda parts: Patched(tuple(parts))),
    ),
    max_leaves=4,
)


@settings(deadline=None, max_examples=300)
@given(laws)
def test_any_law_comes_back(law):
    for through in (
        lambda t: t,
        lambda t: json.loads(json.dumps(t)),
        lambda t: tomllib.loads(documents.as_toml(t)),
    ):
        assert same_law(law, spec.from_table(through(spec.to_table(law, (3, 4), "float64")), (3, 4), "float64"))
    assert spec.label(law, (3, 4))


@pytest.mark.parametrize("law", [fi.Dirac(2), fi.DeltaOrthogonal(0.5), fi.Dirac(np.int64(1))])
def test_laws_over_kernels_come_back(law):
    comes_back(fi.Plan({"w": ((4, 2, 3), "float32", law)}))


DTYPES = [
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
    "complex64", "complex128", "bfloat16", "float8_e4m3fn", "float8_e5m2",
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_of_any_dtype_come_back(dtype, tmp_path):
    for shape in ((), (0, 3), (5, 7)):
        bits = np.random.default_rng(3).integers(0, 2, (*shape, np.dtype(dtype).itemsize), np.uint8)
        array = bits.view(dtype).reshape(shape)
        comes_back(fi.Plan({"v": Fill(shape, dtype, Values(array), persistent=False)}), tmp_path)


def test_values_in_other_memory_come_back():
    array = np.arange(12.0).reshape(3, 4)
    for other in (array.T, array[::-1, ::2], array.astype(">f8")):
        plan = fi.Plan({"v": (other.shape, "float64", Values(other))})
        found = fi.Plan.from_table(plan.to_table())["v"].distribution.array
        np.testing.assert_array_equal(found, other)
        assert found.dtype == np.float64


def test_layout_batch_and_parts_in_another_dtype_come_back(tmp_path):
    patched = Patched((((), Values(np.ones((6, 5), np.float32))), ((slice(0, 1),), fi.Constant(0))))
    plan = fi.Plan(
        {
            "conv": Fill((3, 3, 4, 8), "float16", "he_normal", layout="io"),
            "experts": Fill((2, 5, 6), "float64", fi.Orthogonal(0.5), layout="io", batch_axes=-3),
            "half": Fill((6, 5), "bfloat16", patched),
            "io": Fill((5, 6), "float32", patched, layout="io"),
            "second": Tied("conv"),
        },
        seed=2**70,
    )
    comes_back(plan, tmp_path)


NAMES = [
    "a.b",
    'say "x"',
    "line\nbreak",
    "back\\slash",
    "{0..3}",
    "[{]a}",
    "é\u2028\U0001f600",
    "\x7f\x01",
    "'",
    "#=",
    " ",
    "tied",
    "a/../b",
]


def test_hostile_names_come_back(tmp_path):
    plan = fi.Plan({name: ((i + 1,), "float32", fi.Normal(i, 1)) for i, name in enumerate(NAMES)})
    plan = fi.Plan({**plan, **{f"{name}2": Tied(name) for name in NAMES}})
    plan = fi.Plan({**plan, "copy": ((3,), "float32", SameAs(tuple(NAMES), fi.Normal(), (3,)))})
    comes_back(plan, tmp_path)


def test_a_saved_plan_can_be_read_by_people():
    plan = fi.Plan({"h.0.w": ((3, 4), "float32", fi.Normal(0, 0.02)), "tied": Tied("h.0.w")})
    assert plan.to_toml() == (
        'seed = 0\n\n[tensors."h.0.w"]\nshape = [3, 4]\ndtype = "float32"\nscheme = "normal"\nmean = 0.0\nstd = 0.02\n'
        '\n[tensors.tied]\ntied = "h.0.w"\n'
    )
    assert plan.to_json().splitlines()[3] == (
        '  "h.0.w": {"shape": [3, 4], "dtype": "float32", "scheme": "normal", "mean": 0.0, "std": 0.02},'
    )


def test_labels_say_what_is_drawn():
    patched = Patched((((), fi.Normal(0, 0.02)), ((slice(3, 4),), fi.Constant(0))))
    labels = {
        "normal(std=0.02)": fi.Normal(0, 0.02),
        "normal(std=0.02), [3:4] zeros": patched,
        "constant(value=0.5)": fi.Constant(0.5),
        "orthogonal drawn as float32": Cast(fi.Orthogonal(), "float32"),
        "uniform, same as a/b": SameAs(("a", "b"), fi.Uniform(), (5, 4)),
    }
    for label, law in labels.items():
        assert Fill((5, 4), "float64", law).scheme == label
        table = fi.Plan({"w": ((5, 4), "float64", law)}).to_table()
        assert fi.Plan.from_table(table)["w"].scheme == label


class Own(fi.Normal):
    pass


class Mine(fi.Distribution):
    def check(self, shape, dtype):
        pass


@pytest.mark.parametrize("law", [Own(0, 1), Mine()])
def test_other_laws_are_refused(law):
    with pytest.raises(ValueError, match=r"'w' cannot be saved: .*no law that a file can hold"):
        fi.Plan({"w": ((3,), "float32", law)}).to_table()


def packed(data):
    return base64.b64encode(zlib.compress(data)).decode()


W = {"shape": [3, 4], "dtype": "float32"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**W, "scheme": "normal", "sdt": 1.0}, "unknown parameter of normal 'sdt'; did you mean 'std'"),
        ({**W, "scheme": "normal", "presistent": False}, "'presistent'"),
        ({**W, "scheme": "normal", "persistent": 0}, "persistent must be true or false"),
        ({**W, "scheme": 3}, "scheme must be a name"),
        ({**W, "scheme": "normal", "parts": []}, "scheme and parts exclude each other"),
        ({**W, "parts": []}, "parts must be a list"),
        ({**W, "parts": ["x"]}, r"parts\[0\]: must be a table"),
        ({**W, "parts": [{"scheme": "zeros"}, {"region": "0:1", "scheme": "ones"}]}, r"parts\[1\]: region must be"),
        ({**W, "parts": [{"region": "[0:1:0]", "scheme": "ones"}]}, "region must be text"),
        ({**W, "parts": [{"region": "[:,:,:]", "scheme": "ones"}]}, "at most 2 slices"),
        ({**W, "parts": [{"scheme": "zeroes"}]}, r"parts\[0\]: unknown scheme 'zeroes'; did you mean 'zeros'"),
        ({**W, "parts": [{"scheme": "zeros"}], "layuot": 1}, "unknown key 'layuot'"),
        ({**W, "scheme": "normal", "drawn_as": "int8"}, "drawn_as: dtype must be one of"),
        ({**W, "scheme": "normal", "same_as": ["a"], "drawn_as": "float32"}, "same_as and drawn_as exclude each other"),
        ({**W, "scheme": "normal", "same_as": "a"}, "same_as must be a list of names"),
        ({**W, "scheme": "normal", "same_as": ["a"], "of_shape": [2, 2]}, "offset and strides must be those of a part"),
        ({**W, "scheme": "normal", "same_as": ["a"], "offset": -1}, "offset must not be negative"),
        ({**W, "scheme": "normal", "same_as": ["a"], "offset": [1, 2]}, "offset must be a number"),
        ({**W, "scheme": "normal", "same_as": ["a"], "strides": "no"}, "strides must be an int or a sequence"),
        ({**W, "scheme": "normal", "strides": [4, 1]}, "strides needs same_as"),
        ({**W, "distribution": {"scheme": "nromal"}}, "did you mean 'normal'"),
        ({**W, "distribution": 3}, "must be a table"),
        ({"tied": "a", "shape": [3]}, "unknown key 'shape'. Allowed: tied"),
        ({"tied": 3}, "tied must be a tensor's name"),
        ({"tied": "b"}, "must be tied to a filled tensor"),
        ({**W, "values": 3}, "values must be base64"),
        ({**W, "values": "?"}, "values must be base64"),
        ({**W, "values": base64.b64encode(b"no zlib").decode()}, "values must be base64"),
        ({**W, "values": packed(bytes(47))}, "values must be 48 bytes"),
        ({**W, "values": packed(bytes(10**7))}, "values must be 48 bytes"),
        ({**W, "values": packed(bytes(48))[:-8]}, "values must be"),
        ({**W, "values": packed(bytes(48)), "values_dtype": "object"}, "values_dtype: dtype must be the name"),
        ({"shape": [3], "dtype": "U3", "values": packed(bytes(36))}, "dtype must be the name"),
        ({"shape": [3], "dtype": ["i4", "f4"], "values": packed(bytes(36))}, "dtype must be the name"),
        ({**W, "scheme": "normal", "batch_axes": [2]}, "batch_axes must be axes"),
        ({**W, "scheme": "normal", "layout": "ab"}, "unknown layout"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_saved_plan_is_named(tmp_path, row, message):
    text = json.dumps({"seed": 0, "tensors": {"w": row}})
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        fi.Plan.from_file(path)
    assert str(path) in str(caught.value)
    assert "tensors." in str(caught.value) or "tied to" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "must hold an object"),
        ("{", "Expecting"),
        ('{"seed": 0, "seed": 1}', "'seed' is named twice"),
        ('{"tensors": {"w": {"shape": [3], "scheme": "constant", "value": NaN}}}', "NaN is no JSON number"),
        ("[" * 100_000, "nested too deeply"),
        ('{"seed": 0, "tensors": {}}', "no tensors"),
    ],
)
def test_a_json_file_that_is_no_plan(tmp_path, text, message):
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        fi.Plan.from_file(path)
    assert str(path) in str(caught.value)


def test_a_plan_file_has_one_of_two_suffixes(tmp_path):
    with pytest.raises(ValueError, match=r"must be a \.toml or a \.json file"):
        fi.Plan.from_file(tmp_path / "plan.yaml")
