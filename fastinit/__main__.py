"""`python -m fastinit`: the command `fastinit`.

Python puts the current folder at the head of the path of modules. It is taken off before a library is imported: it may
be a stranger's, with a `yaml.py` in it. What Python itself has imported by then, `python -P` alone keeps away.
"""

import sys

if not sys.flags.safe_path:
    del sys.path[0]

from fastinit.cli import main

main()
