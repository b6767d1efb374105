"""Unmodified model code: its fills done once, by name and in parallel (`fast_init`), or noted as a plan (`record`)."""

from __future__ import annotations

import contextlib
import gc
import itertools
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch.nn.modules import module as hooks
from torch.nn.parameter import is_lazy

from fastinit._core.composite import Patched, Values
from fastinit._core.distributions import Constant, Distribution
from fastinit._core.key import Key, Seed, as_key
from fastinit._io.progress import Progress, progress_bar
from fastinit._runtime.checks import positive_int
from fastinit.plan._fills import Fill, Tied
from fastinit.plan._plan import Plan
from fastinit.torch._compat import DISPATCH_MODE, optional
from fastinit.torch._dropin import next_seed
from fastinit.torch._modules import clean, holding, named_tensors
from fastinit.torch._patches import patched
from fastinit.torch._record.draws import storage_of
from fastinit.torch._record.geometry import Geometry, geometry
from fastinit.torch._record.naming import Owner, RegionFill, cover, owner, region_fills, settle
from fastinit.torch._record.recorder import Recorder, active
from fastinit.torch._record.recording import Recording, without_addresses
from fastinit.torch._record.replay import Computed
from fastinit.torch._shards import is_sharded, local_parts, placements_of
from fastinit.torch._tensors import on_host, values_of


@contextlib.contextmanager
def fast_init(seed: Seed = None, *, progress: Progress = False) -> Iterator[Key]:
    """Build models inside this block with unmodified code; their tensors are filled once, at its end, in parallel.

    Every parameter and buffer is drawn with the key `Key(seed) / name`, its name in the outermost module built in the
    block: the same whatever the threads and the order of construction, and the same that `record` and `materialize`
    give to any shard. In detail:

    - Of several modules that are not part of each other, the first has its names plain; of the k-th further one (k =
      1, 2, ... by the first thing that was put into it) the ordinal comes before: `Key(seed) / "1" / name`.
    - Of a tensor with several names (tied weights) the first counts, in the order of `named_parameters()`.
    - What PyTorch makes equal is equal: a copy of draws, by `load_state_dict`, `copy.deepcopy`, `clone`, `copy_` or
      `cat`, of all or a part of a tensor, in another order or dtype, has the values of its original. The first tensor
      with a name, in the order of the names, gives the key.
    - Modules that were built before the block, and are drawn into, come last, in the order of these draws.
    - A draw that no module's tensor holds at the end is keyed by its place in the order of all random draws,
      `Key(seed) / "unowned" / "7"`.
    - An operator that reads draws before the end (a norm, a decomposition) gets provisional values, keyed by their
      order, and is called again at the end with those that the names give. Where values leave PyTorch (`numpy`,
      another device, communication), or a number that code has got (`item`, `tolist`, `bool`) would be another one,
      the draws behind them keep the provisional values. Of what is kept to be called again 1 GiB at most: then the
      names of the moment count.
    - Torch's other random operators (`randperm`, `bernoulli_`, ...) run with torch's generator seeded by their order;
      its state outside does not change, and `generator=` has no effect on deferred fills.
    - Sharded tensors (DTensors on the CPU) get their part of the tensor that the same code makes without sharding,
      whether they are sharded before they are filled or after. All ranks need the same seed.

    Shapes, strides, dtypes, ties, buffers and values that are not random are what they are without the block. Tensors
    that the core does not fill (other devices, integers, complex numbers) and modules that are built in other threads
    are left to torch. A thread that reads a tensor of another thread's open block sees memory that is not yet filled.
    Inside `record` a block has no effect: what is built belongs to the plan.

    Args:
        seed: an int or a `Key`. Default: one 64-bit number of torch's default generator, so that `torch.manual_seed`
            decides.
        progress: as in `fastinit.checkpoint.write`.

    Yields:
        The key, whose attribute `seed` is the seed.

    Raises:
        TypeError, ValueError: the seed is none. An exception of the block passes; what was built is filled first,
            unless it is an interrupt.

    >>> import fastinit as fi
    >>> with fast_init(seed=0) as key:
    ...     model = torch.nn.Linear(784, 10)
    >>> bound = 784**-0.5
    >>> expected = fi.uniform((10, 784), low=-bound, high=bound, seed=key / "weight")
    >>> bool((model.weight.detach().numpy() == expected).all())
    True
    """
    if isinstance(active.recorder, Recording):
        yield as_key(0 if seed is None else seed)
        return
    key = as_key(next_seed() if seed is None else seed)
    if optional(DISPATCH_MODE) is None:
        yield key
        return
    with _modules() as roots, patched():
        recorder = Recorder(key, lambda: _owners(roots(), recorder))
        try:
            with recorder:
                yield key
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # GeneratorExit too: the block of a generator that is not run to its end
            _finish(recorder, progress=False)
            raise
    _finish(recorder, progress)


