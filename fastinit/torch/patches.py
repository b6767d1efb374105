"""Functions of `torch.nn.init` that are no single operator, seen as one fill while a recorder is at work."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch

from fastinit.distributions import Distribution, TruncatedNormal
from fastinit.structured import Dirac, Eye, Orthogonal
from fastinit.torch.tensors import active, mark_written

# `trunc_normal_` redraws until all values are inside its bounds: no operator says what it means. This helper of it is
# private, but libraries keep the public function from before any patch (transformers does), and it calls the helper.
_TRUNCATED = "_no_grad_trunc_normal_"


def _truncated(
    tensor: torch.Tensor, mean: float, std: float, a: float, b: float, generator: Any = None
) -> Distribution:
    return TruncatedNormal(mean, std, a, b).simplest


def _orthogonal(tensor: torch.Tensor, gain: float = 1, generator: Any = None) -> Distribution:
    return Orthogonal(gain)


def _eye(tensor: torch.Tensor) -> Distribution:
    return Eye()


def _dirac(tensor: torch.Tensor, groups: int = 1) -> Distribution:
    return Dirac(groups)


LAWS: dict[str, Callable[..., Distribution]] = {
    _TRUNCATED: _truncated,
    "orthogonal_": _orthogonal,
    "eye_": _eye,
    "dirac_": _dirac,
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
    for name, law in LAWS.items():
        original = getattr(torch.nn.init, name, None)
        if original is None:
            warnings.warn(
                f"torch.nn.init.{name} is gone in torch {torch.__version__}: truncated normals are drawn by torch's "
                "own loop, slowly",
                stacklevel=5,
            )
            continue
        _originals[name] = original
        setattr(torch.nn.init, name, _seen(original, law))


def _seen(original: Callable[..., torch.Tensor], law: Callable[..., Distribution]) -> Callable[..., torch.Tensor]:
    def function(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if _noted(tensor, law, args, kwargs):
            return tensor
        return original(tensor, *args, **kwargs)

    function.__name__, function.__doc__ = original.__name__, original.__doc__
    return function


def _noted(
    tensor: torch.Tensor, law: Callable[..., Distribution], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> bool:
    recorder = active.recorder
    if recorder is None:
        return False
    try:
        found = law(tensor, *args, **kwargs)
    except (TypeError, ValueError):  # torch's own function says what is wrong
        return False
    if isinstance(found, TruncatedNormal) and _far(found):
        return False  # torch warns
    if not recorder.fill(tensor, found):
        return False
    mark_written(tensor)
    return True


def _far(law: TruncatedNormal) -> bool:
    """Whether torch warns that the mean is more than 2 std outside the bounds."""
    mean, reach = law.normal.mean, 2 * law.normal.std
    return mean < law.low - reach or mean > law.high + reach
