#!/usr/bin/env bash
# A firewall whose state directory is a tmpfs of 24 MiB that becomes full, and then has room again:
# full.py. Needs python3 and the right to mount; without that right it says so and tests nothing.
set -euo pipefail
cd "$(dirname "$0")"
ROOT=$(cd ../.. && pwd)
BARTIZAN=${BARTIZAN:-${CARGO_TARGET_DIR:-$ROOT/target}/debug/bartizan}
export BARTIZAN PYTHONDONTWRITEBYTECODE=1
if [[ ! -x $BARTIZAN ]]; then
    echo "full.sh: no binary at $BARTIZAN; run \`cargo build\`, or set BARTIZAN" >&2
    exit 2
fi
STATE=$(mktemp -d)
if ! mount -t tmpfs -o size=24m,mode=700 bartizan-full "$STATE" 2>/dev/null; then
    rmdir "$STATE"
    echo "full.sh: skipped: a tmpfs may not be mounted here" >&2
    exit 0
fi
trap 'umount "$STATE"; rmdir "$STATE"' EXIT
python3 full.py "$STATE"
