#!/bin/bash
# One checkpoint by several nodes through torchrun: every process writes its share of the files. Run it on every node,
# with the same values:
#
#   NODES=4 MASTER=node1:29500 JOB=llama.toml OUT=/scratch/llama-init SHARD=5GB bash examples/torchrun.sh
#
# Without them it runs on this machine alone. JOB is what `fastinit write` takes: a job file, a Hugging Face
# config.json... OUT is a folder that all nodes see under this name. What is to be written depends on JOB alone, not on
# the number of processes.
#
# torchrun starts the processes and tells them their rank; they don't talk to each other. One process on each node is
# enough: it uses all cores. Where one fails, torchrun starts all again (--max-restarts), and complete files are kept,
# as they are when the same line is given again.

set -euo pipefail

# --no-python: the program is a command. --part auto: RANK of WORLD_SIZE.
exec torchrun \
    --nnodes "${NODES:-1}" \
    --nproc-per-node "${PROCESSES:-1}" \
    --rdzv-backend c10d \
    --rdzv-endpoint "${MASTER:-localhost:29500}" \
    --max-restarts 3 \
    --no-python \
    fastinit write "${JOB:-examples/gpt2.toml}" \
    --out "${OUT:-gpt2-init}" \
    --max-shard-bytes "${SHARD:-60MB}" \
    --part auto
