"""The PyTorch face."""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("fastinit.torch needs PyTorch: pip install 'fastinit[torch]'") from error

from fastinit.torch.construct import fast_init, record
from fastinit.torch.materialize import materialize

__all__ = ["fast_init", "materialize", "record"]
