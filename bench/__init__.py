"""The benchmarks: `pytest --benchmark-only`, `python -m bench.compare`, `python -m bench.report`; start in `table`."""
