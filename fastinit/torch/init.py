"""Drop-in replacements for `torch.nn.init`: a function returns its distribution, and `drop_in` fills the tensor.

Random functions fill CPU tensors of float64, float32, float16 and bfloat16 with any strides. PyTorch's own function,
called with the caller's arguments, does the rest: other devices and dtypes, subclasses, empty tensors, traced calls,
arguments without a distribution, and what is not random (constants, eye_, dirac_).

**Seeds.** A random function takes one word of 64 bits from the generator (PyTorch's default one for None), whatever
the tensor's size: it is the seed of the fill. So `torch.manual_seed`, `torch.random.fork_rng` and generator states
work as in PyTorch, and values do not depend on strides or the number of threads. They are not PyTorch's values.
"""

from __future__ import annotations

import warnings
from typing import Any, TypeAlias

import torch
from torch.nn.init import calculate_gain

from fastinit import schemes
from fastinit._core.distributions import TruncatedNormal, Uniform
from fastinit.torch._dropin import Function, Law, P, drop_in

__all__ = [
    "calculate_gain",
    "constant",
    "constant_",
    "dirac",
    "dirac_",
    "eye",
    "eye_",
    "kaiming_normal",
    "kaiming_normal_",
    "kaiming_uniform",
    "kaiming_uniform_",
    "lecun_normal_",
    "lecun_uniform_",
    "normal",
    "normal_",
    "ones_",
    "orthogonal",
    "orthogonal_",
    "sparse",
    "sparse_",
    "trunc_normal_",
    "uniform",
    "uniform_",
    "variance_scaling_",
    "xavier_normal",
    "xavier_normal_",
    "xavier_uniform",
    "xavier_uniform_",
    "zeros_",
]

Generator: TypeAlias = torch.Generator | None


@drop_in
def uniform_(tensor: torch.Tensor, a: float = 0.0, b: float = 1.0, generator: Generator = None) -> Law:
    """Evenly in [a, b); unlike torch's 16-bit tensors, never b itself.

    Args:
        tensor: any shape.
        a, b: the bounds.
        generator: gives the seed; None is torch's default one.

    >>> _ = torch.manual_seed(0)
    >>> weight = torch.empty(3, 5)
    >>> uniform_(weight, -1, 1) is weight, bool((weight.abs() <= 1).all())
    (True, True)
    """
    return schemes.distribution("uniform", tensor.shape, low=a, high=b)


@drop_in
def normal_(tensor: torch.Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator = None) -> Law:
    """Normal.

    Args:
        tensor: any shape.
        mean, std: of the law.
        generator: gives the seed; None is torch's default one.

    The same seed, the same values:

    >>> seeded = [torch.Generator().manual_seed(0) for _ in range(2)]
    >>> torch.equal(*[normal_(torch.empty(3, 5), std=0.02, generator=g) for g in seeded])
    True
    """
    return schemes.distribution("normal", tensor.shape, mean=mean, std=std)


@drop_in
def trunc_normal_(
    tensor: torch.Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Generator = None,
) -> Law:
    """Normal, cut to [a, b].

    Args:
        tensor: any shape.
        mean, std: of the distribution before the cut.
        a, b: the bounds, in units of the values (not of sigma). A 16-bit value never lies outside, as it can in torch.
        generator: gives the seed; None is torch's default one.

    >>> float(trunc_normal_(torch.empty(1000), std=0.02, a=-0.04, b=0.04).abs().max()) <= 0.04
    True
    """
    if std == 0 or mean < a - 2 * std or mean > b + 2 * std:
        return None  # torch divides by std, and warns
    return TruncatedNormal(mean, std, a, b).simplest


@drop_in
def constant_(tensor: torch.Tensor, val: float) -> Law:
    """One value everywhere.

    Args:
        tensor: any shape.
        val: that value.

    >>> constant_(torch.empty(3), 0.5)
    tensor([0.5000, 0.5000, 0.5000])
    """
    return schemes.distribution("constant", tensor.shape, value=val)


@drop_in
def ones_(tensor: torch.Tensor) -> Law:
    """Ones.

    Args:
        tensor: any shape.

    >>> ones_(torch.empty(3))
    tensor([1., 1., 1.])
    """
    return schemes.distribution("ones", tensor.shape)


@drop_in
def zeros_(tensor: torch.Tensor) -> Law:
    """Zeros.

    Args:
        tensor: any shape.

    >>> zeros_(torch.empty(3))
    tensor([0., 0., 0.])
    """
    return schemes.distribution("zeros", tensor.shape)


