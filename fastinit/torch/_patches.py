"""Functions of `torch.nn.init` that are no single operator, seen as one fill while a recorder is at work."""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch

from fastinit.torch import init
from fastinit.torch._dropin import Law, offer
from fastinit.torch._tensors import mark_written

# `trunc_normal_` redraws until all values are inside its bounds: no operator says what it means. This helper of it is
# private, but libraries keep the public function from before any patch (transformers does), and it calls the helper.
_TRUNCATED = "_no_grad_trunc_normal_"


# By the name in torch.nn.init, the twin that says what it means.
TWINS: dict[str, Callable[..., Any]] = {
    _TRUNCATED: init.trunc_normal_,
    "orthogonal_": init.orthogonal_,
    "eye_": init.eye_,
    "dirac_": init.dirac_,
}

_lock = threading.Lock()
_users = 0
_originals: dict[str, Callable[..., torch.Tensor]] = {}


@contextlib.contextmanager
def structured_fills() -> Iterator[None]:
    """Torch's functions tell this thread's recorder their law; other threads get what they always do."""
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            _replace()
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                for name, original in _originals.items():
                    setattr(torch.nn.init, name, original)
                _originals.clear()


def _replace() -> None:
    for name, twin in TWINS.items():
        original = getattr(torch.nn.init, name, None)
        if original is None:
            warnings.warn(
                f"torch.nn.init.{name} is gone in torch {torch.__version__}: truncated normals are drawn by torch's "
                "own loop, slowly",
                stacklevel=5,
            )
            continue
        _originals[name] = original
        setattr(torch.nn.init, name, _seen(original, inspect.unwrap(twin)))


def _seen(original: Callable[..., torch.Tensor], law: Callable[..., Law]) -> Callable[..., torch.Tensor]:
    def function(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if offer(tensor, functools.partial(law, tensor, *args, **kwargs)):
            mark_written(tensor)
            return tensor
        return original(tensor, *args, **kwargs)

    function.__name__, function.__doc__ = original.__name__, original.__doc__
    return function
