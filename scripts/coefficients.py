"""Write `fastinit/kernels/coefficients.json`, the coefficients of the kernels' polynomials and rational functions.

Each function is interpolated at Chebyshev nodes in 60 digits, which stays within a small factor of the minimax
error, and the leading coefficients are pinned where an exact one exists (log1p(x) = x + ..., cos(0) = 1).
`tests/test_elementary.py` and `test_exponential.py` measure the result in ulps.

Run: python scripts/coefficients.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import mpmath as mp

mp.mp.dps = 60
TARGET = Path(__file__).parents[1] / "fastinit" / "kernels" / "coefficients.json"
Function = Callable[[mp.mpf], mp.mpf]


def chebyshev_nodes(low: mp.mpf, high: mp.mpf, count: int) -> list[mp.mpf]:
    """The `count` roots of the Chebyshev polynomial, moved to [low, high]."""
    middle, half = (mp.mpf(low) + high) / 2, (mp.mpf(high) - low) / 2
    return [middle + half * mp.cos(mp.pi * (2 * i + 1) / (2 * count)) for i in range(count)]


def polynomial(f: Function, low: mp.mpf, high: mp.mpf, degree: int) -> list[mp.mpf]:
    """Coefficients, constant first, of the interpolating polynomial."""
    nodes = chebyshev_nodes(low, high, degree + 1)
    rows = mp.matrix([[x**k for k in range(degree + 1)] for x in nodes])
    return list(mp.lu_solve(rows, mp.matrix([f(x) for x in nodes])))


def rational(f: Function, nodes: list[mp.mpf], degree: int) -> tuple[list[mp.mpf], list[mp.mpf]]:
    """Numerator and denominator, both of `degree`, the denominator's constant 1, through 2 degree + 1 nodes."""
    rows = [[x**k for k in range(degree + 1)] + [-f(x) * x**k for k in range(1, degree + 1)] for x in nodes]
    found = list(mp.lu_solve(mp.matrix(rows), mp.matrix([f(x) for x in nodes])))
    return found[: degree + 1], [mp.mpf(1), *found[degree + 1 :]]


def error(f: Function, g: Function, low: mp.mpf, high: mp.mpf) -> mp.mpf:
    """The largest relative error of g on a fine grid, as a power of two."""
    points = [low + (high - low) * mp.mpf(i) / 1009 for i in range(1010)]
    return mp.log(max(abs(g(x) / f(x) - 1) for x in points if f(x) != 0), 2)


def horner(coefficients: list[mp.mpf]) -> Function:
    return lambda x: mp.polyval(coefficients[::-1], x)


def row(name: str, exponent: mp.mpf, coefficients: list[mp.mpf], type_name: str) -> str:
    """A line of the file."""
    digits = 9 if type_name == "f32" else 17
    numbers = ", ".join(mp.nstr(c, digits, strip_zeros=False) for c in coefficients[::-1])
    return f' "{name}": {{"relative_error": "2^{mp.nstr(exponent, 4)}", "highest_degree_first": [{numbers}]}}'


# --- the functions, each without the factor that the kernel multiplies back ---


def log1p_tail(x: mp.mpf) -> mp.mpf:
    """(log(1 + x) - x) / x^2"""
    return (mp.log(1 + x) - x) / x**2 if abs(x) > mp.mpf("1e-18") else mp.mpf(-0.5)


def atanh_tail(z: mp.mpf) -> mp.mpf:
    """(atanh(s) / s - 1) / s^2 with z = s^2"""
    s = mp.sqrt(z)
    return (mp.atanh(s) / s - 1) / z if z else mp.mpf(1) / 3


def sinpi_over(z: mp.mpf) -> mp.mpf:
    """sin(pi t) / t with z = t^2"""
    t = mp.sqrt(z)
    return mp.sin(mp.pi * t) / t if z else mp.pi


def cospi_tail(z: mp.mpf) -> mp.mpf:
    """(cos(pi t) - 1) / t^2 with z = t^2"""
    return (mp.cos(mp.pi * mp.sqrt(z)) - 1) / z if z else -(mp.pi**2) / 2


def quantile_over(edge: mp.mpf) -> Function:
    """Phi^-1(1/2 + q) / q with v = edge^2 - q^2: the middle of the normal quantile, |q| <= edge.

    Counted from the edge, as in AS 241, all coefficients are positive; in powers of q^2 they alternate and cancel,
    which costs 8 bits.
    """

    def f(v: mp.mpf) -> mp.mpf:
        q = mp.sqrt(edge**2 - v)
        return mp.sqrt(2) * mp.erfinv(2 * q) / q if q > mp.mpf("1e-18") else mp.sqrt(2 * mp.pi)

    return f


def quantile_tail(r: mp.mpf) -> mp.mpf:
    """-Phi^-1(exp(-r^2)): the tail of the normal quantile"""
    p = mp.exp(-(r**2))
    start = r * mp.sqrt(2) - (mp.log(r) + mp.mpf("0.9")) / (r * mp.sqrt(2)) if r > 2 else r
    return mp.findroot(lambda x: mp.log(mp.erfc(x / mp.sqrt(2)) / 2) - mp.log(p), start)


