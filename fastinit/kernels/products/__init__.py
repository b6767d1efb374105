"""Matrix products whose bits depend on neither the processor, nor the threads, nor how the work is cut up.

`tiles` generates the innermost loops, in explicit vectors; `product` copies parts of the matrices for them. Training
steps (`kernels.nn`) call it by its address, and so do orthogonal matrices.
"""
