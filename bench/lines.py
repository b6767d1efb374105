"""The lines of results: one work at one size, and the contenders' names."""

from __future__ import annotations

from dataclasses import dataclass, field

# As tables name the contenders, in the order of the columns.
NAMES = {
    "fastinit": "fastinit",
    "fastinit_step": "fastinit, a call per step",
    "fastinit_jit": "fastinit in jit",
    "one_product": "one product",
    "numba": "Numba alone",
    "dd": "dd of zeros",
    "stores": "stores alone",
    "passes": "passes alone",
    "numpy": "NumPy",
    "numpy_legacy": "NumPy legacy",
    "torch": "torch",
    "torch_loop": "torch, no foreach",
    "torch_compile": "torch.compile",
    "jax": "JAX",
    "jax_jit": "JAX in jit",
    "keras": "Keras",
    "sklearn": "scikit-learn",
}
BASELINES = ("one_product", "numba", "dd", "stores", "passes")  # what bounds the work, not other ways to do it


class ReportError(Exception):
    """What is wrong with the input, in one line."""


@dataclass
class Line:
    """One work at one size: the median seconds by contender, and the share of the limit that fastinit reaches."""

    part: str
    work: str
    size: str
    order: int
    seconds: dict[str, float] = field(default_factory=dict)
    share: str = ""

    @property
    def rivals(self) -> dict[str, float]:
        return {
            name: t for name, t in self.seconds.items() if not name.startswith("fastinit") and name not in BASELINES
        }

    @property
    def ratio(self) -> float | None:
        """The time of the fastest other over fastinit's: below 1, fastinit is slower."""
        own = self.seconds.get("fastinit")
        return min(self.rivals.values()) / own if own and self.rivals else None
