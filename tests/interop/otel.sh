#!/usr/bin/env bash
# A real OpenTelemetry collector (rotel, from PyPI) is away while calls go on, and comes back: otel.py.
# `--away SECONDS` says for how long (default 20). Needs python 3.10 or later, and network the first
# time; installs under $BARTIZAN_CACHE.
set -euo pipefail
cd "$(dirname "$0")"

ROOT=$(cd ../.. && pwd)
CACHE=${BARTIZAN_CACHE:-$HOME/.cache/bartizan}/otel
BARTIZAN=${BARTIZAN:-${CARGO_TARGET_DIR:-$ROOT/target}/debug/bartizan}
export ROOT BARTIZAN PYTHONDONTWRITEBYTECODE=1

if [[ ! -x $BARTIZAN ]]; then
    echo "otel.sh: no binary at $BARTIZAN; run \`cargo build\`, or set BARTIZAN" >&2
    exit 2
fi
mkdir -p "$CACHE"
if ! cmp -s requirements-otel.txt "$CACHE/requirements.txt" || [[ ! -x $CACHE/venv/bin/python ]]; then
    rm -rf "$CACHE/venv"
    python3 -m venv "$CACHE/venv"
    "$CACHE/venv/bin/pip" install --quiet --disable-pip-version-check -r requirements-otel.txt
    cp requirements-otel.txt "$CACHE/requirements.txt"
fi
exec "$CACHE/venv/bin/python" otel.py "$@"