def _finish(recorder: Recorder, progress: Progress) -> None:
    """Apply all pending fills."""
    total = sum(storage.nbytes() for storage in recorder.pending)
    with progress_bar(progress, total) as advance:
        recorder.finish(recorder.owners(), advance)


MOST_TENSORS = 200_000  # of a recorded model: twice as many as the largest have. They take 90 s, and 10 kB each
_MODULES = 4  # for each tensor: a linear layer is one module and two tensors, an activation a module and none


def record(factory: Callable[[], torch.nn.Module], *, max_tensors: int | None = None) -> Plan:
    """The plan of a model, from the code that builds it. Its tensors take address space but no memory, and nothing is
    drawn but what the code itself reads.

    Args:
        factory: builds and returns the module, e.g. `lambda: AutoModelForCausalLM.from_config(config)`.
        max_tensors: the constructor is stopped when it has registered more parameters and buffers, or four times as
            many modules. Default: 200,000.

    Returns:
        A plan of all parameters and buffers, by the names that `named_parameters()` and `named_buffers()` give, second
        names as `Tied`. Filled with a seed it holds, bit for bit, what `fast_init(seed)` makes of the same code.
        Buffers that are computed (tables of angles, masks) are kept as values. Memory that the constructor leaves
        undefined is zero.

    Raises:
        TypeError: the factory returns no module.
        ValueError: there are more tensors than `max_tensors`; the constructor gets numbers out of random values
            (`item`, `bool`, `tolist`) that are not the same for nine seeds, or memory (`numpy`); a tensor is sharded,
            sparse or lazy; or two tensors share part of their memory.
        MemoryError: the address space (`ulimit -v`) is smaller than the tensors.

    >>> plan = record(lambda: torch.nn.Linear(784, 10))
    >>> plan["weight"].shape, plan["weight"].distribution
    ((10, 784), Uniform(low=-0.03571428571428571, high=0.03571428571428571))
    """
    if isinstance(factory, torch.nn.Module) or not callable(factory):
        raise TypeError(f"factory must be a function that builds a module. Received: {type(factory).__name__}")
    if optional(DISPATCH_MODE) is None:
        raise RuntimeError(f"record needs {DISPATCH_MODE}, which PyTorch {torch.__version__} does not have")
    most = MOST_TENSORS if max_tensors is None else positive_int("max_tensors", max_tensors)
    recorder = Recording()
    with _modules(most) as roots, patched(), recorder:
        try:
            model = factory()
        except RuntimeError as error:
            if "DefaultCPUAllocator" not in str(error):  # PyTorch's name for the CPU's memory
                raise
            raise without_addresses("a tensor that PyTorch makes") from error
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"factory must return a torch.nn.Module. Received: {type(model).__name__}")
    named = named_tensors(model)
    for name, tensor in named.items():
        _recordable(name, tensor)
    # The names that `fast_init` would give count in the keys, also where they are not those of the model.
    settle(recorder.known, _owners(roots(), recorder), recorder.log.drawn(), recorder.origins)
    return Plan(_tensors(recorder, named, _passing(model)))


def _recordable(name: str, tensor: torch.Tensor) -> None:
    """Raise ValueError for what no plan can hold."""
    if is_sharded(tensor):
        raise ValueError(
            f"{name} is sharded: record the model before it is sharded, then materialize the sharded one. "
            f"Received: placements {placements_of(tensor)}"
        )
    if is_lazy(tensor):
        raise ValueError(f"{name} has no shape yet (a lazy module): run the module once in the factory")
    if tensor.is_meta:
        raise ValueError(f"{name} is on the meta device: record takes no memory on the CPU either")
    if tensor.layout is not torch.strided or tensor.device.type != "cpu":
        raise ValueError(f"{name} must be a strided tensor on the CPU. Received: {tensor.layout} on {tensor.device}")


def _tensors(recorder: Recording, named: dict[str, torch.Tensor], passing: set[str]) -> dict[str, Fill | Tied]:
    """A plan's tensors."""
    places: dict[torch.UntypedStorage | None, dict[Geometry, str]] = {}  # by storage
    tensors: dict[str, Fill | Tied] = {}
    for name, tensor in named.items():
        known, place = places.setdefault(storage_of(tensor), {}), geometry(tensor)
        if place in known and tensor.numel():
            tensors[name] = Tied(known[place])
            continue
        for other, first in known.items():
            if _overlap(place, other):
                raise ValueError(f"{name} and {first} share part of their memory; fast_init builds such models")
        known[place] = name
        dtype = str(tensor.dtype).removeprefix("torch.")
        tensors[name] = Fill(tuple(tensor.shape), dtype, _law(recorder, name, tensor), persistent=name not in passing)
    return tensors


