"""Drop-in replacements for `jax.nn.initializers`: the same names, signatures, distributions and errors.

    import fastinit.jax as init

is all that a code base needs that had `import jax.nn.initializers as init`. The distributions are JAX's; the values are
fastinit's own stream, so they differ from JAX's for the same key. The seed is `key_seed(key)`, the words of the key's
data as one number, the first word on top: `he_normal()(jax.random.key(7), shape)` has the values of
`fastinit.he_normal(shape, layout="io", truncated=True, seed=7)`. Typed keys of any implementation and raw ones do.

- The same key gives the same values, whether eager, under `jit` or sharded, on any number of devices.
- Eager, the array is filled in memory that XLA takes over without a copy. It lies where JAX's own would: on the default
  device, on the key's, or under `jax.set_mesh` on all devices of the mesh.
- Under `jit` the values are written into XLA's memory by a custom call on the CPU (`jax.ffi`), and come from
  `jax.pure_callback` on other platforms. `vmap` over keys makes one call for all of them, and `jax.eval_shape` draws
  nothing. JAX keeps these programs in its compilation cache.
- Every device of a program makes the shard it needs (`jax.experimental.custom_partitioning`), whether it is asked for
  by `out_shardings`, by `with_sharding_constraint` or by what uses it.
- With `out_sharding` every device's part is filled alone: eager by `jax.make_array_from_callback`, under `jit` inside
  `jax.shard_map`. Meshes with Auto axes do too, which JAX refuses.
- Orthogonal matrices are made whole, once for all devices of a process that need them at the same time, and cut.
- A scale that is traced, an array or negative multiplies the values afterwards, as in JAX; they may differ by a
  rounding from those of the same scale as a number.
- Complex dtypes have the distributions of `fastinit.complex_laws`. Cut at 2 sigma, their std is sqrt(scale / fan), as
  JAX documents; what JAX 0.10 draws is 0.9% wider.
- `zeros`, `ones` and `constant` are JAX's own: there is nothing to draw, and XLA fills them in place.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

try:
    import jax
except ImportError as error:
    raise ImportError("fastinit.jax needs JAX: pip install 'fastinit-weights[jax]'") from error

import jax.ffi
import jax.numpy as jnp
from jax.experimental.custom_partitioning import custom_partitioning
from jax.nn import initializers as theirs
from jax.nn.initializers import Initializer, constant, ones, zeros
from jax.sharding import NamedSharding, PartitionSpec

from fastinit import schemes
from fastinit._core.distributions import Distribution, Normal, TruncatedNormal, as_drawn_by_frameworks
from fastinit._core.fans import axis_fans
from fastinit._runtime import xla
from fastinit._runtime.arrays import DTYPES, Array, aligned_empty
from fastinit.plan._tensor import Tensor, read, seed_of

__all__ = [
    "Initializer",
    "constant",
    "delta_orthogonal",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "kaiming_normal",
    "kaiming_uniform",
    "key_seed",
    "lecun_normal",
    "lecun_uniform",
    "normal",
    "ones",
    "orthogonal",
    "truncated_normal",
    "uniform",
    "variance_scaling",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
]

Axes = int | Sequence[int]
Law = Callable[[tuple[int, ...], float], Distribution]  # of a shape and a scale


def key_seed(key: Any) -> int:
    """The seed that a JAX key stands for: the words of its data as one number, the first word on top.

    Args:
        key: a typed key, raw uint32 words, or the words as a NumPy array.

    >>> key_seed(jax.random.key(7)), key_seed(jax.random.PRNGKey(7))
    (7, 7)
    """
    words = key if isinstance(key, np.ndarray) else np.asarray(jax.random.key_data(key))
    return seed_of(words)


def _write_result(operands: list[Array], address: int, shape: tuple[int, ...]) -> None:
    """Run a custom call of a compiled program: write the result of `_call`."""
    words, position, text = operands
    if math.prod(shape):
        tensor = read(text[(0,) * (text.ndim - 1)].tobytes())
        out = xla.memory(address, math.prod(shape) * tensor.dtype.itemsize).view(tensor.dtype).reshape(shape)
        tensor.write(out, words, position)


def _register() -> bool:
    """Register the custom call with XLA. Returns False for a jaxlib whose FFI is not the one known here."""
    version = xla.version(jax.ffi.include_dir())
    if version is None:
        return False
    function = xla.handler(_write_result, (np.uint32, np.int32, np.uint8), version)
    jax.ffi.register_ffi_target(_TARGET, jax.ffi.pycapsule(function), platform="cpu")
    return True


# The name is part of compiled programs that JAX keeps on the disk: with other operands it needs another number.
_TARGET = "fastinit_fill_1"
_REGISTERED = _register()


def _call(tensor: Tensor, words: Any, position: Any, text: Any, part: tuple[int, ...]) -> Any:
    """Make one block of a tensor where a program runs; `Tensor.write` explains the arguments."""
    result = jax.ShapeDtypeStruct(part, tensor.dtype)

    def callback(words: Any, position: Any, _: Any) -> Array:
        # It may get JAX arrays, which are small, and goes on with NumPy alone: JAX called in a callback can wait for
        # the thread that waits for the callback.
        position = np.asarray(position)
        out = aligned_empty((*position.shape[:-1], *part), tensor.dtype)
        tensor.write(out, np.asarray(words), position)
        return out

    def by_callback(*operands: Any) -> Any:
        return jax.pure_callback(callback, result, *operands, vmap_method="broadcast_all")

    if not _REGISTERED:
        return by_callback(words, position, text)
    in_xla = jax.ffi.ffi_call(_TARGET, result, vmap_method="broadcast_all")
    return jax.lax.platform_dependent(words, position, text, cpu=in_xla, default=by_callback)


def _anywhere(tensor: Tensor, words: jax.Array) -> jax.Array:
    """Return the tensors of a batch of keys. In a program on several devices each one makes the shard it needs."""

    @jax.custom_batching.custom_vmap
    def make(words: Any) -> Any:
        return _partitioned(tensor, words.shape)(words, tensor.text)

    @make.def_vmap
    def _(_: int, __: Any, words: Any) -> tuple[Any, bool]:
        return _anywhere(tensor, words), True

    array: jax.Array = make(words)
    return array


def _partitioned(tensor: Tensor, words: tuple[int, ...]) -> Callable[..., Any]:
    """Return the function of words of this shape and of the tensor's text. XLA's partitioner can split it.

    The text is an operand, so that programs that differ in it alone are different ones in JAX's compilation cache.
    """
    shape = (*words[:-1], *tensor.shape)
    wide = tensor.dtype.name in ("float64", "complex128")

    def whole(words: Any, text: Any) -> Any:
        return _call(tensor, words, jnp.zeros(len(shape), np.int32), text, shape)

    mesh = jax.sharding.get_abstract_mesh()
    if 0 < len(mesh.manual_axes) < len(mesh.axis_names) and not getattr(jax.config, "jax_use_shardy_partitioner", True):
        raise NotImplementedError(  # XLA would end the process
            "jax.shard_map over some axes of a mesh needs Shardy for fastinit's initializers, which is JAX's default: "
            "jax.config.update('jax_use_shardy_partitioner', True)"
        )

    def partition(_: Any, __: Any, result: Any) -> tuple[Any, ...]:
        # A tensor of n elements along every axis, which n devices can always divide, shows each device's position.
        n = len(result.sharding.device_set)
        blocks = result.sharding.devices_indices_map((n,) * len(shape))
        ranges = [[range(n)[cut] for cut in block] for block in blocks.values()]
        positions = np.array([[cut.start // len(cut) for cut in block] for block in ranges], np.int32)
        part = tuple(-(-size * len(cut) // n) for size, cut in zip(shape, ranges[0], strict=True))

        def shard(words: Any, text: Any) -> Any:
            # XLA asks for this while it compiles, in contexts that are not those of the trace, or not over yet.
            with jax.enable_x64(wide), jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), ())):
                return _call(tensor, words, jnp.asarray(positions)[jax.lax.axis_index("device")], text, part)

        mesh = jax.sharding.Mesh(np.array(list(blocks)), ("device",))
        everywhere = NamedSharding(mesh, PartitionSpec())
        return mesh, shard, result.sharding, (everywhere, everywhere)

    function = custom_partitioning(whole)
    factors = [f"w{i}" for i in range(len(words))], [f"d{i}" for i in range(len(shape))]
    function.def_partition(
        partition,
        infer_sharding_from_operands=lambda mesh, _, __: NamedSharding(mesh, PartitionSpec()),
        sharding_rule=f"{' '.join(factors[0])}, text -> {' '.join(factors[1])}",
        need_replication_factors=(*factors[0], "text"),
    )
    return function


# The words of a key, computed by a program, and so placed where JAX places what depends on the key: on its devices or,
# under `jax.set_mesh`, on those of the mesh.
_words = jax.jit(lambda key: jnp.copy(jax.random.key_data(key)))


def _eager(tensor: Tensor, words: jax.Array, sharding: NamedSharding | None) -> jax.Array:
    key = np.asarray(words)
    if sharding is None:
        whole, where = tensor.draw(key), words.sharding
        target = NamedSharding(where.mesh, PartitionSpec()) if isinstance(where, NamedSharding) else where
        array: jax.Array = jax.device_put(whole, *[target] * words.committed)  # or on the default device
        return array
    if tensor.law.structured:  # made once, not for every device
        part: Callable[[Any], Array] = tensor.draw(key).__getitem__
    else:
        part = functools.partial(tensor.draw, key)
    filled: jax.Array = jax.make_array_from_callback(tensor.shape, sharding, part)
    return filled


def _staged(tensor: Tensor, words: jax.Array, sharding: NamedSharding | None) -> jax.Array:
    """The same while JAX traces: Python is called when, and if, the program runs."""
    if sharding is None:
        return _anywhere(tensor, words)
    part = sharding.shard_shape(tensor.shape)
    cuts = _cuts(sharding, len(tensor.shape))

    def shard(words: jax.Array) -> Any:
        position = jnp.array([jax.lax.axis_index(axes) if axes else 0 for axes in cuts], np.int32)
        return _call(tensor, words, position, tensor.text, part)

    # `check_vma` asks whether what is not sharded is the same on all devices; it cannot see into a custom call.
    sharded: jax.Array = jax.shard_map(
        shard, mesh=sharding.mesh, in_specs=PartitionSpec(), out_specs=sharding.spec, check_vma=False
    )(words)
    return sharded


def _cuts(sharding: NamedSharding, ndim: int) -> list[tuple[str, ...]]:
    """The mesh axes that every dimension is cut along."""
    cuts = [() if cut is None else (cut,) if isinstance(cut, str) else tuple(cut) for cut in sharding.spec]
    return cuts + [()] * (ndim - len(cuts))


def _named(out_sharding: Any, traced: bool) -> NamedSharding | None:
    """An `out_sharding` with its mesh, as JAX reads it."""
    if out_sharding is None:
        return None
    if not isinstance(out_sharding, (NamedSharding, PartitionSpec)):
        raise TypeError(f"out_sharding must be a NamedSharding or a PartitionSpec. Received: {out_sharding!r}")
    if isinstance(out_sharding, PartitionSpec):
        mesh: Any = jax.sharding.get_abstract_mesh()
        if mesh.empty:
            raise ValueError(
                "out_sharding must be a NamedSharding where no mesh is set (`jax.set_mesh`). "
                f"Received: out_sharding={out_sharding!r}"
            )
        out_sharding = NamedSharding(mesh, out_sharding)
    if out_sharding.mesh.empty:
        return None
    if isinstance(out_sharding.mesh, jax.sharding.AbstractMesh) and not traced:
        mesh = jax.sharding.get_mesh()
        if mesh.empty:  # XLA would end the process
            raise ValueError(
                "out_sharding must have a mesh of devices outside of jit: `jax.set_mesh`, not `use_abstract_mesh`. "
                f"Received: out_sharding={out_sharding!r}"
            )
        out_sharding = NamedSharding(mesh, out_sharding.spec)
    named: NamedSharding = out_sharding
    return named


def _split(scale: Any) -> tuple[float, Any]:
    """A scale as the law takes it, and the factor that is left for afterwards."""
    if isinstance(scale, jax.core.Tracer) or np.ndim(scale) or not 0 <= scale < np.inf:
        return 1.0, scale
    return float(scale), None


def _asker(their: Initializer, matrix: bool) -> Callable[[Any, Any, Any], Any]:
    """Return the function that asks JAX's own initializer which array it would make, or which error it raises."""
    asked = jax.jit(their, static_argnums=(1, 2))

    def ask(key: Any, shape: Any, dtype: Any) -> Any:
        if isinstance(key, jax.Array) and not isinstance(key, jax.core.Tracer):
            # Without its devices, which need not be those of `out_sharding`.
            key = jax.ShapeDtypeStruct(key.shape, key.dtype)
        shape = tuple(shape) if isinstance(shape, (list, np.ndarray)) else shape
        if matrix and _is_narrow(dtype):  # JAX has no QR for these; since 0.12 it refuses them
            return jax.ShapeDtypeStruct(asked.eval_shape(key, shape, np.float32).shape, np.dtype(dtype))
        return asked.eval_shape(key, shape, dtype)

    return ask


