"""The same bits on ARM: every distribution, dtype and mode, and the sums that promise one order.

And of matrix products, orthogonal matrices and training steps. Not the other distributions of whole tensors, which are
made of these in Python. Nor norms of another order than 1, 2 and infinity, which libm's `pow` makes.
"""

import hashlib
import json

import arm
import golden
import golden_training
import ml_dtypes
import numpy as np
import pytest
from products import laid_out
from training_calls import call_of_steps, calls_of_matrix

import fastinit as fi
from fastinit._native import catalogue
from fastinit._native.records import FIELDS, PARAMETERS, PRODUCT_SCRATCH
from fastinit._runtime.arrays import DTYPES
from fastinit.kernels.distributions import BLOCK32, BLOCK64

pytestmark = pytest.mark.arm

# The first has none but the common instructions, the second vectors of any length (SVE).
CPUS = "generic", "neoverse-v1"
PREFIXES = "fill.", "sums.moments.", "sums.norms.", "nn.losses."
KERNELS = [names for names in catalogue.everything() if names[0].startswith(PREFIXES) and "power" not in names]
CHUNK = 1 << 13


def fill_call(law, dtype, key, mode, start, out, kernel=None):
    """The call of a kernel that `fi.fill` or `fi.add` makes for elements [start, start + out.size) of a tensor."""
    name, numbers = law.pack(dtype)
    parameters = np.zeros(PARAMETERS)
    parameters[: 1 + len(numbers)] = 0.3, *numbers
    names = "fill.range_kernel", mode, kernel or name, dtype
    return arm.Call(names, (out, start, out.size, *key.words(), parameters))


def golden_calls():
    """Name in `golden.json` -> the call, and what makes the pinned text of the array."""
    for law_name, law in golden.LAWS.items():
        for dtype in DTYPES:
            for key_name, key in golden.KEYS.items():
                for mode in ("fill", "add"):
                    for offset in golden.OFFSETS:
                        call = fill_call(law, dtype, key, mode, offset, np.ones(6, DTYPES[dtype]))
                        yield f"{mode} {law_name} {dtype} {key_name} at {offset}", call, golden.hexed
                many = np.empty(golden.MANY, DTYPES[dtype])
                call = fill_call(law, dtype, key, "fill", 0, many)
                yield f"digest {law_name} {dtype} {key_name}", call, digest


def digest(array):
    return hashlib.blake2b(array.view(np.uint8).tobytes(), digest_size=8).hexdigest()


def contents(size, dtype):
    """Numbers of all magnitudes, with zeros of both signs, subnormal numbers and infinities among them."""
    limits = ml_dtypes.finfo(DTYPES[dtype])
    special = [0.0, -0.0, limits.smallest_subnormal, -limits.smallest_normal, limits.max, -np.inf, np.inf]
    x = fi.normal(size, mean=1.0, seed=size, dtype=dtype)
    x[::29] = np.resize(np.array(special, DTYPES[dtype]), x[::29].size)
    return x


def fill_calls():
    """Ranges that begin and end inside a block and at its ends, far out in the stream; draws that are subnormal or too
    large; sums with special numbers."""
    key = golden.KEYS["Key(0)"] / "w"
    for dtype in DTYPES:
        limits = ml_dtypes.finfo(DTYPES[dtype])
        faint, large = fi.Normal(0, float(limits.smallest_normal)), fi.Normal(0, float(limits.max) / 2)
        block = BLOCK64 if dtype == "float64" else BLOCK32
        for law in (*golden.LAWS.values(), faint, large):
            kernels = {law.pack(dtype).law, *(["narrow_truncated"] if law.pack(dtype).law == "truncated" else [])}
            for kernel in sorted(kernels) if dtype == "float64" else [None]:
                for start in (0, 1, block - 1, 2**32 - 3, 2**62 + 5):
                    for count in (1, block - 1, block, 2 * block + 3):
                        for mode in ("fill", "add"):
                            yield fill_call(law, dtype, key, mode, start, contents(count, dtype), kernel)


def stream_calls():
    """Constants past the caches, about the length of a cache line."""
    for dtype in DTYPES:
        for count in (1, 31, 32, 33, 200):
            call = fill_call(fi.Constant(0.3), dtype, golden.KEYS["Key(0)"], "fill", 0, contents(count, dtype))
            yield call._replace(kernel=("fill.stream_kernel", dtype))


