"""Handwritten digits: one network under four initialisations.

    python examples/digits.py [--epochs 30]

All else is the same: data, order of the batches, optimiser. Zeros learn no more than how frequent the classes are;
weights that are too small learn late or not at all, and the deeper the network the later.
"""

import argparse

import numpy as np
from sklearn.datasets import load_digits

import fastinit as fi

SIZES = [64, 128, 128, 128, 10]  # pixels, three hidden layers, classes
INITS = {
    "zeros": "zeros",
    "small random": fi.Normal(0, 0.01),
    "Xavier": "xavier_normal",
    "He": "he_normal",
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Train on handwritten digits under four initialisations.")
    parser.add_argument("--epochs", type=int, default=30)
    epochs = parser.parse_args().epochs

    images, labels = load_digits(return_X_y=True)
    images = images / 16
    order = np.random.default_rng(0).permutation(len(labels))
    train, test = order[360:], order[:360]

    rows = []
    for name, init in INITS.items():
        model = fi.MLP(SIZES, "relu", "softmax", init=init, seed=0)
        initial, _ = model.loss_and_grad(images[train], labels[train])
        optimizer = fi.SGD(0.02, momentum=0.9)
        history = model.fit(images[train], labels[train], epochs, batch_size=32, optimizer=optimizer, progress=True)
        accuracy = model.score(images[test], labels[test])
        rows.append((name, initial, history.loss[-1], history.gradient_norm[0], accuracy))

    print(f"{'weights':<14}{'initial loss':>14}{'final loss':>14}{'gradient norm':>16}{'test accuracy':>16}")
    for name, initial, final, norm, accuracy in rows:
        print(f"{name:<14}{initial:>14.4f}{final:>14.4f}{norm:>16.4f}{accuracy:>16.4f}")
    print("The gradient norm is the first epoch's mean.")


if __name__ == "__main__":
    main()
