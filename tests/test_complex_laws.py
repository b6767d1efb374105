"""The complex counterparts of the laws: exact distributions, regions, unitary matrices, errors."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

import fastinit as fi
from fastinit._core.complex import Circular, circular, fill_complex

KEY = fi.Key(5) / "complex"
LAWS = [fi.Normal(0, 0.5), fi.Uniform(-2, 2), fi.TruncatedNormal(0, 0.5, -1, 1), fi.TruncatedNormal(0, 3, -3, 3)]
STRUCTURED = [(fi.Orthogonal(2), (6, 4)), (fi.Orthogonal(), (3, 5, 2)), (fi.DeltaOrthogonal(), (5, 4, 3))]

each_law = pytest.mark.parametrize("law", LAWS, ids=str)
each_dtype = pytest.mark.parametrize("dtype", ["complex64", "complex128"])


def make(law, shape, dtype="complex128", seed=KEY, **how):
    return fill_complex(np.full(shape, 7, dtype), law, seed=seed, **how)


def squared_modulus_law(law):
    """Of |z|^2 / E|z|^2, from the literature: exponential, uniform (a disc), or a cut exponential."""
    match law:
        case fi.Normal():
            return scipy.stats.expon().cdf
        case fi.Uniform():
            return scipy.stats.uniform(0, 2).cdf
    square = (law.high / law.normal.std) ** 2
    mean = scipy.stats.truncexpon(square).mean()
    return scipy.stats.truncexpon(square, scale=1 / mean).cdf


def pvalues(z, law):
    return (
        scipy.stats.kstest(abs(z) ** 2 / law.std**2, squared_modulus_law(law)).pvalue,
        scipy.stats.kstest(np.angle(z), scipy.stats.uniform(-math.pi, 2 * math.pi).cdf).pvalue,
    )


@each_dtype
@each_law
def test_modulus_and_angle_follow_their_laws(law, dtype):
    z = make(law, 200_000, dtype)
    assert z.dtype == dtype
    assert min(pvalues(z, law)) > 1e-3
    assert abs(scipy.stats.spearmanr(abs(z), np.angle(z)).statistic) < 5 / math.sqrt(z.size)


@pytest.mark.slow  # a check of the test above, not of the library
@each_law
def test_the_tests_of_laws_see_a_scale_and_a_turn(law):
    z = make(law, 200_000)
    assert pvalues(1.01 * z, law)[0] < 1e-3
    assert pvalues(z + 0.02 * law.std, law)[1] < 1e-3


@each_dtype
@each_law
def test_the_bound_of_the_modulus(law, dtype):
    z = make(law, 100_000, dtype).astype("complex128")
    radius = circular(law).radius
    assert abs(z).max() <= radius * (1 + 1e-15)
    if radius < math.inf:
        assert abs(z).max() > 0.99 * radius


@each_dtype
@each_law
def test_an_element_depends_on_its_index_alone(law, dtype):
    shape = (7, 5, 300)
    whole = make(law, shape, dtype)
    steps = [slice(None), slice(2, 3), slice(None, None, -2), slice(4, 4)]
    for region in itertools.product(steps, steps[:3], (slice(None), slice(17, 290))):
        out = np.full(whole[region].shape, 7, dtype)
        assert fill_complex(out, law, seed=KEY, shape=shape, region=region) is out
        assert out.tobytes() == whole[region].tobytes()
    memory = np.full((300, 14, 5), 7, dtype)
    strided = memory[:, ::2, ::-1].transpose(1, 2, 0)
    fill_complex(strided, law, seed=KEY)
    assert (strided == whole).all()
    assert (memory[:, 1::2] == 7).all()


@each_law
def test_blocks_do_not_show(law, monkeypatch):
    whole = make(law, (13, 1000))
    monkeypatch.setattr("fastinit._core.complex.BLOCK", 37)
    assert make(law, (13, 1000)).tobytes() == whole.tobytes()


def test_a_normal_law_is_the_real_one_of_pairs():
    pairs = fi.fill(np.empty((9, 4, 2), np.float32), fi.Normal(0, 1 / math.sqrt(2)), seed=KEY)
    assert make(fi.Normal(), (9, 4), "complex64").tobytes() == pairs.tobytes()


def test_redrawn_elements_come_from_the_child_keys():
    """What the module's docstring promises, in NumPy."""
    radius = circular(fi.Uniform(-1, 1)).radius
    drawn = None
    for key in (KEY, *(KEY / f"redraw.{attempt}" for attempt in range(1, 20))):
        parts = fi.fill(np.empty((500, 2)), fi.Uniform(-radius, radius), seed=key)
        fresh = parts[:, 0] + 1j * parts[:, 1]
        drawn = fresh if drawn is None else np.where(abs(drawn) > radius, fresh, drawn)
    assert (drawn == make(fi.Uniform(-1, 1), 500)).all()


