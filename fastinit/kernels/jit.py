"""The one place that names compiler options, and the few instructions that Numba does not offer.

Nothing here is compiled at import. `scalar` functions are compiled into what calls them; a `Definition` is what
`objects` makes an object file of, with one C function.
"""

from __future__ import annotations

import sys
import types as python_types
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numba
from llvmlite import ir
from numba import carray as _carray  # type: ignore[attr-defined]
from numba import types
from numba.extending import intrinsic as _intrinsic

from fastinit.kernels import _numba

# Numba types what these decorate when it compiles; for Python's checkers the results are Any.
intrinsic: Any = _intrinsic
carray: Any = _carray
_njit: Any = numba.njit

# No fastmath: what makes values must be IEEE exact, so that every CPU makes the same bits. error_model="numpy" drops
# the branch for a division by zero, which alone would stop vectorisation. To leave fastmath out is not enough: Numba
# lets a function that does not name it inherit it from the first kernel that calls it, and keeps that code for all.
_OPTIONS: dict[str, Any] = {"error_model": "numpy", "boundscheck": False, "nogil": True, "fastmath": False}

# The wrappers that Python and C would need are left out: `objects` makes its own, which needs no Numba.
_ALONE = _OPTIONS | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
# Always inlined: a call in the innermost loop stops vectorisation.
_INLINED = _ALONE | {"forceinline": True}


def scalar(function: Any) -> Any:
    """Decorate a function that is compiled into its callers."""
    with _numba.compiler():
        return _njit(**_INLINED)(function)


def _with_globals(function: Callable[..., Any], names: dict[str, Any]) -> python_types.FunctionType:
    """A copy of `function` in which the global `names` mean other objects.

    These are template arguments."""
    copy = python_types.FunctionType(function.__code__, {**function.__globals__, **names}, function.__name__)
    copy.__doc__ = function.__doc__
    return copy


def scalars(functions: Iterable[Callable[..., Any]], **names: Any) -> dict[str, Any]:
    """Scalar functions by name, in which the global `names` mean other objects; each sees those before it.

    One body serves both float types: the names are its float type, its constants, and what it calls.
    """
    known = dict(names)
    for function in functions:
        known[function.__name__] = scalar(_with_globals(function, known))
    return known


class Definition(NamedTuple):
    """A function to be compiled, and its Numba signature: 64-bit integers, float64, addresses, and tuples of them."""

    function: python_types.FunctionType
    signature: Any


def definition(function: Callable[..., Any], signature: Any, **names: Any) -> Definition:
    """`function`, in which the global `names` mean other objects, for one signature."""
    return Definition(_with_globals(function, names), signature)


def lowered(defined: Definition) -> str:
    """The function and all that it calls as LLVM's intermediate code, which no processor has changed yet."""
    with _numba.lowering():
        dispatcher = _njit(defined.signature, **_ALONE)(defined.function)
        text: str = dispatcher.inspect_llvm(dispatcher.signatures[0])
        return text


@intrinsic
def fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once (llvm.fma), for three floats of one type."""
    if not (a == b == c and isinstance(a, types.Float)):
        raise numba.TypingError(f"fma needs one float type, got {a}, {b}, {c}")
    return a(a, a, a), lambda _context, builder, _signature, arguments: builder.fma(*arguments)


@intrinsic
def polynomial(typing_context: Any, x: Any, coefficients: Any) -> Any:
    """The polynomial with these coefficients (a tuple, highest degree first) at x, by Estrin's scheme in fma.

    Neighbours are paired, then pairs with x^2, then fours with x^4: the chain of dependent fma is as long as the
    degree's logarithm. Horner's rule, one chain, left a loop waiting for half of its time.
    """
    if not (isinstance(coefficients, types.UniTuple) and coefficients.dtype == x):
        raise numba.TypingError(f"polynomial needs one float type, got {x} and {coefficients}")

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        power, constants = arguments
        terms = [builder.extract_value(constants, i) for i in reversed(range(coefficients.count))]
        while len(terms) > 1:
            pairs = [builder.fma(terms[i + 1], power, terms[i]) for i in range(0, len(terms) - 1, 2)]
            terms = pairs + terms[2 * len(pairs) :]
            if len(terms) > 1:
                power = builder.fmul(power, power)
        return terms[0]

    return x(x, coefficients), generate


def _bitcast(source: Any, target: Any, llvm_type: ir.Type) -> Any:
    @intrinsic
    def cast(typing_context: Any, value: Any) -> Any:
        if value != source:
            raise numba.TypingError(f"this bit cast takes {source}, got {value}")
        return target(source), lambda _context, builder, _signature, arguments: builder.bitcast(arguments[0], llvm_type)

    return cast


bits32 = _bitcast(types.float32, types.uint32, ir.IntType(32))
bits64 = _bitcast(types.float64, types.uint64, ir.IntType(64))
float_of_bits32 = _bitcast(types.uint32, types.float32, ir.FloatType())
float_of_bits64 = _bitcast(types.uint64, types.float64, ir.DoubleType())


@intrinsic
def fetch_add(typing_context: Any, counter: Any) -> Any:
    """Add one to an int64 that several threads share (its address is given) and return what it was.

    What a thread wrote before is seen by those that find the counter advanced.
    """

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        word = ir.IntType(64)
        pointer = builder.inttoptr(arguments[0], word.as_pointer())
        return builder.atomic_rmw("add", pointer, ir.Constant(word, 1), "acq_rel")

    return types.int64(counter), generate


@intrinsic
def load_shared(typing_context: Any, counter: Any) -> Any:
    """The int64 at an address that other threads advance by `fetch_add`."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(counter), generate


