"""The classical schemes: baselines, the families with a variance, structured ones.

The formula of the variance stands once, in `scaled`; n and m in the table are fan_in and fan_out.
"""

from __future__ import annotations

import math

from fastinit._core.distributions import Constant, Distribution, Normal, TruncatedNormal, Uniform
from fastinit._core.fans import Fans
from fastinit._core.gains import gain_squared
from fastinit._core.structured import DeltaOrthogonal, Dirac, Eye, Orthogonal, Sparse
from fastinit._runtime.checks import non_negative, squared, unknown
from fastinit.schemes._registry import Lazy, scheme

# The standard deviation of N(0, 1) cut at 2 sigma: a normal whose std is divided by it has the wanted std after.
TRUNCATION_STD = 0.8796256610342398


def scaled(numbers: Fans, *, scale: float, mode: str, distribution: str, truncated: bool = False) -> Distribution:
    """Mean 0 and variance scale / fan, as a uniform or a normal law: the one formula behind the families."""
    fan = numbers.by_mode(mode)
    std = math.sqrt(scale / fan)
    if distribution == "uniform":
        bound = math.sqrt(3 * scale / fan)
        return Uniform(-bound, bound)
    if distribution not in ("normal", "truncated_normal"):
        raise unknown("distribution", distribution, ("uniform", "normal", "truncated_normal"))
    if not isinstance(truncated, bool):
        raise TypeError(f"truncated must be True or False. Received: truncated={truncated!r}")
    if truncated or distribution == "truncated_normal":
        before = std / TRUNCATION_STD
        return TruncatedNormal(0.0, before, -2 * before, 2 * before)
    return Normal(0.0, std)


_GLOROT = "Glorot & Bengio, AISTATS 2010"
_HE = "He, Zhang, Ren, Sun, ICCV 2015"
_LECUN = "LeCun, Bottou, Orr, Mueller, Efficient BackProp, 1998"
_BASELINE = "A baseline"


@scheme("0", _BASELINE)
def zeros(_: Lazy) -> Distribution:
    """Zeros. As weights they keep all units of a layer equal for ever; right for biases."""
    return Constant(0.0)


@scheme("1", _BASELINE)
def ones(_: Lazy) -> Distribution:
    """Ones, as the gains of normalisation layers."""
    return Constant(1.0)


@scheme("value", _BASELINE, example=", value=0.5")
def constant(_: Lazy, *, value: float) -> Distribution:
    """One value everywhere.

    value: that value."""
    return Constant(value)


@scheme("U(low, high)", _BASELINE)
def uniform(_: Lazy, *, low: float = 0.0, high: float = 1.0) -> Distribution:
    """Evenly in [low, high), the scale at the caller's risk.

    low, high: the bounds."""
    return Uniform(low, high)


@scheme("N(mean, std^2)", _BASELINE)
def normal(_: Lazy, *, mean: float = 0.0, std: float = 1.0) -> Distribution:
    """Normal, the scale at the caller's risk.

    mean, std: of the law."""
    return Normal(mean, std)


@scheme("N(mean, std^2) cut to [low, high]", _BASELINE)
def truncated_normal(
    _: Lazy, *, mean: float = 0.0, std: float = 1.0, low: float = -2.0, high: float = 2.0
) -> Distribution:
    """Normal, cut to absolute bounds.

    mean, std: of the law before the cut.
    low, high: the bounds, in units of the values."""
    return TruncatedNormal(mean, std, low, high)


@scheme("U(-1/sqrt n, 1/sqrt n)", "The common heuristic in " + _GLOROT + ", eq. 1")
def heuristic_uniform(numbers: Lazy) -> Distribution:
    """The old heuristic: one over the root of fan_in as the bound. Also the default of torch's Linear."""
    return scaled(numbers(), scale=1 / 3, mode="fan_in", distribution="uniform")


@scheme("N(0, k/n), k = gain^2: 1 for sigmoid, 2 for relu", _LECUN + "; " + _HE)
def heuristic_normal(
    numbers: Lazy, *, nonlinearity: str = "sigmoid", slope: float = 0.01, truncated: bool = False
) -> Distribution:
    """One (tanh, sigmoid) or two (relu) over fan_in as the variance.

    nonlinearity: the activation that follows; k = 1 for tanh too.
    slope: of leaky_relu.
    truncated: cut at 2 sigma, std corrected."""
    k = 1.0 if nonlinearity == "tanh" else gain_squared(nonlinearity, slope)
    return scaled(numbers(), scale=k, mode="fan_in", distribution="normal", truncated=truncated)


@scheme("U(+-gain sqrt(6/(n+m)))", _GLOROT + ", eq. 16", aliases=("glorot_uniform",))
def xavier_uniform(numbers: Lazy, *, gain: float = 1.0) -> Distribution:
    """Xavier (Glorot) uniform: keeps the variance forward and backward on average.

    gain: a factor on the std."""
    return scaled(numbers(), scale=squared("gain", non_negative("gain", gain)), mode="fan_avg", distribution="uniform")


