"""The same bits on every CPU, and code that uses its vectors."""

import json
import math
import platform
import re

import llvmlite.binding
import processes
import pytest

from fastinit._native import processor
from fastinit.kernels import jit, objects

HOST = llvmlite.binding.get_host_cpu_features()
# What a Haswell has, as far as a kernel could use it.
HASWELL = "avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "popcnt", "sse4.2"
CPUS = ["host", "generic", *(["haswell"] if all(HOST.get(name) for name in HASWELL) else [])]

# Kernel -> the least number of vector multiplications in it, with AVX or without. Without fma each is a call per lane,
# and only the multiplications of the loop are left; LLVM then leaves the loops of gelu and of truncated normals as they
# are. What is there is two to five times that.
KERNELS = {
    "fill.range_kernel fill uniform float32": (8, 1),
    "fill.range_kernel fill normal float32": (120, 12),
    "fill.range_kernel fill narrow_truncated float32": (10, 2),
    "fill.range_kernel fill truncated float32": (30, 0),
    "fill.range_kernel fill normal float64": (30, 5),
    "nn.activations.forward_kernel tanh float32": (6, 1),
    "nn.activations.forward_kernel gelu float32": (20, 0),
    "nn.activations.forward_kernel softplus float64": (15, 5),
    "nn.activations.backward_kernel relu float32": (2, 1),
    "nn.activations.backward_kernel silu float32": (8, 3),
    "nn.activations.backward_kernel gelu float64": (30, 0),
    "nn.activations.forward_kernel elu float32": (8, 0),
    "nn.activations.backward_kernel elu float32": (3, 1),
    "nn.losses.loss_kernel softmax_classes float32": (8, 0),
    "nn.losses.loss_kernel sigmoid float32": (16, 4),
    "nn.updates.update_kernel momentum float32": (5, 3),
    "nn.updates.update_kernel adam float32": (6, 6),
    "products.product.product float32": (60, 0),
    "products.product.product float64": (60, 0),
    "sums.moments.quick_moments float16": (12, 6),
    "sums.moments.quick_moments bfloat16": (8, 4),
    "sums.moments.quick_moments float32": (4, 2),
}

# Few and quickly compiled, one of each kind: in the default run.
SMOKE = (
    "fill.range_kernel fill uniform float32",
    "nn.activations.backward_kernel relu float32",
    "nn.updates.update_kernel momentum float32",
    "sums.moments.quick_moments float32",
)

# CASES and KERNELS are put before it. Without CASES (None) nothing is run.
ASSEMBLY = """
import json
from processes import digest, digest_of_matrices, digest_of_sums
from fastinit._native import processor
from fastinit.kernels import objects

code = {}
for kernel in KERNELS:
    module, _ = objects.module_of(objects.definition_of(*kernel.split()), "kernel")
    objects.optimize(module, processor.machine())
    code[kernel] = processor.machine().emit_assembly(module)
digests = {} if CASES is None else {"fills": digest(*CASES)}
if CASES:
    digests |= {"sums": digest_of_sums(), "matrices": digest_of_matrices()}
print(json.dumps({"digests": digests, "code": code, "tag": processor.tag(*processor.target())}))
"""

# Kernels of every kind, and the share of their vector instructions that has the full width of a processor with AVX-512:
# code for one is made on any x86-64. LLVM itself takes half of the width, but for some integer instructions.
AVX512 = {
    "fill.range_kernel fill uniform bfloat16": 0.8,
    "fill.range_kernel fill normal float32": 0.9,
    "fill.range_kernel fill truncated float32": 0.9,
    "fill.range_kernel fill truncated float64": 0.9,
    "nn.activations.forward_kernel gelu float32": 0.9,
    "nn.activations.backward_kernel silu float64": 0.9,
    "nn.losses.loss_kernel softmax_classes float32": 0.8,
    "nn.updates.update_kernel adam float32": 0.9,
    "products.product.product float32": 0.7,
    "products.product.product float64": 0.7,
    "sums.moments.quick_moments float32": 0.5,
}

FLOATS = r"v?mulp[sd]|vfn?m(?:add|sub)\d+p[sd]"
VECTORS = {
    "wide": rf"^\s+(?:{FLOATS})\s.*%[yz]mm",
    "narrow": rf"^\s+(?:{FLOATS})\s.*%xmm",
    "arm": r"^\s+(?:fmul|fmla|fmls)\s+v\d+\.(?:4s|2d)",
}
OUTSIDE = r"\b(?:fmaf?|mem(?:cpy|move|set))\b"
LIBM = r"\b_?_?((?:log|log1p|log2|log10|exp|exp2|expm1|sin|cos|sincos|tan|tanh|erf|erfc|pow|ldexp|sqrt)f?)\b(?!\()"


