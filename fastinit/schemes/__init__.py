"""Schemes: a scheme maps a shape to a distribution.

    _registry.py      the table: its rows, `distribution`, the table in Markdown
    _families.py      the rows: baselines, families with a variance, structured ones; _deep.py: deep and wide models
    _filling.py       `fill` and `add`: all checks of arguments
    _initializers.py  the public functions (`he_normal`, ...), made from the table; _text.py: "normal(std=0.01)"

The functions, the command line's choices, the docs and the tests all come from this one table. May import `_core`,
`_runtime`. To add a scheme, add a row: a function with `@scheme`. Start at `_families.he_normal`.
"""

import fastinit.schemes._deep  # noqa: F401 - its rows
from fastinit.schemes._registry import SCHEMES, distribution, distribution_of, find
from fastinit.schemes._text import LONGEST_TEXT, as_distribution, describe, parse, per_layer

__all__ = [
    "LONGEST_TEXT",
    "SCHEMES",
    "as_distribution",
    "describe",
    "distribution",
    "distribution_of",
    "find",
    "parse",
    "per_layer",
]
