"""Storages that may die: a temporary's memory is given back at once, though its fill was noted."""

from __future__ import annotations

from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef

__all__ = ["StorageWeakRef", "revived"]


def revived(reference: StorageWeakRef) -> torch.Tensor | None:
    """A tensor over a storage that is still in use; None once it is gone."""
    if reference.expired():
        return None
    storage: Any = torch.UntypedStorage._new_with_weak_ptr(reference.cdata)
    return None if storage is None else torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
