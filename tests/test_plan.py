"""Plans: job files, and filling by name."""

import math
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import fastinit as fi
from fastinit import checkpoint

GPT2 = Path(__file__).parents[1] / "examples" / "gpt2.toml"


def job(tmp_path, text):
    path = tmp_path / "job.toml"
    path.write_text(text)
    return path


def test_gpt2_is_gpt2():
    plan = fi.Plan.from_toml(GPT2)
    assert (len(plan), plan.parameters, plan.nbytes) == (148, 124_439_808, 4 * 124_439_808)
    assert plan.seed == 0
    assert {t.dtype for t in plan.values()} == {"float32"}
    residual = {f"h.{i}.{part}.c_proj.weight" for i in range(12) for part in ("attn", "mlp")}
    for name, tensor in plan.items():
        if name in residual:
            expected = fi.Normal(0, 0.02 / math.sqrt(24))
        elif name.endswith(".bias"):
            expected = fi.Constant(0)
        elif "ln_" in name:
            expected = fi.Constant(1)
        else:
            expected = fi.Normal(0, 0.02)
        assert tensor.distribution == expected, name
    assert residual < set(plan)


def test_fills_by_name_and_not_by_order(tmp_path):
    plan = fi.Plan(dict.fromkeys("abc", ((3, 4), "float32", "he_normal")), seed=5)
    first = {name: np.empty((3, 4), np.float32) for name in "abc"}
    second = {name: np.empty((3, 4), np.float32) for name in "cb"}
    done = []
    plan.fill(first, progress=lambda *counts: done.append(counts))
    plan.fill(second)
    assert done == [(48, 144), (96, 144), (144, 144)]
    assert not np.array_equal(first["a"], first["b"])
    for name in "cb":
        np.testing.assert_array_equal(first[name], second[name])
        expected = fi.he_normal((3, 4), seed=fi.Key(5) / name)
        np.testing.assert_array_equal(first[name], expected)
    plan.fill(second, seed=6)
    assert not np.array_equal(first["b"], second["b"])


def test_wrong_arrays_are_refused_before_any_is_written():
    plan = fi.Plan({"a": ((3,), "float32", "ones"), "b": ((4,), "float32", "ones")})
    good = np.full(3, 7, np.float32)
    read_only = np.zeros(4, np.float32)
    read_only.flags.writeable = False
    for other, error, message in [
        ({"b": np.zeros(5, np.float32)}, ValueError, r"b must have the shape \(4,\). Received: \(5,\)"),
        ({"b": np.zeros(4, np.int32)}, TypeError, "b must be a NumPy array of .* Received: int32"),
        ({"b": read_only}, ValueError, "read-only"),
        ({"c": np.zeros(4, np.float32)}, KeyError, "the plan has no tensor 'c'"),
    ]:
        with pytest.raises(error, match=message):
            plan.fill({"a": good, **other})
        assert (good == 7).all()


def test_a_name_that_is_no_tensor_names_the_nearest():
    plan = fi.Plan({f"h.{i}.attn.q_proj.weight": ((3,), "float32", "ones") for i in range(3)})
    for name, nearest in [
        ("q_proj.weight", "h.0.attn.q_proj.weight"),
        ("h.2.attn.q_porj.weight", "h.2.attn.q_proj.weight"),
        ("model.h.1.attn.q_proj.weight", "h.1.attn.q_proj.weight"),
    ]:
        with pytest.raises(KeyError, match=f"the plan has no tensor '{name}'; did you mean '{nearest}'\\?"):
            plan.fill({name: np.zeros(3, np.float32)})
    for name in ("bias", "", 3, "x" * 1000):
        with pytest.raises(KeyError, match=r"the plan has no tensor [^;]*$"):
            plan.fill({name: np.zeros(3, np.float32)})
    with pytest.raises(TypeError, match=r"arrays must be a dict, name -> array\. Received: ndarray"):
        plan.fill(np.zeros(3, np.float32))


