"""Write the stubs of the public names: what type checkers and editors see of names that are made or imported on demand.

Run: python scripts/stubs.py. `tests/test_stubs.py` holds that the files are what this script writes.
"""

from __future__ import annotations

import inspect
from pathlib import Path

import fastinit
from fastinit.schemes import SCHEMES, _initializers

ROOT = Path(fastinit.__file__).parent


def _kind(name: str) -> tuple[bool, bool, str]:
    """The order in which linters want imported names: constants, classes, functions."""
    return not (name.isupper() and len(name) > 1), not name[0].isupper(), name


def public() -> str:
    """The stub of `fastinit` itself, from its table of modules and names."""
    lines = [
        '"""The public names, for type checkers and editors. Written by `scripts/stubs.py`."""',
        "",
        *(f"from . import {module} as {module}" for module in sorted(fastinit._MODULES)),
        *(
            f"from .{module} import {name} as {name}"
            for module, names in sorted(fastinit._HOMES.items())
            for name in sorted(names.split(), key=_kind)
        ),
        "",
        "__version__: str",
        "__all__: list[str]",
    ]
    return "\n".join(lines) + "\n"


def initializers() -> str:
    """The stub of the functions that are made from the table of schemes."""
    lines = [
        '"""The functions of the table of schemes, for type checkers and editors. Written by `scripts/stubs.py`."""',
        "",
        "from collections.abc import Sequence",
        "from typing import Any",
        "",
        "from fastinit._core.key import Seed",
        "from fastinit._runtime.arrays import Array",
        "",
    ]
    for scheme in SCHEMES.values():
        parameters = inspect.signature(getattr(_initializers, scheme.name)).parameters.values()
        lines.append(f"def {scheme.name}(")
        for parameter in parameters:
            default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}".replace("'", '"')
            lines.append(f"    {parameter.name}: {parameter.annotation}{default},")
            if parameter.name == "shape":
                lines.append("    *,")
        lines.append(") -> Array: ...")
    lines += ["", *(f"{alias} = {scheme.name}" for scheme in SCHEMES.values() for alias in scheme.aliases)]
    return "\n".join(lines) + "\n"


STUBS = {ROOT / "__init__.pyi": public, ROOT / "schemes" / "_initializers.pyi": initializers}

if __name__ == "__main__":
    for path, text in STUBS.items():
        path.write_text(text())
