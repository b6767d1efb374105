"""Surveys of checkpoints: numbers against NumPy in float64, verdicts against plans, bad files."""

import json
import math
import re
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from numpy.testing import assert_allclose
from pairs import pairs

import fastinit as fi
from fastinit import checkpoint
from fastinit._io.safetensors import CODES, INDEX_NAME
from fastinit._native.library import Kernel
from fastinit._runtime.arrays import DTYPES
from fastinit.checkpoint._survey import scan as gathering
from fastinit.stats._histograms import Histogram

HOSTILE = ["a\x1b[2J", "line\nbreak", "\u202eright", "</script><script>boom()", "'\"&", "x" * 300, "{0..3}", "ü☃"]


def saved(path, tensors, offset=0):
    """A safetensors file with tensors of any dtype; `offset` bytes of another one come first."""
    if offset:
        tensors = {"first": np.zeros(offset, np.uint8), **tensors}
    table, at = {}, 0
    for name, x in tensors.items():
        table[name] = {"dtype": CODES[x.dtype.name], "shape": list(x.shape), "data_offsets": [at, at + x.nbytes]}
        at += x.nbytes
    header = json.dumps(table).encode()
    path.write_bytes(b"".join([len(header).to_bytes(8, "little"), header, *(x.tobytes() for x in tensors.values())]))
    return path


def only(path, x, **options):
    return checkpoint.survey(saved(path / "a.safetensors", {"x": x}), **options).tensors[0]


def assert_agrees(found, x):
    wide = x.astype(np.float64).reshape(-1)
    finite = wide[np.isfinite(wide)]
    assert (found.count, found.shape, found.dtype) == (x.size, x.shape, x.dtype.name)
    assert found.nonfinite == x.size - finite.size
    assert found.zeros == np.count_nonzero(wide == 0)
    if not finite.size:
        assert all(math.isnan(value) for value in (found.min, found.max, found.mean, found.std))
        return
    assert (found.min, found.max) == (finite.min(), finite.max())
    rms = np.abs(finite).max() or 1
    spread = (finite / rms).std() * rms
    # The errors of float32 sums, largest with short vectors.
    assert_allclose(found.mean, (finite / rms).mean() * rms, rtol=1e-9, atol=2e-6 * spread)
    assert_allclose(found.std, spread, rtol=5e-6, atol=1e-30 * rms)


SHAPES = [(), (1,), (7,), (0,), (3, 0, 5), (257, 3), (8192,), (8193,), (300, 1001), (1 << 20,)]


@pairs(dtype=list(DTYPES), numbers=[(0, 0.02), (1, 0.01), (-300, 1e-3)])
def test_numbers_are_those_of_numpy(tmp_path, dtype, numbers):
    for shape in SHAPES:
        x = np.asarray(fi.fill(np.empty(shape, DTYPES[dtype]), fi.Normal(*numbers), seed=3))
        assert_agrees(only(tmp_path, x), x)


@pairs(
    dtype=list(DTYPES),
    offset=range(8),
    allowed=lambda dtype, offset: offset == 7 or offset < np.dtype(DTYPES[dtype]).itemsize,
)
def test_tensors_lie_anywhere_in_a_file(tmp_path, dtype, offset):
    tensors = {f"x{i}": fi.normal(n, seed=i, dtype=dtype) for i, n in enumerate((3, 1, 1000, 300_001, 5, 0, 2))}
    found = checkpoint.survey(saved(tmp_path / "a.safetensors", tensors, offset))
    assert [one.name for one in found.tensors[-7:]] == list(tensors)
    for one, x in zip(found.tensors[-7:], tensors.values(), strict=True):
        assert_agrees(one, x)


@pairs(dtype=list(DTYPES), size=[10, 100_000, 1_000_003])
def test_what_is_odd_is_seen(tmp_path, dtype, size):
    x = fi.normal(size, seed=4, dtype=dtype)
    x[[0, 3, -1]], x[[1, -2]], x[2], x[4] = np.nan, np.inf, -np.inf, -0.0
    x[6] = float(ml_dtypes.finfo(dtype).smallest_subnormal)
    found = only(tmp_path, x)
    assert_agrees(found, x)
    assert found.nonfinite == 6
    assert found.zeros == 1
    assert found.verdict == "6 not finite"


