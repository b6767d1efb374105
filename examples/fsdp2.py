"""A sharded language model whose weights do not depend on the number of ranks: FSDP2, filled shard by shard.

    torchrun --standalone --nproc_per_node=2 examples/fsdp2.py [--steps 3]

The model is built on the meta device, sharded, and filled in place: every rank draws only the shards that it holds, and
no rank holds or sends the whole model. The hash of all weights is the same on 1, 2 or 1,000 ranks. The ranks need only
the seed and the code; a plan can also be recorded once and pickled.
"""

import argparse
import hashlib

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForCausalLM, GPT2Config

import fastinit.torch

CONFIG = GPT2Config(n_layer=4, n_embd=256, n_head=8, vocab_size=5003)


def build() -> torch.nn.Module:
    """Unmodified model code."""
    return AutoModelForCausalLM.from_config(CONFIG)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a sharded GPT-2 from weights that no sharding changes.")
    parser.add_argument("--steps", type=int, default=3)
    steps = parser.parse_args().steps
    dist.init_process_group()

    plan = fastinit.torch.record(build)  # names, shapes and laws: no memory, a moment
    with torch.device("meta"):
        model = build()
    for block in model.transformer.h:
        fully_shard(block)
    fully_shard(model)
    fastinit.torch.materialize(model, plan, seed=0)

    digest = hashlib.sha256()
    for parameter in model.parameters():
        digest.update(parameter.full_tensor().detach().numpy().tobytes())
    if dist.get_rank() == 0:
        print(f"weights {digest.hexdigest()[:16]} on {dist.get_world_size()} ranks")

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    torch.manual_seed(dist.get_rank())  # the data of this rank
    words = torch.randint(CONFIG.vocab_size, (4, 64))
    for step in range(steps):
        loss = model(input_ids=words, labels=words).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if dist.get_rank() == 0:
            print(f"step {step}, loss {loss.item():.3f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
