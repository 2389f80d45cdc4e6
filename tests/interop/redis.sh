#!/usr/bin/env bash
# Firewalls that share a real Redis: the scripts (crates/replicas/tests), then redis.py, which plays
# two of them; then redis.py with Debian's Valkey, where apt has one (from Debian 13 on). Needs cargo,
# python3, openssl and redis-server; the last two are installed with apt if they are absent, and
# valkey-server if there is one.
set -euo pipefail
cd "$(dirname "$0")"

ROOT=$(cd ../.. && pwd)
BARTIZAN=${BARTIZAN:-${CARGO_TARGET_DIR:-$ROOT/target}/debug/bartizan}
REDIS=redis-server
export ROOT BARTIZAN REDIS PYTHONDONTWRITEBYTECODE=1

if ! { command -v "$REDIS" && command -v openssl; } >/dev/null; then
    ./apt.sh "$REDIS" openssl || { echo "redis.sh: $REDIS and openssl are needed" >&2; exit 2; }
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

if ! command -v valkey-server >/dev/null && [[ -n $(apt-cache show valkey-server 2>/dev/null) ]]; then
    ./apt.sh valkey-server
fi
if command -v valkey-server >/dev/null; then
    echo "the same with Valkey"
    REDIS=valkey-server python3 redis.py
else
    echo "skipped  Valkey: apt has none"
fi
