"""The innermost code of matrix products, in explicit vectors of 64 bytes, which LLVM splits into what a processor has.

Each element of a product is one chain of fma instructions over k in ascending order. So its bits depend on neither the
shape of the tile nor the width of the vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
from llvmlite import ir
from numba import types

from fastinit.kernels.jit import intrinsic

VECTOR_BYTES = 64
BLOCK = 8  # rows and columns that `transpose` takes
# Rows of A that are read from one pointer, at 0, 1 and 2 steps, which x86 adds as it loads. With a distance of its own
# for each of 12 rows the registers do not suffice: 80 instead of 104 GF/s.
GROUP = 3

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_NUMBERS = {types.float32: (ir.FloatType(), 4, "f32"), types.float64: (ir.DoubleType(), 8, "f64")}


def lanes(kind: Any) -> int:
    """Return the numbers of a Numba type in a vector."""
    return VECTOR_BYTES // _NUMBERS[kind][1]


class _Memory:
    """Vectors and numbers of one type at addresses that the generated code computes."""

    def __init__(self, builder: Any, kind: Any, count: int) -> None:
        self.builder = builder
        self.number, self.size, self.suffix = _NUMBERS[kind]
        self.vector = ir.VectorType(self.number, count)

    def at(self, address: Any) -> Any:
        """The pointer to the number at an address."""
        return self.builder.inttoptr(address, self.number.as_pointer())

    def moved(self, pointer: Any, step: Any) -> Any:
        """A pointer moved by a number of elements."""
        return self.builder.gep(pointer, [ir.Constant(_I64, step) if isinstance(step, int) else step])

    def times(self, pointer: Any, step: Any, count: int) -> Any:
        """A pointer moved by several steps."""
        return self.moved(pointer, self.builder.mul(step, ir.Constant(_I64, count)))

    def hidden(self, pointer: Any) -> Any:
        """The same pointer; LLVM does not see how it was made, and so does not compute it again from others."""
        kind = ir.FunctionType(pointer.type, [pointer.type])
        return self.builder.asm(kind, "", "=r,0", [pointer], False)

    def load(self, pointer: Any) -> Any:
        return self.builder.load(self.builder.bitcast(pointer, self.vector.as_pointer()), align=self.size)

    def store(self, vector: Any, pointer: Any) -> None:
        self.builder.store(vector, self.builder.bitcast(pointer, self.vector.as_pointer()), align=self.size)

    def filled(self, pointer: Any) -> Any:
        """A vector of the number at a pointer."""
        number = self.builder.load(pointer, align=self.size)
        undefined = ir.Constant(self.vector, ir.Undefined)
        vector = self.builder.insert_element(undefined, number, ir.Constant(_I32, 0))
        return self.shuffled(vector, undefined, [0] * self.vector.count)

    def shuffled(self, a: Any, b: Any, places: list[int]) -> Any:
        """The elements at these places of two vectors, b's counted after a's."""
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, len(places)), places))

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """a * b + c, rounded once, in every lane; llvmlite's own `fma` refuses vectors."""
        name, module = f"llvm.fma.v{self.vector.count}{self.suffix}", self.builder.module
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        function = module.globals.get(name) or ir.Function(module, kind, name)
        return self.builder.call(function, [a, b, c])


def tile(kind: Any, shapes: Sequence[tuple[int, int]], by_column: bool) -> Any:
    """Return what computes a tile of C = A B or C += A B.

    All of C's tile stays in registers while k runs.

    Args:
        kind: Numba's float32 or float64.
        shapes: what tiles there are: rows, and vectors of each.
        by_column: whether A's columns are contiguous, not its rows.

    The result takes (a, a_step, b, b_step, depth, c, c_step, add, rows, width): addresses of A, B and C, each with the
    elements from one row to the next (`by_column`: from one column of A); the number of k's, at least 1; 1 where C is
    added to; the shape.
    """
    most = 1 + max(width for _, width in shapes)

    @intrinsic
    def run(
        typing_context: Any,
        a: Any,
        a_step: Any,
        b: Any,
        b_step: Any,
        depth: Any,
        c: Any,
        c_step: Any,
        add: Any,
        rows: Any,
        width: Any,
    ) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            memory, one = _Memory(builder, kind, lanes(kind)), ir.Constant(_I64, 1)
            a_step, depth = arguments[1], arguments[4]
            a_steps = (one, a_step) if by_column else (a_step, one)
            a, b, c = (memory.at(arguments[i]) for i in (0, 2, 5))
            add = builder.icmp_signed("!=", arguments[7], ir.Constant(_I64, 0))
            number = builder.add(builder.mul(arguments[8], ir.Constant(_I64, most)), arguments[9])
            after = builder.append_basic_block("after")
            choice = builder.switch(number, after)
            for shape in shapes:
                block = builder.append_basic_block("tile_{}_{}".format(*shape))
                choice.add_case(ir.Constant(_I64, shape[0] * most + shape[1]), block)
                builder.position_at_end(block)
                _tile(memory, shape, (a, *a_steps), (b, arguments[3]), depth, (c, arguments[6]), add)
                builder.branch(after)
            builder.position_at_end(after)
            return context.get_dummy_value()

        given = a, a_step, b, b_step, depth, c, c_step, add, rows, width
        _expect(given, types.int64)
        return types.void(*given), generate

    return run


