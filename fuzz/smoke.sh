#!/usr/bin/env bash
# Builds every fuzz target and runs each for a short while on its seeds and a scratch corpus.
# FUZZ_SECONDS says for how long (default 15), FUZZ_SEED where the mutations begin (default 1, so
# that a run can be repeated; long.sh explores). A finding is printed with its input in Base64.
# Installs cargo-fuzz under $BARTIZAN_CACHE if missing.
set -euo pipefail
cd "$(dirname "$0")"

cache=${BARTIZAN_CACHE:-$HOME/.cache/bartizan}
seconds=${FUZZ_SECONDS:-15}
export PATH=$cache/tools/bin:$PATH
# A sanitizer's build shares nothing with the others.
export CARGO_TARGET_DIR=$cache/fuzz-target

if ! cargo fuzz --version >/dev/null 2>&1; then
    cargo install cargo-fuzz --locked --root "$cache/tools"
fi
# The sanitizer flags are unstable: a nightly compiler where there is one, else the stable one told
# to accept them.
fuzz=(cargo fuzz)
if cargo +nightly --version >/dev/null 2>&1; then
    fuzz=(cargo +nightly fuzz)
else
    export RUSTC_BOOTSTRAP=1
fi

cd ..
"${fuzz[@]}" build
for target in $("${fuzz[@]}" list); do
    printf '+ fuzz %s for %s s\n' "$target" "$seconds"
    corpus=$(mktemp -d)
    if ! "${fuzz[@]}" run "$target" "$corpus" "fuzz/seeds/$target" -- -seed="${FUZZ_SEED:-1}" \
        -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 -dict=fuzz/json.dict \
        >"$corpus.log" 2>&1; then
        # The panic's message stands before a long backtrace, the input after it.
        grep -n -A 3 -e 'panicked at' -e 'ERROR: libFuzzer' -e '^Base64' "$corpus.log" | cut -c 1-2000
        printf 'fuzz %s: a finding; the whole log is %s\n' "$target" "$corpus.log"
        exit 1
    fi
    tail -n 1 "$corpus.log"
    rm -rf "$corpus" "$corpus.log"
done
