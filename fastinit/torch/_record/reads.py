"""Methods of tensors that read or hand out memory and are no operators."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class Reads(TorchFunctionMode):
    """Sees methods that hand out memory and are no operators."""

    LOOKS = {  # noqa: RUF012  # these read and write nothing yet, or read only to show it
        torch.Tensor.data_ptr,
        torch.Tensor.share_memory_,
        torch.Tensor.__repr__,
        torch.Tensor.__format__,
    }
    METHODS = LOOKS | {
        torch.Tensor.numpy,
        torch.Tensor.tolist,
        torch.Tensor.__array__,
        torch.Tensor.__dlpack__,
        torch.Tensor.__deepcopy__,
        torch.Tensor.__reduce_ex__,
        torch.Tensor.untyped_storage,  # pickle takes it without a method that is seen
        torch.Tensor.storage,
    }

    def __init__(self, recorder: Any) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in self.METHODS and not self.recorder.busy:
            return self.recorder.read(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))
