"""Philox4x32-10: (counter, key) -> four words, no state.

Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

The generator is an ordinary Python function. Integers pass through it, and while code is generated `Lanes` do, which
emit one vector instruction for each operation. Compared with loops that LLVM vectorises, words and their order in
memory together take a fifth less of a fill's time (docs/design.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from fastinit.kernels.jit import intrinsic, scalar

u64 = np.uint64

M0, M1 = 0xD2511F53, 0xCD9E8D57
W0, W1 = 0x9E3779B9, 0xBB67AE85
LOW, HALF = 0xFFFFFFFF, 32

COUNTERS = 64  # blocks of the generator that one call to `words32` or `words64` makes; a power of two
STEP = 32  # of them in one vector; LLVM cuts it into as many as the processor needs, a few chains side by side

# Vectors hold counters in an order that `interleave32` undoes with one shuffle for each vector on every processor. 512
# bits are four parts of 128: element i of part l belongs to counter 4 i + l.
ORDER = [8 * group + j for group in range(STEP // 8) for j in (0, 4, 1, 5, 2, 6, 3, 7)]

_I32, _I64 = ir.IntType(32), ir.IntType(64)


def rounds(p0: Any, p1: Any, c1: Any, c3: Any, k0: Any, k1: Any) -> tuple[Any, ...]:
    """Nine of ten rounds: from the products c0 * M0 and c2 * M1 of the first to those of the last, its c1, c3 and keys.

    32-bit words live in 64-bit lanes. The upper halves of c0 to c3 hold garbage, and only the multiply masks it away:
    LLVM drops that mask, because vpmuludq reads the low halves alone.
    """
    for _ in range(9):
        c0, c1, c2, c3 = (p1 >> HALF) ^ c1 ^ k0, p1, (p0 >> HALF) ^ c3 ^ k1, p0
        p0, p1 = (c0 & LOW) * M0, (c2 & LOW) * M1
        k0, k1 = (k0 + W0) & LOW, (k1 + W1) & LOW
    return p0, p1, c1, c3, k0, k1


def philox(c0: int, c1: int, c2: int, c3: int, k0: int, k1: int) -> tuple[int, ...]:
    """The four words of one counter, in plain Python."""
    p0, p1, c1, c3, k0, k1 = rounds(c0 * M0, c2 * M1, c1, c3, k0, k1)
    return ((p1 >> HALF) ^ c1 ^ k0) & LOW, p1 & LOW, ((p0 >> HALF) ^ c3 ^ k1) & LOW, p0 & LOW


def _operation(name: str) -> Callable[[Lanes, Any], Lanes]:
    def operate(self: Lanes, other: Any) -> Lanes:
        value = other.value if isinstance(other, Lanes) else ir.Constant(self.value.type, [other] * STEP)
        return Lanes(self.builder, getattr(self.builder, name)(self.value, value))

    return operate


class Lanes:
    """STEP unsigned 64-bit integers of the code that is generated; the other operand is Lanes too, or an integer."""

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    __add__, __mul__ = _operation("add"), _operation("mul")
    __and__, __or__, __xor__ = _operation("and_"), _operation("or_"), _operation("xor")
    __lshift__, __rshift__ = _operation("shl"), _operation("lshr")

    @classmethod
    def filled(cls, builder: Any, number: Any) -> Lanes:
        """One number of the code in all lanes."""
        vector = ir.Constant(ir.VectorType(_I64, STEP), ir.Undefined)
        vector = builder.insert_element(vector, number, ir.Constant(_I32, 0))
        return cls(builder, _shuffled(builder, vector, vector, [0] * STEP))

    def halves(self, upper: int) -> Any:
        """The lower or upper halves as 32-bit words; of two parts of 128 bits each the two halves lie side by side."""
        words = self.builder.bitcast(self.value, ir.VectorType(_I32, 2 * STEP))
        pairs = [16 * i + 2 * j for i in range(0, STEP // 8, 2) for j in range(0, 8, 2)]
        return _shuffled(self.builder, words, words, [pair + i + upper for pair in pairs for i in (0, 2, 16, 18)])


def _shuffled(builder: Any, a: Any, b: Any, places: Sequence[int]) -> Any:
    """The elements at these places of two vectors, b's counted after a's."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, len(places)), places))


def _place(context: Any, builder: Any, array: tuple[Any, Any], index: Any, plus: int, vector: Any) -> Any:
    """A pointer to the vector that begins at element `index + plus` of an array, a pair of type and value."""
    data = context.make_array(array[0])(context, builder, array[1]).data
    first = builder.gep(data, [builder.add(index, ir.Constant(_I64, plus))])
    return builder.bitcast(first, vector.as_pointer())


