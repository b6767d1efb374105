"""Functions of the tests' own, compiled as kernels are."""

import itertools

from fastinit._native import library
from fastinit.kernels import jit, objects

_numbers = itertools.count()


def compiled(function, signature, **names):
    """A kernel of a Python function: what `library.kernel` gives of one in the catalogue."""
    symbol = f"test{next(_numbers)}"
    return library.load(objects.object_file(jit.definition(function, signature, **names), symbol), symbol)
