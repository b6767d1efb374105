"""Checkpoints: a plan's layout in files, and the writer."""
