"""Turn a function that returns a distribution into one that fills a tensor, or leaves that to PyTorch."""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeAlias

import torch

from fastinit._core.distributions import Distribution
from fastinit._core.draw import draw_flat
from fastinit._core.key import words_of
from fastinit._runtime.arrays import overlaps
from fastinit.schemes._filling import fill
from fastinit.torch._compat import is_traced
from fastinit.torch._record.draws import fits
from fastinit.torch._record.recorder import active
from fastinit.torch._tensors import DTYPES, NUMPY, host_array, mark_written, on_host

P = ParamSpec("P")
Law: TypeAlias = Distribution | None  # None: the call is left to torch
Body: TypeAlias = Callable[P, Law]  # `tensor` is its first parameter, and `generator` one of what is random
Function: TypeAlias = Callable[P, torch.Tensor]

_WORD = (1 << 64) - 1  # torch's integers have a sign


def drop_in(body: Body[P]) -> Function[P]:
    """Replace PyTorch's function of the same name by one that fills with the distribution `body` returns.

    If `body` returns None or raises a TypeError or ValueError, and for tensors that are not filled here, PyTorch's
    function is called with the caller's arguments: results, warnings and errors are PyTorch's.
    """
    theirs: Function[P] = getattr(torch.nn.init, body.__name__)  # bound now, before any patch
    signature = inspect.signature(body)
    names = list(signature.parameters)
    random = "generator" in names
    place = names.index("generator") if random else sys.maxsize

    @functools.wraps(body)
    def function(*args: P.args, **kwargs: P.kwargs) -> torch.Tensor:
        tensor: Any = args[0] if args else kwargs.get("tensor")
        generator = args[place] if len(args) > place else kwargs.get("generator")
        if _fill(tensor, functools.partial(body, *args, **kwargs), generator, random):
            return tensor  # type: ignore[no-any-return]
        return theirs(*args, **kwargs)

    function.__doc__ = f"{inspect.getdoc(body)}\n\nWarnings and errors are those of `torch.nn.init.{body.__name__}`.\n"
    function.__signature__ = signature.replace(return_annotation="torch.Tensor")  # type: ignore[attr-defined]
    return function


def _fill(tensor: Any, law: Callable[[], Law], generator: Any, random: bool) -> bool:
    """Fill a tensor now, or let the recorder do it later; False, with nothing changed, where that is torch's work."""
    if active.recorder is not None:  # what it does not take is torch's: it would not see NumPy's writes
        return offer(tensor, law)
    if not random or not _is_ours(tensor, generator):  # what is not random torch does as well, to the bit
        return False
    distribution = _possible(tensor, law)
    if distribution is None:
        return False
    dtype = NUMPY[tensor.dtype]
    place = tensor.data_ptr()
    if not distribution.structured and tensor.is_contiguous() and place % dtype.itemsize == 0:
        # Without an array, which would be a fifth of a small call.
        draw_flat(place, tensor.numel(), dtype, distribution, words_of(next_seed(generator, _word())))
    else:
        array = host_array(tensor)
        if array is None or overlaps(array.shape, array.strides, array.itemsize):
            return False
        fill(array, distribution, seed=next_seed(generator, _word()))
    mark_written(tensor)
    return True


def offer(tensor: Any, law: Callable[[], Law]) -> bool:
    """Let this thread's recorder take a fill; False where there is none, or it does not."""
    recorder = active.recorder
    if recorder is None or not isinstance(tensor, torch.Tensor):
        return False
    distribution = _possible(tensor, law)
    if distribution is None or not recorder.fill(tensor, distribution):
        return False
    mark_written(tensor)
    return True


def _is_ours(tensor: Any, generator: Any) -> bool:
    """Whether a tensor has memory that NumPy may write, and the generator can give a seed."""
    if is_traced() or not on_host(tensor):
        return False
    if generator is not None and not (isinstance(generator, torch.Generator) and generator.device.type == "cpu"):
        return False
    return not tensor.is_inference() or torch.is_inference_mode_enabled()


def _possible(tensor: torch.Tensor, law: Callable[[], Law]) -> Law:
    """The distribution of a call, if there is one and the tensor can hold it."""
    if tensor.dtype not in DTYPES or tensor.numel() == 0:
        return None
    try:
        distribution = law()
    except (TypeError, ValueError):
        return None
    return distribution if distribution is not None and fits(distribution, tensor.shape, tensor.dtype) else None


def next_seed(generator: torch.Generator | None = None, word: torch.Tensor | None = None) -> int:
    """One 64-bit number of a generator, or else of PyTorch's default one. `word` is an int64 tensor to draw it into."""
    if word is None:  # on the CPU whatever `torch.device` is in force
        word = torch.empty((), dtype=torch.int64, device="cpu")
    return int(word.random_(-(1 << 63), None, generator=generator).item()) & _WORD


class _Words(threading.local):
    own: torch.Tensor | None = None


_words = _Words()


def _word() -> torch.Tensor:
    """This thread's tensor for `next_seed` where no mode is in force: a new one would take longer than the number."""
    if _words.own is None:
        with torch.inference_mode(False):  # a tensor of inference mode could not be written outside of it
            _words.own = torch.empty((), dtype=torch.int64, device="cpu")
    return _words.own
