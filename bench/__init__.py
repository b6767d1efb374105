"""The benchmarks: `pytest --benchmark-only`, `python -m bench.compare`, `bench.compare_training`, `bench.report`."""
