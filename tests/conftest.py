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


@pytest.fixture
def compiles(monkeypatch):
    """`torch.compile` compiles, whatever ran before.

    Modes that close out of order or in several threads leave these set, and until PyTorch 2.8 nothing is compiled then.
    """
    for name in ("_is_in_torch_dispatch_mode", "_is_in_non_infra_torch_dispatch_mode"):
        monkeypatch.setattr(f"torch.utils._python_dispatch.{name}", False)
