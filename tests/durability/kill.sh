#!/usr/bin/env bash
# Kills a firewall under load with SIGKILL, again and again, and holds its journal against what the
# server received: kill.py. Usage: kill.sh [CYCLES]. Needs python3.
set -euo pipefail
cd "$(dirname "$0")"
ROOT=$(cd ../.. && pwd)
BARTIZAN=${BARTIZAN:-${CARGO_TARGET_DIR:-$ROOT/target}/debug/bartizan}
export BARTIZAN PYTHONDONTWRITEBYTECODE=1
if [[ ! -x $BARTIZAN ]]; then
    echo "kill.sh: no binary at $BARTIZAN; run \`cargo build\`, or set BARTIZAN" >&2
    exit 2
fi
exec python3 kill.py "${1:-20}"
