"""Compiled reductions: moments and norms of arrays in memory, and moments of the bytes of a file.

Their sums have one order on every processor (`order`). Modules here import `fastinit.kernels` only. Start reading at
`order`, then `norms`.
"""
