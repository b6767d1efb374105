"""The normal law to 60 digits, in decimal arithmetic.

The parameters of a truncated normal go into the kernels, so they must have the same bits everywhere. libm's erfc
does not promise that (glibc picks a variant by CPU); Python's decimals do. A call takes about 0.1 ms and is cached.
"""

from __future__ import annotations

import functools
import math
from decimal import Context, Decimal, localcontext
from typing import NamedTuple

_DIGITS = Context(prec=60, Emin=-999_999, Emax=999_999)
_TWO_PI = Decimal("6.283185307179586476925286766559005768394338798750211641949889184615632812572418")
_LN2 = 0.6931471805599453
_TAIL = 6  # sigma from which the continued fraction is the quicker of the two
_FRACTION_TERMS = 300


def _density(x: Decimal) -> Decimal:
    return (-x * x / 2).exp() / _TWO_PI.sqrt()


def _lower(x: Decimal) -> Decimal:
    """Phi(x) for x <= 0."""
    if -x >= _TAIL:
        # Laplace's continued fraction of Mills' ratio: phi(x) / (x + 1 / (x + 2 / (x + ...)))
        total = -x
        for k in range(_FRACTION_TERMS, 0, -1):
            total = -x + k / total
        return _density(x) / total
    # Phi(x) = 1/2 + phi(x) (x + x^3 / 3 + x^5 / (3 5) + ...)
    term = total = x
    k = 1
    while abs(term) > abs(total) * Decimal("1e-60"):
        k += 2
        term = term * x * x / k
        total += term
    return Decimal("0.5") + _density(x) * total


class Truncation(NamedTuple):
    """A standard normal between a and b: the masses below, above and inside, and the mean and deviation inside."""

    below: float
    above: float
    mass: float
    centre: float  # (Phi(a) + Phi(b) - 1) / 2
    mean: float
    std: float

    def in_tail_units(self) -> tuple[float, float, float, float]:
        """The masses below, above and inside in units of 2^e, and -2 ln 2^e, for float32, which cannot hold those of a
        far tail.

        e is 0 if the median lies between the bounds. Otherwise 2^e is the power of two above the mass beyond the nearer
        bound, and the mass on the other side of the median, which no draw needs, is 0.
        """
        below, above, mass = self.below, self.above, self.mass
        if below > 0.5:
            below, total = 0.0, above + mass
        elif above > 0.5:
            above, total = 0.0, below + mass
        else:
            return below, above, mass, 0.0
        exponent = math.frexp(total)[1]
        below, above, mass = (math.ldexp(value, -exponent) for value in (below, above, mass))
        return below, above, mass, -2 * exponent * _LN2


@functools.lru_cache(maxsize=1024)
def truncation(a: float, b: float) -> Truncation:
    """The truncation of the standard normal to [a, b], a < b; mean and std are (nan, nan) where the mass is 0."""
    with localcontext(_DIGITS):
        x, y = Decimal(a), Decimal(b)
        below, above = _lower(-abs(x)), _lower(-abs(y))
        # Each side as Phi of a negative number, so that no digit is lost: 1 - Phi(x) = Phi(-x).
        below, not_below = (below, 1 - below) if x <= 0 else (1 - below, below)
        above, not_above = (above, 1 - above) if y >= 0 else (1 - above, above)
        mass = not_below - above if x > 0 else not_above - below
        if not mass:
            return Truncation(float(below), float(above), 0.0, float(below - above) / 2, float("nan"), float("nan"))
        p, q = _density(x), _density(y)
        mean = (p - q) / mass
        variance = 1 + (x * p - y * q) / mass - mean * mean
        return Truncation(
            float(below),
            float(above),
            float(mass),
            float((below - above) / 2),
            float(mean),
            float(max(variance, Decimal(0)).sqrt()),
        )
