"""The functions of the table of schemes, for type checkers and editors. Written by `scripts/stubs.py`."""

from collections.abc import Sequence
from typing import Any

from fastinit._core.key import Seed
from fastinit._runtime.arrays import Array

def zeros(
    shape: int | Sequence[int] | None = None,
    *,
    out: Array | None = None,
    seed: Seed = None,
    dtype: Any = "float32",
    layout: str = "oi",
    batch_axes: int | Sequence[int] = (),
    region: tuple[slice, ...] | None = None,
) -> Array: ...
def ones(
    shape: int | Sequence[int] | None = None,
    *,
    out: Array | None = None,
    seed: Seed = None,
    dtype: Any = "float32",
    layout: str = "oi",
    batch_axes: int | Sequence[int] = (),
    region: tuple[slice, ...] | None = None,
) -> Array: ...
def constant(
    shape: int | Sequence[int] | None = None,
    *,
    out: Array | None = None,
    seed: Seed = None,
    dtype: Any = "float32",
    layout: str = "oi",
    batch_axes: int | Sequence[int] = (),
    region: tuple[slice, ...] | None = None,
    value: float,
) -> Array: ...
def uniform(
    shape: int | Sequence[int] | None = None,
    *,
    out: Array | None = None,
    seed: Seed = None,
    dtype: Any = "float32",
    layout: str = "oi",
    batch_axes: int | Sequence[int] = (),
    region: tuple[slice, ...] | None = None,
    low: float = 0.0,
    high: float = 1.0,
) -> Array: ...
def normal(
    shape: int | Sequence[int] | None = None,
    *,
    out: Array | None = None,
    seed: Seed = None,
    dtype: Any = "float32",
    layout: str = "oi",
    batch_axes: int | Sequence[int] = (),
    region: tuple[slice, ...] | None = None,
    mean: float = 0.0,
    std: float = 1.0,
) -> Array: ...
def truncated_normal(
    shape: int | Sequence[int] | None = None,
    *,
    out: Array | None = None,
    seed: Seed = None,
    dtype: Any = "float32",
    layout: str = "oi",
    batch_axes: int | Sequence[int] = (),
    region: tuple[slice, ...] | None = None,
    mean: float = 0.0,
    std: float = 1.0,
    low: float = -2.0,
    high: float = 2.0,
) -> Array: ...
def heuristic_uniform(
    shape: int | Sequence[int] | None = None,
    *,
    out: Array | None = None,
    seed: Seed = None,
    dtype: Any = "float32",
    layout: str = "oi",
    batch_axes: int | Sequence[int] = (),
    region: tuple[slice, ...] | None = None,
) -> Array: ...
def heuristic_normal(
    shape: int | Sequence[int] | None = None,
    *,
    out: Array | None = None,
    seed: Seed = None,
    dtype: Any = "float32",
    layout: str = "oi",
    batch_axes: int | Sequence[int] = (),
    region: tuple[slice, ...] | None = None,
    nonlinearity: str = "sigmoid",
    slope: float = 0.01,
    truncated: bool = False,
) -> Array: ...
def xavier_uniform(
    shape: int | Sequence[int] | None = None,
    *,
    out: Array | None = None,
    seed: Seed = None,
    dtype: Any = "float32",
    layout: str = "oi",
    batch_axes: int | Sequence[int] = (),
    region: tuple[slice, ...] | None = None,
    gain: float = 1.0,
) -> Array: ...
def xavier_normal(
    shape: int | Sequence[int] | None = None,
    *,
    out: Array | None = None,
    seed: Seed = None,
    dtype: Any = "float32",
    layout: str = "oi",
    batch_axes: int | Sequence[int] = (),
    region: tuple[slice, ...] | None = None,
    gain: float = 1.0,
    truncated: bool = False,
) -> Array: ...
def he_uniform(
    shape: int | Sequence[int] | None = None,
    *,
    out: Array | None = None,
    seed: Seed = None,
    dtype: Any = "float32",
    layout: str = "oi",
    batch_axes: int | Sequence[int] = (),
    region: tuple[slice, ...] | None = None,
    mode: str = "fan_in",
    nonlinearity: str = "relu",
    slope: float = 0.01,
) -> Array: ...
def he_normal(
    shape: int | Sequence[int] | None = None,
    *,
    out: Array | None = None,
    seed: Seed = None,
    dtype: Any = "float32",
    layout: str = "oi",
    batch_axes: int | Sequence[int] = (),
    region: tuple[slice, ...] | None = None,
    mode: str = "fan_in",
    nonlinearity: str = "relu",
    slope: float = 0.01,
    truncated: bool = False,
) -> Array: ...
def lecun_uniform(
    shape: int | Sequence[int] | None = None,
    *,
    out: Array | None = None,
    seed: Seed = None,
    dtype: Any = "float32",
    layout: str = "oi",
    batch_axes: int | Sequence[int] = (),
    region: tuple[slice, ...] | None = None,
) -> Array: ...
def lecun_normal(
    shape: int | Sequence[int] | None = None,
    *,
    out: Array | None = None,
    seed: Seed = None,
    dtype: Any = "float32",
    layout: str = "oi",
    batch_axes: int | Sequence[int] = (),
    region: tuple[slice, ...] | None = None,
    truncated: bool = False,
) -> Array: ...
def variance_scaling(
    shape: int | Sequence[int] | None = None,
    *,
    out: Array | None = None,
    seed: Seed = None,
    dtype: Any = "float32",
    layout: str = "oi",
    batch_axes: int | Sequence[int] = (),
    region: tuple[slice, ...] | None = None,
    scale: float = 1.0,
    mode: str = "fan_in",
    distribution: str = "normal",
    truncated: bool = False,
) -> Array: ...
def orthogonal(
    shape: int | Sequence[int] | None = None,
    *,
    out: Array | None = None,
    seed: Seed = None,
    dtype: Any = "float32",
    layout: str = "oi",
    batch_axes: int | Sequence[int] = (),
    region: tuple[slice, ...] | None = None,
    gain: float = 1.0,
) -> Array: ...
def delta_orthogonal(
    shape: int | Sequence[int] | None = None,
    *,
    out: Array | None = None,
    seed: Seed = None,
    dtype: Any = "float32",
    layout: str = "oi",
    batch_axes: int | Sequence[int] = (),
    region: tuple[slice, ...] | None = None,
    gain: float = 1.0,
) -> Array: ...
def eye(
    shape: int | Sequence[int] | None = None,
    *,
    out: Array | None = None,
    seed: Seed = None,
    dtype: Any = "float32",
    layout: str = "oi",
    batch_axes: int | Sequence[int] = (),
    region: tuple[slice, ...] | None = None,
    gain: float = 1.0,
) -> Array: ...
def dirac(
    shape: int | Sequence[int] | None = None,
    *,
    out: Array | None = None,
    seed: Seed = None,
    dtype: Any = "float32",
    layout: str = "oi",
    batch_axes: int | Sequence[int] = (),
    region: tuple[slice, ...] | None = None,
    groups: int = 1,
) -> Array: ...
def sparse(
    shape: int | Sequence[int] | None = None,
    *,
    out: Array | None = None,
    seed: Seed = None,
    dtype: Any = "float32",
    layout: str = "oi",
    batch_axes: int | Sequence[int] = (),
    region: tuple[slice, ...] | None = None,
    sparsity: float,
    std: float = 0.01,
) -> Array: ...
def depth_scaled(
    shape: int | Sequence[int] | None = None,
    *,
    out: Array | None = None,
    seed: Seed = None,
    dtype: Any = "float32",
    layout: str = "oi",
    batch_axes: int | Sequence[int] = (),
    region: tuple[slice, ...] | None = None,
    std: float = 0.02,
    layers: int,
) -> Array: ...
def mup(
    shape: int | Sequence[int] | None = None,
    *,
    out: Array | None = None,
    seed: Seed = None,
    dtype: Any = "float32",
    layout: str = "oi",
    batch_axes: int | Sequence[int] = (),
    region: tuple[slice, ...] | None = None,
    std: float = 0.02,
    base: int,
    role: str = "hidden",
) -> Array: ...
def deepnet(
    shape: int | Sequence[int] | None = None,
    *,
    out: Array | None = None,
    seed: Seed = None,
    dtype: Any = "float32",
    layout: str = "oi",
    batch_axes: int | Sequence[int] = (),
    region: tuple[slice, ...] | None = None,
    layers: int,
    role: str = "decoder",
    other_layers: int | None = None,
) -> Array: ...
def tfixup(
    shape: int | Sequence[int] | None = None,
    *,
    out: Array | None = None,
    seed: Seed = None,
    dtype: Any = "float32",
    layout: str = "oi",
    batch_axes: int | Sequence[int] = (),
    region: tuple[slice, ...] | None = None,
    layers: int,
    role: str = "decoder",
) -> Array: ...
def fixup(
    shape: int | Sequence[int] | None = None,
    *,
    out: Array | None = None,
    seed: Seed = None,
    dtype: Any = "float32",
    layout: str = "oi",
    batch_axes: int | Sequence[int] = (),
    region: tuple[slice, ...] | None = None,
    layers: int,
    branch: int = 2,
    mode: str = "fan_in",
) -> Array: ...
def hadamard(
    shape: int | Sequence[int] | None = None,
    *,
    out: Array | None = None,
    seed: Seed = None,
    dtype: Any = "float32",
    layout: str = "oi",
    batch_axes: int | Sequence[int] = (),
    region: tuple[slice, ...] | None = None,
) -> Array: ...

glorot_uniform = xavier_uniform
glorot_normal = xavier_normal
kaiming_uniform = he_uniform
kaiming_normal = he_normal
