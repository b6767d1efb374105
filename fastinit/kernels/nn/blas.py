"""Matrix products by SciPy's BLAS, called from compiled code through the address of the function.

`np.dot` in compiled code goes to the same library, but takes no output with a stride and no part of a matrix.
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils

from fastinit.kernels.jit import intrinsic


@intrinsic
def gemm(typing_context, routine, transpose_a, transpose_b, m, n, k, one, a, lda, b, ldb, c, ldc):
    """C = op(A) op(B) in BLAS's terms: column-major, C is m x n; `routine`, a, b and c are addresses.

    `one` is 1 in the matrices' dtype. A row-major matrix is the transpose of the column-major one in its memory.
    """
    if not isinstance(one, types.Float):
        raise numba.TypingError(f"gemm needs a float for one, got {one}")

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number = context.get_value_type(one)
        byte_pointer, integer = ir.IntType(8).as_pointer(), ir.IntType(32)
        routine, ta, tb, m, n, k, one_, a, lda, b, ldb, c, ldc = arguments

        def pointer(value: Any, kind: Any) -> Any:
            return cgutils.alloca_once_value(builder, builder.trunc(value, kind) if kind != number else value)

        def matrix(address: Any) -> Any:
            return builder.inttoptr(address, number.as_pointer())

        def flag(transposed: Any) -> Any:
            letters = ir.Constant(ir.IntType(8), ord("T")), ir.Constant(ir.IntType(8), ord("N"))
            return cgutils.alloca_once_value(builder, builder.select(transposed, *letters))

        integers = integer.as_pointer()
        numbers = number.as_pointer()
        kind = ir.FunctionType(
            ir.VoidType(),
            [byte_pointer] * 2
            + [integers] * 3
            + [numbers, numbers, integers, numbers, integers]
            + [numbers, numbers, integers],
        )
        builder.call(
            builder.inttoptr(routine, kind.as_pointer()),
            [
                flag(ta),
                flag(tb),
                pointer(m, integer),
                pointer(n, integer),
                pointer(k, integer),
                pointer(one_, number),
                matrix(a),
                pointer(lda, integer),
                matrix(b),
                pointer(ldb, integer),
                pointer(ir.Constant(number, 0.0), number),
                matrix(c),
                pointer(ldc, integer),
            ],
        )
        return context.get_dummy_value()

    return types.void(routine, types.boolean, types.boolean, m, n, k, one, a, lda, b, ldb, c, ldc), generate
