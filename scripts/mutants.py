"""Mutants: the library with one small error each, and the tests that should find it.

Run: python scripts/mutants.py [--against REF] [--select NAME...] [--sane] [--jobs N] [--json FILE], and
python scripts/mutants.py --compare BEFORE.json AFTER.json where tests have been changed. A mutant that survives shows
what no test looks at.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
LIMIT = 300.0  # seconds for the tests of one mutant; a test that takes longer counts as one that fails


class Mutant(NamedTuple):
    name: str
    module: str  # its path in fastinit/
    old: str  # stands there once
    new: str
    broken: str
    tests: str  # "a b" for tests/test_a.py and tests/test_b.py, the cheapest first


MUTANTS = [
    Mutant("add-inside-a-block", "kernels/fill.py", "scratch[skip + i] = part[i]", "scratch[i] = part[i]",
           "add to a range that begins inside a block takes wrong old values", "regions buffers threads"),
    Mutant("far-blocks", "kernels/philox.py",
           "upper = [builder.lshr(argument, ir.Constant(_I64, HALF)) for argument in arguments[:3]]",
           "upper = [lower[0], *(builder.lshr(argument, ir.Constant(_I64, HALF)) for argument in arguments[1:3])]",
           "the counter's upper half is its lower one", "philox regions"),
    Mutant("float16-infinity", "kernels/store.py", "QUIET_F16 if size > INFINITY", "QUIET_F16 if size >= INFINITY",
           "infinity is stored as NaN, in float16 only", "store clipping torch_clip"),
    Mutant("rounded-product", "kernels/store.py",
           "TO(fma(scale, value, FROM(out[i])))", "TO(FROM(TO(scale * value)) + FROM(out[i]))",
           "add rounds the product too", "buffers distributions"),
    Mutant("share-of-no-logit", "kernels/nn/losses.py",
           "share * z[i] if share != ELEMENT(0) else ELEMENT(0)", "share * z[i]",
           "a logit of -inf makes the loss NaN where its class has no share", "losses"),
    Mutant("sgd-decay-factor", "kernels/nn/updates.py",
           "w[i] -= rate * (scale * g[i] + decay * w[i])", "w[i] -= rate * scale * (g[i] + decay * w[i])",
           "the clip factor scales plain SGD's weight decay too", "optimizers"),
    Mutant("tiny-factor", "kernels/sums/norms.py",
           'f64 if dtype in ("float32", "float64") else f32', 'f64 if dtype == "float64" else f32',
           "float32 is clipped by a factor in float32, which has lost digits where it is tiny", "clipping torch_clip"),
    Mutant("last-depth", "kernels/products/product.py", "adding = i64(1) if k > 0 else add", "adding = add",
           "a product deeper than a block is that of the last block", "products"),
    Mutant("no-more-at-edges", "kernels/products/product.py",
           "if not whole and add != i64(0):", "if not whole and add == i64(0):",
           "what fills no vector is not added to", "products"),
    Mutant("rounded-twice", "kernels/products/tiles.py", "return self.builder.call(function, [a, b, c])",
           "return self.builder.fadd(self.builder.fmul(a, b), c)",
           "a matrix product rounds each product of two numbers", "products"),
    Mutant("minus-zero", "kernels/products/tiles.py", "[0.0] * memory.vector.count", "[-0.0] * memory.vector.count",
           "the sums of a matrix product begin at -0", "products"),
    Mutant("one-row-more", "kernels/products/product.py",
           "copied(place, step, own, STEP, count, deep)", "copied(place, step, own, STEP, ROWS, deep)",
           "rows after A's last one are read", "products"),
    Mutant("backwards", "_runtime/arrays.py", "stream_step = index.step * step", "stream_step = abs(index.step) * step",
           "a region that runs backwards gets the values that follow", "threads structured regions"),
    Mutant("stride-of-one", "_runtime/arrays.py",
           "zip(strides, shape, strict=True) if n > 1)", "zip(strides, shape, strict=True))",
           "an axis of length one, whose stride means nothing, counts as overlapping", "buffers"),
    Mutant("at-the-threshold", "_runtime/threads.py",
           "if count < PARALLEL_FROM:", "if count <= PARALLEL_FROM:",
           "a fill of exactly the parallel threshold stays on one thread", "threads"),
    Mutant("nan-own-norm", "clip/_clipping.py", "~(norms <= limit)", "norms > limit",
           "a NaN norm of one array leaves it", "clipping"),
    Mutant("subnormal-largest", "kernels/sums/norms.py", "(abs(f64(value)) / largest)",
           "(abs(f64(value)) * (f64(1) / largest))", "a norm of subnormal float64 numbers is NaN", "clipping"),
    Mutant("empty-infinity", "torch/clip.py",
           "if norm_type == math.inf and not all(counts):", "if norm_type == math.inf and not any(counts):",
           "the infinity norm of some empty tensors is no error", "torch_clip"),
    Mutant("foreach", "torch/clip.py",
           "return utils.clip_grad_norm_(parameters, max_norm, norm_type, error_if_nonfinite, foreach)",
           "return utils.clip_grad_norm_(parameters, max_norm, norm_type, error_if_nonfinite)",
           "torch's own function does not hear of foreach", "torch_clip"),
    Mutant("last-sign", "kernels/products/reflectors.py", "return (head + norm) / norm, -(real / head)",
           "return (head + norm) / norm, -(norm / norm)",
           "determinants of square orthogonal matrices are not 1 and -1 evenly", "structured"),
    Mutant("columns-before", "kernels/products/reflectors.py",
           "left = max(begin, block * BLOCK // run.parts)", "left = max(begin, block * BLOCK)",
           "reflections of complex numbers leave out columns that they change", "orthogonal complex_laws"),
    Mutant("own-matrix-only", "_core/structured.py", "indices == tuple(map(range, shape))",
           "tuple(map(len, indices)) == shape", "a reversed orthogonal matrix is the matrix itself",
           "structured orthogonal"),
    Mutant("blocks-ahead", "_core/haar.py", "in reversed(list(_parts(blocks, columns // short)))",
           "in list(_parts(blocks, columns // short))",
           "large orthogonal matrices are products of reflections in another order", "orthogonal"),
    Mutant("sparse-rows", "_core/structured.py", "np.ix_(indices[0], range(len(",
           "np.ix_(range(len(indices[0])), range(len(",
           "a region of some rows of a sparse matrix has the zeros of the first rows", "structured"),
    Mutant("delta-even", "_core/structured.py", "tuple((size - 1) // 2 for size", "tuple(size // 2 for size",
           "a delta-orthogonal kernel of even size has another centre", "structured"),
    Mutant("inward-bounds", "_core/distributions.py",
           "low, high = _at_least(self.low, dtype), _at_most(self.high, dtype)",
           'low, high = rounded("low", self.low, dtype), rounded("high", self.high, dtype)',
           "bounds that a dtype does not have are rounded out of the interval", "bad_input distributions"),
    Mutant("exact-fit", "checkpoint/_layout.py", "nbytes + fill.nbytes > most", "nbytes + fill.nbytes >= most",
           "a tensor that just fits begins another file", "layout"),
    Mutant("smallest-first", "checkpoint/_layout.py", "(-shard.nbytes, shard.name)", "(shard.nbytes, shard.name)",
           "parts are not handed the largest files first", "layout parts"),
    Mutant("moved-again", "checkpoint/_write.py", "overwrite and not place.is_moving()", "overwrite",
           "overwriting makes files again that a stopped run has moved already", "resume"),
    Mutant("last-bytes", "checkpoint/_compare.py", " and np.array_equal(a[most:], b[most:])", "",
           "the last bytes of a file, if no whole eight, are not compared", "verify blocks"),
    Mutant("no-sync", "checkpoint/_shards.py", "            os.fsync(self._descriptor)\n", "            pass\n",
           "a file has its name before it is on the disk", "resume"),
    Mutant("sub-alpha", "torch/_record/operators.py", "return 1.0, -alpha * shift", "return 1.0, -shift",
           "sub ignores alpha", "torch_construct"),
    Mutant("bfloat16-to-float16", "torch/_record/draws.py",
           "if through[:1] == (torch.float32,) and", "if through and",
           "draws in one 16-bit dtype that are copied into the other have too many digits",
           "torch_corners torch_copies"),
    Mutant("live-argument", "torch/_record/calls.py",
           "tensor.detach() if alive else tensor.detach().clone()", "tensor.detach()",
           "a recorded operator is done again with what its arguments became later", "torch_construct"),
    Mutant("filled-again", "torch/_record/calls.py",
           "contents.pop(where, None)  # the same memory: the earlier draw would be overwritten", "pass",
           "a part that is filled again does not cover what was drawn over it", "torch_construct torch_corners"),
    Mutant("outer-first", "torch/_record/recorder.py",
           "            self._outer.release(bytes_of(storage))\n", "            pass\n",
           "an inner block does not see what the outer one keeps back", "torch_construct torch_corners"),
    Mutant("first-part", "_core/composite.py", "indices=indices, offset=self.offset)", "indices=indices)",
           "a copy of a part is one of the first elements", "composite torch_copies"),
    Mutant("one-claim", "torch/_record/naming.py", "            apart(home.place, place)\n", "            True\n",
           "what is drawn again after it was copied has the values of the copy", "torch_copies"),
    Mutant("local-seed", "torch/_shards.py", "    if not torch.equal(ends[0], -ends[1]):", "    if False:",
           "ranks with other seeds make one tensor", "torch_copies torch_sharding"),
]  # fmt: skip


class Verdict(NamedTuple):
    broken: str
    killer: str | None  # the first test that failed
    seconds: float


def export(ref: str | None, folder: Path) -> None:
    """Copy the files of a commit, or of the working tree, tracked and untracked."""
    git = ["git", "-C", str(ROOT)]
    if ref is not None:
        archive = subprocess.run([*git, "archive", ref], capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(folder, filter="data")
        return
    listed = subprocess.run([*git, "ls-files", "-z", "-co", "--exclude-standard"], capture_output=True, check=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():  # not one that was deleted
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def make(mutant: Mutant, base: Path, folder: Path) -> None:
    """Copy the library with its tests, and put the error in."""
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / "fastinit" / mutant.module
    text = path.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.module} must hold {mutant.old!r} once, for {mutant.name}")
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")


def first_failure(folder: Path, tests: Iterable[str]) -> str | None:
    """Run tests of a copy on the library beside them until one fails, and name it; None where all pass.

    Raises:
        RuntimeError: they did not run.
    """
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "NUMBA"))}
    env["FASTINIT_CACHE_DIR"] = str(folder.with_name("cache"))  # kernels are found by what their sources are
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=folder, env=env | {"PYTHONPATH": str(folder)}, stdout=pipe, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            output, _ = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the processes that tests have started too
            return "the time limit"
    if process.returncode in (0, 5):  # 5: there is none, by pytest's settings
        return None
    failed = re.search(r"^(?:FAILED|ERROR) (tests/.*?)(?: - .*)?$", output, re.MULTILINE)
    if failed is None and process.returncode > 0:
        raise RuntimeError(f"pytest ended with {process.returncode}:\n{output[-2000:]}")
    return failed[1] if failed else f"signal {-process.returncode}"


def judge(mutant: Mutant, base: Path, *, sane: bool) -> Verdict:
    """Run the tests of one mutant and say what came out.

    Raises:
        RuntimeError: with `sane`, the test that fails does so without the error too.
    """
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix=f"{mutant.name}-") as name:
        folder = Path(name, "copy")
        make(mutant, base, folder)
        killer = first_failure(folder, [f"tests/test_{test}.py" for test in mutant.tests.split()])
    seconds = time.perf_counter() - start
    print(f"{mutant.name}: {f'killed by {killer}' if killer else 'SURVIVED'}, {seconds:.0f} s", flush=True)
    if sane and killer is not None and "::" in killer and first_failure(base, [killer]) is not None:
        raise RuntimeError(f"{killer} fails without {mutant.name} too")
    return Verdict(mutant.broken, killer, round(seconds, 1))


def keep(path: Path, name: str, verdict: Verdict) -> None:
    """Put a result into a file, beside those that it has."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(found | {name: verdict._asdict()}, indent=1) + "\n", encoding="utf-8")


