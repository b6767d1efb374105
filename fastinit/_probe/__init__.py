"""Probes: what a network does to signals and gradients at its initialisation, layer by layer.

    probe.py     `probe` and `compare`; results.py: the `Probe` and `Comparison` that they return
    dense.py     one pass through a dense network; module/: through any torch module
    records.py   the data of a layer; verdicts.py judges it (all thresholds); text.py and html.py show it

Above everything but `plots` and `cli`: may import all other folders. Start at `probe.probe`.
"""