def _is_narrow(dtype: Any) -> bool:
    try:
        return bool(jnp.issubdtype(dtype, jnp.floating)) and np.dtype(dtype).itemsize < 4
    except TypeError:
        return False  # JAX says what is wrong


def _initializer(
    their: Initializer,
    law: Law,
    scale: Any,
    dtype: Any,
    column_axis: int = -1,
    *,
    matrix: bool = False,
    after: Callable[[Any], Any] = jnp.asarray,
) -> Initializer:
    """Return an initializer with a distribution of ours.

    Args:
        their: its counterpart, which is asked what the array is to be, and whether it may.
        law: the distribution of a shape and a scale.
        scale: may be one that the distribution does not take.
        dtype: of arrays for which no other is asked.
        column_axis: of matrices.
        matrix: True if JAX decomposes a matrix.
        after: what a scale that the distribution does not take is as a factor.
    """
    ask = _asker(their, matrix)

    def init(key: Any, shape: Any, dtype: Any = dtype, out_sharding: Any = None) -> jax.Array:
        wanted = ask(key, shape, dtype)
        size, factor = _split(scale)
        # The fans of an empty array may be 0. JAX 0.12 makes such arrays, JAX 0.10 has refused them by now.
        distribution = law(wanted.shape, size) if math.prod(wanted.shape) else Normal()
        if wanted.dtype.name in DTYPES:
            distribution = as_drawn_by_frameworks(distribution, wanted.dtype.name)
        tensor = Tensor(distribution, wanted.shape, np.dtype(wanted.dtype), column_axis)
        words = _words(key)
        traced = isinstance(words, jax.core.Tracer)
        array = (_staged if traced else _eager)(tensor, words, _named(out_sharding, traced))
        return array if factor is None else array * after(factor).astype(array.dtype)

    return init


