"""The command line: arguments -> one job -> a call.

What a command needs is imported inside it, so that the others do not wait for it.
"""

from fastinit.cli import _checkpoints as checkpoints, _stats as looking, _probe as probing, _machine as machine  # noqa: F401, I001  their commands, in this order
from fastinit.cli._app import main

__all__ = ["main"]
