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


class Call(NamedTuple):
    """A kernel with its variant, and its arguments: integers, arrays that it reads or writes, and one float at most."""

    kernel: tuple[str, ...]
    arguments: tuple[Any, ...]


def here(call: Call) -> list[np.ndarray]:
    """The arrays of a call after it, on this machine."""
    arguments = [a.copy() if isinstance(a, np.ndarray) else a for a in call.arguments]
    addresses = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments]
    library.kernel(*call.kernel).call(*addresses)
    return [a for a in arguments if isinstance(a, np.ndarray)]


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
        given = b"".join([struct.pack("<Q", len(calls)), *(self._encoded(call) for call in calls)])
        left = subprocess.run([EMULATOR, "-cpu", "max", program], input=given, capture_output=True, check=True).stdout
        results, place = [], 0
        for call in calls:
            results.append([])
            for array in (a for a in call.arguments if isinstance(a, np.ndarray)):
                results[-1].append(np.frombuffer(left, array.dtype, array.size, place))
                place += array.nbytes
        assert place == len(left)
        return results

    def _encoded(self, call: Call) -> bytes:
        """A call as `arm.c` reads it."""
        floats = [a for a in call.arguments if isinstance(a, float)]
        others = [a for a in call.arguments if not isinstance(a, float)]
        sizes = [a.nbytes if isinstance(a, np.ndarray) else 0 for a in others]
        parts = [
            struct.pack("<Q", size) + (a.tobytes() if size else struct.pack("<Q", a))
            for size, a in zip(sizes, others, strict=True)
        ]
        first = struct.pack("<QQ", self.numbers[call.kernel], len(others))
        return b"".join([first, *parts, struct.pack("<d", *floats or (0.0,))])
