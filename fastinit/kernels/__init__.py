"""All code that is compiled, and nothing else. Memory comes in as addresses. Importing this imports Numba.

A kernel is a C function for one dtype: a `jit.Definition`, of which `objects` makes an object file, called through its
address. A driver (`drive`, `sums.reading`, `nn.network`) is what Python calls, and it calls kernels for ranges of
memory. `_native` has their names, and what passes between Python and them. Only `_native.library` imports this folder,
where it has to compile. Start reading at `jit`, `fill` and `drive`; then `philox`, `distributions` and `store` for how
a value is made and written.
"""

import os

try:
    import numba  # noqa: F401
except ImportError:
    raise
except Exception as error:  # of a setting, which the message need not name: "Number of threads specified must be > 0."
    _settings = [f"{name}={value}" for name, value in os.environ.items() if name.startswith("NUMBA_")]
    if os.path.lexists(".numba_config.yaml"):  # Numba reads it, whatever it is
        _settings.append("the file .numba_config.yaml in the current folder")
    _what = " ".join(str(error).split())
    raise ImportError(
        f"Numba cannot be imported: {_what} Change or unset what is wrong of {', '.join(_settings)}"
    ) from error
