"""`python -m fastinit.cli`."""

from fastinit.cli._app import main

main()