@drop_in
def eye_(tensor: torch.Tensor) -> Law:
    """The identity matrix.

    Args:
        tensor: two dimensions.

    >>> eye_(torch.empty(2, 3))
    tensor([[1., 0., 0.],
            [0., 1., 0.]])
    """
    return schemes.distribution("eye", tensor.shape)


@drop_in
def dirac_(tensor: torch.Tensor, groups: int = 1) -> Law:
    """A convolution that passes its input channels on: 1 at the centre of matching channels' kernels, 0 elsewhere.

    Args:
        tensor: (out, in, *kernel), three to five dimensions.
        groups: of the convolution; each is a Dirac of its own.

    >>> dirac_(torch.empty(2, 2, 3))[:, :, 1]
    tensor([[1., 0.],
            [0., 1.]])
    """
    return schemes.distribution("dirac", tensor.shape, groups=groups)


@drop_in
def xavier_uniform_(tensor: torch.Tensor, gain: float = 1.0, generator: Generator = None) -> Law:
    """Xavier (Glorot) uniform. (Glorot & Bengio, AISTATS 2010.)

    Args:
        tensor: (out, in, *kernel).
        gain: a factor on the std.
        generator: gives the seed; None is torch's default one.

    >>> float(xavier_uniform_(torch.empty(100, 200)).abs().max()) <= (6 / 300) ** 0.5
    True
    """
    return schemes.distribution("xavier_uniform", tensor.shape, gain=gain)


@drop_in
def xavier_normal_(tensor: torch.Tensor, gain: float = 1.0, generator: Generator = None) -> Law:
    """Xavier (Glorot) normal. (Glorot & Bengio, AISTATS 2010.)

    Args:
        tensor: (out, in, *kernel).
        gain: a factor on the std.
        generator: gives the seed; None is torch's default one.

    >>> xavier_normal_(torch.empty(3, 5), gain=calculate_gain("tanh")).shape
    torch.Size([3, 5])
    """
    return schemes.distribution("xavier_normal", tensor.shape, gain=gain)


@drop_in
def kaiming_uniform_(
    tensor: torch.Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator = None,
) -> Law:
    """Kaiming (He) uniform. (He, Zhang, Ren, Sun, ICCV 2015.)

    Args:
        tensor: (out, in, *kernel).
        a: the slope of leaky_relu's negative side.
        mode: fan_in or fan_out.
        nonlinearity: the activation that follows, as `calculate_gain` takes it.
        generator: gives the seed; None is torch's default one.

    >>> float(kaiming_uniform_(torch.empty(100, 200), a=5**0.5).abs().max()) <= 200**-0.5
    True
    """
    return _kaiming(tensor, a, mode, nonlinearity, "uniform")


@drop_in
def kaiming_normal_(
    tensor: torch.Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator = None,
) -> Law:
    """Kaiming (He) normal. (He, Zhang, Ren, Sun, ICCV 2015.)

    Args:
        tensor: (out, in, *kernel).
        a: the slope of leaky_relu's negative side.
        mode: fan_in or fan_out.
        nonlinearity: the activation that follows, as `calculate_gain` takes it.
        generator: gives the seed; None is torch's default one.

    >>> kaiming_normal_(torch.empty(8, 3, 7, 7), mode="fan_out", nonlinearity="relu").shape
    torch.Size([8, 3, 7, 7])
    """
    return _kaiming(tensor, a, mode, nonlinearity, "normal")


def _kaiming(tensor: torch.Tensor, a: float, mode: str, nonlinearity: Any, distribution: str) -> Law:
    """Kaiming's distributions with PyTorch's gains, which have more names."""
    mode = mode.lower()
    if mode not in ("fan_in", "fan_out"):
        return None  # ours has more
    scale = calculate_gain(nonlinearity, a) ** 2
    return schemes.distribution("variance_scaling", tensor.shape, scale=scale, mode=mode, distribution=distribution)


@drop_in
def orthogonal_(tensor: torch.Tensor, gain: float = 1, generator: Generator = None) -> Law:
    """Orthonormal rows or columns, whichever are fewer. (Saxe, McClelland, Ganguli, ICLR 2014.)

    Args:
        tensor: two or more dimensions, those after the first flattened. Unlike torch's, it may be of 16 bits (made in
            float32), and may have any strides.
        gain: a factor on all singular values.
        generator: gives the seed; None is torch's default one.

    >>> weight = orthogonal_(torch.empty(3, 5))
    >>> torch.allclose(weight @ weight.T, torch.eye(3), atol=1e-6)
    True
    """
    return schemes.distribution("orthogonal", tensor.shape, gain=gain)


