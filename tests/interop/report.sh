#!/usr/bin/env bash
# The page of `audit report` in a real browser (Debian's chromium, by WebDriver): console/report.py.
# Needs python3, npm, and network the first time; installs the browser with apt if it is not there,
# and axe-core under $BARTIZAN_CACHE. Arguments go to report.py (--screenshots DIR).
set -euo pipefail
cd "$(dirname "$0")"

ROOT=$(cd ../.. && pwd)
CACHE=${BARTIZAN_CACHE:-$HOME/.cache/bartizan}
AXE=$CACHE/console
INTEROP=$CACHE/interop
BARTIZAN=${BARTIZAN:-${CARGO_TARGET_DIR:-$ROOT/target}/debug/bartizan}
RMCP_CLIENT=
export ROOT AXE INTEROP BARTIZAN RMCP_CLIENT PYTHONDONTWRITEBYTECODE=1

if ! command -v chromium >/dev/null || ! command -v chromedriver >/dev/null; then
    ./apt.sh chromium chromium-driver fonts-dejavu-core || {
        echo 'report.sh: chromium and chromedriver are needed' >&2
        exit 2
    }
fi
if [[ ! -x $BARTIZAN ]]; then
    echo "report.sh: no binary at $BARTIZAN; run \`cargo build\`, or set BARTIZAN" >&2
    exit 2
fi

# Installs only when what is pinned has changed.
mkdir -p "$AXE"
if ! cmp -s console/package.json "$AXE/package.json" || [[ ! -d $AXE/node_modules ]]; then
    rm -rf "$AXE/node_modules"
    cp console/package.json "$AXE/package.json"
    (cd "$AXE" && npm install --no-package-lock --no-audit --no-fund --ignore-scripts --loglevel=error)
fi

exec python3 console/report.py "$@"
