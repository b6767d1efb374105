"""Matrix products whose bits depend on neither the processor, nor the threads, nor how the work is cut up.

`tiles` has the innermost code, `product` the kernel around it.
"""
