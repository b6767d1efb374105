"""A `Writer` turns drawn numbers into the lines of a constructor program.

Every number picks one of what is there (modulo their number), so that all numbers make a valid program and shrinking
them makes it simpler. A writer runs each line as it writes it, and leaves out what PyTorch refuses.
"""

import itertools

from program_lines import COPIES, DTYPES, ESCAPES, FILLS, JOINS, MODULES, NEW, READS, SHAPES, WHOLE_FILLS, WIDE_FILLS
from program_state import ImpossibleError, State, is_under


class Writer(State):
    """Writes the lines of a program. Each method from `module` on is a statement."""

    def write(self, statement, numbers):
        """Write a statement, if it is possible."""
        self.numbers = itertools.chain(numbers, itertools.repeat(0))
        try:
            getattr(self, statement)()
        except ImpossibleError:
            return

    def hold(self, text):
        """Put a new value into a temporary, a parameter or a buffer."""
        value = self.evaluate(text)
        if value.untyped_storage().data_ptr() in {tensor.memory for tensor in self.tensors}:
            raise ImpossibleError  # `contiguous` and `to` give the tensor itself where nothing is to be done
        way, root = self.pick(["parameter", "temporary", "buffer", "parameter", "passing"]), self.pick(self.roots)
        if way == "temporary":
            name = self.new_name("t")
            self.run(f"{name} = {text}")
        elif way == "parameter":
            name = f"{root}.{self.new_name('w')}"
            self.run(f"{name} = nn.Parameter({text})")
        else:
            short = self.new_name("b")
            name = f"{root}.{short}"
            self.run(f'{root}.register_buffer("{short}", {text}{", persistent=False" if way == "passing" else ""})')
        self.add(name)

    def new(self):
        """The text of a new tensor."""
        form, shape, dtype = self.pick(NEW), numbers_of(self.pick(SHAPES)), self.pick(DTYPES)
        new = shape if dtype is None else f"{shape}, dtype=torch.{dtype}"
        return form.format(new=new, shape=shape)

    # --- create ---

    def module(self):
        made, root = self.pick(MODULES), self.pick(self.roots)
        name = f"{root}.{self.new_name('m')}"
        self.run(f"{name} = {made}")
        self.add_module(name, made)

    def like(self):
        """A further module of a class that is there."""
        made, root = self.pick(made for made in self.modules.values() if made in MODULES), self.pick(self.roots)
        name = f"{root}.{self.new_name('m')}"
        self.run(f"{name} = {made}")
        self.add_module(name, made)

    def parameter(self):
        text, root = self.new(), self.pick(self.roots)
        name = f"{root}.{self.new_name('w')}"
        self.run(f"{name} = nn.Parameter({text})")
        self.add(name)

    def buffer(self):
        text, root = self.new(), self.pick(self.roots)
        short = self.new_name("b")
        self.run(f'{root}.register_buffer("{short}", {text})')
        self.add(f"{root}.{short}")

    def temporary(self):
        text = self.new()
        name = self.new_name("t")
        self.run(f"{name} = {text}")
        self.add(name)

    def chunks(self):
        root = self.pick(self.roots)
        names = [f"{root}.{self.new_name('w')}" for _ in range(3)]
        self.run(f"{', '.join(names)} = map(nn.Parameter, torch.randn(12, 4).chunk(3))")
        for name in names:
            self.add(name)

    def halves(self):
        """Memory without values, filled part by part."""
        first, second, root = self.pick(FILLS), self.pick(FILLS), self.pick(self.roots)
        name = f"{root}.{self.new_name('w')}"
        start, end = first.format(x=f"{name}[:2]"), second.format(x=f"{name}[2:]")
        self.run(f"{name} = nn.Parameter(torch.empty(4, 6)); {start}; {end}")
        self.add(name)

    # --- fill ---

    def fill(self):
        tensor = self.pick(self.plain)
        form = self.pick([*FILLS, *WIDE_FILLS, *WHOLE_FILLS])
        self.run(form.format(x=tensor.text, shape=numbers_of(tensor.value.shape)))

    def fill_part(self):
        text, value = self.part(self.pick(self.plain))
        self.run(self.pick([*FILLS, *WIDE_FILLS]).format(x=text, shape=numbers_of(value.shape)))

    # --- copy ---

    def copy_whole(self):
        target, source = self.pair(self.plain)
        self.run(f"{target.text}.copy_({source.text})")

    def copy_part(self):
        target = self.pick(self.plain)
        text, value = self.part(target)
        source, tensor = self.pick(s for s in self.same(value.shape) if s[0] != text)
        own = ".clone()" if tensor.memory == target.memory else ""
        self.run(f"{text}.copy_({source}{own})")

    def copy_row(self):
        text, axis = self.pick(self.plain).text, self.pick(["0", ":, 0"])
        self.run(f"{text}[{axis}] = {text}[{axis.replace('0', '1')}]")

    def view(self):
        """A temporary that shares a tensor's memory."""
        text, _ = self.part(self.pick(self.plain))
        name = self.new_name("t")
        self.run(f"{name} = {text}")
        self.add(name)

    def derive(self):
        tensor = self.pick(self.plain)
        self.hold(self.pick(COPIES).format(x=tensor.text, shape=numbers_of(tensor.value.shape)))

    def join(self):
        first = self.pick(self.plain)
        second, _ = self.pick(self.same(first.value.shape))
        self.hold(self.pick(JOINS).format(x=first.text, y=second))

    def split(self):
        tensor, root = self.pick(self.plain), self.pick(self.roots)
        names = [f"{root}.{self.new_name('w')}" for _ in range(2)]
        self.run(f"{', '.join(names)} = (nn.Parameter(x.clone()) for x in {tensor.text}.chunk(2))")
        for name in names:
            self.add(name)

    def pair(self, tensors):
        """Two tensors of one shape, sharded alike, that share no memory."""
        first = self.pick(tensors)
        alike = [t for t in tensors if (t.value.shape, t.sharded) == (first.value.shape, first.sharded)]
        return first, self.pick(t for t in alike if t.memory != first.memory)

    def swap(self):
        first, second = self.pair(self.plain)
        self.run(f"t = {first.text}.clone(); {first.text}.copy_({second.text}); {second.text}.copy_(t); del t")

    def foreach(self):
        pairs = [self.pair(self.plain), self.pair(self.plain)]
        if len({t.memory for pair in pairs for t in pair}) < 4:
            pairs.pop()
        targets, sources = (", ".join(tensor.text for tensor in side) for side in zip(*pairs, strict=True))
        self.run(f"torch._foreach_copy_([{targets}], [{sources}])")

    def deepcopy(self):
        source, root = self.pick(filter(self.is_plain, self.modules)), self.pick(self.roots)
        name = f"{root}.{self.new_name('m')}"
        self.run(f"{name} = copy.deepcopy({source})")
        self.add_module(name, self.modules[source])

    def deepcopy_tensor(self):
        tensor, root = self.pick(t for t in self.plain if t.is_parameter), self.pick(self.roots)
        name = f"{root}.{self.new_name('w')}"
        self.run(f"{name} = copy.deepcopy({tensor.text})")
        self.add(name)

    def loadable(self):
        target = self.pick(filter(self.is_plain, self.modules))
        others = [name for name in self.modules if name != target and self.is_plain(name)]
        return target, self.pick(name for name in others if self.modules[name] == self.modules[target])

    def load(self):
        target, source = self.loadable()
        self.run(f"{target}.load_state_dict({source}.state_dict())")

    def assign(self):
        target, source = self.loadable()
        self.run(f"{target}.load_state_dict({source}.state_dict(), assign=True)")
        self.refresh(target)

    def average(self):
        source, root = self.pick(filter(self.is_plain, self.modules)), self.pick(self.roots)
        name = f"{root}.{self.new_name('m')}"
        self.run(f"{name} = torch.optim.swa_utils.AveragedModel({source})")
        self.add_module(name, f"average of {self.modules[source]}")
        if self.pick([False, True]):
            self.run(f"{name}.update_parameters({source})")

    def replace(self):
        tensor = self.pick(t for t in self.plain if t.is_parameter)
        name = self.pick(tensor.names)
        self.run(f"{name} = nn.Parameter({name}.detach().clone())")
        self.forget(name)
        self.add(name)

    # --- names ---

    def tie(self):
        first = self.pick(t for t in self.tensors if t.is_parameter)
        alike = [t for t in self.plain if t.is_parameter and t is not first and t.value.shape == first.value.shape]
        target = self.pick([None, *alike])
        name = self.pick(target.names) if target else f"{self.pick(self.roots)}.{self.new_name('w')}"
        self.run(f"{name} = {first.text}")
        self.forget(name)
        first.names.append(name)

    def delete(self):
        bare = [n for t in self.tensors for n in t.names if is_bare(n)]
        name = self.pick([*bare, *self.modules, *self.roots[1:]])
        self.run(f"del {name}")
        self.forget(name)
        self.modules = {module: made for module, made in self.modules.items() if not is_under(module, name)}
        self.roots = [root for root in self.roots if root != name]

    def second(self):
        if len(self.roots) > 1:
            raise ImpossibleError
        self.run("other = nn.Module()")
        self.roots.append("other")

    # --- read ---

    def read(self):
        first = self.pick(self.plain)
        second, _ = self.pick(self.same(first.value.shape))
        self.hold(self.pick(READS).format(x=first.text, y=second))

    def discard(self):
        text = self.pick(self.plain).text
        self.run(self.pick(["{x}.norm()", "{x} * 1", "torch.linalg.norm({x})"]).format(x=text))

    def escape(self):
        first, second = self.pick(self.plain), self.pick(self.plain)
        self.run(self.pick(ESCAPES).format(x=first.text, y=second.text))
        self.escapes = True

    # --- shard ---

    def alone(self, tensor):
        return all(other is tensor or other.memory != tensor.memory for other in self.tensors)

    def shard(self):
        tensor = self.pick(t for t in self.plain if t.is_parameter and t.value.dim() and self.alone(t))
        dim = self.pick(range(tensor.value.dim()))
        names = ", ".join(f'({module}, "{name}")' for module, _, name in (n.rpartition(".") for n in tensor.names))
        self.run(f"shard({dim}, {names})")
        tensor.sharded = dim

    def fully_shard(self):
        name = self.pick(filter(self.is_plain, self.modules))
        inside = [tensor for tensor in self.tensors if tensor.is_parameter and tensor.is_in(name)]
        if not inside or any(len(t.names) > 1 or not self.alone(t) for t in inside):
            raise ImpossibleError
        self.run(f"fully_shard({name})")
        for tensor in inside:
            tensor.sharded = 0

    @property
    def shards(self):
        return [tensor for tensor in self.tensors if tensor.sharded is not None]

    def fill_shards(self):
        self.run(self.pick(FILLS).format(x=self.pick(self.shards).text))

    def copy_shards(self):
        target, source = self.pair(self.shards)
        self.run(f"{target.text}.copy_({source.text})")


def numbers_of(shape):
    return ", ".join(map(str, shape))


def is_bare(name):
    """Whether a tensor's name is that of a temporary, or of an attribute of a root."""
    return name.count(".") <= 1 and "[" not in name
