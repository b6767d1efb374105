"""Pinned training runs. `python tests/golden_training.py` writes `golden_training.json` anew.

A change needs a line in the changelog and a reason, as a change of the stream does.
"""

import hashlib
import json
from pathlib import Path

import numpy as np

import fastinit as fi

PATH = Path(__file__).with_suffix(".json")
STEPS = 100
SAMPLES, BATCH = 160, 32  # 20 epochs of 5 steps

# Layers wider than a tile of any processor and narrower than its vectors; products of more than one block.
RUNS = {
    "relu softmax float32 Adam": ((20, 48, 33, 5), "relu", "softmax", "float32", fi.Adam, {}),
    "gelu identity float64 AdamW": ((20, 48, 33, 5), "gelu", "identity", "float64", fi.AdamW, {}),
    "tanh sigmoid float32 momentum": (
        (20, 100, 3),
        "tanh",
        "sigmoid",
        "float32",
        lambda: fi.SGD(0.1, momentum=0.9, nesterov=True),
        {},
    ),
    "elu softmax float32 Adam, weighted": ((20, 17, 7), "elu", "softmax", "float32", fi.Adam, {"weighted": True}),
    "silu softmax float32 Adam, a schedule": (
        (20, 300, 5),
        "silu",
        "softmax",
        "float32",
        lambda: fi.Adam(lambda step: 0.002 / (1 + step)),
        {},
    ),
    "relu softmax float64 Adam, a population": ((20, 33, 5), "relu", "softmax", "float64", fi.Adam, {"population": 3}),
}


def problem(name):
    """The model, samples, targets, optimizer and weights of a run."""
    sizes, activation, output, dtype, optimizer, more = RUNS[name]
    x = fi.normal((SAMPLES, sizes[0]), std=1.0, seed=1, dtype=dtype)
    outputs = sizes[-1]
    targets = {
        "softmax": np.arange(SAMPLES) * 7 % outputs,
        "sigmoid": x[:, :outputs] > 0,
        "identity": x[:, :outputs] * x[:, outputs : 2 * outputs],
    }
    model = fi.MLP(sizes, activation, output, seed=3, dtype=dtype, population=more.get("population"))
    weights = np.arange(SAMPLES) % 3 + 0.5 if more.get("weighted") else None
    return model, x, targets[output], optimizer(), weights


def trained(name):
    """The model after STEPS steps, and the history."""
    model, x, y, optimizer, weights = problem(name)
    epochs = STEPS * BATCH // SAMPLES
    return model, model.fit(x, y, epochs, BATCH, optimizer, max_grad_norm=1.0, sample_weight=weights)


def digest(*arrays):
    found = hashlib.blake2b(digest_size=8)
    for array in arrays:
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def pinned(name):
    """The parameters, the outputs for the training data, losses and norms as text."""
    model, history = trained(name)
    x = fi.normal((50, model.sizes[0]), std=1.0, seed=2, dtype=model.dtype)
    return {
        "parameters": digest(*model.parameters.values()),
        "outputs": digest(model.forward(x)),
        "history": digest(np.array(history.loss), np.array(history.gradient_norm)),
        "last loss": np.array(history.loss[-1]).tolist(),
    }


def main():
    PATH.write_text(json.dumps({name: pinned(name) for name in RUNS}, indent=1) + "\n")


if __name__ == "__main__":
    main()