def _words(bits: int) -> Any:
    """What stores the words of STEP counters: four planes of 32-bit words, or two of 64-bit words."""

    @intrinsic
    def words(typing_context: Any, counter: Any, key: Any, stream: Any, out: Any, first: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            lower = [builder.and_(argument, ir.Constant(_I64, LOW)) for argument in arguments[:3]]
            upper = [builder.lshr(argument, ir.Constant(_I64, HALF)) for argument in arguments[:3]]
            # Counters differ by constants, and so do their products: one multiplication for all of them.
            p0 = Lanes.filled(builder, builder.mul(lower[0], ir.Constant(_I64, M0)))
            p0 += Lanes(builder, ir.Constant(p0.value.type, [M0 * number for number in ORDER]))
            p1 = Lanes.filled(builder, builder.mul(lower[2], ir.Constant(_I64, M1)))
            c1, k1, c3 = (Lanes.filled(builder, number) for number in upper)
            p0, p1, c1, c3, k0, k1 = rounds(p0, p1, c1, c3, Lanes.filled(builder, lower[1]), k1)
            made = []
            for p, c, k in ((p1, c1, k0), (p0, c3, k1)):
                if bits == 64:
                    made.append(((p >> HALF | p << HALF) ^ ((c ^ k) & LOW)).value)
                else:
                    key_words = builder.trunc(k.value, ir.VectorType(_I32, STEP))
                    made += [builder.xor(builder.xor(p.halves(1), c.halves(0)), key_words), p.halves(0)]
            for plane, vector in enumerate(made):
                place = _place(context, builder, (out, arguments[3]), arguments[4], COUNTERS * plane, vector.type)
                builder.store(vector, place).align = bits // 8
            return context.get_dummy_value()

        return types.void(counter, key, stream, out, types.int64), generate

    return words


def _interleaved(bits: int) -> Any:
    """What brings 512 bits of each plane, from an element on, into the order of the stream."""
    planes, count = 128 // bits, 512 // bits
    vector = ir.VectorType(ir.IntType(bits), count)

    # The lower halves of the parts of 128 bits of two vectors, element by element in turn, and the upper halves.
    lower = [part + i + of for part in range(0, count, planes) for i in range(planes // 2) for of in (0, count)]
    sides = lower, [place + planes // 2 for place in lower]

    @intrinsic
    def interleaved(typing_context: Any, words: Any, out: Any, first: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            made = []
            for plane in range(planes):
                place = _place(context, builder, (words, arguments[0]), arguments[2], COUNTERS * plane, vector)
                made.append(builder.load(place, align=bits // 8))
            for _ in range(planes // 2):  # twice for four planes
                pairs = zip(made[: planes // 2], made[planes // 2 :], strict=True)
                made = [_shuffled(builder, a, b, side) for a, b in pairs for side in sides]
            start = builder.mul(arguments[2], ir.Constant(_I64, planes))
            for i, value in enumerate(made):
                place = _place(context, builder, (out, arguments[1]), start, count * i, vector)
                builder.store(value, place).align = bits // 8
            return context.get_dummy_value()

        return types.void(words, out, types.int64), generate

    return interleaved


_words32, _words64, _interleaved32, _interleaved64 = _words(32), _words(64), _interleaved(32), _interleaved(64)


@scalar
def words32(counter, key, stream, words):
    """The words of blocks [counter, counter + COUNTERS), a plane of COUNTERS for each word, for `interleave32`.

    `counter` is a multiple of COUNTERS, so its upper half stays the same in the loop.
    """
    for j in range(0, COUNTERS, STEP):
        _words32(counter + u64(j), key, stream, words, j)


@scalar
def words64(counter, key, stream, words):
    """The same as 64-bit words w0 + 2^32 w1 and w2 + 2^32 w3, in two planes for `interleave64`."""
    for j in range(0, COUNTERS, STEP):
        _words64(counter + u64(j), key, stream, words, j)


@scalar
def interleave32(words, out):
    """Planes of 32-bit numbers -> the order of the stream: what was made of word w of block j goes to out[4 j + w]."""
    for j in range(0, COUNTERS, 16):
        _interleaved32(words, out, j)


@scalar
def interleave64(words, out):
    """The same for two planes of 64-bit numbers: out[2 j + w]."""
    for j in range(0, COUNTERS, 8):
        _interleaved64(words, out, j)
