#!/usr/bin/env bash
# The page of `bartizan assess` in a real browser (Debian's chromium): assesses the stand-in for
# Statsig's server and writes screenshots, light and dark. Arguments: the program, and the directory
# for the images (default: docs/images).
set -euo pipefail
cd "$(dirname "$0")/../.."

bartizan=${1:-target/debug/bartizan}
images=${2:-docs/images}
work=$(mktemp -d)
trap 'kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT

command -v chromium >/dev/null || tests/interop/apt.sh chromium fonts-dejavu-core

"$bartizan" demo --server-only --vendor statsig-v1 >"$work/address" &
server=$!
for _ in $(seq 100); do
    [[ -s $work/address ]] && break
    sleep 0.1
done
"$bartizan" assess "$(cat "$work/address")" --header 'statsig-api-key: console-demo' \
    --pack statsig-v1 --cvss 6.5 --format html -o "$work/page.html"

shot() {
    chromium --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --hide-scrollbars \
        --user-data-dir="$work/profile" --window-size=1280,1500 "${@:2}" \
        --screenshot="$work/$1.png" "file://$work/page.html" >/dev/null 2>&1
    mv "$work/$1.png" "$images/$1.png"
}
shot assess-light
shot assess-dark --blink-settings=preferredColorScheme=0
