#!/usr/bin/env bash
# Train under Slurm with one task a GPU; every task finds its rank in Slurm's environment.
# Configs are for a total batch, of 4 processes in those for Cityscapes and ADE20K. With another number of processes
# add --auto-scale-lr.
set -euo pipefail

if [[ $# -lt 3 ]]; then
    echo "usage: $0 PARTITION JOB_NAME CONFIG [options of tools/train.py]" >&2
    echo "environment: GPUS=4 GPUS_PER_NODE=4 CPUS_PER_TASK=5 MASTER_PORT=29500 SRUN_ARGS=''" >&2
    echo "add --auto-scale-lr if processes x batch_size is not the config's total batch" >&2
    exit 2
fi
partition=$1
job=$2
config=$3
shift 3
gpus=${GPUS:-4}
gpus_per_node=${GPUS_PER_NODE:-$((gpus < 4 ? gpus : 4))}

# SRUN_ARGS holds any number of further options and is split on purpose.
# shellcheck disable=SC2086
exec srun \
    --partition="$partition" \
    --job-name="$job" \
    --ntasks="$gpus" \
    --ntasks-per-node="$gpus_per_node" \
    --gres="gpu:$gpus_per_node" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 \
    ${SRUN_ARGS:-} \
    python -u "$(dirname "$0")/train.py" "$config" --launcher slurm "$@"
