#!/bin/bash
# Starts Ray on the first of several machines, until Ctrl-C:
#
#     head.sh [ADDRESS]       ADDRESS is this machine's, as the others reach it
#
# Then `worker.sh` on each of the others; then, on this one, what this script prints.
# Ports PORT to PORT + 999 (6379 to 7378) must be open between the machines, and to nobody else.

set -euo pipefail
address=${1:-$(hostname -I | awk '{ print $1 }')}
port=${PORT:-6379}
token=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}

# Ray takes commands from all who know the token.
if [[ ! -s $token ]]; then
    (
        umask 077
        mkdir -p "$(dirname "$token")"
        od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "$token"
    )
fi
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$token
unset RAY_AUTH_TOKEN

cat << END
On each other machine, with the same flowprep, Ray and Python:
    mkdir -p ~/.ray && scp -p $(hostname):$token ~/.ray/auth_token
    examples/cluster/worker.sh $address:$port
Here, in another terminal:
    export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$token
    flowprep extract VIDEOS OUT --address $address:$port
END

exec ray start --head --node-ip-address="$address" --port="$port" \
    --node-manager-port=$((port + 1)) --object-manager-port=$((port + 2)) \
    --runtime-env-agent-port=$((port + 3)) --dashboard-agent-grpc-port=$((port + 4)) \
    --dashboard-agent-listen-port=$((port + 5)) --metrics-export-port=$((port + 6)) \
    --ray-client-server-port=$((port + 7)) \
    --min-worker-port=$((port + 10)) --max-worker-port=$((port + 999)) \
    --include-dashboard=false --disable-usage-stats --object-store-memory=100000000 --block
