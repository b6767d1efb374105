"""What must agree between the ways to run a constructor program."""

import numpy as np
from models import bits


def rows(runs):
    """The values of all elements, a row each, a column for each seed; as the bits of float64 numbers."""
    columns = [np.concatenate([np.ravel(t.double().numpy()) for t in run.values()] or [np.empty(0)]) for run in runs]
    return (np.stack(columns, 1) + 0.0).view(np.int64)


def first_equals(rows):
    """For each element the first one that is equal to it under all seeds."""
    _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return first[inverse.reshape(-1)]


def structure(run):
    """What a constructor must have whatever the random numbers: names, layouts, ties."""
    first = {}
    return [(name, t.dtype, t.shape, t.stride(), first.setdefault(t.data_ptr(), name)) for name, t in run.items()]


def elements(run):
    return [f"{name}{list(map(int, index))}" for name, tensor in run.items() for index in np.ndindex(*tensor.shape)]


def patterns(plain, drawn):
    """How the equal elements and the constants of two ways differ."""
    if structure(plain[0]) != structure(drawn[0]):
        return [f"fast_init: names, layouts or ties differ: {structure(plain[0])}, {structure(drawn[0])}"]
    if not plain[0]:
        return []
    names, theirs, ours = elements(plain[0]), rows(plain), rows(drawn)
    found = []
    expected, actual = first_equals(theirs), first_equals(ours)
    for i in np.flatnonzero(expected != actual)[:1]:
        if (ours[i] != ours[expected[i]]).any():
            found.append(f"fast_init: {names[i]} does not equal {names[expected[i]]}, as it does in PyTorch")
        else:
            found.append(f"fast_init: {names[i]} equals {names[actual[i]]}, unlike in PyTorch")
    constant = (theirs == theirs[:, :1]).all(1)
    for wrong, text in (
        (constant & (ours != theirs).any(1), "is not the constant that it is in PyTorch"),
        (~constant & (ours == ours[:, :1]).all(1), "does not depend on the seed, as it does in PyTorch"),
    ):
        found += [f"fast_init: {names[i]} {text}" for i in np.flatnonzero(wrong)[:1]]
    return found


def unlike(way, run, expected):
    """The first tensor of a way that is not, bit for bit, what `fast_init` makes."""
    if run is None:
        return []
    differing = [name for name, tensor in run.items() if bits(tensor) != bits(expected[name])]
    return [f"{way}: {name} is not what fast_init makes" for name in differing[:1]]


def faults(results):
    """All properties that do not hold. Of equal bits follow equal patterns: these are compared once."""
    found = [f"{way}: {error}" for way, error in results.errors.items()]
    if not results.drawn:
        return found
    found += patterns(results.plain, results.drawn)
    for recorded, expected in zip(results.recorded, results.drawn, strict=False):
        found += unlike("materialize", recorded, expected)
    if results.again is not None:
        found += unlike("materialize again", results.again, results.recorded[-1])
    found += unlike("sharded materialize", results.shards, results.drawn[0])
    found += unlike("sharded fast_init", results.sharded, results.drawn[0])
    return found + unlike("write", results.written, results.drawn[0])
