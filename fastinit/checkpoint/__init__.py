"""Checkpoints: a plan as safetensors files; written, resumed, verified and surveyed, by one process or many.

    _write.py   `write`: what is missing; _shards.py: on threads of this process, _on_ray.py: on a Ray cluster
    _layout.py  a plan -> files, headers and byte ranges; _blocks.py: any bytes of a file, from the plan and the key
    _folder.py  a folder from its first byte to its index; _notes.py: which other files belong to a job
    _job.py     the description beside the files; _parts.py: parts
    _verify.py  `verify` and `finalize`; _stored.py: which file holds which tensor; _compare.py: files against what
                they should be; _survey/: what files hold

May import `plan`, `_io`, `stats`, `_core`, `_runtime` and `kernels`. Start at `_write.write`.
"""

from fastinit.checkpoint._layout import layout
from fastinit.checkpoint._parts import Part
from fastinit.checkpoint._survey.records import Survey
from fastinit.checkpoint._survey.survey import survey
from fastinit.checkpoint._verify import Verification, finalize, verify
from fastinit.checkpoint._write import Report, write

__all__ = ["Part", "Report", "Survey", "Verification", "finalize", "layout", "survey", "verify", "write"]
