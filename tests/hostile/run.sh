#!/usr/bin/env bash
# Attacks a whole Bartizan beside ten benign agents, and prints what each attack costs them.
# Arguments are names of cases (attacks.py); without any, all of them and then all at once.
#   HOSTILE_SHORT=1     the form of .ci/run: 1 s for a case, bounds with room for a loaded machine
#   HOSTILE_SECONDS=20  how long each attack lasts
#   HOSTILE_WORK=DIR    keeps the logs there
#   BARTIZAN=FILE       a binary instead of `cargo build --release`
# Needs Python 3.11 or later, of which it uses the standard library alone, and 20,000 file descriptors for the full form.
set -euo pipefail
cd "$(dirname "$0")/../.."

if [[ -z ${BARTIZAN:-} ]]; then
    cargo build --release --locked --bin bartizan
    target=${CARGO_TARGET_DIR:-target}
    BARTIZAN=$(realpath "$target")/release/bartizan
fi
export BARTIZAN
ulimit -n "$(ulimit -H -n)"
# A session of its own is a scheduling group of its own.
PYTHONDONTWRITEBYTECODE=1 exec setsid -w python3 tests/hostile/hostile.py "$@"