def test_one_dtype_for_all():
    plan = fi.Plan({"a": ((3, 4), "float32", "he_normal"), "b": ((4,), "float64", fi.Uniform())}, seed=9)
    half = plan.with_dtype("bfloat16")
    assert {t.dtype for t in half.values()} == {"bfloat16"}
    assert half.nbytes == 2 * half.parameters
    assert half.seed == 9
    assert half["a"].distribution == plan["a"].distribution


TENSOR = '[tensors."w"]\nshape = [3, 4]\nscheme = "he_normal"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = ", "Invalid value"),
        ("seed = 1", "no tensors"),
        (f"sede = 1\n{TENSOR}", "unknown key 'sede'; did you mean 'seed'"),
        (f"seed = -1\n{TENSOR}", "seed must not be negative"),
        (f"seed = true\n{TENSOR}", "not a bool"),
        (f'dtype = "int8"\n{TENSOR}', r"\[tensors.\"w\"\]: dtype must be one of"),
        ('[tensors."w"]\nscheme = "zeros"', "shape is missing"),
        ('[tensors."w"]\nshape = [3]', "scheme is missing"),
        ('[tensors."w"]\nshape = [3, -4]\nscheme = "zeros"', "must not be negative"),
        ('[tensors."w"]\nshape = "3"\nscheme = "zeros"', "must be an int or a sequence of ints"),
        ('[tensors."w"]\nshape = [3]\nscheme = "he_normal"', "fewer than 2 dimensions"),
        ('[tensors."w"]\nshape = [3, 3]\nscheme = "he_norml"', "did you mean 'he_normal'"),
        (f"{TENSOR}sdt = 0.1", "unknown parameter of he_normal 'sdt'. Allowed: mode, nonlinearity"),
        (f'{TENSOR}mode = "fan"', "unknown mode 'fan'"),
        ('[tensors."w"]\nshape = [3]\nscheme = "normal"\nstd = -1', "std must not be negative"),
        ('[tensors."w"]\nshape = [3]\nscheme = "normal"\nstd = "x"', "std must be a real number"),
        ('[tensors."w"]\nshape = [3]\nscheme = "constant"', "needs the parameter 'value'"),
        (
            '[tensors."w"]\nshape = [3]\nscheme = "constant"\nvalue = 1e9\ndtype = "float16"',
            "over the range of float16",
        ),
        ('[tensors."w"]\nshape = [3]\nscheme = "eye"', "2 dimensions"),
        (f'{TENSOR}[tensors."{{w,v}}"]\nshape = [3]\nscheme = "zeros"', "'w' is named twice"),
        ('[tensors."__metadata__"]\nshape = [3]\nscheme = "zeros"', "must not be empty, __metadata__"),
        (f'{TENSOR}[rules]\n"*.x" = "zeros"', r"rule '\*\.x=zeros' matches no tensor"),
        (f'{TENSOR}[rules]\n"*" = 3', r'\[rules\] must hold "PATTERN" = "SCHEME"'),
        (f'{TENSOR}[rules]\n"*" = "zeroes"', "did you mean 'zeros'"),
        (f'rules = "x"\n{TENSOR}', r"\[rules\] must hold"),
        ("tensors = 3", "no tensors"),
        ("[tensors]\nw = 3", "must be a table"),
    ],
)
def test_what_is_wrong_in_a_job_file_is_named(tmp_path, text, message):
    path = job(tmp_path, text)
    with pytest.raises(ValueError, match=message) as caught:
        fi.Plan.from_toml(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_no_text(tmp_path):
    path = tmp_path / "job.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="can't decode"):
        fi.Plan.from_toml(path)


def test_tables_take_layout_and_parameters(tmp_path):
    path = job(
        tmp_path,
        'seed = 3\ndtype = "bfloat16"\n'
        '[tensors."conv"]\nshape = [3, 3, 16, 32]\nscheme = "kaiming_normal"\nlayout = "io"\nmode = "fan_out"\n'
        '[tensors."experts"]\nshape = [8, 64, 32]\nscheme = "xavier_uniform"\nbatch_axes = [0]\ndtype = "float64"\n',
    )
    plan = fi.Plan.from_toml(path)
    assert plan["conv"].distribution == fi.Normal(0, math.sqrt(2 / (9 * 32)))
    assert plan["conv"].dtype == "bfloat16"
    assert plan["experts"].distribution == fi.distribution("xavier_uniform", (64, 32))
    assert plan["experts"].dtype == "float64"


@pytest.mark.parametrize(
    ("table", "scheme", "options"),
    [
        ('shape = [3, 4, 5]\nscheme = "orthogonal"\nbatch_axes = 0', "orthogonal", {"batch_axes": 0}),
        ('shape = [2, 3, 3]\nscheme = "eye"\nbatch_axes = [0]', "eye", {"batch_axes": (0,)}),
        ('shape = [3, 4, 5]\nscheme = "delta_orthogonal"\nlayout = "io"', "delta_orthogonal", {"layout": "io"}),
        ('shape = [3, 4, 4]\nscheme = "dirac"\nlayout = "io"', "dirac", {"layout": "io"}),
        (
            'shape = [4, 6]\nscheme = "sparse"\nsparsity = 0.5\nlayout = "io"',
            "sparse",
            {"layout": "io", "sparsity": 0.5},
        ),
    ],
)
def test_structured_laws_keep_layout_and_batch(tmp_path, table, scheme, options):
    plan = fi.Plan.from_toml(job(tmp_path, f'[tensors."w"]\n{table}'))
    shape = plan["w"].shape
    expected = getattr(fi, scheme)(shape, seed=fi.Key(0) / "w", **options)
    found = np.empty(shape, np.float32)
    plan.fill({"w": found})
    np.testing.assert_array_equal(found, expected)
    from_file = safetensors.numpy.load_file(checkpoint.write(plan.with_dtype("float32"), tmp_path / "out").path)["w"]
    np.testing.assert_array_equal(from_file, expected)


def test_plans_are_saved_as_files(tmp_path):
    plan = fi.Plan.from_toml(GPT2)
    for suffix, text in ((".toml", plan.to_toml()), (".json", plan.to_json())):
        path = tmp_path / f"plan{suffix}"
        path.write_text(text)
        again = fi.Plan.from_file(path)
        assert again.seed == plan.seed
        assert list(again.items()) == list(plan.items())


def test_rules_of_a_job_file_come_last_and_in_order(tmp_path):
    rules = '[rules]\n"*" = "normal(std=0.5)"\n"b.*" = "he_normal"\n'
    plan = fi.Plan.from_toml(job(tmp_path, f'{rules}[tensors."{{a,b}}.w"]\nshape = [3, 8]\nscheme = "zeros"\n'))
    assert [t.distribution for t in plan.filled.values()] == [fi.Normal(0, 0.5), fi.Normal(0, 0.5)]
    assert [t.scheme for t in plan.filled.values()] == ["normal(std=0.5)", "he_normal"]


def test_a_plans_seed_is_an_int():
    with pytest.raises(TypeError, match="seed must be an int"):
        fi.Plan({}, seed=fi.Key(3) / "x")


@pytest.mark.parametrize("value", [3, ("float32", "zeros"), ((3,), "float32", 5)])
def test_a_plan_takes_fills_or_triples(value):
    with pytest.raises(TypeError, match=r"must be a Fill or|must be a scheme's name"):
        fi.Plan({"w": value})


@pytest.mark.parametrize(
    ("name", "error"),
    [("", ValueError), ("__metadata__", ValueError), ("a\0b", ValueError), ("\ud800", ValueError), (3, TypeError)],
)
def test_names_that_a_file_could_not_hold(name, error):
    with pytest.raises(error, match=r"a tensor's name|a name in a key"):
        fi.Plan({name: ((3,), "float32", "zeros")})
