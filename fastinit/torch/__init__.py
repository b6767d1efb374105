"""The PyTorch face. `import fastinit.torch as init` takes the place of `import torch.nn.init as init`."""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("fastinit.torch needs PyTorch: pip install 'fastinit[torch]'") from error

from torch.nn.init import (  # noqa: F401  other code takes the private two from there
    _calculate_correct_fan,
    _calculate_fan_in_and_fan_out,
    calculate_gain,
)

from fastinit.torch.clip import clip_grad_norm_, clip_grad_value_, clip_grads_with_norm_, get_total_norm
from fastinit.torch.construct import fast_init, record
from fastinit.torch.init import (
    constant,
    constant_,
    dirac,
    dirac_,
    eye,
    eye_,
    kaiming_normal,
    kaiming_normal_,
    kaiming_uniform,
    kaiming_uniform_,
    lecun_normal_,
    lecun_uniform_,
    normal,
    normal_,
    ones_,
    orthogonal,
    orthogonal_,
    sparse,
    sparse_,
    trunc_normal_,
    uniform,
    uniform_,
    variance_scaling_,
    xavier_normal,
    xavier_normal_,
    xavier_uniform,
    xavier_uniform_,
    zeros_,
)
from fastinit.torch.materialize import materialize

__all__ = [
    "calculate_gain",
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "constant",
    "constant_",
    "dirac",
    "dirac_",
    "eye",
    "eye_",
    "fast_init",
    "get_total_norm",
    "kaiming_normal",
    "kaiming_normal_",
    "kaiming_uniform",
    "kaiming_uniform_",
    "lecun_normal_",
    "lecun_uniform_",
    "materialize",
    "normal",
    "normal_",
    "ones_",
    "orthogonal",
    "orthogonal_",
    "record",
    "sparse",
    "sparse_",
    "trunc_normal_",
    "uniform",
    "uniform_",
    "variance_scaling_",
    "xavier_normal",
    "xavier_normal_",
    "xavier_uniform",
    "xavier_uniform_",
    "zeros_",
]
