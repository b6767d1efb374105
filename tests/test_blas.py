"""BLAS: the products, its number of threads before and after every call, and who runs while we do."""

import threading

import numpy as np
import pytest
import threadpoolctl
from compiled import compiled

import fastinit as fi
from fastinit._runtime import blas
from fastinit.kernels import jit
from fastinit.kernels.nn.blas import gemm
from fastinit.nn import _layers as layers
from fastinit.nn import _training as training

i64 = jit.types.int64
LIMIT = 2  # of the users' own, unlike ours and, on most machines, unlike the library's


def numbers():
    """Library -> its threads."""
    return {one["filepath"]: one["num_threads"] for one in threadpoolctl.threadpool_info() if one["user_api"] == "blas"}


@pytest.fixture(autouse=True)
def the_number_of_threads_is_what_it_was():
    blas._libraries()  # loads SciPy's, which had no number before
    before = numbers()
    assert before
    yield
    assert numbers() == before
    assert blas._inside == 0


@pytest.fixture(autouse=True)
def small_layers_use_threads(monkeypatch):
    monkeypatch.setattr(layers, "PARALLEL_PRODUCTS", 0)
    monkeypatch.setattr(training, "PARALLEL_PRODUCTS", 0)


RNG = np.random.default_rng(0)
X, WEIGHT, DY = RNG.normal(size=(40, 8)), RNG.normal(size=(3, 8)), RNG.normal(size=(40, 3))
LABELS = RNG.integers(0, 3, 40)
CALLS = {
    "dense_forward": lambda: fi.dense_forward(X, WEIGHT, activation="tanh"),
    "dense_backward": lambda: fi.dense_backward(DY, X, DY, WEIGHT, "tanh"),
    "fit": lambda: fi.MLP([8, 4, 3]).fit(X, LABELS, epochs=2, batch_size=16, optimizer=fi.SGD(0.1)),
    "step": lambda: fi.MLP([8, 4, 3]).step(X, LABELS, fi.SGD(0.1)),
    "loss_and_grad": lambda: fi.MLP([8, 4, 3]).loss_and_grad(X, LABELS),
    "forward": lambda: fi.MLP([8, 4, 3]).forward(X),
}
# Where each call does its work, to look around there, or to fail there.
PLACES = {name: layers if name.startswith("dense") else training for name in CALLS}

each_call = pytest.mark.parametrize("name", CALLS)


def watched(monkeypatch, name, look):
    """Calls `look` in the middle of a call."""
    module = PLACES[name]
    together = module.together

    def inside(work, workers):
        look()
        together(work, workers)

    monkeypatch.setattr(module, "together", inside)


# --- products ---


def _product(routine, transpose_a, transpose_b, m, n, k, a, lda, b, ldb, c, ldc):
    gemm(routine, transpose_a != 0, transpose_b != 0, m, n, k, ONE, a, lda, b, ldb, c, ldc)


ONE = np.float64(1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("transposed", [(False, False), (False, True), (True, False)], ids=str)
def test_products_of_parts_of_matrices(transposed, dtype):
    product = compiled(_product, jit.types.void(*(i64,) * 12), ONE=np.dtype(dtype).type(1)).call
    m, n, k = 5, 4, 3
    a, b, c = (np.asfortranarray(RNG.normal(size=(9, 9)).astype(dtype)) for _ in range(3))
    before = c.copy()
    c[:m, :n] = np.nan  # never read
    one = a[:k, :m].T if transposed[0] else a[:m, :k]
    other = b[:n, :k].T if transposed[1] else b[:k, :n]
    places = a.ctypes.data, 9, b.ctypes.data, 9, c.ctypes.data, 9
    product(blas.gemm_address(dtype), *transposed, m, n, k, *places)
    before[:m, :n] = one.astype(float) @ other.astype(float)
    np.testing.assert_allclose(c, before, rtol=0, atol=20 * np.finfo(dtype).eps)


# --- threads ---


@each_call
def test_blas_has_one_thread_inside_a_call(name, monkeypatch):
    seen = []
    watched(monkeypatch, name, lambda: seen.append(set(numbers().values())))
    CALLS[name]()
    assert seen
    assert all(one == {1} for one in seen)


@each_call
def test_the_users_own_limit_comes_back(name, monkeypatch):
    seen = []
    watched(monkeypatch, name, lambda: seen.append(set(numbers().values())))
    with threadpoolctl.threadpool_limits(LIMIT, user_api="blas"):
        before = numbers()
        CALLS[name]()
        assert numbers() == before
        assert LIMIT in before.values()
    assert all(one == {1} for one in seen)


@each_call
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_number_comes_back_after_an_error(name, error, monkeypatch):
    def fail():
        raise error("inside")

    watched(monkeypatch, name, fail)
    with threadpoolctl.threadpool_limits(LIMIT, user_api="blas"):
        before = numbers()
        with pytest.raises(error, match="inside"):
            CALLS[name]()
        assert numbers() == before


@each_call
def test_the_number_comes_back_when_two_threads_call_at_once(name, monkeypatch):
    """The one that came first leaves first: the other one must keep its BLAS of one thread, and then give it back."""
    both, first_is_out = threading.Barrier(2), threading.Event()
    seen, errors = {}, []

    def look():
        mine = threading.current_thread().name
        if mine in seen:  # `fit` works several times
            return
        both.wait(timeout=30)
        if mine == "second":
            assert first_is_out.wait(30)
        seen[mine] = set(numbers().values())

    def call():
        try:
            CALLS[name]()
        except BaseException as error:
            errors.append(error)
        if threading.current_thread().name == "first":
            first_is_out.set()

    watched(monkeypatch, name, look)
    with threadpoolctl.threadpool_limits(LIMIT, user_api="blas"):
        before = numbers()
        threads = [threading.Thread(target=call, name=one) for one in ("first", "second")]
        for one in threads:
            one.start()
        for one in threads:
            one.join(timeout=60)
        assert numbers() == before
    assert not errors
    assert seen == {"first": {1}, "second": {1}}


def test_blocks_inside_each_other():
    with threadpoolctl.threadpool_limits(LIMIT, user_api="blas"):
        before = numbers()
        with blas.one_blas_thread():
            with blas.one_blas_thread():
                assert set(numbers().values()) == {1}
            assert set(numbers().values()) == {1}
        assert numbers() == before


def test_libraries_that_can_not_be_found_leave_nothing_behind(monkeypatch):
    def fail():
        raise OSError("no libraries")

    monkeypatch.setattr(blas, "_libraries", fail)
    with pytest.raises(OSError, match="no libraries"), blas.one_blas_thread():
        raise AssertionError
    assert blas._inside == 0


@each_call
def test_only_our_helpers_are_left_behind(name):
    before = set(threading.enumerate())
    with fi.thread_limit(3):
        CALLS[name]()
    new = set(threading.enumerate()) - before
    assert all(one.daemon and one.name.startswith("fastinit-") for one in new)
    assert len([one for one in threading.enumerate() if one.name.startswith("fastinit-")]) >= 2


@each_call
def test_a_call_restores_what_was_set_after_the_call_before(name):
    for limit in (LIMIT, 1, 3):
        with threadpoolctl.threadpool_limits(limit, user_api="blas"):
            before = numbers()
            CALLS[name]()
            assert numbers() == before
