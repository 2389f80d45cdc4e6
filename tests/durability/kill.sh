#!/usr/bin/env bash
# Kills a firewall under load with SIGKILL, again and again, and holds its journal against what the
# server received: kill.py. Usage: kill.sh [CYCLES [FIREWALLS_SIDE_BY_SIDE]]. Needs python3.
set -euo pipefail
cd "$(dirname "$0")"
. ./stage.sh
exec python3 kill.py "${1:-20}" "${2:-$(nproc)}"
