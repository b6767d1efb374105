"""Kernels of dense networks."""
