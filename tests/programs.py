"""Constructor programs: random lines of PyTorch code that build modules, run line by line.

`programs()` is the strategy; it lets a `Writer` write the lines. `build` runs a program, under whatever modes are
active. The values may differ then; names, shapes and ties do not.
"""

import copy
import functools
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from program_lines import CREATE, ROOTS, STATEMENTS
from program_writer import Writer
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard, distribute_tensor


@dataclass(frozen=True)
class Program:
    """A constructor: its lines, the modules it returns, whether it reads random values, the ranks of sharded runs."""

    lines: tuple[str, ...]
    returned: tuple[str, ...] = ("root",)
    escapes: bool = False
    ranks: int = 2

    @functools.cached_property
    def code(self):
        return [compile(line, f"<{line}>", "exec") for line in self.lines]

    @property
    def shards(self):
        return any("shard(" in line for line in self.lines)

    def __str__(self):
        body = "\n".join(f"        {line!r}," for line in self.lines)
        options = f"    returned={self.returned},\n    escapes={self.escapes},\n    ranks={self.ranks},\n"
        return f"Program(\n    (\n{body}\n    ),\n{options})"

    __repr__ = __str__


def shard(mesh, dim, *names):
    """Replace a parameter under all of its names (module, attribute) by the shard of it that this rank has."""
    if mesh is None:
        return
    whole = getattr(*names[0])
    sharded = nn.Parameter(distribute_tensor(whole.detach(), mesh, [Shard(dim)], src_data_rank=None))
    for module, name in names:
        setattr(module, name, sharded)


def namespace(mesh=None):
    """The names that a program's lines use. Without a mesh, sharding does nothing."""
    fully = functools.partial(fully_shard, mesh=mesh) if mesh is not None else lambda module: None
    return {"torch": torch, "nn": nn, "copy": copy, "shard": functools.partial(shard, mesh), "fully_shard": fully}


def build(program, mesh=None):
    """Run a program; return its modules. Everything else that it made dies."""
    names = namespace(mesh)
    with torch.no_grad():
        for code in program.code:
            exec(code, names)
    return [names[name] for name in program.returned]


def program_of(first, rest, ranks, second_returned):
    """The program that drawn statements make."""
    writer = Writer(namespace())
    for statement, numbers in (*first, *rest):
        writer.write(statement, numbers)
    returned = tuple(writer.roots if second_returned else writer.roots[:1])
    return Program(tuple(writer.lines), returned, writer.escapes, ranks)


def programs(statements=STATEMENTS, *, most=10):
    """A strategy for programs of some statements; with "escape" among them, for programs that read random values."""
    numbers = st.lists(st.integers(0, 2) | st.integers(0, 63), min_size=3, max_size=6)

    def drawn(names, **how):
        return st.lists(st.tuples(st.sampled_from(names), numbers), **how)

    first = drawn([name for name in [*CREATE, *ROOTS] if name in statements], min_size=1, max_size=3)
    rest = drawn(list(statements), min_size=2, max_size=most)
    return st.builds(program_of, first, rest, st.sampled_from([2, 3]), st.booleans())
