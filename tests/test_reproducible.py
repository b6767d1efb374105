"""Training has the same bits for any number of threads and on every processor: pinned runs of a hundred steps.

CI runs these tests as other processors do, too; `test_arm.py` trains on ARM.
"""

import json

import golden_training
import numpy as np
import pytest

import fastinit as fi
from fastinit.nn import _layers as layers
from fastinit.nn import _training as training

PINNED = json.loads(golden_training.PATH.read_text())


def test_every_run_is_pinned():
    assert list(PINNED) == list(golden_training.RUNS)


@pytest.mark.parametrize("name", golden_training.RUNS)
def test_a_hundred_steps_have_the_pinned_bits(name):
    assert golden_training.pinned(name) == PINNED[name]


@pytest.mark.parametrize("threads", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("name", golden_training.RUNS)
def test_for_any_number_of_threads(name, threads, monkeypatch):
    """Small steps are shared, too."""
    monkeypatch.setattr(layers, "PARALLEL_PRODUCTS", 0)
    monkeypatch.setattr(training, "SHARED_PRODUCTS", 0)
    with fi.thread_limit(threads):
        assert golden_training.pinned(name) == PINNED[name]


def test_runs_learn():
    """What is pinned is training, not noise."""
    for name in golden_training.RUNS:
        _, history = golden_training.trained(name)
        assert (np.array(history.loss[-1]) < np.array(history.loss[0])).all()


def test_layers_of_ones_own_have_the_bits_of_any_number_of_threads(monkeypatch):
    monkeypatch.setattr(layers, "PARALLEL_PRODUCTS", 0)
    x, weight, dy = (fi.normal(shape, std=1.0, seed=i) for i, shape in enumerate([(70, 300), (90, 300), (70, 90)]))

    def made():
        y = fi.dense_forward(x, weight, activation="tanh")
        return [y, *fi.dense_backward(dy, x, y, weight, "tanh")]

    with fi.thread_limit(1):
        expected = made()
    for threads in (2, 3, 8):
        with fi.thread_limit(threads):
            for found, wanted in zip(made(), expected, strict=True):
                np.testing.assert_array_equal(found, wanted)


def test_an_output_does_not_depend_on_the_other_rows():
    """A sample alone has the outputs that it has in a batch."""
    model = fi.MLP([300, 50, 7], "gelu", seed=0)
    x = fi.normal((600, 300), std=1.0, seed=1)
    whole = model.forward(x)
    for rows in (slice(0, 1), slice(5, 18), slice(250, 600)):
        np.testing.assert_array_equal(model.forward(x[rows]), whole[rows])
