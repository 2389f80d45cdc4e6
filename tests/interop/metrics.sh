#!/usr/bin/env bash
# A real Prometheus scrapes a firewall under calls: metrics.py. Needs python3, and Debian's prometheus,
# which brings promtool; it is installed with apt if it is absent.
set -euo pipefail
cd "$(dirname "$0")"

ROOT=$(cd ../.. && pwd)
BARTIZAN=${BARTIZAN:-${CARGO_TARGET_DIR:-$ROOT/target}/debug/bartizan}
export ROOT BARTIZAN PYTHONDONTWRITEBYTECODE=1

if ! { command -v prometheus && command -v promtool; } >/dev/null; then
    ./apt.sh prometheus || { echo "metrics.sh: prometheus and promtool are needed" >&2; exit 2; }
fi
if [[ ! -x $BARTIZAN ]]; then
    echo "metrics.sh: no binary at $BARTIZAN; run \`cargo build\`, or set BARTIZAN" >&2
    exit 2
fi
exec python3 metrics.py
