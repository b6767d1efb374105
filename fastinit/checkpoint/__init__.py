"""Checkpoints: a plan's layout in files; written, gone on with, verified, looked into, by one process or many."""

from fastinit.checkpoint.layout import layout
from fastinit.checkpoint.parts import Part
from fastinit.checkpoint.surveyor import Survey, survey
from fastinit.checkpoint.verifier import Verification, finalize, verify
from fastinit.checkpoint.writer import Report, write

__all__ = ["Part", "Report", "Survey", "Verification", "finalize", "layout", "survey", "verify", "write"]
