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
except ValueError as error:  # of a setting, which the message need not name: "Number of threads specified must be > 0."
    _settings = ", ".join(f"{name}={value}" for name, value in os.environ.items() if name.startswith("NUMBA_"))
    raise ImportError(f"Numba cannot be imported: {error} Change or unset what is wrong of {_settings}") from error

config: Any = numba.config
