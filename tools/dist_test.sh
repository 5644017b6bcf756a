#!/usr/bin/env bash
# Evaluate a checkpoint with one process a GPU, or with several CPU processes where there is no GPU.
# Several nodes: run it on each with NNODES, NODE_RANK and MASTER_ADDR set (and MASTER_PORT, the same everywhere).
set -euo pipefail

if [[ $# -lt 3 || ! "$3" =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: $0 CONFIG CHECKPOINT PROCESSES_PER_NODE [options of tools/test.py]" >&2
    echo "environment: NNODES=1 NODE_RANK=0 MASTER_ADDR=127.0.0.1 MASTER_PORT=29500" >&2
    exit 2
fi
config=$1
checkpoint=$2
processes=$3
shift 3

exec torchrun \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${MASTER_PORT:-29500}" \
    --nproc_per_node="$processes" \
    "$(dirname "$0")/test.py" "$config" "$checkpoint" --launcher pytorch "$@"