def uniform(scale: Any = 1e-2, dtype: Any = None) -> Initializer:
    """Evenly in [0, scale).

    Args:
        scale: the upper bound.
        dtype: of arrays for which no other is asked.

    >>> bool((uniform(0.5)(jax.random.key(0), (100,)) < 0.5).all())
    True
    """

    def law(_: tuple[int, ...], size: float) -> Distribution:
        return schemes.distribution("uniform", (), low=0.0, high=size)

    return _initializer(theirs.uniform(scale, dtype), law, scale, dtype)


def normal(stddev: Any = 1e-2, dtype: Any = None) -> Initializer:
    """Normal with mean 0; complex numbers have it as the root of E|z|^2.

    Args:
        stddev: the standard deviation.
        dtype: of arrays for which no other is asked.

    >>> normal(0.02)(jax.random.key(0), (3,)).dtype
    dtype('float32')
    """

    def law(_: tuple[int, ...], size: float) -> Distribution:
        return schemes.distribution("normal", (), std=size)

    return _initializer(theirs.normal(stddev, dtype), law, stddev, dtype)


def truncated_normal(stddev: Any = 1e-2, dtype: Any = None, lower: Any = -2.0, upper: Any = 2.0) -> Initializer:
    """Normal with mean 0, cut to [lower, upper] times stddev, which is not corrected for the cut.

    Args:
        stddev: the standard deviation before the cut.
        dtype: of arrays for which no other is asked.
        lower, upper: the bounds in standard deviations; unlike stddev, they cannot be traced.

    >>> bool((abs(truncated_normal(0.5)(jax.random.key(0), (100,))) <= 1).all())
    True
    """

    def law(_: tuple[int, ...], size: float) -> Distribution:
        return TruncatedNormal.in_sigma(0.0, size, float(lower), float(upper))

    return _initializer(theirs.truncated_normal(stddev, dtype, lower, upper), law, stddev, dtype)


