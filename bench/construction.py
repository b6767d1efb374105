"""Unmodified constructors of language and vision models: plain, under `fast_init`, and recorded.

    python -m bench.construction [--models llama gpt2 vit] [--processes 3] [--json FILE]

measures what must hold: each contender alone in a fresh process, one after the other in turns, its time and its peak
memory above what the process had before.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.machine import machine
from bench.programs import Target, fresh_processes, options, progress, row, save, table

CONTENDERS = ("fastinit", "torch")


@dataclass(frozen=True)
class Model:
    """What is built: a class of `transformers`, the configuration's arguments, and what `fast_init` must reach."""

    title: str
    kind: str
    config: str
    arguments: dict[str, int]
    dtype: str
    faster: float

    def builder(self) -> Callable[[], Any]:
        """The constructor, everything imported that it needs, and fastinit's kernels out of their cache."""
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        import torch

        from fastinit.torch import fast_init

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import transformers

            transformers.logging.set_verbosity_error()
            config = getattr(transformers, self.config)
            kind = getattr(transformers, self.kind)
            make = lambda **sizes: kind.from_config(config(**sizes), dtype=getattr(torch, self.dtype))  # noqa: E731
            with fast_init():
                _ = make(**SMALLEST), torch.nn.Embedding(600, 600, dtype=getattr(torch, self.dtype))  # several threads
        return lambda: make(**self.arguments)


# What a configuration does not know of these it keeps for itself.
SMALLEST = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 8,
}
LANGUAGE = "AutoModelForCausalLM"
MODELS = {
    "gpt2": Model("GPT-2 small, 124 million float32", LANGUAGE, "GPT2Config", {}, "float32", 8),
    "vit": Model("ViT base, 86 million float32", "AutoModel", "ViTConfig", {}, "float32", 30),
    "dinov2": Model("DINOv2 base, 86 million float32, truncated", "AutoModel", "Dinov2Config", {}, "float32", 30),
    "llama": Model(
        "Llama of 2 layers, 0.67 billion bfloat16", LANGUAGE, "LlamaConfig", {"num_hidden_layers": 2}, "bfloat16", 25
    ),
}
LARGE = Model(
    "Llama, 70.6 billion bfloat16",
    LANGUAGE,
    "LlamaConfig",
    {
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    },
    "bfloat16",
    0,
)
RECORD_SECONDS, RECORD_MB, EXTRA_MB = Target("<=", 2, "s"), Target("<=", 300, "MB"), Target("<=", 200, "MB")


def under(contender: str, build: Callable[[], Any]) -> Callable[[], Any]:
    """The construction as a contender does it."""
    if contender == "torch":
        return build
    from fastinit.torch import fast_init, record

    def fast() -> Any:
        with fast_init(seed=0):
            return build()

    return fast if contender == "fastinit" else lambda: record(build)


def prepared(name: str, contender: str) -> Callable[[], Any]:
    """Return the construction of a model, or of LARGE's plan ("record"), as a contender does it."""
    return under(contender, (LARGE if name == "record" else MODELS[name]).builder())


def measured(name: str, contender: str) -> dict[str, float]:
    """One construction in this process: seconds, megabytes above what was there, megabytes of the model."""
    from fastinit.checkpoint._write import peak_memory

    call = prepared(name, contender)
    before, start = peak_memory(), time.perf_counter()
    model = call()
    seconds, after = time.perf_counter() - start, peak_memory()
    weights = 0 if contender == "record" else sum(tensor.nbytes for tensor in model.parameters())
    return {"seconds": seconds, "peak": (after - before) / 1e6, "weights": weights / 1e6}


def summary(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The table's rows."""

    def runs(model: str, contender: str) -> list[dict[str, float]]:
        return [r for r in results if (r["model"], r["contender"]) == (model, contender)]

    rows = []
    for name, model in MODELS.items():
        ours, theirs = runs(name, "fastinit"), runs(name, "torch")
        if ours and theirs:
            ratios = [b["seconds"] / a["seconds"] for a, b in zip(ours, theirs, strict=True)]
            extra = [r["peak"] - r["weights"] for r in ours]
            rows.append(row(f"{model.title}: of torch", Target(">=", model.faster), ratios))
            rows.append(row(f"{model.title}: memory beside the model", EXTRA_MB, extra))
    if recorded := runs("record", "record"):
        rows.append(row(f"record of {LARGE.title}", RECORD_SECONDS, [r["seconds"] for r in recorded]))
        rows.append(row(f"record of {LARGE.title}: memory", RECORD_MB, [r["peak"] for r in recorded]))
    return rows


def main() -> None:
    parser = options("bench.construction", "What constructors must hold under fast_init and record.")
    parser.add_argument("--models", nargs="+", choices=[*MODELS, "record"], default=[*MODELS, "record"])
    parser.add_argument("--contender", choices=[*CONTENDERS, "record"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        (name,) = given.models
        found = measured(name, given.contender)
        print(json.dumps({"model": name, "contender": given.contender, "machine": machine(), **found}))
        return
    results = []
    for name in given.models:
        for _ in range(given.processes):
            for contender in ("record",) if name == "record" else CONTENDERS:
                progress(f"{name}, {contender}")
                child = ["-m", "bench.construction", "--child", "--models", name, "--contender", contender]
                results += fresh_processes(child, 1, progress)
    rows = summary(results)
    print(table(rows))
    for name in given.models:
        for contender in (*CONTENDERS, "record"):
            found = [r["seconds"] for r in results if (r["model"], r["contender"]) == (name, contender)]
            if found:
                print(f"{name}, {contender}: {statistics.median(found):.3g} s")
    if given.json:
        save(Path(given.json), rows, results)


if __name__ == "__main__":
    main()