def sum_calls():
    """Reductions, scaling and clamping of arrays about the lengths where the order of a sum changes."""
    for dtype in DTYPES:
        for size in (1, 7, 24, 25, 100, 8191, 30_000):
            for x in (fi.normal(size, mean=1.0, seed=size, dtype=dtype), contents(size, dtype)):
                chunks = -(-size // CHUNK)
                for kernel in ("moments", "quick_moments") if dtype != "float64" else ("moments",):
                    names = f"sums.moments.{kernel}", dtype
                    yield arm.Call(names, (x, 0, size, CHUNK, 0, np.zeros(chunks * FIELDS)))
                for kind in ("squares", "absolute", "largest"):
                    yield arm.Call(("sums.norms.norm_kernel", kind, dtype), (x, 0, size, CHUNK, 0, np.zeros(chunks)))
                yield arm.Call(("sums.norms.scale_kernel", dtype), (x, 0, size, 0, 0, np.array([1 / 3])))
                yield arm.Call(("sums.norms.clamp_kernel", dtype), (x, 0, size, 0, 0, np.array([-0.5, 1.25])))


def loss_calls():
    for dtype in catalogue.FLOATS:
        for rows, columns in ((64, 10), (9, 1000), (200, 1)):
            logits = fi.normal((rows, columns), std=3.0, seed=1, dtype=dtype)
            shares = fi.uniform((rows, columns), low=0.0, high=1.0, seed=2, dtype=dtype)
            for kind in catalogue.LOSSES:
                targets = np.arange(rows) % columns if kind == "softmax_classes" else shares
                arguments = logits, np.empty_like(logits), targets, rows, columns, 1 / rows, np.zeros(1)
                yield arm.Call(("nn.losses.loss_kernel", kind, dtype), arguments)


def bits(array):
    """Which elements are NaN, and the bits of the others: the sign of infinity - infinity is another one on x86-64."""
    nan = array != array
    return nan.tobytes(), array[~nan].tobytes()


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    return arm.Programs(KERNELS, tmp_path_factory.mktemp("arm"))


@pytest.mark.parametrize("cpu", CPUS)
def test_the_bits_are_those_of_this_processor_and_the_pinned_ones(programs, cpu):
    pinned = json.loads(golden.PATH.read_text())
    names, calls, texts = zip(*golden_calls(), strict=True)
    assert list(names) == [name for name in pinned if not name.startswith("matrix ")]
    others = [*fill_calls(), *stream_calls(), *sum_calls(), *loss_calls()]
    assert {call.kernel for call in (*calls, *others)} == set(KERNELS)

    results = programs.run(programs.build(cpu), [*calls, *others])
    made = zip(names, texts, results[: len(names)], strict=True)
    assert {name: text(arrays[0]) for name, text, arrays in made} == {name: pinned[name] for name in names}
    for call, arrays in zip(others, results[len(names) :], strict=True):
        assert [bits(array) for array in arrays] == [bits(array) for array in arm.here(call)], call


def product_calls():
    """Products of every layout, written and added, about the sizes of tiles and of blocks."""
    for dtype in catalogue.FLOATS:
        for rows, columns, depth in ((1, 1, 1), (6, 16, 9), (13, 33, 20), (25, 300, 270), (3, 17, 600), (70, 5, 64)):
            a = fi.normal((rows, depth), std=1.0, seed=1, dtype=dtype)
            b = fi.normal((depth, columns), std=1.0, seed=2, dtype=dtype)
            for a_order, b_order, add in ("NN0", "NT1", "TN1", "TT0"):
                a, b = (laid_out(matrix, order)[0] for matrix, order in ((a, a_order), (b, b_order)))
                c = fi.normal((rows, columns), std=1.0, seed=3, dtype=dtype)
                steps = ([step // c.itemsize for step in matrix.strides] for matrix in (a, b))
                (a_row, a_k), (b_k, b_column) = steps
                memory = a.ravel("K"), a_row, a_k, b.ravel("K"), b_k, b_column, c, columns
                scratch = np.zeros(PRODUCT_SCRATCH, dtype)
                arguments = (*memory, rows, columns, depth, int(add), scratch)
                yield arm.Call(("products.product.product", dtype), arguments), [2]


def matrix_calls(monkeypatch):
    """Orthogonal and unitary matrices, tall and wide, of several blocks of reflections."""
    for dtype in ("float32", "float64", "complex64", "complex128"):
        for shape in ((1, 1), (3, 2), (70, 66), (40, 150), (150, 30)):
            yield from calls_of_matrix(monkeypatch, np.empty(shape, dtype), golden.KEYS["Key(0)"])


def check(cpu, folder, kernels, calls, numbers):
    """Run calls on a processor, and compare arrays, by their numbers in each call, with those of this machine."""
    programs = arm.Programs(kernels, folder)
    results = programs.run(programs.build(cpu), calls)
    for call, which, arrays in zip(calls, numbers, results, strict=True):
        wanted = arm.here(call)
        for number in which:
            assert bits(arrays[number]) == bits(wanted[number].ravel()), call.kernel
            assert bits(wanted[number]) != bits(call.arrays[number])


@pytest.mark.parametrize("cpu", CPUS)
def test_products_and_orthogonal_matrices_have_the_bits_of_this_processor(cpu, tmp_path, monkeypatch):
    calls, numbers = zip(*product_calls(), *matrix_calls(monkeypatch), strict=True)
    kernels = {call.kernel for call in calls}
    assert kernels == {names for names in catalogue.everything() if names[0].startswith("products.")}
    check(cpu, tmp_path, sorted(kernels), calls, numbers)


def training_calls(monkeypatch):
    """An epoch of each pinned run, and the numbers of the arrays that tell what it did."""
    for name in golden_training.RUNS:
        model, x, y, optimizer, weights = golden_training.problem(name)
        how = {"batch_size": golden_training.BATCH, "optimizer": optimizer, "max_grad_norm": 1.0}
        yield call_of_steps(monkeypatch, model, x, y, sample_weight=weights, **how)


@pytest.mark.parametrize("cpu", CPUS)
def test_training_steps_have_the_bits_of_this_processor(cpu, tmp_path, monkeypatch):
    calls, numbers = zip(*training_calls(monkeypatch), strict=True)
    kernels = {call.kernel for call in calls} | {
        link.target for call in calls for link in call.links if isinstance(link.target, tuple)
    }
    check(cpu, tmp_path, sorted(kernels), calls, numbers)
