"""Recipes for deep and for wide models: what goes to which tensors is the model's own, see `docs/schemes.md`."""

from __future__ import annotations

import math
from decimal import Context, Decimal

from fastinit._core.distributions import Distribution, Normal
from fastinit._core.structured import Hadamard
from fastinit._runtime.checks import finite, non_negative, positive_int, unknown
from fastinit.schemes._families import scaled, xavier_normal, xavier_uniform
from fastinit.schemes._registry import Lazy, scheme

# A law must have the same bits everywhere, which libm's pow does not promise; decimals do.
_DIGITS = Context(prec=40)


def _inverse_root(x: float, degree: int) -> float:
    """x^(-1/degree), rounded once."""
    return float(_DIGITS.power(Decimal(x), _DIGITS.divide(Decimal(-1), Decimal(degree))))


def _count(name: str, value: object) -> float:
    """A number of layers or of channels; one beyond float64's range is refused by its name."""
    return finite(name, positive_int(name, value))


@scheme(
    "N(0, std^2/(2 layers))",
    "Radford et al., GPT-2, 2019; Shoeybi et al., Megatron-LM, 2019",
    example=", layers=12",
)
def depth_scaled(_: Lazy, *, std: float = 0.02, layers: int) -> Distribution:
    """Normal, for what writes into the residual stream: the output projections of attention and feed-forward.

    std: of the model's other weights.
    layers: of the transformer; each writes twice."""
    return Normal(0.0, non_negative("std", std) / math.sqrt(2 * _count("layers", layers)))


@scheme(
    "N(0, (std c)^2), c = 1 for input, sqrt(base/n) for hidden, base/n for output",
    "Yang, Hu et al., Tensor Programs V, 2022, Table 3",
    example=", base=256",
)
def mup(numbers: Lazy, *, std: float = 0.02, base: int, role: str = "hidden") -> Distribution:
    """The maximal update parametrisation (muP): what was tuned on a narrow model holds for a wide one.

    std: as tuned on the narrow model.
    base: fan_in of the same tensor there; where the fan_in is `base`, the law is N(0, std^2).
    role: of the matrix: input (its fan_in does not grow with the width: embeddings), hidden (both fans grow) or output
        (its fan_out does not grow: the head). This is Table 3, without multipliers in the model; with those of Table 8
        an output takes role "input". The learning rates that belong to it are the optimiser's."""
    size, width = non_negative("std", std), _count("base", base)
    match role:
        case "input":
            return Normal(0.0, size)
        case "hidden":
            return Normal(0.0, size * math.sqrt(width / numbers().by_mode("fan_in")))
        case "output":
            return Normal(0.0, size * (width / numbers().by_mode("fan_in")))
    raise unknown("role", role, ("input", "hidden", "output"))


@scheme(
    "N(0, beta^2 2/(n+m)), beta = (8 layers)^(-1/4)",
    "Wang et al., DeepNet, 2022 (arXiv 2203.00555)",
    example=", layers=12",
)
def deepnet(numbers: Lazy, *, layers: int, role: str = "decoder", other_layers: int | None = None) -> Distribution:
    """DeepNet's Xavier normal for values, attention outputs and feed-forward; q and k take `xavier_normal`.

    layers: of the stack that the tensor is in. The factor alpha on the residual is the model's own.
    role: of that stack, encoder or decoder.
    other_layers: of the other stack, where there are two: beta is 0.87 (layers^4 other_layers)^(-1/16) in the encoder
        and (12 layers)^(-1/4) in the decoder then."""
    own = _count("layers", layers)
    other = None if other_layers is None else _count("other_layers", other_layers)
    if role not in ("encoder", "decoder"):
        raise unknown("role", role, ("encoder", "decoder"))
    if other is None:
        beta = _inverse_root(8 * own, 4)
    elif role == "encoder":
        beta = 0.87 * _inverse_root(own, 4) * _inverse_root(other, 16)
    else:
        beta = _inverse_root(12 * own, 4)
    return xavier_normal(numbers, gain=beta)


@scheme(
    "U(+-c sqrt(6/(n+m))), c = (9 layers)^(-1/4) in the decoder, 0.67 layers^(-1/4) in the encoder",
    "Huang, Perez, Ba, Volkovs, ICML 2020 (T-Fixup)",
    example=", layers=6",
)
def tfixup(numbers: Lazy, *, layers: int, role: str = "decoder") -> Distribution:
    """T-Fixup's Xavier uniform for values, attention outputs and feed-forward; q and k take `xavier_uniform`.

    layers: of the stack that the tensor is in; for embeddings, of the decoder. The model has no layer norm.
    role: encoder, decoder, or embedding: N(0, 1/d), scaled as the decoder, d the features (the fan_in of a table of
        (tokens, features) with layout "oi")."""
    count = _count("layers", layers)
    match role:
        case "decoder":
            return xavier_uniform(numbers, gain=_inverse_root(9 * count, 4))
        case "encoder":
            return xavier_uniform(numbers, gain=0.67 * _inverse_root(count, 4))
        case "embedding":
            return scaled(numbers(), scale=_inverse_root(9 * count, 2), mode="fan_in", distribution="normal")
    raise unknown("role", role, ("encoder", "decoder", "embedding"))


@scheme(
    "N(0, c^2 2/n), c = layers^(-1/(2 branch - 2))",
    "Zhang, Dauphin, Ma, ICLR 2019 (Fixup)",
    example=", layers=16",
)
def fixup(numbers: Lazy, *, layers: int, branch: int = 2, mode: str = "fan_in") -> Distribution:
    """Fixup's He normal, for residual branches without normalisation; the last layer of each takes `zeros`.

    layers: the residual branches, L in the paper; a transformer's layer has two.
    branch: weight layers in a branch, m in the paper; at least 2.
    mode: as in `he_normal`; the authors' ResNets have fan_out."""
    count, depth = _count("layers", layers), positive_int("branch", branch)
    if depth < 2:
        raise ValueError(f"branch must be at least 2. Received: branch={branch!r}")
    # The square of layers^(-1/(2 branch - 2)), the factor on the std.
    return scaled(numbers(), scale=2 * _inverse_root(count, depth - 1), mode=mode, distribution="normal")


@scheme(
    "out <= in: 1 on the diagonal; else c H, c = 2^(-(k-1)/2), k = ceil(log2 out); a kernel's centre only",
    "Zhao, Schaefer, Anandkumar, TMLR 2022 (ZerO)",
)
def hadamard(_: Lazy) -> Distribution:
    """ZerO: the identity, or where a layer widens the corner of Sylvester's Hadamard matrix H. Nothing is drawn."""
    return Hadamard()