@pairs(
    dtype=["float16", "bfloat16", "float32"],
    size=[11, 30_000, 300_000],
    make=[
        lambda n: np.zeros(n),
        lambda n: -np.zeros(n),
        lambda n: np.full(n, 0.3),
        lambda n: np.full(n, -0.3),
        lambda n: np.arange(n) % 2 * 1e-7,
        lambda n: 1.0 + np.arange(n) % 7 / 64,
        lambda n: -1.0 - np.arange(n) % 7 / 64,
        lambda n: np.where(np.arange(n) % 3 == 0, 0, -5.0),
        lambda n: np.where(np.arange(n) == 5, np.nan, 0.0),
        lambda n: np.full(n, -np.inf),
        lambda n: np.full(n, np.inf),
        lambda n: np.copysign(np.full(n, np.nan), -1.0),
        lambda n: np.where(np.arange(n) == 5, 60000.0, 1e-3),
        lambda n: np.where(np.arange(n) % 2 == 0, 6e4, -6e4),
        lambda n: np.linspace(-1, 1, n),
    ],
)
def test_extreme_numbers(tmp_path, dtype, size, make):
    x = make(size).astype(DTYPES[dtype])
    assert_agrees(only(tmp_path, x), x)


@pytest.mark.parametrize("scale", [1e-44, 1e-40, 1e-25, 1e-13, 1e18, 1e25, 3e38])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_whole_range_of_a_dtype(tmp_path, dtype, scale):
    x = (fi.uniform(100_000, low=-1, high=1, seed=1, dtype="float64") * scale).astype(DTYPES[dtype])
    assert_agrees(only(tmp_path, x), x)


@pytest.mark.parametrize("scale", [1.7e308, 1e200, 1e-200, 1e-310])
def test_the_whole_range_of_float64(tmp_path, scale):
    """Without a warning of NumPy's, with a plan too."""
    u = fi.uniform(100_003, low=-1, high=1, seed=1, dtype="float64")
    x = u * scale
    plan = fi.Plan({"x": (x.shape, "float64", fi.Normal(0, scale / 10))})
    for found in (only(tmp_path, x), only(tmp_path, x, plan=plan)):
        assert_allclose([found.mean / scale, found.std / scale], [u.mean(), u.std()], rtol=1e-10)
        assert found.fit.distribution == fi.Uniform(x.min(), x.max())
        assert found.histogram == Histogram.of(_sampled(x), low=float(x.min()), high=float(x.max()))
    assert re.match("differs from the plan: .*std", found.verdict)


@pytest.mark.parametrize("dtype", sorted(set(CODES) - {*DTYPES, "complex64"}))
def test_other_dtypes_have_numbers_but_no_law(tmp_path, dtype):
    for size in (0, 5, 70_000):
        x = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 100, size).astype(dtype)
        found = only(tmp_path, x)
        assert_agrees(found, x)
        assert found.fit.distribution is None
        assert found.histogram == (Histogram.of(_sampled(x), low=found.min, high=found.max) if size else None)


def test_numbers_of_8_bit_floats_that_are_none(tmp_path):
    x = np.array([np.nan, np.inf, 1, 2], ml_dtypes.float8_e5m2)
    assert_agrees(only(tmp_path, x), x)


def test_complex_numbers_are_taken_by_their_parts(tmp_path):
    x = (fi.normal((300, 500), seed=1) + 1j * fi.normal((300, 500), mean=2.0, seed=2)).astype(np.complex64)
    x[0, 0] = complex(0, math.nan)
    found = only(tmp_path, x)
    parts = x.view(np.float32)
    assert (found.count, found.nonfinite, found.zeros) == (150_000, 1, 1)
    assert_allclose([found.mean, found.std], [np.nanmean(parts), np.nanstd(parts)], rtol=1e-5)
    assert found.histogram is None


