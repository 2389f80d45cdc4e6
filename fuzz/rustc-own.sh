#!/usr/bin/env bash
# A compiler for long fuzz runs (RUSTC_WRAPPER): other people's crates get no coverage counters, but
# for those that read what a client sends. The fuzzer then spends its time on our code, and what it
# counts after each run is a quarter. Checks stay what they are.
set -euo pipefail
rustc=$1
shift
case "${CARGO_PKG_NAME:-}" in
    bartizan* | hyper | hyper-util | httparse | http | h2) exec "$rustc" "$@" ;;
esac
kept=()
for argument in "$@"; do
    case $argument in
        -Cpasses=sancov* | -Cllvm-args=-sanitizer-coverage*) ;;
        *) kept+=("$argument") ;;
    esac
done
exec "$rustc" "${kept[@]}"