@scheme("N(0, gain^2 2/(n+m))", _GLOROT + ", eq. 12", aliases=("glorot_normal",))
def xavier_normal(numbers: Lazy, *, gain: float = 1.0, truncated: bool = False) -> Distribution:
    """Xavier (Glorot) normal: keeps the variance forward and backward on average.

    gain: a factor on the std.
    truncated: cut at 2 sigma, std corrected."""
    scale = squared("gain", non_negative("gain", gain))
    return scaled(numbers(), scale=scale, mode="fan_avg", distribution="normal", truncated=truncated)


@scheme("U(+-gain sqrt(3/n)), gain sqrt 2 for relu", _HE + ", eq. 10 and 15", aliases=("kaiming_uniform",))
def he_uniform(numbers: Lazy, *, mode: str = "fan_in", nonlinearity: str = "relu", slope: float = 0.01) -> Distribution:
    """He (Kaiming) uniform: keeps the second moment through relu.

    mode: fan_in keeps it forward, fan_out backward; or fan_avg, fan_geo_avg.
    nonlinearity: the activation that follows; its `gain` squared takes the place of relu's 2.
    slope: of leaky_relu, a in 2/((1+a^2) n)."""
    return scaled(numbers(), scale=gain_squared(nonlinearity, slope), mode=mode, distribution="uniform")


@scheme("N(0, gain^2/n), gain^2 = 2 for relu", _HE + ", eq. 10 and 15", aliases=("kaiming_normal",))
def he_normal(
    numbers: Lazy,
    *,
    mode: str = "fan_in",
    nonlinearity: str = "relu",
    slope: float = 0.01,
    truncated: bool = False,
) -> Distribution:
    """He (Kaiming) normal: keeps the second moment through relu.

    mode: fan_in keeps it forward, fan_out backward; or fan_avg, fan_geo_avg.
    nonlinearity: the activation that follows; its `gain` squared takes the place of relu's 2.
    slope: of leaky_relu, a in 2/((1+a^2) n).
    truncated: cut at 2 sigma, std corrected."""
    scale = gain_squared(nonlinearity, slope)
    return scaled(numbers(), scale=scale, mode=mode, distribution="normal", truncated=truncated)


@scheme("U(+-sqrt(3/n))", _LECUN)
def lecun_uniform(numbers: Lazy) -> Distribution:
    """LeCun uniform: keeps the variance of linear units, and of selu's."""
    return scaled(numbers(), scale=1.0, mode="fan_in", distribution="uniform")


@scheme("N(0, 1/n)", _LECUN)
def lecun_normal(numbers: Lazy, *, truncated: bool = False) -> Distribution:
    """LeCun normal: keeps the variance of linear units, and of selu's.

    truncated: cut at 2 sigma, std corrected."""
    return scaled(numbers(), scale=1.0, mode="fan_in", distribution="normal", truncated=truncated)


@scheme("variance scale/fan", "JAX's and Keras's common denominator of the families above")
def variance_scaling(
    numbers: Lazy,
    *,
    scale: float = 1.0,
    mode: str = "fan_in",
    distribution: str = "normal",
    truncated: bool = False,
) -> Distribution:
    """Mean 0 and variance scale / fan.

    scale: the numerator.
    mode: the denominator: fan_in, fan_out, fan_avg or fan_geo_avg.
    distribution: uniform, normal or truncated_normal (2 sigma, std corrected).
    truncated: with normal, the same as truncated_normal."""
    size = non_negative("scale", scale)
    return scaled(numbers(), scale=size, mode=mode, distribution=distribution, truncated=truncated)


@scheme("gain Q, Q Haar-distributed", "Saxe, McClelland, Ganguli, ICLR 2014")
def orthogonal(_: Lazy, *, gain: float = 1.0) -> Distribution:
    """Orthonormal rows or columns, whichever are fewer: all singular values are the gain.

    gain: that factor."""
    return Orthogonal(gain)


@scheme("gain Q at the kernel's centre, 0 elsewhere", "Xiao et al., ICML 2018", shape="(4, 3, 5)")
def delta_orthogonal(_: Lazy, *, gain: float = 1.0) -> Distribution:
    """A convolution that acts as one orthogonal matrix; at least as many outputs as inputs.

    gain: that factor."""
    return DeltaOrthogonal(gain)


@scheme("gain on the diagonal, 0 elsewhere", "torch's eye_, Keras's Identity")
def eye(_: Lazy, *, gain: float = 1.0) -> Distribution:
    """The identity matrix.

    gain: the diagonal's value."""
    return Eye(gain)


@scheme("1 at the kernel's centre of matching channels", "torch's dirac_", shape="(4, 3, 5)")
def dirac(_: Lazy, *, groups: int = 1) -> Distribution:
    """A convolution that passes its input on.

    groups: of the convolution; each is a Dirac of its own."""
    return Dirac(groups)


@scheme("N(0, std^2), a share of each column 0", "Martens, ICML 2010", example=", sparsity=0.5")
def sparse(_: Lazy, *, sparsity: float, std: float = 0.01) -> Distribution:
    """A normal matrix with the same number of zeros in every column.

    sparsity: the share of zeros.
    std: of the other elements."""
    return Sparse(sparsity, std)
