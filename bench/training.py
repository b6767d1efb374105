"""The contenders of training a dense network.

A step is forward, mean softmax cross-entropy, backward, the gradients clipped by their global norm, and plain SGD; in
float32, on the same batches and from the same weights for all. Every entry takes a problem and returns a call without
arguments that makes all the steps of the problem, so that what compiles whole epochs (`fastinit`) and what is called
once per step (the others) do the same number of them; further calls go on from the weights of the last one.

`python -m bench.training` shows that the contenders do the same work; `--quick` for the first network and digits only.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import fastinit as fi
from bench.turns import Call

Arrays = dict[str, np.ndarray]  # in the order of the layers, "layers.0.weight" (out, in) and "layers.0.bias" first

STEPS_CHECKED = 3
TOLERANCE = 5e-3  # of how far the weights have moved: a fiftieth of their size at most, so of the weights it is 1e-4


@dataclass(frozen=True)
class Network:
    """What is trained, and for how long. `libraries` are the names of its contenders in `TRAINERS`."""

    title: str
    sizes: tuple[int, ...]
    batch: int
    steps: int  # of an epoch; of about 50 ms together, so that the call of `fit` does not count
    libraries: tuple[str, ...] = ("fastinit", "fastinit_step", "one_product", "numpy", "torch", "torch_compile", "jax")
    epochs: int = 1
    learning_rate: float = 0.01
    max_norm: float | None = 1.0
    digits: bool = False  # scikit-learn's images of digits; otherwise noise, which costs the same

    @property
    def all_steps(self) -> int:
        return self.steps * self.epochs


NETWORKS = {
    "small": Network("64-128-128-10, batch 64", (64, 128, 128, 10), batch=64, steps=600),
    "medium": Network("784-512-512-10, batch 128", (784, 512, 512, 10), batch=128, steps=16),
    "deep": Network("64-256x30-10, batch 128", (64, *[256] * 30, 10), batch=128, steps=5),
    "wide": Network("1024x9, batch 256", (1024,) * 9, batch=256, steps=1),
    "digits": Network(
        "digits, 64-128-128-10, batch 64",
        (64, 128, 128, 10),
        batch=64,
        steps=28,  # scikit-learn's 1,797 images without the last few, which are no whole batch
        libraries=("fastinit", "numpy", "sklearn"),
        epochs=20,
        learning_rate=0.1,
        max_norm=None,
        digits=True,
    ),
}

QUICK_NETWORKS = ("small", "digits")
SLOW_TO_BEGIN = ("torch_compile",)  # it compiles for a minute; what is quick leaves it out


class Problem:
    """A network with its data and its first weights."""

    def __init__(self, network: Network) -> None:
        self.network = network
        rows = network.steps * network.batch
        if network.digits:
            from sklearn.datasets import load_digits

            x, y = load_digits(return_X_y=True)
            self.x, self.y = (x[:rows] / 16).astype(np.float32), y[:rows].astype(np.int64)
        else:
            self.x = fi.normal((rows, network.sizes[0]), mean=0.0, std=1.0, seed=fi.Key(0) / "data")
            self.y = np.random.default_rng(0).integers(network.sizes[-1], size=rows)
        assert len(self.x) == rows, f"{len(self.x)} rows of data, not {rows}"
        self.start: Arrays = {}
        for i, (inputs, outputs) in enumerate(itertools.pairwise(network.sizes)):
            name = f"layers.{i}.weight"
            self.start[name] = fi.he_normal((outputs, inputs), seed=fi.Key(0) / name)
            self.start[f"layers.{i}.bias"] = np.zeros(outputs, np.float32)

    def batches(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The batches of an epoch, in order."""
        firsts = range(0, len(self.x), self.network.batch)
        return [(self.x[i : i + self.network.batch], self.y[i : i + self.network.batch]) for i in firsts]


class Trainer(NamedTuple):
    """A contender that is ready."""

    train: Call  # all the steps of the problem
    weights: Callable[[], Arrays] | None = None  # copies; None where nothing is trained


