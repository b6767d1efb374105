"""Deferred fills: the random fills of a model's constructor, collected and applied at the end, by name.

    recorder.py   sees each operator of its thread; keeps fills pending, and applies those that another operator reads
    operators.py  which operators fill, make filled tensors, or map one distribution to another
    draws.py      pending draws, resolved to named tensors; geometry.py: where a tensor lies in its storage
    execute.py    applies draws; replay.py: repeats what a constructor computes of draws

May import `torch/_tensors.py` and `_compat.py`, and folders below `torch`. Start at `recorder.Recorder`.
"""