def variance_scaling(
    scale: Any,
    mode: str,
    distribution: str,
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
    dtype: Any = None,
) -> Initializer:
    """Mean 0 and variance scale / fan.

    Args:
        scale: the numerator.
        mode: the denominator: fan_in, fan_out, fan_avg or fan_geo_avg.
        distribution: truncated_normal (at 2 sigma, std corrected), normal or uniform.
        in_axis, out_axis, batch_axis: axes, or sequences of axes, that are inputs, outputs and independent copies.
            All others are a convolution's kernel.
        dtype: of arrays for which no other is asked.

    >>> x = variance_scaling(1.0, "fan_geo_avg", "uniform")(jax.random.key(0), (4, 16))
    >>> bool((abs(x) <= (3 / 8) ** 0.5).all())
    True
    """

    def law(shape: tuple[int, ...], size: float) -> Distribution:
        numbers = axis_fans(shape, in_axis, out_axis, batch_axis)
        scheme = schemes.find("variance_scaling")
        return scheme.distribution(lambda: numbers, scale=size, mode=mode, distribution=distribution)

    their: Any = theirs.variance_scaling
    asked = their(scale, mode, distribution, in_axis, out_axis, batch_axis, dtype)
    return _initializer(asked, law, scale, dtype, after=jnp.sqrt)