@drop_in
def sparse_(tensor: torch.Tensor, sparsity: float, std: float = 0.01, generator: Generator = None) -> Law:
    """Normal, with the same number of zeros in every column. (Martens, ICML 2010.)

    Args:
        tensor: two dimensions.
        sparsity: the share of zeros.
        std: of the other elements.
        generator: gives the seed; None is torch's default one. Unlike torch's, the places of the zeros too.

    >>> (sparse_(torch.empty(10, 2), sparsity=0.25) == 0).sum(0)
    tensor([3, 3])
    """
    return schemes.distribution("sparse", tensor.shape, sparsity=sparsity, std=std)


def lecun_uniform_(tensor: torch.Tensor, generator: Generator = None) -> torch.Tensor:
    """LeCun uniform: variance 1 / fan_in. (LeCun, Bottou, Orr, Mueller, Efficient BackProp, 1998.)

    Args:
        tensor: (out, in, *kernel).
        generator: gives the seed; None is torch's default one.

    Raises:
        ValueError: fewer than two dimensions.

    >>> float(lecun_uniform_(torch.empty(100, 200)).abs().max()) <= (3 / 200) ** 0.5
    True
    """
    return _fill(tensor, generator, "lecun_uniform")


def lecun_normal_(tensor: torch.Tensor, generator: Generator = None) -> torch.Tensor:
    """LeCun normal: variance 1 / fan_in. (LeCun, Bottou, Orr, Mueller, Efficient BackProp, 1998.)

    Not cut, as all of torch's; timm's and JAX's is `variance_scaling_(tensor, distribution="truncated_normal")`.

    Args:
        tensor: (out, in, *kernel).
        generator: gives the seed; None is torch's default one.

    Raises:
        ValueError: fewer than two dimensions.

    >>> lecun_normal_(torch.empty(3, 5)).shape
    torch.Size([3, 5])
    """
    return _fill(tensor, generator, "lecun_normal")


def variance_scaling_(
    tensor: torch.Tensor,
    scale: float = 1.0,
    mode: str = "fan_in",
    distribution: str = "normal",
    generator: Generator = None,
) -> torch.Tensor:
    """Mean 0 and variance scale / fan: the common denominator of the families above, in JAX, Keras and timm.

    Args:
        tensor: (out, in, *kernel).
        scale: the numerator.
        mode: the denominator: fan_in, fan_out, fan_avg or fan_geo_avg.
        distribution: uniform, normal or truncated_normal (2 sigma, std corrected).
        generator: gives the seed; None is torch's default one.

    Raises:
        TypeError, ValueError: a scale that is no number or is negative, an unknown name, or fewer than two dimensions.

    >>> variance_scaling_(torch.empty(3, 5), 2.0, "fan_avg", "truncated_normal").shape
    torch.Size([3, 5])
    """
    return _fill(tensor, generator, "variance_scaling", scale=scale, mode=mode, distribution=distribution)


def _fill(tensor: torch.Tensor, generator: Generator, scheme: str, **parameters: Any) -> torch.Tensor:
    """Fill a tensor with a scheme's distribution by the function above that has it."""
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"tensor must be a torch.Tensor. Received: {type(tensor).__name__}")
    distribution: Any = schemes.distribution(scheme, tensor.shape, **parameters)
    match distribution:
        case Uniform(low=low, high=high):
            return uniform_(tensor, low, high, generator)
        case TruncatedNormal(normal=normal, low=low, high=high) if normal.std > 0:
            return trunc_normal_(tensor, normal.mean, normal.std, low, high, generator)
    return normal_(tensor, distribution.mean, distribution.std, generator)


def _deprecated(function: Function[P]) -> Function[P]:
    new, old = function.__name__, function.__name__[:-1]

    def deprecated(*args: P.args, **kwargs: P.kwargs) -> torch.Tensor:
        warnings.warn(f"`nn.init.{old}` is now deprecated in favor of `nn.init.{new}`.", FutureWarning, stacklevel=2)
        return function(*args, **kwargs)

    deprecated.__name__ = deprecated.__qualname__ = old
    deprecated.__doc__ = f"The old name of `{new}`; gives a FutureWarning."
    return deprecated


uniform = _deprecated(uniform_)
normal = _deprecated(normal_)
constant = _deprecated(constant_)
eye = _deprecated(eye_)
dirac = _deprecated(dirac_)
xavier_uniform = _deprecated(xavier_uniform_)
xavier_normal = _deprecated(xavier_normal_)
kaiming_uniform = _deprecated(kaiming_uniform_)
kaiming_normal = _deprecated(kaiming_normal_)
orthogonal = _deprecated(orthogonal_)
sparse = _deprecated(sparse_)
