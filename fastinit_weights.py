"""The command `fastinit` of the distribution fastinit-weights; the library is imported as `fastinit`.

PyPI's `fastinit` is another project, which installs a package of the same name. Where its files have taken the place of
ours, no module inside of `fastinit` can be relied on, so the command begins outside.
"""

import importlib
import importlib.metadata
import sys

DISTRIBUTION = "fastinit-weights"


def main() -> None:
    """Run the command line, or end with exit code 1 if the `fastinit` that Python imports is not ours."""
    try:
        package = importlib.import_module("fastinit")
    except (Exception, SystemExit):  # another project's package may need what is not installed, or end the process
        package = None
    if getattr(package, "_DISTRIBUTION", None) != DISTRIBUTION:
        sys.exit(_foreign(getattr(package, "__file__", None)))
    importlib.import_module("fastinit.cli").main()


def _foreign(path: str | None) -> str:
    owners = importlib.metadata.packages_distributions().get("fastinit", [])
    others = " ".join(sorted({*owners} - {DISTRIBUTION}))
    commands = f"pip uninstall {others} && " if others else ""
    commands += f"pip install --force-reinstall --no-deps {DISTRIBUTION}"
    return (
        f"fastinit: this command is {DISTRIBUTION}'s, but `import fastinit` finds another project's package or a "
        f"damaged one: {path or 'no __init__.py'}. If its folder is in PYTHONPATH, take it out. Otherwise run: "
        f"{commands}"
    )
