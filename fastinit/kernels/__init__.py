"""All compiled code, and nothing else. Memory comes in as addresses.

A kernel is a C function for one dtype, made by `jit.c_kernel` and called through its address; a driver (`drive`,
`sums.reading`, `nn.network`) is what Python calls, and it calls kernels for ranges of memory. `records` names what
passes between Python and drivers. No module here imports another folder of fastinit. Start reading at `jit`, `fill` and
`drive`; then `philox`, `distributions` and `store` for how a value is made and written.
"""

import os
from typing import Any

try:
    import numba
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

config: Any = numba.config
