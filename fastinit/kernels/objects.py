"""Definitions -> object files: Numba lowers a function, LLVM optimises it here, and nothing of Numba is left in it.

A file holds a C function that returns nothing, and another that takes the same arguments from memory. They need neither
Numba's runtime nor Python, and of the C library at most `LIBRARY` and what LLVM presumes (`memcpy`, `memset`), so that
LLVM alone can load them.
"""

from __future__ import annotations

import importlib
import re
from collections import Counter
from typing import Any

import llvmlite.binding as llvm
from numba import types

from fastinit._native import processor
from fastinit.kernels import jit

# What object files may call. The square root of a negative number, and all of libm where a processor has no fma.
LIBRARY = {"fma", "fmaf", "pow", "pread", "sched_yield", "sqrt", "sqrtf", "SwitchToThread"}

# Intrinsic functions that become calls of libm.
LIBM = {"acos", "asin", "atan", "cos", "exp", "exp10", "exp2", "log", "log10", "log2", "pow", "powi", "sin", "tan"}

# LLVM takes 256 bits of the 512 that a processor with AVX-512 has, for the sake of the oldest of them.
_WIDTH = '"prefer-vector-width"="512"'


def compiled(kernel: str, *variant: str) -> bytes:
    """The letters of a function's arguments (`library.load`), a line break, and its object file.

    Args:
        kernel, variant: as in `library.kernel`.
    """
    return object_file(definition_of(kernel, *variant), "-".join((kernel, *variant)))


def definition_of(kernel: str, *variant: str) -> jit.Definition:
    """The definition of a kernel in `catalogue.KERNELS`."""
    module, _, name = kernel.rpartition(".")
    defined: jit.Definition = getattr(importlib.import_module(f"fastinit.kernels.{module}"), name)(*variant)
    return defined


def object_file(defined: jit.Definition, symbol: str) -> bytes:
    """The same for a definition: its function gets the name `symbol`."""
    made, letters = module_of(defined, symbol)
    machine = processor.machine()
    optimize(made, machine)
    return letters.encode() + b"\n" + bytes(machine.emit_object(made))


def module_of(defined: jit.Definition, symbol: str, triple: str | None = None) -> tuple[Any, str]:
    """LLVM's module with a function under the name `symbol`, not optimised yet, and the letters of its arguments.

    Args:
        defined: the function.
        symbol: its name.
        triple: of another kind of machine than this one.
    """
    text = jit.lowered(defined)
    if triple is not None:
        text = re.sub(r"target datalayout = .*\n", "", text)
        text = re.sub(r"target triple = .*", f'target triple = "{triple}"', text)
    module = llvm.parse_assembly(text)
    (native,) = (f for f in module.functions if not f.is_declaration and f.linkage == llvm.Linkage.external)
    wrapper, letters = _wrapper(native, symbol, defined.signature)
    text = re.sub(r"^(define .*) \{$", rf"\1 {_WIDTH} {{", text + wrapper, flags=re.MULTILINE)
    module = llvm.parse_assembly(text)
    module.get_function(native.name).add_function_attribute("alwaysinline")
    for value in (*module.functions, *module.global_variables):
        if not value.is_declaration and value.name not in (symbol, f"{symbol}-packed"):
            value.linkage = llvm.Linkage.internal
    return module, letters


def _wrapper(native: Any, symbol: str, signature: Any) -> tuple[str, str]:
    """LLVM's text of two C functions around one of Numba's, and the letters of its arguments.

    Numba's functions take two addresses more, for the result and for an exception, and return a status. There is no
    result here, and no exception: the compiler options see to that. The second function takes its arguments from words
    of 64 bits in memory: Python packs them in a third of the time in which it converts them one by one.
    """
    result, exception, *kinds = (str(argument.type) for argument in native.arguments)
    word = "ptr" if result == "ptr" else "i64*"
    arguments = [f"{kind} %a{i}" for i, kind in enumerate(kinds)]
    lines = [
        f'define void @"{symbol}"({", ".join(arguments)}) {{',
        "  %p = alloca i64",
        "  %q = alloca i64",
        f"  %r = bitcast {word} %p to {result}",
        f"  %e = bitcast {word} %q to {exception}",
        f'  %s = call i32 @"{native.name}"({", ".join([f"{result} %r", f"{exception} %e", *arguments])})',
        "  ret void",
        "}",
        f'define void @"{symbol}-packed"({word} %words) {{',
    ]
    for i, kind in enumerate(kinds):
        convert = "bitcast" if kind in ("i64", "double") else "inttoptr"
        lines += [
            f"  %p{i} = getelementptr i64, {word} %words, i64 {i}",
            f"  %w{i} = load i64, {word} %p{i}",
            f"  %a{i} = {convert} i64 %w{i} to {kind}",
        ]
    lines += [f'  call void @"{symbol}"({", ".join(arguments)}) noinline', "  ret void", "}"]
    return "\n" + "\n".join(lines) + "\n", "".join(map(_letters, signature.args))


def _letters(kind: Any) -> str:
    """The letters of `struct` for an argument of a Numba type, which may be a tuple."""
    if isinstance(kind, types.BaseTuple):
        members: Any = kind
        return "".join(map(_letters, members))
    return "d" if kind == types.float64 else "Q" if kind == types.uint64 else "q"


def optimize(module: Any, machine: Any) -> None:
    """Optimise a module: first what is scalar, so that loops have their simplest form when they are vectorised:
    an unrolled loop stays as it is."""
    for level, loops in ((1, False), (3, True)):
        options = llvm.create_pipeline_tuning_options(level)
        options.loop_vectorization = options.loop_unrolling = options.loop_interleaving = loops
        options.slp_vectorization = False
        builder = llvm.create_pass_builder(machine, options)
        builder.getModulePassManager().run(module, builder)
    needed = _needed(str(module))
    if not needed <= LIBRARY:
        raise AssertionError(f"compiled code needs {sorted(needed - LIBRARY)}")


def _needed(text: str) -> set[str]:
    """The functions outside of a module that its code calls; LLVM also keeps declarations of what nothing calls."""
    mentioned = Counter(re.findall(r'@"?([\w.$]+)', text))
    declared = re.findall(r'^declare .*?@"?([\w.$]+)', text, re.MULTILINE)
    names = [name.split(".") for name in declared if mentioned[name] > 1]
    return {name[0] for name in names if name[0] != "llvm"} | {name[1] for name in names if name[0] == "llvm"} & LIBM
