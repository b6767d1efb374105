"""`probe` and `compare`: what a network does to signals and gradients at its initialisation."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

from fastinit._core.key import Key, Seed, as_key
from fastinit._probe.advice import AS_IT_IS, Scheme, advised, candidates, distributions_of
from fastinit._probe.dense import probe_network
from fastinit._probe.results import Comparison, Probe
from fastinit._runtime.checks import positive_int
from fastinit.nn._activations import Activation
from fastinit.nn._mlp import MLP
from fastinit.nn._network import FITTING

SAMPLES = 256
_OTHER_FRAMEWORKS = {"equinox", "flax", "keras"}  # whose modules are not run


def probe(
    model_or_sizes: Any,
    scheme: Scheme | None = None,
    activation: str | Activation | None = None,
    data: Any = None,
    seed: Seed = 0,
    *,
    output: str = "softmax",
    samples: int = SAMPLES,
    dtype: Any = "float32",
    loss: Callable[[Any], Any] | None = None,
) -> Probe:
    """One forward and one backward pass at initialisation: what becomes of signals and gradients, layer by layer.

    Args:
        model_or_sizes: sizes, as `MLP` takes them: a network that is made for the purpose. An `MLP`, or a
            `torch.nn.Module`: it is probed as it is, and left so; its weights change for the time of the probe where a
            scheme is given.
        scheme: of the weights: its name, text such as "normal(std=0.01)", a distribution, or one of those for each
            layer. Default: that of `MLP` for the activation; of a module, the weights that it has. Of a module it is
            the scheme of all parameters with two dimensions or more (or one for each of them), drawn by their names;
            biases and the like stay as they are.
        activation: of the hidden layers; for sizes only. Default: relu.
        data: for dense networks X (samples, features) or (X, y), y as in `MLP.step`; for a module what it is called
            with: a tensor, a tuple, or a dict of named arguments. Default: standard normal samples and targets that
            are as likely as any, drawn from the seed; a module needs its data.
        seed: an int or a `Key`, of what is drawn; of a module its dropout too. None draws fresh entropy; the result's
            `seed` tells the key. An `MLP` that is probed as it is has its own key.
        output: of networks made from sizes, as in `MLP`; it decides the loss.
        samples: how many are drawn where there are no data.
        dtype: "float32" or "float64", of networks made from sizes.
        loss: for a module: a function of its output that gives a scalar tensor. Default: the output's own `loss`, if it
            has one, or the mean product of its first tensor with a standard normal one: a gradient of no preferred
            direction.

    A module's layers are those without parts that run, and those that own a weight; one that runs twice has two rows,
    "relu" and "relu#2". It may be in any mode, and frozen or compiled (it runs as it is written); what it holds is not
    written to, and torch's generators stay where they are.

    Returns:
        A `Probe`: print it for a table, `to_html()` is a page, `to_json()` the numbers, `fastinit.plots` has pictures.

    Raises:
        TypeError, ValueError: an argument of the wrong type, out of range, or one that does not belong here.

    Sources: He et al., ICCV 2015, section 2.2 (the variance of signals, forward and backward); Glorot & Bengio, AISTATS
    2010, section 4.2 (histograms of activations and of back-propagated gradients).

    >>> found = probe([784, *[256] * 30, 10], scheme="xavier_normal", activation="relu")
    >>> found.verdict.kind, found.verdict.fitting
    ('vanishing', 'he_normal')
    >>> found.layers[29].activations.ratio < 1e-3
    True
    >>> probe([784, *[256] * 30, 10], scheme="he_normal").verdict.kind
    'healthy'
    """
    samples, key = positive_int("samples", samples), as_key(seed)
    if isinstance(model_or_sizes, MLP):
        _only_for("sizes", activation=activation)
        _only_for("a torch module", loss=loss)
        return _probe_mlp(model_or_sizes, scheme, data, key, samples)
    if "torch" in sys.modules:
        from torch import nn

        if isinstance(model_or_sizes, nn.Module):
            from fastinit._probe.module.probe_module import probe_module

            _only_for("sizes", activation=activation)
            return probe_module(model_or_sizes, scheme, data, key, loss)
    others = _OTHER_FRAMEWORKS & {kind.__module__.partition(".")[0] for kind in type(model_or_sizes).__mro__}
    if others or isinstance(model_or_sizes, str) or not isinstance(model_or_sizes, Iterable):
        received = f"{model_or_sizes!r:.200}"
        if others:  # their representations are of many lines
            framework = f"a network of {min(others)}"
            received = (
                f"{type(model_or_sizes).__name__}, {framework}. Give the sizes of its dense layers: [784, 256, 10]"
            )
        raise TypeError(f"model_or_sizes must be sizes, an MLP or a torch module. Received: {received}")
    _only_for("a torch module", loss=loss)
    model = MLP(list(model_or_sizes), activation or "relu", output, init="zeros", seed=key, dtype=dtype)
    scheme = FITTING.get(model.activation.name, "xavier_uniform") if scheme is None else scheme
    return _probe_mlp(model, scheme, data, key, samples)


def compare(
    model_or_sizes: Any,
    schemes: Iterable[Scheme | None],
    activations: Iterable[str | Activation] | None = None,
    data: Any = None,
    seed: Seed = 0,
    **options: Any,
) -> Comparison:
    """Probe one network under several schemes and activations, all else being the same.

    Args:
        model_or_sizes, data, seed: as in `probe`: sizes, an `MLP` or a torch module.
        schemes, activations: of every pair there is a probe. A scheme None is `MLP`'s for the activation, or the
            weights that a model has. Activations are for sizes; default: relu alone.
        options: others of `probe`.

    Raises:
        TypeError, ValueError: as `probe`, or an empty list.

    >>> found = compare([64, *[128] * 20, 10], ["zeros", "normal(std=0.01)", "he_normal", "normal(std=1)"])
    >>> for one in found:
    ...     print(f"{one.scheme:<18}{', '.join(one.verdict.kinds)}")
    zeros             vanishing, symmetric
    normal(std=0.01)  vanishing
    he_normal         healthy
    normal(std=1)     exploding
    """
    schemes = _listed("schemes", schemes)
    each = [None] if activations is None else _listed("activations", activations)
    key = as_key(seed)  # one for all: None would draw another network for each scheme
    return Comparison(
        tuple(
            probe(model_or_sizes, scheme=scheme, activation=activation, data=data, seed=key, **options)
            for activation in each
            for scheme in schemes
        )
    )


def _probe_mlp(model: MLP, scheme: Scheme | None, data: Any, key: Key, samples: int) -> Probe:
    """Probe a model as it is, or one like it under another scheme."""
    if model.population is not None:
        raise ValueError(f"model must not be a population. Received: population={model.population}")
    shapes = [weight.shape for name, weight in model.parameters.items() if name.endswith("weight")]

    def under(scheme: Scheme) -> Probe:
        distributions, text = distributions_of(scheme, shapes)
        other = MLP(model.sizes, model.activation, model.output, init=distributions, seed=key, dtype=model.dtype)
        return probe_network(other, text, data, samples)

    found = probe_network(model, AS_IT_IS, data, samples) if scheme is None else under(scheme)
    return advised(found, candidates(model.activation), under)


def _only_for(what: str, **given: Any) -> None:
    for name, value in given.items():
        if value is not None:
            raise TypeError(f"{name} is for {what} only. Received: {name}={value!r}")


def _listed(name: str, values: Any) -> list[Any]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a list. Received: {values!r:.200}")
    listed = list(values)
    if not listed:
        raise ValueError(f"{name} must not be empty")
    return listed
