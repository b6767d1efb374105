"""What a network does to signals and gradients at its initialisation, layer by layer, and a verdict in words."""

from fastinit.signals.records import Comparison, Layer, Probe
from fastinit.signals.statistics import Signal
from fastinit.signals.verdicts import Verdict

__all__ = ["Comparison", "Layer", "Probe", "Signal", "Verdict"]
