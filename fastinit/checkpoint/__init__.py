"""Checkpoints: a plan's layout in files, and the writer."""

from fastinit.checkpoint.layout import layout
from fastinit.checkpoint.writer import Report, write

__all__ = ["Report", "layout", "write"]
