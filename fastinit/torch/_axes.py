"""What shapes do not tell about parameters: which axis is the input, and which are no part of a matrix."""

from __future__ import annotations

import sys

import torch


def axes_of(module: torch.nn.Module, parameter: torch.Tensor) -> tuple[str, tuple[int, ...]]:
    """The layout and the batch axes of a parameter, as the schemes' functions take them.

    The weights of `Conv1D`, GPT-2's linear layer, are (in, out); a parameter of three axes in a module without a kernel
    is a stack of matrices, as experts.

    >>> linear = torch.nn.Linear(3, 4)
    >>> axes_of(linear, linear.weight)
    ('oi', ())
    """
    # Where a module is one of transformers', transformers is there.
    transposed = getattr(sys.modules.get("transformers.pytorch_utils"), "Conv1D", ())
    layout = "io" if isinstance(module, transposed) and parameter.dim() == 2 else "oi"
    return layout, (0,) if parameter.dim() == 3 and not hasattr(module, "kernel_size") else ()
