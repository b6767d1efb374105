"""Norms and clipping."""
