#!/usr/bin/env bash
# The console in a real browser (Debian's chromium, by WebDriver): a person grants and refuses calls
# while official clients wait. Needs what run.sh needs; installs the browser with apt if it is not
# there, and axe-core under $BARTIZAN_CACHE. Arguments go to console/run.py (--screenshots DIR).
set -euo pipefail
cd "$(dirname "$0")"

AXE=${BARTIZAN_CACHE:-$HOME/.cache/bartizan}/console
export AXE

if ! command -v chromium >/dev/null || ! command -v chromedriver >/dev/null; then
    ./apt.sh chromium chromium-driver fonts-dejavu-core || {
        echo 'console.sh: chromium and chromedriver are needed' >&2
        exit 2
    }
fi

# Installs only when what is pinned has changed.
mkdir -p "$AXE"
if ! cmp -s console/package.json "$AXE/package.json" || [[ ! -d $AXE/node_modules ]]; then
    rm -rf "$AXE/node_modules"
    cp console/package.json "$AXE/package.json"
    (cd "$AXE" && npm install --no-package-lock --no-audit --no-fund --ignore-scripts --loglevel=error)
fi

exec ./run.sh console "$@"
