# Sourced by full.sh and kill.sh, in their folder: sets ROOT and BARTIZAN.
ROOT=$(cd ../.. && pwd)
BARTIZAN=${BARTIZAN:-${CARGO_TARGET_DIR:-$ROOT/target}/debug/bartizan}
export BARTIZAN PYTHONDONTWRITEBYTECODE=1
if [[ ! -x $BARTIZAN ]]; then
    echo "${0##*/}: no binary at $BARTIZAN; run \`cargo build\`, or set BARTIZAN" >&2
    exit 2
fi
