"""The recipes for deep and for wide models, against numbers worked out by hand from the papers' formulas."""

import itertools
import math

import mpmath
import numpy as np
import pytest

import fastinit as fi
from fastinit.schemes._deep import _inverse_root

KEY = fi.Key(34) / "deep"

# Shapes are (m, n): (50, 30) has n + m = 80, so Xavier's std is sqrt(1/40) before its gain, and He's sqrt(2/30).
XAVIER, HE = 40**-0.5, 15**-0.5
STDS = [
    # Radford et al. 2019, Megatron-LM: std / sqrt(2 L)
    ("depth_scaled", {"layers": 8}, 0.02 / 4),
    ("depth_scaled", {"layers": 12}, 0.00408248290463863),  # GPT-2 small
    ("depth_scaled", {"layers": 50, "std": 0.3}, 0.03),
    # Tensor Programs V, Table 3: variances 1, 1/n, 1/n^2, all std^2 at n = base
    ("mup", {"base": 120, "role": "input"}, 0.02),
    ("mup", {"base": 120, "role": "hidden"}, 0.04),
    ("mup", {"base": 120, "role": "output"}, 0.08),
    ("mup", {"base": 30, "std": 0.7}, 0.7),
    ("mup", {"base": 30, "std": 0.7, "role": "output"}, 0.7),
    # DeepNet, the table of alpha and beta in section 3
    ("deepnet", {"layers": 2}, XAVIER / 2),  # (8 2)^(-1/4)
    ("deepnet", {"layers": 162}, XAVIER / 6),  # (8 162)^(-1/4) = 1296^(-1/4)
    ("deepnet", {"layers": 162, "role": "encoder"}, XAVIER / 6),
    ("deepnet", {"layers": 16, "role": "encoder", "other_layers": 1}, XAVIER * 0.87 / 2),  # (16^4 1)^(1/16) = 2
    ("deepnet", {"layers": 1, "role": "encoder", "other_layers": 65536}, XAVIER * 0.87 / 2),
    ("deepnet", {"layers": 100, "role": "encoder", "other_layers": 100}, XAVIER * 0.2063095123926),  # 0.87 10^(-5/8)
    ("deepnet", {"layers": 108, "role": "decoder", "other_layers": 7}, XAVIER / 6),  # (12 108)^(-1/4)
    # T-Fixup, section 3.2
    ("tfixup", {"layers": 9}, XAVIER / 3),
    ("tfixup", {"layers": 144}, XAVIER / 6),
    ("tfixup", {"layers": 16, "role": "encoder"}, XAVIER * 0.67 / 2),
    ("tfixup", {"layers": 9, "role": "embedding"}, 30**-0.5 / 3),
    # Fixup, step 2: L^(-1/(2m-2))
    ("fixup", {"layers": 16}, HE / 4),
    ("fixup", {"layers": 16, "branch": 3}, HE / 2),
    ("fixup", {"layers": 8, "branch": 4}, HE / math.sqrt(2)),
    ("fixup", {"layers": 25, "mode": "fan_out"}, 0.2 / 5),  # sqrt(2 / 50)
]
each_law = pytest.mark.parametrize(("name", "parameters", "std"), STDS, ids=str)


@each_law
def test_stds_are_the_papers(name, parameters, std):
    law = fi.distribution(name, (50, 30), **parameters)
    assert law.mean == 0
    assert law.std == pytest.approx(std, rel=1e-11)
    uniform = name == "tfixup" and parameters.get("role") != "embedding"
    assert isinstance(law, fi.Uniform if uniform else fi.Normal)


@pytest.mark.parametrize("name", ["depth_scaled", "mup", "deepnet", "tfixup", "fixup"])
def test_what_is_drawn_has_the_std(name):
    """400 matrices: s^2 of N values has a standard deviation of s^2 sqrt(2 / N) at most."""
    for parameters, std in [(parameters, std) for other, parameters, std in STDS if other == name]:
        x = getattr(fi, name)((400, 50, 30), seed=KEY / name, dtype="float64", batch_axes=0, **parameters)
        assert x.var() == pytest.approx(std**2, rel=4 * math.sqrt(2 / x.size))
        assert abs(x.mean()) < 4 * std / math.sqrt(x.size)


@pytest.mark.parametrize("role", ["input", "hidden", "output"])
def test_mup_at_the_base_is_what_was_tuned_to_the_bit(role):
    for std, base in itertools.product((0.02, 0.7, 1 / 3, 1e-3), (3, 49, 768, 5120)):
        assert fi.distribution("mup", (50, base), base=base, std=std, role=role) == fi.Normal(0, std)