def compared(before: Path, after: Path) -> bool:
    """Print two runs side by side; whether all that the first one killed are killed by the second one too."""
    old, new = ({k: Verdict(**v) for k, v in json.loads(path.read_text()).items()} for path in (before, after))
    print("| mutant | what is broken | killed before by | killed after by |\n|---|---|---|---|")
    lost = False
    for name, verdict in old.items():
        now = new[name].killer if name in new else None
        lost |= verdict.killer is not None and now is None
        cells = (f"`{killer}`" if killer else "**survives**" for killer in (verdict.killer, now))
        print("|", " | ".join((name, verdict.broken, *cells)), "|")
    return not lost


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [mutant.name for mutant in MUTANTS]
    parser.add_argument("--against", metavar="REF", help="a commit, instead of the working tree")
    parser.add_argument("--select", nargs="+", choices=names, default=names, metavar="NAME", help="some of the mutants")
    parser.add_argument("--sane", action="store_true", help="see that a test that kills passes without the error")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time")
    parser.add_argument("--json", type=Path, help="a file that the results are put into")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("BEFORE", "AFTER"), help="results of two runs")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    given = parsed(arguments)
    if given.compare:
        return 0 if compared(*given.compare) else 1
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests that interrupt a process need what they inherit
    chosen = [mutant for mutant in MUTANTS if mutant.name in given.select]
    with tempfile.TemporaryDirectory(prefix="mutants-") as name, ThreadPoolExecutor(given.jobs) as pool:
        export(given.against, base := Path(name, "base"))
        survived = False
        verdicts = pool.map(lambda mutant: judge(mutant, base, sane=given.sane), chosen)
        for mutant, verdict in zip(chosen, verdicts, strict=True):
            survived |= verdict.killer is None
            if given.json:
                keep(given.json, mutant.name, verdict)
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