def _fastinit_model(problem: Problem) -> tuple[Any, Callable[[], Arrays], dict[str, Any]]:
    network = problem.network
    model = fi.MLP(sizes=list(network.sizes), activation="relu", output="softmax", seed=0, dtype="float32")
    for name, values in problem.start.items():
        model.parameters[name][...] = values
    how = {"optimizer": fi.SGD(network.learning_rate), "max_grad_norm": network.max_norm}
    return model, lambda: {name: model.parameters[name].copy() for name in problem.start}, how


def _fastinit(problem: Problem) -> Trainer:
    """All the steps in one call."""
    model, weights, how = _fastinit_model(problem)
    network = problem.network
    fit = functools.partial(model.fit, epochs=network.epochs, batch_size=network.batch, shuffle=False, **how)
    return Trainer(functools.partial(fit, problem.x, problem.y), weights)


def _fastinit_step(problem: Problem) -> Trainer:
    """A call for every step, as a loop of one's own needs it."""
    model, weights, how = _fastinit_model(problem)
    return Trainer(_loop(problem, functools.partial(model.step, **how), problem.batches()), weights)


def _loop(problem: Problem, step: Callable[[Any, Any], object], batches: list[tuple[Any, Any]]) -> Call:
    """The epochs of what is called step by step."""

    def train() -> None:
        for _ in range(problem.network.epochs):
            for x, y in batches:
                step(x, y)

    return train


class _Numpy:
    """NumPy as one writes it with care: one vector of parameters and one of gradients, no array made in a step."""

    def __init__(self, problem: Problem) -> None:
        network = problem.network
        self.learning_rate, self.max_norm = network.learning_rate, network.max_norm
        self.flat = np.concatenate([values.ravel() for values in problem.start.values()])
        self.flat_gradients = np.empty_like(self.flat)
        self.parameters = dict(_views(self.flat, problem.start))
        self.weights, self.biases = _by_kind(self.parameters)
        self.weight_gradients, self.bias_gradients = _by_kind(dict(_views(self.flat_gradients, problem.start)))
        # Of every layer its output, and the gradient of the loss by what went into its activation.
        self.outputs = [np.empty((network.batch, size), np.float32) for size in network.sizes[1:]]
        self.deltas = [np.empty_like(output) for output in self.outputs]
        self.positive = [np.empty(output.shape, bool) for output in self.outputs]
        self.rows = np.arange(network.batch)

    def step(self, x: np.ndarray, y: np.ndarray) -> float:
        loss = self._forward(x, y)
        self._backward(x)
        rate = self.learning_rate
        if self.max_norm is not None:
            rate *= min(1.0, self.max_norm / math.sqrt(np.dot(self.flat_gradients, self.flat_gradients)))
        self.flat_gradients *= np.float32(rate)
        self.flat -= self.flat_gradients
        return loss

    def _forward(self, x: np.ndarray, y: np.ndarray) -> float:
        """The loss; the gradient by the scores is left in the last of `deltas`."""
        for i, (weight, bias, output) in enumerate(zip(self.weights, self.biases, self.outputs, strict=True)):
            np.matmul(x, weight.T, out=output)
            output += bias
            if i < len(self.weights) - 1:
                np.maximum(output, 0, out=output)
            x = output
        scores, delta = self.outputs[-1], self.deltas[-1]
        scores -= scores.max(axis=1, keepdims=True)
        np.exp(scores, out=delta)
        sums = delta.sum(axis=1, keepdims=True)
        loss = float((np.log(sums[:, 0]) - scores[self.rows, y]).mean())
        delta /= sums
        delta[self.rows, y] -= 1
        delta /= len(delta)
        return loss

    def _backward(self, x: np.ndarray) -> None:
        for i in reversed(range(len(self.weights))):
            delta = self.deltas[i]
            np.matmul(delta.T, self.outputs[i - 1] if i else x, out=self.weight_gradients[i])
            delta.sum(axis=0, out=self.bias_gradients[i])
            if i:
                np.matmul(delta, self.weights[i], out=self.deltas[i - 1])
                np.greater(self.outputs[i - 1], 0, out=self.positive[i - 1])
                self.deltas[i - 1] *= self.positive[i - 1]


def _views(flat: np.ndarray, like: Arrays) -> Iterator[tuple[str, np.ndarray]]:
    """The parts of a vector in the shapes of `like`."""
    first = 0
    for name, values in like.items():
        yield name, flat[first : first + values.size].reshape(values.shape)
        first += values.size


