"""scikit-learn estimators on `fastinit.MLP`: `MLPClassifier` and `MLPRegressor`.

>>> from sklearn.datasets import load_iris
>>> from sklearn.model_selection import cross_val_score
>>> from sklearn.pipeline import make_pipeline
>>> from sklearn.preprocessing import StandardScaler
>>> from fastinit.sklearn import MLPClassifier
>>> model = make_pipeline(StandardScaler(), MLPClassifier((16,), learning_rate_init=0.05, max_iter=500))
>>> bool(cross_val_score(model, *load_iris(return_X_y=True)).mean() > 0.9)
True

They have the arguments, attributes and defaults of scikit-learn's classes of these names, and are used alike: in
pipelines and searches, with pandas and sparse input, sample weights and several labels or targets.

**As in scikit-learn**: the gradients, also where `MLP` has another scale (several labels or targets, squared errors);
the updates; `loss_curve_`, aside from the penalty; when training ends; the score and the weights that `early_stopping`
keeps.

**Otherwise than in scikit-learn**:

- The solver "lbfgs" and its `max_fun`, and the regressor's `loss`, do not exist.
- The weights come from `init`, by default a scheme that fits the activation, and biases begin at zero.
- `alpha` is divided by the samples of a batch (by the sum of their weights), as in scikit-learn, but shrinks the biases
  too. The last, smaller batch of an epoch is penalised like the others, and losses are reported without the penalty.
- Samples of weight 0 are left out before the batches are made.
- `momentum` is torch's: the velocity is a sum of gradients, which the learning rate of the step multiplies. With a
  learning rate that changes, scikit-learn's velocity remembers the old ones.
- `epsilon` of Adam is added where torch adds it: after the correction of the bias.
- `early_stopping` holds out the same share of each class also where there are more than two.
- A single class is an error, and predictions for several labels are never sparse.
- Ctrl-C raises KeyboardInterrupt after a whole step. The model is kept, and can be used.

Results are the same for the same `random_state` on every machine, but for "invscaling", whose power is libm's.
"""

from __future__ import annotations

import math
import numbers
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
except ModuleNotFoundError as error:
    raise ImportError("fastinit.sklearn needs scikit-learn: pip install 'fastinit-weights[sklearn]'") from error

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, validate_data

from fastinit._runtime.arrays import Array
from fastinit._runtime.checks import non_negative, positive_int, unknown
from fastinit.nn._activations import Activation
from fastinit.nn._history import History
from fastinit.nn._mlp import MLP
from fastinit.nn._network import Init
from fastinit.nn._optimizers import SGD, Adam, LearningRate
from fastinit.nn._samples import as_weights

__all__ = ["MLPClassifier", "MLPRegressor"]

_FORMS: dict[str, Any] = {"accept_sparse": "csr", "dtype": (np.float64, np.float32)}  # of X
_BATCH = 200  # samples, for "auto"
_SMALLEST_RATE = 1e-6  # "adaptive" ends below it
_SOLVERS = "adam", "sgd"
_RATES = "constant", "invscaling", "adaptive"


@dataclass(frozen=True)
class _Scaled:
    """A schedule times a factor."""

    schedule: Callable[[int], float]
    factor: float

    def __call__(self, step: int) -> float:
        return self.factor * self.schedule(step)