# Lets another thread have the core.
give_way: Any = types.ExternalFunction("SwitchToThread" if sys.platform == "win32" else "sched_yield", types.int32())


@intrinsic
def pointer(typing_context: Any, place: Any) -> Any:
    """An address as a pointer, as `carray` wants it."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(place), generate


def stack_memory(kind: Any, count: int) -> Any:
    """What gives, in compiled code, the address of `count` numbers on the stack, as `carray` wants it.

    They are aligned to 64 bytes, hold anything, and last as long as the kernel runs. A buffer from `np.empty` would
    cost a call of the allocator, and a check whether it shares memory with what is read.
    """
    words = ir.ArrayType(ir.IntType(kind.bitwidth), count)

    @intrinsic
    def memory(typing_context: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
            with builder.goto_entry_block():  # once, also where it is called in a loop
                place = builder.alloca(words)
                place.align = 64
            return builder.bitcast(place, ir.IntType(8).as_pointer())

        return types.voidptr(), generate

    return memory


def c_caller(c_signature: Any) -> Any:
    """What calls, from compiled code, the C function of this signature at an address.

    It takes the function's address and then its arguments; pointers are given as addresses too.
    """
    pointers = [isinstance(kind, (types.CPointer, types.RawPointer)) for kind in c_signature.args]
    expected = [types.int64 if pointer else kind for kind, pointer in zip(c_signature.args, pointers, strict=True)]

    @intrinsic
    def call(typing_context: Any, function: Any, *arguments: Any) -> Any:
        # Numba would convert a float to an address without a word.
        fits = [
            isinstance(given, (types.Integer, type(wanted))) for given, wanted in zip(arguments, expected, strict=False)
        ]
        if len(arguments) != len(expected) or not all(fits):
            raise numba.TypingError(f"{c_signature} is called with an address and {expected}, got {arguments}")

        def generate(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
            kinds = [context.get_value_type(kind) for kind in c_signature.args]
            numbers = [
                context.cast(builder, builder.extract_value(values[1], i), given, wanted)
                for i, (given, wanted) in enumerate(zip(arguments, expected, strict=True))
            ]
            passed = [
                builder.inttoptr(number, kind) if pointer else number
                for number, kind, pointer in zip(numbers, kinds, pointers, strict=True)
            ]
            c_type = ir.FunctionType(ir.VoidType(), kinds)
            builder.call(builder.inttoptr(values[0], c_type.as_pointer()), passed)
            return context.get_dummy_value()

        return types.void(function, types.StarArgTuple.from_types(arguments)), generate

    return call


# A range kernel in C's terms: void (*)(void *out, uint64 start, uint64 count, uint64 key, uint64 stream,
# const double *parameters).
RANGE_SIGNATURE = types.void(
    types.voidptr, types.uint64, types.uint64, types.uint64, types.uint64, types.CPointer(types.float64)
)
call_range = c_caller(RANGE_SIGNATURE)  # (kernel, out, start, count, key, stream, parameters)

# An activation's forward: void (*)(void *saved, void *out, void *bias, uint64 rows, uint64 columns, uint64 step,
# const double *parameters).
FORWARD_SIGNATURE = types.void(*(types.voidptr,) * 3, *(types.uint64,) * 3, types.CPointer(types.float64))
call_forward = c_caller(FORWARD_SIGNATURE)  # (kernel, saved, out, bias, rows, columns, step, parameters)

# An activation's backward: void (*)(void *gradient, void *saved, uint64 rows, uint64 columns, uint64 step,
# const double *parameters).
BACKWARD_SIGNATURE = types.void(*(types.voidptr,) * 2, *(types.uint64,) * 3, types.CPointer(types.float64))
call_backward = c_caller(BACKWARD_SIGNATURE)  # (kernel, gradient, saved, rows, columns, step, parameters)
