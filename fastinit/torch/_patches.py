"""Functions of PyTorch that are replaced while a recorder is active: those of `torch.nn.init` that are no single
operator, so that each call is one fill, and those that distribute tensors."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch

from fastinit.torch import init
from fastinit.torch._compat import TRUNCATED, distributing, optional
from fastinit.torch._dropin import Law, offer
from fastinit.torch._record.recorder import active
from fastinit.torch._shards import check_same_seed

# By the name in torch.nn.init, the drop-in replacement that has the distribution.
DROP_INS: dict[str, Callable[..., Any]] = {
    TRUNCATED.rpartition(".")[2]: init.trunc_normal_,
    "orthogonal_": init.orthogonal_,
    "eye_": init.eye_,
    "dirac_": init.dirac_,
}

_lock = threading.Lock()
_users = 0
_originals: list[tuple[Any, str, Any]] = []  # (owner, name, what is there without us)


@contextlib.contextmanager
def patched() -> Iterator[None]:
    """Calls in this thread go to its recorder; in other threads PyTorch's functions do what they always do."""
    global _users
    with _lock:
        if _users == 0:
            _replace()
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                for owner, name, original in reversed(_originals):
                    setattr(owner, name, original)
                _originals.clear()


def _replace() -> None:
    optional(TRUNCATED)  # warns, before anything is replaced: a warning may be an error
    methods = distributing() if "torch.distributed.tensor" in sys.modules else []
    for name, drop_in in DROP_INS.items():
        original = getattr(torch.nn.init, name, None)
        if original is not None:
            _put(torch.nn.init, name, _recorded(original, inspect.unwrap(drop_in)))
    for owner, name in methods:
        function = _without_communication(getattr(owner, name))
        _put(owner, name, staticmethod(function) if isinstance(vars(owner)[name], staticmethod) else function)


def _put(owner: Any, name: str, replacement: Any) -> None:
    _originals.append((owner, name, vars(owner)[name]))
    setattr(owner, name, replacement)


@functools.cache
def _without_communication(original: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """`distribute_tensor` sends the shards of one rank's tensor; where all ranks know it, each takes its own."""
    signature = inspect.signature(original)

    @functools.wraps(original)
    def function(*args: Any, **kwargs: Any) -> torch.Tensor:
        recorder, call = active.recorder, signature.bind(*args, **kwargs)
        call.apply_defaults()
        given = call.arguments
        tensor = given["tensor"]
        if recorder is None or not recorder.knows(tensor):
            return original(*call.args, **call.kwargs)
        if given["src_data_rank"] is not None:
            check_same_seed(recorder, given["mesh"], given["mesh_dim"])
            given["src_data_rank"] = None
        part = original(*call.args, **call.kwargs)
        # Before PyTorch 2.10 a part is a view; as a copy it remembers the whole, and does not keep its memory.
        return part.clone() if part.numel() < tensor.numel() and recorder.shares_memory(part, tensor) else part

    return function


def _recorded(original: Callable[..., torch.Tensor], law: Callable[..., Law]) -> Callable[..., torch.Tensor]:
    @functools.wraps(original)
    def function(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        is_recorded = offer(tensor, functools.partial(law, tensor, *args, **kwargs))
        return tensor if is_recorded else original(tensor, *args, **kwargs)

    return function
