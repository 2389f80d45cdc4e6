#!/usr/bin/env bash
# Firewalls that share a real Redis: the scripts (crates/replicas/tests), then redis.py, which plays
# two of them. Needs cargo, python3 and redis-server; the last one is installed with apt if it is
# absent. With VALKEY=1 it is valkey-server instead, which must be there.
set -euo pipefail
cd "$(dirname "$0")"

ROOT=$(cd ../.. && pwd)
BARTIZAN=${BARTIZAN:-${CARGO_TARGET_DIR:-$ROOT/target}/debug/bartizan}
REDIS=redis-server
[[ -z ${VALKEY:-} ]] || REDIS=valkey-server
export ROOT BARTIZAN REDIS PYTHONDONTWRITEBYTECODE=1

if ! command -v "$REDIS" >/dev/null; then
    ./apt.sh "$REDIS" || { echo "redis.sh: $REDIS is needed" >&2; exit 2; }
fi
if [[ ! -x $BARTIZAN ]]; then
    echo "redis.sh: no binary at $BARTIZAN; run \`cargo build\`, or set BARTIZAN" >&2
    exit 2
fi

work=$(mktemp -d)
server=
trap '[[ -z $server ]] || kill "$server"; rm -rf "$work"' EXIT
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$REDIS" --port "$port" --bind 127.0.0.1 --dir "$work" --save '' --appendonly no >"$work/redis.log" &
server=$!
until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    kill -0 "$server" || { cat "$work/redis.log" >&2; exit 1; }
    sleep 0.05
done
export REPLICAS_TEST_PORT=$port
(cd "$ROOT" && cargo test --locked -p bartizan-replicas --test server -- --ignored)

python3 redis.py
