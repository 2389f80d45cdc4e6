#!/usr/bin/env bash
# A firewall whose state directory is a tmpfs of 24 MiB that becomes full, and then has room again:
# full.py. Needs python3 and the right to mount; without that right it says so and tests nothing.
set -euo pipefail
cd "$(dirname "$0")"
. ./stage.sh
STATE=$(mktemp -d)
if ! mount -t tmpfs -o size=24m,mode=700 bartizan-full "$STATE" 2>/dev/null; then
    rmdir "$STATE"
    echo "full.sh: skipped: a tmpfs may not be mounted here" >&2
    exit 0
fi
trap 'umount "$STATE"; rmdir "$STATE"' EXIT
python3 full.py "$STATE"
