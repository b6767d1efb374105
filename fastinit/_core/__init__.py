"""Keys, distributions, and how a distribution gets into an array.

    key.py            a seed and a path of names -> the words that select a stream
    distributions.py  elementwise distributions as frozen, checked data; structured.py, composite.py, complex.py: others
    filling.py        `fill` and `add`: all checks of arguments; draw.py: kernels and memory for one distribution

May import `_runtime` and `kernels`. Start at `filling.fill`.
"""