class _Estimator(BaseEstimator):
    """What both estimators share: their arguments, and training."""

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: str | Activation = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: LearningRate = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        init: Init | None = None,
        max_grad_norm: float | None = None,
        dtype: Any = None,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.init = init
        self.max_grad_norm = max_grad_norm
        self.dtype = dtype

    @property
    def coefs_(self) -> list[Array]:
        """The weights of each layer, (inputs, outputs): views of the model's."""
        return [weight.T for weight in list(self.model_.parameters.values())[::2]]

    @property
    def intercepts_(self) -> list[Array]:
        """The biases of each layer: views of the model's."""
        return list(self.model_.parameters.values())[1::2]

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train until the loss or the score stops improving, or for `max_iter` epochs.

        Args:
            X: (samples, features), an array, a data frame or a sparse matrix.
            y: the targets of the samples.
            sample_weight: (samples,), not negative.

        Returns:
            The estimator.

        Raises:
            TypeError, ValueError: what does not fit, or a loss or weights that are not finite.
        """
        fresh = not (self.warm_start and hasattr(self, "model_"))
        return self._fit(X, y, sample_weight, fresh, self.max_iter)

    def predict(self, X: Any) -> Array:
        """Return the classes, labels or values that the model predicts for X (samples, features)."""
        return self._fitted().predict(self._samples(X))

    def _fitted(self) -> MLP:
        check_is_fitted(self, "model_")
        model: MLP = self.model_
        return model

    def _samples(self, X: Any) -> Any:
        return validate_data(self, X, reset=False, **_FORMS)

    def _partial_fit(self, X: Any, y: Any, sample_weight: Any, classes: Any = None) -> Self:
        if self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")
        return self._fit(X, y, sample_weight, not hasattr(self, "model_"), None, classes)

    def _fit(self, X: Any, y: Any, sample_weight: Any, fresh: bool, epochs: int | None, classes: Any = None) -> Self:
        """Train for so many epochs at most, or a single one for None, with the optimizer of the last one."""
        hidden = self._checked()
        numeric = isinstance(self, RegressorMixin)
        samples, y = validate_data(self, X, y, reset=fresh, multi_output=True, y_numeric=numeric, **_FORMS)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if as_weights(sample_weight, samples.shape[0]) is not None:
            sample_weight = np.asarray(sample_weight, np.float64)
        output, columns, labels = self._outputs(y, fresh, classes)
        sizes = samples.shape[1], *hidden, columns
        state = check_random_state(self.random_state)
        if fresh:
            self._begin(sizes, output, labels, samples.dtype, state)
        elif (sizes, output) != (self.model_.sizes, self.model_.output):
            raise ValueError(
                f"a fitted model's layers and targets must stay as they were. Received: {sizes} with "
                f"{output!r}, before: {self.model_.sizes} with {self.model_.output!r}"
            )
        if bool(self.early_stopping) != (self.best_loss_ is None):
            self._forget()
        held_out = None
        if self.early_stopping:
            samples, y, sample_weight, held_out = self._split(samples, y, sample_weight, state)
        counted = np.ones(samples.shape[0]) if sample_weight is None else sample_weight[sample_weight > 0]
        batch = min(_BATCH if self.batch_size == "auto" else int(self.batch_size), max(1, counted.size))
        if epochs is not None or not hasattr(self, "_optimizer"):
            self._optimizer = self._new_optimizer()
        if counted.size:  # else `MLP.fit` refuses
            self._optimizer.weight_decay = self.alpha / (batch * counted.mean() * self._scales()[0])
        self.n_iter_ = 0
        ended = self._train(samples, y, sample_weight, epochs or 1, batch, held_out)
        if epochs is not None and not ended:
            warnings.warn(
                f"Maximum iterations ({self.max_iter}) reached and the optimization hasn't converged yet.",
                ConvergenceWarning,
                stacklevel=3,
            )
        return self

    def _outputs(self, y: Array, fresh: bool, classes: Any) -> tuple[str, int, Any]:
        """Return the kind of output, the number of outputs and the classes that the targets need."""
        raise NotImplementedError

    def _checked(self) -> list[int]:
        """Check the arguments that `MLP` does not have, or knows by other names. Return the hidden layers' sizes."""
        if self.solver not in _SOLVERS:
            raise unknown("solver", self.solver, _SOLVERS)
        if self.learning_rate not in _RATES:
            raise unknown("learning_rate", self.learning_rate, _RATES)
        if not callable(self.learning_rate_init):
            non_negative("learning_rate_init", self.learning_rate_init)
        elif self.learning_rate != "constant":
            raise ValueError(
                f'learning_rate must be "constant" where learning_rate_init is a function. '
                f"Received: learning_rate={self.learning_rate!r}"
            )
        for name in ("alpha", "power_t", "tol", "epsilon"):
            non_negative(name, getattr(self, name))
        for name in ("momentum", "beta_1", "beta_2", "validation_fraction"):
            if non_negative(name, getattr(self, name)) >= 1:
                raise ValueError(f"{name} must be below 1. Received: {name}={getattr(self, name)!r}")
        positive_int("max_iter", self.max_iter)
        if self.n_iter_no_change != math.inf:
            positive_int("n_iter_no_change", self.n_iter_no_change)
        if self.batch_size != "auto":
            positive_int("batch_size", self.batch_size)
        sizes = self.hidden_layer_sizes
        return [positive_int("hidden_layer_sizes", size) for size in (sizes if np.iterable(sizes) else [sizes])]

    def _begin(self, sizes: tuple[int, ...], output: str, labels: Any, dtype: Any, state: Any) -> None:
        """Make a new model, and what is known of its training."""
        seed = self.random_state
        if not isinstance(seed, numbers.Integral):
            seed = int.from_bytes(state.bytes(16), "little")
        self.model_ = MLP(
            sizes,
            "sigmoid" if self.activation == "logistic" else self.activation,
            output,
            init=self.init,
            seed=seed,
            dtype=dtype if self.dtype is None else self.dtype,
            classes=labels,
        )
        if labels is not None:
            self.classes_ = self.model_.classes_
        elif output == "sigmoid":
            self.classes_ = np.arange(sizes[-1])
        self.n_layers_, self.n_outputs_ = len(sizes), sizes[-1]
        self.out_activation_ = "logistic" if output == "sigmoid" else output
        self.t_ = 0
        self.loss_curve_: list[float] = []
        self._forget()

    def _forget(self) -> None:
        """Begin to look for the best loss or score."""
        self._stale = 0
        self.best_loss_: Any = None if self.early_stopping else math.inf
        self.validation_scores_: Any = [] if self.early_stopping else None
        self.best_validation_score_: Any = -math.inf if self.early_stopping else None

    def _split(self, X: Any, y: Any, weights: Array | None, state: Any) -> tuple[Any, Any, Any, tuple[Any, ...]]:
        """Return the samples to train on, and those to score."""
        arrays = [X, y] if weights is None else [X, y, weights]
        stratify = y if isinstance(self, ClassifierMixin) and y.ndim == 1 else None
        parts = train_test_split(*arrays, random_state=state, test_size=self.validation_fraction, stratify=stratify)
        if parts[1].shape[0] < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
            )
        return parts[0], parts[2], None if weights is None else parts[4], tuple(parts[1::2])

    def _scales(self) -> tuple[float, float]:
        """Return scikit-learn's gradient and loss over those of `MLP`, which takes the mean of all outputs.

        scikit-learn's gradient is that of the sum over the outputs of cross-entropies or of half the squared errors,
        and its loss that sum, but the mean for squared errors.
        """
        outputs = self.model_.sizes[-1]
        scales = {"softmax": (1.0, 1.0), "sigmoid": (float(outputs), float(outputs)), "identity": (outputs / 2, 0.5)}
        return scales[self.model_.output]

    def _new_optimizer(self) -> Any:
        """Return an optimizer that makes scikit-learn's steps from the gradients of `MLP`."""
        rate: Any = self.learning_rate_init
        scale = self._scales()[0]
        if self.solver == "adam":  # does not see the gradients' scale but by epsilon
            return Adam(rate, self.beta_1, self.beta_2, self.epsilon / scale)
        rate = _Scaled(rate, scale) if callable(rate) else rate * scale
        return SGD(rate, self.momentum, bool(self.nesterovs_momentum and self.momentum))

    def _train(self, X: Any, y: Any, weights: Any, epochs: int, batch: int, held_out: tuple[Any, ...] | None) -> bool:
        """Train for so many epochs at most. Return whether training ended before."""
        model, largest = self.model_, self.max_grad_norm
        best, ended = model.network.parameters.copy(), False
        if largest is not None:
            largest = non_negative("max_grad_norm", largest) / self._scales()[0]

        def is_over(_epoch: int, history: History) -> bool:
            nonlocal ended
            if self._improved(history, X.shape[0]) and held_out is not None:
                best[...] = model.network.parameters
            ended = self._is_over() or not math.isfinite(self.loss_)
            return ended

        model.fit(
            X, y, epochs, batch, self._optimizer, largest, held_out, self.shuffle, callback=is_over,
            sample_weight=weights,
        )  # fmt: skip
        if not (math.isfinite(self.loss_) and np.isfinite(model.network.parameters).all()):
            raise ValueError(
                f"training must keep the loss and the weights finite. Received: a loss of {self.loss_} in epoch "
                f"{self.n_iter_}; scale the input, or use a lower learning_rate_init or a max_grad_norm"
            )
        if held_out is not None:
            model.network.parameters[...] = best
        return ended

    def _improved(self, history: History, samples: int) -> bool:
        """Add the last epoch to the attributes. Return whether its loss, or its score, is the best yet."""
        self.n_iter_ += 1
        self.t_ += samples
        self.loss_ = history.loss[-1] * self._scales()[1]
        self.loss_curve_.append(self.loss_)
        if self.verbose:
            print(f"Iteration {self.n_iter_}, loss = {self.loss_:.8f}")
        if not self.early_stopping:
            merit, best = -self.loss_, -self.best_loss_
            self.best_loss_ = min(self.best_loss_, self.loss_)
        else:
            merit, best = history.validation[-1], self.best_validation_score_
            self.validation_scores_.append(merit)
            self.best_validation_score_ = max(best, merit)
            if self.verbose:
                print(f"Validation score: {merit:f}")
        self._stale = self._stale + 1 if merit < best + self.tol else 0
        return bool(merit > best)

    def _is_over(self) -> bool:
        """Change the learning rate after an epoch where it is due. Return whether training ends."""
        scale, rates = self._scales()[0], self.learning_rate if self.solver == "sgd" else "constant"
        if rates == "invscaling":
            initial: Any = self.learning_rate_init  # a number: `_checked`
            self._optimizer.learning_rate = initial * scale / (self.t_ + 1) ** self.power_t
        if self._stale <= self.n_iter_no_change:
            return False
        if rates == "adaptive" and self._optimizer.learning_rate > _SMALLEST_RATE * scale:
            self._optimizer.learning_rate /= 5
            self._stale = 0
            return False
        if self.verbose:
            measure = "Validation score" if self.early_stopping else "Training loss"
            print(f"{measure} did not improve by tol={self.tol:f} for {self.n_iter_no_change} epochs. Stopping.")
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[no-untyped-call]
        tags.input_tags.sparse = True
        return tags


