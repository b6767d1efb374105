"""The adapter for PyTorch. `import fastinit.torch as init` takes the place of `import torch.nn.init as init`.

    init.py       the functions of torch.nn.init; _dropin.py: how they fill, or leave a call to torch
    construct.py  `fast_init` and `record`: unmodified constructors; _record/: their deferred fills
    materialize.py, clip.py: models without values; gradient clipping. _shards.py: which part of a DTensor is here
    _compat.py    every private name of PyTorch, each with a fallback

May import all folders but `_probe`, `plots` and `cli`. Start at `init.normal_`.
"""

try:
    import torch as _torch
except ImportError as error:
    raise ImportError("fastinit.torch needs PyTorch: pip install 'fastinit-weights[torch]'") from error

from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from fastinit.torch import clip, init
from fastinit.torch.clip import *  # noqa: F403
from fastinit.torch.construct import fast_init, record
from fastinit.torch.init import *  # noqa: F403
from fastinit.torch.materialize import materialize

__all__ = ["fast_init", "materialize", "record"]
__all__ += clip.__all__
__all__ += init.__all__

if not _TYPE_CHECKING:

    def __getattr__(name: str) -> _Any:
        """The private functions that other code takes from `torch.nn.init`."""
        if name.startswith("_") and not name.startswith("__"):
            return getattr(_torch.nn.init, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
