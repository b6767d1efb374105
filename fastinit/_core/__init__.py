"""Distributions, keys and fills."""
