"""Deferred fills: the random fills of a model's constructor, followed through copies and applied at the end, by name.

    recorder.py   sees each operator of its thread: keeps fills pending, and follows their copies (copies.py)
    reads.py      methods that read or hand out memory and are no operators
    calls.py      what storages hold; operators that read draws; the end of a block. replay.py: calls them again
    naming.py     gives draws the names of the tensors that hold them
    draws.py      streams, and which of their elements memory holds; geometry.py: where a tensor lies in its storage
    operators.py  which operators fill, make filled tensors, or map one distribution to another
    execute.py    applies draws; recording.py: a recorder without a seed

May import `torch/_tensors.py`, `_shards.py` and `_compat.py`, and folders below `torch`. Start at `recorder.Recorder`.
"""
