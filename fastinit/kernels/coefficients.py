"""The coefficients of the polynomials, in `coefficients.json`, which `scripts/coefficients.py` writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

_TABLE = json.loads(Path(__file__).with_suffix(".json").read_text())


def coefficients(name: str) -> tuple[Any, ...]:
    """Return a polynomial's coefficients, highest degree first, in the float type that its name says."""
    kind = np.float32 if "_32" in name else np.float64
    return tuple(kind(number) for number in _TABLE[name]["highest_degree_first"])
