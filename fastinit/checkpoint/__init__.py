"""Checkpoints: a plan's layout in files; written, gone on with, verified, by one process or many."""

from fastinit.checkpoint.layout import layout
from fastinit.checkpoint.parts import Part
from fastinit.checkpoint.verifier import Verification, finalize, verify
from fastinit.checkpoint.writer import Report, write

__all__ = ["Part", "Report", "Verification", "finalize", "layout", "verify", "write"]
