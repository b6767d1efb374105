"""Half of the time that `import transformers` takes: without what only training, compiling and sharding need."""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch


class _StandIn(types.ModuleType):
    """A module of decorators that leave a function as it is."""

    __path__: list[str] = []  # noqa: RUF012  a package, for the import system

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        return _left_alone


def _left_alone(function: Any = None, *_: Any, **__: Any) -> Any:
    return function if function is not None else _left_alone


# What the modules of transformers import at their heads: the compiler for decorators (0.9 s, and 0.6 s of sympy), a
# function of SciPy for the losses of object detection (0.5 s).
_STAND_INS = ("torch._dynamo", "torch._dynamo._trace_wrapped_higher_order_op", "scipy.optimize")


@contextlib.contextmanager
def lean_imports() -> Iterator[None]:
    """What transformers imports in this block it has for building models, and no more: for a process of our own, in
    which nobody will train, compile or shard. Does nothing where transformers or the compiler is there already."""
    if "transformers" in sys.modules or "torch._dynamo" in sys.modules:
        yield
        return
    missing = [name for name in _STAND_INS if name not in sys.modules]
    disable, available = torch.compiler.disable, torch.distributed.is_available
    try:
        sys.modules.update({name: _StandIn(name) for name in missing})
        torch.compiler.disable = _left_alone  # type: ignore[assignment]
        torch.distributed.is_available = lambda: False  # DTensor: 1 s
        import transformers

        # The package itself would read the heads of a thousand files, once more (0.5 s); its modules are found without.
        models = types.ModuleType("transformers.models")
        models.__path__ = [f"{path}/models" for path in transformers.__path__]
        sys.modules.setdefault(models.__name__, models)
        yield
    finally:
        torch.compiler.disable, torch.distributed.is_available = disable, available
        for name in missing:
            if isinstance(sys.modules.get(name), _StandIn):
                del sys.modules[name]
