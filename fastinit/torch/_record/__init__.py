"""Deferred fills."""
