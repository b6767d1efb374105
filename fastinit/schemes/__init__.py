"""ONE table of schemes. A scheme maps a shape to a distribution; the functions, the command line's choices, the docs
and the tests all come from the table.

    registry.py   the table itself: rows, `distribution`, the table in Markdown
    families.py   baselines, the families with a variance, structured ones
    deep.py       recipes for deep and for wide models
"""

import fastinit.schemes._deep  # noqa: F401 - its rows
from fastinit.schemes._families import TRUNCATION_STD, variance_scaling
from fastinit.schemes._registry import ALIASES, SCHEMES, Lazy, Scheme, distribution, distribution_of, table

__all__ = [
    "ALIASES",
    "SCHEMES",
    "TRUNCATION_STD",
    "Lazy",
    "Scheme",
    "distribution",
    "distribution_of",
    "table",
    "variance_scaling",
]
