#!/usr/bin/env bash
# Official MCP clients and servers, at pinned versions, directly and through Bartizan: what a client
# sees must be the same. Needs node 20 or later, npm, python 3.10 or later, and network the first
# time; installs under $BARTIZAN_CACHE. Arguments go to harness.py (--direct, --only WORD); `oauth`
# alone plays oauth/run.py, `webhooks` alone webhooks.py, `sign-in` alone sign_in.py, `holds` alone
# holds.py (`holds WORD`: of it what holds that word); they come last without any. `console` plays
# console/run.py, for console.sh.
set -euo pipefail
cd "$(dirname "$0")"

ROOT=$(cd ../.. && pwd)
INTEROP=${BARTIZAN_CACHE:-$HOME/.cache/bartizan}/interop
BARTIZAN=${BARTIZAN:-${CARGO_TARGET_DIR:-$ROOT/target}/debug/bartizan}
RMCP_CLIENT=${RMCP_CLIENT:-${CARGO_TARGET_DIR:-$ROOT/target}/debug/examples/interop-client}
export ROOT INTEROP BARTIZAN RMCP_CLIENT PYTHONDONTWRITEBYTECODE=1

for tool in node npm python3; do
    command -v "$tool" >/dev/null || { echo "run.sh: $tool is needed" >&2; exit 2; }
done
if [[ ! -x $BARTIZAN ]]; then
    echo "run.sh: no binary at $BARTIZAN; run \`cargo build\`, or set BARTIZAN" >&2
    exit 2
fi
if [[ ${1:-holds} == holds && ! -x $RMCP_CLIENT ]]; then
    echo "run.sh: no binary at $RMCP_CLIENT; run \`cargo build --example interop-client\`" >&2
    exit 2
fi

# Installs only when what is pinned has changed.
mkdir -p "$INTEROP"
if ! cmp -s package.json "$INTEROP/package.json" || [[ ! -d $INTEROP/node_modules ]]; then
    rm -rf "$INTEROP/node_modules"
    cp package.json "$INTEROP/package.json"
    (cd "$INTEROP" && npm install --no-package-lock --no-audit --no-fund --ignore-scripts --loglevel=error)
fi
if ! cmp -s requirements.txt "$INTEROP/requirements.txt" || [[ ! -x $INTEROP/venv/bin/python ]]; then
    rm -rf "$INTEROP/venv"
    python3 -m venv "$INTEROP/venv"
    "$INTEROP/venv/bin/pip" install --quiet --disable-pip-version-check -r requirements.txt
    cp requirements.txt "$INTEROP/requirements.txt"
fi
# Module resolution wants the clients beside node_modules.
cp ./*.mjs ./*.cjs client.py scenario.*.json "$INTEROP/"
mkdir -p "$INTEROP/oauth"
cp oauth/*.mjs "$INTEROP/oauth/"

python=$INTEROP/venv/bin/python
[[ ${1:-} != oauth ]] || exec "$python" oauth/run.py
[[ ${1:-} != holds ]] || exec "$python" holds.py "${@:2}"
[[ ${1:-} != sign-in ]] || exec "$python" sign_in.py
[[ ${1:-} != webhooks ]] || exec "$python" webhooks.py
[[ ${1:-} != console ]] || exec "$python" console/run.py "${@:2}"
"$python" harness.py "$@"
if [[ $# -eq 0 ]]; then
    "$python" holds.py
    "$python" sign_in.py
    "$python" webhooks.py
    exec "$python" oauth/run.py
fi