class MLPClassifier(ClassifierMixin, _Estimator):
    """A classifier with the interface of scikit-learn's `MLPClassifier`, on `fastinit.MLP`.

    The loss is the cross-entropy: of the softmax for three classes or more, of the sigmoid for two, and of one sigmoid
    for each label where y has several columns of 0 and 1.

    Args:
        hidden_layer_sizes: units of each hidden layer; an int is one layer.
        activation: of the hidden layers: a name that `MLP` takes, "logistic", or a `fastinit.activation`.
        solver: "adam" or "sgd".
        alpha: L2 penalty.
        batch_size: samples of a step; "auto" is 200. All samples, if they are fewer.
        learning_rate: for "sgd". "constant"; "invscaling", learning_rate_init / (t + 1)^power_t after t samples,
            changed after each epoch; or "adaptive", a fifth whenever training would end, down to 1e-6.
        learning_rate_init: a number, or a function of the step (`fastinit.schedules`) where `learning_rate` is
            "constant". Each `fit` begins with step 0, and `partial_fit` goes on.
        power_t: the exponent of "invscaling".
        max_iter: epochs at most; a ConvergenceWarning tells that they did not suffice.
        shuffle: a new order of the samples for each epoch.
        random_state: an int is the seed of `MLP`, and gives the same model every time. A RandomState, or for None the
            global one of NumPy, draws a seed.
        tol: training ends when the loss, or with `early_stopping` the score, has not improved by so much for more than
            `n_iter_no_change` epochs.
        verbose: print the loss of each epoch.
        warm_start: `fit` goes on with the weights that are there.
        momentum, nesterovs_momentum: of "sgd"; `momentum` is below 1.
        early_stopping: hold out samples, of each class its share, and keep the weights of the epoch that scored best on
            them.
        validation_fraction: share of the samples that are held out.
        beta_1, beta_2, epsilon: of "adam".
        n_iter_no_change: epochs without improvement that are allowed; math.inf never ends training.
        init: the distribution of the weights, as `MLP` takes it; None fits the activation.
        max_grad_norm: L2 norm to clip the gradients at.
        dtype: "float32" or "float64" for the model; None is that of X, float64 for what is not float32.

    Attributes:
        model_: the `fastinit.MLP`, which can be saved and trained further.
        coefs_, intercepts_: weights (inputs, outputs) and biases of each layer, views of the model's.
        classes_: the classes, in the order of the columns of `predict_proba`.
        loss_, loss_curve_: the loss of the last epoch, and of each.
        best_loss_: the lowest loss; None with `early_stopping`.
        validation_scores_, best_validation_score_: accuracy on the samples held out, with `early_stopping`, else None.
        n_iter_: epochs of the last `fit`.
        t_: samples that were trained on.
        n_features_in_, feature_names_in_: of X.
        n_layers_, n_outputs_, out_activation_: of the network.

    >>> X, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), ["even", "odd", "odd", "even"]
    >>> model = MLPClassifier((8,), "tanh", learning_rate_init=0.05, max_iter=500, random_state=0).fit(X, y)
    >>> model.predict(X).tolist(), model.classes_.tolist()
    (['even', 'odd', 'odd', 'even'], ['even', 'odd'])
    """

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Self:
        """Train for one epoch.

        Args:
            X, y, sample_weight: as in `fit`.
            classes: all classes that will come, for the first call. Not needed for several labels.

        Returns:
            The estimator.

        Raises:
            TypeError, ValueError: what does not fit, no classes in the first call, or others later.
        """
        if classes is None and not hasattr(self, "model_") and not type_of_target(y).startswith("multilabel"):
            raise ValueError("classes must be given in the first call of partial_fit. Received: classes=None")
        return self._partial_fit(X, y, sample_weight, classes)

    def predict_proba(self, X: Any) -> Array:
        """Return probabilities: (samples, classes) in the order of `classes_`, or (samples, labels)."""
        return self._fitted().predict_proba(self._samples(X))

    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithms of `predict_proba`."""
        with np.errstate(divide="ignore"):
            result: Array = np.log(self.predict_proba(X))
        return result

    def _outputs(self, y: Any, fresh: bool, classes: Any) -> tuple[str, int, Any]:
        check_classification_targets(y)
        if type_of_target(y).startswith("multilabel"):
            return "sigmoid", y.shape[1], None
        if not fresh:
            labels: Any = self.classes_
            if classes is not None and not np.array_equal(np.unique(classes), labels):
                raise ValueError(f"classes must be those of the first call, {labels}. Received: classes={classes!r}")
        else:
            labels = np.unique(y if classes is None else classes)
        if len(labels) < 2:
            raise ValueError(f"y must have at least 2 classes. Received: 1 class, {labels.tolist()[0]!r}")
        return ("sigmoid", 1, labels) if len(labels) == 2 else ("softmax", len(labels), labels)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[no-untyped-call]
        tags.classifier_tags.multi_label = True
        return tags


class MLPRegressor(RegressorMixin, _Estimator):
    """A regressor with the interface of scikit-learn's `MLPRegressor`, on `fastinit.MLP`.

    The loss is half the mean squared error. y is (samples,) or (samples, targets).

    Args:
        hidden_layer_sizes: units of each hidden layer; an int is one layer.
        activation: of the hidden layers: a name that `MLP` takes, "logistic", or a `fastinit.activation`.
        solver: "adam" or "sgd".
        alpha: L2 penalty.
        batch_size: samples of a step; "auto" is 200. All samples, if they are fewer.
        learning_rate: for "sgd". "constant"; "invscaling", learning_rate_init / (t + 1)^power_t after t samples,
            changed after each epoch; or "adaptive", a fifth whenever training would end, down to 1e-6.
        learning_rate_init: a number, or a function of the step (`fastinit.schedules`) where `learning_rate` is
            "constant". Each `fit` begins with step 0, and `partial_fit` goes on.
        power_t: the exponent of "invscaling".
        max_iter: epochs at most; a ConvergenceWarning tells that they did not suffice.
        shuffle: a new order of the samples for each epoch.
        random_state: an int is the seed of `MLP`, and gives the same model every time. A RandomState, or for None the
            global one of NumPy, draws a seed.
        tol: training ends when the loss, or with `early_stopping` the score, has not improved by so much for more than
            `n_iter_no_change` epochs.
        verbose: print the loss of each epoch.
        warm_start: `fit` goes on with the weights that are there.
        momentum, nesterovs_momentum: of "sgd"; `momentum` is below 1.
        early_stopping: hold out samples, and keep the weights of the epoch that scored best on them.
        validation_fraction: share of the samples that are held out.
        beta_1, beta_2, epsilon: of "adam".
        n_iter_no_change: epochs without improvement that are allowed; math.inf never ends training.
        init: the distribution of the weights, as `MLP` takes it; None fits the activation.
        max_grad_norm: L2 norm to clip the gradients at.
        dtype: "float32" or "float64" for the model; None is that of X, float64 for what is not float32.

    Attributes:
        model_: the `fastinit.MLP`, which can be saved and trained further.
        coefs_, intercepts_: weights (inputs, outputs) and biases of each layer, views of the model's.
        loss_, loss_curve_: the loss of the last epoch, and of each.
        best_loss_: the lowest loss; None with `early_stopping`.
        validation_scores_, best_validation_score_: R^2 on the samples held out, with `early_stopping`, else None.
        n_iter_: epochs of the last `fit`.
        t_: samples that were trained on.
        n_features_in_, feature_names_in_: of X.
        n_layers_, n_outputs_, out_activation_: of the network.

    >>> X = np.linspace(-1, 1, 50).reshape(-1, 1)
    >>> model = MLPRegressor((16,), "tanh", learning_rate_init=0.02, max_iter=500, tol=1e-5, random_state=0)
    >>> model = model.fit(X, X[:, 0] ** 2)
    >>> bool(model.score(X, X[:, 0] ** 2) > 0.95)
    True
    """

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one epoch. Arguments are those of `fit`."""
        return self._partial_fit(X, y, sample_weight)

    def _outputs(self, y: Any, fresh: bool, classes: Any) -> tuple[str, int, Any]:
        return "identity", 1 if y.ndim == 1 else y.shape[1], None

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[no-untyped-call]
        tags.target_tags.multi_output = True
        return tags