@each_dtype
@pytest.mark.parametrize(("law", "shape"), STRUCTURED, ids=str)
def test_unitary_matrices(law, shape, dtype):
    x = make(law, shape, dtype)
    kernel = x[..., 1] if isinstance(law, fi.DeltaOrthogonal) else x
    q = kernel.reshape(shape[0], -1).astype("complex128") / law.gain
    short = q if q.shape[0] <= q.shape[1] else q.conj().T
    tolerance = 1e-6 if dtype == "complex64" else 1e-14
    assert abs(short @ short.conj().T - np.eye(len(short))).max() < tolerance
    assert abs(q.imag).max() > 0.05
    region = (slice(1, 3), slice(None, None, -1))
    part = fill_complex(np.empty_like(x[region]), law, seed=KEY, shape=shape, region=region)
    assert part.tobytes() == x[region].tobytes()
    if isinstance(law, fi.DeltaOrthogonal):
        assert not x[..., 0].any()
        assert not x[..., 2].any()
    turned = make(law, (*shape[2:], shape[1], shape[0]), dtype, layout="io")
    assert (turned.transpose(-1, -2, *range(len(shape) - 2)) == x).all()


def test_unitary_matrices_are_haar_distributed():
    """The first entry's squared modulus follows Beta(1, n - 1), its phase is even, as the trace's."""
    q = np.array([make(fi.Orthogonal(), (4, 4), seed=fi.Key(i)) for i in range(2000)])
    for entry in (q[:, 0, 0], q[:, 3, 1], q[:, 2, 3]):
        assert scipy.stats.kstest(abs(entry) ** 2, scipy.stats.beta(1, 3).cdf).pvalue > 1e-3
        assert scipy.stats.kstest(np.angle(entry), scipy.stats.uniform(-math.pi, 2 * math.pi).cdf).pvalue > 1e-3
    trace = np.trace(q, axis1=1, axis2=2)
    assert scipy.stats.kstest(np.angle(trace), scipy.stats.uniform(-math.pi, 2 * math.pi).cdf).pvalue > 1e-3
    assert abs((abs(trace) ** 2).mean() - 1) < 5 / math.sqrt(2000)  # E|tr U|^2 = 1 (Diaconis and Shahshahani, 1994)


@each_dtype
def test_nothing_to_draw(dtype):
    assert make(fi.Uniform(-1, 1), (3, 0), dtype).shape == (3, 0)
    assert make(fi.Orthogonal(), (3, 0), dtype).shape == (3, 0)
    assert make(fi.TruncatedNormal(0, 0, -1, 1), 4, dtype).tolist() == [0] * 4
    assert make(fi.Uniform(0, 0), 4, dtype).tolist() == [0] * 4
    assert abs(make(fi.Uniform(-1, 1), (), dtype)) > 0


@pytest.mark.parametrize(
    "law", [fi.Normal(1, 1), fi.Uniform(0, 1), fi.TruncatedNormal(0, 1, -1, 2), fi.Constant(1), fi.Eye()], ids=str
)
def test_laws_without_a_counterpart(law):
    out = np.full((3, 3), 7, "complex64")
    with pytest.raises(ValueError, match="Received: "):
        fill_complex(out, law, seed=0)
    assert (out == 7).all()


def test_wrong_arguments():
    for out in (np.empty(3), [1j], np.empty(3, "clongdouble"), np.empty(3, ">c8")):
        with pytest.raises(TypeError, match=r"out must be a NumPy array of complex64 or complex128\. Received: "):
            fill_complex(out, fi.Normal(), seed=0)
    with pytest.raises(ValueError, match=r"out must have the region's shape \(2,\), of the global .* Received: \(3,\)"):
        fill_complex(np.empty(3, "complex64"), fi.Normal(), seed=0, shape=(9,), region=(slice(2),))
    with pytest.raises(ValueError, match="std is over the range of float32"):
        fill_complex(np.empty(3, "complex64"), fi.Normal(0, 1e300), seed=0)
    frozen = np.zeros(3, "complex64")
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="out must be writeable"):
        fill_complex(frozen, fi.Normal(), seed=0)
    with pytest.raises(ValueError, match="out must not overlap itself"):
        fill_complex(np.lib.stride_tricks.as_strided(np.empty(1, "complex64"), (3,), (0,)), fi.Normal(), seed=0)
    assert circular(fi.Normal(0, 1)) == Circular(fi.Normal(0, 1 / math.sqrt(2)))
