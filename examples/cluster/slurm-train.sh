#!/bin/bash
#SBATCH --job-name=flowprep-train
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=flowprep-train-%j.log
#
# Trains a network on one node of a SLURM cluster:
#
#     sbatch slurm-train.sh OUT --run RUN [OPTION ...]     what follows is given to `flowprep train`
#     sbatch --gpus-per-node=4 slurm-train.sh OUT --run RUN --recipe tsn
#
# OUT and RUN must be the same path on all nodes. With several GPUs, each gets a process. Two
# minutes before the time is up, and when the job is preempted, the training gets SIGTERM: it
# finishes its step and writes a checkpoint. Then the job is queued again and goes on with the next
# step. Give more notice (--signal=B:TERM@600) where one step takes longer than a minute. Activate
# the environment before `sbatch`, or here:
#
# source ~/flowprep/.venv/bin/activate

set -euo pipefail
if (($# < 1)); then
    echo "usage: sbatch slurm-train.sh OUT --run RUN [OPTION ...]" >&2
    exit 2
fi

command=(flowprep train "$@")
processes=${SLURM_GPUS_ON_NODE:-1}
if ((processes > 1)); then
    # Torchrun would kill its processes 30 s after the signal.
    export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=3600
    command=(torchrun --standalone --nproc-per-node "$processes" -m -- "${command[@]}")
fi

train=
again() {
    trap '' TERM
    echo "the time is up; the job goes on when it is its turn again"
    code=0
    if [[ -n $train ]]; then
        kill "$train" 2> /dev/null || true
        wait "$train" || code=$?
        # It may have finished just now.
        ((code)) || exit 0
    fi
    scontrol requeue "$SLURM_JOB_ID"
    exit 1
}
trap again TERM

# In the background, because bash heeds a signal only between two commands.
"${command[@]}" &
train=$!
code=0
wait "$train" || code=$?
exit "$code"