def started(cpu, folder, kernels=tuple(KERNELS), *, foreign=False):
    """A process that compiles for a CPU, and runs the code unless that is foreign to this machine."""
    # Without the empty features, those of this machine are added: a Haswell with AVX-512. This process has the host's
    # bits.
    named = {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": ""}
    settings, cases = ({}, ()) if cpu == "host" else (named, None if foreign else processes.FEW)
    code = f"CASES = {cases!r}\nKERNELS = {kernels!r}\n{ASSEMBLY}"
    return processes.start(code, FASTINIT_CACHE_DIR=folder, **settings)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """CPU -> digests, assembly and cache tag."""
    running = {cpu: started(cpu, tmp_path_factory.mktemp(cpu)) for cpu in CPUS}
    return {cpu: json.loads(processes.finish(process, 300)) for cpu, process in running.items()}


def vectors(code, cpu):
    """How many floating-point multiplications on whole vectors there are, of the width that the CPU has."""
    wide = cpu != "generic" and HOST.get("avx2")
    kind = ("wide" if wide else "narrow") if platform.machine() in ("x86_64", "AMD64") else "arm"
    return len(re.findall(VECTORS[kind], code, re.MULTILINE)), wide


def called(code):
    """The functions of libm that some code names; instructions (`sqrtps`) and labels are other words."""
    return set(re.findall(LIBM, code))


def too_few_vectors(code, cpu):
    """The kernels with fewer vector multiplications than there should be, and how many they have."""
    numbers = {kernel: vectors(text, cpu) for kernel, text in code.items()}
    return {kernel: number for kernel, (number, wide) in numbers.items() if number < KERNELS[kernel][0 if wide else 1]}


def calls_of_libm(code):
    """The kernels that do not call exactly the functions of libm that they may, and what they call."""
    calls = {kernel: called(text) for kernel, text in code.items()}
    return {kernel: names for kernel, names in calls.items() if names}


def test_a_few_kernels_are_vectorised_and_call_no_libm(tmp_path):
    code = json.loads(processes.finish(started("host", tmp_path, SMOKE)))["code"]
    assert sorted(code) == sorted(SMOKE)
    assert too_few_vectors(code, "host") == {}
    assert calls_of_libm(code) == {}


@pytest.mark.slow
@pytest.mark.parametrize("cpu", CPUS[1:])
def test_the_bits_are_the_same_on_every_cpu(found, cpu):
    """Of what is drawn, of the sums in statistics, norms and losses, and of orthogonal matrices."""
    ours = {
        "fills": processes.digest(*processes.FEW),
        "sums": processes.digest_of_sums(),
        "matrices": processes.digest_of_matrices(),
    }
    assert found[cpu]["digests"] == ours


@pytest.mark.slow
def test_every_cpu_has_cache_files_of_its_own(found):
    assert len({found[cpu]["tag"] for cpu in CPUS}) == len(CPUS) >= 2


def test_kinds_of_machines_have_cache_files_of_their_own(monkeypatch):
    """They may share a home folder, and each has a processor of this name."""
    ours = processor.tag.__wrapped__("generic", "")
    assert processor.tag.__wrapped__("generic", "") == ours
    monkeypatch.setattr(llvmlite.binding, "get_process_triple", lambda: "aarch64-unknown-linux-gnu")
    assert processor.tag.__wrapped__("generic", "") != ours


@pytest.mark.slow
@pytest.mark.parametrize("cpu", CPUS)
def test_the_code_is_vectorised(found, cpu):
    assert list(found[cpu]["code"]) == list(KERNELS)
    assert too_few_vectors(found[cpu]["code"], cpu) == {}


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="makes code for x86-64")
def test_vectors_have_the_width_of_the_processor(tmp_path):
    code = json.loads(processes.finish(started("icelake-server", tmp_path, tuple(AVX512), foreign=True), 300))["code"]
    widths = {
        kernel: [len(re.findall(rf"^\s+v\w+\s.*%{name}", text, re.MULTILINE)) for name in ("zmm", "ymm")]
        for kernel, text in code.items()
    }
    assert {kernel: (z, y) for kernel, (z, y) in widths.items() if z < AVX512[kernel] * (z + y)} == {}
    assert widths.keys() == AVX512.keys()


@pytest.mark.slow
@pytest.mark.parametrize("cpu", CPUS)
def test_no_function_of_libm_is_called(found, cpu):
    assert calls_of_libm(found[cpu]["code"]) == {}


@pytest.mark.slow
@pytest.mark.parametrize("cpu", [cpu for cpu in CPUS if cpu != "generic"])
def test_products_call_nothing_where_there_is_fma(found, cpu):
    code = {kernel: text for kernel, text in found[cpu]["code"].items() if kernel.startswith("products.")}
    assert len(code) == 2
    assert {kernel: re.findall(OUTSIDE, text) for kernel, text in code.items()} == {key: [] for key in code}


@pytest.mark.slow
def test_calls_for_each_fma_are_seen(found):
    """Where there is none, and so the check above is one."""
    assert set(re.findall(OUTSIDE, found["generic"]["code"]["products.product.product float32"])) >= {"fmaf"}


def test_calls_of_libm_and_scalar_code_are_seen():
    """The two checks above, on code that fails them."""

    def scalar(x, out):
        jit.carray(jit.pointer(out), 1, jit.types.float64)[0] = math.log(x) * x + math.sin(x)

    signature = jit.types.void(jit.types.float64, jit.types.int64)
    module, letters = objects.module_of(jit.definition(scalar, signature), "scalar")
    assert letters == "dq"
    with pytest.raises(AssertionError, match=r"compiled code needs \['log', 'sin'\]"):
        objects.optimize(module, processor.machine())
    code = processor.machine().emit_assembly(module)
    assert called(code) == {"log", "sin"}
    assert vectors(code, "host")[0] == 0
