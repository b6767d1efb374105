"""Small dense networks: layers, losses, optimizers, and whole training steps in compiled code.

    _mlp.py       `MLP`: the public model
    _training.py  runs of training steps: their memory, and how many go into one call of `kernels/nn/network.py`
    _history.py   `History`: what happened in each epoch
    _network.py   the parameters of a network, or of a population, in one buffer

May import `_io`, `schemes`, `_core`, `_runtime` and `kernels`. Start at `MLP.step`.
"""
