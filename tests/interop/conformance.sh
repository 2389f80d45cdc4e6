#!/usr/bin/env bash
# The official MCP conformance tool, directly and through Bartizan: each check must come out the
# same. Needs npm, python 3.10 or later, and network the first time; installs under
# $BARTIZAN_CACHE, node 22 included. Arguments go to conformance/run.py (--full, --only WORD, --keep DIR).
set -euo pipefail
cd "$(dirname "$0")"

NODE_VERSION=22.23.3

ROOT=$(cd ../.. && pwd)
CONFORMANCE=${BARTIZAN_CACHE:-$HOME/.cache/bartizan}/conformance
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
BARTIZAN=${BARTIZAN:-$TARGET/debug/bartizan}
FIXTURE=${FIXTURE:-$TARGET/debug/examples/conformance-server}
export ROOT CONFORMANCE BARTIZAN FIXTURE PYTHONDONTWRITEBYTECODE=1

for tool in node npm python3; do
    command -v "$tool" >/dev/null || { echo "conformance.sh: $tool is needed" >&2; exit 2; }
done
if [[ ! -x $BARTIZAN || ! -x $FIXTURE ]]; then
    echo "conformance.sh: no binary at $BARTIZAN or $FIXTURE; run \`cargo build --bin bartizan --example conformance-server\`" >&2
    exit 2
fi

# Installs only when what is pinned has changed. The tool needs node 22; the one at hand is older
# on many machines, and npm runs on it all the same.
platform=$(node -p '`${process.platform}-${process.arch}`')
pinned="$(cat conformance/package.json) node-$platform@$NODE_VERSION"
mkdir -p "$CONFORMANCE"
if [[ ! -f $CONFORMANCE/pinned || $(<"$CONFORMANCE/pinned") != "$pinned" ]]; then
    rm -rf "$CONFORMANCE/node_modules" "$CONFORMANCE/pinned"
    cp conformance/package.json "$CONFORMANCE/package.json"
    (cd "$CONFORMANCE" && npm install --no-package-lock --no-audit --no-fund --ignore-scripts --loglevel=error \
        --save-exact "node-$platform@$NODE_VERSION")
    printf '%s\n' "$pinned" >"$CONFORMANCE/pinned"
fi
PATH=$CONFORMANCE/node_modules/node-$platform/bin:$PATH
# Module resolution wants the fixtures beside node_modules.
cp conformance/*.mjs conformance/*.cjs "$CONFORMANCE/"

exec python3 conformance/run.py "$@"
