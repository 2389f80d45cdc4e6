#!/usr/bin/env bash
# Runs fuzz targets for long, in turn, with a corpus that stays: `fuzz/long.sh session http1`, or
# without arguments all of them. FUZZ_SECONDS is the time for each turn (default 300), FUZZ_TURNS
# how often each has its turn (default 1), FUZZ_DIR where corpus, logs and findings go (default
# fuzz/corpus). Prints executions after each turn.
#
# Built without a sanitizer, because none of our code is unsafe, and counting coverage in our crates
# and in those that read HTTP only (rustc-own.sh): several times faster than smoke.sh, which has both.
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${BARTIZAN_CACHE:-$HOME/.cache/bartizan}
export PATH=$cache/tools/bin:$PATH
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/fuzz-long-target}
export RUSTC_WRAPPER=$PWD/fuzz/rustc-own.sh
dir=${FUZZ_DIR:-fuzz/corpus}
fuzz=(cargo fuzz)
if cargo +nightly --version >/dev/null 2>&1; then
    fuzz=(cargo +nightly fuzz)
else
    export RUSTC_BOOTSTRAP=1
fi
"${fuzz[@]}" build -s none --no-trace-compares
targets=("$@")
if ((${#targets[@]} == 0)); then
    mapfile -t targets < <("${fuzz[@]}" list)
fi

binaries=$CARGO_TARGET_DIR/$(rustc -vV | sed -n 's/^host: //p')/release
for ((turn = 0; turn < ${FUZZ_TURNS:-1}; turn++)); do
    for target in "${targets[@]}"; do
        mkdir -p "$dir/$target" "$dir/findings"
        "$binaries/$target" "$dir/$target" "fuzz/seeds/$target" -max_total_time="${FUZZ_SECONDS:-300}" \
            -max_len=1024 -entropic=0 -rss_limit_mb=2048 -timeout=10 -dict=fuzz/json.dict \
            -artifact_prefix="$dir/findings/$target-" -print_final_stats=1 >>"$dir/$target.log" 2>&1
        printf '%s: %s executions, %s a second\n' "$target" \
            "$(tail -n 20 "$dir/$target.log" | sed -n 's/^stat::number_of_executed_units: *//p')" \
            "$(tail -n 20 "$dir/$target.log" | sed -n 's/^stat::average_exec_per_sec: *//p')"
    done
done
