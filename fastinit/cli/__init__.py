"""The command line: arguments -> one call.

    _app.py          the application, shared options, errors as one line
    _checkpoints.py  plan, write, verify, finalize; _stats.py, _probe.py, _machine.py: the other commands
    _settings.py     what libraries would read from the current folder

May import everything. What a command needs is imported inside it, so that the others do not wait for it.
"""

import sys

# `python -m fastinit.cli` puts the current folder at the head of the path of modules, and it may be a stranger's. While
# Python looks for that module, it has imported nothing else, and argv begins like this.
if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:
    del sys.path[0]

from fastinit.cli import _checkpoints, _stats, _probe, _machine  # noqa: F401, I001  their commands, in this order
from fastinit.cli._app import main

__all__ = ["main"]
