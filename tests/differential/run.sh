#!/usr/bin/env bash
# Other JSON parsers must read every message that the gate would forward as the gate does: see
# README.md.
# Arguments: how many documents (default 50000), the first seed (default 1). Needs cargo, node 20 or
# later, python 3.10 or later, and network the first time; installs under $BARTIZAN_CACHE.
set -euo pipefail
cd "$(dirname "$0")"

ROOT=$(cd ../.. && pwd)
export DIFFERENTIAL=${BARTIZAN_CACHE:-$HOME/.cache/bartizan}/differential
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$ROOT/target} PYTHONDONTWRITEBYTECODE=1
export DOCUMENTS=$CARGO_TARGET_DIR/debug/examples/documents

for tool in cargo node python3; do
    command -v "$tool" >/dev/null || { echo "run.sh: $tool is needed" >&2; exit 2; }
done

# Installs only when what is pinned has changed.
mkdir -p "$DIFFERENTIAL"
if ! cmp -s requirements.txt "$DIFFERENTIAL/requirements.txt"; then
    rm -rf "$DIFFERENTIAL/venv"
    python3 -m venv "$DIFFERENTIAL/venv"
    "$DIFFERENTIAL/venv/bin/pip" install --quiet --disable-pip-version-check -r requirements.txt
    cp requirements.txt "$DIFFERENTIAL/requirements.txt"
fi

# The standard library is all that the Go readers need. The second version of encoding/json is
# there only where it is asked for.
go() {
    GO111MODULE=off GOTOOLCHAIN=local GOFLAGS='' GOPATH=$DIFFERENTIAL/gopath \
        GOCACHE=$DIFFERENTIAL/gocache "$DIFFERENTIAL/venv/bin/go" "$@"
}
(
    cd go
    go build -o "$DIFFERENTIAL/read-v1" read.go
    GOEXPERIMENT=jsonv2 go build -o "$DIFFERENTIAL/read-v2" read.go read_v2.go
)
cargo build --quiet --locked --example documents --manifest-path "$ROOT/Cargo.toml"

exec "$DIFFERENTIAL/venv/bin/python" compare.py "${@:-50000}"
