#!/usr/bin/env bash
# Train with one process a GPU, or with several CPU processes where there is no GPU.
# Several nodes: run it on each with NNODES, NODE_RANK and MASTER_ADDR set (and MASTER_PORT, the same everywhere).
# With MAX_RESTARTS=N, all processes are started again, up to N times, if one of them fails, and go on from the newest
# checkpoint. SIGTERM to this process, or Ctrl-C, stops the training with a checkpoint; see docs/stopping.md.
# Configs are for a total batch, of 4 processes in those for Cityscapes and ADE20K. With another number of processes
# add --auto-scale-lr.
set -euo pipefail

if [[ $# -lt 2 || ! "$2" =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: $0 CONFIG PROCESSES_PER_NODE [options of tools/train.py]" >&2
    echo "environment: NNODES=1 NODE_RANK=0 MASTER_ADDR=127.0.0.1 MASTER_PORT=29500 MAX_RESTARTS=0" >&2
    echo "add --auto-scale-lr if processes x batch_size is not the config's total batch" >&2
    exit 2
fi
config=$1
processes=$2
shift 2

# A launcher above may send SIGUSR1 to all processes. The training saves and stops; torchrun would die at once.
trap '' USR1

exec torchrun \
    --max-restarts="${MAX_RESTARTS:-0}" \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${MASTER_PORT:-29500}" \
    --nproc_per_node="$processes" \
    "$(dirname "$0")/train.py" "$config" --launcher pytorch "$@"
