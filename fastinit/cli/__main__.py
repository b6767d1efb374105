"""`python -m fastinit.cli`."""

from fastinit.cli.app import main

main()