def _by_kind(arrays: Arrays) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The weights and the biases, layer by layer."""
    values = list(arrays.values())
    return values[::2], values[1::2]


def _numpy(problem: Problem) -> Trainer:
    network = _Numpy(problem)
    weights = network.parameters
    return Trainer(
        _loop(problem, network.step, problem.batches()), lambda: {name: weights[name].copy() for name in weights}
    )


def _one_product(problem: Problem) -> Trainer:
    """As many multiply-adds as the products of all the steps have, in one large product: what the cores can do."""
    sizes, batch, side = problem.network.sizes, problem.network.batch, 2048
    weights = sum(inputs * outputs for inputs, outputs in itertools.pairwise(sizes))
    number = (3 * weights - sizes[0] * sizes[1]) * batch * problem.network.all_steps  # the first inputs get no gradient
    rng = np.random.default_rng(0)
    depth = max(1, round(number / side**2))
    a, b = (rng.standard_normal(shape, np.float32) for shape in ((side, depth), (depth, side)))
    return Trainer(functools.partial(np.dot, a, b, out=np.empty((side, side), np.float32)))


def _torch(problem: Problem, compiled: bool = False) -> Trainer:
    import torch
    from torch.nn import functional

    layers: list[torch.nn.Module] = []
    for inputs, outputs in itertools.pairwise(problem.network.sizes):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1])
    parameters = dict(zip(problem.start, model.parameters(), strict=True))
    with torch.no_grad():
        for name, values in problem.start.items():
            parameters[name].copy_(torch.from_numpy(values))
    max_norm = problem.network.max_norm
    optimizer = torch.optim.SGD(model.parameters(), lr=problem.network.learning_rate)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(model(x), y)

    def update() -> None:
        if max_norm is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        optimizer.step()

    if compiled:
        loss_of, update = torch.compile(loss_of), torch.compile(update)

    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(x, y)
        loss.backward()
        update()
        return loss

    batches = [(torch.from_numpy(x), torch.from_numpy(y)) for x, y in problem.batches()]
    return Trainer(
        _loop(problem, step, batches), lambda: {name: p.detach().numpy().copy() for name, p in parameters.items()}
    )


def _torch_compile(problem: Problem) -> Trainer | None:
    return _torch(problem, compiled=True) if _torch_compiles() else None


@functools.cache
def _torch_compiles() -> bool:
    """Whether torch finds a C++ compiler and what else it needs."""
    import torch

    try:
        torch.compile(lambda x: x + 1)(torch.zeros(2))
    except RuntimeError:  # all that torch's compiler raises derives from it
        return False
    return True


def _jax(problem: Problem) -> Trainer:
    import jax
    import jax.numpy as jnp

    learning_rate, max_norm = problem.network.learning_rate, problem.network.max_norm

    def loss_of(layers: list[tuple[Any, Any]], x: Any, y: Any) -> Any:
        for i, (weight, bias) in enumerate(layers):
            x = x @ weight + bias
            if i < len(layers) - 1:
                x = jax.nn.relu(x)
        return -jnp.take_along_axis(jax.nn.log_softmax(x), y[:, None], axis=1).mean()

    @functools.partial(jax.jit, donate_argnums=0)
    def updated(layers: list[tuple[Any, Any]], x: Any, y: Any) -> tuple[list[tuple[Any, Any]], Any]:
        loss, gradients = jax.value_and_grad(loss_of)(layers, x, y)
        rate = learning_rate
        if max_norm is not None:
            norm = jnp.sqrt(sum(jnp.vdot(gradient, gradient) for gradient in jax.tree.leaves(gradients)))
            rate *= jnp.minimum(1.0, max_norm / norm)
        return jax.tree.map(lambda values, gradient: values - rate * gradient, layers, gradients), loss

    # Copies, since donated memory is written to; on the CPU, wherever JAX's default device is.
    put = functools.partial(jax.device_put, device=jax.devices("cpu")[0], may_alias=False)
    weights, biases = _by_kind(problem.start)
    layers = [
        (put(weight.T), put(bias)) for weight, bias in zip(weights, biases, strict=True)
    ]  # JAX's order: (in, out)

    def step(x: Any, y: Any) -> Any:
        nonlocal layers
        layers, loss = updated(layers, x, y)
        return loss

    epochs = _loop(problem, step, [(put(x), put(y.astype(np.int32))) for x, y in problem.batches()])

    def train() -> None:
        epochs()
        jax.block_until_ready(layers)

    def copies() -> Arrays:
        values = itertools.chain.from_iterable((np.array(weight).T, np.array(bias)) for weight, bias in layers)
        return dict(zip(problem.start, values, strict=True))

    return Trainer(train, copies)


def _sklearn(problem: Problem) -> Trainer:
    """scikit-learn goes on from the weights it has with `warm_start`, so it gets ours after a first call of `fit`."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    network = problem.network
    model = MLPClassifier(
        hidden_layer_sizes=network.sizes[1:-1],
        solver="sgd",
        momentum=0.0,
        alpha=0.0,
        batch_size=network.batch,
        learning_rate_init=network.learning_rate,
        max_iter=1,
        shuffle=False,
        tol=0.0,
        n_iter_no_change=10**9,
        warm_start=True,
        random_state=0,
    )

    def train() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is what was asked for
            model.fit(problem.x, problem.y)

    train()
    model.set_params(max_iter=network.epochs)
    weights, biases = _by_kind(problem.start)
    for ours, theirs in zip([weight.T for weight in weights] + biases, model.coefs_ + model.intercepts_, strict=True):
        theirs[...] = ours

    def copies() -> Arrays:
        pairs = zip(model.coefs_, model.intercepts_, strict=True)
        values = itertools.chain.from_iterable((weight.T.copy(), bias.copy()) for weight, bias in pairs)
        return dict(zip(problem.start, values, strict=True))

    return Trainer(train, copies)


