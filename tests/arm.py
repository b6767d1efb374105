"""Kernels on an ARM processor: object files made here, linked with a driver in C, run by qemu. No Python runs there."""

import shutil
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastinit._native import library, processor
from fastinit.kernels import objects

TRIPLE = "aarch64-unknown-linux-gnu"
COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
PACKAGES = "qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
DRIVER = Path(__file__).with_name("arm.c")


Names = tuple[str, ...]


class Link(NamedTuple):
    """An address in an array: the word of 64 bits of an array, by its number; what it is the address of, a kernel or
    another array; and bytes from the beginning of that."""

    array: int
    word: int
    target: Names | int
    bytes: int = 0


class Call(NamedTuple):
    """A kernel with its variant, and its arguments: integers, arrays that it reads or writes, and one float at most.

    Arrays in `more` are found through the links only; all arrays are numbered, `more` after those of the arguments.
    """

    kernel: Names
    arguments: tuple[Any, ...]
    more: tuple[np.ndarray, ...] = ()
    links: tuple[Link, ...] = ()

    @property
    def arrays(self) -> list[np.ndarray]:
        return [a for a in (*self.arguments, *self.more) if isinstance(a, np.ndarray)]


def here(call: Call) -> list[np.ndarray]:
    """The arrays of a call after it, on this machine."""
    arrays = [a.copy() for a in call.arrays]
    for link in call.links:
        target = link.target
        start = arrays[target].ctypes.data if isinstance(target, int) else library.kernel(*target).address
        arrays[link.array].reshape(-1).view(np.int64)[link.word] = start + link.bytes
    copies = iter(arrays)
    passed = [next(copies).ctypes.data if isinstance(a, np.ndarray) else a for a in call.arguments]
    library.kernel(*call.kernel).call(*passed)
    return arrays


class Programs:
    """Programs that run kernels on ARM, one for each processor.

    Args:
        kernels: their names and variants.
        folder: an empty one.
    """

    def __init__(self, kernels: Iterable[tuple[str, ...]], folder: Path) -> None:
        missing = [name for name in (COMPILER, EMULATOR) if shutil.which(name) is None]
        if missing:
            raise AssertionError(f"{' and '.join(missing)} not found: apt-get install {PACKAGES}")
        self.folder = folder
        self.numbers = {kernel: i for i, kernel in enumerate(kernels)}
        self.modules = [
            objects.module_of(objects.definition_of(*kernel), f"kernel_{i}", TRIPLE)[0]
            for kernel, i in self.numbers.items()
        ]
        (folder / "kernels.h").write_text("".join(f"X(kernel_{i})\n" for i in self.numbers.values()))

    def build(self, cpu: str) -> Path:
        """The program for a processor, by LLVM's name."""
        folder = self.folder / cpu
        folder.mkdir()
        machine = processor.machine(TRIPLE, cpu)
        for i, module in enumerate(self.modules):
            module = module.clone()
            objects.optimize(module, machine)
            (folder / f"{i}.o").write_bytes(machine.emit_object(module))
        command = [COMPILER, "-O1", "-static", f"-I{self.folder}", str(DRIVER), *map(str, folder.glob("*.o")), "-lm"]
        subprocess.run([*command, "-o", folder / "program"], check=True)
        return folder / "program"

    def run(self, program: Path, calls: Iterable[Call]) -> list[list[np.ndarray]]:
        """The arrays of each call after it."""
        calls = list(calls)
        given = b"".join([_words(len(calls)), *(self._encoded(call) for call in calls)])
        left = subprocess.run([EMULATOR, "-cpu", "max", program], input=given, capture_output=True, check=True).stdout
        results, place = [], 0
        for call in calls:
            results.append([])
            for array in call.arrays:
                results[-1].append(np.frombuffer(left, array.dtype, array.size, place))
                place += array.nbytes
        assert place == len(left)
        return results

    def _encoded(self, call: Call) -> bytes:
        """A call as `arm.c` reads it."""
        floats = [a for a in call.arguments if isinstance(a, float)]
        others = [a for a in (*call.arguments, *call.more) if not isinstance(a, float)]
        places = [i for i, a in enumerate(others) if isinstance(a, np.ndarray)]  # of the arrays among all
        parts = [_words(a.nbytes) + a.tobytes() if isinstance(a, np.ndarray) else _words(0, a) for a in others]
        links = [
            _words(places[array], word, 0, places[target], start)
            if isinstance(target, int)
            else _words(places[array], word, 1, self.numbers[target], start)
            for array, word, target, start in call.links
        ]
        first = _words(self.numbers[call.kernel], len(others) - len(call.more), len(call.more))
        return b"".join([first, *parts, _words(len(links)), *links, struct.pack("<d", *floats or (0.0,))])


def _words(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}Q", *(number % 2**64 for number in numbers))
