#!/bin/bash
#SBATCH --job-name=flowprep
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=flowprep-%j.log
#
# Extracts flow on the nodes of a SLURM allocation:
#
#     sbatch slurm.sh VIDEOS OUT [OPTION ...]         what follows is given to `flowprep extract`
#     sbatch --nodes=8 --gpus-per-node=4 slurm.sh VIDEOS OUT
#
# VIDEOS, OUT, the home folder, and the environment with flowprep and Ray must be the same path on
# all nodes. Before the time is up, and when the job is requeued, the run stops; the job is queued
# again and goes on where it was. Activate the environment before `sbatch`, or here:
#
# source ~/flowprep/.venv/bin/activate

set -euo pipefail
if (($# < 2)); then
    echo "usage: sbatch slurm.sh VIDEOS OUT [OPTION ...]" >&2
    exit 2
fi

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
cpus=${SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE}
# This script runs on the first node. Its name may mean the loopback there.
address=$(getent ahostsv4 "$head" | awk '!/^127\./ { print $1; exit }')
address=${address:-$(hostname -I | awk '{ print $1 }')}
# Several jobs of one user or of many may share a node.
port=$((20000 + SLURM_JOB_ID % 20000))
ray_folder=/tmp/ray-$SLURM_JOB_ID

# Ray's ports are open to the network; who does not know the token is turned away. The file is in
# the home folder, which all nodes see and only the user may read.
umask 077
secret=$(mktemp -d "$HOME/.flowprep-$SLURM_JOB_ID-XXXXXX")
od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "$secret/token"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$secret/token
unset RAY_AUTH_TOKEN

steps=()
extract=
stop() {
    trap - EXIT
    # Ray ends its workers itself; the rest goes with the job.
    if ((${#steps[@]})); then
        kill "${steps[@]}" 2> /dev/null || true
    fi
    wait
    srun --nodes="${#nodes[@]}" --ntasks="${#nodes[@]}" rm -rf "$ray_folder" || true
    rm -rf "$secret"
}
trap stop EXIT

again() {
    trap '' TERM
    echo "the time is up; the job goes on when it is its turn again"
    if [[ -n $extract ]]; then
        kill "$extract" || true
        wait "$extract" || true
    fi
    stop
    scontrol requeue "$SLURM_JOB_ID"
    exit 1
}
trap again TERM

options=(--num-cpus="$cpus" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" --object-store-memory=100000000
    --disable-usage-stats --block)
srun --nodes=1 --ntasks=1 --cpus-per-task="$cpus" --nodelist="$head" \
    ray start --head --node-ip-address="$address" --port="$port" --temp-dir="$ray_folder" \
    --include-dashboard=false "${options[@]}" > /dev/null &
steps+=($!)
for ((tries = 0; ; tries++)); do
    (: < "/dev/tcp/$address/$port") 2> /dev/null && break
    if ((tries == 600)) || ! kill -0 "${steps[0]}"; then
        echo "Ray has not started on $head; see $ray_folder/session_latest/logs there" >&2
        exit 1
    fi
    sleep 1
done
if ((${#nodes[@]} > 1)); then
    others=$((${#nodes[@]} - 1))
    srun --nodes="$others" --ntasks="$others" --cpus-per-task="$cpus" --exclude="$head" \
        ray start --address="$address:$port" "${options[@]}" > /dev/null &
    steps+=($!)
fi

# It begins on the nodes that are there, and takes up the others as they come. In the background,
# because bash heeds a signal only between two commands.
flowprep extract "$@" --address "$address:$port" &
extract=$!
code=0
wait "$extract" || code=$?
exit "$code"
