"""Fresh Python processes for the tests: what a process does to its cache, its threads or itself stays there.

A snippet runs with warnings as errors and may import this module: `cases` and `digest` work on both sides.
"""

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
LAWS = ("constant", "uniform", "normal", "narrow", "truncated")
DTYPES = ("float16", "bfloat16", "float32", "float64")
ALL = [f"{law} {dtype}" for law in LAWS for dtype in DTYPES]
# Every block function and every format once: few enough for an empty cache.
FEW = "uniform float16", "uniform float64", "normal bfloat16", "normal float64", "narrow float32", "truncated float64"


def environment(**variables):
    """This process's environment without Numba's settings, and with more than one thread."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "LOCAL_WORLD_SIZE", "PYTHON"))}
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(TESTS)]))
    return ours | {"NUMBA_NUM_THREADS": "4", "PYTHONPATH": path} | {k: str(v) for k, v in variables.items()}


def with_interrupts(command, disposition="SIG_DFL"):
    """A command that begins with this disposition of SIGINT, whatever ours is.

    Under `nohup`, or started by a script with `&`, a process ignores SIGINT, and its children inherit that. Not by a
    `preexec_fn`, which may deadlock where there are threads.
    """
    code = f"import os, signal as s, sys; s.signal(s.SIGINT, s.{disposition}); os.execv(sys.argv[1], sys.argv[1:])"
    return [sys.executable, "-S", "-c", code, *map(str, command)]


@contextlib.contextmanager
def running(command, disposition="SIG_DFL"):
    """A process that may be sent SIGINT. At the end of the block, also by an exception, its group is killed: leaving a
    `Popen` alone waits for the process."""
    pipe, command = subprocess.PIPE, with_interrupts(command, disposition)
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def start(code, *, package=None, fork=False, **variables):
    """Start a snippet; `package` is a folder whose `fastinit` comes before the installed one.

    With `fork`, Python's warning about a fork with threads is let pass.
    """
    env = environment(**variables)
    if package is not None:
        env["PYTHONPATH"] = os.pathsep.join([str(package), env["PYTHONPATH"]])
        env["PYTHONDONTWRITEBYTECODE"] = "1"  # two edits of one length in one second look the same to a .pyc
    warnings = ["-W", "error", *(["-W", "ignore::DeprecationWarning"] if fork else [])]
    command = with_interrupts([sys.executable, "-P", *warnings, "-c", code])
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def finish(process, timeout=120):
    """The standard output of a snippet that must end well; what it wrote is shown where it does not."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its children too
        out, err = process.communicate()
        raise AssertionError(f"not done after {timeout} s\n--- stdout\n{out}\n--- stderr\n{err}") from None
    assert (process.returncode, err) == (0, ""), f"exit code {process.returncode}\n--- stdout\n{out}\n--- stderr\n{err}"
    return out.strip()


def run(code, *, timeout=120, **how):
    return finish(start(code, **how), timeout)


def command(*arguments, cwd=".", **how):
    """Run the command `fastinit` in this process.

    Args:
        arguments: of the command line.
        cwd: the current folder meanwhile.
        how: further arguments of `typer.testing.CliRunner`, e.g. `charset`.

    Returns:
        What `subprocess.run` returns for a process: `returncode`, `stdout`, `stderr`.
    """
    from typer.testing import CliRunner

    from fastinit import cli

    arguments = list(map(str, arguments))
    with contextlib.chdir(cwd):
        done = CliRunner(**how).invoke(cli._app.app, arguments)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception  # a traceback for the user
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def law_of(name):
    import fastinit as fi

    return {
        "constant": fi.Constant(0.3),
        "uniform": fi.Uniform(-1, 3),
        "normal": fi.Normal(0.5, 2),
        "narrow": fi.TruncatedNormal(0, 1, -1, 1.5),
        "truncated": fi.TruncatedNormal(0.25, 1, -4, 3),
    }[name]


def fills(case):
    """Arrays of a case such as "normal float32": about an element, a block, a chunk, the parallel threshold."""
    import numpy as np

    import fastinit as fi
    from fastinit._runtime import arrays as buffers
    from fastinit._runtime import threads

    law, dtype = case.split()
    for size in (1, 255, 1000, threads.PARALLEL_FROM - 1, threads.PARALLEL_FROM + 77, 5 * threads.PARALLEL_FROM + 3):
        out = np.empty(size, buffers.as_dtype(dtype))
        yield fi.fill(out, law_of(law), seed=size, shape=(size + 9,), region=(slice(5, size + 5),))


def digest(*cases):
    """A hash of all the bits of all the cases."""
    found = hashlib.sha256()
    for case in cases:
        for array in fills(case):
            found.update(array.tobytes())
    return found.hexdigest()


def sums():
    """Every statistic, norm and loss of some arrays, as texts that show each bit."""
    import numpy as np

    import fastinit as fi
    from fastinit.stats._summary import chunks

    for dtype in DTYPES:
        for size in (1, 7, 24, 25, 100, 8191, 30_000):
            x = fi.normal(size, mean=1.0, seed=size, dtype=dtype)
            yield f"summary {fi.summarize(x)!r}"
            yield f"quick {chunks(x, quick=True).tobytes().hex()}"
            yield f"norms {[float(fi.global_norm([x], p)).hex() for p in (1, 2, np.inf)]}"
            x[-1] = np.nan
            yield f"with a NaN {fi.summarize(x)!r}"
    losses = fi.softmax_cross_entropy, fi.sigmoid_cross_entropy, fi.mean_squared_error
    for dtype, shape in [(dtype, shape) for dtype in DTYPES[2:] for shape in ((64, 10), (9, 1000), (200, 1))]:
        logits, targets = (
            fi.normal(shape, seed=1, dtype=dtype),
            fi.uniform(shape, low=0.0, high=1.0, seed=2, dtype=dtype),
        )
        classes = np.arange(shape[0]) % shape[1]
        for loss, wanted in [*((loss, targets) for loss in losses), (losses[0], classes)]:
            value, gradient = loss(logits, wanted)
            yield f"{loss.__name__} {value.hex()} {gradient.tobytes().hex()}"


def digest_of_matrices():
    """A hash of orthogonal and unitary matrices, of one block of reflections and of several, wide and tall; and of what
    `lsuv` makes of some."""
    import numpy as np

    import fastinit as fi
    from fastinit._core.complex import fill_complex

    found = hashlib.sha256()
    for shape in ((3, 2), (150, 130), (70, 300)):
        for dtype in DTYPES[2:]:
            found.update(fi.orthogonal(shape, seed=1, dtype=dtype).tobytes())
        for dtype in ("complex64", "complex128"):
            found.update(fill_complex(np.empty(shape, dtype), fi.Orthogonal(), seed=1).tobytes())
    model = fi.MLP([20, 48, 5], "tanh", seed=3)
    fi.lsuv(model, fi.normal((200, 20), std=30.0, seed=4), tolerance=1e-3)
    for array in model.parameters.values():
        found.update(array.tobytes())
    return found.hexdigest()


def digest_of_sums():
    """A hash of all that `sums` gives."""
    return hashlib.sha256("\n".join(sums()).encode()).hexdigest()