def _law(recorder: Recording, name: str, tensor: torch.Tensor) -> Distribution:
    """What a tensor of a recorded model holds."""
    contents, one = recorder.known.get(tensor.untyped_storage(), {}), owner((name,), tensor)
    parts = region_fills(contents, one)
    if parts is None:  # something was computed into it; what comes after that lies over it
        recorder.flush(tensor)
        parts = []
    if not cover(one.shape, parts):
        parts = [RegionFill((), _base(recorder, tensor)), *parts]
    return parts[0].law if len(parts) == 1 else Patched(tuple(parts))


def _base(recorder: Recording, tensor: torch.Tensor) -> Distribution:
    """The values of a tensor apart from its pending fills."""
    if recorder.is_random(tensor):
        return Computed(recorder.log, tensor.detach())
    if not recorder.is_undefined(tensor):
        return Values(values_of(tensor))
    return Constant(0.0) if on_host(tensor) else Values(np.zeros_like(values_of(tensor)))


def _overlap(a: Geometry, b: Geometry) -> bool:
    """Whether two tensors of one storage may share memory."""
    (first, last), (start, end) = a.bytes, b.bytes
    return first < end and start < last


def _owners(roots: Sequence[torch.nn.Module], recorder: Recorder) -> list[Owner]:
    """All names of all tensors: parameters, then buffers; of further modules with the ordinal before. Modules that were
    built before the block come last, in the order in which they were drawn into."""
    owners = _named(roots)
    homeless = recorder.drawn_storages()
    for one in owners:
        homeless.pop(one.tensor.untyped_storage(), None)
    return _named([*roots, *holding(homeless)]) if homeless else owners


def _named(roots: Sequence[torch.nn.Module]) -> list[Owner]:
    owners = []
    for ordinal, root in enumerate(roots):
        above = (str(ordinal),) if ordinal else ()
        for name, tensor in named_tensors(root).items():
            for part, region in local_parts(tensor):
                if on_host(part):
                    owners.append(owner((*above, name), part, tuple(tensor.shape), region))
    return owners


def _passing(model: torch.nn.Module) -> set[str]:
    """The names of the buffers that a checkpoint leaves out."""
    buffers = {name for name, _ in model.named_buffers(remove_duplicate=False)}
    return {clean(name) for name in buffers - set(model.state_dict(keep_vars=True))}


@contextlib.contextmanager
def _modules(max_tensors: int | None = None) -> Iterator[Callable[[], list[torch.nn.Module]]]:
    """Notes the modules that get parameters, buffers or submodules in this thread; gives the outermost of those that
    still live.

    Raises:
        ValueError: in the constructor, which registers more tensors, or four times as many modules.
    """
    thread = threading.get_ident()
    seen: dict[int, weakref.ref[torch.nn.Module]] = {}
    tensors = modules = 0

    def count(value: object) -> None:
        nonlocal tensors, modules
        assert max_tensors is not None
        tensors += isinstance(value, torch.Tensor)
        modules += isinstance(value, torch.nn.Module)
        if tensors > max_tensors or modules > _MODULES * max_tensors:
            raise ValueError(
                f"the model has more than {max_tensors:,} tensors, or {_MODULES * max_tensors:,} modules: if it is "
                "meant to, allow more by max_tensors (--max-tensors)"
            )

    def note(module: torch.nn.Module, name: str, value: object) -> None:
        if threading.get_ident() == thread:
            if max_tensors is not None:
                count(value)
            known = seen.get(id(module))
            if known is None or known() is not module:  # an address is used again
                seen.pop(id(module), None)
                seen[id(module)] = weakref.ref(module)

    def outermost() -> list[torch.nn.Module]:
        def living() -> list[torch.nn.Module]:
            found = [module for module in (reference() for reference in seen.values()) if module is not None]
            parts = {id(part) for module in found for part in itertools.islice(module.modules(), 1, None)}
            return [module for module in found if id(module) not in parts]

        if len(living()) > 1:  # names must not depend on when the collector finds a module that refers to itself
            gc.collect()
        return living()

    handles = [
        hooks.register_module_parameter_registration_hook(note),
        hooks.register_module_buffer_registration_hook(note),
        hooks.register_module_module_registration_hook(note),
    ]
    try:
        yield outermost
    finally:
        for handle in handles:
            handle.remove()
