"""Schemes: a scheme maps a shape to a distribution.

    _registry.py      the table: its rows, `distribution`, the table in Markdown
    _families.py      the rows: baselines, families with a variance, structured ones; _deep.py: deep and wide models
    _initializers.py  the public functions (`he_normal`, ...), made from the table; _text.py: "normal(std=0.01)"

The functions, the command line's choices, the docs and the tests all come from this one table. May import `_core`,
`_runtime`. To add a scheme, add a row: a function with `@scheme`. Start at `_families.he_normal`.
"""

import fastinit.schemes._deep  # noqa: F401 - its rows
from fastinit.schemes._families import TRUNCATION_STD, variance_scaling
from fastinit.schemes._registry import SCHEMES, Lazy, Scheme, distribution, distribution_of, find, table
from fastinit.schemes._text import as_distribution, describe, one_per_layer, parse

__all__ = [
    "SCHEMES",
    "TRUNCATION_STD",
    "Lazy",
    "Scheme",
    "as_distribution",
    "describe",
    "distribution",
    "distribution_of",
    "find",
    "one_per_layer",
    "parse",
    "table",
    "variance_scaling",
]