def _tile(memory: _Memory, shape: tuple[int, int], a: Any, b: Any, depth: Any, c: Any, add: Any) -> None:
    """The code of one tile.

    Args:
        memory: its vectors.
        shape: rows, and vectors of each.
        a: a pointer, and the steps from one row and from one k to the next.
        b: a pointer, and the step from one k to the next.
        depth: the number of k's.
        c: a pointer, and the step from one row to the next.
        add: whether C is added to.
    """
    builder, (rows, width) = memory.builder, shape
    lines = [memory.times(c[0], c[1], i) for i in range(rows)]
    places = [memory.moved(line, j * memory.vector.count) for line in lines for j in range(width)]
    starts = [b[0], *(memory.hidden(memory.times(a[0], a[1], i)) for i in range(0, rows, GROUP))]
    before = builder.block
    adding, loop, done = (builder.append_basic_block(name) for name in ("adding", "loop", "done"))
    builder.cbranch(add, adding, loop)
    builder.position_at_end(adding)
    loaded = [memory.load(place) for place in places]
    builder.branch(loop)

    builder.position_at_end(loop)
    k, of_b, *of_a = heads = tuple(builder.phi(kind) for kind in (_I64, *(start.type for start in starts)))
    sums = [builder.phi(memory.vector) for _ in places]
    row = [memory.load(memory.moved(of_b, j * memory.vector.count)) for j in range(width)]
    made = []
    for i in range(rows):
        factor = memory.filled(memory.times(of_a[i // GROUP], a[1], i % GROUP))
        made += [memory.fma(factor, value, sums[i * width + j]) for j, value in enumerate(row)]
    following = builder.add(k, ir.Constant(_I64, 1))
    moved = [memory.moved(of_b, b[1]), *(memory.moved(pointer, a[2]) for pointer in of_a)]
    builder.cbranch(builder.icmp_signed("<", following, depth), loop, done)

    zero = ir.Constant(memory.vector, [0.0] * memory.vector.count)
    first = ir.Constant(_I64, 0), *starts, *[zero] * len(made)
    added = *first[: 1 + len(starts)], *loaded
    for phi, *values in zip((*heads, *sums), first, added, (following, *moved, *made), strict=True):
        for value, block in zip(values, (before, adding, loop), strict=True):
            phi.add_incoming(value, block)
    builder.position_at_end(done)
    for value, place in zip(made, places, strict=True):
        memory.store(value, place)


def copy(kind: Any, widths: Sequence[int]) -> Any:
    """Return what copies rows of so many elements.

    The result takes (source, source_step, target, target_step, rows, width): addresses, and elements from one row to
    the next; the rows, at least 1; the elements of each, one of `widths`.
    """

    @intrinsic
    def run(
        typing_context: Any, source: Any, source_step: Any, target: Any, target_step: Any, rows: Any, width: Any
    ) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            after = builder.append_basic_block("after")
            choice = builder.switch(arguments[5], after)
            for width in widths:
                memory = _Memory(builder, kind, width)
                block, loop = (builder.append_basic_block(f"{name}_{width}") for name in ("copy", "loop"))
                choice.add_case(ir.Constant(_I64, width), block)
                builder.position_at_end(block)
                source, target = memory.at(arguments[0]), memory.at(arguments[2])
                builder.branch(loop)
                builder.position_at_end(loop)
                row = builder.phi(_I64)
                value = memory.load(memory.moved(source, builder.mul(row, arguments[1])))
                memory.store(value, memory.moved(target, builder.mul(row, arguments[3])))
                following = builder.add(row, ir.Constant(_I64, 1))
                builder.cbranch(builder.icmp_signed("<", following, arguments[4]), loop, after)
                row.add_incoming(ir.Constant(_I64, 0), block)
                row.add_incoming(following, loop)
            builder.position_at_end(after)
            return context.get_dummy_value()

        given = source, source_step, target, target_step, rows, width
        _expect(given, types.int64)
        return types.void(*given), generate

    return run


def transpose(kind: Any) -> Any:
    """Return what writes BLOCK x BLOCK numbers of a Numba type to other memory, transposed.

    The result takes (source, source_step, target, target_step): addresses, and elements from one row to the next.
    """

    @intrinsic
    def run(typing_context: Any, source: Any, source_step: Any, target: Any, target_step: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            memory = _Memory(builder, kind, BLOCK)

            def rows(which: int) -> list[Any]:
                start, step = memory.at(arguments[which]), arguments[which + 1]
                return [memory.moved(start, builder.mul(step, ir.Constant(_I64, i))) for i in range(BLOCK)]

            vectors = [memory.load(place) for place in rows(0)]
            for shuffles in _TRANSPOSITION:
                vectors = [memory.shuffled(vectors[a], vectors[b], places) for a, b, places in shuffles]
            for vector, place in zip(vectors, rows(2), strict=True):
                memory.store(vector, place)
            return context.get_dummy_value()

        _expect((source, source_step, target, target_step), types.int64)
        return types.void(source, source_step, target, target_step), generate

    return run


def _transposition() -> list[list[tuple[int, int, list[int]]]]:
    """The shuffles of three rounds that transpose BLOCK vectors: two vectors, and what is taken of them.

    The first two rounds stay in parts of four elements, since AVX2 has no single instruction that crosses them and
    interleaves.
    """
    low, high = ([part + i for part in (0, 4) for i in half] for half in ((0, 8, 1, 9), (2, 10, 3, 11)))
    first = [(2 * i, 2 * i + 1, places) for i in range(4) for places in (low, high)]
    low, high = ([part + i for part in (0, 4) for i in half] for half in ((0, 1, 8, 9), (2, 3, 10, 11)))
    second = [(four + i, four + i + 2, places) for four in (0, 4) for i in (0, 1) for places in (low, high)]
    third = [(i, 4 + i, [part + j for j in (0, 1, 2, 3, 8, 9, 10, 11)]) for part in (0, 4) for i in range(4)]
    return [first, second, third]


_TRANSPOSITION = _transposition()


def _expect(given: tuple[Any, ...], kind: Any) -> None:
    if any(one != kind for one in given):
        raise numba.TypingError(f"expected {kind}, got {given}")
