"""Drop-in replacements for Keras 3's initializers, drawn by fastinit.

>>> import keras
>>> import fastinit as fi
>>> from fastinit.keras import HeNormal
>>> layer = keras.layers.Dense(64, kernel_initializer=HeNormal(seed=0))
>>> layer.build((None, 128))
>>> same = fi.he_normal((128, 64), seed=0, layout="io", truncated=True)
>>> bool(keras.ops.all(layer.kernel == same))
True

Every class is a subclass of Keras's own of that name, with its arguments, checks and config; only the values come from
here, the same ones on every backend. They are filled in memory that JAX and PyTorch then share on a CPU, and copied to
other devices.

**Seeds** mean what they mean in Keras. With an int, every call gives the same values. None is the int that Keras's own
class draws when it is made: `keras.utils.set_random_seed` governs it, and `initializer.seed` tells it. It is one of
10^9, since Keras's functions take seeds of 32 bits. A `keras.random.SeedGenerator` goes on with every call. Seed n is
`fastinit.Key(n)`, and also what a new `SeedGenerator(n)` gives first. Two weights of one shape from one int are equal,
and the clone of an initializer with a seed draws the same again, so give every layer a seed of its own.

**Traces.** In `jax.jit` or a TensorFlow graph, an int seed makes the values a constant of the program. The state of a
SeedGenerator has no value there, so Keras's own generator draws. So it does where Keras only infers shapes, and no one
sees the values, and for dtypes other than float16, bfloat16, float32 and float64.

**Saving.** The classes are registered as "fastinit>HeNormal" and so on: `import fastinit.keras` before
`keras.saving.load_model`. Plain strings such as "he_normal" stay Keras's.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

try:
    import keras
except ModuleNotFoundError as error:
    if error.name != "keras":  # the backend that Keras was told to use: its own words are better
        raise
    raise ImportError("fastinit.keras needs Keras: pip install 'fastinit-weights[keras]'") from error

import numpy as np
from keras.initializers import STFT

from fastinit import schemes
from fastinit._core import distributions
from fastinit._core.distributions import Distribution
from fastinit._core.key import Key
from fastinit._runtime.arrays import DTYPES, Array, aligned_empty, as_shape
from fastinit.schemes._filling import fill

stft = STFTInitializer = STFT  # draws nothing, and no law of ours makes it


class _Filled(keras.initializers.Initializer):
    """The first base of the classes below: a distribution instead of Keras's draw."""

    seed: int | keras.random.SeedGenerator = 0  # for the classes that draw nothing; the others set their own

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.__module__ == __name__:
            keras.saving.register_keras_serializable("fastinit")(cls)

    def _law(self, shape: tuple[int, ...]) -> Distribution | None:
        """The law for a shape; None for what only Keras's own code can make."""
        raise NotImplementedError

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """A tensor of Keras's backend.

        Args:
            shape: a sequence of ints.
            dtype: a float dtype of 16, 32 or 64 bits; None is `keras.config.floatx()`.

        Raises:
            TypeError, ValueError: a shape, or a parameter, that the law does not exist for.
        """
        name = keras.backend.standardize_dtype(dtype)
        traced = isinstance(self.seed, keras.random.SeedGenerator) and _traced()
        unseen = traced or _scope_test()()
        distribution = None if unseen or name not in DTYPES else self._law(as_shape(shape))
        if distribution is None:
            return super().__call__(shape, dtype)  # type: ignore[no-untyped-call]
        distribution = distributions.as_drawn_by_frameworks(distribution, name)
        out = aligned_empty(as_shape(shape), DTYPES[name])
        return _tensor(fill(out, distribution, seed=_key(self.seed), layout="io"), name)


def _key(seed: int | keras.random.SeedGenerator) -> Key:
    """A seed as a key; the words of Keras's seeds are 32 bits, signed ones in PyTorch."""
    if isinstance(seed, int):
        return Key(int(seed) if seed >= 0 else seed & 0xFFFFFFFF)
    start, count = (int(word) & 0xFFFFFFFF for word in seed.next())  # type: ignore[no-untyped-call]
    return Key(start | count << 32)


