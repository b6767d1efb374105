"""The functions made from the table of schemes, one for each name and alias; signatures are in `_initializers.pyi`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastinit._core.draw import draw
from fastinit._core.fans import as_axes
from fastinit._core.key import Seed, words_of
from fastinit._runtime.arrays import Array, as_dtype, as_region, as_shape, check_target, nbytes_of
from fastinit.schemes import SCHEMES, distribution_of
from fastinit.schemes._filling import fill


def _initializer(name: str) -> Callable[..., Array]:
    def initialize(
        shape: int | Sequence[int] | None = None,
        *,
        out: Array | None = None,
        seed: Seed = None,
        dtype: Any = "float32",
        layout: str = "oi",
        batch_axes: int | Sequence[int] = (),
        region: tuple[slice, ...] | None = None,
        **parameters: Any,
    ) -> Array:
        """{summary}

        {formula}. {source}.

        Args:
            shape: an int or a sequence of ints: the global shape. Default: the shape of `out`.
            out: a writeable array of float16, bfloat16, float32 or float64 to fill; it keeps its dtype. Default: a new
                one.
            seed: an int or a `Key`; None draws fresh entropy. The same seed gives every tensor the same values: use
                `Key(seed) / name`, one name per tensor.
            dtype: of a new array: a name (bf16 and torch.bfloat16 are bfloat16), or a dtype of NumPy, JAX or torch.
            layout: "oi", (out, in, *kernel), as in torch; "io", (*kernel, in, out), as in JAX and Keras.
            batch_axes: axes that the fans leave out: a population of candidates, a stack of experts.
            region: a tuple of slices of the global shape: only this part, with the values that it has in the
                whole.{parameters}

        Returns:
            The filled array: `out`, or a new one of the region's shape.

        Raises:
            TypeError: an argument of the wrong type, or a dtype that cannot be filled.
            ValueError: a value out of range, an unknown name, or a shape that the scheme does not exist for. Nothing
                was written.

        >>> {name}({shape}, seed=0{example}).shape
        {shape}
        """
        if shape is not None:
            whole = as_shape(shape)
        elif out is None:
            raise TypeError(f"{name} needs a shape or out")
        elif region is not None:
            raise TypeError("region needs shape, the global one")
        else:
            check_target(out)
            whole = out.shape
        batch = as_axes(batch_axes)
        distribution = distribution_of(name, whole, layout, batch, parameters)
        if out is None:
            new_dtype = as_dtype(dtype)
            indices = None if region is None else as_region(region, whole)
            part = whole if indices is None else tuple(map(len, indices))
            try:
                out = np.empty(part, new_dtype)
            except ValueError:
                nbytes_of(part, new_dtype.name)  # says by which argument
                raise
            if region is None and not distribution.structured:  # the shortest way, for small calls
                draw(out, distribution, words_of(seed))
                return out
        return fill(out, distribution, seed=seed, shape=whole, region=region, layout=layout, batch_axes=batch)

    _describe(initialize, name)
    return initialize


def _describe(function: Any, name: str) -> None:
    """Give a function its scheme's name, docstring and signature."""
    scheme = SCHEMES[name]
    summary, parameters = scheme.doc
    shape, example = scheme.example
    function.__doc__ = (function.__doc__ or "").format(
        name=name,
        summary=summary,
        formula=scheme.formula,
        source=scheme.source,
        parameters=f"\n{parameters}".replace("\n", "\n            ") if parameters else "",
        shape=shape,
        example=example,
    )
    function.__name__ = function.__qualname__ = name
    signature = inspect.signature(function)
    common = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    function.__signature__ = signature.replace(parameters=[*common, *scheme.parameters.values()])


for _scheme in SCHEMES.values():
    globals().update(dict.fromkeys((_scheme.name, *_scheme.aliases), _initializer(_scheme.name)))
