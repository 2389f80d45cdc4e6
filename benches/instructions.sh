#!/usr/bin/env bash
# Compares the instructions that the firewall runs for one call, refusal, list, event and large
# answer with those in instructions.json; `--write` records them there. See instructions.rs.
#
# valgrind is taken from PATH, or unpacked (not installed) from Debian's package under
# $BARTIZAN_CACHE. The figures are of x86-64 Linux; elsewhere there is nothing to compare with.
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ $(uname -sm) != 'Linux x86_64' ]]; then
    echo "instructions.sh: the recorded figures are of x86-64 Linux; nothing is compared here" >&2
    exit 0
fi

if ! command -v valgrind >/dev/null; then
    root=${BARTIZAN_CACHE:-$HOME/.cache/bartizan}/valgrind
    if [[ ! -d $root ]]; then
        rm -rf "$root.part"
        mkdir -p "$root.part"
        (cd "$root.part" && apt-get download -qq valgrind >&2 && dpkg --extract valgrind_*.deb . && rm valgrind_*.deb)
        mv "$root.part" "$root"
    fi
    export PATH=$root/usr/bin:$PATH
    export VALGRIND_LIB=$root/usr/libexec/valgrind
fi

exec cargo bench --quiet --locked --profile release --bench instructions -- "$@"