def _sampled(x):
    """The elements that a survey picks."""
    wanted = max(4096, min(65536, x.size // 4096))
    step = max(1, -(-x.size // wanted))
    while math.gcd(step, x.size) > 1:
        step += 1
    return x.reshape(-1)[::step]


# The sample's step is a matter of the size alone, the copying one of the dtype.
@pairs(
    dtype=list(DTYPES),
    size=[4096, 4097, 1 << 20, 3_000_017],
    allowed=lambda dtype, size: size < 1 << 20 or dtype in {1 << 20: ("float16", "float64")}.get(size, ("bfloat16",)),
)
def test_the_sample_is_spread_over_the_tensor(tmp_path, dtype, size):
    x = fi.normal(size, seed=size, dtype=dtype)
    found = only(tmp_path, x)
    assert found.histogram == Histogram.of(_sampled(x), low=float(x.min()), high=float(x.max()))
    assert found.histogram.total >= 2000


def test_the_sample_is_no_column(tmp_path):
    x = np.tile(np.arange(256, dtype=np.float32), (8192, 1))
    assert min(only(tmp_path, x).histogram.counts) > 0


def tensors_of_many_kinds():
    return {
        "large": fi.normal((1500, 3001), seed=0),
        "bf16": fi.uniform((700, 900), seed=1, dtype="bfloat16"),
        **{f"small.{i}": fi.normal(i * 37 % 5000, seed=i, dtype="float16") for i in range(200)},
        "huge": fi.normal(9_000_001, seed=2, dtype="bfloat16"),
        "ids": np.arange(500_000),
        "wide": fi.normal(400_000, seed=3, dtype="float64"),
    }


def test_the_result_does_not_depend_on_the_threads(tmp_path):
    path = saved(tmp_path / "a.safetensors", tensors_of_many_kinds())
    found = [checkpoint.survey(path, threads=number).to_table()["tensors"] for number in (1, 2, 3, 8)]
    assert found[0] == found[1] == found[2] == found[3]
    for one, x in zip(checkpoint.survey(path).tensors, tensors_of_many_kinds().values(), strict=True):
        assert_agrees(one, x)


def test_files_are_closed(tmp_path):
    path = saved(tmp_path / "a.safetensors", tensors_of_many_kinds())
    script = (
        "import os, sys; from fastinit import checkpoint; before = len(os.listdir('/dev/fd'))\n"
        "for _ in range(3): checkpoint.survey(sys.argv[1], threads=3)\n"
        "print(len(os.listdir('/dev/fd')) - before)"
    )
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True, timeout=120)
    assert (done.stdout, done.stderr) == ("0\n", "")


# --- files, folders, names ---

PARTS = {"a.safetensors": ["h.0.w", "h.0.b"], "b.safetensors": ["h.1.w", "h.1.b"]}


@pytest.fixture
def folder(tmp_path):
    for file, names in PARTS.items():
        saved(tmp_path / file, {name: fi.normal(100 + i, seed=i) for i, name in enumerate(names)})
    return tmp_path


def indexed(folder, **change):
    weight_map = {name: file for file, names in PARTS.items() for name in names} | change
    path = folder / INDEX_NAME
    path.write_text(json.dumps({"weight_map": weight_map}))
    return path


def test_a_folder_without_and_with_an_index(folder):
    without = checkpoint.survey(folder)
    assert [one.name for one in without.tensors] == ["h.0.w", "h.0.b", "h.1.w", "h.1.b"]
    assert {one.file for one in without.tensors} == set(PARTS)
    index = indexed(folder)
    for path in (folder, index, str(folder)):
        assert repr(checkpoint.survey(path).tensors) == repr(without.tensors)  # from Python 3.13 on, NaN is unequal
    assert [one.name for one in checkpoint.survey(folder / "b.safetensors").tensors] == ["h.1.w", "h.1.b"]


def test_patterns(folder):
    def names(*patterns):
        return [one.name for one in checkpoint.survey(folder, patterns).tensors]

    assert names("*.w") == ["h.0.w", "h.1.w"]
    assert names("h.{0,7}.w", "h.1.b") == ["h.0.w", "h.1.b"]
    assert [one.name for one in checkpoint.survey(folder, "h.1.*").tensors] == ["h.1.w", "h.1.b"]
    with pytest.raises(ValueError, match=r"no tensor matches 'q\*'$"):
        names("*.w", "q*")
    with pytest.raises(ValueError, match=r"no tensor matches '0\.w'; did you mean '\*\.0\.w'\?"):
        names("0.w")
    with pytest.raises(ValueError, match="unbalanced braces"):
        names("h.{0")


def test_a_checkpoint_without_tensors(tmp_path):
    found = checkpoint.survey(saved(tmp_path / "a.safetensors", {}))
    assert (found.tensors, found.nbytes) == ((), 0)
    assert str(found).endswith("0 tensors, 0 elements, 0 bytes")
    assert "<table" in found.to_html()


BAD = {
    "nothing there": (lambda p: p / "no.safetensors", FileNotFoundError, "No such file"),
    "an empty folder": (lambda p: p, ValueError, "holds no model.safetensors.index.json and no .safetensors file"),
    "an empty file": (lambda p: _file(p, b""), ValueError, "no safetensors file: it is empty"),
    "text": (lambda p: _file(p, b"hello, world, this is a text"), ValueError, "no safetensors file"),
    "cut off": (lambda p: _cut(p), ValueError, "the tensors must take 400 bytes after the header. Received: 399"),
    "no index": (lambda p: _file(p, b'{"a": 1}', "x.json"), ValueError, "weight_map must hold a file for each name"),
    "no json": (lambda p: _file(p, b"{", "x.json"), ValueError, "x.json"),
    "a device": (lambda p: "/dev/null", ValueError, "no safetensors file, but a folder or a device"),
}


def _file(folder, data, name="a.safetensors"):
    (folder / name).write_bytes(data)
    return folder / name


def _cut(folder):
    path = saved(folder / "a.safetensors", {"x": fi.normal(100)})
    return _file(folder, path.read_bytes()[:-1])


@pytest.mark.parametrize("what", BAD)
def test_bad_files(tmp_path, what):
    make, error, message = BAD[what]
    with pytest.raises(error) as caught:
        checkpoint.survey(make(tmp_path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"h.0.w": "../a.safetensors"}, ValueError, "must lie beside it"),
        ({"h.0.w": 3}, ValueError, "weight_map must hold a file for each name"),
    ],
)
def test_bad_indices(folder, change, error, message):
    index = indexed(folder, **change)
    with pytest.raises(error) as caught:
        checkpoint.survey(index)
    assert message in str(caught.value)


def test_a_name_in_two_files(folder):
    saved(folder / "c.safetensors", {"h.0.w": fi.normal(3)})
    with pytest.raises(ValueError, match=r"'h\.0\.w' is in another file too"):
        checkpoint.survey(folder)


@pytest.mark.parametrize("size", [100, 5_000_000])
def test_a_file_that_is_cut_off_meanwhile(tmp_path, size, monkeypatch):
    path = saved(tmp_path / "a.safetensors", {"x": fi.normal(size)})
    real = gathering._reads

    def reads(tensors):
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - 100)
        return real(tensors)

    monkeypatch.setattr(gathering, "_reads", reads)
    with pytest.raises(ValueError, match="was cut off while it was read"):
        checkpoint.survey(path)


