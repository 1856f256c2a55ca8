#!/bin/bash
# Joins a machine to the cluster of `head.sh`, until Ctrl-C:
#
#     worker.sh HEAD:PORT
#
# The token must lie in ~/.ray/auth_token (or in RAY_AUTH_TOKEN_PATH), as `head.sh` says. CPUS and
# GPUS limit what it gives. Ports PORT to PORT + 999 must be open between the machines.

set -euo pipefail
head=${1:?usage: worker.sh HEAD:PORT}
port=${PORT:-${head##*:}}
token=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}
if [[ ! -s $token ]]; then
    echo "no token in $token; copy it from the head, as head.sh says" >&2
    exit 1
fi
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$token
unset RAY_AUTH_TOKEN

exec ray start --address="$head" \
    --node-manager-port=$((port + 1)) --object-manager-port=$((port + 2)) \
    --runtime-env-agent-port=$((port + 3)) --dashboard-agent-grpc-port=$((port + 4)) \
    --dashboard-agent-listen-port=$((port + 5)) --metrics-export-port=$((port + 6)) \
    --min-worker-port=$((port + 10)) --max-worker-port=$((port + 999)) \
    ${CPUS:+--num-cpus="$CPUS"} ${GPUS:+--num-gpus="$GPUS"} \
    --disable-usage-stats --object-store-memory=100000000 --block
