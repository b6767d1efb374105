"""Machine code: which compiled functions there are, where they are kept, how they are loaded and called.

Numba is imported only where a function has to be compiled, by `fastinit.kernels`; what was compiled before is loaded by
LLVM alone. Modules here import no other folder of fastinit. Start reading at `library`; `catalogue` names the
functions, `records` and `tables` what they are given.
"""
