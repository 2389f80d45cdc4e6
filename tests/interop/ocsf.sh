#!/usr/bin/env bash
# What `audit export` writes, as others read it: OCSF events against the published schema, and
# OTLP/JSON with the official messages. Needs python 3.10 or later, and network the first time;
# installs under $BARTIZAN_CACHE.
set -euo pipefail
cd "$(dirname "$0")"

ROOT=$(cd ../.. && pwd)
BARTIZAN=${BARTIZAN:-${CARGO_TARGET_DIR:-$ROOT/target}/debug/bartizan}
CACHE=${BARTIZAN_CACHE:-$HOME/.cache/bartizan}/ocsf
export ROOT BARTIZAN PYTHONDONTWRITEBYTECODE=1

mkdir -p "$CACHE"
if ! cmp -s requirements-ocsf.txt "$CACHE/requirements.txt" || [[ ! -x $CACHE/venv/bin/python ]]; then
    rm -rf "$CACHE/venv"
    python3 -m venv "$CACHE/venv"
    "$CACHE/venv/bin/pip" install --quiet --disable-pip-version-check -r requirements-ocsf.txt
    cp requirements-ocsf.txt "$CACHE/requirements.txt"
fi
if [[ ! -x $BARTIZAN ]]; then
    echo "ocsf.sh: no binary at $BARTIZAN; run \`cargo build\`, or set BARTIZAN" >&2
    exit 2
fi
exec "$CACHE/venv/bin/python" ocsf.py
