"""Keys, distributions, and how a distribution is drawn into an array.

    key.py            a seed and a path of names -> the words that select a stream
    distributions.py  elementwise distributions as frozen, checked data; structured.py, composite.py, complex.py: others
    draw.py           kernels and memory for one distribution

May import `_runtime` and `kernels`. Start at `draw.draw`.
"""
