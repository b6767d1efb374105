"""What every module of tests has around it."""

import gc
import sys

import pytest


@pytest.fixture(autouse=True, scope="module")
def one_thread_of_torch():
    """Keep torch's threads from spinning, which takes most of the time where another worker of pytest runs too."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="module")
def quick_collections():
    """Keep the collector, which `fast_init` and `record` run, from the objects of all other modules."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
