"""A thin model on one flat buffer of parameters: initialise, forward, loss, backward, clip, update, predict."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastinit._core.distributions import Uniform
from fastinit._core.key import Key, Seed, as_key
from fastinit._io.documents import parse_json
from fastinit._io.files import put
from fastinit._io.progress import Progress, progress_bar
from fastinit._io.safetensors import METADATA, as_header, read_header
from fastinit._runtime.arrays import FLOATS, Array, as_dtype
from fastinit._runtime.checks import non_negative, positive_int, unknown
from fastinit._runtime.threads import num_threads
from fastinit.nn import _outputs as outputs
from fastinit.nn import _training as training
from fastinit.nn._activations import Activation, as_activation
from fastinit.nn._history import History
from fastinit.nn._labels import Labels, as_classes, number_of_classes
from fastinit.nn._losses import Targets
from fastinit.nn._network import Init, Network
from fastinit.nn._optimizers import Optimizer, as_optimizer
from fastinit.nn._samples import Samples, as_samples, as_weights, dense
from fastinit.schemes._filling import fill

_BATCH = 200  # samples in a batch by default, as in scikit-learn
_ABOUT = "fastinit.MLP"  # in the metadata of a saved model: all but its parameters


class MLP:
    """A multilayer perceptron, or a population of them, trained in compiled code.

    Args:
        sizes: features, then the units of every layer, the last being the outputs.
        activation: of the hidden layers: a name, or an `activation` with parameters.
        output: "softmax" (classes), "sigmoid" (two classes with one output, else independent yes-or-no labels), or
            "identity" (regression). The loss is the cross-entropy, or the mean squared error.
        init: the weights' law: a scheme's name, a distribution, or one of those for each layer. Default: he_normal for
            the relu family (relu, leaky_relu, elu, gelu, gelu_tanh, silu, softplus), lecun_normal for selu,
            xavier_uniform for the rest. Biases begin at zero.
        seed: an int or a `Key`; None draws fresh entropy. Layer i's weights are the stream of
            `Key(seed) / "layers.i.weight"`. The key that was used is `model.key`.
        dtype: "float32" or "float64".
        classes: the labels of the classes, in the order of the outputs: strings, bools or numbers. None: those of the
            first `fit`.
        population: so many candidate solutions, evaluated and trained together: `parameters` and all results have a
            leading axis of this size. None: a single model, without that axis.

    Attributes:
        parameters: name -> array, "layers.0.weight" (out, in), "layers.0.bias", ...; views of one buffer.
        gradients: likewise, of the last step.
        classes_: the label of each class, which `predict` gives back; None where they are not known yet, and for
            outputs without classes.
        key: the seed that was used, as a `Key`. `MLP(..., seed=model.key)` begins with the same weights.
        epochs: how many `fit` has made.

    Training is reproducible: the same seed and data give the same bits on any processor and with any number of threads.

    Raises:
        TypeError, ValueError: an argument of the wrong type or out of range.

    >>> model = MLP([2, 8, 1], activation="tanh", output="sigmoid", seed=0)
    >>> {name: array.shape for name, array in model.parameters.items()}["layers.0.weight"]
    (8, 2)
    >>> X, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32), np.array([0, 1, 1, 0])
    >>> from fastinit import Adam
    >>> history = model.fit(X, y, epochs=300, batch_size=4, optimizer=Adam(0.05))
    >>> model.predict(X).tolist(), model.score(X, y)
    ([0, 1, 1, 0], 1.0)

    Labels may be strings, as in scikit-learn:

    >>> model = MLP([2, 8, 2], activation="tanh", seed=0)
    >>> history = model.fit(X, ["even", "odd", "odd", "even"], epochs=300, optimizer=Adam(0.05))
    >>> model.classes_.tolist(), model.predict(X[:2]).tolist()
    (['even', 'odd'], ['even', 'odd'])
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: str | Activation = "relu",
        output: str = "softmax",
        *,
        init: Init | None = None,
        seed: Seed = None,
        dtype: Any = "float32",
        classes: Sequence[Any] | None = None,
        population: int | None = None,
    ) -> None:
        self.sizes = _as_sizes(sizes)
        self.activation = as_activation(activation)
        if output not in outputs.OUTPUTS:
            raise unknown("output", output, outputs.OUTPUTS)
        self.output = output
        self.dtype = as_dtype(dtype)
        if self.dtype.name not in FLOATS:
            raise TypeError(f"dtype must be one of {', '.join(FLOATS)}. Received: dtype={dtype!r}")
        self.population = None if population is None else positive_int("population", population)
        count = number_of_classes(output, self.sizes[-1])
        self.classes_: Array | None = None if classes is None else as_classes(classes, count)
        self.key = as_key(seed)
        self.epochs = 0  # that `fit` has made; each has a shuffle of its own
        self.network = Network(self.sizes, self.activation, self.dtype, self.population)
        self.parameters: Mapping[str, Array] = self.network.views(self.network.parameters)
        self.gradients: Mapping[str, Array] = self.network.views(self.network.slopes)
        self.network.initialise(init, self.key)
        self._trainer: tuple[Any, training.Trainer] | None = None
        self._optimizers: dict[str, Optimizer] = {}  # those that were asked for by name

    def forward(self, X: Any) -> Array:
        """The last layer's outputs before their activation (logits): (samples, outputs), for X (samples, features).

        With a population: (members, samples, outputs). X is what `fit` takes.

        Raises:
            TypeError: X is not of numbers.
            ValueError: X has another shape, or numbers that are missing or not finite.
        """
        found = training.predict(self.network, self.as_samples(X))
        return found if self.population else found[0]

    def predict_proba(self, X: Any) -> Array:
        """Probabilities, in scikit-learn's shapes: (samples, classes) in the order of `classes_`; with one sigmoid
        output (samples, 2), else (samples, labels). A population has its members in front.

        Raises:
            ValueError: the output is "identity", or X has another shape.
        """
        if self.output == "identity":
            raise ValueError('an output of "identity" has no probabilities: use predict')
        logits = self.forward(X)
        return outputs.probabilities(self.output, logits)

    def predict(self, X: Any) -> Array:
        """Classes (samples,), yes-or-no labels (samples, labels), or values: (samples,) for one output, else (samples,
        outputs). Classes are those of `classes_`, or their numbers from 0. A population has its members in front."""
        found = outputs.predictions(self.output, self.forward(X))
        return found if self.classes_ is None else self.classes_[found]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Accuracy, of whole rows for several labels; R^2, averaged over the outputs, for "identity". A float, or an
        array of the members' scores. X, y and `sample_weight` are what `fit` takes."""
        return self._score(*self._as_data(X, y, sample_weight))

    def _score(self, samples: Samples, targets: Targets) -> Any:
        scores = outputs.scores(self.output, training.predict(self.network, samples), targets)
        return scores if self.population else float(scores[0])

    def loss_and_grad(self, X: Any, y: Any, sample_weight: Any = None) -> tuple[Any, Mapping[str, Array]]:
        """The mean loss over all samples, and its gradients: `gradients`, views that the next call overwrites.

        Arguments are those of `step`.
        """
        return self._one_step(X, y, sample_weight, None, None), self.gradients

    def step(
        self,
        X: Any,
        y: Any,
        optimizer: str | Optimizer = "adam",
        max_grad_norm: float | None = None,
        sample_weight: Any = None,
    ) -> Any:
        """One step on one batch: forward, loss, backward, clip, update, in one compiled call.

        Args:
            X, sample_weight: as in `fit`.
            y: as in `fit`, but no classes are learned from it: a batch may not have all of them.
            optimizer: as in `fit`.
            max_grad_norm: L2 norm of all gradients together to clip at. `gradients` holds them unclipped.

        Returns:
            The loss before the step: a float, or an array of the members' losses. NaN in the weights reaches it.

        Raises:
            TypeError, ValueError: what does not fit; nothing was changed.
        """
        return self._one_step(X, y, sample_weight, optimizer, _as_norm(max_grad_norm))

    def _trainer_of(self, batch: int, targets: Targets) -> training.Trainer:
        """The trainer for batches of this size, from the last call if it still fits."""
        wanted = batch, targets.kernel, targets.array.dtype, num_threads()
        if self._trainer is None or self._trainer[0] != wanted:
            self._trainer = wanted, training.Trainer(self.network, batch, targets)
        return self._trainer[1]

    def _one_step(self, X: Any, y: Any, sample_weight: Any, optimizer: Any, largest: float | None) -> Any:
        samples, targets = self._as_data(X, y, sample_weight)
        samples = dense(samples)
        if optimizer is not None:
            optimizer = as_optimizer(optimizer, self._optimizers)
        [records] = self._trainer_of(len(samples), targets).steps(samples, targets, optimizer, largest)
        return records[0, :, 0] if self.population else float(records[0, 0, 0])

    def fit(
        self,
        X: Any,
        y: Any,
        epochs: int,
        batch_size: int | None = None,
        optimizer: str | Optimizer = "adam",
        max_grad_norm: float | None = None,
        validation: tuple[Any, ...] | None = None,
        shuffle: bool = True,
        progress: Progress = False,
        callback: Callable[[int, History], Any] | None = None,
        sample_weight: Any = None,
    ) -> History:
        """Train for so many epochs; all steps of an epoch run in compiled code.

        Args:
            X: (samples, features) finite numbers; converted to the model's dtype. An array, a list, a data frame, a
                tensor, or a sparse matrix of SciPy, of which some batches at a time are made dense.
            y: (samples,) labels of the classes: strings, bools or whole numbers. Those from 0 to classes - 1 are the
                numbers of the outputs; others are counted as scikit-learn does, in ascending order, by the first `fit`,
                and must be as many as the classes. Or shares (samples, classes). For one "sigmoid" output two classes,
                or probabilities of the second one; for several (samples, outputs), 0 to 1, or -1 and 1. For "identity"
                values, (samples, outputs). One output takes (samples,) too.
            epochs: a positive int.
            batch_size: a positive int; None is 200, or all samples if they are fewer, as in scikit-learn. The last
                batch of an epoch may be smaller.
            optimizer: an `SGD`, `Adam` or `AdamW` of this model; or "sgd", "adam" or "adamw", one with its defaults,
                which the model keeps. A second `fit` goes on where the first ended, if it gets the same one.
            max_grad_norm: as in `step`.
            validation: (X, y) or (X, y, sample_weight) that are scored after every epoch.
            shuffle: a new order of the samples in every epoch, from the stream of the model's key and the epoch's
                number.
            progress: True shows a bar (lines, without a terminal) on stderr; a function is called with the number of
                epochs that are done, and of all.
            callback: called with the epoch's number from 0 and the history; ends the training by returning
                what is true.
            sample_weight: (samples,), at least 0. The loss of a batch is its weighted mean, sum(w loss) / sum(w), as in
                scikit-learn's `MLPClassifier`: a weight of 2 counts a sample twice, and 0 leaves it out.

        Returns:
            What happened, by epoch. A loss that is not finite ends nothing, but is warned of.

        Ctrl-C raises KeyboardInterrupt after a whole step; the model can be used, and trained on.

        Raises:
            TypeError, ValueError: what does not fit; nothing was changed.
        """
        labels = self._labels()
        samples, targets = self._as_data(X, y, sample_weight, labels, learn=True)
        chosen = None if targets.weights is None or targets.weights.all() else np.flatnonzero(targets.weights)
        count = samples.shape[0] if chosen is None else len(chosen)
        epochs = positive_int("epochs", epochs)
        batch_size = min(_BATCH, count) if batch_size is None else positive_int("batch_size", batch_size)
        held_out = None
        if validation is not None:
            if not isinstance(validation, tuple) or len(validation) not in (2, 3):
                raise TypeError(
                    f"validation must be a tuple (X, y) or (X, y, sample_weight). Received: {type(validation).__name__}"
                )
            held_out = self._as_data(*validation, labels=labels)  # type: ignore[misc]
        if callback is not None and not callable(callback):
            raise TypeError(f"callback must be callable. Received: {callback!r}")
        largest, optimizer = _as_norm(max_grad_norm), as_optimizer(optimizer, self._optimizers)
        self.classes_ = labels.classes
        trainer = self._trainer_of(min(batch_size, count), targets)
        history = History()
        with progress_bar(progress, epochs, "epochs") as advance:
            for epoch in range(epochs):
                order = self._order(count) if shuffle else None
                if chosen is not None:
                    order = chosen if order is None else chosen[order]
                self.epochs += 1
                records = np.concatenate(list(trainer.epoch(samples, targets, optimizer, largest, order)))
                weights = _batch_weights(targets.weights, order, count, trainer.batch)
                history._add(records if self.population else records[:, 0], weights, largest)
                if held_out is not None:
                    history.validation.append(self._score(*held_out))
                if not np.isfinite(records[..., 0]).all():
                    warnings.warn(f"the loss is not finite in epoch {epoch}", RuntimeWarning, stacklevel=2)
                advance(1)
                if callback is not None and callback(epoch, history):
                    break
        return history

    def _order(self, samples: int) -> Array:
        numbers = np.empty(samples)
        fill(numbers, Uniform(), seed=self.key / "shuffle" / str(self.epochs))
        return np.argsort(numbers, kind="stable").astype(np.int64)

    def as_samples(self, X: Any, at_least: int = 0) -> Samples:
        """X as the kernels take it: contiguous, of the model's dtype, or sparse rows; errors as in `fit`."""
        return as_samples(X, self.sizes[0], self.dtype, at_least)

    def _labels(self) -> Labels:
        return Labels(self.output, self.sizes[-1], self.dtype, self.classes_)

    def _as_data(
        self, X: Any, y: Any, sample_weight: Any = None, labels: Labels | None = None, learn: bool = False
    ) -> tuple[Samples, Targets]:
        """At least one sample, and the targets of all; with `learn` the labels learn the classes."""
        samples = self.as_samples(X, at_least=1)
        rows = samples.shape[0]
        targets = (labels or self._labels()).read(y, rows, learn=learn)
        return samples, targets._replace(weights=as_weights(sample_weight, rows))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the parameters, by name, and what `load` needs to a safetensors file."""
        arrays = self.parameters
        rows = {name: (array.dtype.name, array.shape) for name, array in arrays.items()}
        metadata = {"format": "np", _ABOUT: json.dumps(self._about())}
        header = as_header(rows, metadata, file=os.fspath(path))
        put(Path(path), b"".join([header, *(array.tobytes() for array in arrays.values())]))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> MLP:
        """The model that `save` wrote.

        Raises:
            ValueError: the file holds no such model.
            OSError: it cannot be read.
        """
        wrong = f"path must be a file that MLP.save wrote. Received: {os.fspath(path)!r}"
        Path(path).open("rb").close()  # the system's own error for a folder, or what is not there
        try:
            start, stored = read_header(Path(path))
            content = Path(path).read_bytes()
            model = _restored(parse_json(parse_json(content[8:start].decode())[METADATA][_ABOUT], infinite=True))
        except (KeyError, ValueError, TypeError) as error:
            raise ValueError(wrong) from error
        found = {name: (tensor.shape, tensor.dtype) for name, tensor in stored.items()}
        if found != {name: (array.shape, array.dtype.name) for name, array in model.parameters.items()}:
            raise ValueError(f"{wrong}; its tensors are not those of its model")
        for name, array in model.parameters.items():
            data = np.frombuffer(content, array.dtype, array.size, start + stored[name].start)
            array[...] = data.reshape(array.shape)
        return model

    def _about(self) -> dict[str, Any]:
        """All but the parameters, as JSON has it."""
        return {
            "sizes": list(self.sizes),
            "activation": [self.activation.name, dict(self.activation.parameters)],
            "output": self.output,
            "dtype": self.dtype.name,
            "classes": None if self.classes_ is None else [self.classes_.dtype.str, self.classes_.tolist()],
            "population": self.population,
            "epochs": self.epochs,
            "seed": [str(self.key.seed), list(self.key.path)],
        }

    def __repr__(self) -> str:
        parts = [list(self.sizes), self.activation.name, self.output]
        more = [f"dtype={self.dtype.name!r}"] + ([f"population={self.population}"] if self.population else [])
        return f"MLP({', '.join([*map(repr, parts), *more])})"

    def __reduce__(self) -> Any:
        """Copies and pickles are models of their own: views of their own buffer, at its own address."""
        return _restored, (self._about(), self.network.parameters, self.network.slopes)


def _restored(about: dict[str, Any], parameters: Array | None = None, slopes: Array | None = None) -> MLP:
    about = dict(about)
    (name, numbers), (seed, names), epochs = about.pop("activation"), about.pop("seed"), about.pop("epochs")
    key, classes = Key(int(seed), tuple(names)), about.pop("classes")
    if classes is not None:
        about["classes"] = np.array(classes[1], classes[0])
    model = MLP(activation=Activation(name, tuple(numbers.items())), seed=key, init="zeros", **about)
    model.epochs = epochs
    for target, source in ((model.network.parameters, parameters), (model.network.slopes, slopes)):
        if source is not None:
            target[...] = source
    return model


def _as_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    if not isinstance(sizes, Iterable) or len(found := tuple(sizes)) < 2:
        raise ValueError(f"sizes must be two or more ints: features, units of each layer. Received: sizes={sizes!r}")
    return tuple(positive_int("sizes", n) for n in found)


def _as_norm(max_grad_norm: float | None) -> float | None:
    return None if max_grad_norm is None else non_negative("max_grad_norm", max_grad_norm)


def _batch_weights(weights: Array | None, order: Array | None, count: int, batch: int) -> Array:
    """The weight of each batch of an epoch."""
    each = np.ones(count) if weights is None else weights if order is None else weights[order]
    return np.add.reduceat(each, np.arange(0, count, batch))