@functools.cache
def _scope_test() -> Callable[[], bool]:
    """Keras's function that is true if it only infers shapes. The scope is public, the function is not."""
    try:
        from keras.src.backend.common.symbolic_scope import in_symbolic_scope
    except ImportError:
        name = "keras.src.backend.common.symbolic_scope.in_symbolic_scope"
        effect = "values are drawn also where Keras only infers shapes"
        warnings.warn(f"Keras {keras.__version__} has no {name}: {effect}", RuntimeWarning, stacklevel=4)
        return lambda: False
    return in_symbolic_scope


def _traced() -> bool:
    """Whether new tensors have no values yet: in JAX's traces, on PyTorch's meta device, in TensorFlow's graphs."""
    try:
        float(keras.ops.zeros(()))
    except (TypeError, RuntimeError):
        return True
    return False


def _tensor(array: Array, dtype: str) -> Any:
    """The backend's tensor on the memory of an array; Keras's own conversion would copy it."""
    tensor: Any = array
    match keras.backend.backend():
        case "jax":
            import jax

            tensor = jax.device_put(array)
        case "torch":
            import torch

            bits = dtype == "bfloat16"  # which NumPy and PyTorch do not call the same
            tensor = torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16) if bits else torch.from_numpy(array)
    return keras.ops.convert_to_tensor(tensor, dtype)  # moves it to the device that Keras uses


# --- what draws nothing ---


class Zeros(_Filled, keras.initializers.Zeros):
    """Zeros.

    >>> float(Zeros()((2, 2)).sum())
    0.0
    """

    def _law(self, shape: tuple[int, ...]) -> Distribution:
        return schemes.distribution("zeros", shape)


class Ones(_Filled, keras.initializers.Ones):
    """Ones.

    >>> float(Ones()((2, 2)).sum())
    4.0
    """

    def _law(self, shape: tuple[int, ...]) -> Distribution:
        return schemes.distribution("ones", shape)


class Constant(_Filled, keras.initializers.Constant):
    """One value everywhere. What is no finite number (infinity, an array) is left to Keras.

    >>> float(Constant(0.5)((2, 2)).sum())
    2.0
    """

    def _law(self, shape: tuple[int, ...]) -> Distribution | None:
        plain = type(self.value) in (int, float) and math.isfinite(self.value)
        return schemes.distribution("constant", shape, value=self.value) if plain else None


class Identity(_Filled, keras.initializers.Identity):
    """`gain` on the diagonal of a matrix, zeros elsewhere.

    >>> float(Identity(gain=2)((2, 3)).sum())
    4.0
    """

    def _law(self, shape: tuple[int, ...]) -> Distribution:
        return schemes.distribution("eye", shape, gain=self.gain)


# --- laws with parameters of their own ---


class RandomNormal(_Filled, keras.initializers.RandomNormal):
    """N(mean, stddev^2).

    >>> RandomNormal(stddev=0.02, seed=0)((3, 5)).shape == (3, 5)
    True
    """

    def _law(self, shape: tuple[int, ...]) -> Distribution:
        return schemes.distribution("normal", shape, mean=float(self.mean), std=float(self.stddev))


class TruncatedNormal(_Filled, keras.initializers.TruncatedNormal):
    """N(mean, stddev^2) cut at two stddev from the mean; what is left has a standard deviation of 0.88 stddev.

    >>> bool(abs(TruncatedNormal(stddev=0.5, seed=0)((100, 100))).max() <= 1)
    True
    """

    def _law(self, shape: tuple[int, ...]) -> Distribution:
        return distributions.TruncatedNormal.in_sigma(float(self.mean), float(self.stddev))


class RandomUniform(_Filled, keras.initializers.RandomUniform):
    """Evenly in [minval, maxval).

    >>> bool(RandomUniform(1, 2, seed=0)((3, 5)).min() >= 1)
    True
    """

    def _law(self, shape: tuple[int, ...]) -> Distribution:
        return schemes.distribution("uniform", shape, low=float(self.minval), high=float(self.maxval))


