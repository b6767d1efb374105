"""Calls of kernels that read records, with all memory and kernels that they reach: for `arm`."""

from arm import Call, Link

from fastinit._core import haar
from fastinit._native import library
from fastinit._native.records import LAYER, REFLECTIONS, TRAINING
from fastinit.nn import _layers as layers
from fastinit.nn import _training as training

# Fields of the records that are no addresses.
NUMBERS = {
    *("inputs", "outputs", "size", "first_block", "target_bytes", "delta_bytes", "blocks", "begin", "end", "batch"),
    *("tasks", "members", "worker_bytes", "scratch_bytes", "count", "step", "largest"),
    *("height", "width", "parts", "transposed", "first_block", "last_block", "share", "memory_bytes"),
}


def call_of_steps(monkeypatch, model, x, y, **how):
    """The steps of `model.fit(x, y, 1, **how)`, which are made here, too.

    Returns:
        The call, and the numbers of the arrays in it that have the parameters, and the losses and norms.
    """
    noted, calls = [], []
    inner = training.address

    def address(array):
        noted.append(array)
        return inner(array)

    def together(work, _workers):
        kernel = "nn.network.driver", "train" if model.population is None else "train_members", model.dtype.name
        calls.append(_call(kernel, work.args, {inner(array): array for array in sorted(noted, key=lambda x: x.nbytes)}))
        work()

    with monkeypatch.context() as patch:
        for module in (layers, training):
            patch.setattr(module, "address", address)
        patch.setattr(training, "together", together)
        model.fit(x, y, 1, **how)
    [(call, numbers)] = calls
    run = next(array for array in noted if array.dtype == TRAINING)
    return call, [numbers[int(run[name])] for name in ("weights", "records")]


def calls_of_matrix(monkeypatch, matrix, key):
    """The calls of `haar(matrix, key, 0)`, which are made here, too.

    Returns:
        Each call, and the numbers of the arrays in it that it writes and others read.
    """
    noted, calls = [], []
    inner = haar.address

    def address(array):
        noted.append(array)
        return inner(array)

    def together(work, _workers):
        name, written = ("apply", ["matrix"]) if calls else ("reflect", ["factors", "turns", "vectors"])
        run = next(array for array in noted if array.dtype == REFLECTIONS)
        arrays = {inner(array): array for array in sorted(noted, key=lambda x: x.nbytes)}
        for field in written[:-1]:  # it may have the results of a matrix before
            arrays[int(run[field])][...] = 0
        call, numbers = _call((f"products.reflectors.{name}", matrix.real.dtype.name), work.args, arrays)
        calls.append((call, [numbers[int(run[field])] for field in written]))
        work()

    with monkeypatch.context() as patch:
        patch.setattr(haar, "address", address)
        patch.setattr(haar, "together", together)
        haar.haar(matrix, key, 0)
    return calls


def _call(kernel, arguments, arrays):
    """The call, and address -> number of the array that begins there; `arrays` are the largest at their addresses."""
    names = {loaded.address: key for key, loaded in library._kernels.items()}

    def owner(address):
        """Where the largest array begins that an address lies in; views are parts of others."""
        inside = [start for start, array in arrays.items() if start <= address < start + array.nbytes]
        return max(inside, key=lambda start: arrays[start].nbytes)

    passed = [a for a in arguments if a in arrays]
    numbers = {start: i for i, start in enumerate(passed)}
    links = []
    for i, records in enumerate(arrays[start] for start in passed):
        if records.dtype not in (LAYER, TRAINING, REFLECTIONS):
            continue
        fields = records.dtype.names
        for word, address in enumerate(value for record in records.ravel().tolist() for value in record):
            if fields[word % len(fields)] in NUMBERS or address == 0:
                continue
            if address in names:
                links.append(Link(i, word, names[address]))
                continue
            start = owner(address)
            number = numbers.setdefault(start, len(numbers))
            links.append(Link(i, word, number, address - start))
    copies = {start: arrays[start].copy() for start in numbers}
    more = tuple(copies[start] for start in list(numbers)[len(passed) :])
    return Call(kernel, tuple(copies.get(a, a) for a in arguments), more, tuple(links)), numbers
