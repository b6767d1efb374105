"""fastinit: the weights of large neural networks, the same bits whatever the threads, CPU or shards.

>>> import fastinit as fi
>>> weight = fi.he_normal((512, 784), seed=fi.Key(0) / "layers.0.weight")
>>> weight.shape, weight.dtype
((512, 784), dtype('float32'))
"""

import importlib

__version__ = "0.1.0"
_DISTRIBUTION = "fastinit-weights"  # whose package this is: `fastinit_weights.py` asks

# The public names by the module that defines them, which is imported when the first of them is asked for (PEP 562):
# `fastinit --help` needs no compiler, and who fills arrays no networks. `__init__.pyi` says the same to type checkers.
# No module may have the name of a function here: importing the module would hide the function.
_HOMES = {
    "nn._activations": "activation",
    "clip._clipping": "adaptive_clip clip_by_global_norm clip_by_norm clip_by_value global_norm",
    "_core.composite": "Patched SameAs Values",
    "_core.distributions": "Constant Distribution Normal TruncatedNormal Uniform",
    "schemes._filling": "add fill",
    "schemes._initializers": (
        "constant deepnet delta_orthogonal depth_scaled dirac eye fixup glorot_normal glorot_uniform hadamard "
        "he_normal he_uniform heuristic_normal heuristic_uniform kaiming_normal kaiming_uniform lecun_normal "
        "lecun_uniform mup normal ones orthogonal sparse tfixup truncated_normal uniform variance_scaling "
        "xavier_normal xavier_uniform zeros"
    ),
    "_core.key": "Key",
    "nn._layers": "dense_backward dense_forward",
    "_core.fans": "fans",
    "_core.gains": "gain",
    "nn._losses": "mean_squared_error sigmoid_cross_entropy softmax_cross_entropy",
    "nn._history": "History",
    "nn._mlp": "MLP",
    "nn._optimizers": "SGD Adam AdamW",
    "plan._fills": "Fill Tied",
    "plan._plan": "Plan",
    "_probe.probe": "compare probe",
    "schemes": "distribution",
    "nn._lsuv": "lsuv",
    "_probe.results": "Comparison Probe",
    "_core.structured": "DeltaOrthogonal Dirac Eye Hadamard Orthogonal Sparse",
    "stats._summary": "Summary summarize",
    "_runtime.threads": "thread_limit",
}
_MODULES = {"checkpoint", "plots", "schedules"}  # public themselves
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return importlib.import_module(f"fastinit.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"fastinit.{_HOME_OF[name]}"), name)
    globals()[name] = found  # from now on without this function
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
