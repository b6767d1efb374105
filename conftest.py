"""Keras takes its backend from the environment, once, when it is imported: the one for the doctests and tests."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")
