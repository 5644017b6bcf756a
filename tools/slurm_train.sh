#!/usr/bin/env bash
# Train under Slurm with one task a GPU; every task finds its rank in Slurm's environment. Submits a job that goes on
# until the training has ended: two minutes before its time is over the training saves, and the job is queued again.
# The same command goes on, too, with a training that was stopped. See docs/stopping.md.
# Within an allocation (salloc, or a batch script of your own) it trains there and then, and queues nothing.
# Configs are for a total batch, of 4 processes in those for Cityscapes and ADE20K. With another number of processes
# add --auto-scale-lr.
set -euo pipefail

if [[ $# -lt 3 ]]; then
    echo "usage: $0 PARTITION JOB_NAME CONFIG [options of tools/train.py]" >&2
    echo "environment: GPUS=4 GPUS_PER_NODE=4 CPUS_PER_TASK=5 MASTER_PORT=29500 SBATCH_ARGS='' SRUN_ARGS=''" >&2
    echo "the time of a job and the like: SBATCH_ARGS='--time=8:00:00'" >&2
    echo "add --auto-scale-lr if processes x batch_size is not the config's total batch" >&2
    exit 2
fi
tools=$(cd "$(dirname "$0")" && pwd)
gpus=${GPUS:-4}
gpus_per_node=${GPUS_PER_NODE:-$((gpus < 4 ? gpus : 4))}
resources=(
    --job-name="$2"
    --ntasks="$gpus"
    --ntasks-per-node="$gpus_per_node"
    --gres="gpu:$gpus_per_node"
    --cpus-per-task="${CPUS_PER_TASK:-5}"
)

if [[ -z ${SLURM_JOB_ID:-} ]]; then
    # --wrap, because Slurm runs a copy of a script, which lies elsewhere. SBATCH_ARGS, as SRUN_ARGS, holds any number
    # of further options and is split on purpose.
    # shellcheck disable=SC2086
    exec sbatch --partition="$1" "${resources[@]}" --requeue --open-mode=append --signal=USR1@120 ${SBATCH_ARGS:-} \
        --wrap "exec env REQUEUE=1 bash $(printf '%q ' "$tools/slurm_train.sh" "$@")"
fi

config=$3
shift 3
resume=--resume
for option in "$@"; do
    if [[ $option == --start-over ]]; then resume=; fi
done

status=0
# shellcheck disable=SC2086
srun "${resources[@]}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    python -u "$tools/train.py" "$config" $resume --launcher slurm "$@" || status=$?

# That of a training which SIGUSR1 has stopped, with a checkpoint.
if [[ $status -eq 138 && ${REQUEUE:-} ]]; then
    echo "the job's time is over: it is queued again, to go on from its checkpoint"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
