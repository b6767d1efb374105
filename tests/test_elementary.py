"""Elementary functions in units in the last place, against mpmath."""

import functools

import mpmath as mp
import numba
import numpy as np
import pytest

from fastinit.kernels import distributions as d
from fastinit.kernels import elementary as e
from scripts import coefficients

mp.mp.dps = 40
GENERATOR = np.random.default_rng(20)
POINTS = 700


@functools.cache
def loop_of(function, which):
    """Compile a loop of a scalar function; `which` picks one of a tuple."""

    @numba.njit(error_model="numpy")
    def loop(x, out):
        for i in range(x.size):
            out[i] = function(x[i]) if which is None else function(x[i])[which]

    return loop


def over(function, x, which=None):
    """A scalar function over an array; `which` picks one of a tuple."""
    out = np.empty(x.shape, {8: np.float64, 4: np.float32}[x.itemsize])
    loop_of(function, which)(x, out)
    return out


def ulps(found, exact):
    """The largest error in units in the last place of the exact value's own size."""
    kind = found.dtype.type
    return max(
        abs(mp.mpf(float(f)) - x) / mp.mpf(float(np.spacing(kind(abs(float(x)))))) if x else abs(mp.mpf(float(f)))
        for f, x in zip(found, exact, strict=True)
    )


def around(kind, *values):
    """The values and their neighbours."""
    centre = np.array(values, kind)
    return np.concatenate([centre, np.nextafter(centre, kind(0)), np.nextafter(centre, kind(np.inf))])


def positives(kind):
    info = np.finfo(kind)
    edges = around(kind, 0.5, 2 / 3, 1, 4 / 3, 2, 1024, 2.0**-30, 3.0)
    wide = np.exp(GENERATOR.uniform(np.log(info.tiny), np.log(info.max), POINTS))
    return np.concatenate([edges, [info.tiny, info.max], wide, GENERATOR.uniform(0.5, 2, POINTS)]).astype(kind)


@pytest.mark.parametrize(("function", "kind"), [(e.log32, np.float32), (e.log64, np.float64)])
def test_log(function, kind):
    x = positives(kind)
    found = over(function, x)
    assert ulps(found, [mp.log(mp.mpf(float(v))) for v in x]) < 1
    assert found[x == 1].tolist() == [0.0]


@pytest.mark.parametrize(("function", "kind"), [(e.sincospi32, np.float32), (e.sincospi64, np.float64)])
def test_sincospi(function, kind):
    x = np.concatenate([[0, 0.25, -0.25, 1e-20], GENERATOR.uniform(-0.25, 0.25, POINTS)]).astype(kind)
    assert ulps(over(function, x, 0), [mp.sinpi(mp.mpf(float(v))) for v in x]) < 2.5
    assert ulps(over(function, x, 1), [mp.cospi(mp.mpf(float(v))) for v in x]) < 1.5


def quantile(p):
    """Phi^-1(p) for any p above 1e-320."""
    if p > mp.mpf("0.01"):
        return mp.sqrt(2) * mp.erfinv(2 * p - 1)
    log_p, s = mp.log(p), mp.sqrt(-2 * mp.log(p))
    return mp.findroot(lambda t: mp.log(mp.erfc(-t / mp.sqrt(2)) / 2) - log_p, -s + (mp.log(s) + mp.mpf("0.9")) / s)


@pytest.mark.parametrize(
    ("function", "kind", "edge"), [(e.middle_quantile32, np.float32, 0.4782), (e.middle_quantile64, np.float64, 0.425)]
)
def test_the_middle_of_the_quantile(function, kind, edge):
    q = np.concatenate([[0, 1e-10, -1e-30], GENERATOR.uniform(-edge, edge, POINTS)]).astype(kind)
    assert (
        ulps(
            over(function, q),
            [
                quantile(mp.mpf(float(v)) + mp.mpf(0.5)) if abs(v) > 1e-6 else mp.sqrt(2 * mp.pi) * mp.mpf(float(v))
                for v in q
            ],
        )
        < 5
    )


def test_the_tail_of_the_quantile():
    p = np.concatenate(
        [[0.075, 1e-307], np.exp(-25 * (1 + around(np.float64, 1e-9))), 10 ** -GENERATOR.uniform(1.13, 307, 300)]
    )
    assert ulps(over(e.tail_quantile64, p), [quantile(mp.mpf(float(v))) for v in p]) < 5


def test_the_quantile_of_float32():
    """Of masses in a tail; on both sides of where its two ways meet."""

    @numba.njit(error_model="numpy")
    def tail(p):
        return e.quantile32(np.float32(p - np.float32(0.5)), e.tail_radius32(p, np.float32(0)))

    p = np.concatenate(
        [10 ** -GENERATOR.uniform(0.302, 37.5, POINTS), 0.0218 * (1 + around(np.float32, 1e-6)), [0.4999]]
    )
    p = p.astype(np.float32)
    assert ulps(over(tail, p), [quantile(mp.mpf(float(v))) for v in p]) < 5


def test_integers_become_floats_rounded_once():
    exponents = np.repeat(np.arange(0, 64, 7, dtype=np.uint64), 500)
    n = GENERATOR.integers(0, 2**64, exponents.size, dtype=np.uint64) >> exponents
    n = np.append(n, np.array([0, 1, 2**63, 2**64 - 1, 2**53 + 1, 2**32], np.uint64))
    assert over(e.float_of_u64, n).tolist() == [float(int(v)) for v in n]
    assert over(e.float_of_i64, n).tolist() == [float(int(v)) for v in n.view(np.int64)]
    small = n >> np.uint64(12)
    assert over(e.float_of_u52, small).tolist() == [float(int(v)) for v in small]


@pytest.mark.parametrize(("function", "bits", "digits"), [(d.radius32, 32, 32), (d.radius64, 64, 53)])
def test_the_radius_keeps_its_digits_at_both_ends(function, bits, digits):
    kind = {32: np.uint32, 64: np.uint64}[bits]
    edges = [0, 1, 2, 2 ** (bits - 1) - 1, 2 ** (bits - 1), 2**bits - 1, 2**bits - 2, 2**bits - 2 ** (bits - 20)]
    words = np.concatenate([np.array(edges, kind), GENERATOR.integers(0, 2**bits, POINTS, dtype=kind)])
    exact = [mp.sqrt(-2 * mp.log((mp.mpf(int(w) >> (bits - digits)) + 0.5) / mp.mpf(2) ** digits)) for w in words]
    assert ulps(over(function, words), exact) < 2


@pytest.mark.slow
def test_the_script_writes_the_coefficients():
    before = coefficients.TARGET.read_text()
    rows = [*coefficients.elementary(), *coefficients.exponential()]
    assert "{\n" + ",\n".join(rows) + "\n}\n" == before