def test_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.safetensors", {"x": fi.normal(5_000_000)})

    def failing(descriptor, *arguments):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(gathering, "kernel", lambda *names: Kernel(0, lambda *part: None))  # reads nothing
    monkeypatch.setattr(gathering.files, "read_at", failing)
    with pytest.raises(OSError, match="Input/output error"):
        checkpoint.survey(path)


# --- plans ---

PLAN = fi.Plan(
    {
        "embed.weight": ((500, 300), "bfloat16", fi.Normal(0, 0.02)),
        "attn.weight": ((300, 300), "float32", fi.Uniform(-0.03, 0.03)),
        "mlp.weight": ((300, 301), "float16", fi.TruncatedNormal(0, 0.02, -0.04, 0.04)),
        "loose.weight": ((300, 301), "float32", fi.TruncatedNormal(0, 0.02, -2, 2)),
        "norm.weight": ((300,), "float32", "ones"),
        "norm.bias": ((300,), "bfloat16", "zeros"),
        "square.weight": ((100, 100), "float32", "orthogonal"),
        "tiny": ((3,), "float32", "normal"),
        "scalar": ((), "float32", fi.Constant(0.3)),
        "empty": ((0, 4), "float32", "normal"),
        "head.weight": fi.Tied("embed.weight"),
        "cast": fi.Fill((400, 300), "float32", fi._core.composite.Cast(fi.Normal(), "bfloat16")),
    },
    seed=5,
)


@pytest.fixture
def written(tmp_path):
    checkpoint.write(PLAN, tmp_path / "job", max_shard_bytes=200_000, fsync=False)
    return tmp_path / "job"


def verdicts(path, **options):
    return {one.name: one.verdict for one in checkpoint.survey(path, **options).tensors}