def _family(name: str, **parameters: Any) -> Callable[..., Initializer]:
    """The factory of a scheme that takes no numbers in JAX."""

    def factory(in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), dtype: Any = None) -> Initializer:
        """{summary}

        {formula}{cut}. {source}.

        Args:
            in_axis, out_axis, batch_axis: axes, or sequences of axes, that are inputs, outputs and independent copies.
                All others are a convolution's kernel.
            dtype: of arrays for which no other is asked.

        >>> {name}()(jax.random.key(0), (3, 4)).shape
        (3, 4)
        """

        def law(shape: tuple[int, ...], _: float) -> Distribution:
            numbers = axis_fans(shape, in_axis, out_axis, batch_axis)
            return scheme.distribution(lambda: numbers, **parameters)

        return _initializer(getattr(theirs, name)(in_axis, out_axis, batch_axis, dtype), law, 1.0, dtype)

    scheme = schemes.find(name)
    cut = ", cut at 2 sigma with the std corrected" if parameters else ""
    texts = {"name": name, "summary": scheme.doc[0], "formula": scheme.formula, "source": scheme.source, "cut": cut}
    factory.__doc__ = (factory.__doc__ or "").format(**texts)
    factory.__name__ = factory.__qualname__ = name
    return factory


glorot_uniform = xavier_uniform = _family("glorot_uniform")
glorot_normal = xavier_normal = _family("glorot_normal", truncated=True)
lecun_uniform = _family("lecun_uniform")
lecun_normal = _family("lecun_normal", truncated=True)
he_uniform = kaiming_uniform = _family("he_uniform")
he_normal = kaiming_normal = _family("he_normal", truncated=True)


def orthogonal(scale: Any = 1.0, column_axis: int = -1, dtype: Any = None) -> Initializer:
    """Orthonormal rows or columns, whichever are fewer; unitary for complex dtypes.

    Args:
        scale: a factor.
        column_axis: the axis of the columns; all others are flattened to that of the rows.
        dtype: of arrays for which no other is asked.

    >>> q = orthogonal()(jax.random.key(0), (5, 3))
    >>> bool(jnp.allclose(q.T @ q, jnp.eye(3), atol=1e-6))
    True
    """

    def law(_: tuple[int, ...], size: float) -> Distribution:
        return schemes.distribution("orthogonal", (), gain=size)

    return _initializer(theirs.orthogonal(scale, column_axis, dtype), law, scale, dtype, column_axis, matrix=True)


def delta_orthogonal(scale: Any = 1.0, column_axis: int = -1, dtype: Any = None) -> Initializer:
    """A convolution that acts as one orthogonal matrix, at the kernel's centre; at least as many outputs as inputs.

    Args:
        scale: a factor.
        column_axis: of that matrix; its law is the same for both.
        dtype: of arrays for which no other is asked.

    >>> x = delta_orthogonal()(jax.random.key(0), (3, 2, 4))
    >>> bool(jnp.allclose(x[1] @ x[1].T, jnp.eye(2), atol=1e-6)), bool(x[0].any() or x[2].any())
    (True, False)
    """

    def law(_: tuple[int, ...], size: float) -> Distribution:
        return schemes.distribution("delta_orthogonal", (), gain=size)

    return _initializer(theirs.delta_orthogonal(scale, column_axis, dtype), law, scale, dtype)
