"""How long a config.json takes: `python -m bench.configs [--processes 3]`.

Processes of `fastinit plan`, from their start to their end, and of `fastinit write`, until the first file is begun: a
small share of the files of the largest model is asked for, and the process ended as soon as it begins.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.construction import LARGE
from bench.programs import Target, progress, row, table

CONFIGS: dict[str, dict[str, Any]] = {
    "Llama, 70.6 billion": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **LARGE.arguments,
        "dtype": "bfloat16",
    },
    "Mixtral 8x7B": {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "num_local_experts": 8,
        "vocab_size": 32000,
        "dtype": "bfloat16",
    },
    "ViT large": {
        "architectures": ["ViTForImageClassification"],
        "model_type": "vit",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
    },
}
FIRST = "Llama, 70.6 billion"
SHARE = ("--part", "1/100", "--max-shard-bytes", "1GB", "--json")
FASTINIT = (sys.executable, "-m", "fastinit.cli")


def seconds_of_plan(config: Path) -> float:
    start = time.perf_counter()
    subprocess.run([*FASTINIT, "plan", str(config)], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def seconds_to_the_first_file(config: Path, out: Path) -> float:
    """From the start of a process until a hidden file is there to be filled."""
    start = time.perf_counter()
    with subprocess.Popen(
        [*FASTINIT, "write", str(config), "--out", str(out), *SHARE], stdout=subprocess.DEVNULL
    ) as run:
        while not list(out.glob(".fastinit/.model*")):
            if run.poll() is not None:
                raise RuntimeError(f"the process ended with exit code {run.returncode} before its first file")
            time.sleep(0.002)
        seconds = time.perf_counter() - start
        run.kill()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.configs", description="How long a config.json takes.")
    parser.add_argument("--processes", type=int, default=3, help="of each kind, in turns; default 3")
    given = parser.parse_args()
    plans: dict[str, list[float]] = {name: [] for name in CONFIGS}
    first = []
    with tempfile.TemporaryDirectory() as name:
        for turn in range(given.processes):
            for model, config in CONFIGS.items():
                progress(f"plan {model}")
                path = Path(name) / "config.json"
                path.write_text(json.dumps(config))
                plans[model].append(seconds_of_plan(path))
            progress("first file")
            path.write_text(json.dumps(CONFIGS[FIRST]))
            first.append(seconds_to_the_first_file(path, Path(name) / str(turn)))
    rows = [row(f"fastinit plan, {model}", Target("<=", 6, "s"), values) for model, values in plans.items()]
    rows.append(row(f"fastinit write, {FIRST}: the first file begins", Target("<=", 8, "s"), first))
    print(table(rows))


if __name__ == "__main__":
    main()
