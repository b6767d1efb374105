"""The PyTorch face."""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("fastinit.torch needs PyTorch: pip install 'fastinit[torch]'") from error
