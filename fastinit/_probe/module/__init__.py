"""Probes of torch modules: one pass forward and back, on tensors of its own.

    probe_module.py  the pass; schemes.py: which weights are drawn, and how; arguments.py: checks
    layer_runs.py    the layers as they run: their numbers, taken in hooks
    untouched.py     the module, its data and torch's generators stay as they were

May import what `_probe` may. Start at `probe_module.probe_module`.
"""