class Orthogonal(_Filled, keras.initializers.Orthogonal):
    """`gain` times a Haar-distributed matrix (prod(shape[:-1]), shape[-1]) with orthonormal rows or columns, whichever
    are fewer (Saxe, McClelland, Ganguli, ICLR 2014). 16-bit dtypes too, which Keras's own has not.

    >>> Orthogonal(seed=0)((3, 3, 4, 8)).shape == (3, 3, 4, 8)
    True
    """

    def _law(self, shape: tuple[int, ...]) -> Distribution:
        return schemes.distribution("orthogonal", shape, gain=float(self.gain))


# --- the families of variance scaling ---


class VarianceScaling(_Filled, keras.initializers.VarianceScaling):
    """Mean 0 and variance scale / fan. The classes below are this one, with Keras's constants.

    >>> VarianceScaling(2.0, "fan_out", "untruncated_normal", seed=0)((3, 3, 4, 8)).shape == (3, 3, 4, 8)
    True
    """

    def _law(self, shape: tuple[int, ...]) -> Distribution:
        distribution = "normal" if self.distribution == "untruncated_normal" else self.distribution
        matrix = self._matrix(shape)
        return schemes.distribution(
            "variance_scaling", matrix, layout="io", scale=self.scale, mode=self.mode, distribution=distribution
        )

    def _matrix(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """A shape with the fans that Keras gives `shape`: vectors and scalars have some there."""
        inputs, outputs = getattr(self, "input_axes", None), getattr(self, "output_axes", None)  # Keras 3.8 has none
        if inputs is not None and outputs is not None:
            return math.prod(shape[axis] for axis in inputs), math.prod(shape[axis] for axis in outputs)
        return shape if len(shape) >= 2 else (shape or (1,)) * 2


class GlorotNormal(VarianceScaling, keras.initializers.GlorotNormal):
    """Normal of variance 2 / (fan_in + fan_out), cut at 2 sigma (Glorot & Bengio, AISTATS 2010).

    >>> GlorotNormal(seed=0)((3, 5)).shape == (3, 5)
    True
    """


class GlorotUniform(VarianceScaling, keras.initializers.GlorotUniform):
    """Uniform of variance 2 / (fan_in + fan_out) (Glorot & Bengio, AISTATS 2010).

    >>> GlorotUniform(seed=0)((3, 5)).shape == (3, 5)
    True
    """


class HeNormal(VarianceScaling, keras.initializers.HeNormal):
    """Normal of variance 2 / fan_in, cut at 2 sigma (He, Zhang, Ren, Sun, ICCV 2015).

    >>> HeNormal(seed=0)((3, 5)).shape == (3, 5)
    True
    """


class HeUniform(VarianceScaling, keras.initializers.HeUniform):
    """Uniform of variance 2 / fan_in (He, Zhang, Ren, Sun, ICCV 2015).

    >>> HeUniform(seed=0)((3, 5)).shape == (3, 5)
    True
    """


class LecunNormal(VarianceScaling, keras.initializers.LecunNormal):
    """Normal of variance 1 / fan_in, cut at 2 sigma (LeCun, Bottou, Orr, Mueller, Efficient BackProp, 1998).

    >>> LecunNormal(seed=0)((3, 5)).shape == (3, 5)
    True
    """


class LecunUniform(VarianceScaling, keras.initializers.LecunUniform):
    """Uniform of variance 1 / fan_in (LeCun, Bottou, Orr, Mueller, Efficient BackProp, 1998).

    >>> LecunUniform(seed=0)((3, 5)).shape == (3, 5)
    True
    """


# Keras's other names of the same classes.
constant, identity, ones, zeros = Constant, Identity, Ones, Zeros
random_normal, random_uniform, truncated_normal = RandomNormal, RandomUniform, TruncatedNormal
variance_scaling, orthogonal = VarianceScaling, Orthogonal
glorot_normal, glorot_uniform = GlorotNormal, GlorotUniform
he_normal, he_uniform = HeNormal, HeUniform
lecun_normal, lecun_uniform = LecunNormal, LecunUniform
IdentityInitializer, OrthogonalInitializer = Identity, Orthogonal
