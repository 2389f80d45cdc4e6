#!/usr/bin/env bash
# Builds the release binary (profile `dist`) into a folder (default target/dist-out). The binary is
# stripped; its debug symbols are in a file beside it, which debuggers find through its debug link.
#
#   deploy/dist.sh [FOLDER]
#
# Needs Rust, a C compiler and binutils (objcopy).
set -euo pipefail
cd "$(dirname "$0")/.."

out=${1:-target/dist-out}
built=${CARGO_TARGET_DIR:-target}/dist/bartizan
cargo build --profile dist --locked --bin bartizan
mkdir -p "$out"
objcopy --only-keep-debug "$built" "$out/bartizan.debug"
objcopy --strip-all "$built" "$out/bartizan"
(cd "$out" && objcopy --add-gnu-debuglink=bartizan.debug bartizan)
chmod 0755 "$out/bartizan"
chmod 0644 "$out/bartizan.debug"
ls -l "$out"
