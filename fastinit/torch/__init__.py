"""The PyTorch face."""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("fastinit.torch needs PyTorch: pip install 'fastinit[torch]'") from error

from fastinit.torch.clip import clip_grad_norm_, clip_grad_value_, clip_grads_with_norm_, get_total_norm

__all__ = ["clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_", "get_total_norm"]
