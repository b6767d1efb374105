"""The command line: arguments -> one call.

    _app.py          the application, shared options, errors as one line
    _checkpoints.py  plan, write, verify, finalize; _stats.py, _probe.py, _machine.py: the other commands

May import everything. What a command needs is imported inside it, so that the others do not wait for it.
"""

from fastinit.cli import _checkpoints, _stats, _probe, _machine  # noqa: F401, I001  their commands, in this order
from fastinit.cli._app import main

__all__ = ["main"]
