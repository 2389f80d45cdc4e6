#!/usr/bin/env bash
# Holds a firewall to its bounds while the disk hangs: hang.py. Needs python3 and a C compiler. Skips
# itself where the compiler or the dynamic linker of glibc is missing.
set -euo pipefail
cd "$(dirname "$0")"
. ./stage.sh
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
if ! cc -shared -fPIC -O1 -o "$WORK/hang.so" hang.c -ldl 2>"$WORK/cc.log"; then
    echo "hang.sh: skipped: hang.c cannot be compiled here: $(head -1 "$WORK/cc.log")" >&2
    exit 0
fi
python3 hang.py "$WORK/hang.so"
