"""Functions of `torch.nn.init` that are no single operator: while a recorder is active, each call is one fill."""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch

from fastinit.torch import init
from fastinit.torch._compat import TRUNCATED, optional
from fastinit.torch._dropin import Law, offer

# By the name in torch.nn.init, the drop-in replacement that has the distribution.
DROP_INS: dict[str, Callable[..., Any]] = {
    TRUNCATED.rpartition(".")[2]: init.trunc_normal_,
    "orthogonal_": init.orthogonal_,
    "eye_": init.eye_,
    "dirac_": init.dirac_,
}

_lock = threading.Lock()
_users = 0
_originals: dict[str, Callable[..., torch.Tensor]] = {}


@contextlib.contextmanager
def structured_fills() -> Iterator[None]:
    """Calls in this thread go to its recorder as fills; in other threads PyTorch's functions do what they always do."""
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
    optional(TRUNCATED)  # warns
    for name, drop_in in DROP_INS.items():
        original = getattr(torch.nn.init, name, None)
        if original is not None:
            _originals[name] = original
            setattr(torch.nn.init, name, _recorded(original, inspect.unwrap(drop_in)))


def _recorded(original: Callable[..., torch.Tensor], law: Callable[..., Law]) -> Callable[..., torch.Tensor]:
    @functools.wraps(original)
    def function(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        is_recorded = offer(tensor, functools.partial(law, tensor, *args, **kwargs))
        return tensor if is_recorded else original(tensor, *args, **kwargs)

    return function


@contextlib.contextmanager
def local_shards() -> Iterator[None]:
    """`distribute_tensor` takes this rank's part of what the thread's recorder knows, without communication."""
    yield
