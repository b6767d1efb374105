"""Memory, threads, BLAS and the machine."""