def test_a_fresh_checkpoint_is_as_planned(written):
    found = verdicts(written)
    told = {
        "square.weight": "planned orthogonal: not told by its numbers alone",
        "tiny": "too few elements to tell",
    }
    assert found == {name: told.get(name, "as planned") for name in PLAN.filled}
    survey = checkpoint.survey(written)
    assert survey.missing == ()
    laws = {one.name: one.planned for one in survey.tensors}
    assert laws["attn.weight"] == fi.Uniform(-0.03, 0.03)
    assert laws["loose.weight"] == fi.Normal(0, 0.02)
    assert laws["square.weight"] is None
    assert all(one.planned_p > 1e-5 for one in survey.tensors if one.planned is not None and one.count > 3)


def changed(written, name, change):
    """Change one tensor of a checkpoint, in its file."""
    for path in written.glob("*.safetensors"):
        tensors = safetensors.numpy.load_file(path) if "bf16" in path.name else _loaded(path)
        if name in tensors:
            tensors[name] = np.asarray(change(tensors[name]), tensors[name].dtype)
            saved(path, tensors)
            return
    raise AssertionError(name)


def _loaded(path):
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    names = {code: name for name, code in CODES.items()}
    table = json.loads(data[8:start])
    table.pop("__metadata__", None)
    return {
        name: np.frombuffer(data[start:][slice(*row["data_offsets"])], names[row["dtype"]]).reshape(row["shape"])
        for name, row in sorted(table.items(), key=lambda item: item[1]["data_offsets"])
    }


def _at(x, index, value):
    x = x.copy()
    x[index] = value
    return x


RNG = np.random.default_rng(0)
TRAINED = {
    "scaled": ("embed.weight", lambda x: x * 1.05, "differs from the plan: std 0.02104 instead of 0.02"),
    "moved": (
        "attn.weight",
        lambda x: np.abs(x),
        "differs from the plan: mean 0.01503 instead of 0, std 0.008666 instead of 0.01732",
    ),
    "beyond its bounds": ("attn.weight", lambda x: _at(x, (3, 4), 0.04), "beyond -0.03 to 0.03"),
    "of another shape": (
        "embed.weight",
        lambda x: RNG.uniform(-0.02 * 3**0.5, 0.02 * 3**0.5, x.shape),
        "differs from the plan: another law than normal(std=0.02), KS 0.0",
    ),
    "one far out": ("embed.weight", lambda x: _at(x, (3, 4), 0.3), "to 0.3008, where 150,000 numbers of normal(std"),
    "a norm": ("norm.weight", lambda x: _at(x, 7, 1.01), "from 1 to 1.01 instead of 1 everywhere"),
    "not finite": ("mlp.weight", lambda x: _at(x, (0, 0), np.nan), "1 not finite; differs from the plan"),
    "infinite": ("embed.weight", lambda x: _at(x, (0, 0), -np.inf), "1 not finite; differs from the plan"),
    "a norm with NaN": ("norm.weight", lambda x: _at(x, 3, np.nan), "1 not finite; differs from the plan"),
    "not told otherwise": ("square.weight", lambda x: _at(x, (1, 1), np.inf), "1 not finite; differs from the plan"),
    "too few, and NaN": ("tiny", lambda x: _at(x, 1, np.nan), "1 not finite; differs from the plan"),
    "scaled, and NaN": (
        "embed.weight",
        lambda x: _at(x * 1.05, (0, 0), np.nan),
        "1 not finite; differs from the plan: std 0.02104 instead of 0.02",
    ),
    "a scalar": ("scalar", lambda x: x + 1, "from 1.3 to 1.3 instead of 0.3 everywhere"),
    "all NaN": ("tiny", lambda x: x * np.nan, "3 not finite; differs from the plan"),
}


@pytest.mark.parametrize("what", TRAINED)
def test_trained_tensors_differ(written, what):
    name, change, words = TRAINED[what]
    changed(written, name, change)
    found = verdicts(written)
    assert words in found.pop(name)
    assert all("differs" not in verdict for verdict in found.values())