TRAINERS: dict[str, Callable[[Problem], Trainer | None]] = {
    "fastinit": _fastinit,
    "fastinit_step": _fastinit_step,
    "one_product": _one_product,
    "numpy": _numpy,
    "torch": _torch,
    "torch_compile": _torch_compile,
    "jax": _jax,
    "sklearn": _sklearn,
}


def prepared(name: str, library: str) -> Call | None:
    """Return a call that makes all the steps of a network's problem; None where the library cannot run here."""
    contender = TRAINERS[library](Problem(NETWORKS[name]))
    return contender and contender.train


def differences(network: Network, libraries: tuple[str, ...]) -> dict[str, float]:
    """How far the contenders' weights are from NumPy's after some steps, relative to how far those have moved, in the
    norm over all layers. Contenders that train nothing, or cannot run here, are left out."""
    problem = Problem(dataclasses.replace(network, steps=STEPS_CHECKED, epochs=1))
    start, expected = _flat(problem.start), _trained("numpy", problem)
    found = {}
    for library in libraries:
        weights = _trained(library, problem)
        if weights is not None:
            found[library] = float(np.linalg.norm(weights - expected) / np.linalg.norm(expected - start))
    return found


def _trained(library: str, problem: Problem) -> np.ndarray | None:
    contender = TRAINERS[library](problem)
    if contender is None or contender.weights is None:
        return None
    contender.train()
    return _flat(contender.weights())


def _flat(arrays: Arrays) -> np.ndarray:
    return np.concatenate([values.ravel().astype(np.float64) for values in arrays.values()])


def check(network: Network, libraries: tuple[str, ...]) -> None:
    """Print how far the contenders are apart.

    Raises:
        AssertionError: one of them has not done the same work.
    """
    for library, difference in differences(network, libraries).items():
        print(f"{network.title}: {library} {difference:.1e}")
        assert difference <= TOLERANCE, f"{library} ends elsewhere: it is {difference:.1e} of the way off"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.training", description="Do the contenders do the same work?")
    parser.add_argument("--quick", action="store_true", help="the first network and digits, without torch.compile")
    quick = parser.parse_args().quick
    for name, network in NETWORKS.items():
        if not quick or name in QUICK_NETWORKS:
            check(network, tuple(library for library in network.libraries if not (quick and library in SLOW_TO_BEGIN)))


if __name__ == "__main__":
    main()
