"""Pictures of what fastinit computes, as matplotlib's figures: pip install 'fastinit-weights[plot]'.

None of them opens a window or changes a setting; `save` writes them. Colours are Okabe and Ito's, or those of cividis,
which look apart to every kind of colour vision, and dashes, markers or words say the same.

>>> from fastinit import compare, plots
>>> figure = plots.grid(compare([64, *[32] * 10, 10], ["zeros", "he_normal"]))
>>> plots.save(figure, "grid.txt")
Traceback (most recent call last):
    ...
ValueError: path must end in .png, .svg, .pdf. Received: 'grid.txt'
"""

from fastinit.plots._curves import history, layers
from fastinit.plots._densities import activations, gradients, weights
from fastinit.plots._style import STYLES, check, save
from fastinit.plots._verdicts import grid

__all__ = ["STYLES", "activations", "check", "gradients", "grid", "history", "layers", "save", "weights"]
