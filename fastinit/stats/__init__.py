"""Statistics of arrays: moments, histograms, and the distribution that a sample looks like.

    _summary.py     `summarize`: one pass over memory, chunk by chunk
    _fitting.py     the nearest distribution, and how far a sample is from one (Kolmogorov's distance)
    _histograms.py  histograms as plain data

May import `schemes`, `_core`, `_runtime` and `kernels`. Start at `_summary.summarize`.
"""