def test_a_checkpoint_of_another_plan(written):
    other = {
        "embed.weight": ((300, 500), "bfloat16", "normal"),
        "attn.weight": ((300, 300), "bfloat16", "normal"),
        "gone.weight": ((4, 4), "float32", "normal"),
        "norm.bias": fi.Fill((300,), "bfloat16", fi.Values(np.zeros(300, DTYPES["bfloat16"]))),
        "buffer": fi.Fill((4, 4), "float32", "normal", persistent=False),
    }
    survey = checkpoint.survey(written, plan=fi.Plan(other))
    found = {one.name: one.verdict for one in survey.tensors}
    assert found["embed.weight"] == "differs from the plan: shape [500, 300] instead of [300, 500]"
    assert found["attn.weight"] == "differs from the plan: float32 instead of bfloat16"
    assert found["mlp.weight"] == "missing in the plan"
    assert found["norm.bias"] == "given values: not compared"
    assert survey.missing == ("gone.weight",)
    assert "not in the checkpoint, though in the plan: gone.weight" in str(survey)
    assert checkpoint.survey(written, ["embed*"], plan=fi.Plan(other)).missing == ()


def test_without_a_plan_nothing_is_said(written):
    (written / "fastinit.json").unlink()
    assert set(verdicts(written).values()) == {""}
    assert set(verdicts(written, plan=PLAN).values()) > {"as planned"}


# --- what it is shown as ---


def test_json_is_strict_and_complete(tmp_path):
    x = {"a": fi.normal((20, 30)), "b": np.full(3, np.nan), "c": np.zeros(0), "d": np.array([-1.7e308, 1.7e308])}
    survey = checkpoint.survey(saved(tmp_path / "a.safetensors", x))
    table = json.loads(survey.to_json(), parse_constant=lambda text: pytest.fail(text))
    assert table == survey.to_table()
    rows = {row["name"]: row for row in table["tensors"]}
    assert rows["a"]["fit"]["distribution"]["scheme"] == "normal"
    assert rows["a"]["planned"] == {"distribution": None, "ks": None, "p": None}
    assert rows["b"]["min"] is rows["b"]["std"] is rows["c"]["mean"] is None
    assert (rows["d"]["mean"], rows["d"]["std"]) == (0, 1.7e308)
    assert rows["b"]["nonfinite"] == 3
    assert Histogram.from_table(rows["a"]["histogram"]).total == 600


@pytest.mark.parametrize("name", HOSTILE)
def test_any_name_is_shown(tmp_path, name):
    survey = checkpoint.survey(saved(tmp_path / "a.safetensors", {name: fi.normal(200)}))
    assert survey.tensors[0].name == json.loads(survey.to_json())["tensors"][0]["name"] == name
    lines = str(survey).splitlines()
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)
    assert "boom()</script>" not in survey.to_html().replace("&lt;/script&gt;", "")


def test_the_table_is_aligned_and_short(written):
    lines = str(checkpoint.survey(written)).splitlines()
    column = lines[0].index("verdict")
    assert all(line[column - 2 : column] == "  " for line in lines[1:-1])
    assert lines[-1].startswith("11 tensors, ")
    assert "normal(std=0.02)" in "".join(lines) or "normal(mean=" in "".join(lines)


def test_a_page_of_many_tensors_is_small(tmp_path):
    tensors = {f"model.layers.{i}.self_attn.q_proj.weight": fi.normal(300, seed=i) for i in range(500)}
    page = checkpoint.survey(saved(tmp_path / "a.safetensors", tensors)).to_html()
    assert len(page) < 500 * 1500  # 10,000 tensors: 15 MB


PEAK = """
import sys
from fastinit import checkpoint
from fastinit.checkpoint._write import peak_memory
checkpoint.survey(sys.argv[1], threads=2)
print(peak_memory())
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_checkpoint(tmp_path):
    """A gigabyte, mostly a hole in the file: zeros that cost no disk."""
    header = json.dumps({"x": {"dtype": "BF16", "shape": [1 << 14, 1 << 15], "data_offsets": [0, 1 << 30]}}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with path.open("r+b") as file:
        file.truncate(8 + len(header) + (1 << 30))
    done = subprocess.run([sys.executable, "-c", PEAK, path], capture_output=True, text=True, check=True, timeout=300)
    assert int(done.stdout) < 400e6
    assert done.stderr == ""


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2"])
def test_threads_must_be_a_number(folder, threads):
    with pytest.raises((ValueError, TypeError), match="threads must be"):
        checkpoint.survey(folder, threads=threads)
