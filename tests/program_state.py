"""What the lines of a constructor program made so far: its tensors, modules and names."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from program_lines import VIEWS
from torch import nn


class ImpossibleError(Exception):
    """A statement has nothing to work on, or PyTorch refuses it."""


@dataclass(eq=False)
class Tensor:
    """A tensor of floats of the program."""

    names: list[str]
    value: torch.Tensor
    sharded: int | None = None  # the axis

    @property
    def text(self):
        return self.names[0]

    @property
    def memory(self):
        return self.value.untyped_storage().data_ptr()

    @property
    def is_parameter(self):
        return isinstance(self.value, nn.Parameter) and all("." in name for name in self.names)

    def is_in(self, module):
        return any(is_under(name, module) for name in self.names)


@dataclass(eq=False)
class State:
    """The lines of a program so far, and what they made."""

    names: dict  # that the lines use
    lines: list[str] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)  # those of the last line first: copies are filled and copied on
    modules: dict[str, str] = field(default_factory=dict)  # name -> how it was made
    roots: list[str] = field(default_factory=list)
    fresh: int = 0
    escapes: bool = False
    numbers: Iterator[int] | None = None  # of the statement at hand

    def __post_init__(self):
        self.roots.append("root")
        self.run("root = nn.Module()")

    def pick(self, options):
        options = list(options)
        if not options:
            raise ImpossibleError
        return options[next(self.numbers) % len(options)]

    def evaluate(self, text):
        try:
            with torch.no_grad():
                return eval(text, self.names)
        except (RuntimeError, ValueError, IndexError, TypeError, NotImplementedError) as error:
            raise ImpossibleError from error

    def run(self, line):
        try:
            with torch.no_grad():
                exec(line, self.names)
        except (RuntimeError, ValueError, IndexError, TypeError, NotImplementedError) as error:
            raise ImpossibleError from error
        self.lines.append(line)
        self.tensors.sort(key=lambda tensor: not any(name in line for name in tensor.names))

    # --- what is there ---

    @property
    def plain(self):
        """The tensors that are not sharded."""
        return [tensor for tensor in self.tensors if tensor.sharded is None]

    def is_plain(self, module):
        return all(tensor.sharded is None for tensor in self.tensors if tensor.is_in(module))

    def part(self, tensor):
        """A part of a tensor, as text and value."""
        parts = []
        for view in VIEWS[1:]:
            try:
                parts.append((tensor.text + view, view_of(view)(tensor.value)))
            except (RuntimeError, IndexError):
                continue
        return self.pick((text, value) for text, value in parts if value.numel() > 0)

    def same(self, shape, tensors=None):
        """All (text, tensor) of a shape, whole or parts."""
        found = []
        for view in VIEWS:
            for tensor in self.plain if tensors is None else tensors:
                try:
                    value = view_of(view)(tensor.value)
                except (RuntimeError, IndexError):
                    continue
                if value.shape == shape:
                    found.append((tensor.text + view, tensor))
        return found

    def new_name(self, letter):
        self.fresh += 1
        return f"{letter}{self.fresh - 1}"

    def add(self, name):
        """Note a new tensor, or a further name of one."""
        value = self.evaluate(name)
        if not value.is_floating_point():
            return
        known = next((tensor for tensor in self.tensors if tensor.value is value), None)
        if known is not None:
            known.names.append(name)
        else:
            self.tensors.insert(0, Tensor([name], value))

    def add_module(self, name, made):
        self.modules[name] = made
        for path in paths(self.evaluate(name)):
            self.add(name + path)

    def forget(self, gone):
        """Drop a name and the names under it, and the tensors that have no other."""
        for tensor in self.tensors:
            tensor.names = [name for name in tensor.names if not is_under(name, gone)]
        self.tensors = [tensor for tensor in self.tensors if tensor.names]

    def refresh(self, name):
        """Note the tensors of a module whose tensors were replaced."""
        self.forget(name)
        self.add_module(name, self.modules[name])


def is_under(name, above):
    return name == above or name.startswith((f"{above}.", f"{above}["))


@functools.cache
def view_of(text):
    return eval(f"lambda x: x{text}")


def paths(module):
    """The paths of a module's tensors, as code: `[0].weight`."""
    named = (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
    for name, _ in named:
        yield "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in name.split("."))
