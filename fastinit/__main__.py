"""`python -m fastinit`: the command `fastinit`.

Python puts the current folder at the head of the path of modules. It is taken off before anything is imported: it may
be a stranger's, with a `yaml.py` in it.
"""

import sys

if not sys.flags.safe_path:
    del sys.path[0]

from fastinit.cli import main

main()
