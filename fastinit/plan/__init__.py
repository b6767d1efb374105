"""Plans: parameter name -> shape, dtype and distribution.

    _plan.py           `Plan`, and reading and writing it
    _fills.py          one tensor of a plan
    _rules.py          PATTERN=SCHEME: other distributions for the names that match
    _serialization.py  distributions as plain values, for JSON and TOML
    _table.py          a plan as a table for people
    _tensor.py         tensors that a compiled program asks for block by block

May import `_io`, `schemes`, `_core`, `_runtime`. Start at `_plan.Plan`.
"""