def quantile_tail_of_radius(r: mp.mpf) -> mp.mpf:
    """-Phi^-1(exp(-r^2 / 2)): the same, of the r that is nearly the result"""
    return quantile_tail(r / mp.sqrt(2))


def expm1_tail(r: mp.mpf) -> mp.mpf:
    """(exp(r) - 1 - r) / r^2"""
    return (mp.expm1(r) - r) / r**2 if abs(r) > mp.mpf("1e-18") else mp.mpf(0.5)


def erf_over(z: mp.mpf) -> mp.mpf:
    """erf(x) / x with z = x^2"""
    x = mp.sqrt(z)
    return mp.erf(x) / x if z else 2 / mp.sqrt(mp.pi)


SHIFT = 4  # K below: of the small integers the one with the fewest terms


def erfcx_over(t: mp.mpf) -> mp.mpf:
    """(x + K) exp(x^2) erfc(x) with t = (x - K) / (x + K): half of the line becomes an interval"""
    x = SHIFT * (1 + t) / (1 - t)
    return (x + SHIFT) * mp.exp(x**2) * mp.erfc(x)


def shifted(x: float) -> mp.mpf:
    """The t of an x."""
    return (mp.mpf(x) - SHIFT) / (mp.mpf(x) + SHIFT)


def exponential() -> Iterator[str]:
    """The rows that `kernels/exponential.py` uses."""
    half, quarter = mp.log(2) / 2 * mp.mpf("1.001"), mp.mpf(1) / 4
    jobs = [
        ("EXPM1_32", expm1_tail, -half, half, 5, "f32"),
        ("ERF_32", erf_over, mp.mpf(0), quarter, 4, "f32"),
        ("ERFCX_32", erfcx_over, mp.mpf(-1), shifted(10.5), 10, "f32"),
        ("EXPM1_64", expm1_tail, -half, half, 10, "f64"),
        ("ERF_64", erf_over, mp.mpf(0), quarter, 8, "f64"),
        ("ERFCX_64", erfcx_over, mp.mpf(-1), shifted(27.5), 22, "f64"),
    ]
    yield from rows(jobs)


def rows(jobs: list[tuple[str, Function, mp.mpf, mp.mpf, int, str]]) -> Iterator[str]:
    """Interpolate (name, function, low, high, degree, type)."""
    for name, f, low, high, degree, type_name in jobs:
        c = polynomial(f, low, high, degree)
        yield row(name, error(f, horner(c), low, high), c, type_name)


def elementary() -> Iterator[str]:
    """The rows that `kernels/elementary.py` uses."""
    third = mp.mpf(1) / 3
    jobs = [
        ("LOG1P_32", log1p_tail, -third, third, 8, "f32"),
        ("SINPI_32", sinpi_over, mp.mpf(0), mp.mpf(1) / 16, 3, "f32"),
        ("COSPI_32", cospi_tail, mp.mpf(0), mp.mpf(1) / 16, 3, "f32"),
        ("ATANH_64", atanh_tail, mp.mpf(0), mp.mpf("0.0401"), 7, "f64"),
        ("SINPI_64", sinpi_over, mp.mpf(0), mp.mpf(1) / 16, 6, "f64"),
        ("COSPI_64", cospi_tail, mp.mpf(0), mp.mpf(1) / 16, 6, "f64"),
    ]
    yield from rows(jobs)

    # The nodes crowd towards the singular end: evenly (in Chebyshev's sense) in w = -log(1 - 4 q^2) for the middle
    # and in log r for the tails. Even nodes in z and r lose 6 to 10 bits.
    def middle(edge: mp.mpf) -> tuple[Function, Function]:
        return (lambda w: edge**2 - (1 - mp.exp(-w)) / 4, lambda v: -mp.log(1 - 4 * (edge**2 - v)))

    edge32, edge64 = mp.mpf("0.4782"), mp.mpf("0.425")
    tail = (mp.exp, mp.log)
    ratios = [
        ("QUANTILE_32", quantile_over(edge32), mp.mpf(0), edge32**2, 5, "f32", middle(edge32)),
        ("TAIL_32", quantile_tail_of_radius, mp.mpf("2.75"), mp.mpf(39), 5, "f32", tail),
        ("QUANTILE_64", quantile_over(edge64), mp.mpf(0), edge64**2, 7, "f64", middle(edge64)),
        ("NEAR_TAIL_64", quantile_tail, mp.mpf("1.6"), mp.mpf(5), 7, "f64", tail),
        ("FAR_TAIL_64", quantile_tail, mp.mpf(5), mp.mpf("27.4"), 7, "f64", tail),
    ]
    for name, f, low, high, degree, type_name, (warp, unwarp) in ratios:
        nodes = [warp(w) for w in chebyshev_nodes(unwarp(low), unwarp(high), 2 * degree + 1)]
        p, q = rational(f, nodes, degree)
        top, bottom = horner(p), horner(q)
        exponent = error(f, lambda x, t=top, b=bottom: t(x) / b(x), low, high)
        yield row(f"{name}_P", exponent, p, type_name)
        yield row(f"{name}_Q", exponent, q, type_name)


if __name__ == "__main__":
    TARGET.write_text("{\n" + ",\n".join([*elementary(), *exponential()]) + "\n}\n")