def test_mup_keeps_hidden_activations_whatever_the_width():
    """And a network's output falls as 1 / sqrt(width): its sums are as large as their terms are correlated."""
    sizes = {"hidden": [], "output": []}
    for width in (64, 256, 1024):
        x = fi.normal((width, 500), seed=KEY / "x", dtype="float64")
        for role, found in sizes.items():
            w = fi.mup((300, width), base=64, std=0.125, role=role, seed=KEY / role, dtype="float64")
            found.append((w @ x).std())
    np.testing.assert_allclose(sizes["hidden"], [1, 1, 1], rtol=0.03)
    np.testing.assert_allclose(sizes["output"], [1, 1 / 2, 1 / 4], rtol=0.03)


def test_convolutions_count_their_kernel():
    assert fi.distribution("fixup", (8, 5, 3, 2), layers=16).std == pytest.approx(math.sqrt(2 / 30) / 4)
    assert fi.distribution("mup", (8, 5, 3, 2), base=120).std == pytest.approx(0.04)
    assert fi.distribution("deepnet", (5, 3, 10), layers=2).std == pytest.approx(XAVIER / 2)


def test_an_embeddings_features_are_its_fan_in_with_layout_oi():
    assert fi.distribution("tfixup", (1000, 16), layers=9, role="embedding").std == pytest.approx(1 / 12)
    assert fi.distribution("tfixup", (16, 1000), layers=9, role="embedding", layout="io").std == pytest.approx(1 / 12)


def test_what_has_no_use_for_fans_takes_any_shape():
    assert fi.depth_scaled(7, layers=3).shape == (7,)
    assert fi.mup(7, base=64, role="input").shape == (7,)
    for call in (lambda: fi.mup(7, base=64), lambda: fi.deepnet(7, layers=3), lambda: fi.tfixup(7, layers=3)):
        with pytest.raises(ValueError, match="fewer than 2 dimensions"):
            call()


def test_empty_tensors_are_nothing_to_do():
    for (name, parameters, _), shape in itertools.product(STDS, [(0, 4), (4, 0), (0, 0)]):
        assert getattr(fi, name)(shape, **parameters).shape == shape


def test_roots_are_rounded_once():
    """No bit of a law may depend on a machine's pow."""
    generator = np.random.default_rng(1)
    for x in [*range(1, 200), *generator.integers(1, 2**53, 200).tolist()]:
        for degree in (1, 2, 3, 4, 7, 16):
            with mpmath.workdps(60):
                expected = float(1 / mpmath.root(x, degree))
            assert _inverse_root(x, degree) == expected
    assert _inverse_root(10**300, 3) == 1e-100


def test_a_million_layers():
    assert fi.distribution("depth_scaled", (3, 4), layers=10**6).std == pytest.approx(0.02 / math.sqrt(2e6))
    assert 0 < fi.distribution("deepnet", (3, 4), layers=10**300, other_layers=10**300, role="encoder").std < 1e-90


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("mup", {"base": 64, "role": "hiden"}, "unknown role 'hiden'; did you mean 'hidden'? Allowed: input, hidden, "),
        ("mup", {"base": 64, "role": ["hidden"]}, "unknown role ['hidden']"),
        ("deepnet", {"layers": 2, "role": "embedding"}, "unknown role 'embedding'. Allowed: encoder, decoder"),
        ("deepnet", {"layers": 2, "other_layers": 3, "role": None}, "unknown role None. Allowed: encoder, decoder"),
        ("tfixup", {"layers": 2, "role": "x"}, "unknown role 'x'. Allowed: encoder, decoder, embedding"),
        ("fixup", {"layers": 2, "branch": 1}, "branch must be at least 2. Received: branch=1"),
        ("fixup", {"layers": 2, "mode": "x"}, "unknown mode 'x'"),
        ("deepnet", {"layers": 2, "other_layers": 0}, "other_layers must be positive. Received: other_layers=0"),
        ("depth_scaled", {"layers": 10**400}, "layers must be finite. Received: layers=1000"),
    ],
    ids=str,
)
def test_wrong_parameters(name, parameters, message):
    out = np.full((4, 3), 7.0)
    with pytest.raises(ValueError, match=r"Received|Allowed") as caught:
        getattr(fi, name)(out=out, seed=0, **parameters)
    assert str(caught.value).startswith(message)
    assert (out == 7).all()


def test_a_plan_takes_them_by_name(tmp_path):
    job = tmp_path / "job.toml"
    job.write_text("""
        [tensors."h.{0..1}.proj"]
        shape = [8, 4]
        scheme = "depth_scaled"
        layers = 2
        [tensors."head"]
        shape = [10, 16]
        scheme = "mup"
        base = 4
        role = "output"
        [tensors."wide"]
        shape = [4, 2]
        scheme = "hadamard"
    """)
    plan = fi.Plan.from_toml(job)
    assert plan["h.1.proj"].distribution == fi.Normal(0, 0.01)
    assert plan["head"].distribution == fi.Normal(0, 0.005)
    assert plan["wide"].distribution == fi.Hadamard()
