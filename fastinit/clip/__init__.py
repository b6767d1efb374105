"""Norms and gradient clipping, in place.

    _clipping.py  the public functions and their rules
    _vectors.py   many arrays as one list of runs of memory; their norms

May import `_core`, `_runtime` and `kernels`. Start at `_clipping.clip_by_global_norm`.
"""
