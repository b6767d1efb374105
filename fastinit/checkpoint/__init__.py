"""Checkpoints: a plan's layout in files; written, gone on with, verified, looked into, by one process or many."""

from fastinit.checkpoint._layout import layout
from fastinit.checkpoint._parts import Part
from fastinit.checkpoint._survey.records import Survey
from fastinit.checkpoint._survey.survey import survey
from fastinit.checkpoint._verify import Verification, finalize, verify
from fastinit.checkpoint._write import Report, write

__all__ = ["Part", "Report", "Survey", "Verification", "finalize", "layout", "survey", "verify", "write"]
